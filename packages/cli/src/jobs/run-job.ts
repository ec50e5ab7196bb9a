import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isAbort, ProviderError, type Receipt, replicate, type RunReport, stateKey, type Wait } from "@diskferry/core";
import type { Interrupts } from "../command-io.ts";
import type { Output } from "../output.ts";
import type { JobSpec } from "./job-spec.ts";
import { openJob, rememberJob } from "./open-job.ts";

export interface RunJobOptions {
  output: Output;
  interrupts: Interrupts;
}

/** What one run came to; a report is absent where it was paused before anything was copied. */
export interface JobOutcome {
  status: "done" | "paused";
  report?: RunReport;
}

/** As many are remembered. */
const mostNotices = 100;

/** Opens a job, runs it once and writes its receipts. @throws ProviderError, or the reason of the stop. */
export async function runJob(spec: JobSpec, { output, interrupts }: RunJobOptions): Promise<JobOutcome> {
  const { pause, stop } = interrupts;
  const notices = new Set<string>();
  const notice = (message: string): void => {
    if (notices.size < mostNotices) notices.add(message);
    output.notice(message, spec.id);
  };
  await using opened = await openJob(spec, { signal: stop, notice });
  const { job, window } = opened;
  using held = new HeldPause(pause, stop, window);
  try {
    await rememberJob(job.store, spec, { signal: stop });
    if (pause.aborted) return { status: "paused" };
    const report = await replicate(job, { signal: held.signal, pause, onProgress: output.progressOf(spec.id) });
    for (const fallback of report.fallbacks) {
      const text = `${fallback.from} → ${fallback.to}: ${fallback.reason}`;
      // People have read it already, when it was decided.
      if (!output.showsNotices || !notices.values().some((message) => message.includes(text)))
        output.fallback(spec.id, fallback);
    }
    if (spec.receipts !== undefined) await writeReceipts(spec.receipts, report.receipts, { signal: stop });
    return { status: report.status, report };
  } catch (error) {
    // Nothing moved while the window was closed, so that this pause was one at a durable point.
    if (isAbort(error, held.signal) && held.isPause) return { status: "paused" };
    throw error;
  }
}

/** A stop for runs that their window holds: they would come to no durable point before it opens. */
class HeldPause implements Disposable {
  readonly signal: AbortSignal;
  readonly #ended = new AbortController();
  readonly #halt = new AbortController();

  constructor(
    pause: AbortSignal,
    stop: AbortSignal,
    window: { readonly open: boolean; listen(listener: () => void): () => void } | undefined,
  ) {
    this.signal = AbortSignal.any([stop, this.#halt.signal]);
    if (window === undefined) return;
    const look = (): void => {
      if (pause.aborted && !window.open)
        this.#halt.abort(new DOMException("paused outside the backup window", "AbortError"));
    };
    const stopListening = window.listen(look);
    this.#ended.signal.addEventListener("abort", stopListening);
    pause.addEventListener("abort", look, { signal: this.#ended.signal });
    look();
  }

  get isPause(): boolean {
    return this.#halt.signal.aborted;
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
  }
}

/** Writes each receipt to its own file, whole or not at all. */
async function writeReceipts(folder: string, receipts: readonly Receipt[], wait: Wait): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    for (const receipt of receipts) {
      const run = [receipt.job, receipt.run].map((part) => part.replaceAll(/[^A-Za-z0-9._@+-]+/g, "-"));
      // Keys of disks that differ in any letter make two names.
      const name = [...run, stateKey(receipt.disk)].join("--");
      const path = join(folder, `${name}.json`);
      await writeFile(`${path}.new`, `${JSON.stringify(receipt, undefined, 2)}\n`, {
        signal: wait.signal,
        flush: true,
      });
      await rename(`${path}.new`, path);
    }
  } catch (cause) {
    if (isAbort(cause, wait.signal)) throw cause;
    throw new ProviderError(
      "UNAVAILABLE",
      `receipts cannot be written to ${folder} (${(cause as Error).message}); the copy itself is done and recorded: mend the folder and run again`,
      { operation: "write receipt", cause },
    );
  }
}
