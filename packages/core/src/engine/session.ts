import { availableParallelism } from "node:os";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { Lane } from "../provider/lane.ts";
import type { BlockReader, DigestAlgorithm } from "../provider/reader.ts";
import type { BlockWriter } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { hashPool, type HashPool } from "../manifest/hash-pool.ts";
import { attemptLayer, controlLayer, type AttemptPolicy } from "./attempts.ts";
import { Copier, type Batch, type BatchResult } from "./copier.ts";
import { threadLane, WorkerLane, type CopyLane } from "./copy-lane.ts";
import { ReopeningReader } from "./reopening-reader.ts";
import { compose, type Layer } from "../layers/layer.ts";
import { Slots } from "./slots.ts";
import { BATCH_BYTES } from "./work-plan.ts";

export interface SessionOptions {
  reader: BlockReader;
  reopen: (wait: Wait) => Promise<BlockReader>;
  /** Absent: only reads, digests and compares. */
  writer: BlockWriter | undefined;
  leaf: number;
  itemLength: number;
  algorithm: DigestAlgorithm | "none";
  /** Worker threads where both ends have lanes; 0: none; undefined: as many as pay. */
  workers: number | undefined;
  /** Bytes of blocks per worker thread; the calling thread, where it copies alone, takes what two of them would. */
  memory: number;
  attempts: AttemptPolicy;
  /** The caller's own layers, innermost. Functions do not cross threads, so with any there are no workers. */
  layers?: readonly Layer[];
}

const NEVER = new AbortController().signal;
const DEFAULT_WORKERS = 2;
const FEW_CORES = 2;

/**
 * A reader and a writer joined by lanes, for as long as both live. It closes the reader; the writer is its owner's.
 * The first failure of anything in it ends it; its
 * owner opens another and repeats what was not durable.
 */
export class Session implements AsyncDisposable {
  readonly writer: BlockWriter | undefined;
  /** For questions beside the copy; it is reopened where the copy runs on this thread. */
  readonly reader: BlockReader;
  /** How many threads copy; 0: the calling one. */
  readonly threads: number;
  readonly #control: Layer;
  readonly #lanes: CopyLane[] = [];
  readonly #free: CopyLane[] = [];
  readonly #waiting: { resolve(lane: CopyLane): void; reject(error: unknown): void }[] = [];
  readonly #owned: AsyncDisposable[] = [];
  #failure: { error: unknown } | undefined;

  constructor(options: SessionOptions, signal: AbortSignal) {
    const { reader, writer } = options;
    this.writer = writer;
    this.reader = reader;
    this.#control = controlLayer(options.attempts);
    this.threads = laneCount(options);
    if (this.threads > 0) {
      for (let lane = 0; lane < this.threads; lane++) this.#lanes.push(workerLane(options, signal));
      this.#owned.push(reader);
    } else {
      const reopening = new ReopeningReader(reader, options.reopen);
      this.reader = reopening;
      const pool = options.algorithm === "none" ? undefined : sharedPool(options.algorithm);
      this.#lanes.push(threadLane(mainCopier(options, reopening, pool, signal)));
      this.#owned.push(reopening);
    }
    const depth = depthOf(
      reader,
      writer,
      mostItems(options, this.threads),
      this.threads === 0 ? hashedAtOnce(options) : 0,
    );
    for (let batch = 0; batch < batchesPerLane(depth, options.itemLength); batch++) this.#free.push(...this.#lanes);
  }

  /** Gives a batch to a lane that has room, once there is one, and resolves with the promise of its result. */
  async dispatch(batch: Batch): Promise<{ result: Promise<BatchResult> }> {
    const lane = await this.#freeLane();
    const result = lane.run(batch).then(
      (done) => {
        const next = this.#waiting.shift();
        if (next === undefined) this.#free.push(lane);
        else next.resolve(lane);
        return done;
      },
      (error: unknown) => {
        this.#fail(error);
        throw error;
      },
    );
    result.catch(() => {});
    return { result };
  }

