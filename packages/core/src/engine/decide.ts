import type { Disk } from "../provider/source.ts";
import type { ChangeTracker, Checkpoint } from "../provider/tracker.ts";
import { preferredAlgorithm } from "../manifest/digest.ts";
import type { Fallback, RunMode } from "./job.ts";
import type { DiskRecord } from "./job-state.ts";
import type { Settings } from "./settings.ts";

/** How a disk will be copied, and what was given up on the way to that choice. */
export interface Decision {
  mode: RunMode;
  since?: Checkpoint;
  /** Why this mode, for people. */
  reason: string;
  fallbacks: Fallback[];
}

/** Chooses the mode of one disk's run from its last record. Asks nobody, so a plan and a run agree. */
export function decide(
  disk: Pick<Disk, "key" | "size">,
  record: DiskRecord | undefined,
  tracker: ChangeTracker | undefined,
  options: Pick<Settings, "mode" | "digest" | "onTrackingLost">,
): Decision {
  const wanted = options.mode;
  if (record === undefined) return { mode: "full", reason: "there is no record of an earlier run", fallbacks: [] };
  if (wanted === "full") return { mode: "full", reason: "a full copy was asked for", fallbacks: [] };
  const fallbacks: Fallback[] = [];
  const fall = (from: RunMode, to: RunMode, reason: string): void => {
    fallbacks.push({ disk: disk.key, from, to, reason });
  };
  const digests = obstacleToDigests(record, options.digest);
  if (digests !== undefined) {
    fall(wanted === "rescan" ? "rescan" : "incremental", "full", digests);
    return { mode: "full", reason: digests, fallbacks };
  }
  if (record.manifest === undefined && wanted === "rescan") {
    fall("rescan", "full", "the last record holds no digests to compare with");
    return { mode: "full", reason: "no digests to compare with", fallbacks };
  }
  if (wanted === "rescan") return { mode: "rescan", reason: "a rescan was asked for", fallbacks };
  const obstacle = obstacleToIncremental(disk, record, tracker, options);
  if (obstacle === undefined) {
    return {
      mode: "incremental",
      since: record.checkpoint!,
      reason: "the tracker knows the last checkpoint",
      fallbacks,
    };
  }
  // Where nothing was ever tracked nothing was lost: the policy is about trackers.
  const sendAll = record.manifest === undefined || (tracker !== undefined && options.onTrackingLost === "full");
  const mode = sendAll ? "full" : "rescan";
  fall("incremental", mode, obstacle);
  return { mode, reason: obstacle, fallbacks };
}

/** Why the record's digests cannot be carried on, if so. */
function obstacleToDigests(record: DiskRecord, wanted: Settings["digest"]): string | undefined {
  const kept = record.manifest?.algorithm;
  if (kept === undefined || kept === "sha256" || preferredAlgorithm() === kept) {
    if (kept === undefined || wanted === undefined || wanted === "none" || wanted === kept) return undefined;
    return `the last record's digests are ${kept} and ${wanted} is asked for`;
  }
  return `the last record's digests are ${kept}, which this machine cannot compute`;
}

function obstacleToIncremental(
  disk: Pick<Disk, "key" | "size">,
  record: DiskRecord,
  tracker: ChangeTracker | undefined,
  options: Pick<Settings, "digest">,
): string | undefined {
  if (tracker === undefined) return "this source does not track changes";
  if (record.distrusted === true) return "the last run found that the tracker missed writes";
  if (record.checkpoint === undefined) return "the last run left no checkpoint";
  if (record.size !== disk.size) return `the disk was ${record.size} bytes and is ${disk.size} bytes`;
  if (record.manifest === undefined && options.digest !== "none") return "the last record holds no digests to carry on";
  return undefined;
}
