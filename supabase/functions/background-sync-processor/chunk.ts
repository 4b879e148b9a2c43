/** One claimed chunk: its handler is called, its lease kept, its outcome reported. */

import { keyHeaders } from "../_shared/auth.ts";
import { stringifyJson } from "../_shared/json.ts";
import { type Log, messageOf } from "../_shared/log.ts";
import { type Rpc, RpcError, type Select, withRetries } from "../_shared/rpc.ts";
import { continues, failure, isFailure, type Outcome, readAnswer, unreachable } from "./answer.ts";
import { keepLease } from "./lease.ts";

/** A row of `claim_next_chunk_job_safe`; `next` of a completion has the same shape. */
export interface ClaimedChunk {
  chunk_id: number | bigint;
  parent_sync_job_id: string;
  kind: string;
  handler: string | null;
  chunk_index: number;
  attempt: number;
  payload: unknown;
  job_payload: unknown;
  owner_id: string | null;
  claim_token: string;
  locked_until: string;
  checkpoint?: unknown;
  limit_key?: string | null;
}

/** The answer of `complete_chunk_job_safe`, or of `release_chunk_job`. */
export interface Completion {
  outcome: string;
  next?: ClaimedChunk | null;
}

/** What a chunk needs of the invocation that works on it. Times are `performance.now()`. */
export interface Invocation {
  rpc: Rpc;
  select: Select;
  url: string;
  key: string;
  log: Log;
  /** The handler must have answered by then. */
  handlerUntil: number;
  /** Reports are tried until then. */
  reportUntil: number;
  /** The longest pause between heartbeats, milliseconds. */
  heartbeatMs: number;
}

/** Why a handler's call was ended before it answered. */
type Ending = "cancelled" | "lost" | "given back" | "time";

/** Milliseconds that giving back may take: the worker is about to be ended. */
const GIVE_BACK_TIMEOUT_MS = 2000;
/** Milliseconds to ask whether the handler has saved: its time is over, and that of the report is short. */
const HAS_SAVED_TIMEOUT_MS = 1000;

/** Works on one claim. Use: `run()`, then `report()` unless it returned null. */
export class ChunkRun {
  readonly #ending = new AbortController();
  readonly #finished = new AbortController();
  readonly started = performance.now();
  #reporting = false;

  constructor(
    readonly chunk: ClaimedChunk,
    /** Whether the chunk had an invocation's whole time before it, and so is to blame for not ending in it. */
    private readonly hasFullTime: boolean,
    private readonly invocation: Invocation,
  ) {}

