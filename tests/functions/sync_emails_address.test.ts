/** Where a user's mail server may be: on the internet. Whatever else it is, the error is one. */

import assert from "node:assert/strict";
import { isPublic, targetsOf, Unreachable } from "../../supabase/functions/sync-emails/address.ts";
import { connect, type Login } from "../../supabase/functions/sync-emails/mailbox.ts";
import { ImapServer, letter } from "./imap_server.ts";
import { test } from "./mail_syncing.ts";

const USERS: Login = {
  account_id: "a",
  host: "mail.example.com",
  port: 993,
  tls: "implicit",
  username: "ann",
  password: "pw",
  public_only: true,
};
const never = new AbortController().signal;

const PRIVATE = [
  // loopback and this host
  ...["127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::"],
  // private, shared, link-local with a cloud's metadata, unique local
  ...["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"],
  ...["169.254.169.254", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1"],
  // IPv4 in IPv6, by every way there is
  ...["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::1"],
  ...["2001::1", "::127.0.0.1", "64:ff9b:1::a00:1"],
  // reserved, multicast, broadcast, documentation
  ...["240.0.0.1", "255.255.255.255", "224.0.0.1", "ff02::1", "192.0.2.1", "198.18.0.1", "2001:db8::1"],
];
const PUBLIC = [
  "8.8.8.8",
  "172.32.0.1",
  "100.128.0.1",
  "192.169.0.1",
  "2606:4700:4700::1111",
  "::ffff:8.8.8.8",
];

test("what is not on the internet is told from what is", () => {
  assert.deepEqual(PRIVATE.filter(isPublic), []);
  assert.deepEqual(PUBLIC.filter((address) => !isPublic(address)), []);
  assert.equal(isPublic("mail.example.com"), false);
  return Promise.resolve();
});

test("a user's server that is private is refused however it is written, and whatever is there", async () => {
  await using server = new ImapServer([letter(1)]);
  const hosts = ["127.0.0.1", "::1", "localhost", "127.1", "0x7f.1", "2130706433", "0", "::ffff:127.0.0.1"];
  for (const host of hosts) {
    for (const port of [server.port, 9]) {
      const login = { ...USERS, host, port, tls: "none" as const };
      await assert.rejects(connect(login, never), (error) => {
        assert.ok(error instanceof Unreachable, `${host}: ${error}`);
        assert.equal(
          error.message,
          `${host}:${port} cannot be reached, or is no mail server on the internet`,
        );
        return true;
      });
    }
  }
  assert.equal(server.mostOpen, 0);
});

test("one address of a name that is private is enough", async () => {
  for (const bad of PRIVATE) {
    await assert.rejects(targetsOf(USERS, () => Promise.resolve(["8.8.8.8", bad])), Unreachable);
  }
});

test("a name that is not there, and a server that does not answer, are the same error", async () => {
  const lost = await targetsOf({ ...USERS, host: "nobody.invalid" }).catch((error) => error);
  const closed = await connect(
    { ...USERS, host: "nobody.invalid" },
    never,
    undefined,
    () => Promise.resolve([{ host: "127.0.0.1", servername: "nobody.invalid" }]),
  ).catch((error) => error);
  assert.ok(lost instanceof Unreachable && closed instanceof Unreachable);
  assert.equal(lost.message, closed.message);
  assert.equal(lost.seconds, closed.seconds);
});

test("an address that was looked at is connected to, by the name's certificate, and no name is looked up again", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const greeting = (async () => {
    const connection = await listener.accept();
    const buffer = new Uint8Array(4096);
    const length = await connection.read(buffer) ?? 0;
    connection.close();
    return new TextDecoder("latin1").decode(buffer.subarray(0, length));
  })();
  const [target] = await targetsOf(USERS, () => Promise.resolve(["2606:4700::1", "8.8.8.8"]));
  assert.deepEqual(target, { host: "8.8.8.8", servername: "mail.example.com" });
  const login = { ...USERS, host: "nobody.invalid", port };
  const find = () => Promise.resolve([{ host: "127.0.0.1", servername: "nobody.invalid" }]);
  await assert.rejects(connect(login, never, undefined, find), Unreachable);
  assert.ok((await greeting).includes("nobody.invalid"), "the name is in the TLS greeting");
});

test("where one address does not answer, the next is tried", async () => {
  await using server = new ImapServer([letter(1)]);
  const login = { ...USERS, tls: "none" as const, port: server.port };
  const find = () => Promise.resolve([{ host: "127.0.0.2" }, { host: "127.0.0.1" }]);
  const client = await connect(login, never, undefined, find);
  await client.logout();
  assert.equal(server.logins, 1);
});

test("a server of the service's may be anywhere, and its error says why", async () => {
  await using server = new ImapServer([letter(1)]);
  const login = { ...USERS, public_only: false, host: "localhost", tls: "none" as const, port: server.port };
  const client = await connect({ ...login, host: "127.0.0.1" }, never);
  await client.logout();
  assert.deepEqual(await targetsOf(login), [{ host: "localhost" }]);
  await assert.rejects(
    connect({ ...login, host: "127.0.0.1", port: 9 }, never),
    /:9 cannot be reached: .*refused/i,
  );
});
