import { Worker } from "node:worker_threads";
import { expect, vi } from "vitest";

/** Bytes that no piece of memory exceeds, whatever a small input states: two of qcow2's largest clusters. */
const MOST_PIECE = 4 << 20;
/** Bytes of the whole process, at any time; without a bound that is missed by far. */
const MOST_MEMORY = 1 << 30;
/** Processor time of one run, in milliseconds: a thousand times what is usual. Waiting for others does not count. */
const MOST_TIME = 10_000;

/** Ends the process when it works on one run for too long: a loop without an end lets no timer of its own thread fire. */
const watchdog = `
const { workerData } = require("node:worker_threads");
const beats = new Int32Array(workerData.beats);
let beat = -1;
let usage = process.cpuUsage();
setInterval(() => {
  if (Atomics.load(beats, 0) !== beat) {
    beat = Atomics.load(beats, 0);
    usage = process.cpuUsage();
  }
  const { user, system } = process.cpuUsage(usage);
  if ((user + system) / 1000 < workerData.most) return;
  require("node:fs").writeSync(2, "\\n" + workerData.name + ": a run does not end\\n");
  process.kill(process.pid, "SIGKILL");
}, 500);
`;

/** Watches what the runs of one test cost, and fails where it is too much. Dispose of it in the end. */
export class Bounds implements AsyncDisposable {
  readonly #beats = new Int32Array(new SharedArrayBuffer(4));
  readonly #watchdog: Worker;
  #longest = 0;

  /** `name`: told where a run does not end. */
  constructor(name: string) {
    this.#watchdog = new Worker(watchdog, {
      eval: true,
      execArgv: [],
      workerData: { beats: this.#beats.buffer, most: 3 * MOST_TIME, name },
    });
    // What an input states the length of is read into one of these.
    for (const method of ["alloc", "allocUnsafe", "allocUnsafeSlow"] as const) {
      const real = Buffer[method].bind(Buffer);
      vi.spyOn(Buffer, method).mockImplementation((length: number) => {
        this.#longest = Math.max(this.#longest, length);
        return real(length);
      });
    }
  }

  /** One run. */
  async run(body: () => Promise<void> | void): Promise<void> {
    Atomics.add(this.#beats, 0, 1);
    this.#longest = 0;
    const start = process.cpuUsage();
    await body();
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1000, "milliseconds of one run").toBeLessThan(MOST_TIME);
    expect(this.#longest, "bytes of one piece of memory").toBeLessThanOrEqual(MOST_PIECE);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    vi.restoreAllMocks();
    await this.#watchdog.terminate();
    expect(process.resourceUsage().maxRSS * 1024, "bytes of memory").toBeLessThan(MOST_MEMORY);
  }
}
