/** The processor around its handlers: claiming, draining, heartbeats, the end of a worker, an absent database. */

import assert from "node:assert/strict";
import { KEY, LoopbackProject, until } from "./project.ts";
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
  const chunk = chunkRow({ attempt: 2, owner_id: JOB, job_payload: { account: "work" } });
  await using project = new LoopbackProject(oneChunk(chunk), { "demo-handler": handler });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(apikey, KEY);
  assert.deepEqual(body, {
    job_id: JOB,
    chunk_id: 11,
    chunk_index: 0,
    attempt: 2,
    kind: "demo",
    owner_id: JOB,
    payload: { page: 1 },
    job_payload: { account: "work" },
  });
});

Deno.test("one invocation drains a job of short chunks", async () => {
  await using project = new LoopbackProject(job(20), { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length, 20);
  assert.equal(project.of("claim_next_chunk_job_safe").length, 1);
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
  const slow = () => new Promise<Response>((resolve) => setTimeout(() => resolve(ok()), 700));
  const handler = (request: Request) => ++calls === 1 ? slow() : hanging(request);
  await using project = new LoopbackProject(job(5), { "demo-handler": handler });
  const test = new ProcessorUnderTest(project, { wallClockMs: 2000 });
  await test.webhook();
  await test.settled();
  assert.deepEqual(project.of("complete_chunk_job_safe").map(({ args }) => args.claim_next), [true]);
  assert.match(project.of("release_chunk_job")[0].args.reason, /time was over/);
});

Deno.test("heartbeats come every third of the lease and stop with the chunk", async () => {
  const lease = () => new Date(Date.now() + 1800).toISOString();
  const slow = () => new Promise<Response>((resolve) => setTimeout(() => resolve(ok()), 1500));
  await using project = new LoopbackProject(
    oneChunk(chunkRow({ locked_until: lease() }), {
      extend_chunk_lease: () => ({ ok: true, cancel_requested: false, locked_until: lease() }),
    }),
    { "demo-handler": slow },
  );
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.equal(project.of("extend_chunk_lease").length, 2);
});

Deno.test("cancelling the job ends the handler's call", async () => {
  let gone = false;
  await using project = new LoopbackProject(
    oneChunk(chunkRow(), {
      extend_chunk_lease: () => ({ ok: false, cancel_requested: true, locked_until: null }),
    }),
    { "demo-handler": (request) => hanging(request).finally(() => gone = true) },
  );
  const test = new ProcessorUnderTest(project, { heartbeatMs: 10 });
  await test.webhook();
  await test.settled();
  await until(() => gone, "the handler's request was ended");
  assert.match(project.of("complete_chunk_job_safe")[0].args.error, /cancelled/);
});

Deno.test("a claim that is another's by now is neither reported nor released", async () => {
  await using project = new LoopbackProject(
    oneChunk(chunkRow(), {
      extend_chunk_lease: () => ({ ok: false, cancel_requested: false, locked_until: null }),
    }),
    { "demo-handler": hanging },
  );
  const test = new ProcessorUnderTest(project, { heartbeatMs: 10 });
  await test.webhook();
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length + project.of("release_chunk_job").length, 0);
});

Deno.test("a failing heartbeat does not disturb the chunk", async () => {
  const slow = () => new Promise<Response>((resolve) => setTimeout(() => resolve(ok()), 1200));
  await using project = new LoopbackProject(
    oneChunk(chunkRow(), { extend_chunk_lease: () => new Response("<html>", { status: 503 }) }),
    { "demo-handler": slow },
  );
  const test = new ProcessorUnderTest(project, { heartbeatMs: 10 });
  await test.webhook();
  await test.settled();
  assert.ok(project.of("extend_chunk_lease").length >= 1);
  assert.equal(project.of("complete_chunk_job_safe")[0].args.success, true);
});

Deno.test("a worker that is ended gives its chunk back with the reason and takes no more", async () => {
  await using project = new LoopbackProject(oneChunk(), { "demo-handler": hanging });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.processor.release("wall_clock");
  await test.settled();
  const [release] = project.of("release_chunk_job");
  assert.equal(release.args.reason, "wall_clock");
  assert.equal(project.of("complete_chunk_job_safe").length, 0);
  assert.equal((await test.webhook()).status, 503);
});

