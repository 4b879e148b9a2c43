/** Planning: what changed in a folder since its last sync, and the chunks that fetch what is not stored. */

import type { ImapFlow } from "imapflow";
import type { Rpc } from "../_shared/rpc.ts";
import type { Answer } from "../_shared/serve.ts";
import { count, listUids } from "./listing.ts";
import { explainDrop, type Folder } from "./mailbox.ts";
import { storedFlags } from "./message.ts";
import type { Plan } from "./payload.ts";
import { asRanges, inPieces, without } from "./ranges.ts";

/** Flags are some bytes each: this many fit into a chunk. */
const FLAGS_PER_CHUNK = 5000;
/** More changes than this are no longer cheaper than comparing the folder as a whole. */
const MAX_CHANGES = 50_000;

/** How far the folder was synced before. */
interface State {
  uidvalidity: number | null;
  highestmodseq: string | null;
}

interface Changes {
  changed: { uid: number; flags: string[] }[];
  vanished: number[];
}

/** What the database finds. */
interface Found {
  /** [first, last, messages] of neighbours that are not stored. */
  missing: [number, number, number][];
  deleted: number;
  /** Whether messages may have moved here from where they are gone. */
  moved: boolean;
  superseded?: number;
  flags_changed?: number;
}

/** Compares the open folder with the table: what changed since the last sync where the server can say so, else all. */
export async function planFolder(
  task: Plan,
  accountId: string,
  client: ImapFlow,
  folder: Folder,
  rpc: Rpc,
): Promise<Answer> {
  const { path, uidvalidity, highestmodseq } = folder;
  const where = { account_id: accountId, folder: path, uidvalidity };
  let state: State | null = null;
  if (highestmodseq !== null) {
    state = await rpc("get_email_folder", { account_id: accountId, folder: path }) as State | null;
    if (state?.uidvalidity !== uidvalidity || state.highestmodseq === null) state = null;
  }
  if (state !== null && !task.full) {
    const changes = await changesSince(client, state.highestmodseq!, highestmodseq!);
    if (changes !== null) {
      const found = await rpc("update_email_folder", {
        ...where,
        highestmodseq,
        present_count: count(client),
        changed: changes.changed,
        vanished: asRanges(changes.vanished),
      }) as Found & { agrees: boolean };
      if (found.agrees) {
        return answer(
          task,
          folder,
          count(client),
          changes.changed.map(({ uid }) => uid),
          found,
        );
      }
    }
  }
  const uids = await listUids(client);
  const found = await rpc("plan_email_folder", {
    ...where,
    present: asRanges(uids),
    present_count: uids.length,
    // Whoever knows all changes knows what has left, and needs nobody to ask for it.
    mark_deleted: task.full || state !== null,
    highestmodseq,
  }) as Found;
  const planned = answer(task, folder, uids.length, uids, found);
  // From here on only changes are asked for, so what is stored must have its flags once.
  if (task.full || (highestmodseq !== null && state === null)) {
    for (const [from, to] of inPieces(without(uids, found.missing), null, FLAGS_PER_CHUNK)) {
      planned.next_chunks!.push({
        account: task.account,
        folder: path,
        uidvalidity,
        from,
        to,
        flags_only: true,
      });
    }
  }
  return planned;
}

function answer(
  task: Plan,
  { path, uidvalidity }: Folder,
  inFolder: number,
  uids: number[],
  found: Found,
): Answer {
  const { account, body, batchSize } = task;
  // The name that the server opened, so that a folder is one however the payload spells it.
  const common = { account, folder: path, uidvalidity, body, ...(found.moved ? { adopt: true } : {}) };
  const { missing, moved: _, ...noted } = found;
  const messages = missing.reduce((sum, [, , count]) => sum + count, 0);
  return {
    result: { folder: path, uidvalidity, in_folder: inFolder, to_fetch: messages, superseded: 0, ...noted },
    items_total: messages,
    next_chunks: missing.flatMap((range) =>
      inPieces(uids, range, batchSize).map(([from, to, count]) => ({ ...common, from, to, count }))
    ),
  };
}

/** The folder's changes, in one round trip, or none if there are none; null when they are too many. */
async function changesSince(client: ImapFlow, since: string, now: string): Promise<Changes | null> {
  const changes: Changes = { changed: [], vanished: [] };
  if (since === now) return changes;
  const gone = ({ uid, path }: { uid?: number; path: string }) => {
    if (uid !== undefined && client.mailbox && path === client.mailbox.path) changes.vanished.push(uid);
  };
  client.on("expunge", gone);
  try {
    const query = { uid: true, flags: true };
    for await (
      const { uid, flags } of client.fetch("1:*", query, { uid: true, changedSince: BigInt(since) })
    ) {
      if (uid && flags) changes.changed.push({ uid, flags: storedFlags(flags) });
    }
  } catch (error) {
    throw explainDrop(error);
  } finally {
    client.off("expunge", gone);
  }
  changes.changed.sort((a, b) => a.uid - b.uid);
  changes.vanished.sort((a, b) => a - b);
  return changes.changed.length + changes.vanished.length > MAX_CHANGES ? null : changes;
}
