/** Text of an HTML mail, good enough for a preview; in linear time, since mail is written by strangers. */

import { decodeHTML } from "entities";

/** Elements whose content nobody reads. */
const SILENT = ["script", "style", "title"];

/** The readable text of HTML, with spaces where there were tags. */
export function htmlToText(html: string): string {
  const parts: string[] = [];
  const lower = html.toLowerCase();
  const ends = new TagEnds(html);
  let at = 0;
  while (at < html.length) {
    const tag = html.indexOf("<", at);
    if (tag === -1) {
      parts.push(html.slice(at));
      break;
    }
    parts.push(html.slice(at, tag));
    // "1 < 2" is no tag.
    if (!/[a-z/!?]/.test(lower[tag + 1] ?? "")) {
      parts.push("<");
      at = tag + 1;
      continue;
    }
    parts.push(" ");
    const silent = SILENT.find((name) =>
      lower.startsWith(name, tag + 1) && !/[a-z]/.test(lower[tag + 1 + name.length] ?? "")
    );
    if (lower.startsWith("<!--", tag)) at = after(lower, "-->", tag);
    else if (silent) at = ends.after(after(lower, `</${silent}`, tag) - 1);
    else at = ends.after(tag);
  }
  return decodeHTML(parts.join(""));
}

/** Finds where tags end, which may have `>` in their attributes. */
class TagEnds {
  readonly #last: Record<string, number>;

  constructor(private readonly html: string) {
    this.#last = { '"': html.lastIndexOf('"'), "'": html.lastIndexOf("'") };
  }

  /** The place behind the tag that begins at or before the place. */
  after(from: number): number {
    const { html } = this;
    const special = /[>"']/g;
    special.lastIndex = from;
    for (let match = special.exec(html); match !== null; match = special.exec(html)) {
      if (match[0] === ">") return match.index + 1;
      // A quote that opens after "=" and never closes is a slip, and not the rest of the mail.
      if (!/=\s*$/.test(html.slice(Math.max(0, match.index - 10), match.index))) continue;
      if (this.#last[match[0]] > match.index) special.lastIndex = html.indexOf(match[0], match.index + 1) + 1;
    }
    return html.length;
  }
}

/** The place behind the next `what`, or the end. */
function after(text: string, what: string, from: number): number {
  const found = text.indexOf(what, from);
  return found === -1 ? text.length : found + what.length;
}
