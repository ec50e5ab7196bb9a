import { digestLength } from "../manifest/digest.ts";
import type { Layer } from "../layers/layer.ts";
import type { BlockReader } from "../provider/reader.ts";
import type { WriteOptions } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { BlockPool, HEADROOM } from "./block-pool.ts";
import { BlockStream, type StreamBlock } from "./block-stream.ts";
import type { WorkItem } from "./grid.ts";
import { MOST_ZERO_BYTES, spansOf, zeroBytes, type Span } from "./zero-test.ts";

/** An item of work and what its decision needs. Plain data: it crosses to worker threads. */
export interface CopyItem extends WorkItem {
  /** The digests of what the target durably holds, one per leaf; absent: not known, everything is sent. */
  base?: Uint8Array;
  /** The target's content here is proven to be zeroes as long as nothing was written. */
  blank: boolean;
}

/** Some items that go to one lane together. */
export interface Batch {
  id: number;
  items: CopyItem[];
}

/** What became of a batch. Plain data. */
export interface BatchResult {
  /** For each item in order, the digests of its leaves; empty for zero items and where no digest is kept. */
  digests: Uint8Array[];
  /** Bytes read from the source. */
  read: number;
  /** Bytes of data written to the target. */
  written: number;
  /** Bytes made zero at the target by `zero` or by writing zeroes. */
  zeroed: number;
  /** Bytes of leaves whose digest was the target's already: nothing was sent. */
  same: number;
  /** Bytes of leaves whose digest differs from the base that was given. */
  different: number;
  /** Leaves that differ from their base, where nothing is written: offset, length, offset, length … */
  differing: number[];
  /** Ranges written or zeroed, as offset, length, offset, length … */
  sent: number[];
}

/** What a copier writes to: the main writer or a lane's. */
export interface CopyWriter {
  readonly size: number;
  readonly blockSize: number;
  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void>;
  zero?(offset: number, length: number, wait?: Wait): Promise<void>;
}

export interface CopierOptions {
  reader: BlockReader;
  /** Absent: only reads, digests and compares. */
  writer?: CopyWriter | undefined;
  /** Whether the writer wants the digests of what it is given. */
  passDigests: boolean;
  leaf: number;
  /** The most bytes of a copy item. */
  itemLength: number;
  /** Items at once. */
  depth: number;
  /** Digests of every leaf of a block. Absent: none are computed, and every item is sent. */
  hash?: ((block: Uint8Array, leaf: number, signal: AbortSignal) => Promise<Uint8Array> | Uint8Array) | undefined;
  /** Around every read, write and zero: retry, timeout, throttle, metrics. */
  layer: Layer;
}

/** Zeroes shorter than this are sent as data: a hole that small saves nothing on any target. */
const ZERO_UNIT = 64 << 10;

interface Queued extends CopyItem {
  batch: Batch;
  index: number;
}

interface Progress {
  left: number;
  result: BatchResult;
  resolve(result: BatchResult): void;
  reject(error: unknown): void;
}

/**
 * Copies batches of items from a reader to a writer with a fixed number of items under way. The first failure stops
 * it for good: its owner decides what is opened again and what is repeated.
 */
export class Copier {
  readonly #options: CopierOptions;
  readonly #progress = new Map<Batch, Progress>();
  readonly #queue: Queued[] = [];
  readonly #stop = new AbortController();
  readonly #workers: Promise<void>[] = [];
  /** Workers without an item. */
  readonly #idle: ((item: Queued | undefined) => void)[] = [];
  #closed = false;
  #failure: { error: unknown } | undefined;

  constructor(options: CopierOptions, signal?: AbortSignal) {
    this.#options = options;
    // Stops with `signal` too, and costs each call less than a signal composed of both.
    const stop = this.#stop.signal;
    const items = { next: () => this.#next() };
    const stream = new BlockStream<Queued>(options.reader, items, {
      pool: new BlockPool(options.depth, options.itemLength),
      layer: options.layer,
      signal: stop,
    });
    for (let worker = 0; worker < options.depth; worker++) this.#workers.push(this.#work(stream, stop));
    signal?.addEventListener("abort", () => this.#fail(signal.reason), { signal: stop, once: true });
    if (signal?.aborted === true) this.#fail(signal.reason);
  }

  /** Copies one batch; resolves when all of it is written. Several may be under way. */
  run(batch: Batch): Promise<BatchResult> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    return new Promise((resolve, reject) => {
      const empty = new Uint8Array(0);
      const result: BatchResult = {
        digests: batch.items.map(() => empty),
        read: 0,
        written: 0,
        zeroed: 0,
        same: 0,
        different: 0,
        differing: [],
        sent: [],
      };
      if (batch.items.length === 0) return resolve(result);
      this.#progress.set(batch, { left: batch.items.length, result, resolve, reject });
      for (const [index, item] of batch.items.entries()) this.#give({ ...item, batch, index });
    });
  }

  #give(item: Queued): void {
    const idle = this.#idle.shift();
    if (idle !== undefined) idle(item);
    else this.#queue.push(item);
  }

