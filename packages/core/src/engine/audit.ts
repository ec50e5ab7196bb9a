import { randomInt } from "node:crypto";
import { ProviderError } from "../provider/error.ts";
import type { Extent } from "../provider/extents.ts";
import type { DiskSnapshot, Snapshot } from "../provider/source.ts";
import type { Wait } from "../provider/wait.ts";
import { compareDisk } from "./compare-disk.ts";
import type { Job } from "./job.ts";
import type { DiskRecord } from "./job-state.ts";
import { boundOf, chooseLeaves, UnchangedLeaves } from "./leaf-sample.ts";
import { manifestOf, recordOf } from "./recorded.ts";
import { settingsOf, type Settings } from "./settings.ts";
import { provenTiles } from "./tiles.ts";

export interface AuditOptions extends Wait {
  /** Leaves read of each disk. Default 2000. */
  samples?: number | undefined;
  /** The probability with which the stated bound holds, in (0, 1). Default 0.99. */
  confidence?: number | undefined;
  /** A number below `limit`, evenly distributed. Default: `crypto.randomInt`. */
  random?: ((limit: number) => number) | undefined;
}

export interface DiskAudit {
  disk: string;
  /** Leaves that the tracker calls unchanged since the record. */
  unchanged: number;
  /** How many of them were read from the source and compared with the record. */
  sampled: number;
  /** How many of those had changed: the tracker missed a write. */
  missed: number;
  /** Where, as far as the first thousand go. */
  missedAt: Extent[];
  /**
   * With the stated confidence, less than this share of the leaves called unchanged has changed. 0 when all were read;
   * absent when a miss was found.
   */
  bound?: number;
  confidence: number;
}

/** What an audit found. Plain JSON. */
export interface AuditReport {
  job: string;
  run: string;
  sound: boolean;
  disks: DiskAudit[];
}

/**
 * Puts the tracker to the test: takes a snapshot, asks what changed since the record, and reads a random sample of what
 * it calls unchanged from the source. Nothing is written to the target; the snapshot is released.
 * @throws ProviderError UNSUPPORTED where there is no tracker or no digest to compare with; IN_USE while a run is under way.
 */
export async function audit(job: Job, options: AuditOptions = {}): Promise<AuditReport> {
  const settings = settingsOf(job.options);
  const { record, state } = await recordOf(job, options);
  const { source } = job;
  if (state.run !== undefined) {
    throw new ProviderError(
      "IN_USE",
      `Run ${state.run.id} of job ${job.id} is under way, and a place that keeps one snapshot per job would give up its ` +
        `snapshot for the audit's. Let it end, then audit.`,
      { operation: "audit" },
    );
  }
  if (source.tracker === undefined) {
    throw new ProviderError(
      "UNSUPPORTED",
      "This source tracks no changes: there is nothing to audit. Every run compares all.",
      {
        operation: "audit",
      },
    );
  }
  const report: AuditReport = { job: job.id, run: record.run, sound: true, disks: [] };
  const machine = await source.machine(job.machine, options);
  const snapshot: Snapshot = await source.snapshot(machine, {
    key: `${job.id}/audit/${record.run}/${Date.now()}`,
    disks: record.disks.map(({ disk }) => disk),
    job: job.id,
    signal: options.signal,
  });
  try {
    for (const disk of record.disks) {
      const point = snapshot.disks.find((found) => found.disk === disk.disk);
      if (point === undefined || point.size !== disk.size || disk.checkpoint === undefined) {
        throw new ProviderError(
          "TRACKING_LOST",
          disk.checkpoint === undefined
            ? `Disk ${disk.disk} cannot be audited: its last run left no checkpoint, so its source cannot tell what changed ` +
                `since. Where the source tracks changes, run the job once more first; else every run compares all.`
            : `Disk ${disk.disk} cannot be audited: its size changed. Run the job once more first.`,
          { operation: "audit" },
        );
      }
      const found = await auditDisk(job, settings, disk, point, options);
      report.sound &&= found.missed === 0;
      report.disks.push(found);
    }
  } finally {
    // Also when the caller gave up: nothing else would remember this snapshot.
    await source.release(snapshot, { signal: AbortSignal.timeout(settings.attempts.controlMs) });
  }
  return report;
}

async function auditDisk(
  job: Job,
  settings: Settings,
  disk: DiskRecord,
  point: DiskSnapshot,
  options: AuditOptions,
): Promise<DiskAudit> {
  const { samples = 2000, confidence = 0.99, random = randomInt } = options;
  const manifest = await manifestOf(job, disk, options);
  const tracker = job.source.tracker!;
  const tiles = tracker.changes(point, { since: disk.checkpoint, signal: options.signal });
  const listed = new UnchangedLeaves(disk.size, disk.leaf);
  for await (const tile of provenTiles(tiles, 0, disk.size, disk.disk)) listed.note(tile);
  const unchanged = listed.leaves;
  const sample = chooseLeaves(unchanged, samples, random);
  const comparison = await compareDisk({
    openReader: (wait) => job.source.open(point, wait),
    manifest,
    ranges: sample.extents(disk.leaf, disk.size),
    workers: settings.workers,
    memory: settings.memory,
    attempts: settings.attempts,
    limits: settings.limits,
    signal: options.signal ?? new AbortController().signal,
  });
  const missed = Math.ceil(comparison.different / disk.leaf);
  const audited: DiskAudit = {
    disk: disk.disk,
    unchanged: unchanged.count,
    sampled: sample.count,
    missed,
    missedAt: comparison.differences,
    confidence,
  };
  if (missed === 0) audited.bound = boundOf(unchanged.count, sample.count, confidence);
  return audited;
}
