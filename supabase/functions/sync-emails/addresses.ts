/** Lists of addresses in a header, with what was once allowed in them: comments and folding in every place. */

import { type Address, addressParser, decodeWords } from "postal-mime";
import { storableText } from "../_shared/json.ts";
import type { Headers } from "./headers.ts";
import { inCommonCharsets } from "./headers.ts";

/** One address as it is stored; either may be empty. */
export interface NamedAddress {
  name: string;
  address: string;
}

/** More are cut, and said to be. */
const MAX_ADDRESSES = 1000;
const MAX_NAME = 2000;

/** The addresses of a field, a group's members in its place. */
export function readAddresses(headers: Headers, field: string, problems: string[]): NamedAddress[] {
  const raw = headers.raw(field);
  if (raw === null) return [];
  const text = inCommonCharsets(raw, field, problems);
  const found = readSimply(text) ?? readThoroughly(text);
  if (found.length > MAX_ADDRESSES) {
    problems.push(`${field} has ${found.length} addresses, ${MAX_ADDRESSES} are stored`);
  }
  return found.slice(0, MAX_ADDRESSES);
}

/** What most addresses look like: a name in words, or encoded, without anything that needs a parser. */
const SIMPLE_ADDRESS = (() => {
  const word = String.raw`(?:[\w'-]+|=\?[\w-]{1,40}\?[BbQq]\?[\w+/=*!-]*\?=)`;
  const address = String.raw`[\w+-]+(?:\.[\w+-]+)*@[A-Za-z0-9.-]+`;
  return new RegExp(`^\\s*(?:(${word}(?: ${word})*) <(${address})>|(${address}))\\s*$`);
})();

/** Reads a list in which all addresses are simple; null: some are not. */
function readSimply(raw: string): NamedAddress[] | null {
  const found: NamedAddress[] = [];
  for (const entry of raw.split(",")) {
    const match = SIMPLE_ADDRESS.exec(entry);
    if (match === null) return null;
    const [, name, address, bare] = match;
    const readable = clean(name?.includes("=?") ? decodeWords(name) : name);
    found.push({ name: readable === address ? "" : readable, address: address ?? bare });
  }
  return found;
}

function readThoroughly(raw: string): NamedAddress[] {
  const found: NamedAddress[] = [];
  for (const { text, comment } of split(raw)) {
    for (const address of flat(addressParser(text))) {
      const name = clean(address.name || comment);
      if (name !== "" || address.address !== "") found.push({ name, address: clean(address.address) });
    }
  }
  return found;
}

function flat(list: Address[]): { name: string; address: string }[] {
  return list.flatMap((item) => item.group ? item.group : [{ name: item.name, address: item.address ?? "" }]);
}

function clean(text: string | undefined): string {
  return storableText(text ?? "").replace(/\s+/g, " ").trim().slice(0, MAX_NAME).toWellFormed();
}

/**
 * The list's entries without comments, the last of which may be a name: `ann@example.com (Ann)`. Within angle brackets
 * and around dots and `@` white space goes, which was allowed there once.
 */
function split(raw: string): { text: string; comment: string }[] {
  const entries: { text: string; comment: string }[] = [];
  let text = "";
  let comment = "";
  let depth = 0;
  let quoted = false;
  let angle = false;
  const end = () => {
    const line = text.replace(/\s+/g, " ").trim();
    const whole = /[<>"]/.test(line) ? line : line.replace(/ ?([@.]) ?(?=\S)/g, "$1");
    if (whole !== "") entries.push({ text: whole, comment: comment.trim() });
    [text, comment, angle] = ["", "", false];
  };
  for (let at = 0; at < raw.length; at++) {
    const char = raw[at];
    if (char === "\\" && (quoted || depth > 0)) {
      at += 1;
      if (depth > 0) comment += raw[at] ?? "";
      else text += char + (raw[at] ?? "");
    } else if (depth > 0) {
      if (char === "(") depth += 1;
      else if (char === ")") depth -= 1;
      if (depth > 0) comment += char;
    } else if (char === '"') {
      quoted = !quoted;
      text += char;
    } else if (quoted) {
      text += char;
    } else if (char === "(") {
      depth = 1;
      comment = "";
    } else if (char === "<" || char === ">") {
      angle = char === "<";
      text += char;
    } else if (char === "," || char === ";") {
      end();
    } else if (char === ":" && !angle) {
      // A group's name stands for nobody.
      [text, comment] = ["", ""];
    } else if (!(angle && /\s/.test(char))) {
      text += char;
    }
  }
  end();
  return entries;
}
