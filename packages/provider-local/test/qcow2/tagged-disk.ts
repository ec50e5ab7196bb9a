import { expect } from "vitest";

const SECTOR = 512;

/** The words of a sector written with `tag`: the tag first, then noise of its own. Tag 0: zeroes. */
function taggedWord(tag: number, word: number): number {
  if (tag === 0 || word === 0) return tag;
  return (Math.imul(tag, 0x9e3779b1) ^ Math.imul(word, 0x85ebca6b)) >>> 0;
}

/** Sectors written with `tag`, so that any of them tells which write it came from, and none compresses away. */
export function tagged(length: number, tag: number): Uint8Array {
  const into = new Uint8Array(length);
  const words = new Uint32Array(into.buffer);
  for (let word = 0; word < 128; word++) words[word] = taggedWord(tag, word);
  for (let at = SECTOR; at < into.byteLength; at += SECTOR) into.copyWithin(at, 0, SECTOR);
  return into;
}

/**
 * What a disk may hold: for each sector the value of the last flush, and every value written since, any of which may be
 * what a loss left.
 */
export class TaggedDisk {
  readonly sectors: Uint32Array;
  #since = new Map<number, Set<number>>();
  readonly #patterns = new Map<number, Uint8Array>();

  constructor(size: number) {
    this.sectors = new Uint32Array(size / SECTOR);
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
    for (let sector = 0; sector < this.sectors.length; sector++) this.#expectSector(bytes, sector, undefined, context);
  }

  /** Judges `bytes` read after a loss, and goes on from them. */
  expectPossible(bytes: Uint8Array, context: string): void {
    for (let sector = 0; sector < this.sectors.length; sector++) {
      this.sectors[sector] = this.#expectSector(bytes, sector, this.#since.get(sector), context);
    }
    this.#since.clear();
  }

  #expectSector(bytes: Uint8Array, sector: number, allowed: Set<number> | undefined, context: string): number {
    const view = Buffer.from(bytes.buffer, bytes.byteOffset + sector * SECTOR, SECTOR);
    const found = view.readUInt32LE(0);
    const possible = allowed === undefined ? found === this.sectors[sector] : allowed.has(found);
    if (!possible) {
      const list = [...(allowed ?? [this.sectors[sector]!])].join(", ");
      expect.fail(`${context}: sector ${sector} holds ${found}, possible are ${list}`);
    }
    if (!view.equals(this.#pattern(found))) expect.fail(`${context}: sector ${sector} is torn`);
    return found;
  }

  #pattern(tag: number): Uint8Array {
    let pattern = this.#patterns.get(tag);
    if (pattern === undefined) this.#patterns.set(tag, (pattern = tagged(SECTOR, tag)));
    return pattern;
  }
}
