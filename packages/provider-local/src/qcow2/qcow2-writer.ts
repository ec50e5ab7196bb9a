import { createHash, randomBytes } from "node:crypto";
import * as path from "node:path";
import type { BlockWriter, Volume, Wait, WriterLane } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { ChainContent, type ChainLayer, type OpenLayer, chainRun, closeLayers, openChain } from "./backing-chain.ts";
import { ClusterAllocator } from "./cluster-allocator.ts";
import { ClusterWriter, ZEROES } from "./cluster-writer.ts";
import { type Qcow2Compression, clusterCodec } from "./compression.ts";
import { type ImageFile, type ImageFiles, localFiles } from "./image-file.ts";
import { refuseLocked } from "./image-locks.ts";
import { type RunMark, SECTOR, changeHeader } from "./qcow2-header.ts";
import { COPIED_FLAG, type ClusterMapping, Qcow2Image, compressedEntry } from "./qcow2-image.ts";
import type { WriterLaneData, WriterLaneNote } from "./qcow2-writer-lane.ts";
import { rebuildRefcounts } from "./refcounts.ts";
import { COUNT_MASK, ReferenceCounter, WINDOW_CLUSTERS, windowLength } from "./references.ts";

export interface Qcow2WriterOptions extends Wait {
  /** The run that writes: the same name finds the same half-written state again. */
  run: string;
  /** Store whole clusters compressed, in the way the image was made for. */
  compress?: boolean | { level: number } | undefined;
  files?: ImageFiles | undefined;
  /** How many cluster mappings wait in memory before they are settled without being asked. Default 262144. */
  pendingLimit?: number | undefined;
}

/** Writes a qcow2 image; see docs/decisions/004-qcow2-writer.md for the order in which things become durable. */
export interface Qcow2Writer extends BlockWriter {
  readonly chain: readonly ChainLayer[];
  read(offset: number, into: Uint8Array, wait?: Wait): Promise<void>;
  zero(offset: number, length: number, wait?: Wait): Promise<void>;
}

const LANE_MODULE: string = new URL(
  import.meta.url.endsWith(".ts") ? "./qcow2-writer-lane.ts" : "./qcow2-writer-lane.js",
  import.meta.url,
).href;
const PREFERRED_LENGTH = 1024 * 1024;
const PENDING_LIMIT = 256 * 1024;
/** Larger clusters than this are written through the main writer, at 512 bytes: core's blocks are no larger. */
const LANE_CLUSTER_LIMIT = 1024 * 1024;

/** What a slot of an L2 table becomes: a host offset, ZEROES, HOLE, or a packed cluster. */
type SlotUpdate = number | { host: number; packed: number };
const HOLE = -2;

/**
 * Opens an image of version 3 for writing: a new one, an overlay, or one with content, in place.
 * @throws ProviderError UNSUPPORTED (version 2, internal snapshots, dirty bitmaps, what the reader refuses), CORRUPT
 * (found by counting every reference), IN_USE (locked by another program), DENIED, NOT_FOUND.
 */
export async function openQcow2Writer(file: string, options: Qcow2WriterOptions): Promise<Qcow2Writer> {
  const files = options.files ?? localFiles();
  const opened = await files.open(file, "write");
  let layers: OpenLayer[] = [];
  try {
    const identity = await opened.identity();
    refuseLocked(file, identity);
    // What an earlier process wrote and did not sync may still be lost: make it last before anything relies on it.
    await opened.sync();
    layers = await openChain(file, { files, signal: options.signal });
    const top = layers[0]!;
    refuseUnwritable(file, top.image!);
    const loaded = await Qcow2Image.load(opened, { signal: options.signal });
    const { allocator, allocated } = await surveyFile(loaded, options.signal);
    const mark = markOf(loaded, options.run, allocated);
    const ours = loaded.header.mark === mark && loaded.header.autoclear === 0n;
    const header = ours ? loaded.header : await changeHeader(opened, loaded.header, { mark });
    const image = loaded.withHeader(header);
    await top.file.close();
    layers[0] = { layer: top.layer, file: opened, image, empty: false };
    return new ImageWriter({ file: opened, image, layers, allocator, identity, mark, options });
  } catch (error) {
    await closeLayers(layers.filter((layer) => layer.file !== opened));
    await opened.close();
    throw error;
  }
}

