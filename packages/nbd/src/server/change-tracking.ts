import { randomUUID } from "node:crypto";

/** The longest bitmap one tracking may hold, in bytes: 16 TiB of disk at 64 KiB. */
const maximumBitmapLength = 32 * 1024 * 1024;

/** What the names of all meta contexts of change trackings begin with. */
export const changesPrefix = "diskferry:changes:";

/** What {@link trackChanges} needs. */
export interface ChangeTrackingOptions {
  /** The part after `diskferry:changes:` of its meta contexts: 1 to 200 characters, no white space, no colon. */
  name: string;
  /** Of the disk, in bytes. */
  size: number;
  /**
   * How finely changes are told apart, in bytes; a power of two of at least 512. Default 64 KiB, or as much more as a
   * very large disk needs to keep the bitmap within 32 MiB.
   */
  granularity?: number;
}

/** A range being written. Given to {@link ChangeTracking.end} when the write settled. */
export interface TrackedWrite {
  readonly offset: number;
  readonly length: number;
}

/**
 * Records which ranges of an export were written, zeroed or trimmed. Conservative: a range is marked before the write
 * reaches the backend and stays marked when the write fails, and a write under way during `reset` is marked in the new
 * epoch too. Held in memory alone: after a restart `identity` differs, and everything counts as changed.
 *
 * Clients see two meta contexts: `diskferry:changes:<name>`, which one begun anew after a restart or a reset bears too,
 * and {@link ChangeTracking.metaContext}, which none but this one bears.
 */
export class ChangeTracking {
  readonly name: string;
  readonly size: number;
  readonly granularity: number;
  /** Different for every tracking ever made. A consumer that knows another identity has lost its tracking. */
  readonly identity: string = randomUUID();
  #epoch = 1;
  #bitmap: Uint8Array;
  readonly #underWay = new Set<TrackedWrite>();

  constructor(options: ChangeTrackingOptions) {
    const { name, size } = options;
    if (!/^[^\s:]{1,200}$/u.test(name)) {
      throw new RangeError(`the name of a change tracking is 1 to 200 characters without spaces and colons: "${name}"`);
    }
    if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`size must be a whole number of bytes: ${size}`);
    let granularity = options.granularity ?? 65_536;
    if (options.granularity === undefined) {
      while (size / granularity / 8 > maximumBitmapLength) granularity *= 2;
    }
    if (granularity < 512 || !Number.isInteger(Math.log2(granularity))) {
      throw new RangeError(`granularity must be a power of two of at least 512: ${granularity}`);
    }
    const length = Math.ceil(Math.ceil(size / granularity) / 8);
    if (length > maximumBitmapLength) {
      throw new RangeError(`granularity ${granularity} needs a bitmap of ${length} bytes for ${size}; make it larger`);
    }
    this.name = name;
    this.size = size;
    this.granularity = granularity;
    this.#bitmap = new Uint8Array(length);
  }

  /** Counts resets, beginning with 1. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * The meta context of this tracking in this epoch and of no other: `diskferry:changes:<name>:<identity>:<epoch>`.
   * Whoever remembers it and does not find it any more knows that writes may have gone by unseen.
   */
  get metaContext(): string {
    return `${changesPrefix}${this.name}:${this.identity}:${this.#epoch}`;
  }

  /**
   * What was changed since the last reset (or the beginning) in [from, to), as it is at this moment: ascending,
   * disjoint, widened to the granularity and clipped to the disk. Later writes do not show in a listing already begun.
   */
  changes(range: { from?: number; to?: number } = {}): Iterable<{ offset: number; length: number }> {
    return listChanges(
      this.#bitmap.slice(),
      this.granularity,
      range.from ?? 0,
      Math.min(range.to ?? this.size, this.size),
    );
  }

  /** The first range of equal state from `from` on, without copying the map. `from` lies within the disk. */
  runAt(from: number, to: number): { length: number; changed: boolean } {
    const { granularity } = this;
    const first = Math.floor(from / granularity);
    const changed = isMarked(this.#bitmap, first);
    const end = runEnd(this.#bitmap, first, Math.ceil(to / granularity), changed);
    return { length: Math.min(end * granularity, to) - from, changed };
  }

  /**
   * Forgets all changes but those of writes under way, and gives the new epoch. List the changes first: both calls are
   * synchronous, so that nothing is lost in between without an `await`. Read the disk only after the reset.
   */
  reset(): number {
    this.#bitmap.fill(0);
    for (const write of this.#underWay) this.#mark(write.offset, write.length);
    this.#epoch += 1;
    return this.#epoch;
  }

  /** Marks a range that is about to be changed. Every call is followed by one of `end`, whatever becomes of it. */
  begin(offset: number, length: number): TrackedWrite {
    const write: TrackedWrite = { offset, length };
    this.#underWay.add(write);
    this.#mark(offset, length);
    return write;
  }

  /** Says that a write settled, well or not. */
  end(write: TrackedWrite): void {
    this.#underWay.delete(write);
  }

  #mark(offset: number, length: number): void {
    if (length === 0) return;
    const bitmap = this.#bitmap;
    let index = Math.floor(offset / this.granularity);
    const end = Math.floor((offset + length - 1) / this.granularity) + 1;
    for (; index < end && index % 8 !== 0; index++) setBit(bitmap, index);
    const wholeEnd = end - (end % 8);
    if (index < wholeEnd) {
      bitmap.fill(0xff, index / 8, wholeEnd / 8);
      index = wholeEnd;
    }
    for (; index < end; index++) setBit(bitmap, index);
  }
}

/** Begins to record changes of a disk. Give it to the export in `tracking`. */
export function trackChanges(options: ChangeTrackingOptions): ChangeTracking {
  return new ChangeTracking(options);
}

function* listChanges(
  bitmap: Uint8Array,
  granularity: number,
  from: number,
  to: number,
): Generator<{ offset: number; length: number }> {
  const last = Math.ceil(to / granularity);
  let index = Math.floor(from / granularity);
  while (index < last) {
    const changed = isMarked(bitmap, index);
    const end = runEnd(bitmap, index, last, changed);
    if (changed) {
      const offset = Math.max(index * granularity, from);
      yield { offset, length: Math.min(end * granularity, to) - offset };
    }
    index = end;
  }
}

/** The end of the run of equal bits that begins at `index`; whole bytes at a time where it can. */
function runEnd(bitmap: Uint8Array, index: number, last: number, marked: boolean): number {
  const uniform = marked ? 0xff : 0;
  let end = index + 1;
  while (end < last) {
    if (end % 8 === 0 && bitmap[end / 8] === uniform) end += 8;
    else if (isMarked(bitmap, end) === marked) end += 1;
    else break;
  }
  return Math.min(end, last);
}

function isMarked(bitmap: Uint8Array, index: number): boolean {
  return ((bitmap[Math.floor(index / 8)] ?? 0) & (1 << (index % 8))) !== 0;
}

function setBit(bitmap: Uint8Array, index: number): void {
  const at = Math.floor(index / 8);
  bitmap[at] = (bitmap[at] ?? 0) | (1 << (index % 8));
}
