/**
 * The handler of kind `email`: plans the chunks of a folder, and fetches those that were planned.
 *
 * A planning chunk compares the folder's UIDs with the table and returns a chunk for each range that is not stored: new
 * messages, and what an earlier failure left out. Nothing new: no further chunk.
 */

import type { ImapFlow } from "imapflow";
import { type Rpc, RpcError, withRetries } from "../_shared/rpc.ts";
import { type Answer, type Chunk, type Context, PermanentFailure, RetryLater } from "../_shared/serve.ts";
import { connect, explainDrop, type Login, openFolder } from "./mailbox.ts";
import { fetchMessages } from "./fetch.ts";
import { type Plan, type Range, readTask } from "./payload.ts";
import { asRanges, inPieces, without } from "./ranges.ts";

/** Settings of the function. */
export interface Settings {
  /** Certificates in PEM that are trusted beside the usual ones: a company's own mail server. */
  extraCa?: string;
}

/** Flags are some bytes each: this many fit into a chunk. */
const FLAGS_PER_CHUNK = 5000;

/** How long the database may be away before the chunk gives up. */
const DATABASE_PATIENCE_MS = 20_000;

/** A handler's work for kind `email`. */
export function createSyncEmails(settings: Settings): (chunk: Chunk, context: Context) => Promise<Answer> {
  return async (chunk, context) => {
    const task = readTask(chunk);
    const rpc = patient(context.rpc, context.signal);
    if (task.task === "fan") {
      const { account, folders, full, body, batchSize } = task;
      const next = folders.map((folder) => ({ account, folder, full, body, batch_size: batchSize }));
      return { result: { folders: folders.length }, next_chunks: next };
    }
    const login = await lookUp(rpc, task.account, chunk.owner_id);
    const open = async (): Promise<{ client: ImapFlow; uidvalidity: number }> => {
      const client = await connect(login, context.signal, settings.extraCa);
      try {
        return { client, uidvalidity: await openFolder(client, task.folder) };
      } catch (error) {
        client.close();
        throw error;
      }
    };
    if (task.task === "plan") return await plan(task, login, open, rpc);
    return await fetchRange(task, login, chunk.job_id, open, rpc);
  };
}

type Open = () => Promise<{ client: ImapFlow; uidvalidity: number }>;

async function plan(task: Plan, login: Login, open: Open, rpc: Rpc): Promise<Answer> {
  const { account, folder, full, body, batchSize } = task;
  const { client, uidvalidity } = await open();
  let uids: number[];
  try {
    const found = await client.search({ all: true }, { uid: true });
    if (!found) throw new RetryLater(null, "the mail server did not list its messages");
    uids = found.sort((a, b) => a - b);
  } catch (error) {
    throw explainDrop(error);
  } finally {
    client.close();
  }
  const folderArgs = { account_id: login.account_id, folder, uidvalidity };
  const planned = await rpc("plan_email_folder", {
    ...folderArgs,
    present: asRanges(uids),
    mark_deleted: full,
  }) as { missing: [number, number, number][]; deleted: number; superseded: number };

  const common = { account, folder, uidvalidity };
  const pieces = planned.missing.flatMap((range) => inPieces(uids, range, batchSize));
  const next: Record<string, unknown>[] = pieces.map(([from, to]) => ({ ...common, from, to, body }));
  if (full) {
    for (const [from, to] of inPieces(without(uids, planned.missing), null, FLAGS_PER_CHUNK)) {
      next.push({ ...common, from, to, flags_only: true });
    }
  }
  const messages = planned.missing.reduce((sum, [, , count]) => sum + count, 0);
  return {
    result: {
      folder,
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

async function fetchRange(task: Range, login: Login, jobId: string, open: Open, rpc: Rpc): Promise<Answer> {
  const { folder, from, to, body } = task;
  const checked: Open = async () => {
    const opened = await open();
    if (task.uidvalidity === null || task.uidvalidity === opened.uidvalidity) return opened;
    opened.client.close();
    throw new PermanentFailure(
      `the server has renumbered the folder ${JSON.stringify(folder)} since this sync was planned ` +
        `(UIDVALIDITY ${task.uidvalidity}, now ${opened.uidvalidity}): start the sync again`,
    );
  };
  if (task.task === "flags") {
    const { client, uidvalidity } = await checked();
    const emails: { uid: number; flags: string[] }[] = [];
    try {
      for await (
        const { uid, flags } of client.fetch(`${from}:${to}`, { uid: true, flags: true }, { uid: true })
      ) {
        emails.push({ uid, flags: [...flags ?? []].sort() });
      }
    } catch (error) {
      throw explainDrop(error);
    } finally {
      client.close();
    }
    const changed = await rpc("save_email_flags", {
      account_id: login.account_id,
      folder,
      uidvalidity,
      emails,
    });
    return { result: { folder, from, to, flags_changed: changed } };
  }
  let changed = 0;
  const counts = await fetchMessages({ from, to, body }, checked, async (uidvalidity, emails) => {
    const args = { account_id: login.account_id, folder, uidvalidity, emails, job_id: jobId };
    changed += Number(await rpc("save_synced_emails", args));
  });
  return { result: { folder, from, to, ...counts, changed }, items_processed: counts.fetched };
}

/** The account of that name that belongs to the job's owner. */
async function lookUp(rpc: Rpc, account: string, ownerId: string | null): Promise<Login> {
  const login = await rpc("get_email_account_secret", { account, owner_id: ownerId }) as Login | null;
  if (login !== null) return login;
  const whose = ownerId === null ? "the service has" : "the job's owner has";
  throw new PermanentFailure(`${whose} no email account ${JSON.stringify(account)}: save it first`);
}

/** Repeats calls while the database is away; what it refuses is not tried again. */
function patient(rpc: Rpc, signal: AbortSignal): Rpc {
  return async (name, args) => {
    try {
      return await withRetries(
        () => rpc(name, args, { timeoutMs: 30_000, signal }),
        performance.now() + DATABASE_PATIENCE_MS,
      );
    } catch (error) {
      if (error instanceof RpcError && !error.retryable) throw new PermanentFailure(error.message);
      throw error;
    }
  };
}
