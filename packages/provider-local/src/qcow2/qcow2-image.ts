import type { Wait } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { type ClusterCodec, clusterCodec } from "./compression.ts";
import { type ImageFile, readFully } from "./image-file.ts";
import { type Qcow2Header, readHeader, tableCoverage } from "./qcow2-header.ts";

/** What a range of an image holds, by itself: bytes at a place in its file, zeroes, nothing, or packed bytes. */
export interface ImageRun {
  readonly kind: "data" | "zero" | "hole" | "compressed";
  /** Bytes of guest data; at least 1. */
  readonly length: number;
  /** `data`: where the bytes lie. `compressed`: where the packed cluster begins. */
  readonly host: number;
  /** `compressed`: bytes up to the end of the last sector it may use. */
  readonly packed: number;
}

/** What one cluster of an image maps to. */
export type ClusterMapping =
  | { kind: "hole" }
  /** `host`: the cluster that is kept for it, if any. */
  | { kind: "zero"; host: number | undefined }
  /** `whole`: every byte of it is in use, which subclusters may leave open. */
  | { kind: "data"; host: number; whole: boolean }
  | { kind: "compressed"; host: number; packed: number };

const COPIED = 0x80000000;
const COMPRESSED = 0x40000000;

/** The offset in an L1 or standard L2 entry: bits 9 to 55. */
export function entryOffset(high: number, low: number): number {
  return (high & 0x00ffffff) * 0x100000000 + ((low & 0xfffffe00) >>> 0);
}

function compressedPlace(high: number, low: number, clusterBits: number): { host: number; packed: number } {
  // x = 62 - (cluster_bits - 8): the offset's bits below x, the number of further sectors above.
  const bits = 70 - clusterBits - 32;
  const host = (high & ((1 << bits) - 1)) * 0x100000000 + low;
  const sectors = ((high & 0x3fffffff) >>> bits) + 1;
  return { host, packed: sectors * 512 - (host % 512) };
}

/** The entry of a compressed cluster of `length` bytes at `host`, as high and low words. */
export function compressedEntry(host: number, length: number, clusterBits: number): [number, number] {
  const bits = 70 - clusterBits - 32;
  const sectors = Math.floor((host + length - 1) / 512) - Math.floor(host / 512);
  const high = COMPRESSED | (sectors << bits) | Math.floor(host / 0x100000000);
  return [high >>> 0, host % 0x100000000];
}

/** How much of L2 tables one image keeps in memory. */
const TABLE_CACHE_BYTES = 16 * 1024 * 1024;

/**
 * One qcow2 image without its backing files: its header, its L1 table in memory and its L2 tables through a bounded
 * cache. Every offset that a table names is checked before it is used.
 */
export class Qcow2Image {
  readonly file: ImageFile;
  readonly header: Qcow2Header;
  readonly codec: ClusterCodec;
  /** L1 entries as they are in the file. */
  readonly l1: Buffer;
  readonly entrySize: 8 | 16;
  readonly slots: number;
  readonly coverage: number;
  /** Entries of L1 that the virtual size needs. */
  readonly tables: number;
  #fileSize: number;
  readonly #cache = new Map<number, Buffer>();
  readonly #cacheLimit: number;

  private constructor(file: ImageFile, header: Qcow2Header, l1: Buffer, fileSize: number, codec: ClusterCodec) {
    this.file = file;
    this.header = header;
    this.l1 = l1;
    this.codec = codec;
    this.#fileSize = fileSize;
    this.entrySize = header.extendedL2 ? 16 : 8;
    this.slots = header.clusterSize / this.entrySize;
    this.coverage = tableCoverage(header);
    this.tables = Math.ceil(header.size / this.coverage);
    this.#cacheLimit = Math.max(2, Math.floor(TABLE_CACHE_BYTES / header.clusterSize));
  }

  /** Reads header and L1 table. The image does not close `file`. @throws ProviderError UNSUPPORTED, CORRUPT. */
  static async load(
    file: ImageFile,
    options: { immediate?: boolean; level?: number | undefined } & Wait = {},
  ): Promise<Qcow2Image> {
    const header = await readHeader(file);
    options.signal?.throwIfAborted();
    const l1 = Buffer.alloc(header.l1Size * 8);
    await readFully(file, l1, header.l1Offset, "L1 table");
    return new Qcow2Image(file, header, l1, await file.size(), clusterCodec(header.compression, file.path, options));
  }

