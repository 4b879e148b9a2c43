/**
 * Everything of a handler but its work: a function that gets a chunk and returns what came of it.
 *
 * ```ts
 * import { serveHandler, Throttled } from "../_shared/serve.ts";
 *
 * export default serveHandler(async (chunk, { signal }) => {
 *   const response = await fetch(`https://api.example.com/items?page=${chunk.payload.page}`, { signal });
 *   if (response.status === 429) throw new Throttled(30);
 *   const items = await response.json();
 *   return { result: { items: items.length }, items_processed: items.length };
 * });
 * ```
 *
 * A chunk may run again after a death: write so that running twice does what running once does. One that takes longer than
 * an invocation saves checkpoints: {@link Saved.save}, {@link Continue}.
 */

import { authorised, type Project, projectFromEnv } from "./auth.ts";
import { surviveUnhandled } from "./background.ts";
import { LeaseLost, PermanentFailure, RetryLater, Throttled } from "./errors.ts";
import { parseJson, stringifyJson, whyNotStorable } from "./json.ts";
import { createLog, type Log, messageOf } from "./log.ts";
import { type Pace, paceOf } from "./pace.ts";
import { createRpc, createSelect, type Rpc } from "./rpc.ts";
import { type Saved, savedOf } from "./saved.ts";
import { VERSION } from "./version.ts";

export { LeaseLost, PermanentFailure, RetryLater, Throttled };

/** What the processor hands to a handler. Integers beyond 2^53 in the payloads are `bigint`. */
export interface Chunk {
  job_id: string;
  chunk_id: number | bigint;
  chunk_index: number;
  /** 1 at the first try, and again after each new checkpoint. */
  attempt: number;
  kind: string;
  /** Whose job it is; null: the service's own. A handler touches nothing of other owners. */
  owner_id: string | null;
  // deno-lint-ignore no-explicit-any
  payload: any;
  // deno-lint-ignore no-explicit-any
  job_payload: any;
  /** Where to go on: what an earlier attempt saved last; null at first. */
  // deno-lint-ignore no-explicit-any
  checkpoint: any;
  /** Proves that a save or a report comes from the present claim. */
  claim_token: string;
  /** Milliseconds until the answer must be there, as of the request; {@link Context.timeLeftMs} runs on. */
  time_left_ms: number;
  /** What its job shares limits by with others; null: nothing. */
  limit_key?: string | null;
}

/** What a handler may use. */
export interface Context extends Saved, Pace {
  /** Ends when the caller is gone: the job was cancelled, or the time is over. Pass it to every `fetch`. */
  signal: AbortSignal;
  /** Calls SQL functions with the rights of the service. */
  rpc: Rpc;
  log: Log;
  /** Milliseconds that this invocation still has. Read it from the context each time: a copy of it stands still. */
  readonly timeLeftMs: number;
}

/** What came of a chunk. Everything is optional. */
export interface Answer {
  /** Kept on the chunk; any JSON value, `0`, `false` and `""` too. Megabytes belong in a table of your own. */
  result?: unknown;
  /** How many items this chunk did; counted once, at its completion. */
  items_processed?: number;
  /** Items that this chunk found there are; added to the job's total. */
  items_total?: number;
  /** Payloads of further chunks of the same job, added in the same transaction that completes this one. */
  next_chunks?: Record<string, unknown>[];
  /** Merged into what the job leaves for the next one with its `job_key`, when it completes. */
  next_state?: Record<string, unknown>;
}

/**
 * What a handler returns that has used its time: the chunk goes on from its checkpoint in the next invocation, at once.
 *
 * It costs no attempt while each time brings a new checkpoint. So do a step before looking at the time.
 */
export interface Continue {
  continue: true;
  /** An object of at most 8 KB of JSON; what was saved last unless given. */
  checkpoint?: Record<string, unknown>;
  /** How many items of this chunk are done so far; as last said unless given. */
  items_processed?: number;
}

/** A handler's work. */
export type Work = (
  chunk: Chunk,
  context: Context,
) => Promise<Answer | Continue | void> | Answer | Continue | void;

/**
 * The default export of a handler's `index.ts`.
 *
 * Checks the key, reads the chunk, calls `work`, and turns what it returns or throws into the answer that the processor
 * understands: {@link RetryLater} and any other error are tried again, {@link Throttled} without cost of an attempt,
 * {@link PermanentFailure} is not, and after {@link LeaseLost} nobody listens.
 *
 * @param options.name what its log lines carry; by default the name in the request's path.
 */
export function serveHandler(
  work: Work,
  options: { name?: string; project?: Project } = {},
): { fetch(request: Request): Promise<Response> } {
  const project = options.project ?? projectFromEnv();
  return { fetch: authorised(project, (request, key) => answer(request, key)) };

  async function answer(request: Request, key: string): Promise<Response> {
    const log = createLog(options.name ?? (new URL(request.url).pathname.split("/").at(-1) || "handler"));
    surviveUnhandled(log);
    const arrived = performance.now();
    let chunk: Chunk & { probe?: boolean };
    try {
      chunk = parseJson(await request.text()) as Chunk;
      if (chunk?.probe === true) return Response.json({ ok: true, version: VERSION });
      if (typeof chunk?.chunk_id !== "number" && typeof chunk?.chunk_id !== "bigint") {
        throw new Error("no chunk_id");
      }
    } catch (error) {
      return Response.json({ error: `this is not a chunk: ${messageOf(error)}` }, { status: 400 });
    }
    const { signal } = request;
    const rpc = createRpc(project.url, key);
    const context: Context = {
      ...savedOf(chunk, rpc, createSelect(project.url, key), signal),
      ...paceOf(chunk, rpc, signal, () => context.timeLeftMs),
      signal,
      rpc,
      log,
      get timeLeftMs() {
        return (chunk.time_left_ms ?? Infinity) - (performance.now() - arrived);
      },
    };
    try {
      const done = await work(chunk, context) ?? {};
      for (const [field, value] of Object.entries(done)) {
        const flaw = whyNotStorable(value, field);
        if (flaw !== null) throw new PermanentFailure(flaw);
      }
      return new Response(stringifyJson(done), { headers: { "content-type": "application/json" } });
    } catch (error) {
      const where = { job: chunk.job_id, chunk: Number(chunk.chunk_id), attempt: chunk.attempt };
      log("handler_failed", { ...where, error: messageOf(error) });
      return failed(error);
    }
  }
}

function failed(error: unknown): Response {
  const body = { error: messageOf(error) };
  if (error instanceof PermanentFailure) return Response.json(body, { status: 422 });
  if (error instanceof LeaseLost) return Response.json(body, { status: 409 });
  if (error instanceof Throttled) {
    return Response.json(body, {
      status: 429,
      headers: { "retry-after": String(Math.max(0, Math.ceil(error.seconds))) },
    });
  }
  if (!(error instanceof RetryLater)) return Response.json(body, { status: 500 });
  const headers = error.seconds === null ? undefined : { "retry-after": String(Math.ceil(error.seconds)) };
  return Response.json(body, { status: 503, headers });
}
