import type { Extent } from "../provider/extents.ts";
import type { BlockReader } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import type { LeafBitmap } from "../manifest/bitmap.ts";
import type { Manifest } from "../manifest/manifest.ts";
import { compareDisk } from "./compare-disk.ts";
import { boundOf, chooseLeaves, seededRandom } from "./leaf-sample.ts";
import type { Settings } from "./settings.ts";

/** With this probability a clean sample's bound holds. */
const CONFIDENCE = 0.99;

/** What a look at leaves that a tracker called unchanged found, within a run. Plain JSON. */
export interface CanaryReport {
  /** Leaves that the tracker called unchanged and this run left alone. */
  unchanged: number;
  /** How many of them were read from the run's own snapshot and compared with the last record's digests. */
  sampled: number;
  /** The same seed chooses the same leaves. */
  seed: string;
  /** How many had changed all the same: the tracker missed writes. */
  missed: number;
  /** Where, as far as the first thousand go. */
  missedAt: Extent[];
  /** With a probability of 0.99 less than this share of the unchanged leaves has changed; absent when a miss was found. */
  bound?: number;
}

/** What a canary is let out on. */
export interface CanaryRequest {
  openReader: (wait: Wait) => Promise<BlockReader>;
  /** The last record's digests: what those leaves held. */
  manifest: Manifest;
  unchanged: LeafBitmap;
  seed: string;
  settings: Settings;
  signal: AbortSignal;
}

/** Reads a sample of the leaves that a tracker called unchanged from the snapshot they are unchanged in. */
export async function letCanaryOut(request: CanaryRequest): Promise<CanaryReport> {
  const { openReader, manifest, unchanged, seed, settings, signal } = request;
  const { workers, memory, attempts, limits } = settings;
  const sample = chooseLeaves(unchanged, settings.canary, seededRandom(seed));
  const { leaf, size } = manifest;
  const report: CanaryReport = { unchanged: unchanged.count, sampled: sample.count, seed, missed: 0, missedAt: [] };
  if (sample.count > 0) {
    const ranges = sample.extents(leaf, size);
    const found = await compareDisk({ openReader, manifest, ranges, workers, memory, attempts, limits, signal });
    report.missed = Math.ceil(found.different / leaf);
    report.missedAt = found.differences;
  }
  if (report.missed === 0) report.bound = boundOf(unchanged.count, sample.count, CONFIDENCE);
  return report;
}
