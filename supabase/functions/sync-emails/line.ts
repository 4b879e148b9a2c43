/** A chunk's line to the mail server: a session with its folder open; a fresh one takes the place of one that broke. */

import type { ImapFlow } from "imapflow";
import type { Folder } from "./mailbox.ts";
import type { Session } from "./pool.ts";

/** Thrown when the UIDs that a chunk was planned for are no longer those of the folder. */
export class Renumbered extends Error {
  override name = "Renumbered";

  constructor(readonly folder: Folder) {
    super(`the server has renumbered the folder ${JSON.stringify(folder.path)}`);
  }
}

export class Line {
  #session: Session | null = null;

  /** @param uidvalidity the generation of UIDs that is expected; null: whatever the folder has. */
  constructor(private readonly take: () => Promise<Session>, private readonly uidvalidity: number | null) {}

  /** The session's client. */
  async client(): Promise<ImapFlow> {
    if (this.#session?.client.usable) return this.#session.client;
    this.end();
    this.#session = await this.take();
    const { client, folder } = this.#session;
    if (this.uidvalidity !== null && folder?.uidvalidity !== this.uidvalidity) throw new Renumbered(folder!);
    return client;
  }

  /** The folder that `client()` opened. */
  get folder(): Folder {
    return this.#session!.folder!;
  }

  end(): void {
    this.#session?.release();
    this.#session = null;
  }
}
