/** Fetches the messages of a UID range; one that the server chokes on does not cost the others. */

import type { FetchQueryObject, ImapFlow } from "imapflow";
import { RetryLater } from "../_shared/serve.ts";
import { explainDrop } from "./mailbox.ts";
import { type EmailRow, type FetchedMessage, toRow } from "./message.ts";

/** The range, and whether bodies are wanted. */
export interface Wanted {
  from: number;
  to: number;
  body: boolean;
}

/** What was done. */
export interface Counts {
  fetched: number;
  /** Messages of which something could not be read. */
  unreadable: number;
}

/** Bytes of a message that are read: headers and the text's beginning, or with bodies rather all of the text. */
const PREVIEW_BYTES = 128 * 1024;
const BODY_BYTES = 1024 * 1024;

/** Characters of text after which what is there is saved, so that a range of large mails fits into memory. */
const SAVE_AT = 4 * 1024 * 1024;

/** More messages than this that break the connection are a broken server, not broken messages. */
const MAX_POISONOUS = 5;

/**
 * Fetches a range at once; if the connection breaks, fetches the rest one by one on a fresh one. A message that breaks
 * its connection twice is stored with what the server says without its content.
 *
 * @param open a fresh connection with the folder open.
 * @param save stores rows of a generation of UIDs; called several times.
 * @throws RetryLater when the server, not a message, is the trouble.
 */
export async function fetchMessages(
  wanted: Wanted,
  open: () => Promise<{ client: ImapFlow; uidvalidity: number }>,
  save: (uidvalidity: number, rows: EmailRow[]) => Promise<void>,
): Promise<Counts> {
  const counts: Counts = { fetched: 0, unreadable: 0 };
  const seen = new Set<number>();
  const limit = wanted.body ? BODY_BYTES : PREVIEW_BYTES;
  let session = await open();
  let rows: EmailRow[] = [];
  let weight = 0;

  const flush = async () => {
    if (rows.length > 0) await save(session.uidvalidity, rows);
    rows = [];
    weight = 0;
  };
  const keep = async (message: FetchedMessage) => {
    const row = await toRow(message, wanted);
    seen.add(message.uid);
    counts.fetched += 1;
    if (row.parse_error !== null) counts.unreadable += 1;
    rows.push(row);
    weight += 1000 + (row.body_text?.length ?? 0) + (row.body_html?.length ?? 0);
    if (weight > SAVE_AT) await flush();
  };

  try {
    try {
      for await (const message of messages(session.client, `${wanted.from}:${wanted.to}`, limit)) {
        await keep(message);
      }
    } catch (error) {
      if (session.client.usable) throw error;
      await reopen();
      await oneByOne();
    }
    await flush();
    return counts;
  } catch (error) {
    throw explainDrop(error);
  } finally {
    session.client.close();
  }

  async function reopen(): Promise<void> {
    // What was fetched belongs to the generation of UIDs that this session saw.
    await flush();
    session.client.close();
    session = await open();
  }

  async function oneByOne(): Promise<void> {
    let poisonous = 0;
    const range = { uid: `${wanted.from}:${wanted.to}` };
    const uids = await session.client.search(range, { uid: true });
    if (!uids) throw new RetryLater(null, "the mail server did not list its messages");
    for (const uid of uids.filter((uid) => !seen.has(uid))) {
      for (let breaks = 0, done = false; !done;) {
        try {
          for await (const message of messages(session.client, String(uid), breaks < 2 ? limit : null)) {
            await keep(message);
          }
          done = true;
        } catch (error) {
          if (session.client.usable || breaks === 2) throw error;
          breaks += 1;
          if (breaks === 2 && ++poisonous > MAX_POISONOUS) {
            throw new RetryLater(null, "the mail server breaks off again and again");
          }
          await reopen();
        }
      }
    }
  }
}

/** The messages with their content up to a limit, or without it. */
function messages(client: ImapFlow, range: string, limit: number | null): AsyncGenerator<FetchedMessage> {
  // Not the envelope: the parser here copes with headers on which servers' own parsers give up.
  const query: FetchQueryObject = { uid: true, flags: true, size: true, internalDate: true };
  if (limit !== null) query.source = { start: 0, maxLength: limit };
  return client.fetch(range, query, { uid: true });
}