  /** Calls the handler. Null: there is nothing to report, the claim was given back or is another's by now. */
  async run(): Promise<Outcome | null> {
    const { handler } = this.chunk;
    if (!handler) return failure(`the kind ${this.chunk.kind} has no handler`, false);
    const heartbeats = this.#keepLease();
    const left = this.invocation.handlerUntil - performance.now();
    const timer = setTimeout(() => this.#end("time"), Math.max(left, 0));
    try {
      return await this.#call(handler);
    } catch (error) {
      return await this.#explain(handler, error);
    } finally {
      clearTimeout(timer);
      heartbeats.catch(() => {});
    }
  }

  /**
   * Reports until it is heard or the time is over. Repeating is safe: the token makes it one report.
   *
   * @param claimNext ask for the job's next chunk, already claimed, when this one has ended.
   * @returns null when nobody heard it; the lease will then expire and the watchdog take over.
   */
  async report(outcome: Outcome, claimNext: boolean): Promise<Completion | null> {
    this.#reporting = true;
    const { rpc, log, reportUntil } = this.invocation;
    const send = (what: Outcome) =>
      withRetries(
        async () => {
          const timeoutMs = Math.min(Math.max(reportUntil - performance.now(), 1000), 10_000);
          const [name, more] = continues(what)
            ? ["release_chunk_job", { reason: "goes on from its checkpoint" }]
            : ["complete_chunk_job_safe", { claim_next: claimNext }];
          return await rpc(name, { ...this.#token(), ...what, ...more }, { timeoutMs }) as Completion;
        },
        reportUntil,
        (error, attempt) =>
          log("report_retry", { ...this.#where(), attempt_to_report: attempt, error: error.message }),
      );
    try {
      return await send(outcome);
    } catch (error) {
      log("report_failed", { ...this.#where(), error: messageOf(error) });
      if (isFailure(outcome) || !(error instanceof RpcError) || !error.refused) return null;
      const what = continues(outcome)
        ? "the database refused the checkpoint"
        : "the database refused the result";
      return await send(failure(`${what}: ${error.message}`.slice(0, 500), false)).catch(() => null);
    } finally {
      this.#finished.abort();
    }
  }

  /** Gives the claim and its attempt back, unless its report is on the way. */
  async stop(reason: string): Promise<void> {
    if (this.#reporting || this.#ending.signal.aborted) return;
    this.#end("given back");
    await this.#giveBack(reason);
  }

  #where() {
    const { parent_sync_job_id: job, chunk_id, attempt, kind } = this.chunk;
    return { job, chunk: Number(chunk_id), attempt, kind };
  }

  #token() {
    return { chunk_id: this.chunk.chunk_id, claim_token: this.chunk.claim_token };
  }

  #end(why: Ending): void {
    this.#ending.abort(why);
  }

  async #call(handler: string): Promise<Outcome> {
    const { url, key } = this.invocation;
    let body: string;
    try {
      body = this.#request();
    } catch (error) {
      return failure(`the payload or the checkpoint cannot be handed over: ${messageOf(error)}`, false);
    }
    const response = await fetch(`${url}/functions/v1/${encodeURIComponent(handler)}`, {
      method: "POST",
      headers: { ...keyHeaders(key), "content-type": "application/json" },
      body,
      // Following a redirect would carry the key to wherever it points.
      redirect: "manual",
      signal: this.#ending.signal,
    });
    const outcome = await readAnswer(handler, response);
    // An answer that came whole in the last moment counts, unless the claim is no longer ours.
    const { aborted, reason } = this.#ending.signal;
    if (aborted && (isFailure(outcome) || reason === "given back" || reason === "lost")) throw reason;
    // A handler that echoes its request must not put the key into a table.
    if (isFailure(outcome)) outcome.error = outcome.error.replaceAll(key, "[key]");
    return outcome;
  }

  /** What the handler is sent. */
  #request(): string {
    const { chunk } = this;
    return stringifyJson({
      job_id: chunk.parent_sync_job_id,
      chunk_id: chunk.chunk_id,
      chunk_index: chunk.chunk_index,
      attempt: chunk.attempt,
      kind: chunk.kind,
      owner_id: chunk.owner_id,
      payload: chunk.payload,
      job_payload: chunk.job_payload,
      checkpoint: chunk.checkpoint ?? null,
      claim_token: chunk.claim_token,
      limit_key: chunk.limit_key ?? null,
      time_left_ms: Math.max(0, Math.floor(this.invocation.handlerUntil - performance.now())),
    });
  }

  async #explain(handler: string, error: unknown): Promise<Outcome | null> {
    const { signal } = this.#ending;
    if (!signal.aborted) {
      const why = messageOf(error).replaceAll(this.invocation.key, "[key]");
      return unreachable(`${handler} could not be reached: ${why}`.slice(0, 500));
    }
    switch (signal.reason as Ending) {
      case "cancelled":
        return failure("cancelled while it was worked on", false);
      case "lost":
        this.#finished.abort();
        this.invocation.log("claim_lost", {
          ...this.#where(),
          error: "the lease is another worker's by now",
        });
        return null;
      case "given back":
        return null;
      case "time": {
        const seconds = Math.round((performance.now() - this.started) / 1000);
        if (this.hasFullTime && !await this.#hasSaved()) {
          return failure(`${handler} did not answer within ${seconds} s`, true);
        }
        await this.#giveBack("the invocation's time was over");
        return null;
      }
    }
  }

  /** Whether the handler has saved a new checkpoint in this attempt: giving back costs none then, however often. */
  async #hasSaved(): Promise<boolean> {
    const { chunk_id, claim_token } = this.#token();
    const columns = "started_at,checkpoint_at";
    const filters = { id: `eq.${chunk_id}`, claim_token: `eq.${claim_token}`, select: columns };
    try {
      const options = { timeoutMs: HAS_SAVED_TIMEOUT_MS };
      const [row] = await this.invocation.select("chunk_processing_queue", filters, options);
      return Date.parse(String(row?.checkpoint_at)) >= Date.parse(String(row?.started_at));
    } catch (error) {
      this.invocation.log("read_failed", { ...this.#where(), error: messageOf(error) });
      return false;
    }
  }

  async #giveBack(reason: string): Promise<void> {
    const { rpc, log } = this.invocation;
    this.#finished.abort();
    try {
      await withRetries(
        () => rpc("release_chunk_job", { ...this.#token(), reason }, { timeoutMs: GIVE_BACK_TIMEOUT_MS }),
        performance.now() + GIVE_BACK_TIMEOUT_MS,
      );
      log("given_back", { ...this.#where(), reason });
    } catch (error) {
      log("give_back_failed", { ...this.#where(), reason, error: messageOf(error) });
    }
  }

  /** Keeps the lease until the chunk is reported; ends the handler's call when it is in vain. */
  async #keepLease(): Promise<void> {
    const { rpc, log, heartbeatMs } = this.invocation;
    const { signal } = this.#finished;
    const extend = () => rpc("extend_chunk_lease", this.#token(), { timeoutMs: heartbeatMs, signal });
    const onFailure = (error: unknown) =>
      log("heartbeat_failed", { ...this.#where(), error: messageOf(error) });
    const end = await keepLease(extend, this.chunk.locked_until, heartbeatMs, signal, onFailure);
    if (end !== null) this.#end(end);
  }
}
