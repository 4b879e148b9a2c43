/** Planning: which messages of a folder are not stored, and the chunks that fetch them. */

import type { ImapFlow } from "imapflow";
import type { Rpc } from "../_shared/rpc.ts";
import type { Answer } from "../_shared/serve.ts";
import { listUids } from "./listing.ts";
import type { Folder } from "./mailbox.ts";
import type { Plan } from "./payload.ts";
import { asRanges, inPieces, without } from "./ranges.ts";

/** Flags are some bytes each: this many fit into a chunk. */
const FLAGS_PER_CHUNK = 5000;

/** Compares the open folder's messages with the table. */
export async function planFolder(
  task: Plan,
  accountId: string,
  client: ImapFlow,
  { path, uidvalidity }: Folder,
  rpc: Rpc,
): Promise<Answer> {
  const { account, full, body, batchSize } = task;
  const uids = await listUids(client);
  const planned = await rpc("plan_email_folder", {
    account_id: accountId,
    folder: path,
    uidvalidity,
    present: asRanges(uids),
    present_count: uids.length,
    mark_deleted: full,
  }) as { missing: [number, number, number][]; deleted: number; superseded: number };

  // The name that the server opened, so that a folder is one however the payload spells it.
  const common = { account, folder: path, uidvalidity };
  const next: Record<string, unknown>[] = planned.missing.flatMap((range) =>
    inPieces(uids, range, batchSize).map(([from, to, count]) => ({ ...common, from, to, count, body }))
  );
  if (full) {
    for (const [from, to] of inPieces(without(uids, planned.missing), null, FLAGS_PER_CHUNK)) {
      next.push({ ...common, from, to, flags_only: true });
    }
  }
  const messages = planned.missing.reduce((sum, [, , count]) => sum + count, 0);
  return {
    result: {
      folder: path,
      uidvalidity,
      in_folder: uids.length,
      to_fetch: messages,
      deleted: planned.deleted,
      superseded: planned.superseded,
    },
    items_total: messages,
    next_chunks: next,
  };
}
