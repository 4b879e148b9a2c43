/** What an email chunk asks for; the rest is tested beside a scripted server, and against real ones in tests/e2e. */

import assert from "node:assert/strict";
import { type Chunk, PermanentFailure } from "../../supabase/functions/_shared/serve.ts";
import { chooseFolders, type Listed, matches } from "../../supabase/functions/sync-emails/folders.ts";
import { readTask } from "../../supabase/functions/sync-emails/payload.ts";
import { asRanges, compact, inPieces, without } from "../../supabase/functions/sync-emails/ranges.ts";

// deno-lint-ignore no-explicit-any
function task(payload: unknown, job_payload: unknown = {}): any {
  return readTask({ payload, job_payload } as Chunk);
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
    expected: null,
    adopt: false,
    uidvalidity: 3,
    ...common,
  });
  assert.equal(task({ account: "work", from: 1, to: 9, flags_only: true }).task, "flags");
});

Deno.test("several folders are planned one by one, each once", () => {
  const fan = task({ account: "work", folders: ["A", "B", "A"] });
  assert.deepEqual([fan.task, fan.folders], ["fan", ["A", "B"]]);
  assert.deepEqual(task({ account: "work", folders: "all", exclude: ["\\Junk"] }).exclude, ["\\Junk"]);
  // Such a chunk sees the job's list of folders too, and must not fan out again.
  assert.equal(task({ account: "work", folder: "A" }, { account: "work", folders: ["A", "B"] }).task, "plan");
});

Deno.test("a payload that makes no sense fails for good and names the field", () => {
  const cases: [unknown, RegExp][] = [
    [{}, /no account/],
    [{ account: 1 }, /no account/],
    [{ account: "a", folder: 1 }, /folder/],
    [{ account: "a", folders: [] }, /folders/],
    [{ account: "a", folders: "some" }, /folders is neither a list of names nor "all"/],
    [{ account: "a", folders: ["A"], exclude: ["B"] }, /exclude goes with "folders": "all"/],
    [{ account: "a", folders: "all", exclude: "B" }, /exclude is not a list/],
    [{ account: "a", folders: "all", exclude: ["\\Spam"] }, /exclude names no special use/],
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
  assert.deepEqual(inPieces(uids, [2, 20, 5], 2), [[2, 3, 2], [7, 8, 2], [20, 20, 1]]);
  assert.deepEqual(inPieces(uids, null, 4), [[1, 7, 4], [8, 20, 2]]);
  assert.equal(compact([1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
  assert.deepEqual(without(uids, [[2, 7, 3]]), [1, 8, 20]);
  assert.deepEqual(without(uids, []), uids);
  assert.deepEqual(without(uids, [[1, 20, 6]]), []);
});

Deno.test("of all folders those are synced that hold messages, each message once", () => {
  const paths = (listed: Listed[]) => listed.map(({ path }) => path);
  const plain = [
    ["INBOX", null],
    ["Sent", "\\Sent"],
    ["Spam", "\\Junk"],
    ["Old/2024", null],
    ["Old/2025", null],
    ["Everything", "\\All"],
    ["Starred", "\\Flagged"],
  ].map(([path, specialUse]) => ({ path, specialUse }) as Listed);
  assert.deepEqual(paths(chooseFolders(plain, [], false)), ["INBOX", "Sent", "Spam", "Old/2024", "Old/2025"]);
  assert.deepEqual(paths(chooseFolders(plain, ["\\junk", "Old/*"], false)), ["INBOX", "Sent"]);
  // With Gmail a folder is a label, and one has everything.
  assert.deepEqual(paths(chooseFolders(plain, [], true)), ["Spam", "Everything"]);
  assert.deepEqual(paths(chooseFolders(plain.slice(0, 3), [], true)), ["INBOX", "Sent", "Spam"]);
});

Deno.test("a pattern is a name with * for anything, in linear time", () => {
  const cases: [string, string, boolean][] = [
    ["Old", "Old", true],
    ["Old", "old", false],
    ["Older", "Old", false],
    ["Old/2024", "Old/*", true],
    ["Old/2024", "*2024", true],
    ["Old/2024/Q1", "Old*Q1", true],
    ["aba", "ab*ba", false],
    ["abcabc", "*b*b*", true],
    ["", "*", true],
  ];
  for (const [name, pattern, expected] of cases) {
    assert.equal(matches(name, pattern), expected, `${name} ${pattern}`);
  }
  const started = performance.now();
  matches("a".repeat(1000), `${"*a".repeat(400)}b`);
  assert.ok(performance.now() - started < 500);
});
