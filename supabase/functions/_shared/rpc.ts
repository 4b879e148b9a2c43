/** Calls of the project's SQL functions, and reads of its tables, through its Data API. */

import { keyHeaders } from "./auth.ts";
import { parseAnyJson, stringifyJson } from "./json.ts";
import { messageOf } from "./log.ts";

/**
 * SQLSTATEs of what passes: a statement stopped at its time limit or waiting for a lock, a transaction undone for the
 * sake of others, and a database that takes no writes, as when its disk is full.
 */
const PASSING = new Set(["57014", "55P03", "40P01", "40001", "25006"]);

/** A call that did not succeed. `status` 0: no answer came at all. */
export class RpcError extends Error {
  override name = "RpcError";

  constructor(
    readonly status: number,
    readonly code: string | null,
    message: string,
  ) {
    super(message);
  }

  /** Whether the same call can succeed later: nobody answered, a gateway did, or the database could not just then. */
  get retryable(): boolean {
    if (this.code !== null && PASSING.has(this.code)) return true;
    // PostgREST's answer to a query in the middle of which PostgreSQL was killed: 400 with an empty code.
    if (this.status === 400 && this.code === null) return true;
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  /** Whether what was sent is at fault (too large, too deep, an invalid value), and not the key or the address. */
  get refused(): boolean {
    return this.status >= 400 && this.status < 500 && ![401, 403, 404].includes(this.status) &&
      !this.retryable;
  }
}

/** How long one call may take, and what ends it early. */
export interface RpcOptions {
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** Calls one SQL function by name; integers beyond 2^53 go and come as `bigint`. */
export type Rpc = (name: string, args: Record<string, unknown>, options?: RpcOptions) => Promise<unknown>;

/**
 * An {@link Rpc} bound to a project and a key.
 *
 * @throws RpcError from every call that fails; its message never holds the key.
 */
export function createRpc(url: string, key: string): Rpc {
  const headers = { ...keyHeaders(key), "content-type": "application/json" };
  return (name, args, options) => {
    const call = { method: "POST", headers, body: stringifyJson(args) };
    return exchange(name, `${url}/rest/v1/rpc/${name}`, call, options);
  };
}

/** Reads rows of a table; `filters` are PostgREST's, as in `{ id: "eq.7", select: "status" }`. */
export type Select = (
  table: string,
  filters: Record<string, string>,
  options?: RpcOptions,
) => Promise<Record<string, unknown>[]>;

/**
 * A {@link Select} bound to a project and a key.
 *
 * @throws RpcError from every read that fails.
 */
export function createSelect(url: string, key: string): Select {
  return async (table, filters, options) => {
    const address = `${url}/rest/v1/${table}?${new URLSearchParams(filters)}`;
    const rows = await exchange(table, address, { headers: keyHeaders(key) }, options);
    if (!Array.isArray(rows)) throw new RpcError(502, null, `${table}: the answer is not a list`);
    return rows;
  };
}

async function exchange(
  name: string,
  address: string,
  request: RequestInit,
  { timeoutMs = 10_000, signal }: RpcOptions = {},
): Promise<unknown> {
  const timeout = AbortSignal.timeout(timeoutMs);
  let response: Response;
  let text: string;
  try {
    response = await fetch(address, {
      ...request,
      redirect: "manual",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    text = await response.text();
  } catch (error) {
    const why = timeout.aborted ? `no answer within ${timeoutMs / 1000} s` : messageOf(error);
    throw new RpcError(0, null, `${name}: ${why}`);
  }
  if (response.ok) {
    if (text === "") return null;
    try {
      return parseAnyJson(text, { exactDecimals: true });
    } catch {
      // A proxy's page with status 200 says nothing about whether the call arrived.
      throw new RpcError(502, null, `${name}: the answer is not JSON`);
    }
  }
  const { code, message } = readError(text);
  throw new RpcError(response.status, code, `${name}: ${message ?? `HTTP ${response.status}`}`);
}

function readError(text: string): { code: string | null; message: string | null } {
  try {
    const body = JSON.parse(text) as { code?: unknown; message?: unknown; details?: unknown } | null;
    const parts = [body?.message, body?.details].filter((part) => typeof part === "string");
    const message = parts.join(": ").replace(/\s+/g, " ").trim();
    return {
      code: typeof body?.code === "string" && body.code !== "" ? body.code : null,
      message: message || null,
    };
  } catch {
    return { code: null, message: null };
  }
}

/** Milliseconds between two tries: doubling from the first to the second, with jitter. */
const BACKOFF_MS = { first: 100, most: 5000 };

/**
 * Repeats a call while its failure is worth it and there is time.
 *
 * @param until `performance.now()` after which no new try starts.
 * @param onFailure told of each failure that will be repeated.
 * @throws RpcError the last failure.
 */
export async function withRetries<T>(
  call: () => Promise<T>,
  until: number,
  onFailure: (error: RpcError, attempt: number) => void = () => {},
): Promise<T> {
  for (let attempt = 1;; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof RpcError) || !error.retryable) throw error;
      const backoff = Math.min(BACKOFF_MS.first * 2 ** (attempt - 1), BACKOFF_MS.most);
      // Retry-After is not looked at: PostgREST's grows to half a minute where the database is back in a second.
      const wait = backoff * (0.5 + Math.random() / 2);
      if (performance.now() + wait >= until) throw error;
      onFailure(error, attempt);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}
