/** Bytes that can be read and written by position. */
export interface Storage {
  read(offset: number, length: number): Uint8Array;
  write(offset: number, bytes: Uint8Array): void;
}

interface Change {
  offset: number;
  before: Uint8Array;
  settled: boolean;
}

const sector = 512;

/** What was written to a storage and not flushed since: any part of it is lost with the power. */
export class Unflushed {
  readonly #storage: Storage;
  #changes: Change[] = [];

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** Runs what may change a range. It has settled once it ended, well or not: an end in an error may have changed a part. */
  async changing(offset: number, length: number, act: () => Promise<void>): Promise<void> {
    const change: Change = { offset, before: Uint8Array.from(this.#storage.read(offset, length)), settled: false };
    this.#changes.push(change);
    try {
      await act();
    } finally {
      change.settled = true;
    }
  }

  /** What settled before now; call the result once a flush has made it durable. */
  flushing(): () => void {
    const covered = new Set(this.#changes.filter((change) => change.settled));
    return () => void (this.#changes = this.#changes.filter((change) => !covered.has(change)));
  }

  /** Takes back any part of it, sector by sector. Resolves with the bytes lost. */
  lose(random: () => number): number {
    const kept = [0, 0.5, 0.9, random()][Math.floor(random() * 4)]!;
    let lost = 0;
    for (const { offset, before } of this.#changes.toReversed()) {
      for (let at = 0; at < before.length; at += sector) {
        if (random() < kept) continue;
        const part = before.subarray(at, at + sector);
        this.#storage.write(offset + at, part);
        lost += part.length;
      }
    }
    this.#changes = [];
    return lost;
  }
}
