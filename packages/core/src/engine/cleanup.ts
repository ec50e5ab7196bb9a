import type { OwnedResource } from "../provider/source.ts";
import type { Volume } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { Job } from "./job.ts";
import { JobDocument, type JobState } from "./job-state.ts";
import { launchedMachines } from "./launch-book.ts";
import { settingsOf } from "./settings.ts";
import { acquire } from "./take-over.ts";

export interface CleanupOptions extends Wait {
  /** Removes volumes too that hold a record or a run that could go on. Default false. */
  includeReplicas?: boolean | undefined;
  /** Only tells what would be removed. Default false. */
  dryRun?: boolean | undefined;
}

/** What a clean-up removed, or would remove, and what it left and why. Plain JSON. */
export interface CleanupReport {
  removed: OwnedResource[];
  kept: (OwnedResource & { reason: string })[];
}

/**
 * Removes what this job made on both platforms and no longer needs: by its tags and keys, never by a name's beginning.
 * A volume that a record names or named, or that a run is half-way through, stays unless `includeReplicas` says otherwise;
 * so does, always, what something stands on.
 */
export async function cleanup(job: Job, options: CleanupOptions = {}): Promise<CleanupReport> {
  const settings = settingsOf(job.options);
  // Only looking takes nothing over: a worker that is copying goes on.
  await using lease = options.dryRun === true ? undefined : await acquire(job, settings, options);
  const document = await JobDocument.read(job.store, job.id, lease, options);
  const report: CleanupReport = { removed: [], kept: [] };
  const { state } = document;
  if (options.includeReplicas === true) await refuseWhileConsumed(job, options);
  // After a final cutover no run follows that would need its base.
  const final = state.cutover?.step === "finalized";
  const snapshots = new Set(final ? [] : [state.run?.snapshot?.id, state.record?.snapshot.id]);
  for await (const owned of job.source.owned(job.id, options)) {
    if (owned.snapshot !== undefined && snapshots.has(owned.snapshot.id) && options.includeReplicas !== true) {
      report.kept.push({ ...owned, reason: "the next run starts from it or goes on with it" });
    } else if (owned.snapshot === undefined) {
      report.kept.push({ ...owned, reason: "only its provider knows how to remove it" });
    } else {
      if (options.dryRun !== true) await job.source.release(owned.snapshot, options);
      report.removed.push(owned);
    }
  }
  const volumes: OwnedVolume[] = [];
  for await (const owned of job.target.owned(job.id, options)) {
    const reason =
      owned.volume === undefined
        ? "only its provider knows how to remove it"
        : reasonToKeep(owned.volume, state, options);
    if (owned.volume === undefined || reason !== undefined) report.kept.push({ ...owned, reason: reason ?? "" });
    else volumes.push({ ...owned, volume: owned.volume });
  }
  await removeVolumes(job, volumes, report, options);
  if (options.includeReplicas === true && options.dryRun !== true) {
    await document.update((changed) => {
      delete changed.record;
      delete changed.run;
      delete changed.earlier;
      changed.torn = [];
      changed.toRelease = [];
    });
  }
  return report;
}

type OwnedVolume = OwnedResource & { volume: Volume };

/** Removes volumes in whatever order their chains allow: one that others stand on is tried again once those are gone. */
async function removeVolumes(
  job: Job,
  volumes: readonly OwnedVolume[],
  report: CleanupReport,
  options: CleanupOptions,
): Promise<void> {
  if (options.dryRun === true) return void report.removed.push(...volumes);
  let left = volumes;
  for (let before = Infinity; left.length > 0 && left.length < before;) {
    before = left.length;
    const refused: OwnedVolume[] = [];
    const reasons: string[] = [];
    for (const owned of left) {
      try {
        await job.target.remove(owned.volume, options);
        report.removed.push(owned);
      } catch (error) {
        if (!isProviderError(error) || error.code !== "IN_USE") throw error;
        refused.push(owned);
        reasons.push(error.message);
      }
    }
    left = refused;
    if (left.length === before) report.kept.push(...left.map((owned, at) => ({ ...owned, reason: reasons[at]! })));
  }
}

/** @throws ProviderError IN_USE */
async function refuseWhileConsumed({ store, id }: Job, wait: Wait): Promise<void> {
  const machine = (await launchedMachines(store, id, wait)).find(({ consumed }) => consumed);
  if (machine === undefined) return;
  throw new ProviderError(
    "IN_USE",
    `Machine ${machine.name} runs on this job's replica: revert the cutover that launched it first. Nothing was removed.`,
    { operation: "cleanup" },
  );
}

function reasonToKeep(volume: Volume, state: Readonly<JobState>, options: CleanupOptions): string | undefined {
  if (options.includeReplicas === true) return undefined;
  if (state.record?.disks.some((disk) => disk.volume.id === volume.id) === true) return "the record names it";
  if (state.earlier?.includes(volume.id) === true) return "it is an earlier recovery point";
  const running = Object.values(state.run?.disks ?? {});
  if (running.some((disk) => disk.volume.id === volume.id || disk.committed?.id === volume.id)) {
    return "a run that can go on is writing it";
  }
  if (state.torn.some((torn) => torn.volume === volume.id)) return "the next run goes on with what it holds";
  return undefined;
}
