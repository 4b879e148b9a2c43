/** What Gmail says beyond IMAP: ids that stay, conversations, labels; and "All Mail", which has everything once. */

import assert from "node:assert/strict";
import { ImapServer, letter } from "./imap_server.ts";
import { MailSync, test } from "./mail_syncing.ts";

const LABELS = String.raw`"\\Inbox" "\\Important" "Work/&ANw-bung" Receipts`;

function gmail(): ImapServer {
  const mails = [
    { ...letter(1), gmail: { id: "1278455344230334865", thread: "1266894439832287888", labels: LABELS } },
    { ...letter(2), gmail: { id: "1278455344230334866", thread: "1266894439832287888", labels: "" } },
  ];
  const server = new ImapServer(mails, async ({ name, tag, rest }, session) => {
    if (name === "NAMESPACE") {
      await session.say(`* NAMESPACE (("" "/")) NIL NIL`, `${tag} OK done`);
      return true;
    }
    if (name !== "LIST" || !rest.includes("*")) return false;
    await session.say(
      `* LIST (\\HasNoChildren) "/" "INBOX"`,
      `* LIST (\\HasChildren \\Noselect) "/" "[Gmail]"`,
      `* LIST (\\All \\HasNoChildren) "/" "[Gmail]/Alle Nachrichten"`,
      `* LIST (\\HasNoChildren \\Junk) "/" "[Gmail]/Spam"`,
      `* LIST (\\HasNoChildren \\Trash) "/" "[Gmail]/Papierkorb"`,
      `* LIST (\\HasNoChildren \\Important) "/" "[Gmail]/Wichtig"`,
      `* LIST (\\HasNoChildren) "/" "Receipts"`,
      `${tag} OK done`,
    );
    return true;
  });
  server.capabilities = "IMAP4rev1 UIDPLUS NAMESPACE SPECIAL-USE X-GM-EXT-1";
  return server;
}

test("Gmail's ids, conversations and labels are stored with a message", async () => {
  await using server = gmail();
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 2, count: 2 });
  const stored = [1, 2].map((uid) => {
    const { email_id, thread_id, labels } = sync.rows.get(uid)!;
    return { email_id, thread_id, labels };
  });
  assert.deepEqual(stored, [
    {
      email_id: "1278455344230334865",
      thread_id: "1266894439832287888",
      labels: ["Receipts", "Work/\u00dcbung", "\\Important", "\\Inbox"],
    },
    { email_id: "1278455344230334866", thread_id: "1266894439832287888", labels: [] },
  ]);
});

test("with Gmail all folders are All Mail, junk and trash, and the labels are noted", async () => {
  await using server = gmail();
  await using sync = new MailSync(server);
  const { next_chunks, result } = await sync.run({ folders: "all" });
  assert.deepEqual(next_chunks?.map(({ folder }) => folder).sort(), [
    "[Gmail]/Alle Nachrichten",
    "[Gmail]/Papierkorb",
    "[Gmail]/Spam",
  ]);
  assert.deepEqual(result, { folders: 3, in_account: 6, gone: 0, deleted: 0 });
});

test("a message without Gmail has none of these", async () => {
  await using server = new ImapServer([letter(1)]);
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 });
  const { email_id, thread_id, labels } = sync.rows.get(1)!;
  assert.deepEqual([email_id, thread_id, labels], [null, null, null]);
});