  #next(): Queued | undefined | Promise<Queued | undefined> {
    const item = this.#queue.shift();
    if (item !== undefined || this.#closed) return item;
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  async #work(stream: BlockStream<Queued>, signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        const next = await stream.next();
        if (next.done === true) return;
        const block = next.value;
        // By hand, since what `using` is compiled to for Node 22 is a tenth of the garbage of a copy.
        try {
          const progress = this.#progress.get(block.item.batch);
          if (progress === undefined) return;
          await this.#copy(block, progress.result, signal);
          progress.left--;
          if (progress.left === 0) {
            this.#progress.delete(block.item.batch);
            progress.resolve(progress.result);
          }
        } finally {
          block[Symbol.dispose]();
        }
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = { error };
    this.#closed = true;
    this.#queue.length = 0;
    for (const progress of this.#progress.values()) progress.reject(error);
    this.#progress.clear();
    this.#stop.abort(error);
    for (const idle of this.#idle.splice(0)) idle(undefined);
  }

  async #copy(block: StreamBlock<Queued>, result: BatchResult, signal: AbortSignal): Promise<void> {
    const { item, data } = block;
    if (data === null) {
      const { writer } = this.#options;
      const end = writer === undefined ? item.offset + item.length : paddedEnd(item, writer);
      await this.#clear(item.offset, end - item.offset, result, signal);
      return;
    }
    result.read += data.length;
    const { leaf, hash } = this.#options;
    let digests: Uint8Array | undefined;
    if (hash !== undefined) {
      const hashed = hash(data, leaf, signal);
      digests = hashed instanceof Uint8Array ? hashed : await hashed;
      result.digests[item.index] = digests;
    }
    const padded = this.#padded(item, data);
    // What the target holds is known by the digests of the disk's bytes; those of its blocks are for sending alone.
    const ofBlocks =
      this.#options.passDigests && padded !== data ? await this.#digestsOfBlocks(padded, digests!, signal) : digests;
    for (const [start, end] of this.#wanted(item, digests, result)) {
      const stop = end === data.length ? padded.length : end;
      for (const span of spansOf(padded, start, stop, this.#unit())) {
        await this.#send(item, padded, span, ofBlocks, result, signal);
      }
    }
  }

  /**
   * An item's data, filled up with zeroes to the writer's block where the disk ends inside one: the volume goes on.
   * The room is there, as an item never crosses a multiple of the item length.
   */
  #padded(item: Queued, data: Uint8Array): Uint8Array {
    const { writer } = this.#options;
    if (writer === undefined) return data;
    const length = paddedEnd(item, writer) - item.offset;
    if (length === data.length) return data;
    const padded = new Uint8Array(data.buffer, data.byteOffset, length);
    padded.fill(0, data.length);
    return padded;
  }

  /** The manifest's digests are of the disk's bytes; the target is given that of the last block as it was filled up. */
  async #digestsOfBlocks(padded: Uint8Array, digests: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const { leaf, hash } = this.#options;
    const last = digests.length / digestLength - 1;
    const ofBlocks = digests.slice();
    ofBlocks.set(await hash!(padded.subarray(last * leaf), leaf, signal), last * digestLength);
    return ofBlocks;
  }

