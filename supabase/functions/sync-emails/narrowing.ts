/**
 * Fetches messages so that none costs another: where a command fails (NO, BAD, or a connection that breaks), what came
 * is kept, and the message at which it failed is found and left out.
 */

import type { FetchMessageObject, FetchQueryObject, ImapFlow, ImapFlowError } from "imapflow";
import { RetryLater } from "../_shared/serve.ts";
import { explainDrop } from "./mailbox.ts";
import { compact } from "./ranges.ts";
import { fetchLines } from "./reading.ts";
import { isThrottle, refusal } from "./refusals.ts";
import { rememberThrottle } from "./throttle.ts";

/** What is fetched, and who is told. */
export interface Fetch {
  query: FetchQueryObject;
  /** The client of the session; that of a fresh one if the last broke. */
  client(): Promise<ImapFlow>;
  /** Whether a line of the server answers the query; changed flags that nobody asked for do not. */
  answers(message: FetchMessageObject): boolean;
  /** Takes a message that was asked for. */
  take(message: FetchMessageObject): Promise<void> | void;
  /** Takes one that could not be had: what the server said, and whether it broke the connection. */
  refused(uid: number, why: string, broke: boolean): Promise<void> | void;
  /** Takes flags of a message that was asked for, whenever the server mentions them. */
  flags?(uid: number, flags: Set<string>): void;
  /** Whether to stop, leaving the rest. */
  enough(): boolean;
}

/** Messages in a row that cannot be had; more are a broken server, not broken messages. */
const MAX_IN_A_ROW = 5;

/** Thrown by what takes messages when it was enough of them. */
const ENOUGH = new Error("enough");

/** What came of one command. */
interface Outcome {
  seen: Set<number>;
  failure: ImapFlowError | null;
  /** Whether the connection broke, rather than the server refusing. */
  broke: boolean;
}

/**
 * Fetches a range whose messages are counted, in one command if nothing goes wrong.
 *
 * @param expected how many messages there are in the range; null: the server is asked.
 * @returns the UIDs that are left, because it was enough.
 */
export async function fetchRange(
  fetch: Fetch,
  [from, to]: [number, number],
  expected: number | null,
): Promise<number[]> {
  const seen = new Set<number>();
  if (expected !== null) {
    const outcome = await command(fetch, `${from}:${to}`, (uid) => uid >= from && uid <= to);
    if (outcome.failure !== null && isThrottle(outcome.failure)) throw explainDrop(outcome.failure);
    if (outcome.failure === null && !fetch.enough() && outcome.seen.size >= expected) return [];
    for (const uid of outcome.seen) seen.add(uid);
  }
  const listed = await list(fetch, `${from}:${to}`);
  return await fetchEach(fetch, listed.filter((uid) => !seen.has(uid)), seen.size > 0 ? 1 : undefined);
}

/**
 * Fetches messages, ascending.
 *
 * @param window how many are asked for at first.
 * @returns the UIDs that are left, because it was enough.
 * @throws RetryLater when the server, not a message, is the trouble; PutOff when it asks to come back.
 */
export async function fetchEach(fetch: Fetch, uids: number[], window = uids.length): Promise<number[]> {
  const breaks = new Map<number, number>();
  let todo = uids;
  let inARow = 0;
  let received = 0;
  while (todo.length > 0) {
    if (fetch.enough()) return todo;
    const batch = new Set(todo.slice(0, Math.max(window, 1)));
    const { seen, failure, broke } = await command(fetch, compact([...batch]), (uid) => batch.has(uid));
    received += seen.size;
    if (seen.size > 0) inARow = 0;
    todo = todo.filter((uid) => !seen.has(uid));
    if (fetch.enough()) return todo;
    if (failure === null) {
      const absent = todo.filter((uid) => batch.has(uid));
      if (absent.length === 0) {
        window = Math.max(2 * window, 1);
        continue;
      }
      // What an answer leaves out is gone, or was kept back.
      const kept = new Set(await list(fetch, compact(absent)));
      todo = todo.filter((uid) => !batch.has(uid) || kept.has(uid));
      if (seen.size > 0 || kept.size === 0) continue;
      if (batch.size > 1) window = Math.ceil(batch.size / 2);
      else await giveUp(todo[0], "the server does not send it", false);
    } else if (isThrottle(failure) && (received === 0 || batch.size > 1)) {
      throw explainDrop(failure);
    } else if (batch.size > 1) {
      // Servers answer in order, so the first that did not come is the suspect; without any, halves are tried.
      window = seen.size > 0 ? 1 : Math.ceil(batch.size / 2);
    } else if (seen.size === 0) {
      const [uid] = batch;
      breaks.set(uid, (breaks.get(uid) ?? 0) + 1);
      if (broke && breaks.get(uid) === 1) continue;
      if (inARow === MAX_IN_A_ROW) throw explainDrop(failure);
      await giveUp(uid, refusal(failure), broke);
    }
  }
  return [];

  async function giveUp(uid: number, why: string, broke: boolean): Promise<void> {
    inARow += 1;
    await fetch.refused(uid, why, broke);
    todo = todo.filter((other) => other !== uid);
    window = todo.length;
  }
}

/** The UIDs of a set that are in the folder. */
async function list(fetch: Fetch, uids: string): Promise<number[]> {
  for (let broken = false;; broken = true) {
    const client = await fetch.client();
    try {
      const found = await client.search({ uid: uids }, { uid: true });
      if (!found) throw new RetryLater(null, "the mail server did not list its messages");
      return found.sort((a, b) => a - b);
    } catch (error) {
      if (client.usable || broken) throw explainDrop(error);
    }
  }
}

/** One FETCH; what its answers do may throw, its failure is returned. */
async function command(fetch: Fetch, uids: string, asked: (uid: number) => boolean): Promise<Outcome> {
  const client = await fetch.client();
  const seen = new Set<number>();
  const parts = new Map<number, FetchMessageObject>();
  const stopIfEnough = () => {
    if (fetch.enough()) throw ENOUGH;
  };
  const take = (line: FetchMessageObject): Promise<void> | void => {
    if (!line.uid || !asked(line.uid)) return;
    if (line.flags) fetch.flags?.(line.uid, line.flags);
    if (seen.has(line.uid)) return;
    // A server may split an answer over several lines.
    const before = parts.get(line.uid);
    const message = before === undefined ? line : merged(before, line);
    if (!fetch.answers(message)) return void parts.set(line.uid, message);
    if (before !== undefined) parts.delete(line.uid);
    seen.add(message.uid);
    const taking = fetch.take(message);
    return taking === undefined ? stopIfEnough() : taking.then(stopIfEnough);
  };
  try {
    const failure = await fetchLines(client, uids, fetch.query, take);
    if (failure !== null) rememberThrottle(client, failure);
    return { seen, failure, broke: failure !== null && !client.usable };
  } catch (error) {
    if (error !== ENOUGH) throw error;
    return { seen, failure: null, broke: false };
  }
}

function merged(before: FetchMessageObject, line: FetchMessageObject): FetchMessageObject {
  const bodyParts = new Map([...before.bodyParts ?? [], ...line.bodyParts ?? []]);
  return { ...before, ...line, ...(bodyParts.size > 0 ? { bodyParts } : {}) };
}
