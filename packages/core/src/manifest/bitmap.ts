import type { Extent } from "../provider/extents.ts";

/** Bits per page: 4 KiB of memory, allocated when its first bit is set. */
const pageBits = 32_768;

/** A run of neighbouring leaves. */
export interface LeafRun {
  leaf: number;
  count: number;
}

/** A set of leaves of a disk, one bit each, in memory that follows how much of the disk it touches. */
export class LeafBitmap {
  /** How many leaves the disk has. */
  readonly leaves: number;
  readonly #pages: (Uint32Array | undefined)[] = [];
  #count = 0;

  constructor(leaves: number) {
    if (!Number.isSafeInteger(leaves) || leaves < 0) throw new RangeError(`no number of leaves: ${leaves}`);
    this.leaves = leaves;
  }

  /** How many leaves are in the set. */
  get count(): number {
    return this.#count;
  }

  has(leaf: number): boolean {
    this.#check(leaf, 1);
    const bit = leaf % pageBits;
    return ((this.#pages[Math.floor(leaf / pageBits)]?.[bit >>> 5] ?? 0) & (1 << (bit & 31))) !== 0;
  }

  /** Whether any leaf of [from, to) is in the set. */
  touches(from: number, to: number): boolean {
    return this.#next(from, to, true) < to;
  }

  /** Puts `count` leaves from `leaf` on into the set. */
  set(leaf: number, count = 1): void {
    this.#fill(leaf, count, true);
  }

  /** Takes `count` leaves from `leaf` on out of the set. */
  clear(leaf: number, count = 1): void {
    this.#fill(leaf, count, false);
  }

  /** The runs of the set within [from, to), ascending and longest possible. Changing the set meanwhile is allowed. */
  *runs(from = 0, to: number = this.leaves): Generator<LeafRun, void, undefined> {
    for (let leaf = this.#next(from, to, true); leaf < to;) {
      const end = this.#next(leaf, to, false);
      yield { leaf, count: end - leaf };
      leaf = this.#next(end, to, true);
    }
  }

  /** The runs as extents of a disk of `size` bytes with leaves of `leaf` bytes; the last is cut where the disk ends. */
  *extents(leaf: number, size: number): Generator<Extent, void, undefined> {
    for (const run of this.runs()) {
      const offset = run.leaf * leaf;
      yield { offset, length: Math.min(size, offset + run.count * leaf) - offset };
    }
  }

  /** The first leaf of [from, to) that is in the set (`value`) or not in it; `to` where there is none. */
  #next(from: number, to: number, value: boolean): number {
    const skipped = value ? 0 : 0xffffffff;
    for (let leaf = from; leaf < to;) {
      const page = this.#pages[Math.floor(leaf / pageBits)];
      const bit = leaf % pageBits;
      if (page === undefined) {
        if (!value) return leaf;
        leaf += pageBits - bit;
        continue;
      }
      const word = page[bit >>> 5]!;
      if ((bit & 31) === 0 && word === skipped) {
        leaf += 32;
        continue;
      }
      if (((word >>> (bit & 31)) & 1) === (value ? 1 : 0)) return leaf;
      leaf++;
    }
    return to;
  }

  #fill(leaf: number, count: number, value: boolean): void {
    this.#check(leaf, count);
    const end = leaf + count;
    while (leaf < end) {
      const index = Math.floor(leaf / pageBits);
      const bit = leaf % pageBits;
      let page = this.#pages[index];
      if (page === undefined) {
        if (!value) {
          leaf += pageBits - bit;
          continue;
        }
        page = this.#pages[index] = new Uint32Array(pageBits / 32);
      }
      const bits = Math.min(32 - (bit & 31), end - leaf);
      const mask = bits === 32 ? 0xffffffff : ((1 << bits) - 1) << (bit & 31);
      const before = page[bit >>> 5]!;
      page[bit >>> 5] = value ? before | mask : before & ~mask;
      this.#count += ones(page[bit >>> 5]!) - ones(before);
      leaf += bits;
    }
  }

  #check(leaf: number, count: number): void {
    if (
      !(Number.isInteger(leaf) && Number.isInteger(count) && leaf >= 0 && count >= 0 && leaf + count <= this.leaves)
    ) {
      throw new RangeError(`leaves ${leaf} to ${leaf + count} are not within the disk's ${this.leaves}`);
    }
  }
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
