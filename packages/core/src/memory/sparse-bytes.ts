import { ExtentSet } from "./extent-set.ts";

const pageLength = 16 * 1024;

interface Page {
  bytes: Uint8Array;
  /** The only one who may write into `bytes`; everybody else copies first. */
  owner: symbol;
}

/**
 * The bytes of a disk in memory. Ranges never written cost nothing, so a disk of 1 TiB may stand in a test; a fork
 * shares its pages until either side writes.
 */
export class SparseBytes {
  #size: number;
  #pages: Map<number, Page> = new Map();
  #owner: symbol = Symbol("pages");

  constructor(size: number) {
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  /** Whether nothing is stored: every byte is zero. */
  get isEmpty(): boolean {
    return this.#pages.size === 0;
  }

  /** Where bytes are stored, in whole pages; everything outside reads as zeroes. */
  allocated(): ExtentSet {
    const extents = new ExtentSet();
    for (const page of [...this.#pages.keys()].sort((one, other) => one - other)) {
      const offset = page * pageLength;
      extents.add(offset, Math.min(pageLength, this.#size - offset));
    }
    return extents;
  }

  read(offset: number, into: Uint8Array): void {
    for (const part of this.#parts(offset, into.byteLength)) {
      const target = into.subarray(part.done, part.done + part.length);
      const page = this.#pages.get(part.page);
      if (page === undefined) target.fill(0);
      else target.set(page.bytes.subarray(part.start, part.start + part.length));
    }
  }

  /** Copies `data`; keeps no reference to it. */
  write(offset: number, data: Uint8Array): void {
    for (const part of this.#parts(offset, data.byteLength)) {
      this.#own(part.page).set(data.subarray(part.done, part.done + part.length), part.start);
    }
  }

  zero(offset: number, length: number): void {
    this.#check(offset, length);
    if (length === 0) return;
    const end = offset + length;
    const firstWhole = Math.ceil(offset / pageLength);
    const lastWhole = end === this.#size ? Math.ceil(end / pageLength) : Math.floor(end / pageLength);
    if (lastWhole - firstWhole > this.#pages.size) {
      for (const page of [...this.#pages.keys()]) if (page >= firstWhole && page < lastWhole) this.#pages.delete(page);
    } else {
      for (let page = firstWhole; page < lastWhole; page++) this.#pages.delete(page);
    }
    for (const page of new Set([Math.floor(offset / pageLength), Math.floor((end - 1) / pageLength)])) {
      if (!this.#pages.has(page)) continue;
      const start = Math.max(0, offset - page * pageLength);
      this.#own(page).fill(0, start, Math.min(pageLength, end - page * pageLength));
    }
  }

  /** What is cut off is forgotten: growing again shows zeroes there. */
  resize(size: number): void {
    if (size < this.#size) this.zero(size, this.#size - size);
    this.#size = size;
  }

  /** A copy that shares every page until one of the two writes it. */
  fork(): SparseBytes {
    const copy = new SparseBytes(this.#size);
    copy.#pages = new Map(this.#pages);
    this.#owner = Symbol("pages");
    return copy;
  }

  #own(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page?.owner === this.#owner) return page.bytes;
    const bytes = page === undefined ? new Uint8Array(pageLength) : page.bytes.slice();
    this.#pages.set(index, { bytes, owner: this.#owner });
    return bytes;
  }

  *#parts(offset: number, length: number): Generator<{ page: number; start: number; length: number; done: number }> {
    this.#check(offset, length);
    for (let done = 0; done < length;) {
      const page = Math.floor((offset + done) / pageLength);
      const start = offset + done - page * pageLength;
      const piece = Math.min(pageLength - start, length - done);
      yield { page, start, length: piece, done };
      done += piece;
    }
  }

  #check(offset: number, length: number): void {
    if (offset < 0 || length < 0 || offset + length > this.#size) {
      throw new RangeError(`bytes ${offset}+${length} lie outside a disk of ${this.#size} bytes`);
    }
  }
}
