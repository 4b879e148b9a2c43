/**
 * A small IMAP server on loopback whose answers a test can bend: for what real servers do now and then, and no real
 * server does when told to.
 */

import { Buffer } from "node:buffer";

/** A message in the mailbox. */
export interface Mail {
  uid: number;
  source: Uint8Array;
  flags: string[];
  /** What BODYSTRUCTURE says, and what its parts hold; without it all of the body is one plain text. */
  structure?: string;
  parts?: Record<string, Uint8Array>;
  /** What Gmail says of it; labels as they are sent. */
  gmail?: { id: string; thread: string; labels: string };
}

/** One command, as it came. */
export interface Command {
  tag: string;
  /** In capitals, with UID before it where it was: `UID FETCH`. */
  name: string;
  rest: string;
}

/** What a test does instead of the usual answer: true when it answered. */
export type Bend = (command: Command, session: ServerSession) => boolean | void | Promise<boolean | void>;

export const WHEN = "03-Nov-2026 08:00:00 +0000";

/** A message with a subject and a text. */
export function letter(uid: number, source = plain(`Letter ${uid}`, `Hello ${uid}`)): Mail {
  return { uid, source: bytes(source), flags: [] };
}

/** The text of a plain message. */
export function plain(subject: string, text: string): string {
  return `From: Ann <ann@example.com>\nTo: bob@example.com\nSubject: ${subject}\n` +
    `Message-ID: <${
      encodeURIComponent(subject)
    }@example.com>\nDate: Tue, 3 Nov 2026 08:00:00 +0000\n\n${text}\n`;
}

/** Text as a message is sent: with CRLF, each character a byte. */
export function bytes(text: string): Uint8Array {
  return Buffer.from(text.replace(/\r?\n/g, "\r\n"), "latin1");
}

export class ImapServer implements AsyncDisposable {
  readonly port: number;
  /** All commands that came, of all sessions. */
  readonly commands: Command[] = [];
  /** Logins, successful or not. */
  logins = 0;
  /** Sessions that are open now, and at most were at a time. */
  open = 0;
  mostOpen = 0;
  uidvalidity: number | null = 7;
  capabilities = "IMAP4rev1 UIDPLUS";
  readonly #listener: Deno.TcpListener;
  readonly #sessions = new Set<ServerSession>();
  readonly #serving: Promise<void>;

  constructor(public mails: Mail[], public bend: Bend = () => {}) {
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.port = this.#listener.addr.port;
    this.#serving = this.#accept();
  }

  /** The commands of a name. */
  of(name: string): Command[] {
    return this.commands.filter((command) => command.name === name);
  }

  async [Symbol.asyncDispose]() {
    this.#listener.close();
    for (const session of this.#sessions) session.drop();
    await this.#serving;
  }

  async #accept(): Promise<void> {
    const serving: Promise<void>[] = [];
    try {
      for await (const connection of this.#listener) {
        const session = new ServerSession(this, connection);
        this.#sessions.add(session);
        this.open += 1;
        this.mostOpen = Math.max(this.mostOpen, this.open);
        serving.push(
          session.serve().finally(() => {
            this.#sessions.delete(session);
            this.open -= 1;
          }),
        );
      }
    } catch {
      // The listener was closed.
    }
    await Promise.all(serving);
  }
}

export class ServerSession {
  #ended = false;

  constructor(readonly server: ImapServer, private readonly connection: Deno.TcpConn) {
    connection.setNoDelay(true);
  }

