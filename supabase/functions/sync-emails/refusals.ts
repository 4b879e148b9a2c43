/**
 * What a mail server means when it refuses: by its response code (RFC 5530, RFC 9051), since its words are for people.
 *
 * Words count only where there is no code that says it: some large providers send none.
 */

import type { ImapFlowError } from "imapflow";

/** Whether the same request can succeed later by itself, never does, or nobody knows. */
export type Verdict = "later" | "never" | "unknown";

const LATER = new Set([
  "LIMIT",
  "UNAVAILABLE",
  "INUSE",
  "OVERQUOTA",
  "SERVERBUG",
  "THROTTLED",
  "MESSAGELIMIT",
]);
const NEVER = new Set([
  "AUTHENTICATIONFAILED",
  "AUTHORIZATIONFAILED",
  "EXPIRED",
  "PRIVACYREQUIRED",
  "CONTACTADMIN",
  "NOPERM",
  "NONEXISTENT",
  "CANNOT",
  "CLIENTBUG",
]);

/** Whole words: "corporate" and "generate" are not about a rate. */
const LATER_WORDS =
  /\b(too many|simultaneous|maximum number of connections|temporar(y|ily)|try again|rate[ -]?limit(ed)?|throttled|unavailable|overloaded|busy|in use|exceeded|not connected|shutting down)\b/i;

/** The code in the brackets of a NO, BAD or BYE, in capitals; null without one. */
export function responseCode(error: ImapFlowError): string | null {
  if (error.code === "ETHROTTLE") return "THROTTLED";
  if (error.serverResponseCode) return error.serverResponseCode;
  const { response } = error as { response?: unknown };
  if (typeof response === "string") {
    return /^\S+ (?:NO|BAD|BYE) \[([^\] ]+)/i.exec(response)?.[1].toUpperCase() ?? null;
  }
  const first = (response as { attributes?: { section?: { value?: unknown }[] }[] } | undefined)?.attributes
    ?.[0];
  const code = first?.section?.[0]?.value;
  return typeof code === "string" ? code.toUpperCase() : null;
}

/** What a refusal means for the same request. */
export function verdict(error: ImapFlowError): Verdict {
  const code = responseCode(error);
  if (code !== null && LATER.has(code)) return "later";
  if (code !== null && NEVER.has(code)) return "never";
  if (LATER_WORDS.test(words(error))) return "later";
  return error.responseStatus === "NO" ? "never" : "unknown";
}

/** The server's words, or ours; its code says most where there are none. */
export function refusal(error: ImapFlowError): string {
  const said = words(error);
  const code = responseCode(error) ?? error.code;
  return code && !said.includes(code) ? `${said} (${code})` : said;
}

/** Whether the server asks to come back later; for commands within a session only its code says so. */
export function isThrottle(error: ImapFlowError): boolean {
  const code = responseCode(error);
  return code !== null && code !== "SERVERBUG" && LATER.has(code);
}

/** Seconds after which the server says that it can be asked again; null when it does not say. */
export function secondsToWait(error: ImapFlowError): number | null {
  return error.throttleReset ? error.throttleReset / 1000 : null;
}

function words(error: ImapFlowError): string {
  // What the server said when it closed the connection tells more than that it is closed.
  return error.responseText || error.reason || error.message;
}
