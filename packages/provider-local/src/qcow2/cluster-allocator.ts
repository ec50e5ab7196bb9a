/** A run of clusters of the image's file. */
export interface ClusterRun {
  readonly first: number;
  readonly count: number;
}

/** Words before the bitmap: tail (64 bits), era, free clusters, where to look next, unused. */
const WORDS_BEFORE = 8;
const ERA = 2;
const FREE = 3;
const NEXT = 4;

/**
 * Hands out clusters of an image's file, to several threads at once: first the free ones below the end that are known,
 * then new ones at the end. All state is in shared memory.
 */
export class ClusterAllocator {
  readonly memory: SharedArrayBuffer;
  readonly #tail: BigInt64Array;
  readonly #words: Int32Array;
  readonly #bitmapWords: number;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#tail = new BigInt64Array(memory, 0, 1);
    this.#words = new Int32Array(memory);
    this.#bitmapWords = this.#words.length - WORDS_BEFORE;
  }

  /** `used(cluster)`: whether a cluster below `tail` is taken; only the first `known` are asked about. */
  static over(tail: number, known: number, used: (cluster: number) => boolean): ClusterAllocator {
    const words = Math.ceil(Math.min(tail, known) / 32);
    const allocator = new ClusterAllocator(new SharedArrayBuffer((WORDS_BEFORE + words) * 4));
    allocator.#tail[0] = BigInt(tail);
    let free = 0;
    for (let cluster = 0; cluster < words * 32; cluster++) {
      // The last word may reach beyond what is known: those bits count as taken.
      if (cluster >= Math.min(tail, known) || used(cluster)) {
        allocator.#words[WORDS_BEFORE + (cluster >>> 5)]! |= 1 << (cluster & 31);
      } else {
        free++;
      }
    }
    allocator.#words[FREE] = free;
    return allocator;
  }

  /** The first cluster never handed out. */
  get tail(): number {
    return Number(Atomics.load(this.#tail, 0));
  }

  /** Counts the commits: clusters kept from an earlier era are no longer theirs who kept them. */
  get era(): number {
    return Atomics.load(this.#words, ERA);
  }

  /** `count` clusters side by side, at the end of the file. */
  contiguous(count: number): number {
    return Number(Atomics.add(this.#tail, 0, BigInt(count)));
  }

  /** Takes back clusters that are still the file's last; tells whether they were. */
  shrink(first: number, count: number): boolean {
    const end = BigInt(first + count);
    return Atomics.compareExchange(this.#tail, 0, end, BigInt(first)) === end;
  }

  /** `count` clusters in as few runs as there are. */
  allocate(count: number): ClusterRun[] {
    const runs: ClusterRun[] = [];
    let left = count;
    while (left > 0 && Atomics.load(this.#words, FREE) > 0) {
      const cluster = this.#claim();
      if (cluster === undefined) break;
      const last = runs.at(-1);
      if (last !== undefined && last.first + last.count === cluster) {
        runs[runs.length - 1] = { first: last.first, count: last.count + 1 };
      } else {
        runs.push({ first: cluster, count: 1 });
      }
      left--;
    }
    if (left > 0) runs.push({ first: this.contiguous(left), count: left });
    return runs;
  }

  /** Gives a cluster back. Only once nothing durable refers to it any more. */
  free(cluster: number): void {
    const word = WORDS_BEFORE + (cluster >>> 5);
    if (cluster >= this.#bitmapWords * 32) return;
    const bit = 1 << (cluster & 31);
    if ((Atomics.and(this.#words, word, ~bit) & bit) !== 0) {
      Atomics.add(this.#words, FREE, 1);
      Atomics.store(this.#words, NEXT, Math.min(Atomics.load(this.#words, NEXT), cluster >>> 5));
    }
  }

  #claim(): number | undefined {
    const from = Atomics.load(this.#words, NEXT);
    for (let step = 0; step < this.#bitmapWords; step++) {
      const index = (from + step) % this.#bitmapWords;
      for (;;) {
        const word = Atomics.load(this.#words, WORDS_BEFORE + index);
        if (word === -1) break;
        const position = 31 - Math.clz32(~word & (word + 1));
        const bit = 1 << position;
        if ((Atomics.or(this.#words, WORDS_BEFORE + index, bit) & bit) !== 0) continue;
        Atomics.sub(this.#words, FREE, 1);
        Atomics.store(this.#words, NEXT, index);
        return index * 32 + position;
      }
    }
    return undefined;
  }

  /** Begins anew after a commit: the file ends at `tail`, and nothing below is handed out before the next opening. */
  reset(tail: number): void {
    Atomics.add(this.#words, ERA, 1);
    Atomics.store(this.#tail, 0, BigInt(tail));
    Atomics.store(this.#words, FREE, 0);
    // What was free may hold the new refcounts by now: only what is freed from here on is.
    for (let word = 0; word < this.#bitmapWords; word++) Atomics.store(this.#words, WORDS_BEFORE + word, -1);
  }
}
