import type { Wait } from "@diskferry/core/provider";
import { readFully } from "./image-file.ts";
import { COPIED_FLAG, type Qcow2Image, entryOffset } from "./qcow2-image.ts";

/** A part of the file's clusters whose references are counted in one pass: `counts[i]` is for cluster `first + i`. */
export interface CountWindow {
  readonly first: number;
  readonly counts: Uint16Array;
}

/** Set in a count where one of the references wants the cluster for itself: with another one beside it they overlap. */
export const EXCLUSIVE = 0x8000;
/** The bits of a count that count; it stays at the highest value rather than wrap. */
export const COUNT_MASK = 0x7fff;
/** Clusters counted per pass: 8 MiB of counts whatever the size of the image, 256 GiB of 64 KiB clusters. */
export const WINDOW_CLUSTERS: number = 4 * 1024 * 1024;

/**
 * Clusters kept behind the end of the file follow it closely: no more than its tables have entries, of 8 bytes each. Twice
 * that far they are taken for damage, lest whoever counts all up to the highest counts for ever.
 */
function furthestCluster(image: Qcow2Image): number {
  const { header, fileSize, slots } = image;
  // The tables of snapshots are not known before they are read.
  const entries = header.snapshots === 0 ? header.l1Size * slots : Infinity;
  return 2 * Math.ceil(fileSize / header.clusterSize + Math.min(fileSize / 8, entries));
}

/** How many counts a window over an image needs: no more than its file may name. */
export function windowLength(image: Qcow2Image): number {
  return Math.min(WINDOW_CLUSTERS, furthestCluster(image) + 1);
}

export interface CountOptions extends Wait {
  /** Told once of everything that cannot be right; may throw to end the count. */
  problem(message: string): void;
  /** Whether the refcount table and its blocks count as references. */
  refcounts: boolean;
}

/** What a pass over all references found, beside the counts. */
export interface ReferenceSummary {
  /** The highest cluster of the file that is referred to. */
  highest: number;
  /** Clusters of guest data with a place in the file, packed ones included; of the active disk alone. */
  allocated: number;
}

/** Snapshots that an image may have (qemu: QCOW_MAX_SNAPSHOTS). */
const SNAPSHOT_LIMIT = 65536;

/** Who is said to name a cluster; undefined: the entry of an L2 table that is being counted. */
type Namer = string | undefined;

/**
 * Counts who refers to which cluster of an image's file: header, tables, data, internal snapshots and bitmaps, of an image
 * that stays as it is meanwhile. Only one window's counts are in memory; the first one begins at 0. Its pass reads every
 * L2 table once, and later ones only those that name something in their window.
 */
export class ReferenceCounter {
  readonly #summary: ReferenceSummary = { highest: 0, allocated: 0 };
  readonly #image: Qcow2Image;
  readonly #options: CountOptions;
  readonly #table: Buffer;
  /** For each L2 table of the active disk the lowest and the highest cluster that it names; none: the highest is -1. */
  readonly #reach: Float64Array;
  #window: CountWindow = { first: 0, counts: new Uint16Array(0) };
  #index = 0;
  #slot = 0;
  #lowest = 0;
  #highest = 0;

  constructor(image: Qcow2Image, options: CountOptions) {
    this.#image = image;
    this.#options = options;
    this.#table = Buffer.allocUnsafeSlow(image.header.clusterSize);
    this.#reach = new Float64Array(image.l1.byteLength / 4);
  }

  /** Counts what refers to the window's clusters. Resolves with what the pass over the first window found. */
  async count(window: CountWindow): Promise<ReferenceSummary> {
    this.#window = window;
    await this.#countAll();
    return this.#summary;
  }

  async #countAll(): Promise<void> {
    const { header, l1 } = this.#image;
    this.#add(0, header.clusterSize, true, "the header");
    if (this.#options.refcounts) await this.#countRefcounts();
    this.#add(header.l1Offset, header.l1Size * 8, true, "the L1 table");
    await this.#countTree(l1, true);
    if (header.snapshots > 0) await this.#countSnapshots();
    if (header.bitmaps !== undefined) await this.#countBitmaps(header.bitmaps);
  }

  /** Of what a pass over another window tells too. */
  #problem(message: string): void {
    if (this.#window.first === 0) this.#options.problem(message);
  }

