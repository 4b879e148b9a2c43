/**
 * One invocation's work: the chunk that it has claimed and, while there is time, those after it.
 *
 * Each report brings the job's next chunk, already claimed; when the job has none left, any other that waits is
 * claimed. The last report leaves the next chunk to a fresh webhook from the database. So does a chunk that goes on from its
 * checkpoint: its handler has found the time that is left too short.
 */

import { type Log, messageOf } from "../_shared/log.ts";
import { continues, type Outcome } from "./answer.ts";
import { ChunkRun, type ClaimedChunk, type Completion, type Invocation } from "./chunk.ts";
import type { Settings } from "./settings.ts";

/** So many failures in a row that are the handler's, not a chunk's, and the invocation takes no more chunks to it. */
export const FAILURES_OF_A_HANDLER = 3;

/** What draining needs beside the invocation. */
export interface DrainContext {
  settings: Settings;
  log: Log;
  /** The chunks of all invocations that this worker is working on. */
  inWork: Set<ChunkRun>;
  /** Whether the worker's end has been announced. */
  ending: () => boolean;
  /** Claims whatever waits; null: nothing does. */
  claimAny: () => Promise<ClaimedChunk | null>;
}

/** Works on the chunk and on those after it. */
export async function drain(
  first: ClaimedChunk,
  invocation: Invocation,
  context: DrainContext,
): Promise<void> {
  const { settings, log, inWork, ending } = context;
  let slowest = 0;
  let done = 0;
  let handlerFailures = 0;
  for (let chunk: ClaimedChunk | null = first; chunk !== null;) {
    const begun = performance.now();
    const hasFullTime = invocation.reportUntil - begun >= 0.8 * settings.wallClockMs;
    const run: ChunkRun = new ChunkRun(chunk, hasFullTime, invocation);
    inWork.add(run);
    let goesOn = false;
    let completion: Completion | null = null;
    try {
      // The end of the worker was announced while this claim was on its way.
      if (ending()) return await run.stop("the worker is about to end");
      const outcome: Outcome | null = await run.run();
      if (outcome === null) return;
      if (continues(outcome)) {
        completion = await run.report(outcome, false);
        return logOutcome(log, chunk, performance.now() - begun, completion);
      }
      done += 1;
      slowest = Math.max(slowest, performance.now() - begun);
      handlerFailures = outcome.handler_down ? handlerFailures + 1 : 0;
      const handlerDown = handlerFailures >= FAILURES_OF_A_HANDLER;
      goesOn = !ending() && !handlerDown && hasTimeForMore(slowest, done, invocation, settings);
      completion = await run.report({ ...outcome, handler_down: handlerDown || undefined }, goesOn);
      logOutcome(log, chunk, performance.now() - begun, completion, outcome.error);
      if (handlerDown) log("handler_down", { kind: chunk.kind, job: chunk.parent_sync_job_id });
    } finally {
      inWork.delete(run);
    }
    if (completion === null || !goesOn) return;
    chunk = completion.next ?? (ending() ? null : await claimAnother(context));
  }
}

async function claimAnother({ claimAny, log }: DrainContext): Promise<ClaimedChunk | null> {
  try {
    return await claimAny();
  } catch (error) {
    log("claim_failed", { error: messageOf(error) });
    return null;
  }
}

/** Whether another chunk like the slowest so far would surely end in time. */
function hasTimeForMore(
  slowest: number,
  done: number,
  { handlerUntil }: Invocation,
  settings: Settings,
): boolean {
  if (settings.chunksPerInvocation !== null && done >= settings.chunksPerInvocation) return false;
  return performance.now() + Math.max(1.5 * slowest, 0.05 * settings.wallClockMs) < handlerUntil;
}

function logOutcome(
  log: Log,
  chunk: ClaimedChunk,
  ms: number,
  completion: Completion | null,
  error?: string,
): void {
  log("chunk", {
    job: chunk.parent_sync_job_id,
    chunk: Number(chunk.chunk_id),
    attempt: chunk.attempt,
    kind: chunk.kind,
    duration_ms: Math.round(ms),
    outcome: completion?.outcome ?? "unreported",
    error,
  });
}
