/** The processor around its handlers: claiming, draining, handing over. */

import assert from "node:assert/strict";
import { KEY, LoopbackProject } from "./project.ts";
import { chunkRow, hanging, JOB, oneChunk, ProcessorUnderTest } from "./processing.ts";

const ok = () => Response.json({ result: 1 });

/** A job of so many chunks, drained by `claim_next`. */
function job(chunks: number) {
  let left = chunks - 1;
  return oneChunk(chunkRow(), {
    complete_chunk_job_safe: ({ claim_next }) => ({
      outcome: "completed",
      next: claim_next && left-- > 0 ? chunkRow({ chunk_id: 100 - left }) : null,
    }),
  });
}

Deno.test("a webhook without a body claims any chunk, answers 202 at once and works on", async () => {
  const gate = Promise.withResolvers<Response>();
  await using project = new LoopbackProject(oneChunk(), { "demo-handler": () => gate.promise });
  const test = new ProcessorUnderTest(project);
  const answer = await test.webhook();
  assert.deepEqual(answer, { status: 202, body: { claimed: true, chunk_id: 11, parent_sync_job_id: JOB } });
  assert.equal(project.of("complete_chunk_job_safe").length, 0);
  gate.resolve(ok());
  await test.settled();
  const [claim] = project.of("claim_next_chunk_job_safe");
  assert.equal(claim.headers.get("apikey"), KEY);
  assert.match(claim.args.claim_id, /^[0-9a-f-]{36}$/);
  assert.equal(claim.args.parent_sync_job_id, undefined);
  assert.equal(project.of("complete_chunk_job_safe")[0].args.success, true);
});

Deno.test("nothing to claim answers 200", async () => {
  await using project = new LoopbackProject({ claim_next_chunk_job_safe: () => [] });
  assert.deepEqual(await new ProcessorUnderTest(project).webhook(), {
    status: 200,
    body: { claimed: false },
  });
});

Deno.test("the job in the hint is asked first, then any", async () => {
  await using project = new LoopbackProject({ claim_next_chunk_job_safe: () => [] });
  const test = new ProcessorUnderTest(project);
  await test.webhook({ parent_sync_job_id: JOB, chunk_id: 4 });
  const asked = project.of("claim_next_chunk_job_safe").map(({ args }) => args);
  assert.deepEqual(asked.map(({ parent_sync_job_id }) => parent_sync_job_id), [JOB, undefined]);
  assert.notEqual(asked[0].claim_id, asked[1].claim_id);
});

Deno.test("a body that is no hint does no harm", async () => {
  await using project = new LoopbackProject({ claim_next_chunk_job_safe: () => [] });
  const test = new ProcessorUnderTest(project);
  for (const body of ["{", "[]", "null", '"x"', '{"parent_sync_job_id": "1\' or true"}']) {
    assert.equal((await test.webhook(body)).status, 200, body);
  }
});

Deno.test("a probe claims nothing", async () => {
  await using project = new LoopbackProject({});
  const { status, body } = await new ProcessorUnderTest(project).webhook({ probe: true });
  assert.equal(status, 200);
  assert.equal(body.ok, true);
  assert.match(String(body.version), /^\d+\.\d+\.\d+/);
  assert.equal(project.calls.length, 0);
});

Deno.test("the handler gets the chunk, its job's payload and the key", async () => {
  let apikey: string | null = null;
  let body: Record<string, unknown> = {};
  const handler = async (request: Request) => {
    apikey = request.headers.get("apikey");
    body = await request.json();
    return ok();
  };
  const chunk = chunkRow({
    attempt: 2,
    owner_id: JOB,
    job_payload: { account: "work" },
    checkpoint: { page: 7 },
    limit_key: "api.example.com",
  });
  await using project = new LoopbackProject(oneChunk(chunk), { "demo-handler": handler });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(apikey, KEY);
  const { time_left_ms, ...said } = body;
  assert.ok(Number.isInteger(time_left_ms));
  // Of the ten seconds a tenth is kept for the report.
  assert.ok(Number(time_left_ms) > 5000 && Number(time_left_ms) <= 9000, String(time_left_ms));
  assert.deepEqual(said, {
    job_id: JOB,
    chunk_id: 11,
    chunk_index: 0,
    attempt: 2,
    kind: "demo",
    owner_id: JOB,
    payload: { page: 1 },
    job_payload: { account: "work" },
    checkpoint: { page: 7 },
    claim_token: chunk.claim_token,
    limit_key: "api.example.com",
  });
});

Deno.test("one invocation drains a job of short chunks", async () => {
  await using project = new LoopbackProject(job(20), { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length, 20);
  // The first chunk, and at the end whether any other waits.
  assert.equal(project.of("claim_next_chunk_job_safe").length, 2);
  const outcomes = test.lines.filter(({ event }) => event === "chunk");
  assert.equal(outcomes.length, 20);
  assert.deepEqual([outcomes[0].outcome, outcomes[0].job, outcomes[0].attempt], ["completed", JOB, 1]);
  assert.equal(typeof outcomes[0].duration_ms, "number");
});

Deno.test("CHUNKS_PER_INVOCATION=1 leaves the next chunk to the next webhook", async () => {
  await using project = new LoopbackProject(job(20), { "demo-handler": ok });
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 1 });
  await test.webhook();
  await test.settled();
  assert.deepEqual(project.of("complete_chunk_job_safe").map(({ args }) => args.claim_next), [false]);
});

Deno.test("near the end of its time the invocation hands over instead of claiming", async () => {
  const slow = () => new Promise<Response>((resolve) => setTimeout(() => resolve(ok()), 200));
  await using project = new LoopbackProject(job(100), { "demo-handler": slow });
  const test = new ProcessorUnderTest(project, { wallClockMs: 1500 });
  const started = performance.now();
  await test.webhook();
  await test.settled();
  assert.ok(performance.now() - started < 1500);
  const asked = project.of("complete_chunk_job_safe").map(({ args }) => args.claim_next);
  assert.ok(asked.length > 2);
  assert.deepEqual(asked.filter((claimNext) => !claimNext), [false]);
  assert.equal(asked.at(-1), false);
});

Deno.test("a chunk that began late and was cut off is given back, not failed", async () => {
  let calls = 0;
  const slow = () => new Promise<Response>((resolve) => setTimeout(() => resolve(ok()), 1100));
  const handler = (request: Request) => ++calls === 1 ? slow() : hanging(request);
  await using project = new LoopbackProject(job(5), { "demo-handler": handler });
  const test = new ProcessorUnderTest(project, { wallClockMs: 5000 });
  await test.webhook();
  await test.settled();
  assert.deepEqual(project.of("complete_chunk_job_safe").map(({ args }) => args.claim_next), [true]);
  assert.match(project.of("release_chunk_job")[0].args.reason, /time was over/);
});