function refuseUnwritable(file: string, image: Qcow2Image): void {
  const { version, snapshots, bitmaps, mark, refcountOrder } = image.header;
  const refuse = (what: string, remedy: string): Error =>
    localError("UNSUPPORTED", `${file} ${what} and cannot be written in place: ${remedy}`, { operation: "open" });
  if (version !== 3) throw refuse("is of version 2", `"qemu-img amend -o compat=1.1 ${file}" makes it version 3`);
  if (snapshots > 0)
    throw refuse(`holds ${snapshots} internal snapshots`, `delete them with "qemu-img snapshot -d", or convert it`);
  if (bitmaps !== undefined)
    throw refuse("holds dirty bitmaps", `remove them with "qemu-img bitmap --remove", or convert it`);
  // A commit leaves refcounts of 16 bits; one that is opened again writes none.
  if (mark?.committed === true && refcountOrder !== 4)
    throw image.corrupt(`it states refcounts of 2^${refcountOrder} bits, and the run that wrote it left others`);
}

/** Finds which clusters of the file are in use, by who refers to them, and cuts off what nobody does at its end. */
async function surveyFile(
  image: Qcow2Image,
  signal: AbortSignal | undefined,
): Promise<{ allocator: ClusterAllocator; allocated: number }> {
  const references = new ReferenceCounter(image, {
    refcounts: true,
    signal,
    problem(message) {
      throw image.corrupt(message);
    },
  });
  const counts = new Uint16Array(windowLength(image));
  const { highest, allocated } = await references.count({ first: 0, counts });
  // What lies further back is not handed out, but written in place: there too nobody may own a cluster twice.
  for (let first = WINDOW_CLUSTERS; first <= highest; first += WINDOW_CLUSTERS) {
    await references.count({ first, counts: new Uint16Array(WINDOW_CLUSTERS) });
  }
  const tail = highest + 1;
  const { clusterSize } = image.header;
  if (image.fileSize > tail * clusterSize) {
    await image.file.truncate(tail * clusterSize);
    image.fileSize = await image.file.size();
  }
  const allocator = ClusterAllocator.over(tail, counts.length, (cluster) => (counts[cluster]! & COUNT_MASK) !== 0);
  return { allocator, allocated };
}

function markOf(image: Qcow2Image, run: string, allocated: number): RunMark {
  const name = createHash("sha256").update(run).digest().subarray(0, 16);
  const found = image.header.mark;
  if (found !== undefined && name.equals(found.run)) return found;
  return { run: name, generation: randomBytes(16), fresh: allocated === 0, committed: false };
}

interface WriterParts {
  file: ImageFile;
  image: Qcow2Image;
  layers: OpenLayer[];
  allocator: ClusterAllocator;
  identity: string;
  mark: RunMark;
  options: Qcow2WriterOptions;
}

