import { ProviderError } from "../provider/error.ts";
import type { LaunchedMachine } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { acquire } from "./replicate.ts";
import type { Job } from "./job.ts";
import { JobDocument, type JobState } from "./job-state.ts";
import { refuseTorn } from "./recorded.ts";
import { CONSISTENCIES, settingsOf } from "./settings.ts";

export interface LaunchOptions extends Wait {
  /** Boots several disks although they are not one point in time. Default false. */
  allowInconsistent?: boolean | undefined;
}

/**
 * Boots a clone of the last record, isolated as the target can; the replica stays as it is, and runs
 * may go on afterwards: taking the job over for the launch ends one that is under way, which resumes when called again.
 * Idempotent per record: the second call gives the machine of the first.
 * @throws ProviderError UNSUPPORTED where the target launches nothing; IN_USE while the replica is torn.
 */
export async function launch(job: Job, options: LaunchOptions = {}): Promise<LaunchedMachine> {
  const settings = settingsOf(job.options);
  await using lease = await acquire(job, settings, options);
  const document = await JobDocument.read(job.store, job.id, lease, options);
  return await launchRecord(job, document, "test", options);
}

/** Launches what the document records and writes the machine down. */
export async function launchRecord(
  job: Job,
  document: JobDocument,
  purpose: "test" | "cutover",
  options: LaunchOptions,
): Promise<LaunchedMachine> {
  const { target } = job;
  const record = launchable(job, document.state, options);
  if (target.launch === undefined) {
    throw new ProviderError("UNSUPPORTED", "This target keeps disks and launches no machines.", {
      operation: "launch",
    });
  }
  const disks = record.disks.map(({ disk, volume }) => {
    const boot = record.machine.disks.find((found) => found.key === disk)?.boot;
    return boot === undefined ? { disk, volume } : { disk, volume, boot };
  });
  const machine = await target.launch({ name: record.machine.name, ...record.machine.spec }, disks, {
    key: `${job.id}/${purpose}/${record.run}`,
    purpose,
    job: job.id,
    signal: options.signal,
  });
  await document.update((state) => {
    state.launches = [...state.launches.filter((known) => known.id !== machine.id), machine];
  });
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
  const settings = settingsOf(job.options);
  await using lease = await acquire(job, settings, wait);
  const document = await JobDocument.read(job.store, job.id, lease, wait);
  const machine = document.state.launches.find(({ id }) => id === machineId);
  if (machine === undefined) return;
  if (machine.purpose === "cutover") {
    throw new ProviderError(
      "IN_USE",
      `Machine ${machineId} is what job ${job.id} was cut over to: revert the cutover instead.`,
    );
  }
  await terminateLaunched(job, document, machine, wait);
}

/** Ends a machine and takes it out of the document. */
export async function terminateLaunched(
  job: Job,
  document: JobDocument,
  machine: LaunchedMachine,
  wait: Wait,
): Promise<void> {
  if (job.target.terminate === undefined) {
    throw new ProviderError("UNSUPPORTED", "This target cannot end machines.", { operation: "terminate" });
  }
  await job.target.terminate(machine, wait);
  await document.update((state) => (state.launches = state.launches.filter(({ id }) => id !== machine.id)));
}
