import { randomBytes, randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { ApiError, errorCodes, invalid } from "./api-error.ts";
import type { Machine, Volume } from "./entities.ts";
import { writeQcow2 } from "./qcow2-image.ts";
import { SparseDisk } from "./sparse-disk.ts";
import type { World } from "./world.ts";

/** KVM's `max_data_volumes_limit`. */
const mostDataVolumes = 64;

/** The parts of a volume that are the same at every beginning. */
export function blankVolume(
  world: World,
): Omit<Volume, "id" | "name" | "owner" | "type" | "size" | "diskOffering" | "snapshotId"> {
  return {
    zoneId: world.zone.id,
    state: "Allocated",
    serviceOffering: undefined,
    template: undefined,
    uploaded: false,
    pool: undefined,
    path: undefined,
    disk: undefined,
    machine: undefined,
    deviceId: undefined,
    attached: undefined,
    created: world.now(),
    deleteProtection: false,
    tags: [],
  };
}

/** Gives a volume its place on a pool. */
export function place(volume: Volume, pool: NonNullable<Volume["pool"]>): void {
  volume.pool = pool;
  volume.path = randomUUID();
}

/** Gives a volume its place on primary storage and its bytes. */
async function materialize(world: World, volume: Volume): Promise<void> {
  volume.state = "Creating";
  try {
    place(volume, world.poolFor(volume.diskOffering?.tag, volume.size));
  } catch (error) {
    volume.state = "Allocated";
    throw error;
  }
  volume.disk = await world.newDisk(volume.size);
  if (world.settings.leftovers) {
    const most = Math.min(1 << 20, volume.size);
    await volume.disk.write(0, randomBytes(most));
    await volume.disk.write(volume.size - most, randomBytes(most));
  }
  volume.state = "Ready";
}

/** Attaches a volume; `deviceId` 0 makes it the root volume. @throws ApiError as the server words it */
export async function attach(
  world: World,
  volume: Volume,
  machine: Machine,
  deviceId: number | undefined,
): Promise<void> {
  if (volume.machine !== undefined) throw invalid("Please specify a volume that is not attached to any VM.");
  if (!["Allocated", "Ready", "Uploaded"].includes(volume.state))
    throw invalid("Volume state must be in Allocated, Ready or in Uploaded state");
  if (machine.state !== "Running" && machine.state !== "Stopped")
    throw invalid("Please specify a VM that is either running or stopped.");
  const attached = world.volumesOf(machine);
  const root = deviceId === 0;
  if (root) {
    checkRootSwap(volume, machine);
    if (attached.some((each) => each.deviceId === 0)) throw invalid("Vm already has root volume attached to it");
    if (volume.state === "Uploaded" && !world.traits.attachesUploadedAsRoot)
      throw new ApiError(errorCodes.internal, `Failed to attach volume ${volume.name} to VM ${machine.name}`);
  } else if (attached.filter((each) => each.type === "DATADISK").length >= mostDataVolumes)
    throw invalid(
      `The specified VM already has the maximum number of data disks (${mostDataVolumes}) attached. Please specify another VM.`,
    );
  if (hasSnapshots(world, machine))
    throw invalid(
      `Unable to attach volume to VM ${machine.name}/${machine.id}, please specify a VM that does not have VM snapshots`,
    );
  const place = deviceId ?? freeDeviceId(attached);
  const last = mostDataVolumes + 1;
  if (place < 0 || place > last || place === 3)
    throw new ApiError(errorCodes.internal, `deviceId should be 0,1,2,4-${last}`);
  const other = attached.find((each) => each.deviceId === place);
  if (other !== undefined)
    throw new ApiError(errorCodes.internal, `deviceId ${place} is used by vol ${other.id} on vm ${machine.id}`);
  if (volume.state === "Allocated") await materialize(world, volume);
  if (volume.state === "Uploaded") {
    // The host copies it from secondary storage to a pool.
    volume.state = "Copying";
    volume.pool = world.poolFor(volume.diskOffering?.tag, volume.size);
    volume.path = randomUUID();
  }
  volume.state = "Ready";
  volume.machine = machine;
  volume.deviceId = place;
  volume.attached = world.now();
  volume.type = root ? "ROOT" : "DATADISK";
  if (machine.state === "Running" && volume.disk !== undefined) machine.guest?.plug(volume.id, volume.disk);
}

/** What `validateRootVolumeDetachAttach` checks: its text names Destroyed too, its condition lets Stopped alone pass. */
function checkRootSwap(volume: Volume, machine: Machine): void {
  if (machine.state !== "Stopped")
    throw invalid("Root volume detach can happen only when vm is in states: Stopped or Destroyed");
  if (volume.pool?.managed === true) throw invalid("Root volume detach is not supported for Managed DataStores");
}

function freeDeviceId(attached: readonly Volume[]): number {
  for (let id = 1; ; id++) if (id !== 3 && !attached.some((each) => each.deviceId === id)) return id;
}

function hasSnapshots(world: World, machine: Machine): boolean {
  return [...world.machineSnapshots.values()].some((each) => each.machine === machine && each.state !== "Removed");
}

/** Detaches a volume. @throws ApiError as the server words it */
export async function detach(world: World, volume: Volume): Promise<void> {
  const { machine } = volume;
  if (machine === undefined) throw invalid("The specified volume is not attached to a VM.");
  if (!["Running", "Stopped", "Destroyed"].includes(machine.state))
    throw invalid("Please specify a VM that is either running or stopped.");
  if (volume.type === "ROOT") checkRootSwap(volume, machine);
  if (hasSnapshots(world, machine))
    throw invalid("Unable to detach volume, please specify a VM that does not have VM snapshots");
  await release(volume);
}

/** Takes a volume from its machine without asking. */
export async function release(volume: Volume): Promise<void> {
  await volume.machine?.guest?.unplug(volume.id);
  await writeBack(volume);
  volume.machine = undefined;
  volume.deviceId = undefined;
  volume.attached = undefined;
  // A root volume that was taken out is a data disk until it is attached with device id 0 again.
  volume.type = "DATADISK";
}

/** Puts what a guest wrote into the pool's file that the volume was adopted from. */
export async function writeBack({ file, disk, pool }: Volume): Promise<void> {
  if (file === undefined || disk === undefined) return;
  if (pool?.type === "RBD") await SparseDisk.copy(file, disk);
  else await writeQcow2(disk, file);
}

/** Ends a volume for good. @throws ApiError where it is in use or in the middle of something */
export async function expunge(world: World, volume: Volume): Promise<void> {
  if (volume.machine !== undefined) throw invalid("Please specify a volume that is not attached to any VM.");
  if (volume.deleteProtection)
    throw invalid(
      `Volume [id = ${volume.id}, name = ${volume.name}] has delete protection enabled and cannot be deleted.`,
    );
  if (volume.state === "Snapshotting")
    throw invalid("There are snapshot operations in progress on the volume, unable to delete it");
  if (volume.state === "UploadOp") throw invalid("Please specify a volume that is not uploading");
  if (volume.state === "NotUploaded" || volume.state === "UploadInProgress")
    throw invalid(
      "The volume is either getting uploaded or it may be initiated shortly, please wait for it to be completed",
    );
  if (["Creating", "Copying", "Resizing", "RevertSnapshotting"].includes(volume.state))
    throw new ApiError(errorCodes.internal, `Failed to delete volume ${volume.id} in state ${volume.state}`);
  volume.state = "Expunged";
  world.volumes.delete(volume.id);
  await volume.disk?.discard();
  if (volume.file !== undefined) await rm(volume.file, { force: true });
}
