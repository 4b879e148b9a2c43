/** Chunks that take longer than an invocation: handlers that say so, and handlers whose time ends. */

import assert from "node:assert/strict";
import { LoopbackProject } from "./project.ts";
import { chunkRow, hanging, oneChunk, ProcessorUnderTest, reportOf } from "./processing.ts";

const json = (body: unknown) => () => Response.json(body);

Deno.test("a handler that continues gives its chunk back with the checkpoint, and the invocation ends", async () => {
  const chunk = chunkRow();
  const answer = { continue: true, checkpoint: { page: 500 }, items_processed: 500 };
  await using project = new LoopbackProject(oneChunk(chunk), { "demo-handler": json(answer) });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  const { chunk_id, claim_token } = chunk;
  assert.deepEqual(project.of("release_chunk_job").map(({ args }) => args), [{
    chunk_id,
    claim_token,
    checkpoint: { page: 500 },
    items_processed: 500,
    reason: "goes on from its checkpoint",
  }]);
  assert.equal(project.of("complete_chunk_job_safe").length, 0);
  assert.equal(project.of("claim_next_chunk_job_safe").length, 1);
  assert.equal(test.lines.at(-1)?.outcome, "released");
});

Deno.test("what was saved stands when a handler continues without a checkpoint", async () => {
  const nulls = { result: null, next_chunks: null, checkpoint: null, items_processed: null };
  for (const answer of [{ continue: true }, { continue: true, ...nulls }]) {
    await using project = new LoopbackProject(oneChunk(), { "demo-handler": json(answer) });
    const test = new ProcessorUnderTest(project);
    await test.webhook();
    await test.settled();
    const { checkpoint, items_processed } = project.of("release_chunk_job")[0].args;
    assert.deepEqual([checkpoint, items_processed], [null, null]);
  }
});

Deno.test("a checkpoint keeps every digit on its way to the handler and back", async () => {
  const checkpoint = '{"at":9223372036854775808,"ratio":0.12345678901234567890}';
  const row = JSON.stringify(chunkRow()).replace('"checkpoint":null', `"checkpoint":${checkpoint}`);
  const sql = oneChunk(chunkRow(), { claim_next_chunk_job_safe: () => new Response(`[${row}]`) });
  let got = "";
  const echo = async (request: Request) => {
    got = await request.text();
    return new Response(`{"continue": true, "checkpoint": ${checkpoint}}`);
  };
  await using project = new LoopbackProject(sql, { "demo-handler": echo });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.ok(got.includes(`"checkpoint":${checkpoint}`), got);
  assert.ok(project.of("release_chunk_job")[0].text.includes(`"checkpoint":${checkpoint}`));
});

Deno.test("next_state is reported with the completion", async () => {
  assert.deepEqual((await reportOf(json({ next_state: { since: 7 } }))).next_state, { since: 7 });
  assert.equal((await reportOf(json({ continue: false, next_state: null }))).next_state, null);
});

Deno.test("an answer that mixes both forms, or a field of a wrong type, fails for good and is named", async () => {
  const cases: [unknown, RegExp][] = [
    [{ continue: 1 }, /continue is neither true nor false/],
    [{ continue: true, checkpoint: [1] }, /checkpoint is not an object/],
    [{ continue: true, checkpoint: "7" }, /checkpoint is not an object/],
    [{ continue: true, checkpoint: { at: "\ud800" } }, /checkpoint\.at contains a lone surrogate/],
    [{ continue: true, items_processed: -1 }, /items_processed is not a whole number/],
    [{ continue: true, result: 1 }, /result does not go with continue: true/],
    [{ continue: true, next_chunks: [{}] }, /next_chunks does not go with continue: true/],
    [{ continue: true, next_state: {} }, /next_state does not go with continue: true/],
    [{ checkpoint: {} }, /checkpoint goes with continue: true only/],
    [{ next_state: [] }, /next_state is not an object/],
    [{ next_state: { a: "\u0000" } }, /next_state\.a contains \\u0000/],
  ];
  for (const [body, message] of cases) {
    const report = await reportOf(json(body));
    assert.deepEqual([report.success, report.retryable], [false, false], JSON.stringify(body));
    assert.match(report.error, message);
  }
});

Deno.test("a checkpoint that the database refuses fails the chunk for good with the database's words", async () => {
  const tooLarge = { code: "SC004", message: "checkpoint has 8193 bytes of JSON; it may have 8192" };
  const sql = oneChunk(chunkRow(), { release_chunk_job: () => Response.json(tooLarge, { status: 400 }) });
  await using project = new LoopbackProject(sql, {
    "demo-handler": json({ continue: true, checkpoint: { a: "x" } }),
  });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  const [{ args }] = project.of("complete_chunk_job_safe");
  assert.deepEqual([args.success, args.retryable], [false, false]);
  assert.match(args.error, /refused the checkpoint: .*8193 bytes/);
});

Deno.test("giving back is repeated until the database is back", async () => {
  let tries = 0;
  const sql = oneChunk(chunkRow(), {
    release_chunk_job: () => ++tries < 3 ? new Response(null, { status: 503 }) : { outcome: "released" },
  });
  await using project = new LoopbackProject(sql, {
    "demo-handler": json({ continue: true, checkpoint: { page: 1 } }),
  });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(new Set(project.of("release_chunk_job").map(({ text }) => text)).size, 1);
  assert.equal(test.lines.at(-1)?.outcome, "released");
});

/** Runs a handler into the end of its time; its row in the table is this. */
async function cutOff(row: unknown) {
  await using project = new LoopbackProject(
    oneChunk(chunkRow(), { chunk_processing_queue: () => row }),
    { "demo-handler": hanging },
  );
  const test = new ProcessorUnderTest(project, { wallClockMs: 400 });
  await test.webhook();
  await test.settled();
  return { given: project.of("release_chunk_job"), reports: project.of("complete_chunk_job_safe") };
}

const STARTED = "2026-03-01T10:00:00.5+00:00";

Deno.test("a handler whose time ends is given back when it has saved in this attempt", async () => {
  const { given, reports } = await cutOff([
    { started_at: STARTED, checkpoint_at: "2026-03-01T10:00:00.512+00:00" },
  ]);
  assert.match(given[0].args.reason, /time was over/);
  assert.equal(reports.length, 0);
});

Deno.test("a handler whose time ends with nothing saved has failed", async () => {
  const rows = [
    [{ started_at: STARTED, checkpoint_at: null }],
    [{ started_at: STARTED, checkpoint_at: "2026-03-01T10:00:00+00:00" }], // by an earlier attempt
    [],
    new Response(null, { status: 503 }),
  ];
  for (const row of rows) {
    const { given, reports } = await cutOff(row);
    assert.equal(given.length, 0);
    assert.match(reports[0].args.error, /did not answer within/);
    assert.equal(reports[0].args.retryable, true);
  }
});
