/** Large texts of all chunks together take bounded memory, and no chunk waits for long on another's mail server. */

import assert from "node:assert/strict";
import { Room } from "../../supabase/functions/sync-emails/room.ts";
import { ImapServer, letter, plain } from "./imap_server.ts";
import { MailSync, test, upTo } from "./mail_syncing.ts";

const MB = 1024 * 1024;

test("chunks at the same time have one text of a megabyte in work, from its FETCH until its row is saved", async () => {
  const large = plain("Large", "x".repeat(MB - 1000));
  let inWork = 0;
  let most = 0;
  await using server = new ImapServer(upTo(6).map((uid) => letter(uid, large)), async (command, session) => {
    if (command.name === "UID FETCH" && command.rest.includes("BODY.PEEK[1]")) {
      inWork += session.asked(command).length;
      most = Math.max(most, inWork);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
  await using sync = new MailSync(server);
  sync.keep = (row) => {
    inWork -= 1;
    return { ...row, body_text: `${row.body_text?.length}` };
  };
  await Promise.all(
    [1, 3, 5].map((from) => sync.run({ uidvalidity: 7, from, to: from + 1, count: 2, body: true })),
  );
  assert.deepEqual([...sync.rows.values()].map(({ body_text }) => body_text), Array(6).fill(`${MB - 998}`));
  assert.equal(most, 1);
});

test("of a message whose texts are many and large some are stored, and it is said", async () => {
  const part = "y".repeat(900_000);
  const structure = `(${`("TEXT" "PLAIN" NIL NIL NIL "7BIT" ${part.length} 1)`.repeat(4)} "MIXED")`;
  const parts = Object.fromEntries(upTo(4).map((number) => [String(number), new TextEncoder().encode(part)]));
  const mail = { ...letter(1, plain("Texts", "z".repeat(50_000))), structure, parts };
  await using server = new ImapServer([mail]);
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1, body: true });
  const row = sync.rows.get(1);
  assert.deepEqual([row?.body_text?.length, row?.parse_error], [
    2 * part.length + 1,
    "it has 4 parts of text, 2 are stored",
  ]);
});

test("room is given in order, also to what is larger than all of it, and comes back from what fails", async () => {
  const room = new Room(10);
  const done: string[] = [];
  let finish = () => {};
  const first = room.within(8, () => new Promise<void>((resolve) => finish = resolve));
  const fail = (name: string) => {
    done.push(name);
    return Promise.reject(new Error(name));
  };
  const others = Promise.allSettled([
    room.within(30, () => fail("large")),
    room.within(1, () => fail("small")),
  ]);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(done, []);
  finish();
  await first;
  assert.deepEqual((await others).map(({ status }) => status), ["rejected", "rejected"]);
  assert.deepEqual(done, ["large", "small"]);
  assert.equal(await room.within(10, () => Promise.resolve("all")), "all");
});

test("who waits for room for long goes on without", async () => {
  const room = new Room(10, 5);
  let finish = () => {};
  const slow = room.within(10, () => new Promise<void>((resolve) => finish = resolve));
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(await room.within(10, () => Promise.resolve("went on")), "went on");
  finish();
  await slow;
});
