/** The folders of an account: which there are, and which of them a payload means. */

import type { ImapFlow } from "imapflow";
import type { Rpc } from "../_shared/rpc.ts";
import type { Answer } from "../_shared/serve.ts";
import { explainDrop } from "./mailbox.ts";
import type { Fan } from "./payload.ts";

/** A folder that can be opened. */
export interface Listed {
  path: string;
  /** What it is for, such as `\Sent`; null: nothing special. */
  specialUse: string | null;
}

/** Views of messages that have folders of their own. */
const VIEWS = new Set(["\\All", "\\Flagged", "\\Important"]);

/** Plans each folder by a chunk of its own, so that one that is missing does not stop the others. */
export async function fanOut(task: Fan, accountId: string, client: ImapFlow, rpc: Rpc): Promise<Answer> {
  const { account, full, body, batchSize } = task;
  const chunks = (folders: string[]) =>
    folders.map((folder) => ({ account, folder, full, body, batch_size: batchSize }));
  if (task.folders !== "all") {
    const names = [...new Set(task.folders.map((name) => canonical(client, name)))];
    return { result: { folders: names.length }, next_chunks: chunks(names) };
  }
  const listed = await listFolders(client);
  const noted = await rpc("save_email_folders", {
    account_id: accountId,
    folders: listed.map(({ path, specialUse }) => ({ folder: path, special_use: specialUse })),
  }) as { gone: number; deleted: number };
  const wanted = chooseFolders(listed, task.exclude, isGmail(client));
  return {
    result: { folders: wanted.length, in_account: listed.length, ...noted },
    next_chunks: chunks(wanted.map(({ path }) => path)),
  };
}

/** The folders that hold messages. */
export async function listFolders(client: ImapFlow): Promise<Listed[]> {
  let entries;
  try {
    entries = await client.list();
  } catch (error) {
    throw explainDrop(error);
  }
  return entries.filter(({ flags }) => !flags.has("\\Noselect") && !flags.has("\\NonExistent")).map((
    entry,
  ) => ({
    path: entry.path,
    specialUse: entry.specialUse && entry.specialUse !== "\\Inbox" ? entry.specialUse : null,
  }));
}

/**
 * Those of all folders that are synced: each message once.
 *
 * Views, which show messages that have another folder, are left out; with Gmail it is the other way round: there "All
 * Mail" has everything but junk and trash, and the others are labels.
 */
export function chooseFolders(listed: Listed[], exclude: string[], gmail: boolean): Listed[] {
  const all = listed.some(({ specialUse }) => specialUse === "\\All");
  return listed.filter(({ path, specialUse }) => {
    if (gmail && all && !["\\All", "\\Junk", "\\Trash"].includes(specialUse ?? "")) return false;
    if (!gmail && specialUse !== null && VIEWS.has(specialUse)) return false;
    return !exclude.some((what) =>
      what.startsWith("\\") ? what.toLowerCase() === specialUse?.toLowerCase() : matches(path, what)
    );
  });
}

/** Whether a name matches a pattern, in which `*` stands for anything. */
export function matches(name: string, pattern: string): boolean {
  const [first, ...others] = pattern.split("*");
  const last = others.pop();
  if (last === undefined) return name === pattern;
  if (!name.startsWith(first) || name.length < first.length + last.length || !name.endsWith(last)) {
    return false;
  }
  let at = first.length;
  const end = name.length - last.length;
  for (const piece of others) {
    const found = name.indexOf(piece, at);
    if (found === -1 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return at <= end;
}

function isGmail(client: ImapFlow): boolean {
  return client.capabilities.has("X-GM-EXT-1");
}

/** A name as the server will open it: INBOX is one however it is spelled, others stand below the account's prefix. */
function canonical(client: ImapFlow, name: string): string {
  if (name.toUpperCase() === "INBOX") return "INBOX";
  const prefix = (client.namespace && client.namespace.prefix) || "";
  return name.startsWith(prefix) ? name : prefix + name;
}
