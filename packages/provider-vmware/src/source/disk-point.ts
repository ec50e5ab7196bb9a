import type { DiskSnapshot, JsonObject, Snapshot } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { MoRef } from "../vim/moref.ts";
import { machineRef, snapshotRef } from "../vim/snapshot-calls.ts";

/** What a snapshot's handle carries beside what core knows. */
export interface SnapshotPoint {
  readonly machine: MoRef;
  readonly snapshot: MoRef;
}

/** What a disk of a snapshot carries beside what core knows. */
export interface DiskPoint extends SnapshotPoint {
  /** The machine's name, for messages. */
  readonly machineName: string;
  readonly deviceKey: number;
  /** `Hard disk 1`. */
  readonly label: string;
  /** The change id of this point in time; undefined where the disk was not tracked. */
  readonly changeId: string | undefined;
  /** Whether the machine ran when the snapshot was made. */
  readonly wasOn: boolean;
  /** The snapshots that it stands on, by their ids, as `snapshotsBeneath` tells. */
  readonly beneath: readonly string[];
  /** The file that the snapshot froze; undefined for a disk that is none. */
  readonly file: string | undefined;
}

/** A disk's point as the JSON of its handle. */
export function diskPointData(point: DiskPoint): JsonObject {
  const { machine, snapshot, machineName, deviceKey, label, changeId, wasOn, beneath, file } = point;
  const ids = { vm: machine.value, snapshot: snapshot.value, beneath: [...beneath] };
  return { ...ids, machineName, deviceKey, label, changeId, wasOn, file };
}

/**
 * Reads a disk's point back. Two vCenters may call different things by one moref, so a handle is good at its own alone.
 *
 * @throws ProviderError CONFIG_INVALID for a handle of another provider; NOT_FOUND for one of another vCenter
 */
export function diskPointOf(disk: DiskSnapshot, placeId: string): DiskPoint {
  demandPlace(disk.id, placeId);
  const { vm, snapshot, machineName, deviceKey, label, changeId, wasOn, beneath, file } = disk.data ?? {};
  if (
    typeof vm !== "string" ||
    typeof snapshot !== "string" ||
    typeof machineName !== "string" ||
    typeof deviceKey !== "number" ||
    typeof label !== "string"
  ) {
    throw foreign(disk.id);
  }
  return {
    machine: machineRef(vm),
    snapshot: snapshotRef(snapshot),
    machineName,
    deviceKey,
    label,
    changeId: typeof changeId === "string" ? changeId : undefined,
    wasOn: wasOn === true,
    beneath: Array.isArray(beneath) ? beneath.filter((id) => typeof id === "string") : [],
    file: typeof file === "string" ? file : undefined,
  };
}

/** Reads a snapshot's point back. @throws ProviderError as {@link diskPointOf} */
export function snapshotPointOf(handle: Snapshot, placeId: string): SnapshotPoint {
  demandPlace(handle.id, placeId);
  const { vm, snapshot } = handle.data ?? {};
  if (typeof vm !== "string" || typeof snapshot !== "string") throw foreign(handle.id);
  return { machine: machineRef(vm), snapshot: snapshotRef(snapshot) };
}

function demandPlace(id: string, placeId: string): void {
  if (id.startsWith(`${placeId}/`)) return;
  throw vsphereError(
    "NOT_FOUND",
    `the snapshot ${id} is not of the vCenter ${placeId}; connect to the one it was made at`,
  );
}

function foreign(id: string): Error {
  return vsphereError("CONFIG_INVALID", `the snapshot ${id} is none of this provider's; begin a new run`);
}

/** `disk 2000 (Hard disk 1) of web`, for messages. */
export function describeDisk({ deviceKey, label, machineName }: DiskPoint): string {
  return `disk ${deviceKey} (${label}) of ${machineName}`;
}
