/** The readable parts of a message: found in its beginning, or in the structure that the server describes. */

import { Buffer } from "node:buffer";
import type { MessageStructureObject } from "imapflow";
import { decode } from "./charsets.ts";
import { Headers } from "./headers.ts";

/** A part with text. */
export interface TextPart {
  type: "plain" | "html";
  charset: string | null;
  encoding: string;
}

/** A part with its content, as it was sent. */
export interface FoundPart extends TextPart {
  content: Uint8Array;
  /** Whether the content is all there. */
  whole: boolean;
}

/** A part that the server describes. */
export interface DescribedPart extends TextPart {
  /** Its number in the message, such as `1.2`. */
  number: string;
  /** Bytes as it is sent. */
  size: number;
}

/** Deeper is no message for people. */
const MAX_DEPTH = 30;
const MAX_PARTS = 100;

/**
 * The text parts in the beginning of a message's body, in their order; attachments are none.
 *
 * @param whole whether the body is all there.
 * @param problems is told of parts that are not looked at.
 */
export function findParts(
  headers: Headers,
  body: Uint8Array,
  whole: boolean,
  problems: string[],
): FoundPart[] {
  const found: FoundPart[] = [];
  let looked = 0;
  const walk = (headers: Headers, content: Uint8Array, whole: boolean, depth: number): void => {
    looked += 1;
    if (depth > MAX_DEPTH || looked > MAX_PARTS) {
      const why = depth > MAX_DEPTH ? `nested deeper than ${MAX_DEPTH} levels` : `more than ${MAX_PARTS}`;
      const problem = `its parts are ${why}: not all were read`;
      if (!problems.includes(problem)) problems.push(problem);
      return;
    }
    const { value: type, parameters } = headers.parametered("content-type");
    const boundary = parameters.get("boundary");
    if (type.startsWith("multipart/") && boundary) {
      for (const part of split(content, boundary, whole)) {
        const cut = headerEnd(part.content);
        walk(
          new Headers(part.content.subarray(0, cut)),
          part.content.subarray(cut),
          part.whole,
          depth + 1,
        );
      }
      return;
    }
    const disposition = headers.parametered("content-disposition").value;
    const kind = textKind(type, disposition);
    if (kind === null) return;
    const encoding = (headers.raw("content-transfer-encoding") ?? "").toLowerCase();
    found.push({ type: kind, charset: parameters.get("charset") ?? null, encoding, content, whole });
  };
  walk(headers, body, whole, 0);
  return found;
}

/** The text parts that the server describes, in their order; attachments are none. */
export function describedParts(structure: MessageStructureObject): DescribedPart[] {
  const found: DescribedPart[] = [];
  const walk = (node: MessageStructureObject): void => {
    if (found.length >= MAX_PARTS) return;
    if (node.type?.startsWith("multipart/")) {
      for (const child of node.childNodes ?? []) walk(child);
      return;
    }
    const kind = textKind(node.type ?? "", node.disposition ?? "");
    if (kind === null) return;
    found.push({
      type: kind,
      charset: node.parameters?.charset ?? null,
      encoding: node.encoding ?? "",
      // The only part of a message that is no multipart has the number 1.
      number: node.part ?? "1",
      size: node.size ?? 0,
    });
  };
  walk(structure);
  return found;
}

/** The text of a part; `problems` is told when its charset is unknown. */
export function textOf(part: TextPart, content: Uint8Array, problems: string[]): string {
  const bytes = decodeTransfer(content, part.encoding);
  const text = decode(bytes, part.charset);
  if (text !== null) return text;
  const problem = `the text is in the unknown charset ${part.charset?.slice(0, 40)}`;
  if (!problems.includes(problem)) problems.push(problem);
  return new TextDecoder().decode(bytes);
}

/** Where the body begins behind a header: after its empty line. */
export function headerEnd(bytes: Uint8Array): number {
  if (bytes[0] === 10) return 1;
  if (bytes[0] === 13 && bytes[1] === 10) return 2;
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) {
    if (bytes[at + 1] === 10) return at + 2;
    if (bytes[at + 1] === 13 && bytes[at + 2] === 10) return at + 3;
  }
  return bytes.length;
}

function textKind(type: string, disposition: string): "plain" | "html" | null {
  if (disposition === "attachment") return null;
  if (type === "text/html") return "html";
  // Without a type a part is plain text, and so is what some write instead of one.
  return type === "text/plain" || type === "text" || type === "" ? "plain" : null;
}

/** The parts between the boundary's lines; the last is whole only if a line ends it. */
function split(
  content: Uint8Array,
  boundary: string,
  whole: boolean,
): { content: Uint8Array; whole: boolean }[] {
  // As a string, in which to search is several times as fast; each character is a byte.
  const text = asBuffer(content).toString("latin1");
  const marker = Buffer.from(`--${boundary}`).toString("latin1");
  const parts: { content: Uint8Array; whole: boolean }[] = [];
  let begin = -1;
  for (let at = text.indexOf(marker); at !== -1; at = text.indexOf(marker, at + marker.length)) {
    if (at > 0 && text[at - 1] !== "\n") continue;
    const rest = at + marker.length;
    const closes = text.startsWith("--", rest);
    // "--b10" is not a line of the boundary "b1".
    if (!closes && !/^[ \t]*(\r?\n|$)/.test(text.slice(rest, rest + 200))) continue;
    if (begin !== -1) {
      parts.push({ content: content.subarray(begin, withoutNewline(content, at)), whole: true });
    }
    if (closes || parts.length >= MAX_PARTS) return parts;
    const line = text.indexOf("\n", rest);
    begin = line === -1 ? text.length : line + 1;
  }
  if (begin !== -1) parts.push({ content: content.subarray(begin), whole });
  return parts;
}

/** The line break before a boundary belongs to it. */
function withoutNewline(bytes: Uint8Array, at: number): number {
  if (bytes[at - 1] !== 10) return at;
  return bytes[at - 2] === 13 ? at - 2 : at - 1;
}

/** The same bytes, not a copy. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decodeTransfer(content: Uint8Array, encoding: string): Uint8Array {
  const name = encoding.trim().toLowerCase();
  if (name === "base64") return Buffer.from(asBuffer(content).toString("latin1"), "base64");
  if (name === "quoted-printable") return quotedPrintable(content);
  return content;
}

function quotedPrintable(content: Uint8Array): Uint8Array {
  const out = new Uint8Array(content.length);
  let length = 0;
  for (let at = 0; at < content.length; at++) {
    const byte = content[at];
    if (byte !== 61) {
      out[length++] = byte;
      continue;
    }
    const code = hex(content[at + 1]) * 16 + hex(content[at + 2]);
    if (code >= 0) {
      out[length++] = code;
      at += 2;
      continue;
    }
    // A soft line break may have white space before its end.
    let end = at + 1;
    while (content[end] === 32 || content[end] === 9) end += 1;
    if (content[end] === 13 && content[end + 1] === 10) at = end + 1;
    else if (content[end] === 10 || end >= content.length) at = end;
    else out[length++] = byte;
  }
  return out.subarray(0, length);
}

/** A digit's value; far below 0 when it is none. */
function hex(byte: number | undefined): number {
  if (byte === undefined) return -1000;
  if (byte >= 48 && byte <= 57) return byte - 48;
  const small = byte | 32;
  return small >= 97 && small <= 102 ? small - 87 : -1000;
}
