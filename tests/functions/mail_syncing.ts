/** The email handler under test: beside an IMAP server, with a table that is a map. */

import type { Answer, Chunk, Context } from "../../supabase/functions/_shared/serve.ts";
import { createSyncEmails } from "../../supabase/functions/sync-emails/handler.ts";
import { connect } from "../../supabase/functions/sync-emails/mailbox.ts";
import type { EmailRow } from "../../supabase/functions/sync-emails/message.ts";
import { SessionPool } from "../../supabase/functions/sync-emails/pool.ts";
import type { ImapServer } from "./imap_server.ts";

/** A test; older versions of Deno count timers that the IMAP library leaves behind a closed connection. */
export function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, fn, sanitizeOps: false, sanitizeResources: false });
}

type Args = Record<string, unknown>;

export class MailSync implements AsyncDisposable {
  /** Rows by UID, as they were last saved. */
  readonly rows = new Map<number, EmailRow>();
  /** All calls of SQL functions. */
  readonly calls: { name: string; args: Args }[] = [];
  /** What of a row is kept. */
  keep: (row: EmailRow) => EmailRow = (row) => row;
  readonly #sessions: SessionPool;
  readonly #work: ReturnType<typeof createSyncEmails>;

  constructor(
    readonly server: ImapServer,
    options: { idleMs?: number; callerMs?: number; busyMs?: number } = {},
  ) {
    this.#sessions = new SessionPool((login, signal) => connect(login, signal), options.idleMs ?? 10_000);
    this.#work = createSyncEmails({
      sessions: this.#sessions,
      callerMs: options.callerMs ?? null,
      busyMs: options.busyMs,
    });
  }

  /** Runs one chunk. */
  async run(
    payload: Args,
    over: Partial<Chunk> = {},
    signal = new AbortController().signal,
  ): Promise<Answer> {
    const chunk: Chunk = {
      job_id: "7c0e4f5e-6f0b-4b53-9d5a-0d1f8f6f2a10",
      chunk_id: 1,
      chunk_index: 0,
      attempt: 1,
      kind: "email",
      owner_id: null,
      payload,
      job_payload: { account: "work" },
      checkpoint: null,
      claim_token: crypto.randomUUID(),
      time_left_ms: 100_000,
      ...over,
    };
    const rpc = (name: string, args: Args) => Promise.resolve(this.#answer(name, args));
    return await this.#work(chunk, { signal, rpc, log: () => {} } as unknown as Context);
  }

  /** Runs a chunk and all that follow from it; returns their answers. */
  async runAll(payload: Args): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (const todo = [payload]; todo.length > 0;) {
      const answer = await this.run(todo.shift()!);
      answers.push(answer);
      todo.push(...answer.next_chunks ?? []);
    }
    return answers;
  }

  async [Symbol.asyncDispose]() {
    await this.#sessions.end();
  }

  #answer(name: string, args: Args): unknown {
    // Messages are kept as rows.
    this.calls.push({ name, args: name === "save_synced_emails" ? {} : args });
    switch (name) {
      case "get_email_account_secret":
        return {
          account_id: "a",
          host: "127.0.0.1",
          port: this.server.port,
          tls: "none",
          username: "ann",
          password: "pw",
        };
      case "plan_email_folder": {
        const present = args.present as [number, number][];
        const missing = present.map(([from, to]) => [from, to, to - from + 1]);
        return { missing, deleted: 0, superseded: 0, moved: false };
      }
      case "get_email_folder":
        return null;
      case "save_email_folders":
        return { gone: 0, deleted: 0 };
      case "renumber_email_folder":
        return this.calls.filter((call) => call.name === name).length === 1;
      case "save_synced_emails": {
        const emails = args.emails as EmailRow[];
        for (const email of emails) this.rows.set(email.uid, this.keep(email));
        return emails.length;
      }
      case "save_email_flags":
        for (const { uid, flags } of args.emails as EmailRow[]) {
          const row = this.rows.get(uid);
          if (row !== undefined) row.flags = flags;
        }
        return 0;
    }
    throw new Error(`no function ${name}`);
  }
}

/** Numbers from 1. */
export function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, at) => at + 1);
}
