/** Room in memory for large texts, shared by all chunks of the process: it may have 256 MB for as many as are at work. */

/** Bytes of parts that are in work at a time; a part has no more. Each lies in memory several times, decoded and as JSON. */
const BYTES = 1024 * 1024;
/** Milliseconds after which one goes on without room: another's mail server may be slow, or pretend to be. */
const PATIENCE_MS = 2000;

/** Room of so many bytes, given in the order in which it was asked for. */
export class Room {
  readonly #waiting: { bytes: number; enter: () => void }[] = [];
  #free: number;

  constructor(private readonly bytes = BYTES, private readonly patienceMs = PATIENCE_MS) {
    this.#free = bytes;
  }

  /** Does what takes so many bytes once there is room for it. */
  async within<T>(bytes: number, what: () => Promise<T>): Promise<T> {
    const taken = Math.min(bytes, this.bytes);
    await this.#enter(taken);
    try {
      return await what();
    } finally {
      this.#free += taken;
      this.#admit();
    }
  }

  async #enter(bytes: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        enter();
      }, this.patienceMs);
      const enter = () => {
        clearTimeout(timer);
        this.#free -= bytes;
        resolve();
      };
      const waiting = { bytes, enter };
      this.#waiting.push(waiting);
      this.#admit();
    });
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#waiting[0].bytes <= this.#free) this.#waiting.shift()!.enter();
  }
}
