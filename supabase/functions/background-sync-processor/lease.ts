/** Keeps a claim's lease by heartbeats. */

import { pause } from "../_shared/pause.ts";

/** The answer of `extend_chunk_lease`. */
interface Extension {
  ok: boolean;
  cancel_requested?: boolean;
  locked_until?: string | null;
}

/** A heartbeat more often than this would only be load. */
const MIN_HEARTBEAT_MS = 500;

/**
 * Extends the lease every third of it until the signal, or until a heartbeat hears that it is in vain.
 *
 * @param lockedUntil when the lease ends now.
 * @param heartbeatMs the longest pause between heartbeats.
 * @param onFailure told of heartbeats that got no answer; the next one comes all the same.
 * @returns what was heard: the job was cancelled, or the claim is lost; null at the signal.
 */
export async function keepLease(
  extend: () => Promise<unknown>,
  lockedUntil: string,
  heartbeatMs: number,
  signal: AbortSignal,
  onFailure: (error: unknown) => void,
): Promise<"cancelled" | "lost" | null> {
  while (!signal.aborted) {
    // Our clock may differ from the database's; the bounds keep the pause sensible whatever it says.
    const third = (Date.parse(lockedUntil) - Date.now()) / 3;
    await pause(Math.max(Math.min(third || heartbeatMs, heartbeatMs), MIN_HEARTBEAT_MS), signal);
    if (signal.aborted) return null;
    try {
      const answer = await extend() as Extension;
      lockedUntil = answer.locked_until ?? lockedUntil;
      if (answer.cancel_requested) return "cancelled";
      if (!answer.ok) return "lost";
    } catch (error) {
      if (!signal.aborted) onFailure(error);
    }
  }
  return null;
}
