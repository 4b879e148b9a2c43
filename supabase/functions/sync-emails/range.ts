/** A planned range of messages: fetched, or only their flags. */

import type { Rpc } from "../_shared/rpc.ts";
import type { Answer } from "../_shared/serve.ts";
import type { Budget } from "./budget.ts";
import { fetchMessages } from "./fetch.ts";
import { Headers } from "./headers.ts";
import type { Line } from "./line.ts";
import { explainDrop } from "./mailbox.ts";
import { emptyRow, storedFlags } from "./message.ts";
import type { Range } from "./payload.ts";
import { asRanges } from "./ranges.ts";
import { Saver } from "./saving.ts";

/** More ranges than this are fetched again as one. */
const MAX_RANGES_LEFT = 10;

/** Fetches and stores the messages of a range. */
export async function fetchRange(
  task: Range,
  accountId: string,
  jobId: string,
  line: Line,
  rpc: Rpc,
  budget: Budget,
): Promise<Answer> {
  const { from, to, body } = task;
  await line.client();
  const { path: folder, uidvalidity } = line.folder;
  const where = { account_id: accountId, folder, uidvalidity };
  const adopted = task.adopt ? await adoptMoved(task, where, line, rpc) : null;
  const saver = new Saver({
    // The call writes its JSON before it waits for anything.
    emails: async (emails) => {
      const saving = budget.work(() => rpc("save_synced_emails", { ...where, emails, job_id: jobId }));
      return Number(await saving);
    },
    flags: async (emails) => Number(await rpc("save_email_flags", { ...where, emails })),
  });
  const wanted = { from, to, body, expected: task.expected, only: adopted?.others ?? null };
  let left: number[];
  try {
    left = await fetchMessages(wanted, () => line.client(), saver, budget);
  } finally {
    await saver.end();
  }
  const { fetched, unreadable, changed } = saver;
  const moved = adopted === null ? {} : { moved: adopted.count };
  const answer: Answer = {
    result: { folder, from, to, fetched, unreadable, changed, ...moved },
    items_processed: fetched + (adopted?.count ?? 0),
  };
  if (left.length > 0) {
    const { account } = task;
    answer.next_chunks = inRanges(left).map(([from, to]) => ({
      account,
      folder,
      uidvalidity,
      from,
      to,
      body,
    }));
  }
  return answer;
}

/** Notes the present flags of a range. */
export async function fetchFlags(task: Range, accountId: string, line: Line, rpc: Rpc): Promise<Answer> {
  const { from, to } = task;
  const emails: { uid: number; flags: string[] }[] = [];
  const client = await line.client();
  const { path: folder, uidvalidity } = line.folder;
  try {
    const query = { uid: true, flags: true };
    for await (const { uid, flags } of client.fetch(`${from}:${to}`, query, { uid: true })) {
      if (uid >= from && uid <= to && flags) emails.push({ uid, flags: storedFlags(flags) });
    }
  } catch (error) {
    throw explainDrop(error);
  }
  const args = { account_id: accountId, folder, uidvalidity, emails };
  return { result: { folder, from, to, flags_changed: await rpc("save_email_flags", args) } };
}

/** Takes over the rows of messages that were in another folder, or in this one before it was renumbered. */
async function adoptMoved(
  { from, to, body }: Range,
  where: Record<string, unknown>,
  line: Line,
  rpc: Rpc,
): Promise<{ count: number; others: number[] }> {
  const emails: Record<string, unknown>[] = [];
  const uids: number[] = [];
  const query = { uid: true, flags: true, size: true, internalDate: true, headers: ["message-id"] };
  try {
    for await (const message of (await line.client()).fetch(`${from}:${to}`, query, { uid: true })) {
      if (!(message.uid >= from && message.uid <= to) || message.size === undefined || !message.headers) {
        continue;
      }
      const { uid, size, received_at, flags, email_id } = emptyRow(message);
      uids.push(uid);
      emails.push({
        uid,
        size,
        received_at,
        flags,
        email_id,
        message_id: new Headers(message.headers).text("message-id"),
      });
    }
  } catch (error) {
    throw explainDrop(error);
  }
  const adopted = new Set(await rpc("adopt_moved_emails", { ...where, emails, with_body: body }) as number[]);
  return { count: adopted.size, others: uids.filter((uid) => !adopted.has(uid)).sort((a, b) => a - b) };
}

function inRanges(uids: number[]): [number, number][] {
  const runs = asRanges(uids);
  return runs.length > MAX_RANGES_LEFT ? [[uids[0], uids[uids.length - 1]]] : runs;
}
