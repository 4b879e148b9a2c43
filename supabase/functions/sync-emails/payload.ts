/** What a chunk of kind `email` asks for, read from its payload and its job's. */

import { type Chunk, PermanentFailure } from "../_shared/serve.ts";

/** What both sorts of chunk say. */
interface Common {
  account: string;
  folder: string;
  /** Whether the bodies are stored too. */
  body: boolean;
  /** Messages a chunk. */
  batchSize: number;
}

/** Several folders: each gets a planning chunk of its own, so that one that is missing does not stop the others. */
export interface Fan extends Omit<Common, "folder"> {
  task: "fan";
  folders: string[] | "all";
  /** Of all folders not these: special uses (`\\Junk`) and patterns of names (`Old/*`). */
  exclude: string[];
  full: boolean;
}

/** List a folder's UIDs and plan the chunks that fetch what is not stored yet. */
export interface Plan extends Common {
  task: "plan";
  /** Also note changed flags and deletions. */
  full: boolean;
}

/** Fetch and store the messages of a range of UIDs, or only their flags. */
export interface Range extends Common {
  task: "messages" | "flags";
  from: number;
  to: number;
  /** How many messages were in the range when it was planned; null: unknown. */
  expected: number | null;
  /** Whether messages may have moved here, whose rows can be taken over. */
  adopt: boolean;
  /** The generation of UIDs that the range was planned for; null: whatever the folder has. */
  uidvalidity: number | null;
}

export type Task = Fan | Plan | Range;

const DEFAULT_BATCH_SIZE = 100;
const MAX_BATCH_SIZE = 1000;
const MAX_EXCLUDED = 100;
const SPECIAL_USES = [
  "\\All",
  "\\Archive",
  "\\Drafts",
  "\\Flagged",
  "\\Important",
  "\\Junk",
  "\\Sent",
  "\\Trash",
];

/**
 * Reads a chunk's task: `{account, folder | folders, exclude, full, batch_size, body}` plans, and with `from` and `to` fetches.
 *
 * @throws PermanentFailure naming the field that makes no sense.
 */
export function readTask(chunk: Chunk): Task {
  const fields = { ...chunk.job_payload, ...chunk.payload } as Record<string, unknown>;
  const { account, folder = "INBOX", folders, full = false, body = false, flags_only = false } = fields;
  if (!isText(account)) throw new PermanentFailure('the payload names no account: {"account": "…"}');
  if ("offset" in fields && "limit" in fields) {
    throw new PermanentFailure(
      "an email sync plans its own chunks: start it without total_items and chunk_size",
    );
  }
  const batchSize = wholeNumber(fields, "batch_size", 1, MAX_BATCH_SIZE) ?? DEFAULT_BATCH_SIZE;
  const common = { account, body: flag("body", body), batchSize };
  // A folder in the chunk's own payload is one of those that the job's payload lists.
  const own = (chunk.payload ?? {}) as Record<string, unknown>;
  if (folders !== undefined && own.folder === undefined) {
    const isList = Array.isArray(folders) && folders.length > 0 && folders.every(isText);
    if (!isList && folders !== "all") {
      throw new PermanentFailure('folders is neither a list of names nor "all"');
    }
    const named = folders === "all" ? folders : [...new Set(folders as string[])];
    const exclude = readExclude(fields.exclude, folders === "all");
    return { task: "fan", folders: named, exclude, full: flag("full", full), ...common };
  }
  if (!isText(folder)) throw new PermanentFailure("folder is not a name");
  const from = wholeNumber(fields, "from", 1, 2 ** 32 - 1);
  const to = wholeNumber(fields, "to", 1, 2 ** 32 - 1);
  if (from === null && to === null) return { task: "plan", folder, full: flag("full", full), ...common };
  if (from === null || to === null || from > to) {
    throw new PermanentFailure("from and to are not a range of UIDs");
  }
  const uidvalidity = wholeNumber(fields, "uidvalidity", 0, Number.MAX_SAFE_INTEGER);
  const expected = wholeNumber(fields, "count", 0, 2 ** 32 - 1);
  const task = flag("flags_only", flags_only) ? "flags" : "messages";
  const adopt = flag("adopt", fields.adopt ?? false);
  return { task, folder, from, to, expected, adopt, uidvalidity, ...common };
}

function readExclude(exclude: unknown, all: boolean): string[] {
  if (exclude === undefined) return [];
  if (!all) throw new PermanentFailure('exclude goes with "folders": "all" only');
  if (!Array.isArray(exclude) || exclude.length > MAX_EXCLUDED || !exclude.every(isText)) {
    throw new PermanentFailure(`exclude is not a list of at most ${MAX_EXCLUDED} special uses and patterns`);
  }
  const known = SPECIAL_USES.map((use) => use.toLowerCase());
  const unknown = exclude.find((what) => what.startsWith("\\") && !known.includes(what.toLowerCase()));
  if (unknown === undefined) return exclude;
  throw new PermanentFailure(
    `exclude names no special use: ${unknown}; there are ${SPECIAL_USES.join(", ")}`,
  );
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "" && value.length <= 1000;
}

function flag(name: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new PermanentFailure(`${name} is neither true nor false`);
  return value;
}

function wholeNumber(
  fields: Record<string, unknown>,
  name: string,
  least: number,
  most: number,
): number | null {
  const value = fields[name] ?? null;
  if (value === null) return null;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= least && value <= most) {
    return value;
  }
  throw new PermanentFailure(`${name} is not a whole number from ${least} to ${most}`);
}
