/**
 * Sessions that several chunks use one after the other: a login each chunk is slow, costly for the server, and counted
 * by providers.
 *
 * There are never more than chunks in work, since each takes one and gives it back; one that nobody takes ends with
 * LOGOUT.
 */

import type { ImapFlow } from "imapflow";
import { wasThrottled } from "./throttle.ts";
import { type Folder, folderOf, type Login, openFolder } from "./mailbox.ts";

/** A session that is one chunk's alone until it gives it back. */
export interface Session {
  readonly client: ImapFlow;
  /** The folder that is open; null: none was asked for. */
  readonly folder: Folder | null;
  /** Gives it back; a session that broke is dropped. */
  release(): void;
}

interface Idle {
  client: ImapFlow;
  timer: ReturnType<typeof setTimeout>;
}

/** Milliseconds after which an idle session ends: longer than the pause between two chunks of a job. */
const IDLE_MS = 10_000;

export class SessionPool {
  readonly #idle = new Map<string, Idle[]>();

  /** @param connect makes a session that is logged in. */
  constructor(
    private readonly connect: (login: Login, signal: AbortSignal) => Promise<ImapFlow>,
    private readonly idleMs = IDLE_MS,
  ) {}

  /**
   * A session with the folder open.
   *
   * @param folder null: any or none.
   * @param fresh open the folder anew even if the session has it open, to see how many messages it has now.
   * @param signal closes the session while it is taken.
   */
  async take(login: Login, folder: string | null, fresh: boolean, signal: AbortSignal): Promise<Session> {
    for (;;) {
      const idle = this.#takeIdle(login);
      const client = idle ?? await this.connect(login, signal);
      try {
        const opened = folder === null ? null : await open(client, folder, fresh);
        return this.#lend(login, client, opened, signal);
      } catch (error) {
        // One that waited may have been closed by the server meanwhile; that says nothing about the next.
        const stale = idle !== null && !client.usable && !signal.aborted;
        if (client.usable && !wasThrottled(client)) this.#giveBack(login, client);
        else client.close();
        if (!stale) throw error;
      }
    }
  }

  /** Ends all that are idle. */
  async end(): Promise<void> {
    const all = [...this.#idle.values()].flat();
    this.#idle.clear();
    await Promise.all(all.map(({ client, timer }) => {
      clearTimeout(timer);
      return client.logout().catch(() => {});
    }));
  }

  #lend(login: Login, client: ImapFlow, folder: Folder | null, signal: AbortSignal): Session {
    const abort = () => client.close();
    signal.addEventListener("abort", abort);
    if (signal.aborted) abort();
    return {
      client,
      folder,
      release: () => {
        signal.removeEventListener("abort", abort);
        if (client.usable && !wasThrottled(client)) this.#giveBack(login, client);
        else client.close();
      },
    };
  }

  #takeIdle(login: Login): ImapFlow | null {
    const waiting = this.#idle.get(keyOf(login)) ?? [];
    for (let idle = waiting.pop(); idle !== undefined; idle = waiting.pop()) {
      clearTimeout(idle.timer);
      if (!idle.client.usable) continue;
      keepsAlive(idle.client, true);
      return idle.client;
    }
    return null;
  }

  #giveBack(login: Login, client: ImapFlow): void {
    const key = keyOf(login);
    const waiting = this.#idle.get(key) ?? [];
    this.#idle.set(key, waiting);
    const idle = {
      client,
      timer: setTimeout(() => {
        waiting.splice(waiting.indexOf(idle), 1);
        if (waiting.length === 0 && this.#idle.get(key) === waiting) this.#idle.delete(key);
        client.logout().catch(() => {});
      }, this.idleMs),
    };
    Deno.unrefTimer(idle.timer);
    keepsAlive(client, false);
    waiting.push(idle);
  }
}

/** Whether the process waits for the session before it ends; not for an idle one. */
function keepsAlive(client: ImapFlow, does: boolean): void {
  const { socket } = client as unknown as { socket?: { ref?(): void; unref?(): void } };
  if (does) socket?.ref?.();
  else socket?.unref?.();
}

/** A changed password or host is another login. */
function keyOf(login: Login): string {
  return JSON.stringify([
    login.account_id,
    login.host,
    login.port,
    login.tls,
    login.username,
    login.password,
  ]);
}

async function open(client: ImapFlow, folder: string, fresh: boolean): Promise<Folder> {
  const { mailbox } = client;
  if (!fresh && mailbox && mailbox.path === folder) {
    return folderOf(client, mailbox);
  }
  return await openFolder(client, folder);
}
