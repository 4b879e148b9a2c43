/**
 * Being told to come back later is no failure: the chunk goes back without an attempt, and the account's limit key is
 * blocked until then.
 */

import type { ImapFlow, ImapFlowError } from "imapflow";

/** Thrown when the mail server asks to come back later. */
export class PutOff extends Error {
  override name = "PutOff";

  /** @param seconds how long, where the server says so. */
  constructor(readonly seconds: number | null, message: string) {
    super(message);
  }
}

/** Seconds for servers that do not say how long: doubling from the first to the longest. */
const PAUSE = { first: 2, longest: 300 };

/** How long accounts pause, of which this instance of the function has seen some. */
export class Pauses {
  readonly #last = new Map<string, { seconds: number; until: number }>();

  /** @param now the time in seconds. */
  constructor(private readonly now = () => performance.now() / 1000) {}

  /** How many seconds the account pauses from now on. */
  secondsFor(accountId: string, said: number | null): number {
    const now = this.now();
    const last = this.#last.get(accountId);
    // Chunks that were at work beside the one that was put off first pause no longer than it does.
    if (said === null && last !== undefined && now < last.until) return last.until - now;
    const seconds = said ?? Math.min(last === undefined ? PAUSE.first : 2 * last.seconds, PAUSE.longest);
    this.#last.set(accountId, { seconds, until: now + seconds });
    return seconds;
  }

  /** The account's server works again. */
  end(accountId: string): void {
    this.#last.delete(accountId);
  }
}

/** What `neverWaits` leaves on a client. */
interface Throttling {
  throttleWait(ms: number): Promise<boolean>;
  suggestedPause?: number;
}

/**
 * Keeps the library from waiting by itself where a server names a time (Microsoft's "Suggested Backoff Time"): for
 * minutes, within the handler. It asks twice: before it tells of the refusal, and before it repeats a FETCH.
 */
export function neverWaits(client: ImapFlow): void {
  const own = client as unknown as Throttling;
  own.throttleWait = (ms) => {
    const again = own.suggestedPause !== undefined;
    own.suggestedPause = (own.suggestedPause ?? 0) + ms;
    // True: it does not repeat, and forgets why.
    return Promise.resolve(again);
  };
}

/** Whether the session was throttled, and is of no more use. */
export function wasThrottled(client: ImapFlow): boolean {
  return (client as unknown as Throttling).suggestedPause !== undefined;
}

/** Says again what a failure is that `neverWaits` has made the library forget. */
export function rememberThrottle(client: ImapFlow, error: ImapFlowError): void {
  const { suggestedPause } = client as unknown as Throttling;
  if (suggestedPause === undefined) return;
  error.code = "ETHROTTLE";
  error.throttleReset = suggestedPause;
}