  /** The zero test's unit: never below what the writer can address, and whole leaves where digests go along. */
  #unit(): number {
    const { writer, passDigests, leaf } = this.#options;
    return passDigests ? leaf : Math.min(leaf, Math.max(ZERO_UNIT, writer?.blockSize ?? ZERO_UNIT));
  }

  /** The ranges of an item, relative to its start, that have to be sent; ascending and disjoint. */
  #wanted(item: Queued, digests: Uint8Array | undefined, result: BatchResult): [start: number, end: number][] {
    const { leaf, writer } = this.#options;
    const wanted: [number, number][] = [];
    const base = digests === undefined ? undefined : item.base;
    for (let start = 0, at = 0; start < item.length; start += leaf, at += digestLength) {
      const end = Math.min(start + leaf, item.length);
      if (base !== undefined && digests !== undefined && sameDigest(digests, base, at)) {
        result.same += end - start;
        continue;
      }
      if (base !== undefined) {
        result.different += end - start;
        if (writer === undefined) result.differing.push(item.offset + start, end - start);
      }
      const last = wanted.at(-1);
      if (last !== undefined && last[1] === start) last[1] = end;
      else wanted.push([start, end]);
    }
    if (writer === undefined) return [];
    return item.parts === undefined ? wanted : intersect(wanted, item, writer.blockSize);
  }

  async #send(
    item: Queued,
    bytes: Uint8Array,
    span: Span,
    digests: Uint8Array | undefined,
    result: BatchResult,
    signal: AbortSignal,
  ): Promise<void> {
    const offset = item.offset + span.start;
    const length = span.end - span.start;
    if (span.zero) {
      if (!item.blank) await this.#clear(offset, length, result, signal);
      return;
    }
    const { writer, layer, leaf, passDigests } = this.#options;
    const data = bytes.subarray(span.start, span.end);
    const options: { -readonly [K in keyof WriteOptions]: WriteOptions[K] } = {};
    if (span.start === 0) options.headroom = HEADROOM;
    if (passDigests) {
      const first = (span.start / leaf) * digestLength;
      options.digest = digests!.subarray(first, first + Math.ceil(length / leaf) * digestLength);
    }
    await layer({ method: "write", side: "target", offset, length, data, attempt: 1, signal }, (call) =>
      writer!.write(offset, call.data ?? data, { ...options, signal: call.signal }),
    );
    result.written += length;
    result.sent.push(offset, length);
  }

  async #clear(offset: number, length: number, result: BatchResult, signal: AbortSignal): Promise<void> {
    const { writer, layer, leaf, hash, passDigests } = this.#options;
    if (writer === undefined) return;
    if (writer.zero !== undefined) {
      await layer({ method: "zero", side: "target", offset, length, attempt: 1, signal }, (call) =>
        writer.zero!(offset, length, { signal: call.signal }),
      );
    } else {
      const step = Math.max(MOST_ZERO_BYTES, writer.blockSize);
      for (let done = 0; done < length; done += step) {
        const bytes = Math.min(step, length - done);
        const zeroes = bytes > MOST_ZERO_BYTES ? new Uint8Array(bytes) : zeroBytes(bytes);
        const at = { offset: offset + done, length: bytes };
        const digest = passDigests ? await hash!(zeroes, leaf, signal) : undefined;
        await layer({ method: "write", side: "target", ...at, attempt: 1, signal }, (call) =>
          writer.write(at.offset, zeroes, { digest, signal: call.signal }),
        );
      }
    }
    result.zeroed += length;
    result.sent.push(offset, length);
  }

  /** Stops and waits until nothing touches the reader or the writer any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new DOMException("the copier was closed", "AbortError"));
    await Promise.all(this.#workers);
  }
}

/** Where an item ends on the volume: at the next block of the writer, if the volume goes that far. */
function paddedEnd(item: WorkItem, writer: CopyWriter): number {
  return Math.min(ceil(item.offset + item.length, writer.blockSize), Math.max(writer.size, item.offset + item.length));
}

function sameDigest(left: Uint8Array, right: Uint8Array, at: number): boolean {
  for (let index = at; index < at + digestLength; index++) if (left[index] !== right[index]) return false;
  return true;
}

/** The parts of an item that lie in `wanted`, widened to the writer's blocks, relative to the item's start. */
function intersect(wanted: readonly [number, number][], item: WorkItem, blockSize: number): [number, number][] {
  const found: [number, number][] = [];
  for (const [start, end] of wanted) {
    for (const part of item.parts ?? []) {
      const from = Math.max(start, floor(part.offset, blockSize) - item.offset);
      const to = Math.min(end, ceil(part.offset + part.length, blockSize) - item.offset);
      if (from >= to) continue;
      const last = found.at(-1);
      if (last !== undefined && last[1] >= from) last[1] = Math.max(last[1], to);
      else found.push([from, to]);
    }
  }
  return found;
}

function floor(value: number, unit: number): number {
  return value - (value % unit);
}

function ceil(value: number, unit: number): number {
  return floor(value + unit - 1, unit);
}
