import { createHash } from "node:crypto";
import type { Tile } from "../provider/extents.ts";
import { LeafBitmap } from "../manifest/bitmap.ts";

/** The leaves that a listing calls unchanged from end to end; its tiles are passed on, and it is filled as they pass. */
export class UnchangedLeaves {
  readonly leaves: LeafBitmap;
  readonly #leaf: number;

  constructor(size: number, leaf: number) {
    this.leaves = new LeafBitmap(Math.ceil(size / leaf));
    this.leaves.set(0, this.leaves.leaves);
    this.#leaf = leaf;
  }

  async *watch(tiles: AsyncIterable<Tile>): AsyncGenerator<Tile, void> {
    for await (const tile of tiles) {
      this.note(tile);
      yield tile;
    }
  }

  note(tile: Tile): void {
    if (tile.kind === "unchanged") return;
    const first = Math.floor(tile.offset / this.#leaf);
    this.leaves.clear(first, Math.ceil((tile.offset + tile.length) / this.#leaf) - first);
  }
}

/** `count` leaves of a set, evenly chosen without repetition, in memory that follows the sample. */
export function chooseLeaves(from: LeafBitmap, count: number, random: (limit: number) => number): LeafBitmap {
  if (from.count <= count) return from;
  // Floyd's sampling over positions within the set; then one pass turns positions into leaves.
  const positions = new Set<number>();
  for (let last = from.count - count; last < from.count; last++) {
    const position = random(last + 1);
    positions.add(positions.has(position) ? last : position);
  }
  const sorted = [...positions].sort((left, right) => left - right);
  const chosen = new LeafBitmap(from.leaves);
  let passed = 0;
  let next = 0;
  for (const run of from.runs()) {
    while (next < sorted.length && sorted[next]! < passed + run.count) {
      chosen.set(run.leaf + sorted[next]! - passed);
      next++;
    }
    passed += run.count;
    if (next === sorted.length) break;
  }
  return chosen;
}

/**
 * The share of changed leaves that a clean sample excludes: were it larger, a sample of this size without a hit would
 * have a probability below 1 − confidence (drawing without replacement is at least as good as (1 − p)^n).
 */
export function boundOf(population: number, sampled: number, confidence: number): number {
  if (sampled >= population) return 0;
  return 1 - (1 - confidence) ** (1 / sampled);
}

/** Evenly distributed numbers below a limit of at most 2^47, the same ones again for the same seed. */
export function seededRandom(seed: string): (limit: number) => number {
  let count = 0;
  return (limit) => {
    const beyond = 2 ** 48 - (2 ** 48 % limit);
    for (;;) {
      const number = createHash("sha256").update(`${seed}/${count++}`).digest().readUIntBE(0, 6);
      if (number < beyond) return number % limit;
    }
  };
}
