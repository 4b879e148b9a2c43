/**
 * Fetches the messages of a UID range: the header whole, and of the body what the preview needs, or all of its text.
 *
 * One command brings each message's header and the beginning of its body, which is enough for most. Of the others the
 * server is asked for the structure, and then for the part that has the text; attachments are never fetched.
 */

import type { FetchMessageObject, FetchQueryObject, ImapFlow } from "imapflow";
import type { Budget } from "./budget.ts";
import { Draft } from "./draft.ts";
import { type Fetch, fetchEach, fetchRange } from "./narrowing.ts";
import { Room } from "./room.ts";
import type { Saver } from "./saving.ts";

/** The range, and whether bodies are wanted. */
export interface Wanted {
  from: number;
  to: number;
  body: boolean;
  /** How many messages there are in the range; null: the server is asked. */
  expected: number | null;
  /** Of the range only these, ascending; null: all. */
  only: number[] | null;
}

/** Bytes of a header that are fetched with all others, and at most. */
const HEADER_BYTES = 32 * 1024;
const MAX_HEADER_BYTES = 1024 * 1024;
/** Bytes of a body that are fetched with all others: the preview is there in nine of ten messages. */
const START_BYTES = { preview: 4 * 1024, body: 16 * 1024 };
/** Bytes of a part: of one whose beginning is styles or empty lines, and of a body. */
const PART_BYTES = { preview: 48 * 1024, body: 1024 * 1024 };
/** Bytes of parts that a command asks for. Of bodies all are kept until it is answered. */
const AT_ONCE = { preview: 2 * 1024 * 1024, body: 256 * 1024 };
/** Where all chunks have the bodies that they fetch, until the rows are saved. */
const room = new Room();

/** Ids of conversations and labels come where the server has them. */
const ENVELOPE: FetchQueryObject = {
  uid: true,
  flags: true,
  size: true,
  internalDate: true,
  threadId: true,
  labels: true,
};

/**
 * Fetches and stores a range.
 *
 * @param client the client of a session with the folder open; that of a fresh one if the last broke.
 * @returns the UIDs that are left, because the time is over.
 * @throws RetryLater when the server, not a message, is the trouble.
 */
