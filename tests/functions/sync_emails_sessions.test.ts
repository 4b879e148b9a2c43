/** Logins: how many there are, what a refusal means, and waiting where the server asks for it. */

import assert from "node:assert/strict";
import { PermanentFailure, RetryLater } from "../../supabase/functions/_shared/serve.ts";
import { ImapServer, letter } from "./imap_server.ts";
import { MailSync, test, upTo } from "./mail_syncing.ts";
import { until } from "./project.ts";

/** A server that answers so many logins with a line. */
function refusing(answer: string, times = Infinity): ImapServer {
  return new ImapServer([letter(1)], async ({ name, tag }, session) => {
    if (name !== "LOGIN" || session.server.logins > times) return false;
    await session.say(`${tag} ${answer}`);
    return true;
  });
}

const FOR_GOOD = [
  "NO [AUTHENTICATIONFAILED] Invalid login or password for corporate@example.com",
  "NO [AUTHENTICATIONFAILED] Login denied, please generate an app password",
  "NO [AUTHENTICATIONFAILED] Authentication failed (too many failed attempts use up the limit)",
  "NO [AUTHORIZATIONFAILED] No access to this mailbox",
  "NO [EXPIRED] That password is no longer valid",
  "NO [PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure connections",
  "NO [CONTACTADMIN] Your account is disabled",
  "NO [ALERT] Please log in via your web browser: https://mail.example.com/ (Failure)",
  "NO Login failed: unknown user or separate password needed",
  "NO LOGIN failed.",
];

test("a login that is refused for good fails at once, whatever words are in the answer", async () => {
  for (const answer of FOR_GOOD) {
    await using server = refusing(answer);
    await using sync = new MailSync(server, { callerMs: 1000 });
    await assert.rejects(sync.run({}), (error) => {
      assert.ok(error instanceof PermanentFailure, `${answer}: ${error}`);
      assert.match(error.message, /refused the login of ann: /);
      return true;
    });
    assert.equal(server.logins, 1);
  }
});

const FOR_NOW = [
  "NO [LIMIT] LOGIN Rate limit hit",
  "NO [UNAVAILABLE] Temporary authentication failure",
  "NO [INUSE] Mailbox is in use",
  "NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)",
  "NO [SERVERBUG] LOGIN Server error - Please try again later",
  "NO [ALERT] Too many simultaneous connections. (Failure)",
  "NO Maximum number of connections from user+IP exceeded",
  "BAD User is authenticated but not connected.",
];

test("a login that is refused for now is waited for, and then handed to another chunk", async () => {
  for (const answer of FOR_NOW) {
    await using server = refusing(answer);
    await using sync = new MailSync(server, { callerMs: 50 });
    const { result, next_chunks } = await sync.run({ folder: "INBOX" });
    assert.match((result as { waited_for: string }).waited_for, /refused the login for now: /, answer);
    assert.deepEqual(next_chunks, [{ folder: "INBOX", hand_overs: 1 }]);
  }
});

test("a login that is accepted after a while costs nothing but the while", async () => {
  await using server = refusing("NO [LIMIT] LOGIN Rate limit hit", 1);
  await using sync = new MailSync(server);
  const answer = await sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 });
  assert.deepEqual([answer.items_processed, server.logins], [1, 2]);
});

test("what has been put off for hours counts as a failure", async () => {
  await using server = refusing("NO [LIMIT] LOGIN Rate limit hit");
  await using sync = new MailSync(server, { callerMs: 50 });
  await assert.rejects(sync.run({ hand_overs: 100 }), RetryLater);
});

test("a server that throttles in the middle is waited for as well", async () => {
  let refusals = 0;
  await using server = new ImapServer([letter(1)], async ({ name, tag }, session) => {
    if (name !== "UID FETCH" || refusals++ > 0) return false;
    await session.say(`${tag} NO [LIMIT] Too many commands`);
    return true;
  });
  await using sync = new MailSync(server);
  assert.equal((await sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 })).items_processed, 1);
});

test("a greeting that says goodbye is a refusal for now", async () => {
  await using server = new ImapServer([]);
  using turningAway = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const connection of turningAway) {
      await connection.write(
        new TextEncoder().encode("* BYE [UNAVAILABLE] Too many connections, try again later\r\n"),
      );
      // A goodbye that its connection's end overtakes is not seen by the library.
      setTimeout(() => connection.close(), 50);
    }
  })().catch(() => {});
  await using sync = new MailSync({ port: turningAway.addr.port } as ImapServer, { callerMs: 50 });
  const { result } = await sync.run({});
  assert.match((result as { waited_for: string }).waited_for, /Too many connections/);
  assert.equal(server.logins, 0);
});

test("one login serves the chunks of an account one after the other, and ends with LOGOUT", async () => {
  await using server = new ImapServer(upTo(50).map((uid) => letter(uid)));
  await using sync = new MailSync(server, { idleMs: 100 });
  const answers = await sync.runAll({ batch_size: 5 });
  assert.deepEqual([answers.length, sync.rows.size, server.logins], [11, 50, 1]);
  assert.equal(server.of("EXAMINE").length, 1);
  await until(() => server.of("LOGOUT").length === 1 && server.open === 0, "the idle session ends");
});

test("chunks at the same time have as many sessions as there are chunks", async () => {
  await using server = new ImapServer(upTo(40).map((uid) => letter(uid)));
  await using sync = new MailSync(server);
  for (let round = 0; round < 3; round++) {
    const ranges = upTo(4).map((at) => ({ uidvalidity: 7, from: 10 * at - 9, to: 10 * at, count: 10 }));
    await Promise.all(ranges.map((range) => sync.run(range)));
  }
  assert.deepEqual([sync.rows.size, server.logins, server.mostOpen], [40, 4, 4]);
});

test("an idle session that the server ended is replaced without a word", async () => {
  await using server = new ImapServer([letter(1)]);
  await using sync = new MailSync(server);
  await sync.run({});
  server.bend = ({ name }, session) => {
    if (name !== "EXAMINE" || server.logins > 1) return false;
    session.drop();
    return true;
  };
  assert.equal((await sync.run({})).items_total, 1);
  assert.equal(server.logins, 2);
});

test("a chunk whose caller is gone gives no session back", async () => {
  const gone = new AbortController();
  await using server = new ImapServer([letter(1)], ({ name }) => {
    if (name !== "UID FETCH") return false;
    gone.abort();
    return true;
  });
  await using sync = new MailSync(server);
  await assert.rejects(sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 }, {}, gone.signal));
  await until(() => server.open === 0, "the session is closed");
});
