import type { StoredBlock } from "./block-pool.ts";
import type { SyntheticContent } from "./synthetic-content.ts";

/**
 * The blocks of one volume or snapshot by index: what was written, over content that may be computed. Listing a page
 * costs the page, whatever the size of the rest.
 */
export class BlockTable {
  /** What shows where nothing was written. */
  readonly base: SyntheticContent | undefined;
  /** null: freed, though the base has data there. */
  readonly #written: Map<number, StoredBlock | null>;
  #sorted: Uint32Array | undefined;

  constructor(base?: SyntheticContent, written?: Iterable<[number, StoredBlock | null]>) {
    this.base = base;
    this.#written = new Map(written);
  }

  /** The same blocks in a table of its own. */
  copy(): BlockTable {
    return new BlockTable(this.base, this.#written);
  }

  get(index: number): StoredBlock | undefined {
    const written = this.#written.get(index);
    if (written !== undefined) return written ?? undefined;
    return this.base?.has(index) === true ? { synthetic: this.base, index } : undefined;
  }

  set(index: number, block: StoredBlock): void {
    if (!this.#written.has(index)) this.#sorted = undefined;
    this.#written.set(index, block);
  }

  /** Frees the blocks from `first` up to and without `end`. */
  free(first: number, end: number): void {
    this.#sorted = undefined;
    for (const index of [...this.#written.keys()]) if (index >= first && index < end) this.#written.delete(index);
    for (let index = this.base?.next(first); index !== undefined && index < end; index = this.base?.next(index + 1))
      this.#written.set(index, null);
  }

  /** Whether both tables hold the very same block there; equal bytes written anew are not the same. */
  isSame(other: BlockTable, index: number): boolean {
    const [mine, theirs] = [this.#written.get(index), other.#written.get(index)];
    if (mine === undefined && theirs === undefined) return this.base === other.base;
    return (
      (mine === undefined ? this.get(index) : (mine ?? undefined)) ===
      (theirs === undefined ? other.get(index) : (theirs ?? undefined))
    );
  }

  /** Indices of the blocks with data, ascending, from one index on. */
  *indices(from: number): Generator<number> {
    const base = this.base;
    for (const index of merged(this.#writtenFrom(from), base === undefined ? [] : baseFrom(base, from)))
      if (this.#written.get(index) !== null) yield index;
  }

  /** Indices that either table has and that are not the same in both, or divide by `every` (0: only those). */
  static *differences(first: BlockTable, second: BlockTable, from: number, every: number): Generator<number> {
    const shared = first.base === second.base && every === 0;
    const candidates = shared
      ? merged(first.#writtenFrom(from), second.#writtenFrom(from))
      : merged(first.indices(from), second.indices(from));
    for (const index of candidates) {
      if (!first.isSame(second, index)) yield index;
      else if (every > 0 && index % every === 0) yield index;
    }
  }

  *#writtenFrom(from: number): Generator<number> {
    const sorted = (this.#sorted ??= Uint32Array.from(this.#written.keys()).sort());
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sorted[middle] ?? 0) < from) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < sorted.length; at++) yield sorted[at] ?? 0;
  }
}

function* baseFrom(base: SyntheticContent, from: number): Generator<number> {
  for (let index = base.next(from); index !== undefined; index = base.next(index + 1)) yield index;
}

/** Two ascending sequences as one, without doubles. */
function* merged(one: Iterable<number>, two: Iterable<number>): Generator<number> {
  const [left, right] = [one[Symbol.iterator](), two[Symbol.iterator]()];
  let [a, b] = [left.next(), right.next()];
  while (a.done !== true || b.done !== true) {
    const x: number = a.done === true ? Infinity : a.value;
    const y: number = b.done === true ? Infinity : b.value;
    yield Math.min(x, y);
    if (x <= y) a = left.next();
    if (y <= x) b = right.next();
  }
}
