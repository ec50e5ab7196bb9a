import { isProviderError, ProviderError } from "../provider/error.ts";
import type { Machine } from "../provider/source.ts";
import type { LaunchedMachine } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { Lease } from "../state/state-store.ts";
import type { Job } from "./job.ts";
import { JobDocument } from "./job-state.ts";
import { launchRecord, terminateLaunched, type LaunchOptions } from "./launch.ts";
import { Replication, type RunOptions, type RunReport } from "./replicate.ts";
import { settingsOf, type Settings } from "./settings.ts";
import { acquire } from "./take-over.ts";

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
  return await new Cutover(job, strict, settings, lease, options).go();
}

class Cutover {
  /** As the caller gave it, for what is done before the source stops. */
  readonly #given: Job;
  readonly #job: Job;
  readonly #settings: Settings;
  readonly #lease: Lease;
  readonly #options: CutoverOptions;
  #document!: JobDocument;

  constructor(given: Job, job: Job, settings: Settings, lease: Lease, options: CutoverOptions) {
    this.#given = given;
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
      throw new ProviderError(
        "IN_USE",
        `The cutover of job ${this.#job.id} is being taken back: revert it to the end first.`,
      );
    }
    const machine = await source.machine(this.#job.machine, this.#options);
    const runs = await this.#runs(machine);
    if (runs && before?.launching === true) {
      throw new ProviderError(
        "IN_USE",
        `Machine ${machine.name} runs again, and the target may have launched its replica already: revert the cutover of ` +
          `job ${this.#job.id} first.`,
        { operation: "cutover" },
      );
    }
    // While the source still runs, this costs no downtime.
    if (runs && this.#document.state.run !== undefined) await this.#increment(this.#given);
    if (before === undefined || before.step === "reverted") await this.#begin(machine);
    await using _stopped = await this.#stop(machine);
    if (runs || this.#document.state.cutover?.step === "begun") await this.#stopped(runs);
    let run: RunReport | undefined;
    if (this.#document.state.cutover?.step !== "replicated") {
      run = await this.#lastIncrement(machine);
      await this.#step("replicated");
    }
    const launched = await this.#launch();
    return run === undefined ? { machine: launched } : { machine: launched, run };
  }

  /** Whether the source may write. One that can only be quiesced wrote whenever nobody held it. */
  async #runs(machine: Machine): Promise<boolean> {
    const { power } = this.#job.source;
    return power === undefined || (await power.state(machine, this.#options)) !== "off";
  }

  /** Notes that the source has stopped just now: what was copied of it before is not the last word. */
  async #stopped(ran: boolean): Promise<void> {
    const { power } = this.#job.source;
    await this.#document.update((state) => {
      const { stale: _, ...before } = state.cutover!;
      const stale = state.run === undefined ? {} : { stale: state.run.id };
      const wasRunning = before.wasRunning || (ran && power !== undefined);
      state.cutover = { ...before, ...stale, wasRunning, step: "stopped" };
    });
  }

  async #launch(): Promise<LaunchedMachine> {
    // A launch that was asked for before and never answered may have happened, whatever is said to the next one.
    const unanswered = this.#document.state.cutover?.launching === true;
    await this.#document.update((state) => (state.cutover = { ...state.cutover!, launching: true }));
    let machine: LaunchedMachine;
    try {
      machine = await launchRecord(this.#job, this.#document.state, "cutover", this.#options);
    } catch (error) {
      // Refused for a reason is not launched; after anything else, only asking again by the same key can tell.
      const refused = isProviderError(error) && error.code !== "UNAVAILABLE" && error.code !== "UNEXPECTED";
      if (refused && !unanswered) {
        await this.#document.update((state) => delete state.cutover!.launching);
      }
      throw error;
    }
    await this.#document.update((state) => {
      const { launching: _, ...cutover } = state.cutover!;
      state.cutover = { ...cutover, step: "launched", machine };
    });
    return machine;
  }

  async #read(): Promise<void> {
    this.#document = await JobDocument.read(this.#job.store, this.#job.id, this.#lease, this.#options);
  }

  async #step(step: "replicated" | "reverted"): Promise<void> {
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
      // The guest may be shutting down by now, and is not started again before it has: calling again, or reverting, finds it.
      if (this.#options.signal?.aborted === true) throw error;
      if (this.#options.allowPowerOff !== true) {
        await this.#goBack(machine);
        throw error;
      }
      this.#settings.notice(
        `Machine ${machine.name} did not shut down (${(error as Error).message}); it is powered off.`,
      );
      await source.power.powerOff(machine, this.#options);
    }
    const state = await source.power.state(machine, this.#options);
    if (state === "off") return nothing;
    await this.#goBack(machine);
    throw new ProviderError(
      "UNAVAILABLE",
      `Machine ${machine.name} is ${state} after its shutdown; the cutover was taken back.`,
    );
  }

  /** One run, to its end. */
  async #increment(job: Job): Promise<RunReport> {
    await using run = new Replication(job, settingsOf(job.options), this.#lease, this.#options);
    const report = await run.go();
    await this.#read();
    if (report.status === "done") return report;
    throw new ProviderError(
      "UNAVAILABLE",
      `The cutover of job ${job.id} was paused; call it again to go on, or revert it.`,
      {
        retryable: true,
      },
    );
  }

  async #lastIncrement(machine: Machine): Promise<RunReport> {
    try {
      const report = await this.#increment(this.#job);
      if (report.run !== this.#document.state.cutover?.stale) return report;
      return await this.#increment(this.#job);
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
    // A worker that took the cutover over may have launched the replica by now: the source then stays as it is.
    await this.#lease.check();
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
    throw new ProviderError(
      "NOT_FOUND",
      `Job ${job.id} has no launched cutover to finalize; its step is ${step ?? "none"}.`,
    );
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
    throw new ProviderError("DENIED", `The cutover of job ${job.id} is final and cannot be taken back.`, {
      operation: "revert",
    });
  }
  await document.update((state) => (state.cutover = { ...made, step: "reverting" }));
  // A launch that was never answered is asked for by its key once more, to learn what there is to end.
  const unanswered = made.launching === true && document.state.record !== undefined;
  const anything: LaunchOptions = { ...wait, allowInconsistent: true };
  const machine =
    made.machine ?? (unanswered ? await launchRecord(job, document.state, "cutover", anything) : undefined);
  if (machine !== undefined) {
    await terminateLaunched(job, machine, wait);
    // The launched machine wrote to the replica: no digest and no checkpoint tells what it holds now.
    if (machine.consumed) await forgetReplica(document);
  }
  await startAgain(job, document, await job.source.machine(job.machine, wait), wait);
  await document.update((state) => {
    const { launching: _, ...cutover } = made;
    state.cutover = { ...cutover, step: "reverted" };
  });
}

/** Takes the record away; a base that was kept for its checkpoint is released by the next run. */
async function forgetReplica(document: JobDocument): Promise<void> {
  await document.update((state) => {
    if (state.record !== undefined) state.toRelease.push(state.record.snapshot);
    delete state.record;
  });
}

async function startAgain(job: Job, document: JobDocument, machine: Machine, wait: Wait): Promise<void> {
  if (document.state.cutover?.wasRunning !== true || job.source.power === undefined) return;
  if ((await job.source.power.state(machine, wait)) !== "on") await job.source.power.powerOn(machine, wait);
}
