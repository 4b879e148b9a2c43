/** A handler that is down, and the way back: few calls into what is broken, and nobody idle while chunks wait. */

import assert from "node:assert/strict";
import { LoopbackProject, type SqlFunctions } from "./project.ts";
import { chunkRow, JOB, oneChunk, ProcessorUnderTest } from "./processing.ts";

const OTHER = "11111111-1111-4111-8111-111111111111";
const ok = () => Response.json({ result: 1 });

/** A job whose chunks never end, each claimed by the report before it. */
function endless(over: SqlFunctions = {}): SqlFunctions {
  let id = 11;
  return oneChunk(chunkRow(), {
    complete_chunk_job_safe: ({ claim_next, success }) => ({
      outcome: success ? "completed" : "retrying",
      next: claim_next ? chunkRow({ chunk_id: ++id }) : null,
    }),
    ...over,
  });
}

for (
  const [what, answer] of [
    ["500", () => new Response("no", { status: 500 })],
    ["503 that does not boot", () => Response.json({ code: "BOOT_ERROR" }, { status: 503 })],
    ["546", () => new Response(null, { status: 546 })],
  ] as const
) {
  Deno.test(`after the third ${what} in a row no more chunks are taken to a handler`, async () => {
    let calls = 0;
    await using project = new LoopbackProject(endless(), { "demo-handler": () => (calls += 1, answer()) });
    const test = new ProcessorUnderTest(project);
    await test.webhook();
    await test.settled();
    const reports = project.of("complete_chunk_job_safe").map((
      { args },
    ) => [args.claim_next, args.handler_down]);
    assert.deepEqual(reports, [[true, undefined], [true, undefined], [false, true]]);
    assert.equal(calls, 3);
    assert.equal(project.of("claim_next_chunk_job_safe").length, 1);
    assert.equal(test.lines.at(-1)?.event, "handler_down");
  });
}

Deno.test("a chunk that fails between others that do not stops nothing", async () => {
  let calls = 0;
  const handler = () => ++calls % 3 === 0 ? ok() : new Response("no", { status: 500 });
  await using project = new LoopbackProject(endless(), { "demo-handler": handler });
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 10 });
  await test.webhook();
  await test.settled();
  const reports = project.of("complete_chunk_job_safe");
  assert.equal(reports.length, 10);
  assert.ok(reports.every(({ args }) => args.handler_down === undefined));
});

Deno.test("what a chunk is refused for is not the handler's failure", async () => {
  await using project = new LoopbackProject(endless(), {
    "demo-handler": () => new Response("no such folder", { status: 400 }),
  });
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 6 });
  await test.webhook();
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length, 6);
});

Deno.test("an invocation whose job is done goes on with another's chunk", async () => {
  const waiting = [
    chunkRow(),
    chunkRow({ parent_sync_job_id: OTHER, chunk_id: 21 }),
    chunkRow({ parent_sync_job_id: OTHER, chunk_id: 22 }),
  ];
  await using project = new LoopbackProject(
    oneChunk(undefined, { claim_next_chunk_job_safe: () => waiting.splice(0, 1) }),
    { "demo-handler": ok },
  );
  const test = new ProcessorUnderTest(project);
  await test.webhook({ parent_sync_job_id: JOB });
  await test.settled();
  assert.deepEqual(project.of("complete_chunk_job_safe").map(({ args }) => args.chunk_id), [11, 21, 22]);
  const asked = project.of("claim_next_chunk_job_safe").map(({ args }) => args);
  assert.deepEqual(asked.map(({ parent_sync_job_id }) => parent_sync_job_id), [
    JOB,
    undefined,
    undefined,
    undefined,
  ]);
  assert.equal(new Set(asked.map(({ claim_id }) => claim_id)).size, 4);
});

Deno.test("a report that nobody hears is followed by no claim", async () => {
  await using project = new LoopbackProject(
    oneChunk(undefined, { complete_chunk_job_safe: () => new Response(null, { status: 401 }) }),
    { "demo-handler": ok },
  );
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(project.of("claim_next_chunk_job_safe").length, 1);
});

Deno.test("a further claim that fails ends the invocation with a line in its log", async () => {
  let claims = 0;
  await using project = new LoopbackProject(
    oneChunk(undefined, {
      claim_next_chunk_job_safe: () => ++claims === 1 ? [chunkRow()] : new Response(null, { status: 403 }),
    }),
    { "demo-handler": ok },
  );
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(test.lines.at(-1)?.event, "claim_failed");
});

Deno.test("a webhook that says more is held back is answered with a call for it, as it begins to work and when it has ended", async () => {
  const sql = oneChunk(undefined, { cleanup_stuck_chunks: () => 0 });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook({ parent_sync_job_id: JOB, more: true });
  await test.settled();
  const calls = project.calls.map(({ name }) => name);
  assert.equal(calls.filter((name) => name === "cleanup_stuck_chunks").length, 2);
  assert.equal(calls.at(-1), "cleanup_stuck_chunks");
  await test.webhook({ parent_sync_job_id: JOB, more: true }); // nothing is left to claim
  await test.settled();
  assert.equal(project.of("cleanup_stuck_chunks").length, 2);
});

Deno.test("that nobody hears the call does not disturb the work", async () => {
  const sql = oneChunk(undefined, { cleanup_stuck_chunks: () => new Response(null, { status: 503 }) });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook({ more: true });
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length, 1);
  assert.ok(test.lines.some(({ event }) => event === "call_for_more_failed"));
});
