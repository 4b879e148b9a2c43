/**
 * The handler of kind `email`: plans the chunks of a folder, and fetches those that were planned.
 *
 * A planning chunk compares the folder's UIDs with the table and returns a chunk for each range that is not stored: new
 * messages, and what an earlier failure left out. Nothing new: no further chunk.
 */

import type { ImapFlow } from "imapflow";
import { type Rpc, RpcError, withRetries } from "../_shared/rpc.ts";
import { type Answer, type Chunk, type Context, PermanentFailure } from "../_shared/serve.ts";
import { type Budget, startBudget } from "./budget.ts";
import { fetchMessages } from "./fetch.ts";
import { explainDrop, type Folder, type Login } from "./mailbox.ts";
import { storedFlags } from "./message.ts";
import { type Range, readTask } from "./payload.ts";
import { planFolder } from "./plan.ts";
import type { Session, SessionPool } from "./pool.ts";
import { asRanges } from "./ranges.ts";
import { Saver } from "./saving.ts";
import { HandOver, patiently } from "./throttle.ts";

/** How long the database may be away before the chunk gives up. */
const DATABASE_PATIENCE_MS = 20_000;

/** More ranges than this are fetched again as one. */
const MAX_RANGES_LEFT = 10;

/** What the handler takes from outside. */
export interface Dependencies {
  sessions: SessionPool;
  /** Milliseconds that the caller waits for an answer, where that is known. */
  callerMs?: number | null;
}

/** A handler's work for kind `email`. */
export function createSyncEmails(
  dependencies: Dependencies,
): (chunk: Chunk, context: Context) => Promise<Answer> {
  const { sessions, callerMs = null } = dependencies;
  return async (chunk, context) => {
    const task = readTask(chunk);
    if (task.task === "fan") {
      const { account, folders, full, body, batchSize } = task;
      const next = folders.map((folder) => ({ account, folder, full, body, batch_size: batchSize }));
      return { result: { folders: folders.length }, next_chunks: next };
    }
    const budget = startBudget(context.signal, callerMs);
    const rpc = patient(context.rpc, context.signal);
    const login = await lookUp(rpc, task.account, chunk.owner_id);
    try {
      return await patiently(
        async () => {
          const line = new Line(
            () => sessions.take(login, task.folder, task.task === "plan", context.signal),
            task,
          );
          try {
            if (task.task === "plan") {
              return await planFolder(task, login.account_id, await line.client(), line.folder, rpc);
            }
            if (task.task === "flags") return await fetchFlags(task, login, line, rpc);
            return await fetchRange(task, login, chunk.job_id, line, rpc, budget);
          } finally {
            line.end();
          }
        },
        budget,
        task.handOvers,
      );
    } catch (error) {
      if (!(error instanceof HandOver)) throw error;
      const next = { ...chunk.payload, hand_overs: task.handOvers + 1 };
      return { result: { waited_for: error.message }, next_chunks: [next] };
    }
  };
}

/** A session with the task's folder open; a fresh one takes the place of one that broke. */
class Line {
  #session: Session | null = null;

  constructor(
    private readonly take: () => Promise<Session>,
    private readonly task: { folder: string; uidvalidity?: number | null },
  ) {}

  async client(): Promise<ImapFlow> {
    if (this.#session?.client.usable) return this.#session.client;
    this.end();
    this.#session = await this.take();
    const { folder, uidvalidity } = this.task;
    const now = this.#session.folder.uidvalidity;
    if (uidvalidity !== undefined && uidvalidity !== null && uidvalidity !== now) {
      throw new PermanentFailure(
        `the server has renumbered the folder ${JSON.stringify(folder)} since this sync was planned ` +
          `(UIDVALIDITY ${uidvalidity}, now ${now}): start the sync again`,
      );
    }
    return this.#session.client;
  }

  /** The folder that `client()` opened. */
  get folder(): Folder {
    return this.#session!.folder;
  }

  end(): void {
    this.#session?.release();
    this.#session = null;
  }
}

async function fetchRange(
  task: Range,
  login: Login,
  jobId: string,
  line: Line,
  rpc: Rpc,
  budget: Budget,
): Promise<Answer> {
  const { from, to, body, expected } = task;
  await line.client();
  const { path: folder, uidvalidity } = line.folder;
  const where = { account_id: login.account_id, folder, uidvalidity };
  const saver = new Saver({
    emails: async (emails) => Number(await rpc("save_synced_emails", { ...where, emails, job_id: jobId })),
    flags: async (emails) => Number(await rpc("save_email_flags", { ...where, emails })),
  });
  let left: number[];
  try {
    left = await fetchMessages({ from, to, body, expected }, () => line.client(), saver, budget);
  } finally {
    await saver.end();
  }
  const { fetched, unreadable, changed } = saver;
  const answer: Answer = {
    result: { folder, from, to, fetched, unreadable, changed },
    items_processed: fetched,
  };
  if (left.length > 0) answer.next_chunks = rest(task, { folder, uidvalidity }, left);
  return answer;
}

/** Chunks for what there was no time for. */
function rest(
  task: Range,
  where: { folder: string; uidvalidity: number },
  left: number[],
): Record<string, unknown>[] {
  const { account, body } = task;
  const runs = asRanges(left);
  const ranges = runs.length > MAX_RANGES_LEFT ? [[left[0], left[left.length - 1]]] : runs;
  return ranges.map(([from, to]) => ({ account, ...where, from, to, body }));
}

async function fetchFlags(task: Range, login: Login, line: Line, rpc: Rpc): Promise<Answer> {
  const { from, to } = task;
  const emails: { uid: number; flags: string[] }[] = [];
  const client = await line.client();
  const { path: folder, uidvalidity } = line.folder;
  try {
    for await (
      const { uid, flags } of client.fetch(`${from}:${to}`, { uid: true, flags: true }, { uid: true })
    ) {
      if (uid >= from && uid <= to && flags) emails.push({ uid, flags: storedFlags(flags) });
    }
  } catch (error) {
    throw explainDrop(error);
  }
  const args = { account_id: login.account_id, folder, uidvalidity, emails };
  return { result: { folder, from, to, flags_changed: await rpc("save_email_flags", args) } };
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
