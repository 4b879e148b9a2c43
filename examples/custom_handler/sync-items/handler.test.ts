/** The handler against an API on loopback. In a project: `deno test --allow-net supabase/functions/sync-items`. */

import assert from "node:assert/strict";
import { type Chunk, type Context, PermanentFailure, Throttled } from "../_shared/serve.ts";
import { createSyncItems } from "./handler.ts";

/** Runs one chunk against an API that answers like this. */
async function run(payload: Record<string, unknown>, api: (request: Request) => Response) {
  await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, api);
  const work = createSyncItems(`http://127.0.0.1:${server.addr.port}/v1/`);
  return await work({ payload } as Chunk, { signal: new AbortController().signal } as Context);
}

Deno.test("a page is done and names the chunk of the next one", async () => {
  const asked: string[] = [];
  const answer = await run({ cursor: "b c" }, (request) => {
    asked.push(request.url);
    return Response.json({ items: [{ id: 3, name: "x" }], next_cursor: "d" });
  });
  assert.match(asked[0], /\/v1\/items\?cursor=b\+c$/);
  assert.deepEqual(answer, { result: { ids: [3] }, items_processed: 1, next_chunks: [{ cursor: "d" }] });
});

Deno.test("the last page has no next one", async () => {
  const answer = await run({}, () => Response.json({ items: [], next_cursor: null }));
  assert.deepEqual(answer.next_chunks, []);
});

Deno.test("a busy API is asked later, a lost cursor never again, anything else after the backoff", async () => {
  const thrown = (response: Response) => run({}, () => response).catch((error) => error);
  const later = await thrown(new Response("", { status: 429, headers: { "retry-after": "7" } }));
  assert.ok(later instanceof Throttled);
  assert.equal(later.seconds, 7);
  assert.ok(await thrown(new Response("", { status: 410 })) instanceof PermanentFailure);
  const other = await thrown(new Response("", { status: 500 }));
  assert.ok(!(other instanceof PermanentFailure) && !(other instanceof Throttled));
  assert.match(other.message, /500/);
});
