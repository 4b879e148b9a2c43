/** What a handler written with `serveHandler` saves and reads: checkpoints and state. */

import assert from "node:assert/strict";
import {
  LeaseLost,
  PermanentFailure,
  serveHandler,
  type Work,
} from "../../supabase/functions/_shared/serve.ts";
import { KEY, LoopbackProject, type SqlFunctions } from "./project.ts";

const CHUNK = {
  job_id: "7c0e4f5e-6f0b-4b53-9d5a-0d1f8f6f2a10",
  chunk_id: 1,
  chunk_index: 0,
  attempt: 1,
  kind: "demo",
  owner_id: "0b5a58a0-4c6e-4a52-8f6a-3f3c0a0a7e11",
  payload: {},
  job_payload: {},
  checkpoint: { page: 4 },
  claim_token: "2c6a8c61-0c0f-4f0c-9d33-1f6f4a1c5d02",
  time_left_ms: 5000,
};

/** Runs one chunk in a project; returns its answer, and what was thrown on the way. */
async function run(work: Work, sql: SqlFunctions, over: Record<string, unknown> = {}) {
  await using project = new LoopbackProject(sql);
  const { fetch } = serveHandler(work, {
    name: "demo",
    project: { url: project.url, secretKeys: { default: KEY } },
  });
  const body = JSON.stringify({ ...CHUNK, ...over });
  const response = await fetch(
    new Request("http://project/demo", { method: "POST", body, headers: { apikey: KEY } }),
  );
  return { status: response.status, body: await response.json(), project };
}

const stored = () => ({ ok: true, cancel_requested: false, locked_until: null });

Deno.test("save resolves when the checkpoint is stored, with the claim's token", async () => {
  const { body, project } = await run(async (chunk, { save }) => {
    await save({ page: chunk.checkpoint.page + 1, id: 2n ** 63n }, { items: 50 });
    await save({ page: 6 });
    return { continue: true };
  }, { extend_chunk_lease: stored });
  const { chunk_id, claim_token } = CHUNK;
  const [first, second] = project.of("extend_chunk_lease");
  assert.match(first.text, /"checkpoint":\{"page":5,"id":9223372036854775808\}/);
  assert.equal(first.args.items_processed, 50);
  assert.deepEqual(second.args, { chunk_id, claim_token, checkpoint: { page: 6 }, items_processed: null });
  assert.deepEqual(body, { continue: true });
});

Deno.test("a save whose claim is no longer ours throws LeaseLost, and nobody tries again for it", async () => {
  let thrown: unknown;
  const { status, body } = await run(async (_chunk, { save }) => {
    await save({ page: 5 }).catch((error) => {
      thrown = error;
      throw error;
    });
  }, { extend_chunk_lease: () => ({ ok: false, cancel_requested: true, locked_until: null }) });
  assert.ok(thrown instanceof LeaseLost);
  assert.equal(status, 409);
  assert.match(body.error, /no longer ours/);
});

Deno.test("a save goes on until the database is back", async () => {
  let tries = 0;
  const { status } = await run(
    (_chunk, { save }) => save({ page: 5 }),
    { extend_chunk_lease: () => ++tries < 3 ? new Response(null, { status: 503 }) : stored() },
  );
  assert.deepEqual([status, tries], [200, 3]);
});

Deno.test("what cannot be saved is named, and fails for good", async () => {
  const tooLarge = { code: "SC004", message: "checkpoint has 8193 bytes of JSON; it may have 8192" };
  // deno-lint-ignore no-explicit-any
  const cases: [any, { items?: number }, RegExp][] = [
    [undefined, {}, /checkpoint is not a JSON object/],
    [null, {}, /checkpoint is not a JSON object/],
    [[1], {}, /checkpoint is not a JSON object/],
    [new Date(), {}, /checkpoint is not a JSON object/],
    [new Map([["page", 1]]), {}, /checkpoint is not a JSON object/],
    [{ at: NaN }, {}, /checkpoint\.at is NaN/],
    [{ at: "\udc00" }, {}, /checkpoint\.at contains a lone surrogate/],
    [{}, { items: 1.5 }, /items is not a whole number/],
    [{}, { items: NaN }, /items is not a whole number/],
    [{ long: "x" }, {}, /8193 bytes of JSON; it may have 8192/],
  ];
  for (const [checkpoint, options, message] of cases) {
    const { status, body } = await run(async (_chunk, { save }) => {
      await assert.rejects(save(checkpoint, options), PermanentFailure);
      await save(checkpoint, options);
    }, { extend_chunk_lease: () => Response.json(tooLarge, { status: 400 }) });
    assert.equal(status, 422);
    assert.match(body.error, message);
  }
});

Deno.test("a sender that is older than the handler is named when something is to be saved", async () => {
  const older = { claim_token: undefined, checkpoint: undefined, time_left_ms: undefined };
  const { status, body } = await run(
    async (_chunk, context) => {
      assert.equal(context.timeLeftMs, Infinity);
      await context.save({ page: 1 });
    },
    {},
    older,
  );
  assert.equal(status, 422);
  assert.match(body.error, /no claim_token/);
});

Deno.test("state is that of the job's kind, key and owner", async () => {
  const { body, project } = await run(
    async (_chunk, { state }) => ({ result: await state(), next_state: { since: 8 } }),
    { sync_jobs: () => [{ job_key: "shop-7" }], get_sync_state: () => ({ since: 7 }) },
  );
  assert.deepEqual(body, { result: { since: 7 }, next_state: { since: 8 } });
  assert.equal(project.of("sync_jobs")[0].args.id, `eq.${CHUNK.job_id}`);
  const [{ args }] = project.of("get_sync_state");
  assert.deepEqual(args, { kind: "demo", job_key: "shop-7", owner_id: CHUNK.owner_id });
});

Deno.test("a job without a key has no state", async () => {
  for (const rows of [[{ job_key: null }], []]) {
    const { body } = await run(async (_chunk, { state }) => ({ result: await state() }), {
      sync_jobs: () => rows,
    });
    assert.deepEqual(body, { result: null });
  }
});

Deno.test("the time that is left runs on", async () => {
  const { body } = await run(async (_chunk, context) => {
    const before = context.timeLeftMs;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return { result: [before, context.timeLeftMs] };
  }, {});
  const [before, after] = body.result;
  assert.ok(before <= 5000 && before > 4000, String(before));
  assert.ok(after <= before - 15, `${before}, ${after}`);
});

Deno.test("a checkpoint or state in the answer that jsonb refuses fails for good and names the place", async () => {
  for (const field of ["checkpoint", "next_state"]) {
    const answer = { continue: field === "checkpoint", [field]: { a: "\u0000" } };
    const { status, body } = await run(() => answer as { continue: true }, {});
    assert.equal(status, 422);
    assert.match(body.error, new RegExp(`${field}\\.a contains`));
  }
});
