/**
 * What a handler's answer means for its chunk.
 *
 * | answer | outcome |
 * |---|---|
 * | 200 with `{result?, items_processed?, items_total?, next_chunks?, next_state?}` | completed |
 * | 200 with `{continue: true, checkpoint?, items_processed?}` | given back, to go on from its checkpoint at once |
 * | 204 | completed, without a result |
 * | 200 with other JSON, an unknown field, a wrong type, or what `jsonb` refuses | failed for good: a bug, not a mishap |
 * | 200 with more than {@link MAX_ANSWER_BYTES} | failed for good |
 * | 200 that is empty, cut off, or not JSON (a proxy's page) | retry |
 * | 429 | throttled: given back without an attempt, its limit key blocked until Retry-After, else for {@link THROTTLED_SECONDS} |
 * | 408, 425, 5xx, 3xx, any other 2xx (202: accepted is not done) | retry; with Retry-After not before (503) |
 * | any other 4xx | failed for good |
 * | no answer: refused, reset, DNS, timeout | retry |
 *
 * 5xx and no answer at all say more about the handler than about the chunk: `handler_down`.
 */

import { isJsonObject, parseJson, storableText, whyNotCount, whyNotStorable } from "../_shared/json.ts";
import { messageOf } from "../_shared/log.ts";

/** Arguments of `complete_chunk_job_safe` that an answer decides. */
export interface Report {
  success: boolean;
  result?: unknown;
  error?: string;
  retryable?: boolean;
  retry_after_seconds?: number;
  /** What the handler works on asked for a pause. */
  throttled_seconds?: number;
  next_chunks?: unknown[] | null;
  items_processed?: number | null;
  items_total?: number | null;
  next_state?: Record<string, unknown> | null;
  /** The failure is the handler's, not the chunk's. */
  handler_down?: boolean;
}

/** A report of a chunk that did not succeed. */
export type Failure = Report & { error: string };

/** Arguments of `release_chunk_job` that an answer decides: the chunk goes on in another invocation. */
export interface Continuation {
  /** Where; null: at what the handler has saved last. */
  checkpoint: Record<string, unknown> | null;
  items_processed: number | null;
}

/** What becomes of a chunk by its handler's answer. */
export type Outcome = Report | Continuation;

/** Whether the chunk has not ended. */
export function continues(outcome: Outcome): outcome is Continuation {
  return "checkpoint" in outcome;
}

/** Whether the attempt did not succeed. */
export function isFailure(outcome: Outcome): outcome is Failure {
  return !continues(outcome) && !outcome.success;
}

/** A larger answer is refused unread: results of that size belong in a table of the handler's own. */
export const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

/** Enough of an unsuccessful answer to say what is wrong. */
const MAX_ERROR_BYTES = 8 * 1024;
const MAX_ERROR_TEXT = 300;
/** A week, as the database has it: a longer Retry-After counts as that. */
const MAX_RETRY_AFTER_SECONDS = 604_800;

/** How long a 429 without Retry-After, or with one that cannot be read, asks for. */
export const THROTTLED_SECONDS = 30;

/** 4xx that may go away by itself. */
const TEMPORARY_4XX = new Set([408, 425, 429]);
const REPORT_FIELDS = ["result", "items_processed", "items_total", "next_chunks", "next_state"];
const CONTINUATION_FIELDS = ["continue", "checkpoint", "items_processed"];

/** Reads a handler's answer, never more of it than is needed, and decides. */
export async function readAnswer(handler: string, response: Response): Promise<Outcome> {
  if (response.status === 204) return { success: true };
  const limit = response.status === 200 ? MAX_ANSWER_BYTES : MAX_ERROR_BYTES;
  let body: { text: string; complete: boolean };
  try {
    body = await readText(response, limit);
  } catch (error) {
    return failure(`${handler} answered ${response.status}, then broke off: ${messageOf(error)}`, true);
  }
  if (response.status === 200) {
    if (body.complete) return readResult(handler, body.text);
    return failure(`${handler} answered with more than ${MAX_ANSWER_BYTES / 1024 / 1024} MiB`, false);
  }
  const { status } = response;
  const said = summary(body.text);
  const report = failure(`${handler} answered ${status}${said && `: ${said}`}`, true);
  report.retryable = status < 400 || status >= 500 || TEMPORARY_4XX.has(status);
  if (status >= 500) report.handler_down = true;
  const seconds = retryAfterSeconds(response.headers);
  if (status === 429) report.throttled_seconds = seconds ?? THROTTLED_SECONDS;
  if (status === 503 && seconds !== null) report.retry_after_seconds = seconds;
  return report;
}

