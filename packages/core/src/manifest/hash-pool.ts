import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { ProviderError } from "../provider/error.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import { type Digester, digester } from "./digest.ts";
import type { HashAnswer, HashRequest } from "./hash-worker.ts";
import { leafDigests } from "./leaf-digests.ts";

/** Blocks per message at most: when several wait, one message saves the cost of the others. */
const blocksPerMessage = 8;
/** Messages a thread holds at once: with the second one it need not wait for us. */
const messagesPerThread = 2;

export interface HashPoolOptions {
  /** Worker threads at most. Default: 2, or 1 where the machine has a single core. */
  threads?: number | undefined;
}

/**
 * Hashes blocks on worker threads, which are started when first needed and keep no idle process alive. Until the first of
 * them runs, which takes a tenth of a second, the calling thread hashes, one block in a turn of its event loop.
 */
export interface HashPool {
  readonly algorithm: DigestAlgorithm;
  /**
   * The digests of every leaf of `block`, concatenated in order; the last leaf may be short. The block is left alone by
   * its owner until the call settled. A block in shared memory is not copied, any other is. Each call under way holds
   * one block, so that the number of blocks bounds the queue.
   */
  hash(block: Uint8Array, leaf: number, wait?: Wait): Promise<Uint8Array>;
  /** Ends the threads; calls under way reject. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens a pool. @throws ProviderError UNSUPPORTED when this machine cannot compute the algorithm. */
export function hashPool(algorithm: DigestAlgorithm, options: HashPoolOptions = {}): HashPool {
  const digest = digester(algorithm);
  const threads = options.threads ?? Math.min(2, availableParallelism());
  if (!Number.isSafeInteger(threads) || threads < 1) throw new RangeError(`no number of threads: ${threads}`);
  return new ThreadedHashPool(algorithm, digest, threads);
}

interface Task {
  block: Uint8Array;
  leaf: number;
  signal: AbortSignal | undefined;
  resolve(digests: Uint8Array): void;
  reject(error: unknown): void;
}

interface Thread {
  worker: Worker;
  /** Whether it runs by now; it is given nothing before. */
  isUp: boolean;
  /** Messages it has not answered yet, oldest first. */
  messages: Task[][];
}

class ThreadedHashPool implements HashPool {
  readonly algorithm: DigestAlgorithm;
  readonly #digest: Digester;
  readonly #limit: number;
  readonly #threads = new Set<Thread>();
  #waiting: Task[] = [];
  /** Whether the calling thread hashes a block in its next turn. */
  #isHashing = false;
  /** Why a thread could not be started; the next call rejects with it. */
  #failure: ProviderError | undefined;
  #closed = false;

  constructor(algorithm: DigestAlgorithm, digest: Digester, limit: number) {
    this.algorithm = algorithm;
    this.#digest = digest;
    this.#limit = limit;
  }

