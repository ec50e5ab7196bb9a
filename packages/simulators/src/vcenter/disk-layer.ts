import { randomUUID } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from "node:fs";

/** The unit in which a layer remembers what it holds and when it changed, in bytes. */
export const grainSize = 65536;

const grainsPerPage = 1024;
const pageSize = grainSize * grainsPerPage;
const zeroes = new Uint8Array(grainSize);

const absent = 0;
const held = 1;
const zeroed = 2;

interface Page {
  readonly states: Uint8Array;
  readonly sequences: Uint32Array;
}

/** Part of a disk as a listing reports it. */
export interface Area {
  start: number;
  length: number;
}

/**
 * One file of a disk's chain: the base disk, or a delta that holds what was written since a snapshot and lets the rest
 * shine through from its parent. The bytes are in a sparse file that exists from the first write on; beside them a layer
 * knows for each 64 KiB the change sequence of its last write, 0 where no tracker saw one.
 */
export class DiskLayer {
  /** The name on the datastore: `[datastore1] web/web-000001.vmdk`. */
  readonly fileName: string;
  /** The sparse file; a base layer's is the raw content of its `-flat.vmdk`. */
  readonly path: string;
  /** What the file is called as an object, on datastores that have no files. */
  readonly objectId: string = randomUUID();
  parent: DiskLayer | undefined;
  capacity: number;
  readonly #pages = new Map<number, Page>();
  #descriptor: number | undefined;

  constructor(fileName: string, path: string, capacity: number, parent?: DiskLayer) {
    this.fileName = fileName;
    this.path = path;
    this.capacity = capacity;
    this.parent = parent;
  }

  /** How many layers the chain has, this one included. */
  get depth(): number {
    return 1 + (this.parent?.depth ?? 0);
  }

