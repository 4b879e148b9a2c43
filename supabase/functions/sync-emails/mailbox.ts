/** An IMAP mailbox: the connection, the folder that is open in it, and what their failures mean. */

import { ImapFlow, type ImapFlowError, type MailboxObject } from "imapflow";
import { PermanentFailure, RetryLater } from "../_shared/serve.ts";
import { type Target, targetsOf, Unreachable } from "./address.ts";
import { readsQuickly } from "./reading.ts";
import { isThrottle, refusal, secondsToWait, verdict } from "./refusals.ts";
import { neverWaits, PutOff } from "./throttle.ts";

/** How to log in; what `get_email_account_secret` returns. */
export interface Login {
  account_id: string;
  host: string;
  port: number;
  tls: "implicit" | "starttls" | "none";
  username: string;
  /** Null: it logs in by tokens. */
  password: string | null;
  tokens?: Tokens;
  /** Whether it is a user's: only servers on the internet. */
  public_only?: boolean;
}

/** An access token for the login; `refused` is one that the server did not take. */
export type Tokens = (refused: string | null) => Promise<string>;

/** What is shown to the server. */
type Secret = { pass: string } | { accessToken: string };

/** A folder that is open. */
export interface Folder {
  /** Its name on the server, whichever way it was asked for; INBOX in capitals. */
  path: string;
  /** The generation of its UIDs; 0 on a server that has none. */
  uidvalidity: number;
  /** The mark of its last change, where the server keeps one (CONDSTORE). */
  highestmodseq: string | null;
}

/** Milliseconds. A chunk has minutes at most, so none of these may take one. */
const CONNECT_TIMEOUT = 15_000;
const SILENCE_TIMEOUT = 45_000;
/** Bytes; a server must not be able to fill the worker's memory. */
const MAX_LITERAL = 8 * 1024 * 1024;

/**
 * Connects and logs in.
 *
 * @param extraCa certificates in PEM that are trusted beside the usual ones.
 * @throws PermanentFailure when the login is refused or the server's certificate is not trusted; PutOff when the server
 *   asks to come back; RetryLater when it cannot be reached now.
 */
export async function connect(
  login: Login,
  signal: AbortSignal,
  extraCa?: string,
  findTargets = targetsOf,
): Promise<ImapFlow> {
  const logIn = (secret: Secret) => connectToAny(login, secret, signal, extraCa, findTargets);
  const { password, tokens } = login;
  if (password !== null || tokens === undefined) return await logIn({ pass: password ?? "" });
  const token = await tokens(null);
  try {
    return await logIn({ accessToken: token });
  } catch (error) {
    if (!(error instanceof PermanentFailure)) throw error;
    // A token may have been revoked before its time.
    return await logIn({ accessToken: await tokens(token) });
  }
}

async function connectToAny(
  login: Login,
  secret: Secret,
  signal: AbortSignal,
  extraCa: string | undefined,
  findTargets: typeof targetsOf,
): Promise<ImapFlow> {
  const targets = await findTargets(login);
  for (let next = 0;; next++) {
    try {
      return await connectTo(targets[next], login, secret, signal, extraCa);
    } catch (error) {
      if (!(error instanceof Unreachable) || next + 1 >= targets.length || signal.aborted) throw error;
    }
  }
}