  async hash(block: Uint8Array, leaf: number, wait?: Wait): Promise<Uint8Array> {
    wait?.signal?.throwIfAborted();
    if (!Number.isSafeInteger(leaf) || leaf < 1) throw new RangeError(`no size of a leaf: ${leaf}`);
    if (this.#closed) throw closed();
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
    return await new Promise<Uint8Array>((resolve, reject) => {
      this.#waiting.push({ block, leaf, signal: wait?.signal, resolve, reject });
      this.#send();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const task of this.#waiting.splice(0)) task.reject(closed());
    await Promise.all([...this.#threads].map(({ worker }) => worker.terminate()));
  }

  #send(): void {
    for (const thread of this.#freeThreads()) {
      const tasks = this.#take(Math.ceil(this.#waiting.length / this.#limit));
      if (tasks.length === 0) return;
      if (thread.messages.length === 0) thread.worker.ref();
      thread.messages.push(tasks);
      const blocks = tasks.map(({ block, leaf }) => ({ block: ownMemory(block), leaf }));
      const moved = blocks.flatMap(({ block }) => (block.buffer instanceof ArrayBuffer ? [block.buffer] : []));
      thread.worker.postMessage(blocks satisfies HashRequest, moved);
    }
    if (this.#waiting.length > 0 && this.#starting === this.#threads.size) this.#hashHere();
  }

  get #starting(): number {
    return this.#threads.values().reduce((count, { isUp }) => (isUp ? count : count + 1), 0);
  }

  #hashHere(): void {
    if (this.#isHashing) return;
    this.#isHashing = true;
    setImmediate(() => {
      this.#isHashing = false;
      for (const { block, leaf, resolve, reject } of this.#take(1)) {
        try {
          resolve(leafDigests(this.#digest, block, leaf));
        } catch (error) {
          reject(error);
        }
      }
      this.#send();
    });
  }

  /** Threads that can take a message, the least busy first; new ones while there may be more. */
  *#freeThreads(): Generator<Thread, void, undefined> {
    for (let busy = 0; busy < messagesPerThread; busy++) {
      for (const thread of this.#threads) if (thread.isUp && thread.messages.length === busy) yield thread;
      if (busy > 0) continue;
      while (this.#threads.size < this.#limit && this.#waiting.length > this.#starting) this.#start();
    }
  }

  /** The next tasks, without those that were aborted while they waited. */
  #take(count: number): Task[] {
    const tasks: Task[] = [];
    while (this.#waiting.length > 0 && tasks.length < Math.min(count, blocksPerMessage)) {
      const task = this.#waiting.shift()!;
      if (task.signal?.aborted) task.reject(task.signal.reason);
      else tasks.push(task);
    }
    return tasks;
  }

  #start(): void {
    // Bundled, this module and the thread's lie side by side; from source, type stripping wants the real name.
    const name = import.meta.url.endsWith(".ts") ? "./hash-worker.ts" : "./hash-worker.js";
    const worker = new Worker(new URL(name, import.meta.url), {
      workerData: { algorithm: this.algorithm },
      // The thread needs none of the process's flags, and some of them (--input-type) end it.
      execArgv: [],
      // Blocks and digests lie outside of its heap: garbage need not grow to V8's 48 MiB before it is collected.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    const thread: Thread = { worker, isUp: false, messages: [] };
    this.#threads.add(thread);
    worker.once("online", () => {
      thread.isUp = true;
      this.#send();
    });
    worker.on("message", (answer: HashAnswer) => this.#answered(thread, answer));
    worker.on("error", (error) => this.#ended(thread, error));
    worker.on("exit", () => this.#ended(thread, undefined));
    // Last, since whoever listens for messages makes the process wait for them.
    worker.unref();
  }

  #answered(thread: Thread, answer: HashAnswer): void {
    const tasks = thread.messages.shift() ?? [];
    if (thread.messages.length === 0) thread.worker.unref();
    for (const [index, task] of tasks.entries()) {
      if (task.signal?.aborted) task.reject(task.signal.reason);
      else task.resolve(answer[index]!);
    }
    this.#send();
  }

  #ended(thread: Thread, cause: unknown): void {
    // It tells an error and then its exit.
    if (!this.#threads.delete(thread)) return;
    const error = this.#closed
      ? closed()
      : new ProviderError("UNEXPECTED", "a hashing thread ended; run again", { operation: "digest", cause });
    for (const task of thread.messages.splice(0).flat()) task.reject(error);
    if (!this.#closed && !thread.isUp) {
      if (this.#waiting.length === 0) this.#failure = error as ProviderError;
      for (const task of this.#waiting.splice(0)) task.reject(error);
    }
    if (!this.#closed) this.#send();
  }
}

/** The block itself where it is shared, else a copy of it alone, for sending takes the whole buffer along. */
function ownMemory(block: Uint8Array): Uint8Array {
  return block.buffer instanceof SharedArrayBuffer ? block : Uint8Array.from(block);
}

function closed(): Error {
  return new TypeError("the hash pool is closed");
}
