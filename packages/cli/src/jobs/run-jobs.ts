import { setTimeout as delay } from "node:timers/promises";
import { isAbort, isProviderError } from "@diskferry/core";
import type { CommandContext } from "../command.ts";
import { DONE, exitCodeOf, PAUSED, STOPPED } from "../exit-codes.ts";
import { runText } from "../reports/run-text.ts";
import type { JobSpec } from "./job-spec.ts";
import { windowOf } from "./open-job.ts";
import { runJob } from "./run-job.ts";

/**
 * Runs jobs, so many at once, each again and again where it says so, until a pause. A job that fails is told and does
 * not hold the others up. Resolves with 0, or the exit code of the first failure of a last round, or 75.
 */
export async function runJobs(
  command: string,
  jobs: readonly JobSpec[],
  concurrency: number,
  context: CommandContext,
): Promise<number> {
  const { output, interrupts } = context;
  const slots = new Slots(concurrency);
  let told = false;
  const tellPause = (): void => {
    if (told) return;
    told = true;
    output.notice("pausing at the next durable point; interrupt again to stop at once");
  };
  interrupts.pause.addEventListener("abort", tellPause, { once: true });
  try {
    const codes = await Promise.all(jobs.map((spec) => rounds(command, spec, slots, context)));
    return codes.find((code) => code !== DONE && code !== PAUSED) ?? (codes.includes(PAUSED) ? PAUSED : DONE);
  } finally {
    interrupts.pause.removeEventListener("abort", tellPause);
  }
}

async function rounds(command: string, spec: JobSpec, slots: Slots, context: CommandContext): Promise<number> {
  const { pause } = context.interrupts;
  for (;;) {
    const began = performance.now();
    const round = await once(command, spec, slots, context);
    if (!round.again || spec.everyMs === undefined) return round.code;
    const rest = spec.everyMs - (performance.now() - began);
    try {
      await sleep(Math.max(0, rest), pause);
    } catch (error) {
      if (!isAbort(error, pause)) throw error;
      // Between two runs nothing is under way: there is nothing to go on with.
      return round.code;
    }
  }
}

/** The longest delay a timer takes is about 24 days. */
const longestDelayMs = 2 ** 31 - 1;

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; ; left -= longestDelayMs) {
    await delay(Math.min(left, longestDelayMs), undefined, { signal });
    if (left <= longestDelayMs) return;
  }
}

async function once(
  command: string,
  spec: JobSpec,
  slots: Slots,
  context: CommandContext,
): Promise<{ code: number; again: boolean }> {
  const { output, interrupts } = context;
  try {
    const outcome = await inWindow(spec, slots, context, () => runJob(spec, { output, interrupts }));
    if (outcome === undefined) return { code: PAUSED, again: false };
    const { status, report } = outcome;
    if (report !== undefined) output.result(command, { job: spec.id, report }, runText(report));
    if (status === "done") return { code: DONE, again: true };
    output.notice(`job ${spec.id} is paused; what was copied is durable, and the same command goes on from there`);
    return { code: PAUSED, again: false };
  } catch (error) {
    const stopped = interrupts.stop.aborted && isAbort(error, interrupts.stop);
    const code = stopped ? STOPPED : exitCodeOf(error);
    if (stopped)
      output.notice(`job ${spec.id} was stopped at once; the same command goes on from its last durable point`);
    else output.error(error, code, spec.id);
    // What is wrong with a configuration does not mend itself; anything else may have by the next round.
    return { code, again: !stopped && !(isProviderError(error) && error.code === "CONFIG_INVALID") };
  }
}

/**
 * Does something in a free place, while the job's backup window is open: who waits for a window holds no place that
 * others could use, and has nothing open. Resolves with undefined after a pause.
 */
async function inWindow<Result>(
  spec: JobSpec,
  slots: Slots,
  { output, interrupts }: CommandContext,
  work: () => Promise<Result>,
): Promise<Result | undefined> {
  const { pause, stop } = interrupts;
  using window = windowOf(spec);
  for (;;) {
    if (window?.open === false && !pause.aborted) {
      const opens = new Date(window.nextChange).toISOString();
      output.notice(`job ${spec.id} waits for its backup window, which opens at ${opens}`, spec.id);
      try {
        await window.wait({ signal: AbortSignal.any([pause, stop]) });
      } catch (error) {
        if (stop.aborted || !isAbort(error, pause)) throw error;
      }
    }
    // It may have closed again until a place is free.
    const turn = await slots.use(async () =>
      pause.aborted || window?.open === false
        ? { held: true as const }
        : { held: false as const, result: await work() },
    );
    if (!turn.held) return turn.result;
    if (pause.aborted) return undefined;
  }
}

/** Lets so many work at once. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async use<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