/** A report of a chunk whose handler nobody could reach. */
export function unreachable(error: string): Failure {
  return { ...failure(error, true), handler_down: true };
}

/** A report of a chunk that did not succeed. */
export function failure(error: string, retryable: boolean): Failure {
  return { success: false, error: storableText(error), retryable };
}

function readResult(handler: string, text: string): Outcome {
  let answer: unknown;
  try {
    answer = parseJson(text, { exactDecimals: true });
  } catch (error) {
    // Too deep for the parser is the handler's doing; anything else may be half of a good answer.
    if (error instanceof RangeError) {
      return failure(`${handler} answered 200 with JSON nested too deeply`, false);
    }
    const said = summary(text);
    return failure(`${handler} answered 200 without JSON${said ? `: ${said}` : ": an empty body"}`, true);
  }
  const refuse = (why: string) => failure(`${handler} answered 200, but ${why}`, false);
  if (!isJsonObject(answer)) {
    return refuse("the body is not an object {result, items_processed, next_chunks}");
  }
  const flaw = flawOf(answer);
  if (flaw !== null) return refuse(flaw);
  const { result, items_processed = null, items_total = null, next_chunks = null, next_state = null } =
    answer;
  if (answer.continue === true) {
    return { checkpoint: answer.checkpoint ?? null, items_processed } as Continuation;
  }
  return { success: true, result, items_processed, items_total, next_chunks, next_state } as Report;
}

/** What is wrong with an answer, null: nothing. A field that is null counts as left out. */
function flawOf(answer: Record<string, unknown>): string | null {
  const goesOn = answer.continue === true;
  for (const [field, value] of Object.entries(answer)) {
    const isOfReport = REPORT_FIELDS.includes(field);
    const isOfContinuation = CONTINUATION_FIELDS.includes(field);
    if (!isOfReport && !isOfContinuation) {
      return `the field ${JSON.stringify(field.slice(0, 100))} is unknown`;
    }
    if (value === null) continue;
    const flaw = flawOfField(field, value);
    if (flaw !== null) return flaw;
    if (goesOn && !isOfContinuation) return `${field} does not go with continue: true`;
    if (!goesOn && field === "checkpoint") return "checkpoint goes with continue: true only";
  }
  return null;
}

function flawOfField(field: string, value: unknown): string | null {
  switch (field) {
    case "continue":
      return typeof value === "boolean" ? null : "continue is neither true nor false";
    case "items_processed":
    case "items_total":
      return whyNotCount(value, field);
    case "next_chunks":
      if (!Array.isArray(value) || !value.every(isJsonObject)) return "next_chunks is not a list of objects";
      break;
    case "checkpoint":
    case "next_state":
      if (!isJsonObject(value)) return `${field} is not an object`;
  }
  return whyNotStorable(value, field);
}

/** Reads at most `limit` bytes; the rest is never fetched. */
async function readText(response: Response, limit: number): Promise<{ text: string; complete: boolean }> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.byteLength;
    const over = bytes - limit;
    text += decoder.decode(over > 0 ? part.subarray(0, part.byteLength - over) : part, { stream: true });
    if (over > 0) return { text, complete: false };
  }
  return { text: text + decoder.decode(), complete: true };
}

/** What a person wants to read of an error body: its message, without markup, in one line. */
function summary(text: string): string {
  let said = text;
  try {
    const body = JSON.parse(text);
    const message = body?.error?.message ?? body?.error ?? body?.message ?? body?.msg;
    if (typeof message === "string") said = message;
  } catch {
    if (/^\s*</.test(text)) said = withoutMarkup(text);
  }
  const line = said.replace(/\s+/g, " ").trim();
  return line.length > MAX_ERROR_TEXT ? `${line.slice(0, MAX_ERROR_TEXT)}…` : line;
}

function withoutMarkup(html: string): string {
  return html.replace(/<(script|style)\b[^]*?<\/\1\s*>/gi, " ").replace(/<[^>]*>?/g, " ");
}

/** Retry-After as whole seconds from now; a date is measured against the answer's own clock. */
function retryAfterSeconds(headers: Headers): number | null {
  const value = headers.get("retry-after")?.trim();
  if (!value) return null;
  let seconds = /^\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isNaN(seconds)) {
    const now = Date.parse(headers.get("date") ?? "") || Date.now();
    seconds = (Date.parse(value) - now) / 1000;
  }
  if (!Number.isFinite(seconds)) return null;
  return Math.min(Math.max(Math.ceil(seconds), 0), MAX_RETRY_AFTER_SECONDS);
}
