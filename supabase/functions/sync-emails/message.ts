/** One message as the server sent it, turned into a row of `synced_emails`. */

import PostalMime, { type Address, type Email } from "postal-mime";
import { storableText } from "../_shared/json.ts";
import { messageOf } from "../_shared/log.ts";
import { htmlToText } from "./html.ts";

/** What of a fetched message is used. */
export interface FetchedMessage {
  uid: number;
  flags?: Set<string> | undefined;
  size?: number | undefined;
  internalDate?: Date | string | undefined;
  /** The message's beginning, up to the limit it was fetched with. */
  source?: Uint8Array | undefined;
}

interface NamedAddress {
  name: string;
  address: string;
}

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
  preview: string | null;
  body_text: string | null;
  body_html: string | null;
  parse_error: string | null;
}

const MAX_PREVIEW = 200;
/** Longer header values are cut: no honest one comes near. */
const MAX_HEADER = 2000;
const MAX_ADDRESSES = 1000;

/** Turns a message into its row. Never throws: what cannot be read is said in `parse_error`, the rest is kept. */
export async function toRow(message: FetchedMessage, options: { body: boolean }): Promise<EmailRow> {
  const row: EmailRow = {
    uid: message.uid,
    message_id: null,
    in_reply_to: null,
    subject: null,
    from_addresses: [],
    to_addresses: [],
    cc_addresses: [],
    bcc_addresses: [],
    reply_to_addresses: [],
    sent_at: null,
    received_at: timestamp(message.internalDate),
    size: message.size ?? message.source?.byteLength ?? null,
    flags: [...message.flags ?? []].map(storableText).sort(),
    preview: null,
    body_text: null,
    body_html: null,
    parse_error: null,
  };
  const problems: string[] = [];
  if (message.source === undefined) problems.push("the server did not send its content");
  else {
    try {
      const email = await PostalMime.parse(message.source, { attachmentEncoding: "arraybuffer" });
      fill(row, email, options.body, problems);
      const missing = (message.size ?? 0) - message.source.byteLength;
      if (options.body && missing > 0) {
        problems.push(`only the first ${message.source.byteLength} bytes were read`);
      }
    } catch (error) {
      problems.push(messageOf(error));
    }
  }
  if (problems.length > 0) row.parse_error = storableText(problems.join("; ")).slice(0, 500);
  return row;
}

function fill(row: EmailRow, email: Email, body: boolean, problems: string[]): void {
  row.message_id = header(email.messageId);
  row.in_reply_to = header(email.inReplyTo);
  row.subject = header(email.subject);
  row.from_addresses = addresses(email.from ?? email.sender);
  row.to_addresses = addresses(email.to);
  row.cc_addresses = addresses(email.cc);
  row.bcc_addresses = addresses(email.bcc);
  row.reply_to_addresses = addresses(email.replyTo);
  row.sent_at = timestamp(email.date);
  if (email.date && row.sent_at === null) {
    problems.push(`the header Date is no date: ${email.date.slice(0, 100)}`);
  }
  const text = email.text?.trim() ? email.text : htmlToText(email.html ?? "");
  row.preview = cut(storableText(text.slice(0, 20 * MAX_PREVIEW)).replace(/\s+/g, " ").trim(), MAX_PREVIEW) ||
    null;
  if (body) {
    row.body_text = storableText(email.text ?? "");
    row.body_html = email.html === undefined ? null : storableText(email.html);
  }
}

/** Its members stand for a group. */
function addresses(given: Address | Address[] | undefined): NamedAddress[] {
  const found: NamedAddress[] = [];
  for (const item of given === undefined ? [] : Array.isArray(given) ? given : [given]) {
    if (item.group) found.push(...addresses(item.group));
    else if (item.name || item.address) {
      found.push({ name: header(item.name) ?? "", address: header(item.address) ?? "" });
    }
  }
  return found.slice(0, MAX_ADDRESSES);
}

function header(value: string | undefined): string | null {
  return value === undefined ? null : cut(storableText(value), MAX_HEADER);
}

/** Cuts without leaving half of a character. */
function cut(text: string, length: number): string {
  return text.length <= length ? text : storableText(text.slice(0, length)).replace(/\uFFFD$/, "");
}

/** ISO 8601 that PostgreSQL reads, or null. Beyond the year 9999 JavaScript writes years that it does not. */
function timestamp(value: Date | string | undefined): string | null {
  if (value === undefined) return null;
  const date = new Date(value);
  const year = date.getUTCFullYear();
  return year >= 1 && year <= 9999 ? date.toISOString() : null;
}
