/**
 * Reads the answers of FETCH as servers usually write them: the library's parser takes any, and several times as long. What
 * is not read here goes to it. The memory that bytes came in is given back once they are read.
 */

import { Buffer } from "node:buffer";
import { setImmediate } from "node:timers";
import type { FetchMessageObject, FetchQueryObject, ImapFlow, ImapFlowError } from "imapflow";

/** Takes a message; the next one waits for it. */
export type Take = (message: FetchMessageObject) => Promise<void> | void;

/** A response as the library's stream of them brings it: its lines, with `{bytes}` in the place of each literal. */
interface Response {
  payload: Buffer;
  literals: Uint8Array[];
  /** Lets the next one come. */
  next(): void;
}

interface Input {
  chunk: Uint8Array;
  released?: boolean;
}

/** What is used of the library's inside. */
interface Inside {
  streamer: {
    destroyed: boolean;
    push(response: Response | null): boolean;
    releaseInput(input: Input | null): void;
    /** Parts of what has not come as a whole: lines of a response, of a line, of a literal. */
    inputBuffer: Uint8Array[];
    lineBuffer: Uint8Array[];
    literalBuffer: Uint8Array[];
  };
  /** Whether silence on the line is this side's. */
  _processingResponse: boolean;
  run(
    command: "FETCH",
    uids: string,
    query: FetchQueryObject,
    options: { uid: true; onUntaggedFetch(message: FetchMessageObject, next: () => void): void },
  ): Promise<unknown>;
}

/** Messages after which others have a turn. */
const TURN = 10;

/** Who takes messages, of clients with a FETCH under way. */
const takers = new WeakMap<ImapFlow, Take>();

/**
 * Fetches, and hands over each message.
 *
 * @param take may throw, which ends the connection: the rest of the answer is still to come.
 * @returns the library's failure, if any; what `take` throws is thrown.
 */
export async function fetchLines(
  client: ImapFlow,
  uids: string,
  query: FetchQueryObject,
  take: Take,
): Promise<ImapFlowError | null> {
  const thrown: unknown[] = [];
  const end = (error: unknown) => {
    thrown.push(error);
    client.close();
  };
  const takeUntilEnd: Take = (message) => {
    if (thrown.length > 0) return;
    try {
      return take(message)?.catch(end);
    } catch (error) {
      end(error);
    }
  };
  let failure: ImapFlowError | null = null;
  takers.set(client, takeUntilEnd);
  try {
    await (client as unknown as Inside).run("FETCH", uids, query, {
      uid: true,
      onUntaggedFetch: (message, next) => void Promise.resolve(takeUntilEnd(message)).then(() => next()),
    });
  } catch (error) {
    failure = error as ImapFlowError;
  } finally {
    takers.delete(client);
  }
  if (thrown.length > 0) throw thrown[0];
  return failure;
}

/** Has a client read so. */
export function readsQuickly(client: ImapFlow): void {
  const inside = client as unknown as Inside;
  const { streamer } = inside;
  const push = streamer.push.bind(streamer);
  let taken = 0;
  streamer.push = (response) => {
    const take = takers.get(client);
    const message = response === null || take === undefined ? null : readMessage(response);
    if (message === null) return push(response);
    inside._processingResponse = true;
    const next = () => {
      inside._processingResponse = false;
      if (++taken % TURN === 0) setImmediate(response!.next);
      else response!.next();
    };
    const taking = take!(message);
    if (taking === undefined) next();
    else taking.then(next);
    return true;
  };
  givesBack(streamer);
}

/** The collector would let tens of megabytes lie of what the socket brought, 64 KB at a time. */
function givesBack(streamer: Inside["streamer"]): void {
  const release = streamer.releaseInput.bind(streamer);
  let read: Uint8Array[] = [];
  streamer.releaseInput = (input) => {
    if (input !== null && !input.released) read.push(input.chunk);
    release(input);
    if (streamer.destroyed) return;
    const ends = new Set(read.map(({ buffer }) => buffer));
    const copied = (part: Uint8Array) => ends.has(part.buffer) ? Buffer.from(part) : part;
    streamer.inputBuffer = streamer.inputBuffer.map(copied);
    streamer.lineBuffer = streamer.lineBuffer.map(copied);
    // A literal is copied out of its pieces once all have come.
    const needed = new Set(streamer.literalBuffer.map(({ buffer }) => buffer));
    for (const chunk of read) if (!needed.has(chunk.buffer)) giveBack(chunk);
    read = read.filter(({ buffer }) => needed.has(buffer));
  };
}

/** Frees bytes that nobody needs any more, where they are all of their buffer. */
export function giveBack({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

const BEGINNING = /\* (\d{1,10}) FETCH \(/y;
const ITEM = new RegExp(
  [
    String.raw` ?(?:UID (?<uid>\d{1,10})`,
    String.raw`FLAGS \((?<flags>[^()"{}[\]]*)\)`,
    String.raw`INTERNALDATE "(?<date>[^"\\]*)"`,
    String.raw`RFC822\.SIZE (?<size>\d{1,15})`,
    String.raw`MODSEQ \(\d+\)`,
    String.raw`EMAILID \((?<email>[\w-]+)\)`,
    String.raw`THREADID \((?<thread>[\w-]+)\)`,
    String.raw`BODY\[(?<part>[A-Z\d.]+)\](?:<\d+>)? \{(?<bytes>\d{1,10})\}\r\n)`,
  ].join("|"),
  "y",
);

/** Reads the answer of one message; null: it is none, or not written as usual. */
export function readMessage(
  { payload, literals }: Pick<Response, "payload" | "literals">,
): FetchMessageObject | null {
  const line = payload.toString("latin1");
  BEGINNING.lastIndex = 0;
  const begins = BEGINNING.exec(line);
  if (begins === null) return null;
  const message: Partial<FetchMessageObject> = { seq: Number(begins[1]) };
  let at = BEGINNING.lastIndex;
  let literal = 0;
  while (at < line.length - 1) {
    ITEM.lastIndex = at;
    const item = ITEM.exec(line)?.groups;
    if (item === undefined) return null;
    at = ITEM.lastIndex;
    if (item.uid !== undefined) message.uid = Number(item.uid);
    else if (item.flags !== undefined) message.flags = new Set(item.flags.split(" ").filter(Boolean));
    else if (item.date !== undefined) message.internalDate = item.date;
    else if (item.size !== undefined) message.size = Number(item.size);
    else if (item.email !== undefined) message.emailId = item.email;
    else if (item.thread !== undefined) message.threadId = item.thread;
    else if (item.part !== undefined) {
      const content = literals[literal++] as Buffer | undefined;
      if (content?.length !== Number(item.bytes)) return null;
      if (item.part === "HEADER") message.headers = content;
      else (message.bodyParts ??= new Map()).set(item.part.toLowerCase(), content);
    }
  }
  return line[at] === ")" && at === line.length - 1 ? message as FetchMessageObject : null;
}
