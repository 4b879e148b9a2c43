/** An IMAP mailbox: the connection, and what its failures mean. */

import { ImapFlow, type ImapFlowError } from "imapflow";
import { PermanentFailure, RetryLater } from "../_shared/serve.ts";

/** How to log in; what `get_email_account_secret` returns. */
export interface Login {
  account_id: string;
  host: string;
  port: number;
  tls: "implicit" | "starttls" | "none";
  username: string;
  password: string;
}

/** Milliseconds. A chunk has minutes at most, so none of these may take one. */
const CONNECT_TIMEOUT = 15_000;
const SILENCE_TIMEOUT = 45_000;
/** Bytes; a server must not be able to fill the worker's memory. */
const MAX_LITERAL = 32 * 1024 * 1024;

/** Refusals at login or of a folder that are about the moment, not about the request. */
const TEMPORARY = /too many|temporar|try again|unavailable|overload|rate|in.?use|limit/i;

/**
 * Connects and logs in.
 *
 * @param signal closes the connection.
 * @param extraCa certificates in PEM that are trusted beside the usual ones.
 * @throws PermanentFailure when the login is refused or the server's certificate is not trusted; RetryLater when the
 *   server cannot be reached now.
 */
export async function connect(login: Login, signal: AbortSignal, extraCa?: string): Promise<ImapFlow> {
  const client = new ImapFlow({
    host: login.host,
    port: login.port,
    secure: login.tls === "implicit",
    // Required or off, never "if offered": who can strip the offer would get the password.
    ...(login.tls === "implicit" ? {} : { doSTARTTLS: login.tls === "starttls" }),
    auth: { user: login.username, pass: login.password },
    // Deno adds these to the usual ones, where Node would trust no others.
    tls: extraCa ? { ca: extraCa } : {},
    connectionTimeout: CONNECT_TIMEOUT,
    greetingTimeout: CONNECT_TIMEOUT,
    socketTimeout: SILENCE_TIMEOUT,
    disableAutoIdle: true,
    disableCompression: true,
    maxLiteralSize: MAX_LITERAL,
    maxResponseSize: 2 * MAX_LITERAL,
    logger: false,
  });
  // Without a listener an error after connecting would end the worker.
  client.on("error", () => {});
  signal.addEventListener("abort", () => client.close());
  try {
    await client.connect();
    return client;
  } catch (error) {
    client.close();
    throw explainConnect(error as ImapFlowError, login);
  }
}

/**
 * Opens a folder for reading; the server sets no flag.
 *
 * @returns its generation of UIDs.
 * @throws PermanentFailure when there is no such folder.
 */
export async function openFolder(client: ImapFlow, folder: string): Promise<number> {
  try {
    const mailbox = await client.mailboxOpen(folder, { readOnly: true });
    return Number(mailbox.uidValidity);
  } catch (thrown) {
    const error = thrown as ImapFlowError;
    if (error.mailboxMissing) {
      throw new PermanentFailure(`the account has no folder ${JSON.stringify(folder)}`);
    }
    const said = refusal(error);
    if (error.responseStatus === "NO" && !TEMPORARY.test(said)) {
      throw new PermanentFailure(`the folder ${JSON.stringify(folder)} cannot be opened: ${said}`);
    }
    throw explainDrop(error);
  }
}

/** What a failure within a session means: the connection is gone, or the server is out of sorts; try again. */
export function explainDrop(thrown: unknown): Error {
  if (thrown instanceof PermanentFailure || thrown instanceof RetryLater) return thrown;
  const error = thrown as ImapFlowError;
  const seconds = error.throttleReset ? error.throttleReset / 1000 : null;
  return new RetryLater(seconds, `the mail server broke off: ${refusal(error)}`);
}

function explainConnect(error: ImapFlowError, { host, port, tls, username }: Login): Error {
  const server = `${host}:${port}`;
  const said = refusal(error);
  if (error.authenticationFailed && !TEMPORARY.test(said)) {
    return new PermanentFailure(`${server} refused the login of ${username}: ${said}`);
  }
  if (error.authenticationFailed) return new RetryLater(60, `${server} refused the login for now: ${said}`);
  if (/certificate|UnknownIssuer|self.?signed/i.test(said)) {
    return new PermanentFailure(`the certificate of ${server} is not trusted: ${said}`);
  }
  if (
    tls === "starttls" && /does not support STARTTLS|STARTTLS.*not (supported|offered|available)/i.test(said)
  ) {
    return new PermanentFailure(`${server} does not offer STARTTLS`);
  }
  return new RetryLater(null, `${server} cannot be reached: ${said}`);
}

/** The server's words, or ours; the code says most where there are none. */
function refusal(error: ImapFlowError): string {
  const words = error.responseText || error.message;
  const code = error.serverResponseCode ?? error.code;
  return code && !words.includes(code) ? `${words} (${code})` : words;
}
