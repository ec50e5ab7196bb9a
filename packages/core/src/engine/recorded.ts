import { openManifest, type Manifest } from "../manifest/manifest.ts";
import { ProviderError } from "../provider/error.ts";
import type { Wait } from "../provider/wait.ts";
import type { Job } from "./job.ts";
import { JobDocument, keyOf, type DiskRecord, type JobState, type RunRecord } from "./job-state.ts";

/** A job's record. @throws ProviderError NOT_FOUND before its first run has ended. */
export async function recordOf(job: Job, wait: Wait): Promise<{ state: Readonly<JobState>; record: RunRecord }> {
  const { state } = await JobDocument.read(job.store, job.id, undefined, wait);
  if (state.record === undefined) {
    throw new ProviderError("NOT_FOUND", `Job ${job.id} has no record yet: run it to its end first.`);
  }
  return { state, record: state.record };
}

/**
 * The disks whose replica is torn: a run that has no record yet writes, or may have written, the very volume that the
 * record names. A volume that a commit made anew stands apart from what later runs write.
 */
export function tornDisks(state: Readonly<JobState>): string[] {
  const written = [
    ...state.torn,
    ...Object.entries(state.run?.disks ?? {}).map(([disk, { volume }]) => ({ disk, volume: volume.id })),
  ];
  const torn = written.filter(({ disk, volume }) => {
    const recorded = state.record?.disks.find((record) => record.disk === disk);
    return recorded === undefined || recorded.volume.id === volume;
  });
  return [...new Set(torn.map(({ disk }) => disk))];
}

/** @throws ProviderError IN_USE while a run is half-way through the volumes themselves. */
export function refuseTorn(state: Readonly<JobState>, what: string): void {
  const torn = tornDisks(state);
  if (torn.length === 0) return;
  throw new ProviderError(
    "IN_USE",
    `The replica of ${torn.join(", ")} is torn: a run that has not ended wrote to it. Run job ${state.job} to its end ` +
      `before you ${what}.`,
    { operation: what },
  );
}

/** The manifest of a recorded disk. @throws ProviderError UNSUPPORTED where no digest is kept. */
export async function manifestOf(job: Job, disk: DiskRecord, wait: Wait): Promise<Manifest> {
  if (disk.manifest === undefined) {
    throw new ProviderError(
      "UNSUPPORTED",
      `Disk ${disk.disk} of job ${job.id} was copied without digests: there is nothing to compare with. Copy it in full ` +
        `with a digest first.`,
    );
  }
  return openManifest(job.store, keyOf.pages(job.id, disk.disk), disk.manifest, wait);
}