  #named(namer: Namer): string {
    return namer ?? `entry ${this.#slot} of L2 table ${this.#index}`;
  }

  #add(host: number, length: number, exclusive: boolean, namer: Namer): void {
    if (length === 0) return;
    // A packed cluster's last sectors need not exist, a plain one's end neither; its first byte must.
    if (host >= this.#image.fileSize) this.#problem(`${this.#named(namer)} names ${host}, beyond the end of the file`);
    else this.#count(host, length, exclusive, namer);
  }

  #count(host: number, length: number, exclusive: boolean, namer: Namer): void {
    const { clusterSize, snapshots } = this.#image.header;
    const first = Math.floor(host / clusterSize);
    const last = Math.floor((host + length - 1) / clusterSize);
    if (first < this.#lowest) this.#lowest = first;
    if (last > this.#highest) this.#highest = last;
    const { counts, first: base } = this.#window;
    if (last > this.#summary.highest) this.#summary.highest = last;
    for (let cluster = Math.max(first, base); cluster <= last && cluster - base < counts.length; cluster++) {
      const before = counts[cluster - base]!;
      if ((before & COUNT_MASK) !== 0 && (exclusive || (before & EXCLUSIVE) !== 0) && snapshots === 0) {
        const place = cluster * clusterSize;
        this.#options.problem(`${this.#named(namer)} names the cluster at ${place}, which something else names too`);
      }
      const flag = before & EXCLUSIVE ? EXCLUSIVE : exclusive ? EXCLUSIVE : 0;
      counts[cluster - base] = Math.min((before & COUNT_MASK) + 1, COUNT_MASK) | flag;
    }
  }

  #aligned(host: number, what: string): boolean {
    const { clusterSize } = this.#image.header;
    if (host % clusterSize === 0 && host >= clusterSize) return true;
    this.#problem(`${what} names ${host}, where no cluster can be`);
    return false;
  }

  /** Whether a table lies inside the file, which bounds the memory it is read into. */
  #inFile(offset: number, length: number, what: string): boolean {
    if (offset + length <= this.#image.fileSize) return true;
    this.#problem(`${what} has a table of ${length} bytes at ${offset}, beyond the end of the file`);
    return false;
  }

  async #countRefcounts(): Promise<void> {
    const { file, header } = this.#image;
    const { refcountOffset, refcountClusters, clusterSize } = header;
    this.#add(refcountOffset, refcountClusters * clusterSize, true, "the refcount table");
    const table = Buffer.alloc(refcountClusters * clusterSize);
    await readFully(file, table, refcountOffset, "refcount table");
    for (const [index, host] of refcountBlocks(table)) {
      const what = `entry ${index} of the refcount table`;
      if (!this.#aligned(host, what)) continue;
      if (host + clusterSize > this.#image.fileSize) {
        this.#problem(`${what} names a block at ${host}, beyond the end of the file`);
      } else {
        this.#add(host, clusterSize, true, what);
      }
    }
  }

  async #countTree(l1: Buffer, active: boolean): Promise<void> {
    const { file, header, entrySize, slots } = this.#image;
    const { clusterSize } = header;
    const strict = active && header.snapshots === 0;
    for (let index = 0; index * 8 < l1.byteLength; index++) {
      const high = l1.readUInt32BE(index * 8);
      const host = entryOffset(high, l1.readUInt32BE(index * 8 + 4));
      if (host === 0) continue;
      this.#options.signal?.throwIfAborted();
      this.#index = index;
      const what = `L1 entry ${index}`;
      if (!this.#aligned(host, what)) continue;
      this.#add(host, clusterSize, true, what);
      if (host + clusterSize > this.#image.fileSize) {
        this.#problem(`${what} names an L2 table at ${host}, beyond the end of the file`);
        continue;
      }
      if (strict && (high & COPIED_FLAG) === 0) this.#problem(`${what} is not marked as used once`);
      if (active && !this.#reaches(index)) continue;
      await readFully(file, this.#table, host, "L2 tables");
      this.#lowest = Infinity;
      this.#highest = -1;
      for (let slot = 0; slot < slots; slot++) {
        const at = slot * entrySize;
        if (this.#table.readInt32BE(at) === 0 && this.#table.readInt32BE(at + 4) === 0) continue;
        this.#slot = slot;
        this.#countEntry(slot, index, active, strict);
      }
      if (active) this.#reach.set([this.#lowest, this.#highest], index * 2);
    }
  }

  /** Whether an L2 table of the active disk names anything in the window, as far as is known yet. */
  #reaches(index: number): boolean {
    const { first, counts } = this.#window;
    return first === 0 || (this.#reach[index * 2]! < first + counts.length && this.#reach[index * 2 + 1]! >= first);
  }

  #countEntry(slot: number, index: number, active: boolean, strict: boolean): void {
    const { header, entrySize } = this.#image;
    let mapping;
    try {
      mapping = this.#image.mapping(this.#table, slot, index);
    } catch (error) {
      this.#problem(error instanceof Error ? error.message : String(error));
      return;
    }
    if (mapping.kind === "hole" || mapping.host === undefined) return;
    if (active && this.#window.first === 0 && mapping.kind !== "zero") this.#summary.allocated++;
    if (mapping.kind === "compressed") {
      this.#add(mapping.host, mapping.packed, false, undefined);
      return;
    }
    if (mapping.kind === "data" || mapping.host < this.#image.fileSize) {
      this.#add(mapping.host, header.clusterSize, true, undefined);
    } else if (mapping.host / header.clusterSize > furthestCluster(this.#image)) {
      this.#problem(`${this.#named(undefined)} names ${mapping.host}, too far behind the end of the file`);
      return;
    } else {
      // Kept for it but never written: the file may end before it, and still the cluster is taken.
      this.#count(mapping.host, header.clusterSize, true, undefined);
    }
    if (strict && (this.#table.readUInt32BE(slot * entrySize) & COPIED_FLAG) === 0) {
      this.#problem(`${this.#named(undefined)} is not marked as used once`);
    }
  }

  async #countSnapshots(): Promise<void> {
    const { file, header } = this.#image;
    if (header.snapshots > SNAPSHOT_LIMIT) {
      this.#problem(`the header states ${header.snapshots} internal snapshots`);
      return;
    }
    let at = header.snapshotsOffset;
    for (let index = 0; index < header.snapshots; index++) {
      const fixed = Buffer.alloc(40);
      await readFully(file, fixed, at, "snapshot table");
      const l1Offset = Number(fixed.readBigUInt64BE(0));
      const l1Size = fixed.readUInt32BE(8);
      at += 40 + fixed.readUInt32BE(36) + fixed.readUInt16BE(12) + fixed.readUInt16BE(14);
      at = Math.ceil(at / 8) * 8;
      const what = `internal snapshot ${index}`;
      if (l1Size * 8 > 32 * 1024 * 1024 || !this.#aligned(l1Offset, what)) continue;
      if (!this.#inFile(l1Offset, l1Size * 8, what)) continue;
      this.#add(l1Offset, l1Size * 8, true, what);
      const l1 = Buffer.alloc(l1Size * 8);
      await readFully(file, l1, l1Offset, "L1 table of a snapshot");
      await this.#countTree(l1, false);
    }
    this.#add(header.snapshotsOffset, at - header.snapshotsOffset, true, "the snapshot table");
  }

  async #countBitmaps(bitmaps: { count: number; offset: number; length: number }): Promise<void> {
    const { file, header } = this.#image;
    const what = "the bitmap directory";
    if (bitmaps.length > 64 * 1024 * 1024 || !this.#aligned(bitmaps.offset, what)) return;
    if (!this.#inFile(bitmaps.offset, bitmaps.length, what)) return;
    this.#add(bitmaps.offset, bitmaps.length, true, what);
    const directory = Buffer.alloc(bitmaps.length);
    await readFully(file, directory, bitmaps.offset, "bitmap directory");
    let at = 0;
    for (let index = 0; index < bitmaps.count && at + 24 <= directory.byteLength; index++) {
      // Entry: table offset, table entries, flags, type, granularity, name and extra lengths (specification, "Bitmaps").
      const tableOffset = Number(directory.readBigUInt64BE(at));
      const entries = directory.readUInt32BE(at + 8);
      at += 24 + directory.readUInt16BE(at + 18) + directory.readUInt32BE(at + 20);
      at = Math.ceil(at / 8) * 8;
      const what = `bitmap ${index}`;
      if (entries * 8 > 64 * 1024 * 1024 || !this.#aligned(tableOffset, what)) continue;
      if (!this.#inFile(tableOffset, entries * 8, what)) continue;
      this.#add(tableOffset, entries * 8, true, what);
      const table = Buffer.alloc(entries * 8);
      await readFully(file, table, tableOffset, "bitmap table");
      for (let entry = 0; entry < entries; entry++) {
        const host = entryOffset(table.readUInt32BE(entry * 8), table.readUInt32BE(entry * 8 + 4));
        if (host !== 0 && this.#aligned(host, what)) this.#add(host, header.clusterSize, true, what);
      }
    }
  }
}

/** The refcount blocks that a refcount table names: index and place. */
export function* refcountBlocks(table: Buffer): Generator<[number, number]> {
  for (let index = 0; index * 8 < table.byteLength; index++) {
    // Bits 9 to 63 (specification, "Refcount table entry").
    const host = table.readUInt32BE(index * 8) * 0x100000000 + ((table.readUInt32BE(index * 8 + 4) & 0xfffffe00) >>> 0);
    if (host !== 0) yield [index, host];
  }
}
