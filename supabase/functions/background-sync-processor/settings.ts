/** The processor's settings, from the function's environment (`supabase secrets set`). */

/** Durations in milliseconds. */
export interface Settings {
  /** An invocation stops before this much time has passed since it began. */
  wallClockMs: number;
  /** Chunks one invocation works on at most; null: as many as its time allows. */
  chunksPerInvocation: number | null;
  /** Heartbeats come at least this often, so that a cancelled chunk's handler is stopped soon. */
  heartbeatMs: number;
}

const DEFAULT_WALL_CLOCK_SECONDS = 140;
const DEFAULT_HEARTBEAT_SECONDS = 15;

/**
 * `WALL_CLOCK_SECONDS` (140; the platform ends free projects' workers after 150 s, paid ones' after 400 s),
 * `CHUNKS_PER_INVOCATION` (unset: draining) and `HEARTBEAT_SECONDS` (15).
 *
 * @throws Error naming a variable that is not a positive number.
 */
export function settingsFromEnv(env: { get(name: string): string | undefined } = Deno.env): Settings {
  const chunks = positive(env, "CHUNKS_PER_INVOCATION");
  return {
    wallClockMs: (positive(env, "WALL_CLOCK_SECONDS") ?? DEFAULT_WALL_CLOCK_SECONDS) * 1000,
    chunksPerInvocation: chunks === null ? null : Math.max(1, Math.floor(chunks)),
    heartbeatMs: (positive(env, "HEARTBEAT_SECONDS") ?? DEFAULT_HEARTBEAT_SECONDS) * 1000,
  };
}

function positive(env: { get(name: string): string | undefined }, name: string): number | null {
  const text = env.get(name)?.trim();
  if (!text) return null;
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new Error(`${name} is not a positive number: ${text}`);
  return value;
}
