/** Text of an HTML mail, good enough for a preview; in linear time, since mail is written by strangers. */

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: " " };

/** Elements whose content nobody reads. */
const SILENT = ["script", "style", "head", "title"];

/** The readable text of HTML, with spaces where there were tags. */
export function htmlToText(html: string): string {
  const parts: string[] = [];
  const lower = html.toLowerCase();
  let at = 0;
  while (at < html.length) {
    const tag = html.indexOf("<", at);
    if (tag === -1) {
      parts.push(html.slice(at));
      break;
    }
    parts.push(html.slice(at, tag), " ");
    const silent = SILENT.find((name) =>
      lower.startsWith(name, tag + 1) && !/[a-z]/.test(lower[tag + 1 + name.length] ?? "")
    );
    if (lower.startsWith("<!--", tag)) at = after(lower, "-->", tag);
    else if (silent) at = after(lower, ">", after(lower, `</${silent}`, tag) - 1);
    else at = after(lower, ">", tag);
  }
  return parts.join("").replace(
    /&(#x?[0-9a-f]{1,6}|[a-z]{2,5});/gi,
    (whole, name: string) => entity(name) ?? whole,
  );
}

/** The place behind the next `what`, or the end. */
function after(text: string, what: string, from: number): number {
  const found = text.indexOf(what, from);
  return found === -1 ? text.length : found + what.length;
}

function entity(name: string): string | null {
  if (!name.startsWith("#")) return ENTITIES[name.toLowerCase()] ?? null;
  const code = /^#x/i.test(name) ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
  return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : null;
}
