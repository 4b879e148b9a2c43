/** The time that one chunk may take, so that it saves and hands on what it has before its caller gives up. */

import { pause } from "../_shared/pause.ts";

/** The time of one invocation of the handler. */
export interface Budget {
  /** Milliseconds that are left; not above 0 when it is time to stop. */
  leftMs(): number;
  /** Waits; throws when the caller is gone before it is over. */
  wait(ms: number): Promise<void>;
}

/** Milliseconds a chunk takes at most unless its caller says less; the rest of its work goes to another chunk. */
const USUAL_MS = 45_000;
/** The part of its caller's time that a chunk takes at most, since a command or a save may take long to end. */
const SHARE = 0.4;

/**
 * A budget that starts now.
 *
 * @param callerMs how long the caller waits for an answer, where that is known.
 */
export function startBudget(signal: AbortSignal, callerMs: number | null): Budget {
  const ends = performance.now() + Math.min(USUAL_MS, SHARE * (callerMs ?? Infinity));
  return {
    leftMs: () => ends - performance.now(),
    async wait(ms) {
      await pause(ms, signal);
      if (signal.aborted) throw new Error("the caller is gone");
    },
  };
}
