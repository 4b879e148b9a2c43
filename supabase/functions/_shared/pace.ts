/** The pace that all handlers of a limit key keep together. */

import { PermanentFailure, Throttled } from "./errors.ts";
import { pause } from "./pause.ts";
import { type Rpc, RpcError, withRetries } from "./rpc.ts";
import type { Chunk } from "./serve.ts";

/** How long the database may be away before a handler's wait gives up. */
const PATIENCE_MS = 20_000;

/** A handler's pace. */
export interface Pace {
  /**
   * Waits until there is room for so many requests, by the `rate` of the job's `limit_key`: exact for all who ask, in
   * Edge Functions and Python together. Without a key or a rate it waits for nothing.
   *
   * @param n how many requests follow at once, at most the rate; one at a time makes the most of it.
   * @throws Throttled the room comes after this invocation's end. Let it end the handler.
   * @throws PermanentFailure n is no number of requests that there can be room for.
   * @throws RpcError the database is away.
   */
  pace(n?: number): Promise<void>;
}

/** The pace of one chunk's handler. */
export function paceOf(chunk: Chunk, rpc: Rpc, signal: AbortSignal, timeLeftMs: () => number): Pace {
  return {
    async pace(n = 1) {
      if (!chunk.limit_key) return;
      const args = { key: chunk.limit_key, n };
      let wait: number;
      try {
        wait = await withRetries(
          () => rpc("pace_sync_limit", args),
          performance.now() + PATIENCE_MS,
          (error) => {
            if (signal.aborted) throw error;
          },
        ) as number;
      } catch (error) {
        if (error instanceof RpcError && error.refused) throw new PermanentFailure(error.message);
        throw error;
      }
      if (wait >= timeLeftMs()) {
        throw new Throttled(Math.ceil(wait / 1000), `the pace of ${chunk.limit_key} leaves no room in time`);
      }
      await pause(wait, signal);
      signal.throwIfAborted();
    },
  };
}
