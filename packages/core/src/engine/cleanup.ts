import type { OwnedResource } from "../provider/source.ts";
import type { Volume } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { ProviderError } from "../provider/error.ts";
import { acquire } from "./replicate.ts";
import type { Job } from "./job.ts";
import { JobDocument, type JobState } from "./job-state.ts";
import { settingsOf } from "./settings.ts";

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
 * A volume that a record names, or that a run is half-way through, stays unless `includeReplicas` says otherwise.
 */
export async function cleanup(job: Job, options: CleanupOptions = {}): Promise<CleanupReport> {
  const settings = settingsOf(job.options);
  await using lease = await acquire(job, settings, options);
  const document = await JobDocument.read(job.store, job.id, lease, options);
  const report: CleanupReport = { removed: [], kept: [] };
  const { state } = document;
  const snapshots = new Set([state.run?.snapshot?.id, state.record?.snapshot.id]);
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
  const volumes: (OwnedResource & { volume: Volume })[] = [];
  for await (const owned of job.target.owned(job.id, options)) {
    if (owned.volume === undefined) report.kept.push({ ...owned, reason: "only its provider knows how to remove it" });
    else volumes.push({ ...owned, volume: owned.volume });
  }
  // What stands on others goes first.
  for (const owned of volumes.reverse()) {
    const reason = reasonToKeep(owned.volume, state, options);
    if (reason !== undefined) report.kept.push({ ...owned, reason });
    else {
      if (options.dryRun !== true) await job.target.remove(owned.volume, options);
      report.removed.push(owned);
    }
  }
  if (options.includeReplicas === true && options.dryRun !== true) {
    await document.update((changed) => {
      delete changed.record;
      delete changed.run;
      changed.torn = [];
      changed.toRelease = [];
    });
  }
  return report;
}

function reasonToKeep(volume: Volume, state: Readonly<JobState>, options: CleanupOptions): string | undefined {
  const consumed = state.launches.some((machine) => machine.consumed);
  if (consumed && options.includeReplicas === true) {
    throw new ProviderError("IN_USE", "A launched machine runs on this job's replica: terminate or finalize it first.", {
      operation: "cleanup",
    });
  }
  if (options.includeReplicas === true) return undefined;
  if (state.record?.disks.some((disk) => disk.volume.id === volume.id) === true) return "the record names it";
  const running = Object.values(state.run?.disks ?? {});
  if (running.some((disk) => disk.volume.id === volume.id || disk.committed?.id === volume.id)) {
    return "a run that can go on is writing it";
  }
  return undefined;
}