  /** The same image, after its header changed. */
  withHeader(header: Qcow2Header): Qcow2Image {
    const image = new Qcow2Image(this.file, header, this.l1, this.#fileSize, this.codec);
    for (const [index, table] of this.#cache) image.#cache.set(index, table);
    return image;
  }

  get fileSize(): number {
    return this.#fileSize;
  }

  /** Tells the image that its file has grown or shrunk. */
  set fileSize(value: number) {
    this.#fileSize = value;
  }

  corrupt(what: string): Error {
    const path = this.file.path;
    return localError("CORRUPT", `${path} is damaged: ${what}. See "qemu-img check ${path}", or copy the image again`, {
      operation: "read",
    });
  }

  /** Where L2 table `index` lies; 0: there is none. */
  tableOffset(index: number): number {
    const offset = entryOffset(this.l1.readUInt32BE(index * 8), this.l1.readUInt32BE(index * 8 + 4));
    if (offset === 0) return 0;
    const { clusterSize } = this.header;
    if (offset % clusterSize !== 0 || offset < clusterSize || offset + clusterSize > this.#fileSize) {
      throw this.corrupt(`L1 entry ${index} names an L2 table at ${offset}, which cannot be one`);
    }
    return offset;
  }

  /** L2 table `index`, shared with the cache; undefined where there is none. */
  async table(index: number): Promise<Buffer | undefined> {
    const offset = this.tableOffset(index);
    if (offset === 0) return undefined;
    const cached = this.#cache.get(index);
    if (cached !== undefined) {
      this.#cache.delete(index);
      this.#cache.set(index, cached);
      return cached;
    }
    const table = Buffer.allocUnsafeSlow(this.header.clusterSize);
    await readFully(this.file, table, offset, "L2 tables");
    this.keep(index, table);
    return table;
  }

  /** Puts an L2 table into the cache. */
  keep(index: number, table: Buffer): void {
    this.#cache.delete(index);
    this.#cache.set(index, table);
    if (this.#cache.size <= this.#cacheLimit) return;
    for (const oldest of this.#cache.keys()) {
      this.#cache.delete(oldest);
      break;
    }
  }

  /** What slot `slot` of an L2 table maps to, checked against the file. */
  mapping(table: Buffer, slot: number, index: number): ClusterMapping {
    const at = slot * this.entrySize;
    const high = table.readUInt32BE(at);
    const low = table.readUInt32BE(at + 4);
    const where = (): string => `entry ${slot} of L2 table ${index}`;
    const { clusterSize, clusterBits, version, extendedL2 } = this.header;
    if ((high & COMPRESSED) !== 0) {
      const { host, packed } = compressedPlace(high, low, clusterBits);
      if (host < clusterSize || host >= this.#fileSize) {
        throw this.corrupt(`${where()} names a compressed cluster at ${host}, outside of the file's data`);
      }
      return { kind: "compressed", host, packed };
    }
    const host = entryOffset(high, low);
    if (host !== 0 && (host % clusterSize !== 0 || host < clusterSize)) {
      throw this.corrupt(`${where()} names a cluster at ${host}, where none can be`);
    }
    if (extendedL2) {
      const zeroes = table.readUInt32BE(at + 8);
      const allocated = table.readUInt32BE(at + 12);
      if ((zeroes & allocated) !== 0 || (host === 0 && allocated !== 0)) {
        throw this.corrupt(`${where()} has contradicting subclusters`);
      }
      if (zeroes === 0xffffffff) return { kind: "zero", host: host === 0 ? undefined : host };
      if (host === 0) return zeroes === 0 ? { kind: "hole" } : { kind: "zero", host: undefined };
      return { kind: "data", host, whole: allocated === 0xffffffff };
    }
    if ((low & 1) !== 0) {
      if (version === 2) throw this.corrupt(`${where()} is a zero cluster, which version 2 does not have`);
      return { kind: "zero", host: host === 0 ? undefined : host };
    }
    return host === 0 ? { kind: "hole" } : { kind: "data", host, whole: true };
  }

  /** The run that begins at `offset`, at most `limit` bytes long; `offset` lies inside the disk. */
  async run(offset: number, limit: number): Promise<ImageRun> {
    let index = Math.floor(offset / this.coverage);
    const table = await this.table(index);
    const most = Math.min(limit, this.header.size - offset);
    if (table !== undefined) return this.#runIn(table, index, offset, most);
    let end = (index + 1) * this.coverage;
    while (end < offset + most && this.tableOffset(++index) === 0) end += this.coverage;
    return { kind: "hole", length: Math.min(end - offset, most), host: 0, packed: 0 };
  }

  #runIn(table: Buffer, index: number, offset: number, most: number): ImageRun {
    const { clusterSize, extendedL2 } = this.header;
    const unit = extendedL2 ? clusterSize / 32 : clusterSize;
    const units = this.coverage / unit;
    const inTable = offset - index * this.coverage;
    let at = Math.floor(inTable / unit);
    const first = this.#unit(table, at, unit, index);
    const within = inTable - at * unit;
    if (first.kind === "compressed") {
      const inCluster = inTable % clusterSize;
      return {
        kind: "compressed",
        length: Math.min(clusterSize - inCluster, most),
        host: first.host,
        packed: first.packed,
      };
    }
    let length = unit - within;
    while (length < most && ++at < units) {
      const next = this.#unit(table, at, unit, index);
      if (next.kind !== first.kind || (first.kind === "data" && next.host !== first.host + within + length)) break;
      length += unit;
    }
    length = Math.min(length, most);
    const host = first.kind === "data" ? first.host + within : 0;
    if (first.kind === "data" && host >= this.#fileSize) {
      throw this.corrupt(`L2 table ${index} names a cluster at ${host}, beyond the end of the file`);
    }
    return { kind: first.kind, length, host, packed: 0 };
  }

  #unit(
    table: Buffer,
    at: number,
    unit: number,
    index: number,
  ): { kind: ImageRun["kind"]; host: number; packed: number } {
    const { extendedL2, clusterSize } = this.header;
    if (!extendedL2) {
      const mapping = this.mapping(table, at, index);
      const host = mapping.kind === "data" || mapping.kind === "compressed" ? mapping.host : 0;
      return { kind: mapping.kind, host, packed: mapping.kind === "compressed" ? mapping.packed : 0 };
    }
    const slot = Math.floor(at / 32);
    const sub = at % 32;
    const mapping = this.mapping(table, slot, index);
    if (mapping.kind === "compressed") return mapping;
    const zeroes = table.readUInt32BE(slot * 16 + 8);
    const allocated = table.readUInt32BE(slot * 16 + 12);
    if ((zeroes & (1 << sub)) !== 0) return { kind: "zero", host: 0, packed: 0 };
    if ((allocated & (1 << sub)) === 0 || mapping.kind !== "data") return { kind: "hole", host: 0, packed: 0 };
    return { kind: "data", host: mapping.host + ((at * unit) % clusterSize), packed: 0 };
  }

  /** Reads bytes that a `data` run names; what a last cluster lacks at the end of the file reads as zeroes. */
  async readData(into: Uint8Array, host: number): Promise<void> {
    const count = await this.file.read(into, host);
    if (count === 0 && into.byteLength > 0) throw this.corrupt(`the file ends before its cluster at ${host}`);
    into.fill(0, count);
  }

  /** Unpacks the compressed cluster that a run names; `into` is one cluster long. */
  async readCompressed(into: Uint8Array, host: number, packed: number): Promise<void> {
    // The last sector need not be there in full: what counts ends before it.
    const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(packed, this.#fileSize - host)));
    const count = await this.file.read(bytes, host);
    try {
      await this.codec.decompress(bytes.subarray(0, count), into);
    } catch (error) {
      throw localError(
        "CORRUPT",
        `${this.file.path} is damaged: its compressed cluster at ${host} does not unpack; copy the image again`,
        {
          operation: "read",
          cause: error,
        },
      );
    }
  }
}

/** The high word of an entry whose cluster nobody else refers to. */
export const COPIED_FLAG: number = COPIED;