  /** Fills `into` with the chain's bytes from `offset` on. */
  read(offset: number, into: Uint8Array): void {
    forGrains(offset, into.length, (grain, from, to, position) => {
      const part = into.subarray(position, position + to - from);
      const layer = this.#holder(grain);
      if (layer === undefined || layer.#state(grain) === zeroed) part.fill(0);
      else layer.#readOwn(grain * grainSize + from, part);
    });
  }

  /** Writes into this layer; `sequence` marks the grains as changed. */
  write(offset: number, bytes: Uint8Array, sequence: number): void {
    forGrains(offset, bytes.length, (grain, from, to, position) => {
      const page = this.#page(grain);
      const slot = grain % grainsPerPage;
      if (page.states[slot] !== held && to - from < grainSize && (this.parent !== undefined || page.states[slot])) {
        const whole = new Uint8Array(grainSize);
        this.read(grain * grainSize, whole);
        this.#writeOwn(grain * grainSize, whole.subarray(0, Math.min(grainSize, this.capacity - grain * grainSize)));
      }
      this.#writeOwn(grain * grainSize + from, bytes.subarray(position, position + to - from));
      page.states[slot] = held;
      if (sequence > 0) page.sequences[slot] = sequence;
    });
  }

  /** Makes a range read as zeroes; whole grains become unallocated. */
  trim(offset: number, length: number, sequence: number): void {
    forGrains(offset, length, (grain, from, to) => {
      if (to - from < grainSize && grain * grainSize + to < this.capacity) {
        this.write(grain * grainSize + from, zeroes.subarray(0, to - from), sequence);
        return;
      }
      const page = this.#page(grain);
      this.#clear(grain, page);
      if (sequence > 0) page.sequences[grain % grainsPerPage] = sequence;
    });
  }

  /** Marks a range as changed as if the guest had written the bytes that are there already; costs no space. */
  touch(offset: number, length: number, sequence: number): void {
    forGrains(offset, length, (grain) => {
      const page = this.#page(grain);
      const slot = grain % grainsPerPage;
      if (this.parent === undefined && page.states[slot] === absent) page.states[slot] = held;
      page.sequences[slot] = sequence;
    });
  }

  /** Forgets every change sequence of the chain, as a reset of the tracker does. */
  forgetSequences(): void {
    for (const page of this.#pages.values()) page.sequences.fill(0);
    this.parent?.forgetSequences();
  }

  /**
   * Takes over what a delta on top of this layer holds and removes the delta's file. `keepsSequence` is asked for each
   * changed grain and says whether its mark survives.
   */
  absorb(delta: DiskLayer, keepsSequence: (grain: number) => boolean): void {
    const bytes = new Uint8Array(grainSize);
    this.capacity = delta.capacity;
    for (const [index, source] of delta.#pages) {
      for (let slot = 0; slot < grainsPerPage; slot++) {
        const state = source.states[slot] ?? absent;
        const sequence = source.sequences[slot] ?? 0;
        if (state === absent && sequence === 0) continue;
        const grain = index * grainsPerPage + slot;
        const page = this.#page(grain);
        if (state === held) {
          const part = bytes.subarray(0, Math.min(grainSize, this.capacity - grain * grainSize));
          delta.#readOwn(grain * grainSize, part);
          this.#writeOwn(grain * grainSize, part);
          page.states[slot] = held;
        } else if (state === zeroed) {
          this.#clear(grain, page);
        }
        if (keepsSequence(grain)) page.sequences[slot] = Math.max(page.sequences[slot] ?? 0, sequence);
      }
    }
    delta.discard();
  }

  /**
   * Lists ascending, disjoint areas of [start, end) of whole blocks of `granularity` in which a grain is of interest, at
   * most `limit` of them. `covered` is where the listing stopped: `end` unless the limit was met.
   */
  areas(
    kind: { allocated: true } | { since: number },
    range: { start: number; end: number; limit: number; granularity: number },
    also: (block: number) => boolean = () => false,
  ): { areas: Area[]; covered: number } {
    const found: Area[] = [];
    const { start, end, limit, granularity } = range;
    let last = -1;
    for (const index of this.#pageIndexes(start, end)) {
      const until = Math.min(end, (index + 1) * pageSize);
      for (let offset = Math.max(start, index * pageSize); offset < until;) {
        const block = Math.floor(offset / granularity);
        const next = Math.min((block + 1) * granularity, end);
        if (block !== last && (this.#ofInterest(block, granularity, kind) || also(block))) {
          last = block;
          const area = found.at(-1);
          if (area !== undefined && area.start + area.length === offset) area.length = next - area.start;
          else if (found.length === limit) return { areas: found, covered: offset };
          else found.push({ start: offset, length: next - offset });
        }
        offset = next;
      }
    }
    return { areas: found, covered: end };
  }

  /** Bytes that this layer's file holds. */
  get allocatedBytes(): number {
    let grains = 0;
    for (const page of this.#pages.values()) for (const state of page.states) if (state === held) grains++;
    return grains * grainSize;
  }

  /** Makes the file exist with its full length, for those who read it by themselves. */
  materialize(): string {
    ftruncateSync(this.#open(), this.capacity);
    return this.path;
  }

  /** Closes and removes the file. */
  discard(): void {
    this.close();
    rmSync(this.path, { force: true });
    this.#pages.clear();
  }

  /** Closes the file and keeps it. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #ofInterest(block: number, granularity: number, kind: { allocated: true } | { since: number }): boolean {
    const first = (block * granularity) / grainSize;
    for (let grain = first; grain < first + granularity / grainSize; grain++) {
      if ("allocated" in kind) {
        const layer = this.#holder(grain);
        if (layer !== undefined && layer.#state(grain) === held) return true;
        continue;
      }
      if (this.#changedSince(grain, Math.max(kind.since, 1))) return true;
    }
    return false;
  }

  /** The pages of the whole chain that meet the range, ascending. */
  #pageIndexes(start: number, end: number): number[] {
    const indexes = new Set<number>();
    this.#collectPages(start, end, indexes);
    return [...indexes].toSorted((one, other) => one - other);
  }

  /** The topmost layer that knows the grain's bytes. */
  #holder(grain: number): DiskLayer | undefined {
    if (this.#state(grain) !== absent) return this;
    return this.parent === undefined ? undefined : this.parent.#holder(grain);
  }

  #changedSince(grain: number, sequence: number): boolean {
    if (this.#sequence(grain) >= sequence) return true;
    return this.parent !== undefined && this.parent.#changedSince(grain, sequence);
  }

  #collectPages(start: number, end: number, into: Set<number>): void {
    for (const index of this.#pages.keys()) {
      if (index * pageSize < end && (index + 1) * pageSize > start) into.add(index);
    }
    if (this.parent !== undefined) this.parent.#collectPages(start, end, into);
  }

  #state(grain: number): number {
    return this.#pages.get(Math.floor(grain / grainsPerPage))?.states[grain % grainsPerPage] ?? absent;
  }

  #sequence(grain: number): number {
    return this.#pages.get(Math.floor(grain / grainsPerPage))?.sequences[grain % grainsPerPage] ?? 0;
  }

  #page(grain: number): Page {
    const index = Math.floor(grain / grainsPerPage);
    const known = this.#pages.get(index);
    if (known !== undefined) return known;
    const made = { states: new Uint8Array(grainsPerPage), sequences: new Uint32Array(grainsPerPage) };
    this.#pages.set(index, made);
    return made;
  }

  /** A base file is served as it is, so its zeroes are written; a delta only remembers them. */
  #clear(grain: number, page: Page): void {
    const slot = grain % grainsPerPage;
    const offset = grain * grainSize;
    if (page.states[slot] === held)
      this.#writeOwn(offset, zeroes.subarray(0, Math.min(grainSize, this.capacity - offset)));
    page.states[slot] = zeroed;
  }

  #readOwn(offset: number, into: Uint8Array): void {
    const count = this.#descriptor === undefined ? 0 : readSync(this.#descriptor, into, 0, into.length, offset);
    into.fill(0, count);
  }

  #writeOwn(offset: number, bytes: Uint8Array): void {
    writeSync(this.#open(), bytes, 0, bytes.length, offset);
  }

  #open(): number {
    this.#descriptor ??= openSync(this.path, "w+");
    return this.#descriptor;
  }
}

/** Visits the grains of a range: the grain, the part of it inside the range, and where that part is in the range. */
function forGrains(
  offset: number,
  length: number,
  visit: (grain: number, from: number, to: number, position: number) => void,
): void {
  for (let at = offset; at < offset + length;) {
    const grain = Math.floor(at / grainSize);
    const from = at - grain * grainSize;
    const to = Math.min(grainSize, offset + length - grain * grainSize);
    visit(grain, from, to, at - offset);
    at += to - from;
  }
}
