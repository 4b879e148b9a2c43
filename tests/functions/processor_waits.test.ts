/** A webhook for a retry that is due soon: the processor waits for it, since the database's sender cannot. */

import assert from "node:assert/strict";
import { LoopbackProject } from "./project.ts";
import { JOB, oneChunk, ProcessorUnderTest } from "./processing.ts";

const ok = () => Response.json({ result: 1 });

Deno.test("it answers at once, claims when the time has come, and works on", async () => {
  await using project = new LoopbackProject(oneChunk(), { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  const started = performance.now();
  const answer = await test.webhook({ parent_sync_job_id: JOB, chunk_id: 11, wait_seconds: 1 });
  assert.equal(answer.status, 202);
  assert.equal(answer.body.claimed, null);
  assert.equal(project.calls.length, 0);
  await test.settled();
  assert.ok(performance.now() - started >= 990);
  assert.equal(project.of("claim_next_chunk_job_safe")[0].args.parent_sync_job_id, JOB);
  assert.equal(project.of("complete_chunk_job_safe")[0].args.success, true);
});

Deno.test("a worker that ends meanwhile claims nothing", async () => {
  await using project = new LoopbackProject(oneChunk(), { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook({ parent_sync_job_id: JOB, wait_seconds: 0.3 });
  await test.processor.stop("wall clock");
  await test.settled();
  assert.equal(project.calls.length, 0);
});

Deno.test("a wait that makes no sense, or is too long to be held, is none", async () => {
  await using project = new LoopbackProject({ claim_next_chunk_job_safe: () => [] });
  const test = new ProcessorUnderTest(project);
  for (const wait of [0, -5, 3600, 1e400, null, "soon", {}, []]) {
    const answer = await test.webhook({ parent_sync_job_id: JOB, wait_seconds: wait });
    assert.deepEqual(answer, { status: 200, body: { claimed: false } }, String(wait));
  }
});
