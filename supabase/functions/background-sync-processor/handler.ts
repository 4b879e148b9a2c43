/**
 * The processor: a webhook says "there may be work"; it claims a chunk, answers at once and works on in the background.
 *
 * The webhook is a hint, the table is the truth. What follows the first chunk is in drain.ts. The processor never calls
 * itself.
 */

import { type Log, messageOf } from "../_shared/log.ts";
import { createRpc, createSelect, type Rpc, RpcError, withRetries } from "../_shared/rpc.ts";
import { VERSION } from "../_shared/version.ts";
import type { ChunkRun, ClaimedChunk, Invocation } from "./chunk.ts";
import { drain } from "./drain.ts";
import type { Settings } from "./settings.ts";

/** What the processor takes from outside. */
export interface Dependencies {
  /** The project's URL, without a slash at the end. */
  url: string;
  settings: Settings;
  log: Log;
  /** Keeps the worker alive until the promise settles. */
  inBackground: (work: Promise<unknown>) => void;
  /** `performance.now()` at which the platform will end this worker; null where nothing does. */
  workerUntil: number | null;
}

/** The processor's two entrances. */
export interface Processor {
  /** Answers a webhook; `key` is the one that authorised it. */
  handle(request: Request, key: string): Promise<Response>;
  /** Gives back what is being worked on. */
  stop(reason: string): Promise<void>;
}

/** A body is a hint of some hundred bytes; more is not looked at. */
const MAX_HINT_BYTES = 64 * 1024;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** pg_net sends its next batch when the slowest answer of this one is there: answer before the claim if that is slow. */
const ANSWER_WITHIN_MS = 1500;
/** How long a claim whose reply was lost is asked for again; the watchdog would find it only when its lease is over. */
const CLAIM_WITHIN_MS = 30_000;
/** A retry that is due later than this is not waited for: the database's watchdog will call. */
const LONGEST_WAIT_MS = 30_000;
/** Even a worker near its end gets this much, or it would claim for nothing. */
const LEAST_TIME_MS = 5000;

/** A processor; it keeps no state but the chunks in work. */
export function createProcessor(dependencies: Dependencies): Processor {
  const { url, settings, log, inBackground, workerUntil } = dependencies;
  const inWork = new Set<ChunkRun>();
  let ending = false;

  async function handle(request: Request, key: string): Promise<Response> {
    if (request.method !== "POST") return Response.json({ error: "use POST" }, { status: 405 });
    const hint = await readHint(request);
    if (hint.probe) return Response.json({ ok: true, version: VERSION });
    if (ending) return Response.json({ error: "this worker is about to end" }, { status: 503 });
    const started = performance.now();
    const rpc = createRpc(url, key);
    const workerId = `background-sync-processor/${crypto.randomUUID()}`;
    let lastFailure: string | null = null;
    const claimNow = (jobId: string | null = hint.jobId) =>
      claimChunk(rpc, workerId, jobId, performance.now() + CLAIM_WITHIN_MS, (error) => {
        lastFailure = error.message;
        log("claim_retry", { error: error.message });
      });
    const work = async (chunk: ClaimedChunk | null) => {
      if (chunk === null) return;
      if (hint.more) inBackground(callForMore(rpc, log));
      const claimAny = () => claimNow(null);
      await drain(chunk, invocationOf(started, rpc, key), {
        settings,
        log,
        inWork,
        ending: () => ending,
        claimAny,
      });
      // By now the others that were sent beside it have arrived, and there is room for as many.
      if (hint.more) await callForMore(rpc, log);
    };
    if (hint.waitMs > 0) {
      const waited = new Promise((resolve) => setTimeout(resolve, hint.waitMs));
      inBackground(waited.then(() => ending ? null : claimNow()).then(work));
      return Response.json({ claimed: null, reason: "waits until a retry is due" }, { status: 202 });
    }
    const claim = claimNow();
    try {
      const chunk = await within(claim, ANSWER_WITHIN_MS);
      if (chunk === undefined) {
        inBackground(claim.then(work));
        if (lastFailure !== null) return Response.json({ error: lastFailure }, { status: 503 });
        return Response.json({ claimed: null, reason: "the database is slow to answer" }, { status: 202 });
      }
      if (chunk === null) return Response.json({ claimed: false });
      inBackground(work(chunk));
      const { chunk_id, parent_sync_job_id } = chunk;
      return Response.json({ claimed: true, chunk_id: Number(chunk_id), parent_sync_job_id }, {
        status: 202,
      });
    } catch (error) {
      log("claim_failed", { error: messageOf(error) });
      return Response.json({ error: messageOf(error) }, { status: 502 });
    }
  }

  /** How long the work that began then may go on. */
  function invocationOf(started: number, rpc: Rpc, key: string): Invocation {
    const ends = started + settings.wallClockMs;
    const reportUntil = workerUntil === null
      ? ends
      : Math.max(Math.min(ends, workerUntil), started + LEAST_TIME_MS);
    const reserve = Math.min(settings.wallClockMs / 10, 5000);
    const { heartbeatMs } = settings;
    const select = createSelect(url, key);
    return { rpc, select, url, key, log, handlerUntil: reportUntil - reserve, reportUntil, heartbeatMs };
  }

  async function stop(reason: string): Promise<void> {
    ending = true;
    log("ending", { reason, chunks: inWork.size });
    await Promise.all([...inWork].map((run) => run.stop(reason)));
  }

  return { handle, stop };
}

