import type { Checkpoint, DiskSnapshot } from "@diskferry/core/provider";
import { awsError } from "../errors.ts";
import { gibi, noVolume } from "./snapshot-facts.ts";

/** What a checkpoint holds: the base snapshot, and what proves that a later one descends from the same disk. */
export interface BasePoint {
  snapshotId: string;
  /** `vol-ffffffff` where EC2 does not tell: then only AWS's own answer proves that two snapshots are related. */
  volumeId: string;
  region: string;
  /** Bytes. */
  size: number;
}

/** What the disk of a snapshot's handle keeps for itself. */
export interface DiskData {
  volumeId: string;
  region: string;
  /** Whether we made the snapshot, and so may tag and delete it. */
  made: boolean;
}

const version = 1;

/** The token of a point in time. */
export function writeCheckpoint(base: BasePoint): Checkpoint {
  return JSON.stringify({ version, ...base });
}

/** Reads a token back. @throws ProviderError TRACKING_LOST for anything else */
export function readCheckpoint(checkpoint: Checkpoint): BasePoint {
  const lost = (): Error =>
    trackingLost("the checkpoint is none of this provider, or of a version that this one does not know");
  let value: unknown;
  try {
    value = JSON.parse(checkpoint);
  } catch {
    throw lost();
  }
  if (typeof value !== "object" || value === null) throw lost();
  const { version: written, snapshotId, volumeId, region, size } = value as Record<string, unknown>;
  if (written !== version || typeof snapshotId !== "string" || !/^snap-[0-9a-f]+$/.test(snapshotId)) throw lost();
  if (typeof volumeId !== "string" || typeof region !== "string") throw lost();
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size <= 0 || size % gibi !== 0) throw lost();
  return { snapshotId, volumeId, region, size };
}

/** What a snapshot's handle tells of its disk. */
export function diskData(disk: DiskSnapshot): DiskData {
  const { volumeId, region, made } = disk.data ?? {};
  return {
    volumeId: typeof volumeId === "string" ? volumeId : noVolume,
    region: typeof region === "string" ? region : "",
    made: made === true,
  };
}

/**
 * Demands that a snapshot can be compared with a base, as far as that is known without asking AWS for a listing.
 * @throws ProviderError TRACKING_LOST
 */
export function demandLineage(base: BasePoint, now: { volumeId: string; region: string; size: number }): void {
  if (base.region !== now.region)
    throw trackingLost(`the base ${base.snapshotId} is in ${base.region} and the snapshot in ${now.region}`);
  if (base.volumeId !== now.volumeId && base.volumeId !== noVolume && now.volumeId !== noVolume)
    throw trackingLost(
      `the base ${base.snapshotId} is of volume ${base.volumeId} and the snapshot of ${now.volumeId}: the volume was replaced`,
    );
  if (base.size > now.size)
    throw trackingLost(`the base ${base.snapshotId} has ${base.size} bytes and the snapshot only ${now.size}`);
}

/** TRACKING_LOST, and why. */
export function trackingLost(why: string, cause?: unknown): Error {
  return awsError("TRACKING_LOST", `What changed cannot be told: ${why}.`, {
    operation: "ListChangedBlocks",
    cause,
  });
}
