import { Worker } from "node:worker_threads";
import type { Lane } from "../provider/lane.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import { errorFromJson, type ErrorJson } from "../provider/error-json.ts";
import { ProviderError } from "../provider/error.ts";
import type { Batch, BatchResult, Copier } from "./copier.ts";
import type { AttemptPolicy } from "./attempts.ts";

/** One road on which batches are copied: on this thread, or on a worker of its own. */
export interface CopyLane extends AsyncDisposable {
  run(batch: Batch): Promise<BatchResult>;
  /** Covers every batch that resolved before; the note belongs to the main writer's `merge`. */
  settle(): Promise<unknown>;
}

/** A lane on the calling thread, whose writer is the main writer: its `flush` covers all, nothing is to be settled. */
export function threadLane(copier: Copier): CopyLane {
  return {
    run: (batch) => copier.run(batch),
    settle: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => copier[Symbol.asyncDispose](),
  };
}

/** What a worker needs to open its own reader and writer. */
export interface WorkerSetup {
  reader: Lane;
  writer: Lane | undefined;
  leaf: number;
  itemLength: number;
  depth: number;
  algorithm: DigestAlgorithm | undefined;
  policy: AttemptPolicy;
}

/** Messages to a copy worker. */
export type ToWorker = { type: "run"; batch: Batch } | { type: "settle"; id: number } | { type: "close" };

/** Messages of a copy worker. */
export type FromWorker =
  | { type: "done"; id: number; result: BatchResult }
  | { type: "settled"; id: number; note: unknown }
  | { type: "failed"; error: ErrorJson }
  | { type: "closed" };

const WORKER = new URL(import.meta.url.endsWith(".ts") ? "./copy-worker.ts" : "./copy-worker.js", import.meta.url);

/**
 * What a worker copies lies outside of its heap; by default V8 would let short-lived garbage grow to 48 MiB per thread
 * before it collects any.
 */
const YOUNG_HEAP_MIB = 4;

/** How long a worker may take to close what it opened before it is ended. */
const CLOSE_MS = 10_000;

/**
 * The flags of a worker: those of the process, which it has by itself. With those of `node --eval` no file starts; then it
 * is given the flags that find modules and no others, as those of V8 are refused where they are passed on.
 */
function flagsForFiles(flags: readonly string[]): string[] | undefined {
  if (!flags.some((flag) => /^(-e|-p|-pe|--eval|--print|--input-type)\b/.test(flag))) return undefined;
  return flags.flatMap((flag, index) => {
    if (/^(--conditions|--import|--require)=/.test(flag)) return [flag];
    return /^(-C|-r|--conditions|--import|--require)$/.test(flag) ? flags.slice(index, index + 2) : [];
  });
}

interface Waiting {
  resolve(value: never): void;
  reject(error: unknown): void;
}

/** A lane on a worker thread that owns its reader and writer; only control messages cross. */
export class WorkerLane implements CopyLane {
  readonly #worker: Worker;
  readonly #waiting = new Map<string, Waiting>();
  readonly #exited: Promise<void>;
  #failure: { error: unknown } | undefined;
  #settles = 0;
  #closed: (() => void) | undefined;

  constructor(setup: WorkerSetup, signal?: AbortSignal) {
    const execArgv = flagsForFiles(process.execArgv);
    const worker = new Worker(WORKER, {
      workerData: setup,
      ...(execArgv === undefined ? {} : { execArgv }),
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_HEAP_MIB },
    });
    this.#worker = worker;
    worker.on("message", (message: FromWorker) => this.#receive(message));
    worker.on("error", (error) => this.#fail(error));
    this.#exited = new Promise((resolve) => {
      worker.on("exit", (code) => {
        this.#fail(new ProviderError("UNEXPECTED", `a copy worker ended with code ${code}`, { operation: "copy" }));
        resolve();
      });
    });
    if (signal !== undefined) {
      const abort = (): void => this.#fail(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      void this.#exited.then(() => signal.removeEventListener("abort", abort));
      if (signal.aborted) abort();
    }
  }

  run(batch: Batch): Promise<BatchResult> {
    return this.#ask<BatchResult>(`run ${batch.id}`, { type: "run", batch });
  }

  settle(): Promise<unknown> {
    const id = ++this.#settles;
    return this.#ask<unknown>(`settle ${id}`, { type: "settle", id });
  }

  #ask<T>(key: string, message: ToWorker): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(key, { resolve, reject });
      this.#worker.postMessage(message);
    });
  }

  #receive(message: FromWorker): void {
    if (message.type === "failed") this.#fail(errorFromJson(message.error));
    else if (message.type === "closed") this.#closed?.();
    else {
      const [key, value] =
        message.type === "done" ? [`run ${message.id}`, message.result] : [`settle ${message.id}`, message.note];
      const waiting = this.#waiting.get(key);
      this.#waiting.delete(key);
      waiting?.resolve(value as never);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure.error);
    this.#waiting.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new DOMException("the lane was closed", "AbortError"));
    const closed = new Promise<void>((resolve) => (this.#closed = resolve));
    this.#worker.postMessage({ type: "close" } satisfies ToWorker);
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<void>((resolve) => (timer = setTimeout(resolve, CLOSE_MS)));
    await Promise.race([closed, tooLong, this.#exited]);
    clearTimeout(timer);
    await this.#worker.terminate();
  }
}
