/** The header of a message or of a part: its fields, decoded. In linear time, since mail is written by strangers. */

import { Buffer } from "node:buffer";
import { decodeWords } from "postal-mime";
import { decode, decodeUtf8, isCommon } from "./charsets.ts";

/** A value such as `text/plain; charset=utf-8`, its parameters with names in small letters. */
export interface Parametered {
  value: string;
  parameters: Map<string, string>;
}

const ENCODED_WORD = /=\?([^?\s]{1,100})\?([BbQq])\?([^?\s]*)\?=/g;

export class Headers {
  readonly #fields = new Map<string, string>();
  readonly #bytes: Uint8Array | null;

  /** @param bytes the header, with or without the empty line at its end. */
  constructor(bytes: Uint8Array) {
    const utf8 = decodeUtf8(bytes);
    this.#bytes = utf8 === null ? bytes : null;
    // Latin-1 keeps every byte, so that Content-Type can be read before its charset is known.
    this.#read(utf8 ?? Buffer.from(bytes).toString("latin1"));
  }

  /**
   * Decodes bytes beyond ASCII that are not in UTF-8 by the charset that the message declares.
   *
   * @param ofText the charset of the message's text, for a header that declares none.
   * @param problems is told when there is none or it is unknown.
   */
  decodeRaw(ofText: string | null, problems: string[]): void {
    if (this.#bytes === null) return;
    const label = this.parametered("content-type").parameters.get("charset") ?? ofText;
    const text = label === null ? null : decode(this.#bytes, label);
    if (text === null) problems.push(`the header is not in UTF-8, and ${label ?? "no charset"} is declared`);
    this.#read(text ?? new TextDecoder().decode(this.#bytes));
  }

  /** The first field of that name (in small letters), unfolded and otherwise as it was sent. */
  raw(name: string): string | null {
    return this.#fields.get(name) ?? null;
  }

  /** The field with its encoded words decoded. */
  text(name: string, problems: string[] = []): string | null {
    const raw = this.raw(name);
    if (raw === null || !raw.includes("=?")) return raw;
    return decodeWords(inCommonCharsets(raw, name, problems));
  }

  /** A structured field: Content-Type, Content-Disposition. */
  parametered(name: string): Parametered {
    return readParameters(this.raw(name) ?? "");
  }

  #read(text: string): void {
    this.#fields.clear();
    let name = "";
    let value: string[] = [];
    const end = () => {
      if (name !== "" && !this.#fields.has(name)) this.#fields.set(name, value.join("").trim());
      value = [];
    };
    for (let at = 0, next: number; at < text.length; at = next) {
      const newline = text.indexOf("\n", at);
      next = newline === -1 ? text.length : newline + 1;
      let stop = newline === -1 ? text.length : newline;
      if (newline > at && text[newline - 1] === "\r") stop -= 1;
      if (text[at] === " " || text[at] === "\t") {
        value.push(text.slice(at, stop));
        continue;
      }
      end();
      const line = text.slice(at, stop);
      const colon = line.indexOf(":");
      name = colon > 0 ? line.slice(0, colon).trim().toLowerCase() : "";
      if (name !== "") value.push(line.slice(colon + 1));
    }
    end();
  }
}

/** Writes encoded words in charsets that few parsers know as UTF-8. */
export function inCommonCharsets(raw: string, field: string, problems: string[]): string {
  if (!raw.includes("=?")) return raw;
  return raw.replace(ENCODED_WORD, (word, charset: string, encoding: string, content: string) => {
    if (isCommon(charset)) return word;
    const bytes = /b/i.test(encoding) ? Buffer.from(content, "base64") : quotedPrintable(content);
    const text = decode(bytes, charset);
    if (text === null) {
      problems.push(`${field} is in the unknown charset ${charset.slice(0, 40)}`);
      return word;
    }
    return `=?utf-8?B?${Buffer.from(text).toString("base64")}?=`;
  });
}

function quotedPrintable(content: string): Uint8Array {
  const text = content.replaceAll("_", " ").replace(
    /=([0-9A-Fa-f]{2})/g,
    (_, hex: string) => String.fromCharCode(parseInt(hex, 16)),
  );
  return Buffer.from(text, "latin1");
}

/** Reads `value; name=word; name="quoted"`; RFC 2231's `name*=` and `name*0=` too, as far as a charset or boundary goes. */
function readParameters(text: string): Parametered {
  const parameters = new Map<string, string>();
  const semicolon = text.indexOf(";");
  const value = (semicolon === -1 ? text : text.slice(0, semicolon)).replace(/\(.*$/, "").trim()
    .toLowerCase();
  if (semicolon === -1) return { value, parameters };
  const parameter = /;\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))/g;
  for (const [, name, quoted, word] of text.slice(semicolon).matchAll(parameter)) {
    const plain = name.toLowerCase().replace(/\*(\d+\*?)?$/, "");
    const part = quoted?.replace(/\\(.)/g, "$1") ?? word;
    const before = /\*[1-9]/.test(name) ? parameters.get(plain) ?? "" : "";
    if (before !== "" || !parameters.has(plain)) parameters.set(plain, before + part);
  }
  return { value, parameters };
}