/** Claims a chunk of the job in the hint, or else any that an Edge Function handles. */
async function claimChunk(
  rpc: Rpc,
  workerId: string,
  jobId: string | null,
  until: number,
  onFailure: (error: RpcError) => void,
): Promise<ClaimedChunk | null> {
  for (const parent of jobId === null ? [null] : [jobId, null]) {
    // The same id at every try: a claim whose reply was lost is answered again, not made twice.
    const args: Record<string, unknown> = { worker_id: workerId, claim_id: crypto.randomUUID() };
    if (parent !== null) args.parent_sync_job_id = parent;
    const rows = await withRetries(
      () => rpc("claim_next_chunk_job_safe", args, { timeoutMs: 5000 }),
      until,
      onFailure,
    );
    if (!Array.isArray(rows)) {
      throw new RpcError(0, null, "claim_next_chunk_job_safe: the answer is not a list");
    }
    if (rows.length > 0) return rows[0] as ClaimedChunk;
  }
  return null;
}

/** Tells the database that its webhooks arrive again: it holds back more than it sends at once. */
async function callForMore(rpc: Rpc, log: Log): Promise<void> {
  try {
    await rpc("cleanup_stuck_chunks", {});
  } catch (error) {
    // The database's own watchdog will come to it.
    log("call_for_more_failed", { error: messageOf(error) });
  }
}

/** What a webhook says: whether it only asks if we are here, which job has work, when, and whether more is held back. */
interface Hint {
  probe: boolean;
  jobId: string | null;
  waitMs: number;
  more: boolean;
}

async function readHint(request: Request): Promise<Hint> {
  try {
    const bytes = Number(request.headers.get("content-length") ?? 0);
    if (bytes > MAX_HINT_BYTES) throw new RangeError("too long for a hint");
    const body = JSON.parse(await request.text()) as Record<string, unknown> | null;
    const jobId = body?.parent_sync_job_id;
    const waitMs = 1000 * Number(body?.wait_seconds ?? 0);
    return {
      probe: body?.probe === true,
      jobId: typeof jobId === "string" && UUID.test(jobId) ? jobId : null,
      waitMs: waitMs > 0 && waitMs <= LONGEST_WAIT_MS ? waitMs : 0,
      more: body?.more === true,
    };
  } catch {
    // No body, or not ours: the table says what there is to do.
    await request.body?.cancel().catch(() => {});
    return { probe: false, jobId: null, waitMs: 0, more: false };
  }
}

/** The promise's value, or undefined when it takes longer. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), ms));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