Deno.test("a chunk whose claim arrives when the worker is ending is given back untouched", async () => {
  const gate = Promise.withResolvers<void>();
  let handled = 0;
  const sql = oneChunk(chunkRow(), {
    claim_next_chunk_job_safe: async () => {
      await gate.promise;
      return [chunkRow()];
    },
  });
  await using project = new LoopbackProject(sql, { "demo-handler": () => (handled += 1, ok()) });
  const test = new ProcessorUnderTest(project);
  const webhook = test.webhook();
  await until(() => project.calls.length === 1, "the claim was asked for");
  await test.processor.release("early_drop");
  gate.resolve();
  assert.equal((await webhook).status, 202);
  await test.settled();
  assert.equal(project.of("release_chunk_job").length, 1);
  assert.equal(handled, 0);
});

Deno.test("a report goes on until the database is back", async () => {
  let failures = 0;
  const sql = oneChunk(chunkRow(), {
    complete_chunk_job_safe: () => {
      failures += 1;
      if (failures === 1) return new Response("<html>bad gateway</html>", { status: 502 });
      if (failures === 2) return new Response("<html>welcome</html>", { status: 200 });
      if (failures === 3) {
        return Response.json({ code: "40P01", message: "deadlock detected" }, { status: 500 });
      }
      return { outcome: "completed", next: null };
    },
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  const reports = project.of("complete_chunk_job_safe");
  assert.equal(reports.length, 4);
  assert.equal(new Set(reports.map(({ text }) => text)).size, 1);
});

Deno.test("a report to nobody ends with the invocation's time, without an unhandled rejection", async () => {
  await using project = new LoopbackProject(
    oneChunk(chunkRow(), { complete_chunk_job_safe: () => new Response(null, { status: 503 }) }),
    { "demo-handler": ok },
  );
  const test = new ProcessorUnderTest(project, { wallClockMs: 700 });
  const started = performance.now();
  await test.webhook();
  await test.settled();
  assert.ok(performance.now() - started < 2000);
  assert.equal(test.lines.at(-1)?.outcome, "unreported");
});

Deno.test("a result that is too large for the gateway fails the chunk", async () => {
  const sql = oneChunk(chunkRow(), {
    complete_chunk_job_safe: ({ success }) =>
      success ? new Response("too large", { status: 413 }) : { outcome: "failed", next: null },
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.match(project.of("complete_chunk_job_safe")[1].args.error, /refused the result: .*413/);
});

Deno.test("a result that the database refuses fails the chunk with the database's words", async () => {
  const sql = oneChunk(chunkRow(), {
    complete_chunk_job_safe: ({ success }) =>
      success
        ? Response.json({ code: "SC004", message: "too many next chunks" }, { status: 400 })
        : { outcome: "failed", next: null },
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  const { args } = project.of("complete_chunk_job_safe")[1];
  assert.deepEqual([args.success, args.retryable], [false, false]);
  assert.match(args.error, /refused the result: .*too many next chunks/);
});

Deno.test("a claim whose reply was lost is asked for again with the same id", async () => {
  let tries = 0;
  const sql = oneChunk(chunkRow(), {
    claim_next_chunk_job_safe: () => ++tries < 3 ? new Response(null, { status: 504 }) : [chunkRow()],
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 1 });
  assert.equal((await test.webhook()).status, 202);
  await test.settled();
  const ids = project.of("claim_next_chunk_job_safe").map(({ args }) => args.claim_id);
  assert.equal(ids.length, 3);
  assert.equal(new Set(ids).size, 1);
});

Deno.test("while the database is away the webhook hears 503 soon and the claim goes on behind it", async () => {
  let back = false;
  const sql = oneChunk(chunkRow(), {
    claim_next_chunk_job_safe: () => back ? [chunkRow()] : new Response(null, { status: 503 }),
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 1 });
  const started = performance.now();
  assert.equal((await test.webhook()).status, 503);
  assert.ok(performance.now() - started < 2500);
  back = true;
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length, 1);
});

Deno.test("a claim that is refused is an error of the webhook", async () => {
  await using project = new LoopbackProject({
    claim_next_chunk_job_safe: () =>
      Response.json({ code: "42501", message: "permission denied" }, { status: 403 }),
  });
  const { status, body } = await new ProcessorUnderTest(project).webhook();
  assert.equal(status, 502);
  assert.match(String(body.error), /permission denied/);
});

Deno.test("no line of the log holds the key", async () => {
  await using project = new LoopbackProject(oneChunk(), {
    "demo-handler": (request) => new Response(JSON.stringify([...request.headers]), { status: 400 }),
  });
  const test = new ProcessorUnderTest(project);
  await test.webhook();
  await test.settled();
  assert.ok(test.lines.length > 0);
  assert.ok(!JSON.stringify(test.lines).includes(KEY));
});
