/**
 * The handler of kind `email`: plans the chunks of a folder, and fetches those that were planned.
 *
 * A planning chunk compares the folder's UIDs with the table and returns a chunk for each range that is not stored: new
 * messages, and what an earlier failure left out. Nothing new: no further chunk.
 */

import { type Rpc, RpcError, withRetries } from "../_shared/rpc.ts";
import { type Answer, type Chunk, type Context, PermanentFailure, Throttled } from "../_shared/serve.ts";
import { type Budget, startBudget } from "./budget.ts";
import { fanOut } from "./folders.ts";
import { Line, Renumbered } from "./line.ts";
import type { Login } from "./mailbox.ts";
import { accessToken } from "./oauth.ts";
import { type Range, readTask, type Task } from "./payload.ts";
import { planFolder } from "./plan.ts";
import type { SessionPool } from "./pool.ts";
import { fetchFlags, fetchRange } from "./range.ts";
import { Pauses, PutOff } from "./throttle.ts";

/** How long the database may be away before the chunk gives up. */
const DATABASE_PATIENCE_MS = 20_000;

/** What the handler takes from outside. */
export interface Dependencies {
  sessions: SessionPool;
  /** Milliseconds that the caller waits for an answer, where that is known. */
  callerMs?: number | null;
  /** Milliseconds of computing after which a chunk leaves the rest to another. */
  busyMs?: number;
  /** A setting of the function. */
  env?: (name: string) => string | undefined;
}

/** A handler's work for kind `email`. */
export function createSyncEmails(
  dependencies: Dependencies,
): (chunk: Chunk, context: Context) => Promise<Answer> {
  const { sessions, callerMs = null, busyMs, env = () => undefined } = dependencies;
  const pauses = new Pauses();
  return async (chunk, context) => {
    const task = readTask(chunk);
    const budget = startBudget(context.signal, callerMs, busyMs);
    const rpc = patient(context.rpc, context.signal);
    const login = await lookUp(rpc, task.account, chunk.owner_id);
    const source = { accountId: login.account_id, account: task.account, rpc, budget, env };
    login.tokens = (refused) => accessToken(source, refused);
    const folder = task.task === "fan" ? null : task.folder;
    const uidvalidity = "uidvalidity" in task ? task.uidvalidity : null;
    const fresh = task.task === "plan";
    const line = new Line(() => sessions.take(login, folder, fresh, context.signal), uidvalidity);
    try {
      const answer = await carryOut(task, login.account_id, chunk.job_id, line, rpc, budget);
      pauses.end(login.account_id);
      return answer;
    } catch (error) {
      if (error instanceof Renumbered) return await planAgain(task as Range, error, login.account_id, rpc);
      if (!(error instanceof PutOff)) throw error;
      throw new Throttled(pauses.secondsFor(login.account_id, error.seconds), error.message);
    } finally {
      line.end();
    }
  };
}

async function carryOut(
  task: Task,
  accountId: string,
  jobId: string,
  line: Line,
  rpc: Rpc,
  budget: Budget,
): Promise<Answer> {
  switch (task.task) {
    case "fan":
      return await fanOut(task, accountId, await line.client(), rpc);
    case "plan":
      return await planFolder(task, accountId, await line.client(), line.folder, rpc);
    case "flags":
      return await fetchFlags(task, accountId, line, rpc);
    case "messages":
      return await fetchRange(task, accountId, jobId, line, rpc, budget);
  }
}

/** The first chunk that finds its folder renumbered plans it again; the others' ranges are void. */
async function planAgain(task: Range, { folder }: Renumbered, accountId: string, rpc: Rpc): Promise<Answer> {
  const { account, body, batchSize } = task;
  const args = { account_id: accountId, folder: folder.path, uidvalidity: folder.uidvalidity };
  const isFirst = await rpc("renumber_email_folder", args) as boolean;
  // No range, though the job's payload may have one.
  const next = { account, folder: folder.path, body, batch_size: batchSize, from: null, to: null };
  return {
    result: { folder: folder.path, renumbered: { was: task.uidvalidity, now_is: folder.uidvalidity } },
    next_chunks: isFirst ? [next] : [],
  };
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
