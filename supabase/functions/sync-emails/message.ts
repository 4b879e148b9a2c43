/** One message turned into a row of `synced_emails`. */

import { storableText } from "../_shared/json.ts";
import { type NamedAddress, readAddresses } from "./addresses.ts";
import { parseDate } from "./dates.ts";
import { Headers } from "./headers.ts";
import { htmlToText } from "./html.ts";
import type { TextPart } from "./mime.ts";

/** A row, its fields named like the columns; an object of `save_synced_emails`. */
export interface EmailRow {
  uid: number;
  message_id: string | null;
  in_reply_to: string | null;
  subject: string | null;
  from_addresses: NamedAddress[];
  to_addresses: NamedAddress[];
  cc_addresses: NamedAddress[];
  bcc_addresses: NamedAddress[];
  reply_to_addresses: NamedAddress[];
  sent_at: string | null;
  received_at: string | null;
  size: number | null;
  flags: string[];
  email_id: string | null;
  thread_id: string | null;
  labels: string[] | null;
  preview: string | null;
  body_text: string | null;
  body_html: string | null;
  parse_error: string | null;
}

/** What a server says of a message beside its content. */
export interface Envelope {
  uid: number;
  flags?: Set<string> | undefined;
  size?: number | undefined;
  internalDate?: Date | string | undefined;
  /** What some servers know: the message's own id, its conversation's, and Gmail's labels. */
  emailId?: string | undefined;
  threadId?: string | undefined;
  labels?: Set<string> | undefined;
}

/** A part's decoded text. */
export interface Text {
  type: TextPart["type"];
  text: string;
  /** Whether it is all of the part. */
  whole: boolean;
}

const MAX_PREVIEW = 200;
/** HTML may begin with kilobytes of styles; of more than this no preview is made. */
const MAX_HTML_FOR_PREVIEW = 256 * 1024;
const MAX_TEXT_FOR_PREVIEW = 64 * 1024;
/** Of most texts so much is enough. */
const TEXT_FOR_MOST_PREVIEWS = 512;
/** Longer header values are cut, and said to be: no honest one comes near. */
const MAX_HEADER = 2000;

/** Characters that senders put after a preview's text so that nothing else is shown. */
const FILLERS = /[\u00AD\u034F\u115F\u1160\u17B4\u17B5\u180E\u200B\u2060-\u2064\u3164\uFEFF\uFFA0]/g;
/** White space that is not one space already, as most is. */
const SPACES = / \s+|[^\S ]\s*/g;
/** Joiners and direction marks mean something within a word, and nothing beside white space. */
const JOINERS = /[\u200C-\u200F\u202A-\u202E]+/g;
/** Text that has no such characters. */
const PLAIN = /^[\t-\r\x20-\x7e]*$/;

/** A row of which nothing but the envelope is known. */
export function emptyRow(envelope: Envelope): EmailRow {
  const { internalDate } = envelope;
  const received = internalDate === undefined ? Number.NaN : new Date(internalDate).getTime();
  return {
    uid: envelope.uid,
    message_id: null,
    in_reply_to: null,
    subject: null,
    from_addresses: [],
    to_addresses: [],
    cc_addresses: [],
    bcc_addresses: [],
    reply_to_addresses: [],
    sent_at: null,
    received_at: inRange(received) ? new Date(received).toISOString() : null,
    size: envelope.size ?? null,
    flags: storedFlags(envelope.flags),
    email_id: envelope.emailId || null,
    thread_id: envelope.threadId || null,
    labels: envelope.labels ? [...envelope.labels].map(storableText).sort() : null,
    preview: null,
    body_text: null,
    body_html: null,
    parse_error: null,
  };
}

/** Flags as they are stored: \Recent is the session's, not the message's. */
export function storedFlags(flags: Iterable<string> | undefined): string[] {
  return [...flags ?? []].filter((flag) => flag.toLowerCase() !== "\\recent").map(storableText).sort();
}

/** Fills in what the header says; what cannot be read is said in `problems`. */
export function fillHeader(row: EmailRow, headers: Headers, problems: string[]): void {
  const text = (field: string) => {
    const value = headers.text(field, problems);
    if (value === null) return null;
    if (value.length > MAX_HEADER) {
      problems.push(`${field} has ${value.length} characters, ${MAX_HEADER} are stored`);
    }
    return cut(storableText(value).trim(), MAX_HEADER);
  };
  row.message_id = text("message-id");
  row.in_reply_to = text("in-reply-to");
  row.subject = text("subject");
  row.from_addresses = readAddresses(headers, "from", problems);
  if (row.from_addresses.length === 0) row.from_addresses = readAddresses(headers, "sender", problems);
  row.to_addresses = readAddresses(headers, "to", problems);
  row.cc_addresses = readAddresses(headers, "cc", problems);
  row.bcc_addresses = readAddresses(headers, "bcc", problems);
  row.reply_to_addresses = readAddresses(headers, "reply-to", problems);
  const date = headers.raw("date");
  row.sent_at = date ? parseDate(date) : null;
  if (date && row.sent_at === null) problems.push(`the header Date is no date: ${date.slice(0, 100)}`);
}

/** The beginning of the text in one line, and whether more content would change it. */
export function previewOf(texts: Text[]): { preview: string | null; settled: boolean } {
  const plain = texts.find(({ type, text, whole }) => type === "plain" && (text.trim() !== "" || !whole));
  const chosen = plain ?? texts.find(({ type }) => type === "html");
  if (chosen === undefined) return { preview: null, settled: false };
  const readable = chosen.type === "plain"
    ? chosen.text
    : htmlToText(chosen.text.slice(0, MAX_HTML_FOR_PREVIEW));
  const line = inOneLine(readable);
  return { preview: cut(line, MAX_PREVIEW) || null, settled: chosen.whole || line.length >= MAX_PREVIEW };
}

/** Says in the row what could not be read. */
export function sayProblems(row: EmailRow, problems: string[]): void {
  if (problems.length > 0) row.parse_error = cut(storableText(problems.join("; ")), 500);
}

/** The text's beginning in one line; of what is mostly fillers and white space more is looked at. */
function inOneLine(text: string): string {
  for (let length = TEXT_FOR_MOST_PREVIEWS;; length *= 8) {
    const line = readableLine(text.slice(0, Math.min(length, MAX_TEXT_FOR_PREVIEW)));
    // Twice as much, so that where it is cut is not seen.
    if (length >= text.length || length >= MAX_TEXT_FOR_PREVIEW || line.length >= 2 * MAX_PREVIEW) {
      return line;
    }
  }
}

function readableLine(text: string): string {
  if (PLAIN.test(text)) return text.replace(SPACES, " ").trim();
  const plain = storableText(text).replace(FILLERS, "").replace(SPACES, " ");
  const kept = plain.replace(JOINERS, (run, at: number) => {
    const beside = (plain[at - 1] ?? " ") === " " || (plain[at + run.length] ?? " ") === " ";
    return beside ? "" : run;
  });
  return kept.replace(/ {2,}/g, " ").trim();
}

function inRange(time: number): boolean {
  const year = new Date(time).getUTCFullYear();
  return year >= 1 && year <= 9999;
}

/** Cuts without leaving half of a character. */
function cut(text: string, length: number): string {
  return text.length <= length ? text : storableText(text.slice(0, length)).replace(/\uFFFD$/, "");
}
