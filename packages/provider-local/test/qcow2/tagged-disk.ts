import { expect } from "vitest";

const SECTOR = 512;

/** A sector that holds nothing but its tag, so that any sector tells which write it came from. Tag 0: zeroes. */
export function fillTagged(into: Uint8Array, tag: number): void {
  new Uint32Array(into.buffer, into.byteOffset, into.byteLength / 4).fill(tag);
}

/**
 * What a disk may hold: for each sector the value of the last flush, and every value written since, any of which may be
 * what a loss left.
 */
export class TaggedDisk {
  readonly sectors: Uint32Array;
  #since = new Map<number, Set<number>>();

  constructor(size: number, initial?: Uint32Array) {
    this.sectors = new Uint32Array(size / SECTOR);
    if (initial !== undefined) this.sectors.set(initial.subarray(0, this.sectors.length));
  }

  /** A write under way or done: old and new value are both possible from here on. */
  write(offset: number, length: number, tag: number): void {
    for (let sector = offset / SECTOR; sector < (offset + length) / SECTOR; sector++) {
      let values = this.#since.get(sector);
      if (values === undefined) this.#since.set(sector, (values = new Set([this.sectors[sector]!])));
      values.add(tag);
      this.sectors[sector] = tag;
    }
  }

  flushed(): void {
    this.#since.clear();
  }

  /** Judges `bytes` read after all went well. */
  expectExactly(bytes: Uint8Array, context: string): void {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (let sector = 0; sector < this.sectors.length; sector++) this.#expectSector(words, sector, [this.sectors[sector]!], context);
  }

  /** Judges `bytes` read after a loss, and goes on from them. */
  expectPossible(bytes: Uint8Array, context: string): void {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (let sector = 0; sector < this.sectors.length; sector++) {
      this.#expectSector(words, sector, this.#since.get(sector) ?? [this.sectors[sector]!], context);
      this.sectors[sector] = words[sector * 128]!;
    }
    this.#since.clear();
  }

  #expectSector(words: Uint32Array, sector: number, allowed: Iterable<number>, context: string): void {
    const found = words[sector * 128]!;
    const possible = new Set(allowed);
    if (!possible.has(found)) {
      expect.fail(`${context}: sector ${sector} holds ${found}, possible are ${[...possible].join(", ")}`);
    }
    for (let word = 1; word < 128; word++) {
      if (words[sector * 128 + word] !== found) expect.fail(`${context}: sector ${sector} is torn`);
    }
  }
}