export async function fetchMessages(
  wanted: Wanted,
  client: () => Promise<ImapFlow>,
  saver: Saver,
  budget: Budget,
): Promise<number[]> {
  const mode = wanted.body ? "body" : "preview";
  const drafts: Draft[] = [];
  const refused = new Map<number, { why: string; broke: boolean }>();
  const flags = (uid: number, mentioned: Set<string>) => saver.mention(uid, mentioned);
  const messages: Fetch = {
    query: { ...ENVELOPE, bodyParts: [part("HEADER", HEADER_BYTES), part("TEXT", START_BYTES[mode])] },
    client,
    answers: (message) =>
      message.size !== undefined && "headers" in message && message.bodyParts !== undefined,
    take(message) {
      const row = budget.work(() => {
        const draft = new Draft(message, wanted.body);
        draft.readHeader(message.headers, HEADER_BYTES);
        draft.readStart(message.bodyParts?.get("text"), START_BYTES[mode]);
        if (draft.isDone) return draft.giveRow();
        drafts.push(draft);
      }, bytesOf(message));
      if (row !== undefined) return saver.add(row);
    },
    refused: (uid, why, broke) => void refused.set(uid, { why, broke }),
    flags,
    enough: () => budget.isOver() && saver.fetched + drafts.length > 0,
  };
  const left = wanted.only === null
    ? await fetchRange(messages, [wanted.from, wanted.to], wanted.expected)
    : await fetchEach(messages, wanted.only);
  for (const [uid, { why, broke }] of refused) await takeWhatThereIs(uid, why, broke);
  const unfinished = await finish(drafts);
  return [...unfinished, ...left].sort((a, b) => a - b);

  /** Stores a message whose content the server refuses, with as much as it does say. */
  async function takeWhatThereIs(uid: number, why: string, broke: boolean): Promise<void> {
    const problem = `the server did not send its content: ${why}`;
    const steps: FetchQueryObject[] = [ENVELOPE];
    // Where the content breaks the connection, the header may do so too.
    if (!broke) steps.unshift({ ...ENVELOPE, bodyParts: [part("HEADER", HEADER_BYTES)] });
    let found: FetchMessageObject | null = null;
    for (const query of steps) {
      if (found !== null) break;
      await fetchEach({
        query,
        client,
        answers: (message) => message.size !== undefined && (!query.bodyParts || "headers" in message),
        take: (message) => void (found = message),
        refused() {},
        flags,
        enough: () => false,
      }, [uid]);
    }
    const draft = new Draft(found ?? { uid }, wanted.body);
    const { headers } = (found ?? {}) as Partial<FetchMessageObject>;
    if (headers) draft.readHeader(headers, HEADER_BYTES);
    draft.problems.push(problem);
    await saver.add(draft.giveRow());
  }

  /** Fetches what the drafts still need; returns the UIDs of those for which there was no time. */
  async function finish(drafts: Draft[]): Promise<number[]> {
    const todo = new Set(drafts);
    const enough = () => budget.isOver() && saver.fetched > 0;
    const long = drafts.filter((draft) => draft.needsHeader);
    await ask(long, { uid: true, bodyParts: [part("HEADER", MAX_HEADER_BYTES)] }, enough, {
      answers: (message) => "headers" in message,
      take: (draft, message) => draft.readHeader(message.headers, MAX_HEADER_BYTES),
      refused: (draft) => draft.settleHeader(),
    });
    const unclear = drafts.filter((draft) => draft.needsStructure);
    await ask(unclear, { uid: true, bodyStructure: true }, enough, {
      answers: (message) => message.bodyStructure !== undefined,
      take: (draft, message) => draft.readStructure(message.bodyStructure!, PART_BYTES[mode]),
      refused: (draft, why) => draft.settle(`the server did not describe its parts: ${why}`),
    });
    await saveThoseDone();
    while (todo.size > 0 && !enough()) {
      const { group, bytes } = nextGroup([...todo], AT_ONCE[mode]);
      await room.within(wanted.body ? bytes : 0, async () => {
        if (enough()) return;
        await askForParts(group, enough);
        await saveThoseDone();
      });
    }
    return [...todo].map((draft) => draft.uid);

    async function saveThoseDone(): Promise<void> {
      for (const draft of [...todo].filter((draft) => draft.isDone)) {
        if (enough()) return;
        todo.delete(draft);
        await saver.add(budget.work(() => draft.giveRow()));
      }
    }
  }

  /** Fetches the part that the first of the drafts wants, of all of them. */
  async function askForParts(drafts: Draft[], enough: () => boolean): Promise<void> {
    const { number } = drafts[0].wants!;
    const key = number.toLowerCase();
    await ask(drafts, { uid: true, bodyParts: [part(number, PART_BYTES[mode])] }, enough, {
      answers: (message) => message.bodyParts?.has(key) ?? false,
      take: (draft, message) => draft.readPart(message.bodyParts?.get(key), PART_BYTES[mode]),
      refused: (draft, why) => draft.skipPart(`the server did not send a part of its text: ${why}`),
    });
    for (const draft of drafts) {
      if (draft.wants?.number === number) draft.skipPart("a part of its text is gone");
    }
  }

  async function ask(
    drafts: Draft[],
    query: FetchQueryObject,
    enough: () => boolean,
    on: {
      answers(message: FetchMessageObject): boolean;
      take(draft: Draft, message: FetchMessageObject): void;
      refused(draft: Draft, why: string): void;
    },
  ): Promise<void> {
    const byUid = new Map(drafts.map((draft) => [draft.uid, draft]));
    await fetchEach({
      query,
      client,
      answers: on.answers,
      take: (message) => budget.work(() => on.take(byUid.get(message.uid)!, message), bytesOf(message)),
      refused: (uid, why) => on.refused(byUid.get(uid)!, why),
      flags,
      enough,
    }, [...byUid.keys()].sort((a, b) => a - b));
  }
}

/** Drafts that want the same part, as many as one command asks for. */
function nextGroup(drafts: Draft[], most: number): { group: Draft[]; bytes: number } {
  const first = drafts.find((draft) => draft.wants !== null);
  const group: Draft[] = [];
  let bytes = 0;
  for (const draft of drafts) {
    if (draft.wants === null || draft.wants.number !== first?.wants?.number) continue;
    if (group.length > 0 && bytes + draft.wants.size > most) break;
    bytes += draft.wants.size;
    group.push(draft);
  }
  return { group, bytes };
}

function bytesOf({ headers, bodyParts }: FetchMessageObject): number {
  let bytes = headers?.length ?? 0;
  for (const content of bodyParts?.values() ?? []) bytes += content?.length ?? 0;
  return bytes;
}

function part(key: string, maxLength: number) {
  return { key, start: 0, maxLength };
}
