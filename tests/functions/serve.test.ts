/** A handler written with `serveHandler`: who may call it, and what its returns and throws become. */

import assert from "node:assert/strict";
import { type Project, projectFromEnv } from "../../supabase/functions/_shared/auth.ts";
import { RpcError } from "../../supabase/functions/_shared/rpc.ts";
import {
  type Chunk,
  PermanentFailure,
  RetryLater,
  serveHandler,
  Throttled,
  type Work,
} from "../../supabase/functions/_shared/serve.ts";
import { KEY, LoopbackProject } from "./project.ts";

const LEGACY = "header.payload.signature";
const CHUNK = {
  job_id: "j",
  chunk_id: 1,
  chunk_index: 0,
  attempt: 1,
  kind: "demo",
  owner_id: null,
  payload: {},
};

function project(url = "http://127.0.0.1:1"): Project {
  return { url, secretKeys: { default: KEY, legacy: LEGACY } };
}

function ask(
  work: Work,
  body: unknown = CHUNK,
  headers: Record<string, string> = { apikey: KEY },
  url?: string,
) {
  const { fetch } = serveHandler(work, { name: "demo", project: project(url) });
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return fetch(new Request("http://project/demo", { method: "POST", body: text, headers }));
}

Deno.test("without one of the project's secret keys nothing is done", async () => {
  const refused: Record<string, string>[] = [
    {},
    { apikey: "" },
    { apikey: "sb_secret_of_another_project" },
    { apikey: "sb_publishable_key" },
    { apikey: `${KEY}x` },
    { authorization: `Bearer ${KEY}` },
    { authorization: `Bearer ${LEGACY}` },
  ];
  for (const headers of refused) {
    const response = await ask(() => assert.fail("the work was called"), CHUNK, headers);
    assert.equal(response.status, 401, JSON.stringify(headers));
    assert.ok(!(await response.text()).includes(KEY));
  }
});

Deno.test("any named secret key and the legacy key open it", async () => {
  for (const apikey of [KEY, LEGACY]) {
    const response = await ask(() => ({ result: 1 }), CHUNK, { apikey });
    assert.equal(response.status, 200);
    await response.body?.cancel();
  }
});

Deno.test("the platform's environment names the keys", () => {
  const env = new Map([
    ["SUPABASE_URL", "https://project.example/"],
    ["SUPABASE_SECRET_KEYS", '{"default": "a", "worker": "b"}'],
    ["SUPABASE_SERVICE_ROLE_KEY", "c"],
  ]);
  assert.deepEqual(projectFromEnv(env), {
    url: "https://project.example",
    secretKeys: { default: "a", worker: "b", legacy: "c" },
  });
  env.delete("SUPABASE_SECRET_KEYS");
  env.delete("SUPABASE_SERVICE_ROLE_KEY");
  assert.deepEqual(projectFromEnv(env).secretKeys, {});
  assert.throws(() => projectFromEnv(new Map()), /SUPABASE_URL/);
});

Deno.test("what the work returns is the answer; integers beyond 2^53 keep their digits both ways", async () => {
  const digits = "12345678901234567890";
  const chunk = JSON.stringify({ ...CHUNK, payload: { id: "@" } }).replace('"@"', digits);
  const seen: Chunk[] = [];
  const response = await ask((chunk) => {
    seen.push(chunk);
    return {
      result: { id: chunk.payload.id + 1n },
      items_processed: 1,
      next_chunks: [{ id: chunk.payload.id }],
    };
  }, chunk);
  assert.equal(seen[0].payload.id, 12345678901234567890n);
  assert.equal(
    await response.text(),
    `{"result":{"id":12345678901234567891},"items_processed":1,"next_chunks":[{"id":${digits}}]}`,
  );
});

Deno.test("returning nothing is an answer", async () => {
  assert.deepEqual(await (await ask(() => {})).json(), {});
});

Deno.test("throwing says whether and when to try again", async () => {
  const thrown = async (error: unknown) => {
    const response = await ask(() => Promise.reject(error));
    return [response.status, response.headers.get("retry-after"), (await response.json()).error];
  };
  assert.deepEqual(await thrown(new RetryLater(2.1)), [503, "3", "not now"]);
  assert.deepEqual(await thrown(new RetryLater(null, "busy")), [503, null, "busy"]);
  assert.deepEqual(await thrown(new Throttled(2.1)), [429, "3", "asked for a pause"]);
  assert.deepEqual(await thrown(new Throttled(0, "slow down")), [429, "0", "slow down"]);
  assert.deepEqual(await thrown(new PermanentFailure("gone")), [422, null, "gone"]);
  assert.deepEqual(await thrown(new TypeError("oops")), [500, null, "oops"]);
  assert.deepEqual(await thrown("text"), [500, null, "text"]);
});

Deno.test("a result that jsonb refuses fails for good and names the place", async () => {
  const response = await ask(() => ({ result: { a: "\u0000" } }));
  assert.equal(response.status, 422);
  assert.match((await response.json()).error, /result\.a contains/);
});

Deno.test("what is not a chunk is refused", async () => {
  for (const body of ["", "{", "null", "[]", "{}"]) {
    const response = await ask(() => assert.fail("the work was called"), body);
    assert.equal(response.status, 400);
    await response.body?.cancel();
  }
});

Deno.test("a probe does no work", async () => {
  const response = await ask(() => assert.fail("the work was called"), { probe: true });
  assert.equal((await response.json()).ok, true);
});

Deno.test("the work calls SQL functions with the key, and gets their errors", async () => {
  await using loopback = new LoopbackProject({
    add: ({ a }) => Number(a) + 1,
    refuse: () => Response.json({ code: "SC003", message: "a is wrong", details: "a" }, { status: 400 }),
  });
  const response = await ask(
    async (_chunk, { rpc }) => {
      const error = await rpc("refuse", {}).catch((error) => error);
      assert.ok(error instanceof RpcError);
      assert.deepEqual([error.code, error.retryable, error.message], [
        "SC003",
        false,
        "refuse: a is wrong: a",
      ]);
      return { result: await rpc("add", { a: 1 }) };
    },
    CHUNK,
    { apikey: LEGACY },
    loopback.url,
  );
  assert.deepEqual(await response.json(), { result: 2 });
  assert.equal(loopback.calls[0].headers.get("authorization"), `Bearer ${LEGACY}`);
});
