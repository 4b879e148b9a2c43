/** The pace that handlers of one limit key keep. */

import assert from "node:assert/strict";
import { serveHandler, type Work } from "../../supabase/functions/_shared/serve.ts";
import { KEY, LoopbackProject, type SqlFunctions } from "./project.ts";

const CHUNK = {
  job_id: "7c0e4f5e-6f0b-4b53-9d5a-0d1f8f6f2a10",
  chunk_id: 1,
  chunk_index: 0,
  attempt: 1,
  kind: "demo",
  owner_id: null,
  payload: {},
  job_payload: {},
  checkpoint: null,
  claim_token: "2c6a8c61-0c0f-4f0c-9d33-1f6f4a1c5d02",
  time_left_ms: 5000,
  limit_key: "api.example.com",
};

/** Runs one chunk in a project; returns its answer, and what was asked. */
async function run(
  work: Work,
  sql: SqlFunctions,
  over: Record<string, unknown> = {},
  signal: AbortSignal | null = null,
) {
  await using project = new LoopbackProject(sql);
  const { fetch } = serveHandler(work, {
    name: "demo",
    project: { url: project.url, secretKeys: { default: KEY } },
  });
  const body = JSON.stringify({ ...CHUNK, ...over });
  const response = await fetch(
    new Request("http://project/demo", { method: "POST", body, headers: { apikey: KEY }, signal }),
  );
  const asked = project.of("pace_sync_limit").map((call) => call.args);
  const after = response.headers.get("retry-after");
  return { status: response.status, after, body: await response.json(), asked };
}

Deno.test("a handler waits as long as the database says", async () => {
  const waits = [0, 150];
  const began = performance.now();
  const { status, asked } = await run(async (_chunk, { pace }) => {
    await pace();
    await pace(3);
  }, { pace_sync_limit: () => waits.shift() });
  assert.equal(status, 200);
  assert.deepEqual(asked, [{ key: "api.example.com", n: 1 }, { key: "api.example.com", n: 3 }]);
  assert.ok(performance.now() - began >= 145);
});

Deno.test("without a limit key there is nothing to wait for", async () => {
  const { status, asked } = await run((_chunk, { pace }) => pace(), {}, { limit_key: null });
  assert.deepEqual([status, asked], [200, []]);
});

Deno.test("room that comes after the invocation's end gives the chunk back", async () => {
  const { status, after, body } = await run((_chunk, { pace }) => pace(), { pace_sync_limit: () => 65_000 });
  assert.deepEqual([status, after], [429, "65"]);
  assert.match(body.error, /api\.example\.com/);
});

Deno.test("more at once than there can be room for fails for good", async () => {
  const refused = { code: "SC003", message: "n must be between 1 and 10, not 11", details: "n" };
  const sql = { pace_sync_limit: () => Response.json(refused, { status: 400 }) };
  assert.equal((await run((_chunk, { pace }) => pace(11), sql)).status, 422);
});

Deno.test("the end of the call ends the wait", async () => {
  const ending = new AbortController();
  setTimeout(() => ending.abort(new Error("cancelled")), 100);
  const began = performance.now();
  const sql = { pace_sync_limit: () => 4000 };
  const { status, body } = await run((_chunk, { pace }) => pace(), sql, {}, ending.signal);
  assert.equal(status, 500);
  assert.match(body.error, /cancelled/);
  assert.ok(performance.now() - began < 3000);
});
