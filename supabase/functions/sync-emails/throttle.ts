/**
 * Being told to come back later is no failure: the handler waits, and when its time is over hands the same work to a
 * chunk of its own, so that no attempt is spent.
 */

import { RetryLater } from "../_shared/serve.ts";
import type { Budget } from "./budget.ts";

/** Thrown when the mail server asks to come back later. */
export class Throttled extends Error {
  override name = "Throttled";

  constructor(readonly seconds: number | null, message: string) {
    super(message);
  }
}

/** Thrown when the time of this invocation does not suffice to wait any longer. */
export class HandOver extends Error {
  override name = "HandOver";
}

/** Seconds between two tries, doubling from the first to the longest. */
const WAIT = { first: 2, longest: 60 };

/** Chunks in a row that did nothing but wait before it counts as a failure: an hour and more. */
const MOST_HAND_OVERS = 100;

/**
 * Repeats the work while the server asks to come back later.
 *
 * @param handOvers how many chunks before this one only waited.
 * @throws HandOver when the invocation's time is over; RetryLater when that has been so for too long.
 */
export async function patiently<T>(
  work: () => Promise<T>,
  budget: Budget,
  handOvers: number,
): Promise<T> {
  for (let tries = 0;; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Throttled)) throw error;
      const backoff = Math.min(WAIT.first * 2 ** tries, WAIT.longest) * (0.75 + Math.random() / 2);
      const seconds = Math.max(error.seconds ?? 0, backoff);
      const left = budget.leftMs() / 1000;
      if (seconds < left) {
        await budget.wait(seconds * 1000);
        continue;
      }
      if (handOvers >= MOST_HAND_OVERS) throw new RetryLater(error.seconds, error.message);
      // The next chunk starts at once: the rest of the time is waited here, or the server would be asked more often.
      if (left > 0) await budget.wait(left * 1000);
      throw new HandOver(error.message);
    }
  }
}
