/** The UIDs of all messages in a folder, and whether these are all. */

import type { ImapFlow } from "imapflow";
import { RetryLater } from "../_shared/serve.ts";
import { explainDrop } from "./mailbox.ts";

/** Messages whose UIDs are asked for by their place, where a search does not list them. */
const PLACES_AT_ONCE = 1000;

/**
 * Lists the open folder's UIDs, ascending, as many as the server says there are.
 *
 * A server may list only a part (MESSAGELIMIT, RFC 9738) or, broken, nothing: windows beside what is known are searched
 * until the count agrees, and what is still missing is asked for by its place in the folder.
 *
 * @throws RetryLater when the server keeps some back.
 */
export async function listUids(client: ImapFlow): Promise<number[]> {
  const uids = new Set<number>();
  try {
    await search(client, uids, { all: true });
    while (uids.size < count(client)) {
      const before = uids.size;
      const listed = ascending(uids);
      const [least, most] = [listed.at(0) ?? 1, listed.at(-1) ?? 0];
      if (least > 1) await search(client, uids, { uid: `1:${least - 1}` });
      await search(client, uids, { uid: `${most + 1}:*` });
      if (uids.size === before) break;
    }
    if (uids.size < count(client)) await askByPlace(client, uids);
  } catch (error) {
    throw explainDrop(error);
  }
  if (uids.size >= count(client)) return ascending(uids);
  throw new RetryLater(
    null,
    `the mail server listed ${uids.size} of the ${count(client)} messages that it says are in the folder`,
  );
}

/** How many messages the server says there are; kept up to date by what it says in between. */
export function count(client: ImapFlow): number {
  return client.mailbox ? client.mailbox.exists : 0;
}

async function search(client: ImapFlow, uids: Set<number>, query: { all: true } | { uid: string }) {
  const found = await client.search(query, { uid: true });
  if (!found) throw new RetryLater(null, "the mail server did not list its messages");
  for (const uid of found) uids.add(uid);
}

/** Places are from 1 to the count, so that nothing can be left out unseen; it costs a line a message. */
async function askByPlace(client: ImapFlow, uids: Set<number>): Promise<void> {
  for (let first = 1; first <= count(client); first += PLACES_AT_ONCE) {
    const last = Math.min(first + PLACES_AT_ONCE - 1, count(client));
    for await (const { uid } of client.fetch(`${first}:${last}`, { uid: true })) {
      if (uid) uids.add(uid);
    }
  }
}

function ascending(uids: Set<number>): number[] {
  return [...uids].sort((a, b) => a - b);
}