class ImageWriter implements Qcow2Writer {
  readonly size: number;
  readonly blockSize: number;
  readonly concurrency: number = 2;
  readonly preferredLength: number;
  readonly generation: string;
  readonly chain: readonly ChainLayer[];
  readonly blank?: boolean;
  readonly lane?: WriterLane;
  readonly #file: ImageFile;
  readonly #layers: OpenLayer[];
  readonly #allocator: ClusterAllocator;
  readonly #clusters: ClusterWriter;
  readonly #clusterSize: number;
  readonly #pendingLimit: number;
  readonly #keepsLazy: boolean;
  #image: Qcow2Image;
  #content: ChainContent;
  #mark: RunMark;
  /** Mappings whose data is written but which no table names yet: by L2 table, by slot. */
  #pending = new Map<number, Map<number, SlotUpdate>>();
  #pendingCount = 0;
  #merged: WriterLaneNote[] = [];
  #failed: unknown;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(parts: WriterParts) {
    const { file, image, layers, allocator, mark, options } = parts;
    const { header } = image;
    this.size = header.size;
    this.#file = file;
    this.#image = image;
    this.#layers = layers;
    this.#content = new ChainContent(layers);
    this.#allocator = allocator;
    this.#mark = mark;
    this.#clusterSize = header.clusterSize;
    this.#pendingLimit = options.pendingLimit ?? PENDING_LIMIT;
    this.#keepsLazy = header.lazyRefcounts && !header.dirty;
    this.chain = layers.map(({ layer }) => layer);
    this.generation = Buffer.from(mark.generation).toString("hex");
    this.preferredLength = Math.max(PREFERRED_LENGTH, header.clusterSize);
    const level = typeof options.compress === "object" ? options.compress.level : undefined;
    const compress: { type: Qcow2Compression; level?: number } | undefined =
      options.compress === undefined || options.compress === false
        ? undefined
        : { type: header.compression, ...(level === undefined ? {} : { level }) };
    const codec = compress === undefined ? undefined : clusterCodec(compress.type, file.path, { level });
    this.#clusters = new ClusterWriter(file, header.clusterSize, allocator, codec);
    if (mark.fresh && header.backing === undefined) this.blank = true;
    const lanes = mark.fresh && header.clusterSize <= LANE_CLUSTER_LIMIT;
    this.blockSize = lanes ? header.clusterSize : SECTOR;
    if (!lanes) return;
    const data: WriterLaneData = {
      path: path.resolve(file.path),
      identity: parts.identity,
      size: header.size,
      clusterSize: header.clusterSize,
      preferredLength: this.preferredLength,
      allocation: allocator.memory,
      compress,
    };
    this.lane = {
      module: LANE_MODULE,
      ...(compress === undefined ? {} : { demanding: true as const }),
      data,
      merge: (note) => {
        this.#merged.push(note as WriterLaneNote);
      },
    };
  }

  /** One at a time: mappings, tables and the file's end belong together. */
  async #exclusive<T>(signal: AbortSignal | undefined, body: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(async () => {
      signal?.throwIfAborted();
      if (this.#closed) throw new TypeError(`${this.#file.path}: this writer is closed`);
      if (this.#failed !== undefined) {
        throw localError(
          "UNAVAILABLE",
          `${this.#file.path}: an earlier flush failed, what is durable is not known; open it again`,
          {
            operation: "write",
            retryable: false,
            cause: this.#failed,
          },
        );
      }
      // Lanes move the file's end without telling.
      this.#image.fileSize = Math.max(this.#image.fileSize, this.#allocator.tail * this.#clusterSize);
      try {
        await this.#applyMerged();
      } catch (error) {
        this.#failed = error;
        throw error;
      }
      return body();
    });
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  #checkRange(offset: number, length: number): void {
    if (offset < 0 || offset % SECTOR !== 0 || length % SECTOR !== 0 || offset + length > this.size) {
      throw new RangeError(`${length} bytes at ${offset} do not fit a disk of ${this.size} bytes`);
    }
  }

  async write(offset: number, data: Uint8Array, wait: Wait = {}): Promise<void> {
    this.#checkRange(offset, data.byteLength);
    await this.#exclusive(wait.signal, () => this.#write(offset, data));
  }

  async #write(offset: number, data: Uint8Array): Promise<void> {
    const size = this.#clusterSize;
    let done = 0;
    while (done < data.byteLength) {
      const at = offset + done;
      const within = at % size;
      const left = data.byteLength - done;
      if (within !== 0 || left < size) {
        const length = Math.min(size - within, left);
        await this.#writePart(at, data.subarray(done, done + length));
        done += length;
      } else {
        done += await this.#writeWhole(at / size, data.subarray(done, done + left - (left % size)));
      }
      await this.#settleWhenFull();
    }
  }

  /** Writes as many clusters of `data` as go one way, over what there is or into new ones; resolves with their bytes. */
  async #writeWhole(guest: number, data: Uint8Array): Promise<number> {
    const size = this.#clusterSize;
    const most = Math.min(data.byteLength / size, 1024);
    const inPlace = async (cluster: number): Promise<number> => {
      const mapping = await this.#mapping(cluster);
      return mapping.kind === "data" ? mapping.host : -1;
    };
    const host = await inPlace(guest);
    let count = 1;
    while (count < most) {
      const next = await inPlace(guest + count);
      if (host === -1 ? next !== -1 : next !== host + count * size) break;
      count++;
    }
    const part = data.subarray(0, count * size);
    if (host === -1) {
      await this.#clusters.write(guest, part, (first, clusters, place, packed) =>
        this.#record(first, clusters, place, packed),
      );
      return part.byteLength;
    }
    await this.#file.write(part, host);
    for (let index = 0; index < count; index++) await this.#makeWhole(guest + index);
    return part.byteLength;
  }

  /** A cluster some of whose subclusters were not in use has all of them in use once it is written over. */
  async #makeWhole(guest: number): Promise<void> {
    const mapping = await this.#mapping(guest);
    if (mapping.kind === "data" && !mapping.whole) this.#record(guest, 1, mapping.host, 0);
  }

  async #writePart(offset: number, data: Uint8Array): Promise<void> {
    const size = this.#clusterSize;
    const guest = Math.floor(offset / size);
    const within = offset - guest * size;
    const mapping = await this.#mapping(guest);
    if (mapping.kind === "data" && mapping.whole) {
      await this.#file.write(data, mapping.host + within);
      return;
    }
    // The rest of the cluster comes from below, and what lies beyond the disk's end is zeroes.
    const cluster = new Uint8Array(size);
    await this.#read(guest * size, cluster.subarray(0, Math.min(size, this.size - guest * size)));
    cluster.set(data, within);
    await this.#clusters.write(guest, cluster, (first, count, host, packed) =>
      this.#record(first, count, host, packed),
    );
  }

  #update(guest: number): SlotUpdate | undefined {
    return this.#pending.get(Math.floor(guest / this.#image.slots))?.get(guest % this.#image.slots);
  }

  async #mapping(guest: number): Promise<ClusterMapping> {
    const update = this.#update(guest);
    if (update === undefined) {
      const index = Math.floor(guest / this.#image.slots);
      const table = await this.#image.table(index);
      return table === undefined ? { kind: "hole" } : this.#image.mapping(table, guest % this.#image.slots, index);
    }
    if (typeof update === "object") return { kind: "compressed", ...update };
    if (update === HOLE) return { kind: "hole" };
    return update === ZEROES ? { kind: "zero", host: undefined } : { kind: "data", host: update, whole: true };
  }

  #record(guest: number, count: number, host: number, packed: number): void {
    const { slots } = this.#image;
    for (let index = 0; index < count; index++) {
      const table = Math.floor((guest + index) / slots);
      let updates = this.#pending.get(table);
      if (updates === undefined) this.#pending.set(table, (updates = new Map()));
      const place = host < 0 ? host : host + index * this.#clusterSize;
      const before = updates.get((guest + index) % slots);
      if (before === undefined) this.#pendingCount++;
      // No table names it yet, so it is free at once.
      else if (typeof before === "number" && before >= 0 && before !== place)
        this.#allocator.free(before / this.#clusterSize);
      updates.set((guest + index) % slots, packed === 0 ? place : { host: place, packed });
    }
  }

  async #applyMerged(): Promise<void> {
    while (this.#merged.length > 0) {
      const { runs } = this.#merged.shift()!;
      for (let at = 0; at < runs.length; at += 4) {
        const [guest, count, host, packed] = [runs[at]!, runs[at + 1]!, runs[at + 2]!, runs[at + 3]!];
        if (host === ZEROES) {
          const offset = guest * this.#clusterSize;
          await this.#zero(offset, Math.min(count * this.#clusterSize, this.size - offset), undefined);
        } else {
          // A run may be longer than what may wait: in pieces.
          for (let done = 0; done < count; done += this.#pendingLimit) {
            const part = Math.min(this.#pendingLimit, count - done);
            this.#record(guest + done, part, host + done * this.#clusterSize, packed);
            await this.#settleWhenFull();
          }
        }
      }
    }
  }

  async zero(offset: number, length: number, wait: Wait = {}): Promise<void> {
    this.#checkRange(offset, length);
    await this.#exclusive(wait.signal, () => this.#zero(offset, length, wait.signal));
  }

  async #zero(offset: number, length: number, signal: AbortSignal | undefined): Promise<void> {
    const size = this.#clusterSize;
    const end = offset + length;
    let at = offset;
    while (at < end) {
      signal?.throwIfAborted();
      const skip = await this.#zeroesAt(at, end - at);
      if (skip > 0) {
        at += skip;
        continue;
      }
      const within = at % size;
      const length = Math.min(size - within, end - at);
      if (within === 0 && (length === size || at + length === this.size)) {
        this.#record(at / size, 1, this.#layers.length === 1 ? HOLE : ZEROES, 0);
      } else {
        await this.#writePart(at, new Uint8Array(length));
      }
      at += length;
      await this.#settleWhenFull();
    }
  }

  /** How many bytes from `offset` on read as zeroes already, as far as that is known without reading them. */
  async #zeroesAt(offset: number, limit: number): Promise<number> {
    const { coverage, slots } = this.#image;
    const size = this.#clusterSize;
    const index = Math.floor(offset / coverage);
    const updates = this.#pending.get(index);
    if (updates !== undefined) {
      const guest = Math.floor(offset / size);
      const update = updates.get(guest % slots);
      const inCluster = Math.min((guest + 1) * size - offset, limit);
      if (update === HOLE || update === ZEROES) return inCluster;
      if (update !== undefined) return 0;
      return this.#chainZeroes(offset, inCluster);
    }
    // As far as no table with waiting changes is met.
    let end = (index + 1) * coverage;
    while (end < offset + limit && !this.#pending.has(Math.floor(end / coverage))) end += coverage;
    return this.#chainZeroes(offset, Math.min(limit, end - offset));
  }

  async #chainZeroes(offset: number, limit: number): Promise<number> {
    const run = await chainRun(this.#layers, 0, offset, limit);
    return run.kind === "zero" || run.kind === "hole" ? run.length : 0;
  }

  async read(offset: number, into: Uint8Array, wait: Wait = {}): Promise<void> {
    this.#checkRange(offset, into.byteLength);
    await this.#exclusive(wait.signal, () => this.#read(offset, into));
  }

  async #read(offset: number, into: Uint8Array): Promise<void> {
    const size = this.#clusterSize;
    let done = 0;
    while (done < into.byteLength) {
      const at = offset + done;
      const left = into.byteLength - done;
      const { coverage } = this.#image;
      if (!this.#pending.has(Math.floor(at / coverage))) {
        const length = Math.min(left, coverage - (at % coverage));
        await this.#content.read(0, at, into.subarray(done, done + length));
        done += length;
        continue;
      }
      const within = at % size;
      const part = into.subarray(done, done + Math.min(size - within, left));
      await this.#readCluster(at, within, part);
      done += part.byteLength;
    }
  }

  async #readCluster(offset: number, within: number, into: Uint8Array): Promise<void> {
    const update = this.#update(Math.floor(offset / this.#clusterSize));
    if (update === undefined) {
      await this.#content.read(0, offset, into);
    } else if (typeof update === "object") {
      const cluster = new Uint8Array(this.#clusterSize);
      await this.#image.readCompressed(cluster, update.host, update.packed);
      into.set(cluster.subarray(within, within + into.byteLength));
    } else if (update < 0) {
      into.fill(0);
    } else {
      await this.#image.readData(into, update + within);
    }
  }

  async #settleWhenFull(): Promise<void> {
    if (this.#pendingCount >= this.#pendingLimit) await this.#settle();
  }

  async flush(wait: Wait = {}): Promise<void> {
    await this.#exclusive(wait.signal, () => this.#settle());
  }

  /** Makes everything written so far durable, tables included; each step only after what it relies on. */
  async #settle(): Promise<void> {
    try {
      this.#clusters.giveBack();
      await this.#file.sync();
      if (this.#pendingCount === 0) return;
      await this.#markDirty();
      const freed: number[] = [];
      const added: [index: number, offset: number][] = [];
      for (const [index, updates] of this.#pending) await this.#writeTable(index, updates, added, freed);
      await this.#file.sync();
      if (added.length > 0) await this.#writeDirectory(added);
      this.#pending.clear();
      this.#pendingCount = 0;
      // Only now does nothing durable name them any more.
      for (const cluster of freed) this.#allocator.free(cluster);
      this.#content = new ChainContent(this.#layers);
    } catch (error) {
      this.#failed = error;
      throw error;
    }
  }

  async #markDirty(): Promise<void> {
    if (this.#image.header.dirty && !this.#mark.committed) return;
    this.#mark = { ...this.#mark, committed: false };
    await this.#changeHeader({ dirty: true, lazyRefcounts: true, mark: this.#mark });
  }

  async #changeHeader(change: Parameters<typeof changeHeader>[2]): Promise<void> {
    this.#image = this.#image.withHeader(await changeHeader(this.#file, this.#image.header, change));
    this.#layers[0] = { ...this.#layers[0]!, image: this.#image };
    this.#content = new ChainContent(this.#layers);
  }

  async #writeTable(
    index: number,
    updates: ReadonlyMap<number, SlotUpdate>,
    added: [index: number, offset: number][],
    freed: number[],
  ): Promise<void> {
    const image = this.#image;
    const known = await image.table(index);
    if (known === undefined && updates.values().every((update) => update === HOLE)) return;
    const table = known ?? Buffer.alloc(this.#clusterSize);
    let first = Infinity;
    let last = 0;
    for (const [slot, update] of updates) {
      const old = image.mapping(table, slot, index);
      if ((old.kind === "data" || old.kind === "zero") && old.host !== undefined && old.host !== update) {
        freed.push(old.host / this.#clusterSize);
      }
      this.#writeEntry(table, slot, update);
      first = Math.min(first, slot);
      last = Math.max(last, slot);
    }
    if (known === undefined) {
      const offset = this.#allocator.allocate(1)[0]!.first * this.#clusterSize;
      await this.#file.write(table, offset);
      added.push([index, offset]);
      image.keep(index, table);
      return;
    }
    const from = Math.floor((first * image.entrySize) / SECTOR) * SECTOR;
    const to = Math.ceil(((last + 1) * image.entrySize) / SECTOR) * SECTOR;
    await this.#file.write(table.subarray(from, to), image.tableOffset(index) + from);
  }

  #writeEntry(table: Buffer, slot: number, update: SlotUpdate): void {
    const { entrySize, header } = this.#image;
    const at = slot * entrySize;
    let words: [number, number, number, number];
    if (typeof update === "object") {
      words = [...compressedEntry(update.host, update.packed, header.clusterBits), 0, 0];
    } else if (update === HOLE) {
      words = [0, 0, 0, 0];
    } else if (update === ZEROES) {
      words = header.extendedL2 ? [0, 0, 0xffffffff, 0] : [0, 1, 0, 0];
    } else {
      words = [(COPIED_FLAG | Math.floor(update / 0x100000000)) >>> 0, update % 0x100000000, 0, 0xffffffff];
    }
    for (let word = 0; word < entrySize / 4; word++) table.writeUInt32BE(words[word]!, at + word * 4);
  }

  /** Names new L2 tables, which are durable by now, in the L1 table. */
  async #writeDirectory(added: readonly [index: number, offset: number][]): Promise<void> {
    const { l1, header } = this.#image;
    this.#image.fileSize = Math.max(this.#image.fileSize, this.#allocator.tail * this.#clusterSize);
    const sectors = new Set<number>();
    for (const [index, offset] of added) {
      l1.writeUInt32BE((COPIED_FLAG | Math.floor(offset / 0x100000000)) >>> 0, index * 8);
      l1.writeUInt32BE(offset % 0x100000000, index * 8 + 4);
      sectors.add(Math.floor((index * 8) / SECTOR));
    }
    for (const sector of sectors) {
      await this.#file.write(l1.subarray(sector * SECTOR, (sector + 1) * SECTOR), header.l1Offset + sector * SECTOR);
    }
    await this.#file.sync();
  }

  async commit(request: Wait): Promise<Volume> {
    return this.#exclusive(request.signal, async () => {
      await this.#settle();
      try {
        await this.#commit(request.signal);
      } catch (error) {
        if (request.signal?.aborted !== true) this.#failed = error;
        throw error;
      }
      return { id: path.resolve(this.#file.path), size: this.size };
    });
  }

  async #commit(signal: AbortSignal | undefined): Promise<void> {
    if (!this.#image.header.dirty) {
      if (this.#mark.committed) return;
      this.#mark = { ...this.#mark, committed: true };
      await this.#changeHeader({ mark: this.#mark });
      return;
    }
    const { place, end } = await rebuildRefcounts(this.#image, {
      signal,
      problem: (message) => {
        throw this.#image.corrupt(message);
      },
    });
    await this.#file.sync();
    this.#mark = { ...this.#mark, committed: true };
    await this.#changeHeader({
      refcounts: { offset: place.first * this.#clusterSize, clusters: place.tableClusters },
      dirty: false,
      lazyRefcounts: this.#keepsLazy,
      mark: this.#mark,
    });
    await this.#file.truncate(end * this.#clusterSize);
    await this.#file.sync();
    this.#image.fileSize = end * this.#clusterSize;
    this.#allocator.reset(end);
  }

  /** Forgets what was not flushed; the image stays valid, and the next run goes on from it or its file is removed. */
  async abandon(): Promise<void> {
    await this.#exclusive(undefined, async () => {
      this.#pending.clear();
      this.#pendingCount = 0;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    await this.#queue;
    this.#closed = true;
    await closeLayers(this.#layers);
  }
}
