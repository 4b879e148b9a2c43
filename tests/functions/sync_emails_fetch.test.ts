/** Fetching from servers that answer oddly: nothing is lost, nothing is made up, one message never costs another. */

import assert from "node:assert/strict";
import { RetryLater } from "../../supabase/functions/_shared/serve.ts";
import type { EmailRow } from "../../supabase/functions/sync-emails/message.ts";
import { bytes, ImapServer, letter, plain } from "./imap_server.ts";
import { MailSync, test, upTo } from "./mail_syncing.ts";

test("lines that answer nothing we asked change flags at most", async () => {
  await using server = new ImapServer(upTo(3).map((uid) => letter(uid)), async (command, session) => {
    if (command.name !== "UID FETCH") return false;
    const [first, second, third] = session.server.mails;
    await session.send(first, command.rest);
    await session.send(second, command.rest);
    await session.say("* 2 FETCH (FLAGS (\\Seen) UID 2)");
    await session.send(third, command.rest);
    await session.say("* 411 FETCH (FLAGS (\\Seen NonJunk) UID 900)", "* 412 FETCH (FLAGS (\\Seen))");
    await session.say(`${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server);
  const answer = await sync.run({ uidvalidity: 7, from: 1, to: 3, count: 3 });
  assert.equal(answer.items_processed, 3);
  assert.deepEqual([...sync.rows.keys()], [1, 2, 3]);
  assert.deepEqual(sync.rows.get(2)?.flags, ["\\Seen"]);
  for (const row of sync.rows.values()) {
    assert.deepEqual([row.subject, row.parse_error], [`Letter ${row.uid}`, null]);
  }
});

test("flags that change after a message came arrive too, though its row is saved already", async () => {
  const large = plain("Large", "x".repeat(900_000));
  await using server = new ImapServer(upTo(4).map((uid) => letter(uid, large)), async (command, session) => {
    if (command.name !== "UID FETCH" || !command.rest.includes("BODY.PEEK[1]")) return false;
    for (const mail of session.asked(command)) await session.send(mail, command.rest);
    await session.say("* 1 FETCH (UID 1 FLAGS (\\Flagged))", `${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 4, count: 4, body: true });
  assert.deepEqual(upTo(4).map((uid) => sync.rows.get(uid)?.body_text?.length), Array(4).fill(900_002));
  assert.deepEqual(sync.rows.get(1)?.flags, ["\\Flagged"]);
});

test("an answer that is split over several lines is one message", async () => {
  await using server = new ImapServer([letter(1)], async (command, session) => {
    if (command.name !== "UID FETCH") return false;
    const [mail] = session.server.mails;
    await session.say("* 1 FETCH (UID 1 FLAGS (\\Seen))");
    await session.send(mail, command.rest.replace("FLAGS", ""));
    await session.say(`${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 1, count: 1 });
  assert.deepEqual([sync.rows.get(1)?.subject, sync.rows.get(1)?.flags], ["Letter 1", ["\\Seen"]]);
});

for (
  const [how, respond] of [
    ["NO, and all others", "NO Some messages could not be FETCHed (Failure)"],
    ["BAD, and all others", "BAD internal server error"],
  ]
) {
  test(`a message for which the server says ${how} costs no other`, async () => {
    await using server = new ImapServer(upTo(10).map((uid) => letter(uid)), async (command, session) => {
      if (command.name !== "UID FETCH" || !command.rest.includes("BODY.PEEK")) return false;
      const asked = session.asked(command);
      for (const mail of asked) if (mail.uid !== 5) await session.send(mail, command.rest);
      await session.say(`${command.tag} ${asked.some(({ uid }) => uid === 5) ? respond : "OK done"}`);
      return true;
    });
    await using sync = new MailSync(server);
    const answer = await sync.run({ uidvalidity: 7, from: 1, to: 10, count: 10 });
    assert.equal(answer.items_processed, 10);
    assertOnlyFiveIsMissing(sync);
  });
}

test("a message at which the server stops with NO costs none of those after it", async () => {
  await using server = new ImapServer(upTo(10).map((uid) => letter(uid)), async (command, session) => {
    if (command.name !== "UID FETCH" || !command.rest.includes("BODY.PEEK")) return false;
    for (const mail of session.asked(command)) {
      if (mail.uid === 5) {
        await session.say(`${command.tag} NO [SERVERBUG] FETCH Server error while fetching messages`);
        return true;
      }
      await session.send(mail, command.rest);
    }
    await session.say(`${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 10, count: 10 });
  assertOnlyFiveIsMissing(sync);
  assert.ok(server.of("UID FETCH").length < 8);
});

test("two broken messages of a hundred, refused before anything comes, are found in a few commands", async () => {
  await using server = new ImapServer(upTo(100).map((uid) => letter(uid)), async (command, session) => {
    if (command.name !== "UID FETCH" || !command.rest.includes("BODY.PEEK")) return false;
    const asked = session.asked(command);
    if (!asked.some(({ uid }) => uid === 30 || uid === 77)) return false;
    await session.say(`${command.tag} NO not today`);
    return true;
  });
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 100, count: 100 });
  const broken = [...sync.rows.values()].filter(({ parse_error }) => parse_error !== null).map(({ uid }) =>
    uid
  );
  assert.deepEqual([sync.rows.size, broken.sort((a, b) => a - b)], [100, [30, 77]]);
  assert.ok(server.of("UID FETCH").length < 45, String(server.of("UID FETCH").length));
});

test("a message that the server leaves out though it lists it is asked for once more, then said to be missing", async () => {
  await using server = new ImapServer(upTo(3).map((uid) => letter(uid)), async (command, session) => {
    if (command.name !== "UID FETCH" || !command.rest.includes("BODY.PEEK")) return false;
    for (const mail of session.asked(command)) if (mail.uid !== 2) await session.send(mail, command.rest);
    await session.say(`${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 3, count: 3 });
  assert.deepEqual([...sync.rows.keys()].sort(), [1, 2, 3]);
  assert.match(sync.rows.get(2)?.parse_error ?? "", /did not send its content: the server does not send it/);
});

test("messages that are gone since the planning are no failure", async () => {
  await using server = new ImapServer([letter(1), letter(9)]);
  await using sync = new MailSync(server);
  const answer = await sync.run({ uidvalidity: 7, from: 1, to: 9, count: 9 });
  assert.deepEqual([answer.items_processed, [...sync.rows.keys()]], [2, [1, 9]]);
});

test("a server that sends no message at all is a broken server, and nothing is made up", async () => {
  await using server = new ImapServer(upTo(20).map((uid) => letter(uid)), async (command, session) => {
    if (command.name !== "UID FETCH" || !command.rest.includes("BODY.PEEK")) return false;
    await session.say(`${command.tag} NO storage is away`);
    return true;
  });
  await using sync = new MailSync(server);
  await assert.rejects(
    sync.run({ uidvalidity: 7, from: 1, to: 20, count: 20 }),
    (error) => error instanceof RetryLater && /storage is away/.test(error.message),
  );
  assert.equal(sync.rows.size, 0);
});

test("a folder without UIDVALIDITY is synced", async () => {
  await using server = new ImapServer([letter(1)]);
  server.uidvalidity = null;
  await using sync = new MailSync(server);
  const [plan] = await sync.runAll({});
  assert.equal((plan.result as { uidvalidity: number }).uidvalidity, 0);
  assert.equal(sync.rows.get(1)?.subject, "Letter 1");
});

test("ranges of a folder that was renumbered are planned again, once, and the job goes on", async () => {
  await using server = new ImapServer(upTo(3).map((uid) => letter(uid)));
  await using sync = new MailSync(server);
  const outdated = upTo(3).map((uid) => ({ uidvalidity: 6, from: uid, to: uid, count: 1 }));
  const answers = [];
  for (const range of outdated) answers.push(...await sync.runAll(range));
  assert.deepEqual(answers.map(({ items_total }) => items_total ?? null), [null, 3, null, null, null]);
  assert.deepEqual([...sync.rows.keys()], [1, 2, 3]);
});

test("a chunk whose time is over saves what it has and leaves the rest to another", async () => {
  const mails = upTo(30).map((uid) => letter(uid));
  await using server = new ImapServer(mails, async (command, session) => {
    if (command.name !== "UID FETCH") return false;
    for (const mail of session.asked(command)) {
      await session.send(mail, command.rest);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await session.say(`${command.tag} OK done`);
    return true;
  });
  await using sync = new MailSync(server, { callerMs: 500 });
  const first = await sync.run({ uidvalidity: 7, from: 1, to: 30, count: 30 });
  const done = first.items_processed ?? 0;
  assert.ok(done > 0 && done < 30, String(done));
  assert.equal(sync.rows.size, done);
  let total = done;
  for (
    const answer of (await Promise.all((first.next_chunks ?? []).map((next) => sync.runAll(next)))).flat()
  ) {
    total += answer.items_processed ?? 0;
  }
  assert.deepEqual([total, sync.rows.size], [30, 30]);
});

test("what mail anyone can send costs is bounded", async () => {
  const lines = bytes(`${plain("Lines", "").trim()}\n\n${"\n".repeat(65_000)}`);
  const mails = upTo(100).map((uid) => ({ uid, flags: [], source: lines }));
  await using server = new ImapServer(mails);
  await using sync = new MailSync(server);
  const started = performance.now();
  await sync.run({ uidvalidity: 7, from: 1, to: 100, count: 100 });
  assert.ok(performance.now() - started < 3000, `${performance.now() - started} ms`);
  assert.equal(sync.rows.size, 100);
});

test("a chunk computes for a bounded time, and the rest of hostile mail goes to others", async () => {
  const hostile = ["<a '\"=", "=\n", "\n", "&amp;", "--b\n"].map((piece) =>
    plain("Hostile", piece.repeat(40_000 / piece.length)).replace(
      "Subject",
      "Content-Type: text/html\nSubject",
    )
  );
  const mails = upTo(60).map((uid) => letter(uid, hostile[uid % hostile.length]));
  await using server = new ImapServer(mails);
  await using sync = new MailSync(server, { busyMs: 10 });
  const answers = await sync.runAll({ uidvalidity: 7, from: 1, to: 60, count: 60, body: true });
  assert.ok(answers.length > 2, `${answers.length} chunks`);
  assert.ok(answers.every(({ items_processed }) => (items_processed ?? 0) > 0));
  const total = answers.reduce((sum, { items_processed }) => sum + (items_processed ?? 0), 0);
  assert.deepEqual([total, sync.rows.size], [60, 60]);
});

test("of most messages one command brings all that is needed", async () => {
  const long = plain("Long", "word ".repeat(50_000));
  await using server = new ImapServer(upTo(50).map((uid) => letter(uid, uid % 2 ? long : undefined)));
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 50, count: 50 });
  const [fetch, ...others] = server.of("UID FETCH");
  assert.deepEqual([others, sync.rows.size], [[], 50]);
  assert.match(fetch.rest, /BODY\.PEEK\[TEXT\]<0\.4096>/);
  assert.ok(sync.rows.get(1)?.preview?.startsWith("word word"));
});

test("text behind an attachment or styles is fetched by the structure that the server describes", async () => {
  const head =
    "Subject: Pictures\nFrom: a@example.com\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n";
  const picture = "A".repeat(20_000);
  const source = bytes(
    `${head}\n--b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n${picture}\n` +
      `--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nhtml\n--b--\n`,
  );
  const html = `<style>${"p { color: red }\n".repeat(1500)}</style><p>Gr=C3=BC=C3=9Fe</p>`;
  const structure = '(("IMAGE" "PNG" NIL NIL NIL "BASE64" 20000 NIL ("INLINE" NIL) NIL NIL)' +
    `("TEXT" "HTML" ("CHARSET" "utf-8") NIL NIL "QUOTED-PRINTABLE" ${html.length} 9 NIL NIL NIL NIL) "MIXED")`;
  const mails = upTo(5).map((uid) => ({ uid, source, flags: [], structure, parts: { "2": bytes(html) } }));
  await using server = new ImapServer(mails);
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 5, count: 5 });
  for (const row of sync.rows.values()) assert.deepEqual([row.preview, row.parse_error], ["Grüße", null]);
  assert.ok(!server.of("UID FETCH").some(({ rest }) => rest.includes("BODY.PEEK[1]")));
  assert.equal(server.of("UID FETCH").length, 3);
});

test("a header is fetched whole, up to what no honest one has, and then it is said", async () => {
  const to = (count: number) =>
    upTo(count).map((at) => `Person ${at} <person${at}@example.com>`).join(",\n ");
  const mail = (count: number) =>
    `To: ${
      to(count)
    }\nSubject: Everybody\nFrom: Desk <desk@example.com>\nDate: Tue, 3 Nov 2026 08:00:00 +0000\n` +
    "Message-ID: <all@example.com>\nContent-Type: text/html\n\n<p>Hello all.</p>\n";
  await using server = new ImapServer([letter(1, mail(4200)), letter(2, mail(30_000)), letter(3)]);
  await using sync = new MailSync(server);
  await sync.run({ uidvalidity: 7, from: 1, to: 3, count: 3 });
  const [large, larger, usual] = [1, 2, 3].map((uid) => sync.rows.get(uid)!);
  assert.deepEqual([large.subject, large.message_id, large.preview], [
    "Everybody",
    "<all@example.com>",
    "Hello all.",
  ]);
  assert.equal(large.parse_error, "to has 4200 addresses, 1000 are stored");
  assert.deepEqual([larger.subject, larger.to_addresses.length], [null, 1000]);
  assert.match(larger.parse_error ?? "", /only the first 1048576 bytes of the header were read/);
  assert.deepEqual([usual.subject, usual.parse_error], ["Letter 3", null]);
});

test("bodies are whole up to what is stored, in memory that is bounded", async () => {
  const text = (length: number) => plain("Body", "x".repeat(length));
  const mails = upTo(60).map((uid) => letter(uid, text(1_000_000)));
  mails.push(letter(61, text(1_500_000)));
  await using server = new ImapServer(mails);
  await using sync = new MailSync(server);
  const saved: WeakRef<EmailRow>[] = [];
  let letGo = 0;
  sync.keep = (row) => {
    saved.push(new WeakRef(row));
    if (row.uid === 60) {
      collectGarbage();
      letGo = saved.slice(0, 40).filter((earlier) => earlier.deref() === undefined).length;
    }
    return { ...row, body_text: String(row.body_text?.length) };
  };
  const before = Deno.memoryUsage().rss;
  let most = before;
  const watch = setInterval(() => most = Math.max(most, Deno.memoryUsage().rss), 5);
  await sync.runAll({ uidvalidity: 7, from: 1, to: 61, count: 61, body: true });
  clearInterval(watch);
  assert.deepEqual(upTo(60).map((uid) => sync.rows.get(uid)?.body_text), Array(60).fill("1000002"));
  const cut = sync.rows.get(61)!;
  assert.equal(cut.body_text, "1048576");
  assert.match(cut.parse_error ?? "", /only the first 1048576 bytes of a part were read/);
  assert.ok(letGo >= 38, `${letGo} of the first 40 rows are no longer held`);
  assert.ok(most - before < 150 * 1024 * 1024, `${(most - before) / 1024 / 1024} MB`);
});

function collectGarbage(): void {
  const { gc } = globalThis as { gc?: () => void };
  assert.ok(gc, "this needs --v8-flags=--expose-gc");
  gc();
}

function assertOnlyFiveIsMissing(sync: MailSync): void {
  assert.deepEqual([...sync.rows.keys()].sort((a, b) => a - b), upTo(10));
  for (const row of sync.rows.values()) {
    if (row.uid !== 5) assert.deepEqual([row.subject, row.parse_error], [`Letter ${row.uid}`, null]);
  }
  const five = sync.rows.get(5);
  assert.match(five?.parse_error ?? "", /the server did not send its content: /);
  assert.deepEqual([five?.subject, (five?.size ?? 0) > 0, five?.received_at], [
    null,
    true,
    "2026-11-03T08:00:00.000Z",
  ]);
}
