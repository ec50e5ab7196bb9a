import { ProviderError } from "../provider/error.ts";
import type { Extent } from "../provider/extents.ts";
import type { Wait } from "../provider/wait.ts";
import { ProgressMeter, type ProgressReport } from "../telemetry/progress.ts";
import { compareDisk } from "./compare-disk.ts";
import type { Job } from "./job.ts";
import { manifestOf, recordOf, refuseTorn } from "./recorded.ts";
import { settingsOf } from "./settings.ts";

export interface VerifyOptions extends Wait {
  onProgress?: ((report: ProgressReport) => void) | undefined;
}

export interface DiskVerification {
  disk: string;
  volume: string;
  /** Bytes read back. */
  bytes: number;
  /** Bytes that differ from what was recorded. */
  different: number;
  /** Where, as far as the first thousand go. */
  differences: Extent[];
  root: string;
}

/** What a verification found. Plain JSON. */
export interface VerificationReport {
  job: string;
  run: string;
  equal: boolean;
  disks: DiskVerification[];
}

/**
 * Reads every recorded volume back, all of it, and compares it with the manifest of what was sent. The source is not
 * touched. @throws ProviderError UNSUPPORTED where the target cannot be read or no digest is kept; IN_USE while torn.
 */
export async function verify(job: Job, options: VerifyOptions = {}): Promise<VerificationReport> {
  const settings = settingsOf(job.options);
  const { state, record } = await recordOf(job, options);
  refuseTorn(state, "verify it");
  const { read } = job.target;
  if (read === undefined)
    throw new ProviderError("UNSUPPORTED", "This target cannot be read back.", { operation: "verify" });
  using meter = new ProgressMeter({ onProgress: options.onProgress, job: job.id, run: record.run });
  const report: VerificationReport = { job: job.id, run: record.run, equal: true, disks: [] };
  for (const disk of record.disks) {
    const manifest = await manifestOf(job, disk, options);
    const progress = meter.disk(disk.disk, { totalBytes: disk.size, phase: "verifying" });
    const comparison = await compareDisk({
      openReader: (wait) => read.call(job.target, disk.volume, wait),
      manifest,
      ranges: [{ offset: 0, length: disk.size }],
      workers: settings.workers,
      memory: settings.memory,
      attempts: settings.attempts,
      limits: settings.limits,
      signal: options.signal ?? new AbortController().signal,
      onProgress: (bytes) => progress.advance(bytes, 0),
    });
    report.equal &&= comparison.different === 0;
    report.disks.push({ disk: disk.disk, volume: disk.volume.id, ...comparison, root: manifest.root });
  }
  return report;
}
