import { ProviderError } from "../provider/error.ts";
import type { Machine } from "../provider/source.ts";
import type { LaunchedMachine } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { Lease } from "../state/state-store.ts";
import type { Job } from "./job.ts";
import { JobDocument } from "./job-state.ts";
import { launchRecord, terminateLaunched, type LaunchOptions } from "./launch.ts";
import { acquire, Replication, type RunOptions, type RunReport } from "./replicate.ts";
import { settingsOf, type Settings } from "./settings.ts";

export interface CutoverOptions extends RunOptions, LaunchOptions {
  /** Whether a guest that does not shut down may be powered off. Default false: the cutover fails and nothing changed. */
  allowPowerOff?: boolean | undefined;
}

export interface CutoverReport {
  machine: LaunchedMachine;
  /** The last increment, made after the source had stopped; absent when an interrupted cutover had made it. */
  run?: RunReport;
}

/**
 * Moves a machine for good: stops it, confirmed; takes a last snapshot; sends the last increment; verifies; launches.
 * Every step is written down first, so that an interrupted cutover goes on, and until {@link finalizeCutover} it can be
 * taken back with {@link revertCutover}. When tracking is lost, or the last increment fails, the source is started again.
 */
export async function cutover(job: Job, options: CutoverOptions = {}): Promise<CutoverReport> {
  const strict: Job = { ...job, options: { ...job.options, onTrackingLost: job.options?.onTrackingLost ?? "fail" } };
  const settings = settingsOf(strict.options);
  await using lease = await acquire(job, settings, options);
  return await new Cutover(strict, settings, lease, options).go();
}

class Cutover {
  readonly #job: Job;
  readonly #settings: Settings;
  readonly #lease: Lease;
  readonly #options: CutoverOptions;
  #document!: JobDocument;

  constructor(job: Job, settings: Settings, lease: Lease, options: CutoverOptions) {
    this.#job = job;
    this.#settings = settings;
    this.#lease = lease;
    this.#options = options;
  }

  async go(): Promise<CutoverReport> {
    const { source } = this.#job;
    await this.#read();
    const before = this.#document.state.cutover;
    if (before?.step === "launched" || before?.step === "finalized") return { machine: before.machine! };
    if (before?.step === "reverting") {
      throw new ProviderError("IN_USE", `The cutover of job ${this.#job.id} is being taken back: revert it to the end first.`);
    }
    const machine = await source.machine(this.#job.machine, this.#options);
    if (before === undefined || before.step === "reverted") await this.#begin(machine);
    await using _stopped = await this.#stop(machine);
    let run: RunReport | undefined;
    if (this.#document.state.cutover?.step !== "replicated") {
      await this.#step("stopped");
      run = await this.#lastIncrement(machine);
      await this.#read();
      await this.#step("replicated");
    }
    const launched = await launchRecord(this.#job, this.#document, "cutover", this.#options);
    await this.#document.update((state) => {
      state.cutover = { ...state.cutover!, step: "launched", machine: launched };
    });
    return run === undefined ? { machine: launched } : { machine: launched, run };
  }

