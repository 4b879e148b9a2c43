/** What an email chunk asks for; the rest is tested beside a scripted server, and against real ones in tests/e2e. */

import assert from "node:assert/strict";
import { type Chunk, PermanentFailure } from "../../supabase/functions/_shared/serve.ts";
import { readTask } from "../../supabase/functions/sync-emails/payload.ts";
import { asRanges, compact, inPieces, without } from "../../supabase/functions/sync-emails/ranges.ts";

// deno-lint-ignore no-explicit-any
function task(payload: unknown, job_payload: unknown = {}): any {
  return readTask({ payload, job_payload } as Chunk);
}

Deno.test("a payload without a range plans, one with a range fetches", () => {
  const common = { account: "work", folder: "INBOX", body: false, batchSize: 100, handOvers: 0 };
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
  assert.deepEqual(inPieces(uids, [2, 20, 5], 2), [[2, 3, 2], [7, 8, 2], [20, 20, 1]]);
  assert.deepEqual(inPieces(uids, null, 4), [[1, 7, 4], [8, 20, 2]]);
  assert.equal(compact([1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
  assert.deepEqual(without(uids, [[2, 7, 3]]), [1, 8, 20]);
  assert.deepEqual(without(uids, []), uids);
  assert.deepEqual(without(uids, [[1, 20, 6]]), []);
});
