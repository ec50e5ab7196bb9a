import type { Extent } from "../provider/extents.ts";

/** A set of bytes of a disk, held as ascending extents that neither touch nor overlap. */
export class ExtentSet implements Iterable<Extent> {
  #starts: number[] = [];
  #ends: number[] = [];

  /** Bytes in the set. */
  get bytes(): number {
    let total = 0;
    for (let index = 0; index < this.#starts.length; index++) total += this.#ends[index]! - this.#starts[index]!;
    return total;
  }

  get isEmpty(): boolean {
    return this.#starts.length === 0;
  }

  add(offset: number, length: number): void {
    if (length <= 0) return;
    const end = offset + length;
    const first = firstAtLeast(this.#ends, offset);
    let last = first;
    let start = offset;
    let stop = end;
    while (last < this.#starts.length && this.#starts[last]! <= end) {
      start = Math.min(start, this.#starts[last]!);
      stop = Math.max(stop, this.#ends[last]!);
      last++;
    }
    this.#starts.splice(first, last - first, start);
    this.#ends.splice(first, last - first, stop);
  }

  remove(offset: number, length: number): void {
    if (length <= 0) return;
    const end = offset + length;
    const first = firstAtLeast(this.#ends, offset + 1);
    let last = first;
    const starts: number[] = [];
    const ends: number[] = [];
    while (last < this.#starts.length && this.#starts[last]! < end) {
      if (this.#starts[last]! < offset) {
        starts.push(this.#starts[last]!);
        ends.push(offset);
      }
      if (this.#ends[last]! > end) {
        starts.push(end);
        ends.push(this.#ends[last]!);
      }
      last++;
    }
    this.#starts.splice(first, last - first, ...starts);
    this.#ends.splice(first, last - first, ...ends);
  }

  addAll(extents: Iterable<Extent>): void {
    for (const { offset, length } of extents) this.add(offset, length);
  }

  /** The first bytes of this set that `other` lacks, or undefined when `other` holds them all. */
  firstOutside(other: ExtentSet): Extent | undefined {
    for (const { offset, length } of this) {
      let at = offset;
      for (const held of other.within(offset, offset + length)) {
        if (held.offset > at) return { offset: at, length: held.offset - at };
        at = held.offset + held.length;
      }
      if (at < offset + length) return { offset: at, length: offset + length - at };
    }
    return undefined;
  }

  /** The part of the set in [from, to), ascending. */
  *within(from: number, to: number): IterableIterator<Extent> {
    for (let index = firstAtLeast(this.#ends, from + 1); index < this.#starts.length; index++) {
      const start = Math.max(from, this.#starts[index]!);
      const end = Math.min(to, this.#ends[index]!);
      if (start >= end) return;
      yield { offset: start, length: end - start };
    }
  }

  /** The same set with every extent widened outward to multiples of `unit`, cut off at `size`. */
  widened(unit: number, size: number): ExtentSet {
    const wide = new ExtentSet();
    for (const { offset, length } of this) {
      const start = Math.floor(offset / unit) * unit;
      wide.add(start, Math.min(size, Math.ceil((offset + length) / unit) * unit) - start);
    }
    return wide;
  }

  [Symbol.iterator](): IterableIterator<Extent> {
    return this.within(0, Number.MAX_SAFE_INTEGER);
  }
}

/** The index of the first of the ascending `values` that is at least `bound`. */
function firstAtLeast(values: readonly number[], bound: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}
