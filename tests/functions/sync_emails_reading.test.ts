/** Reading what FETCH answers: the same however it is written and cut, and its memory is given back. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { FetchMessageObject, ImapFlow } from "imapflow";
import { connect, openFolder } from "../../supabase/functions/sync-emails/mailbox.ts";
import { fetchLines, readMessage } from "../../supabase/functions/sync-emails/reading.ts";
import { bytes, ImapServer, letter, plain, type ServerSession } from "./imap_server.ts";
import { MailSync, test, upTo } from "./mail_syncing.ts";

const HEADER = "Subject: Hello\r\nFrom: ann@example.com\r\n\r\n";

/** What a server sends for message 1. */
const USUAL = `UID 1 FLAGS (\\Seen $Junk) INTERNALDATE " 3-Nov-2026 08:00:00 +0000" RFC822.SIZE 45 ` +
  `BODY[HEADER]<0> {${HEADER.length}}\r\n${HEADER} BODY[TEXT]<0> {4}\r\nText`;

const UNUSUAL: Record<string, string> = {
  "in another order":
    `RFC822.SIZE 45 BODY[TEXT]<0> {4}\r\nText BODY[HEADER]<0> {${HEADER.length}}\r\n${HEADER} ` +
    `FLAGS (\\Seen $Junk) INTERNALDATE "03-Nov-2026 08:00:00 +0000" UID 1`,
  "in small letters": USUAL.replace("UID", "uid").replace("BODY[TEXT]", "body[text]"),
  "with a quoted text": USUAL.replace("{4}\r\nText", '"Text"'),
  "with more than was asked for": USUAL.replace("UID 1", "UID 1 MODSEQ (7) X-ODD (1 (2 NIL))"),
  "without places": USUAL.replaceAll("<0>", ""),
};

for (const [how, items] of [["as usual", USUAL], ...Object.entries(UNUSUAL)]) {
  for (const size of [7, 100_000]) {
    test(`a message written ${how}, ${size} bytes at a time, is read`, async () => {
      await using server = new ImapServer([letter(1)], async (command, session) => {
        if (command.name !== "UID FETCH") return false;
        await inPieces(session, `* 1 FETCH (${items})\r\n${command.tag} OK done\r\n`, size);
        return true;
      });
      await using sync = new MailSync(server);
      await sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 });
      const row = sync.rows.get(1);
      assert.deepEqual(
        [row?.subject, row?.preview, row?.size, row?.flags, row?.received_at, row?.parse_error],
        ["Hello", "Text", 45, ["$Junk", "\\Seen"], "2026-11-03T08:00:00.000Z", null],
      );
    });
  }
}

test("only what is written as usual is read without the library", () => {
  const read = (line: string, ...literals: string[]) =>
    readMessage({ payload: Buffer.from(line), literals: literals.map((text) => Buffer.from(text)) });
  assert.deepEqual(read("* 5 FETCH (UID 9 FLAGS () EMAILID (M1) THREADID (T1))"), {
    seq: 5,
    uid: 9,
    flags: new Set(),
    emailId: "M1",
    threadId: "T1",
  });
  for (
    const line of [
      "* 5 EXISTS",
      "7 OK FETCH (UID 9)",
      "* 5 FETCH (UID 9",
      "* 5 FETCH (UID 9))",
      "* 5 FETCH (UID 9) x",
      '* 5 FETCH (FLAGS ("a b"))',
      "* 5 FETCH (UID 99999999999)",
      "* 5 FETCH (BODY[TEXT] {3}\r\n)",
      "* 5 FETCH (THREADID NIL)",
    ]
  ) assert.equal(read(line, "four"), null, line);
  return Promise.resolve();
});

test("the memory that messages came in is given back while others are read", async () => {
  const large = plain("Large", "x".repeat(300_000));
  await using server = new ImapServer(upTo(20).map((uid) => letter(uid, uid % 5 === 0 ? large : undefined)));
  const client = await logIn(server);
  const chunks: Uint8Array[] = [];
  (client as unknown as { socket: { on(event: "data", take: (chunk: Uint8Array) => void): void } }).socket.on(
    "data",
    (chunk) => chunks.push(chunk),
  );
  const sizes: number[] = [];
  const query = { uid: true, bodyParts: ["TEXT"] };
  const take = ({ bodyParts }: FetchMessageObject) => void sizes.push(bodyParts?.get("text")?.length ?? 0);
  assert.equal(await fetchLines(client, "1:20", query, take), null);
  assert.deepEqual(sizes.filter((size) => size > 300_000).length, 4);
  await client.noop();
  assert.ok(chunks.length > 10);
  // Older versions of Deno now and then bring a part of a buffer, which may be in use elsewhere.
  const kept = ({ buffer, byteLength }: Uint8Array) => byteLength > 0 && byteLength === buffer.byteLength;
  assert.deepEqual(chunks.slice(0, -1).filter(kept).map(({ byteLength }) => byteLength), []);
  client.close();
});

test("whoever fails to take a message learns of it, and the rest of the answer is not waited for", async () => {
  await using server = new ImapServer(upTo(3).map((uid) => letter(uid)));
  const client = await logIn(server);
  const taken: number[] = [];
  const take = ({ uid }: FetchMessageObject) => {
    taken.push(uid);
    if (uid === 2) throw new Error("full");
  };
  await assert.rejects(fetchLines(client, "1:3", { uid: true }, take), /full/);
  assert.deepEqual([taken, client.usable], [[1, 2], false]);
});

async function logIn({ port }: ImapServer): Promise<ImapFlow> {
  const login = {
    account_id: "a",
    host: "127.0.0.1",
    port,
    tls: "none" as const,
    username: "ann",
    password: "pw",
  };
  const client = await connect(login, new AbortController().signal);
  await openFolder(client, "INBOX");
  return client;
}

async function inPieces(session: ServerSession, text: string, size: number): Promise<void> {
  const answer = bytes(text);
  for (let at = 0; at < answer.length; at += size) await session.say(answer.subarray(at, at + size));
}