async function connectTo(
  target: Target,
  login: Login,
  secret: Secret,
  signal: AbortSignal,
  extraCa?: string,
): Promise<ImapFlow> {
  const client = new ImapFlow({
    ...target,
    port: login.port,
    secure: login.tls === "implicit",
    // Required or off, never "if offered": who can strip the offer would get the password.
    ...(login.tls === "implicit" ? {} : { doSTARTTLS: login.tls === "starttls" }),
    auth: { user: login.username, ...secret },
    // Deno adds these to the usual ones, where Node would trust no others.
    tls: extraCa ? { ca: extraCa } : {},
    connectionTimeout: CONNECT_TIMEOUT,
    greetingTimeout: CONNECT_TIMEOUT,
    socketTimeout: SILENCE_TIMEOUT,
    disableAutoIdle: true,
    disableCompression: true,
    // Where the server can: what vanished comes with what changed.
    qresync: true,
    maxLiteralSize: MAX_LITERAL,
    maxResponseSize: 2 * MAX_LITERAL,
    logger: false,
  });
  // Without a listener an error after connecting would end the worker.
  client.on("error", () => {});
  neverWaits(client);
  readsQuickly(client);
  opensUnlisted(client);
  const abort = () => client.close();
  signal.addEventListener("abort", abort);
  try {
    await client.connect();
    return client;
  } catch (thrown) {
    client.close();
    const error = thrown as ImapFlowError;
    // A goodbye may be overtaken by the closing of its connection.
    error.reason ??= (client as { byeReason?: string }).byeReason;
    throw explainConnect(error, login);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** The library would list a folder before it opens it, which says nothing that opening it does not. */
function opensUnlisted(client: ImapFlow): void {
  class Unasked extends Map<string, unknown> {
    override has() {
      return true;
    }
  }
  (client as unknown as { folders: Map<string, unknown> }).folders = new Unasked();
}

/**
 * Opens a folder for reading; the server sets no flag.
 *
 * @throws PermanentFailure when there is no such folder.
 */
export async function openFolder(client: ImapFlow, folder: string): Promise<Folder> {
  try {
    return folderOf(client, await client.mailboxOpen(folder, { readOnly: true }));
  } catch (thrown) {
    const error = thrown as ImapFlowError;
    if (error.mailboxMissing) {
      throw new PermanentFailure(`the account has no folder ${JSON.stringify(folder)}`);
    }
    if (error.responseStatus === "NO" && verdict(error) === "never") {
      throw new PermanentFailure(`the folder ${JSON.stringify(folder)} cannot be opened: ${refusal(error)}`);
    }
    throw explainDrop(error);
  }
}

/** The folder that a session has open. */
export function folderOf(client: ImapFlow, mailbox: MailboxObject): Folder {
  const { path, uidValidity, highestModseq, noModseq } = mailbox;
  const keepsMarks = client.enabled.has("CONDSTORE") && !noModseq && highestModseq;
  return {
    path,
    uidvalidity: Number(uidValidity ?? 0),
    highestmodseq: keepsMarks ? String(highestModseq) : null,
  };
}

/** What a failure within a session means: the connection is gone, or the server is out of sorts; try again. */
export function explainDrop(thrown: unknown): Error {
  const known = [PermanentFailure, RetryLater, PutOff];
  if (known.some((kind) => thrown instanceof kind)) return thrown as Error;
  const error = thrown as ImapFlowError;
  const message = `the mail server broke off: ${refusal(error)}`;
  return isThrottle(error) ? new PutOff(secondsToWait(error), message) : new RetryLater(null, message);
}

function explainConnect(error: ImapFlowError, login: Login): Error {
  const { host, port, tls, username } = login;
  const server = `${host}:${port}`;
  const said = refusal(error);
  if (error.authenticationFailed || error.reason) {
    const judged = verdict(error);
    if (judged === "later") {
      return new PutOff(secondsToWait(error), `${server} refused the login for now: ${said}`);
    }
    if (judged === "never") {
      return new PermanentFailure(`${server} refused the login of ${username}: ${said}`);
    }
  }
  if (isThrottle(error)) {
    return new PutOff(secondsToWait(error), `${server} refused the login for now: ${said}`);
  }
  if (/certificate|UnknownIssuer|self.?signed/i.test(said)) {
    return new PermanentFailure(`the certificate of ${server} is not trusted: ${said}`);
  }
  if (
    tls === "starttls" && /does not support STARTTLS|STARTTLS.*not (supported|offered|available)/i.test(said)
  ) {
    return new PermanentFailure(`${server} does not offer STARTTLS`);
  }
  return new Unreachable(login, said);
}
