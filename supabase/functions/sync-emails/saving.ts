/** Rows on their way into the table: saved while others are still fetched, so that little is lost or held at a time. */

import { type EmailRow, storedFlags } from "./message.ts";

/** Where rows go. */
export interface Store {
  /** Stores rows; returns how many were added or changed. */
  emails(rows: EmailRow[]): Promise<number>;
  /** Notes flags of messages that are stored; returns how many differed. */
  flags(rows: { uid: number; flags: string[] }[]): Promise<number>;
}

/** Characters of text after which what is there is saved, so that a range of large mails fits into memory. */
const SAVE_AT = 192 * 1024;
/** Milliseconds after which what is there is saved, so that a chunk that ends early has not worked in vain. */
const SAVE_EVERY_MS = 5000;

export class Saver {
  /** Messages stored. */
  fetched = 0;
  /** Of these, messages of which something could not be read. */
  unreadable = 0;
  /** Rows that were added or changed. */
  changed = 0;
  #rows: EmailRow[] = [];
  #weight = 0;
  #savedAt = performance.now();
  readonly #saved = new Map<number, string>();
  readonly #mentioned = new Map<number, Set<string>>();

  constructor(private readonly store: Store) {}

  /** Takes a row; what it returns ends when there is room for more. */
  add(row: EmailRow): Promise<void> | void {
    this.#rows.push(row);
    this.fetched += 1;
    if (row.parse_error !== null) this.unreadable += 1;
    this.#weight += 1000 + (row.body_text?.length ?? 0) + (row.body_html?.length ?? 0);
    if (this.#weight > SAVE_AT || performance.now() - this.#savedAt > SAVE_EVERY_MS) return this.flush();
  }

  /** Notes that the server mentioned a message's flags, perhaps after its row was made. */
  mention(uid: number, flags: Set<string>): void {
    this.#mentioned.set(uid, flags);
  }

  /** Saves what is there. */
  async flush(): Promise<void> {
    const rows = this.#rows;
    [this.#rows, this.#weight, this.#savedAt] = [[], 0, performance.now()];
    for (const row of rows) {
      const flags = this.#mentioned.get(row.uid);
      if (flags !== undefined) row.flags = storedFlags(flags);
      this.#saved.set(row.uid, row.flags.join(" "));
    }
    if (rows.length > 0) this.changed += await this.store.emails(rows);
  }

  /** Saves the rest, and the flags that changed after their rows were saved. */
  async end(): Promise<void> {
    await this.flush();
    const late: { uid: number; flags: string[] }[] = [];
    for (const [uid, mentioned] of this.#mentioned) {
      const flags = storedFlags(mentioned);
      const saved = this.#saved.get(uid);
      if (saved !== undefined && saved !== flags.join(" ")) late.push({ uid, flags });
    }
    if (late.length > 0) await this.store.flags(late);
    this.#savedAt = performance.now();
  }
}