  /** Sends lines; text goes as Latin-1. */
  async say(...lines: (string | Uint8Array)[]): Promise<void> {
    if (this.#ended) return;
    let left: Uint8Array = Buffer.concat(
      lines.map((line) => typeof line === "string" ? Buffer.from(`${line}\r\n`, "latin1") : line),
    );
    try {
      while (left.length > 0) left = left.subarray(await this.connection.write(left));
    } catch {
      this.drop();
    }
  }

  /** Ends the connection without a word. */
  drop(): void {
    if (this.#ended) return;
    this.#ended = true;
    try {
      this.connection.close();
    } catch {
      // Reading to its end has closed it.
    }
  }

  /** The answer to a FETCH of one message. */
  async send(mail: Mail, items: string): Promise<void> {
    const place = this.server.mails.indexOf(mail) + 1;
    const cut = headerEnd(mail.source);
    const parts: (string | Uint8Array)[] = [];
    let text = `* ${place} FETCH (UID ${mail.uid}`;
    if (/\bFLAGS\b/.test(items)) text += ` FLAGS (${mail.flags.join(" ")})`;
    if (/\bINTERNALDATE\b/.test(items)) text += ` INTERNALDATE "${WHEN}"`;
    if (/\bRFC822\.SIZE\b/.test(items)) text += ` RFC822.SIZE ${mail.source.length}`;
    if (/\bBODYSTRUCTURE\b/.test(items)) {
      text += ` BODYSTRUCTURE ${mail.structure ?? structure(mail.source.length - cut)}`;
    }
    if (/\bX-GM-MSGID\b/.test(items)) text += ` X-GM-MSGID ${mail.gmail?.id}`;
    if (/\bX-GM-THRID\b/.test(items)) text += ` X-GM-THRID ${mail.gmail?.thread}`;
    if (/\bX-GM-LABELS\b/.test(items)) text += ` X-GM-LABELS (${mail.gmail?.labels})`;
    for (const [, section, first, most] of items.matchAll(/BODY\.PEEK\[([^\]]*)\](?:<(\d+)\.(\d+)>)?/g)) {
      const whole = section === "HEADER" ? mail.source.subarray(0, cut) : mail.source.subarray(cut);
      const all = mail.parts?.[section] ?? whole;
      const content = first === undefined ? all : all.subarray(Number(first), Number(first) + Number(most));
      const origin = first === undefined ? "" : `<${first}>`;
      parts.push(Buffer.from(`${text} BODY[${section}]${origin} {${content.length}}\r\n`, "latin1"), content);
      text = "";
    }
    await this.say(...parts, `${text})`);
  }

  async serve(): Promise<void> {
    await this.say(`* OK [CAPABILITY ${this.server.capabilities}] ready`);
    let text = "";
    try {
      for await (const data of this.connection.readable.pipeThrough(new TextDecoderStream())) {
        text += data;
        for (let end = text.indexOf("\r\n"); end !== -1; end = text.indexOf("\r\n")) {
          const line = text.slice(0, end);
          text = text.slice(end + 2);
          await this.#answer(line);
        }
      }
    } catch {
      // The client is gone, or the test dropped it.
    }
    this.drop();
  }

  async #answer(line: string): Promise<void> {
    const [, tag, name, rest] = /^(\S+) ((?:UID )?\S+) ?(.*)$/i.exec(line) ?? [];
    const command = { tag, name: (name ?? "").toUpperCase(), rest: rest ?? "" };
    const { server } = this;
    server.commands.push(command);
    if (command.name === "LOGIN") server.logins += 1;
    if (await server.bend(command, this)) return;
    switch (command.name) {
      case "CAPABILITY":
        await this.say(`* CAPABILITY ${server.capabilities}`, `${tag} OK done`);
        break;
      case "LIST":
        await this.say(`* LIST (\\HasNoChildren) "/" INBOX`, `${tag} OK done`);
        break;
      case "EXAMINE": {
        const { uidvalidity } = server;
        const validity = uidvalidity === null ? [] : [`* OK [UIDVALIDITY ${uidvalidity}] valid`];
        await this.say(
          `* ${server.mails.length} EXISTS`,
          "* FLAGS (\\Seen)",
          ...validity,
          `${tag} OK [READ-ONLY] open`,
        );
        break;
      }
      case "UID SEARCH": {
        const set = /UID ([\d:,*]+)/.exec(command.rest)?.[1] ?? "1:*";
        const found = server.mails.filter(({ uid }) => inSet(uid, set, server.mails.at(-1)?.uid ?? 0));
        await this.say(`* SEARCH ${found.map(({ uid }) => uid).join(" ")}`, `${tag} OK done`);
        break;
      }
      case "UID FETCH": {
        for (const mail of this.asked(command)) await this.send(mail, command.rest);
        await this.say(`${tag} OK done`);
        break;
      }
      case "FETCH": {
        const [set] = command.rest.split(" ");
        for (const [at, mail] of server.mails.entries()) {
          if (inSet(at + 1, set, server.mails.length)) await this.send(mail, command.rest);
        }
        await this.say(`${tag} OK done`);
        break;
      }
      case "LOGOUT":
        await this.say("* BYE bye", `${tag} OK bye`);
        this.drop();
        break;
      default:
        await this.say(`${tag} OK done`);
    }
  }

  /** The messages that a UID FETCH asks for. */
  asked(command: Command): Mail[] {
    const [set] = command.rest.split(" ");
    return this.server.mails.filter(({ uid }) => inSet(uid, set, this.server.mails.at(-1)?.uid ?? 0));
  }
}

function structure(size: number): string {
  return `("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "8BIT" ${size} 1 NIL NIL NIL NIL)`;
}

function inSet(number: number, set: string, last: number): boolean {
  return set.split(",").some((range) => {
    const [from, to = from] = range.split(":").map((end) => end === "*" ? last : Number(end));
    return number >= Math.min(from, to) && number <= Math.max(from, to);
  });
}

function headerEnd(source: Uint8Array): number {
  const found = Buffer.from(source).indexOf("\r\n\r\n");
  return found === -1 ? source.length : found + 4;
}
