/** The processor when things go wrong: cancelled jobs, lost claims, the end of a worker, an absent database. */

import assert from "node:assert/strict";
import { KEY, LoopbackProject, until } from "./project.ts";
import { chunkRow, hanging, oneChunk, ProcessorUnderTest } from "./processing.ts";

const ok = () => Response.json({ result: 1 });

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

Deno.test("a claim that is another's by now is neither reported nor given back", async () => {
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
  await test.processor.stop("wall_clock");
  await test.settled();
  const [given] = project.of("release_chunk_job");
  assert.equal(given.args.reason, "wall_clock");
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
  await test.processor.stop("early_drop");
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
      // PostgreSQL was killed in the middle of the call.
      if (failures === 3) {
        return Response.json({ code: "", message: "", details: null, hint: null }, { status: 400 });
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

Deno.test("a report that the database cannot do just now is repeated, and its lease kept", async () => {
  const passing = [["40P01", 500], ["40001", 500], ["55P03", 500], ["57014", 500], ["25006", 405]] as const;
  let failures = 0;
  // Set below: what `await using` declares is no name for a function before it, on the hosted version.
  let heartbeats = () => 0;
  const sql = oneChunk(chunkRow(), {
    complete_chunk_job_safe: () => {
      if (failures >= passing.length && heartbeats() > 0) {
        return { outcome: "completed", next: null };
      }
      const [code, status] = passing[Math.min(failures++, passing.length - 1)];
      return Response.json({ code, message: "not now" }, { status });
    },
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  heartbeats = () => project.of("extend_chunk_lease").length;
  const test = new ProcessorUnderTest(project, { heartbeatMs: 500 });
  await test.webhook();
  await test.settled();
  const reports = project.of("complete_chunk_job_safe");
  assert.ok(reports.length > passing.length);
  assert.ok(reports.every(({ args }) => args.success));
  assert.equal(test.lines.at(-1)?.outcome, "completed");
});

Deno.test("while the database is read-only the webhook hears it, and the claim goes on behind it", async () => {
  let tries = 0;
  const readOnly = { code: "25006", message: "cannot execute UPDATE in a read-only transaction" };
  const sql = oneChunk(chunkRow(), {
    claim_next_chunk_job_safe: () => ++tries < 6 ? Response.json(readOnly, { status: 405 }) : [chunkRow()],
  });
  await using project = new LoopbackProject(sql, { "demo-handler": ok });
  const test = new ProcessorUnderTest(project, { chunksPerInvocation: 1 });
  const { status, body } = await test.webhook();
  assert.equal(status, 503);
  assert.match(String(body.error), /read-only/);
  await test.settled();
  assert.equal(project.of("complete_chunk_job_safe").length, 1);
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
