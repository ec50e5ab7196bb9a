import { write, writev } from "node:fs";

/**
 * Calls of one file under way at once. Parallel writes of one file fight for its lock: unlimited, they took twice the
 * processor time on ext4 and were slower.
 */
const parallelCalls = 2;
/** So many writes in line are worth a second call; fewer wait until they can be joined with what comes. */
const crowd = 8;
/** Bytes after which nothing more is joined to a call. */
const joinedBytes = 2 * 1024 * 1024;
/** Writes that are joined in one call, at most. The kernel takes 1024 (IOV_MAX). */
const joinedWrites = 64;

interface Write {
  readonly offset: number;
  readonly data: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Writes into a file. Those that wait and continue each other go to the kernel in one call: the way to another thread
 * and back costs about as much as the kernel's work for a quarter of a MiB. How many may wait is up to those who send
 * them (docs/decisions/003-nbd-server-receive-path.md).
 */
export class WriteQueue {
  readonly #descriptor: number;
  readonly #waiting: Write[] = [];
  #calls = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** Resolves when the kernel has all of `data`. Rejects with the error of Node that says why not. */
  write(offset: number, data: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ offset, data, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    if (this.#calls === parallelCalls || (this.#calls > 0 && this.#waiting.length < crowd)) return;
    const first = this.#waiting.shift();
    if (first === undefined) return;
    this.#calls += 1;
    const run = this.#continuing(first);
    if (run.length === 1) this.#writeRest(run, 0);
    else this.#writeTogether(run);
  }

  /** `first` and those in line that follow it on the disk without a gap. */
  #continuing(first: Write): Write[] {
    const run = [first];
    let end = first.offset + first.data.byteLength;
    for (let at = 0; at < this.#waiting.length && run.length < joinedWrites && end - first.offset < joinedBytes;) {
      const candidate = this.#waiting[at] as Write;
      if (candidate.offset === end) {
        this.#waiting.splice(at, 1);
        run.push(candidate);
        end += candidate.data.byteLength;
      } else at += 1;
    }
    return run;
  }

  #writeTogether(run: readonly Write[]): void {
    const pieces = run.map(({ data }) => data);
    writev(this.#descriptor, pieces, run[0]?.offset ?? 0, (error, count) => {
      // What the call did not take is written again piece by piece, so that each client learns of its own write alone.
      let taken = error === null ? count : 0;
      let whole = 0;
      for (const { data, resolve } of run) {
        if (taken < data.byteLength) break;
        taken -= data.byteLength;
        whole += 1;
        resolve();
      }
      this.#writeRest(run, whole);
    });
  }

  /** One call after the other for those from `index` on. */
  #writeRest(run: readonly Write[], index: number): void {
    const next = run[index];
    if (next === undefined) {
      this.#calls -= 1;
      this.#next();
      return;
    }
    const { offset, data, resolve, reject } = next;
    const step = (at: number): void => {
      write(this.#descriptor, data, at, data.byteLength - at, offset + at, (error, count) => {
        if (error === null && count > 0 && at + count < data.byteLength) {
          step(at + count);
          return;
        }
        if (error === null && at + count === data.byteLength) resolve();
        else reject(error ?? new Error("the kernel took nothing of a write and named no error"));
        this.#writeRest(run, index + 1);
      });
    };
    step(0);
  }
}
