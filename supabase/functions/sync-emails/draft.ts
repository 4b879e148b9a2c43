/** A message of which not all is fetched yet: what is known of it, and what it still needs. */

import type { MessageStructureObject } from "imapflow";
import { storableText } from "../_shared/json.ts";
import { Headers } from "./headers.ts";
import {
  type EmailRow,
  emptyRow,
  type Envelope,
  fillHeader,
  previewOf,
  sayProblems,
  type Text,
} from "./message.ts";
import { type DescribedPart, describedParts, findParts, textOf } from "./mime.ts";
import { giveBack } from "./reading.ts";

/** Parts of a body that are fetched, and their bytes together; a message for people has two parts. */
const MAX_BODY_PARTS = 20;
const MAX_BODY_BYTES = 2 * 1024 * 1024;

export class Draft {
  readonly problems: string[] = [];
  /** The header is longer than what was fetched of it. */
  needsHeader = false;
  /** The beginning of the body does not tell all that is wanted. */
  needsStructure = false;
  #headerProblems: string[] = [];
  #start: { bytes: Uint8Array | undefined; limit: number } | null = null;
  #headers: Headers | null = null;
  #charset: string | null = null;
  #texts: Text[] = [];
  #parts: DescribedPart[] = [];
  readonly uid: number;
  #row: EmailRow;

  constructor(envelope: Envelope, private readonly body: boolean) {
    this.uid = envelope.uid;
    this.#row = emptyRow(envelope);
  }

  /** The part to fetch next, `size` bytes of it. */
  get wants(): DescribedPart | null {
    return this.#parts[0] ?? null;
  }

  get isDone(): boolean {
    return !this.needsHeader && !this.needsStructure && this.wants === null;
  }

  /** Reads the header; as much as `limit` means that there is more. */
  readHeader(bytes: Uint8Array | undefined, limit: number): void {
    const before = this.needsHeader;
    this.needsHeader = false;
    this.#headerProblems = [];
    if (bytes === undefined) return void this.#headerProblems.push("the server did not send its header");
    this.#headers = new Headers(bytes);
    if (bytes.length >= limit) {
      this.#headerProblems.push(`only the first ${bytes.length} bytes of the header were read`);
      this.needsHeader = !before;
    }
    if (before) this.#readStartNow();
  }

  /** Makes do with what was read of the header. */
  settleHeader(): void {
    this.needsHeader = false;
    this.#readStartNow();
  }

  /** Reads the beginning of the body; fewer bytes than `limit` are all of it. */
  readStart(bytes: Uint8Array | undefined, limit: number): void {
    this.#start = { bytes, limit };
    // What the body is stands in the header, perhaps in the part that is to come.
    if (!this.needsHeader) this.#readStartNow();
  }

  #readStartNow(): void {
    if (this.#start === null) return;
    const { bytes, limit } = this.#start;
    this.#start = null;
    if (bytes === undefined || this.#headers === null) {
      this.problems.push("the server did not send its content");
      return;
    }
    const whole = bytes.length < limit;
    const parts = findParts(this.#headers, bytes, whole, this.problems);
    this.#charset = parts.find(({ charset }) => charset !== null)?.charset ?? null;
    const chosen = this.body ? parts : firstOfEach(parts);
    for (const part of chosen) {
      this.#texts.push({
        type: part.type,
        text: textOf(part, part.content, this.problems),
        whole: part.whole,
      });
    }
    const { preview, settled } = previewOf(this.#texts);
    this.needsStructure = !whole && (this.body || !settled);
    if (!this.needsStructure) this.#makeTexts(preview);
  }

  /** Chooses the parts that have what is wanted; at most `limit` bytes of each will be fetched. */
  readStructure(structure: MessageStructureObject, limit: number): void {
    this.needsStructure = false;
    const described = describedParts(structure).filter(({ size }) => size > 0);
    let bytes = 0;
    const fits = ({ size }: DescribedPart, at: number) =>
      at < MAX_BODY_PARTS && (bytes += Math.min(size, limit)) <= MAX_BODY_BYTES;
    const parts = this.body ? described.filter(fits) : firstOfEach(described);
    if (this.body && described.length > parts.length) {
      this.problems.push(`it has ${described.length} parts of text, ${parts.length} are stored`);
    }
    if (parts.length === 0) return this.#makeTexts();
    this.#texts = [];
    this.#parts = parts.map((part) => ({ ...part, size: Math.min(part.size, limit) }));
  }

  /** Reads the part that was wanted. */
  readPart(bytes: Uint8Array | undefined, limit: number): void {
    const part = this.#parts.shift()!;
    if (bytes === undefined) return this.#partDone();
    const whole = bytes.length < limit;
    if (this.body && !whole) this.problems.push(`only the first ${bytes.length} bytes of a part were read`);
    this.#texts.push({ type: part.type, text: textOf(part, bytes, this.problems), whole });
    giveBack(bytes);
    this.#partDone();
  }

  /** Goes on without the part that was wanted. */
  skipPart(why: string): void {
    this.#parts.shift();
    this.problems.push(why);
    this.#partDone();
  }

  /** Makes do with the beginning of the body. */
  settle(why: string): void {
    this.needsStructure = false;
    this.problems.push(why);
    this.#makeTexts();
  }

  /** Gives the row away, as far as the message is known: others of the range may be in work for long. */
  giveRow(): EmailRow {
    if (this.#headers !== null) {
      const problems: string[] = [];
      this.#headers.decodeRaw(this.#charset, problems);
      fillHeader(this.#row, this.#headers, problems);
      this.#headerProblems.push(...problems);
    }
    const row = this.#row;
    sayProblems(row, [...this.#headerProblems, ...this.problems]);
    this.#row = emptyRow({ uid: this.uid });
    this.#headers = null;
    return row;
  }

  #partDone(): void {
    // The second kind of text is only for a message whose first says nothing.
    const { preview } = previewOf(this.#texts);
    if (!this.body && preview !== null) this.#parts = [];
    if (this.#parts.length === 0) this.#makeTexts(preview);
  }

  #makeTexts(preview = previewOf(this.#texts).preview): void {
    this.#row.preview = preview;
    if (this.body) {
      const of = (type: Text["type"]) =>
        this.#texts.filter((text) => text.type === type).map(({ text }) => text);
      const html = of("html");
      this.#row.body_text = storableText(of("plain").join("\n"));
      this.#row.body_html = html.length === 0 ? null : storableText(html.join("\n"));
    }
    this.#texts = [];
  }
}

/** The first plain text and the first HTML. */
function firstOfEach<Part extends { type: Text["type"] }>(parts: Part[]): Part[] {
  const first = (type: Text["type"]) => parts.find((part) => part.type === type);
  return [first("plain"), first("html")].filter((part) => part !== undefined);
}
