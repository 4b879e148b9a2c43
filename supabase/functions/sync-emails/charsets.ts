/** Bytes in any of the charsets that mail comes in. */

import { Buffer } from "node:buffer";
import iconv from "iconv-lite";

/** Labels that `TextDecoder` knows by another name. */
const ALIASES: Record<string, string> = {
  cp932: "shift_jis",
  cp936: "gbk",
  cp949: "euc-kr",
  cp950: "big5",
  ks_c_5601: "euc-kr",
  "iso-2022-jp-1": "iso-2022-jp",
  "iso-2022-jp-2": "iso-2022-jp",
  "iso-8859-8-e": "iso-8859-8",
};

/** Encodings of HTML's standard that stand for "cannot be decoded". */
const REPLACEMENT = /^(csiso2022kr|hz-gb-2312|iso-2022-cn(-ext)?|iso-2022-kr|replacement)$/;

const decoders = new Map<string, TextDecoder>();
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Decodes bytes.
 *
 * @param label the charset as the message names it; null: UTF-8.
 * @returns null when nobody knows the charset.
 */
export function decode(bytes: Uint8Array, label: string | null): string | null {
  const name = (label ?? "utf-8").trim().toLowerCase().replace(/\*.*$/, "");
  const decoder = decoderFor(ALIASES[name] ?? name);
  if (decoder !== null) return decoder.decode(bytes);
  return iconv.encodingExists(name) ? iconv.decode(Buffer.from(bytes), name) : null;
}

/** Whether `TextDecoder` has the charset, and so the parsers built on it. */
export function isCommon(label: string): boolean {
  return decoderFor(label.trim().toLowerCase().replace(/\*.*$/, "")) !== null;
}

/** Decodes UTF-8; null when it is something else. */
export function decodeUtf8(bytes: Uint8Array): string | null {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return null;
  }
}

function decoderFor(name: string): TextDecoder | null {
  if (REPLACEMENT.test(name)) return null;
  const known = decoders.get(name);
  if (known !== undefined) return known;
  try {
    const decoder = new TextDecoder(name);
    // Names come from messages: the map holds only names that exist, of which there are some hundreds.
    decoders.set(name, decoder);
    return decoder;
  } catch {
    return null;
  }
}