  async #read(): Promise<void> {
    this.#document = await JobDocument.read(this.#job.store, this.#job.id, this.#lease, this.#options);
  }

  async #step(step: "stopped" | "replicated" | "reverted"): Promise<void> {
    await this.#document.update((state) => (state.cutover = { ...state.cutover!, step }));
  }

  async #begin(machine: Machine): Promise<void> {
    const { source, target, id } = this.#job;
    if (target.launch === undefined) {
      throw new ProviderError("UNSUPPORTED", "This target launches no machines; a cutover needs one that does.");
    }
    if (source.power === undefined && source.quiesce === undefined) {
      throw new ProviderError(
        "UNSUPPORTED",
        `Machine ${machine.name} cannot be stopped through its source: stop it by hand, run the job once more, and launch.`,
        { operation: "cutover" },
      );
    }
    const wasRunning = source.power !== undefined && (await source.power.state(machine, this.#options)) === "on";
    await this.#document.update((state) => {
      state.cutover = { id: `${id}/${state.runs}`, step: "begun", wasRunning };
    });
  }

  /** Stops the source, confirmed. Disposing the result ends a quiesce; a machine that was shut down stays down. */
  async #stop(machine: Machine): Promise<AsyncDisposable> {
    const { source } = this.#job;
    const nothing: AsyncDisposable = { async [Symbol.asyncDispose]() {} };
    if (source.power === undefined) return source.quiesce!(machine, this.#options);
    if ((await source.power.state(machine, this.#options)) === "off") return nothing;
    try {
      await source.power.shutdown(machine, this.#options);
    } catch (error) {
      if (this.#options.allowPowerOff !== true) {
        await this.#goBack(machine);
        throw error;
      }
      this.#settings.notice(`Machine ${machine.name} did not shut down (${(error as Error).message}); it is powered off.`);
      await source.power.powerOff(machine, this.#options);
    }
    const state = await source.power.state(machine, this.#options);
    if (state === "off") return nothing;
    await this.#goBack(machine);
    throw new ProviderError("UNAVAILABLE", `Machine ${machine.name} is ${state} after its shutdown; the cutover was taken back.`);
  }

  async #lastIncrement(machine: Machine): Promise<RunReport> {
    try {
      await using run = new Replication(this.#job, this.#settings, this.#lease, this.#options);
      const report = await run.go();
      if (report.status === "done") return report;
      throw new ProviderError("UNAVAILABLE", `The cutover of ${machine.name} was paused; call it again to go on, or revert it.`, {
        retryable: true,
      });
    } catch (error) {
      const paused = this.#options.pause?.aborted === true || this.#options.signal?.aborted === true;
      if (!paused) {
        await this.#read();
        await this.#goBack(machine);
      }
      throw error;
    }
  }

  /** Starts the source again and ends this cutover, because the replica is not good enough to take over. */
  async #goBack(machine: Machine): Promise<void> {
    await startAgain(this.#job, this.#document, machine, {});
    await this.#step("reverted");
  }
}

/** Makes a cutover final: it can no longer be reverted, and what it kept for that may be cleaned up. Idempotent. */
export async function finalizeCutover(job: Job, wait: Wait = {}): Promise<void> {
  await using lease = await acquire(job, settingsOf(job.options), wait);
  const document = await JobDocument.read(job.store, job.id, lease, wait);
  const step = document.state.cutover?.step;
  if (step === "finalized") return;
  if (step !== "launched") {
    throw new ProviderError("NOT_FOUND", `Job ${job.id} has no launched cutover to finalize; its step is ${step ?? "none"}.`);
  }
  await document.update((state) => (state.cutover = { ...state.cutover!, step: "finalized" }));
}

/**
 * Takes a cutover back: ends the launched machine and starts the source again if it ran before. What the launched
 * machine wrote is lost. Where it had consumed the replica, the next run is a full copy. Idempotent.
 * @throws ProviderError DENIED once the cutover is final.
 */
export async function revertCutover(job: Job, wait: Wait = {}): Promise<void> {
  await using lease = await acquire(job, settingsOf(job.options), wait);
  const document = await JobDocument.read(job.store, job.id, lease, wait);
  const { cutover: made } = document.state;
  if (made === undefined || made.step === "reverted") return;
  if (made.step === "finalized") {
    throw new ProviderError("DENIED", `The cutover of job ${job.id} is final and cannot be taken back.`, { operation: "revert" });
  }
  await document.update((state) => (state.cutover = { ...made, step: "reverting" }));
  if (made.machine !== undefined) {
    await terminateLaunched(job, document, made.machine, wait);
    // The launched machine wrote to the replica: no digest and no checkpoint tells what it holds now.
    if (made.machine.consumed) await document.update((state) => delete state.record);
  }
  await startAgain(job, document, await job.source.machine(job.machine, wait), wait);
  await document.update((state) => (state.cutover = { ...made, step: "reverted" }));
}

async function startAgain(job: Job, document: JobDocument, machine: Machine, wait: Wait): Promise<void> {
  if (document.state.cutover?.wasRunning !== true || job.source.power === undefined) return;
  if ((await job.source.power.state(machine, wait)) !== "on") await job.source.power.powerOn(machine, wait);
}
