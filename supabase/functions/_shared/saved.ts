/** What a handler saves and reads between attempts and jobs: checkpoints and state. */

import { LeaseLost, PermanentFailure } from "./errors.ts";
import { isJsonObject, whyNotCount, whyNotStorable } from "./json.ts";
import { type Rpc, RpcError, type Select, withRetries } from "./rpc.ts";
import type { Chunk } from "./serve.ts";

/** How long the database may be away before a handler's save or read gives up. */
const PATIENCE_MS = 20_000;

/** A handler's memory. */
export interface Saved {
  /**
   * Saves where a later attempt goes on; resolves when it is stored.
   *
   * A new checkpoint is progress: the attempts count anew, and what was saved is never done again.
   *
   * @param checkpoint an object of at most 8 KB of JSON.
   * @param options.items how many items of this chunk are done so far; as last said unless given.
   * @throws LeaseLost the claim is no longer ours; nothing was saved.
   * @throws PermanentFailure naming what cannot be stored, and why.
   * @throws RpcError the database is away.
   */
  save(checkpoint: Record<string, unknown>, options?: { items?: number }): Promise<void>;
  /**
   * What the last completed job of the same kind, `job_key` and owner has left as `next_state`; null: nothing.
   *
   * @throws RpcError the database is away.
   */
  // deno-lint-ignore no-explicit-any
  state(): Promise<any>;
}

/** The memory of one chunk's handler. */
export function savedOf(chunk: Chunk, rpc: Rpc, select: Select, signal: AbortSignal): Saved {
  return {
    async save(checkpoint, { items } = {}) {
      refuse(isJsonObject(checkpoint) ? null : "checkpoint is not a JSON object");
      refuse(whyNotStorable(checkpoint, "checkpoint"));
      refuse(items === undefined ? null : whyNotCount(items, "items"));
      refuse(
        chunk.claim_token ? null : "the request has no claim_token: its sender is older than this handler",
      );
      const { chunk_id, claim_token } = chunk;
      const args = { chunk_id, claim_token, checkpoint, items_processed: items ?? null };
      const answer = await patiently(() => rpc("extend_chunk_lease", args)) as { ok: boolean };
      if (!answer.ok) throw new LeaseLost();
    },
    async state() {
      const filters = { id: `eq.${chunk.job_id}`, select: "job_key" };
      const [job] = await patiently(() => select("sync_jobs", filters));
      if (typeof job?.job_key !== "string") return null;
      const args = { kind: chunk.kind, job_key: job.job_key, owner_id: chunk.owner_id };
      return await patiently(() => rpc("get_sync_state", args));
    },
  };

  /** Repeats a call while the database is away and somebody waits for its answer. */
  async function patiently<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await withRetries(call, performance.now() + PATIENCE_MS, (error) => {
        if (signal.aborted) throw error;
      });
    } catch (error) {
      if (error instanceof RpcError) refuse(error.refused ? error.message : null);
      throw error;
    }
  }
}

function refuse(flaw: string | null): void {
  if (flaw !== null) throw new PermanentFailure(flaw);
}
