import { ProviderError } from "../provider/error.ts";
import type { LaunchedMachine } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { Job } from "./job.ts";
import { JobDocument, type JobState } from "./job-state.ts";
import { launchedMachines, noteEnded, noteLaunched } from "./launch-book.ts";
import { refuseTorn } from "./recorded.ts";
import { CONSISTENCIES, settingsOf } from "./settings.ts";
import { acquire } from "./take-over.ts";

export interface LaunchOptions extends Wait {
  /** Boots several disks although they are not one point in time. Default false. */
  allowInconsistent?: boolean | undefined;
}

/**
 * Boots a clone of the last record, isolated as the target can; the replica stays as it is. Where each commit makes a
 * volume of its own, a run under way goes on meanwhile. Where the replica is written in place, the launch takes the job
 * over while it clones: a run under way ends, and goes on when it is called again.
 * Idempotent per record: the second call gives the machine of the first.
 * @throws ProviderError UNSUPPORTED where the target launches nothing; IN_USE while the replica is torn.
 */
export async function launch(job: Job, options: LaunchOptions = {}): Promise<LaunchedMachine> {
  const { state } = await JobDocument.read(job.store, job.id, undefined, options);
  const apart = launchable(job, state, options).disks.every((disk) => disk.apart === true);
  await using lease = apart ? undefined : await acquire(job, settingsOf(job.options), options);
  const document = await JobDocument.read(job.store, job.id, lease, options);
  return await launchRecord(job, document.state, "test", options);
}

/** Launches what the document records and writes the machine down. */
export async function launchRecord(
  job: Job,
  state: Readonly<JobState>,
  purpose: "test" | "cutover",
  options: LaunchOptions,
): Promise<LaunchedMachine> {
  const { target } = job;
  const record = launchable(job, state, options);
  if (target.launch === undefined) {
    throw new ProviderError("UNSUPPORTED", "This target keeps disks and launches no machines.", {
      operation: "launch",
    });
  }
  const disks = record.disks.map(({ disk, volume }) => {
    const boot = record.machine.disks.find((found) => found.key === disk)?.boot;
    return boot === undefined ? { disk, volume } : { disk, volume, boot };
  });
  // A list that cannot be read is told before anything is launched.
  await launchedMachines(job.store, job.id, options);
  const machine = await target.launch({ name: record.machine.name, ...record.machine.spec }, disks, {
    key: `${job.id}/${purpose}/${record.run}`,
    purpose,
    job: job.id,
    signal: options.signal,
  });
  await noteLaunched(job.store, job.id, machine, options);
  return machine;
}

function launchable(job: Job, state: Readonly<JobState>, options: LaunchOptions): NonNullable<JobState["record"]> {
  const { record } = state;
  if (record === undefined) {
    throw new ProviderError("NOT_FOUND", `Job ${job.id} has no record yet: run it to its end before you launch it.`);
  }
  refuseTorn(state, "launch it");
  const { consistency } = record.snapshot;
  const torn = CONSISTENCIES.indexOf(consistency) < CONSISTENCIES.indexOf("crash");
  if (torn && record.disks.length > 1 && options.allowInconsistent !== true) {
    throw new ProviderError(
      "UNSUPPORTED",
      `The disks of ${record.machine.name} were copied with consistency "${consistency}", which is no common point in ` +
        `time: a machine launched from them may be corrupt. Take a better snapshot, or allow it explicitly.`,
      { operation: "launch" },
    );
  }
  return record;
}

/** Ends a machine that a launch of this job made; idempotent. A machine of a cutover is ended by reverting it. */
export async function terminate(job: Job, machineId: string, wait: Wait = {}): Promise<void> {
  const machine = (await launchedMachines(job.store, job.id, wait)).find(({ id }) => id === machineId);
  if (machine === undefined) return;
  if (machine.purpose === "cutover") {
    throw new ProviderError(
      "IN_USE",
      `Machine ${machineId} is what job ${job.id} was cut over to: revert the cutover instead.`,
    );
  }
  await terminateLaunched(job, machine, wait);
}

/** Ends a machine and strikes it out of the book. */
export async function terminateLaunched(job: Job, machine: LaunchedMachine, wait: Wait): Promise<void> {
  if (job.target.terminate === undefined) {
    throw new ProviderError("UNSUPPORTED", "This target cannot end machines.", { operation: "terminate" });
  }
  await job.target.terminate(machine, wait);
  await noteEnded(job.store, job.id, machine.id, wait);
}
