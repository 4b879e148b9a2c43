/** The email handler's parts that need no server; the rest is tested against real ones in tests/e2e. */

import assert from "node:assert/strict";
import { type Chunk, PermanentFailure } from "../../supabase/functions/_shared/serve.ts";
import { htmlToText } from "../../supabase/functions/sync-emails/html.ts";
import { toRow } from "../../supabase/functions/sync-emails/message.ts";
import { readTask } from "../../supabase/functions/sync-emails/payload.ts";
import { asRanges, inPieces, without } from "../../supabase/functions/sync-emails/ranges.ts";

// deno-lint-ignore no-explicit-any
function task(payload: unknown, job_payload: unknown = {}): any {
  return readTask({ payload, job_payload } as Chunk);
}

function row(source: string, over: Record<string, unknown> = {}, body = false) {
  return toRow({ uid: 7, source: new TextEncoder().encode(source.replaceAll("\n", "\r\n")), ...over }, {
    body,
  });
}

Deno.test("a payload without a range plans, one with a range fetches", () => {
  const common = { account: "work", folder: "INBOX", body: false, batchSize: 100 };
  assert.deepEqual(task({ account: "work" }), { task: "plan", full: false, ...common });
  assert.deepEqual(task({}, { account: "work", full: true, batch_size: 7 }), {
    task: "plan",
    ...common,
    full: true,
    batchSize: 7,
  });
  assert.deepEqual(task({ account: "work", uidvalidity: 3, from: 1, to: 9 }), {
    task: "messages",
    from: 1,
    to: 9,
    uidvalidity: 3,
    ...common,
  });
  assert.equal(task({ account: "work", from: 1, to: 9, flags_only: true }).task, "flags");
});

Deno.test("several folders are planned one by one, each once", () => {
  const fan = task({ account: "work", folders: ["A", "B", "A"] });
  assert.deepEqual([fan.task, fan.folders], ["fan", ["A", "B"]]);
  // Such a chunk sees the job's list of folders too, and must not fan out again.
  assert.equal(task({ account: "work", folder: "A" }, { account: "work", folders: ["A", "B"] }).task, "plan");
});

Deno.test("a payload that makes no sense fails for good and names the field", () => {
  const cases: [unknown, RegExp][] = [
    [{}, /no account/],
    [{ account: 1 }, /no account/],
    [{ account: "a", folder: 1 }, /folder/],
    [{ account: "a", folders: [] }, /folders/],
    [{ account: "a", full: "yes" }, /full/],
    [{ account: "a", batch_size: 0 }, /batch_size/],
    [{ account: "a", from: 1 }, /from and to/],
    [{ account: "a", from: 9, to: 1 }, /from and to/],
    [{ account: "a", from: "1:*", to: 9 }, /from/],
    [{ account: "a", offset: 0, limit: 10 }, /total_items/],
  ];
  for (const [payload, message] of cases) {
    assert.throws(
      () => task(payload),
      (error) => error instanceof PermanentFailure && message.test(error.message),
    );
  }
});

Deno.test("UIDs become ranges, ranges become pieces", () => {
  const uids = [1, 2, 3, 7, 8, 20];
  assert.deepEqual(asRanges(uids), [[1, 3], [7, 8], [20, 20]]);
  assert.deepEqual(asRanges([]), []);
  assert.deepEqual(inPieces(uids, [2, 20, 5], 2), [[2, 3], [7, 8], [20, 20]]);
  assert.deepEqual(inPieces(uids, null, 4), [[1, 7], [8, 20]]);
  assert.deepEqual(without(uids, [[2, 7, 3]]), [1, 8, 20]);
  assert.deepEqual(without(uids, []), uids);
  assert.deepEqual(without(uids, [[1, 20, 6]]), []);
});

Deno.test("headers are decoded in their charsets", async () => {
  const email = await row(
    "From: =?iso-8859-1?q?J=F8rn?= <j@example.com>\nTo: A <a@x.example>, Team: b@x.example, c@x.example;\n" +
      "Cc: =?iso-2022-jp?b?GyRCJF4kXyRgJGEkYhsoQg==?= <d@x.example>\nSubject: =?koi8-r?b?8NLJ18XU?=\n" +
      "Date: Tue, 3 Nov 2026 08:00:00 +0100\nMessage-ID: <1@x>\nIn-Reply-To: <0@x>\n\nHello\n\n  World\n",
    { flags: new Set(["\\Seen", "Work"]), size: 400, internalDate: new Date("2026-11-03T07:01:00Z") },
  );
  assert.equal(email.subject, "Привет");
  assert.deepEqual(email.from_addresses, [{ name: "Jørn", address: "j@example.com" }]);
  assert.deepEqual(email.to_addresses.map(({ address }) => address), [
    "a@x.example",
    "b@x.example",
    "c@x.example",
  ]);
  assert.equal(email.cc_addresses[0].name, "まみむめも");
  assert.equal(email.sent_at, "2026-11-03T07:00:00.000Z");
  assert.equal(email.received_at, "2026-11-03T07:01:00.000Z");
  assert.deepEqual([email.message_id, email.in_reply_to], ["<1@x>", "<0@x>"]);
  assert.deepEqual([email.preview, email.size, email.flags], ["Hello World", 400, ["Work", "\\Seen"]]);
  assert.deepEqual([email.parse_error, email.body_text], [null, null]);
});

Deno.test("what cannot be read is said, and the rest is kept", async () => {
  const broken = await row("Subject: Hi\nDate: Someday, 99 Foo 12345\n\nText\n");
  assert.deepEqual([broken.subject, broken.sent_at, broken.preview], ["Hi", null, "Text"]);
  assert.match(broken.parse_error ?? "", /Date is no date: Someday/);
  const without = await row("", { source: undefined, size: 99 });
  assert.deepEqual([without.size, without.subject], [99, null]);
  assert.match(without.parse_error ?? "", /did not send its content/);
  const cut = await row("Subject: Hi\n\nText\n", { size: 5_000_000 }, true);
  assert.match(cut.parse_error ?? "", /only the first \d+ bytes/);
  const nothing = await row("");
  assert.equal(nothing.subject, null);
});

Deno.test("nothing of a message breaks the database", async () => {
  const email = await row(
    "Subject: a\u0000b =?utf-8?q?=00=ED=A0=80?=\nDate: 1 Jan 275760 00:00:00 +0000\n\nx\u0000y\n",
    {},
    true,
  );
  assert.ok(!JSON.stringify(email).includes("\\u0000"));
  assert.ok(JSON.stringify(email).isWellFormed());
  assert.equal(email.sent_at, null);
  assert.match(email.subject ?? "", /^ab/);
  const emoji = await row(`Subject: x\n\n${"😀".repeat(300)}\n`);
  assert.ok(emoji.preview?.isWellFormed());
});

Deno.test("an HTML mail has a preview without markup, however large or hostile it is", async () => {
  const email = await row(
    "Content-Type: text/html; charset=utf-8\nSubject: x\n\n<html><head><title>T</title></head>" +
      "<style>p{}</style><!-- no --><p>Gr&uuml;n &amp; blau&nbsp;&#x1F600;</p><script>1 < 2</script>end\n",
  );
  assert.equal(email.preview, "Gr&uuml;n & blau 😀 end");
  const started = performance.now();
  for (
    const hostile of [
      "<script".repeat(50_000),
      "<".repeat(300_000),
      "<!--".repeat(80_000),
      "&".repeat(300_000),
    ]
  ) {
    htmlToText(hostile);
  }
  assert.ok(performance.now() - started < 2000);
});
