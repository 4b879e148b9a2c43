/** The time that one chunk may take, so that it saves and hands on what it has before its caller, or the platform, ends it. */

import { pause } from "../_shared/pause.ts";

/** The time of one invocation of the handler. */
export interface Budget {
  /** Whether it is time to stop, and to leave the rest to another chunk. */
  isOver(): boolean;
  /**
   * Does what keeps the processor busy without a pause, and counts how long.
   *
   * @param bytes how many have come for it.
   */
  work<T>(what: () => T, bytes?: number): T;
  /** Waits; throws when the caller is gone before it is over. */
  wait(ms: number): Promise<void>;
}

/** Milliseconds a chunk takes at most unless its caller says less; the rest of its work goes to another chunk. */
const USUAL_MS = 45_000;
/** The part of its caller's time that a chunk takes at most, since a command or a save may take long to end. */
const SHARE = 0.4;
/**
 * Milliseconds of computing after which a chunk ends; the platform ends a worker after two seconds of it for a request.
 */
const BUSY_MS = 1000;
/** Milliseconds that TLS and the protocol take for a byte. */
const BUSY_MS_A_BYTE = 10 / 1e6;

/**
 * A budget that starts now.
 *
 * @param callerMs how long the caller waits for an answer, where that is known.
 */
export function startBudget(signal: AbortSignal, callerMs: number | null, busyMs = BUSY_MS): Budget {
  const ends = performance.now() + Math.min(USUAL_MS, SHARE * (callerMs ?? Infinity));
  let busy = 0;
  return {
    isOver: () => performance.now() >= ends || busy >= busyMs,
    work(what, bytes = 0) {
      const begun = performance.now();
      try {
        return what();
      } finally {
        busy += performance.now() - begun + bytes * BUSY_MS_A_BYTE;
      }
    },
    async wait(ms) {
      await pause(ms, signal);
      if (signal.aborted) throw new Error("the caller is gone");
    },
  };
}