  #freeLane(): Promise<CopyLane> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    const lane = this.#free.shift();
    if (lane !== undefined) return Promise.resolve(lane);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#failure.error);
  }

  /** Makes durable all that resolved before. */
  async flush(wait: Wait): Promise<void> {
    const signal = wait.signal ?? NEVER;
    await this.#control({ method: "flush", side: "target", attempt: 1, signal }, async (call) => {
      const notes = await Promise.all(this.#lanes.map((lane) => lane.settle()));
      for (const note of notes) if (note !== undefined) this.writer?.lane?.merge?.(note);
      await this.writer?.flush({ signal: call.signal });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new DOMException("the session was closed", "AbortError"));
    await Promise.all(this.#lanes.map((lane) => lane[Symbol.asyncDispose]()));
    for (const owned of this.#owned) await owned[Symbol.asyncDispose]();
  }
}

const pools = new Map<DigestAlgorithm, HashPool>();

/** The process's pool of hashing threads: starting them costs more than a small disk, and idle they keep nothing alive. */
function sharedPool(algorithm: DigestAlgorithm): HashPool {
  let pool = pools.get(algorithm);
  if (pool === undefined) pools.set(algorithm, (pool = hashPool(algorithm)));
  return pool;
}

/** Whether a failure may be mended by opening the reader or the writer again. */
export function isMendable(error: unknown): boolean {
  return isProviderError(error) && (error.code === "UNAVAILABLE" || error.retryable);
}

/** How many batches a lane holds: what it can have under way, and one more, so that it never runs dry between two. */
function batchesPerLane(depth: number, itemLength: number): number {
  return Math.ceil((depth * itemLength) / BATCH_BYTES) + 1;
}

/** How many items the memory of one lane holds. */
function mostItems({ memory, itemLength }: SessionOptions, threads: number): number {
  return Math.max(1, Math.floor((memory * (threads === 0 ? DEFAULT_WORKERS : 1)) / itemLength));
}

/** How many lanes both ends allow. */
function laneCount(options: SessionOptions): number {
  const { reader, writer, workers, layers } = options;
  if (layers !== undefined && layers.length > 0) return 0;
  if (reader.lane === undefined || (writer !== undefined && writer.lane === undefined)) return 0;
  if (writer?.digest !== undefined || reader.order === "ascending") return 0;
  return Math.min(workers ?? usefulWorkers(options), reader.lane.limit ?? Infinity, writer?.lane?.limit ?? Infinity);
}

/**
 * On two cores a thread that only passes bytes on competes with the servers it talks to: one thread is then about as
 * fast, and takes a third less processor time and memory (docs/performance.md).
 */
function usefulWorkers({ reader, writer, algorithm }: SessionOptions): number {
  const computes = algorithm !== "none" || reader.lane?.demanding === true || writer?.lane?.demanding === true;
  return computes || availableParallelism() > FEW_CORES ? DEFAULT_WORKERS : 0;
}

function workerLane(options: SessionOptions, signal: AbortSignal): CopyLane {
  const { reader, writer, leaf, itemLength, attempts, algorithm } = options;
  if (reader.lane === undefined) throw new ProviderError("UNEXPECTED", "a reader without a lane has no worker");
  return new WorkerLane(
    {
      reader: plainLane(reader.lane),
      writer: writer?.lane === undefined ? undefined : plainLane(writer.lane),
      leaf,
      itemLength,
      depth: mostItems(options, 1),
      algorithm: algorithm === "none" ? undefined : algorithm,
      policy: attempts,
    },
    signal,
  );
}

/** A lane without its functions, which do not cross threads. */
function plainLane({ module, data }: Lane): Lane {
  return { module, data };
}

function mainCopier(
  options: SessionOptions,
  reader: BlockReader,
  pool: HashPool | undefined,
  signal: AbortSignal,
): Copier {
  const { writer, leaf, itemLength } = options;
  return new Copier(
    {
      reader,
      writer,
      passDigests: writer?.digest !== undefined,
      leaf,
      itemLength,
      depth: depthOf(reader, writer, mostItems(options, 0), hashedAtOnce(options)),
      hash: pool && ((block, unit, wait) => pool.hash(block, unit, { signal: wait })),
      layer: boundedLayer(reader, writer, options.attempts, options.layers),
    },
    signal,
  );
}

/**
 * Items that the process's two hashing threads hold beside those that are read: two messages each. Where something is
 * written too there are enough, and more of them would only have a pause wait longer.
 */
function hashedAtOnce({ algorithm, writer }: SessionOptions): number {
  return algorithm === "none" || writer !== undefined ? 0 : 4;
}

/** So many items at once that reads and writes are both as many as their sides allow, within the memory. */
export function depthOf(
  reader: { readonly concurrency?: number },
  writer: { readonly concurrency?: number } | undefined,
  most: number,
  beside = 0,
): number {
  const written = writer === undefined ? 0 : (writer.concurrency ?? 1);
  return Math.max(1, Math.min(most, (reader.concurrency ?? 1) + written + beside));
}

/** Attempts around every call, and never more calls at once than either side allows. */
export function boundedLayer(
  reader: { readonly concurrency?: number },
  writer: { readonly concurrency?: number } | undefined,
  policy: AttemptPolicy,
  layers: readonly Layer[] = [],
): Layer {
  const reads = new Slots(reader.concurrency ?? 1);
  const writes = new Slots(writer?.concurrency ?? 1);
  return compose([
    (call, run) => (call.side === "source" ? reads : writes).use(() => run(call)),
    attemptLayer(policy),
    ...layers,
  ]);
}
