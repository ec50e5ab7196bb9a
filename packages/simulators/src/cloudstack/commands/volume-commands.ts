import { randomBytes, randomUUID } from "node:crypto";
import { errorCodes, invalid, ApiError } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { DiskOffering, Machine, Snapshot, Volume } from "../entities.ts";
import { writeVolume } from "../responses.ts";
import { gib, type World } from "../world.ts";
import { hasTags } from "./tag-commands.ts";

/** KVM's `max_data_volumes_limit`. */
const mostDataVolumes = 64;

function createVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const owner = world.ownerFor(parameters, caller);
  const wanted = parameters.integer("size");
  if (parameters.text("customid") !== undefined && !caller.rootAdmin)
    throw new ApiError(errorCodes.account, "Only Root admin can assign customid");
  let snapshot: Snapshot | undefined;
  let offering: DiskOffering | undefined;
  if (parameters.text("snapshotid") === undefined && parameters.text("diskofferingid") === undefined)
    throw invalid("At least one of disk Offering ID or snapshot ID must be passed whilst creating volume");
  if (parameters.text("snapshotid") !== undefined) {
    snapshot = world.find(world.snapshots, parameters, "snapshotid", caller);
    if (parameters.text("diskofferingid") !== undefined && snapshot.volumeType !== "ROOT")
      throw invalid(
        "Disk Offering ID cannot be passed whilst creating volume from snapshot other than ROOT disk snapshots",
      );
    if (snapshot.state !== "BackedUp")
      throw invalid(`Snapshot ${snapshot.id} is not in BackedUp state yet and can't be used for volume creation`);
    offering = snapshot.volume.diskOffering;
  }
  if (parameters.text("diskofferingid") !== undefined)
    offering = world.findShared(world.diskOfferings, parameters, "diskofferingid");
  if (snapshot === undefined) {
    world.checkZone(parameters);
    parameters.required("name");
  }
  const size =
    parameters.text("diskofferingid") === undefined && snapshot !== undefined
      ? snapshot.size
      : sizeFor(world, offering, wanted, snapshot);
  const machine =
    parameters.text("virtualmachineid") === undefined
      ? undefined
      : world.find(world.machines, parameters, "virtualmachineid", caller);
  world.checkLimit(owner, "volume", 1);
  world.checkLimit(owner, "primaryStorage", size / gib);
  const volume: Volume = {
    ...blankVolume(world),
    id: parameters.text("customid") ?? randomUUID(),
    name: parameters.text("name") ?? `VOL-${randomUUID().slice(0, 8)}`,
    owner,
    type: "DATADISK",
    size,
    diskOffering: offering,
    // What a root volume was made of passes on to what is made of its snapshots.
    template: snapshot?.volume.template,
    snapshotId: snapshot?.id,
  };
  world.volumes.set(volume.id, volume);
  return {
    createdId: volume.id,
    instanceType: "Volume",
    instanceId: volume.id,
    queue: machine?.id,
    work: async () => {
      if (snapshot?.disk !== undefined) {
        volume.state = "Creating";
        place(world, volume, world.poolFor(offering?.tag, size));
        volume.disk = await world.copyOf(snapshot.disk, size);
        volume.state = "Ready";
      }
      if (machine !== undefined) await attach(world, volume, machine, undefined);
      return { volume: writeVolume(call, volume) };
    },
  };
}

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

function sizeFor(
  world: World,
  offering: DiskOffering | undefined,
  wanted: number | undefined,
  snapshot: Snapshot | undefined,
): number {
  const most = world.settings.largestDiskGib;
  if (offering?.sizeGib !== undefined) {
    if (wanted !== undefined) throw invalid("This disk offering does not allow custom size");
    if (snapshot !== undefined && snapshot.size > offering.sizeGib * gib)
      throw invalid(
        `Invalid size for volume creation: ${offering.sizeGib}GB, snapshot size is: ${snapshot.size / gib}GB`,
      );
    return offering.sizeGib * gib;
  }
  if (wanted === undefined) throw invalid("This disk offering requires a custom size specified");
  if (wanted < 1 || wanted > most)
    throw invalid(`Volume size: ${wanted} GB is out of allowed range. Min: 1. Max: ${most}`);
  if (snapshot !== undefined && wanted * gib < snapshot.size)
    throw invalid(`Invalid size for volume creation: ${wanted}GB, snapshot size is: ${snapshot.size / gib}GB`);
  return wanted * gib;
}

function place(world: World, volume: Volume, pool: NonNullable<Volume["pool"]>): void {
  volume.pool = pool;
  volume.path = randomUUID();
}

/** Gives a volume its place on primary storage and its bytes. */
async function materialize(world: World, volume: Volume): Promise<void> {
  volume.state = "Creating";
  try {
    place(world, volume, world.poolFor(volume.diskOffering?.tag, volume.size));
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
  volume.machine = undefined;
  volume.deviceId = undefined;
  volume.attached = undefined;
  // A root volume that was taken out is a data disk until it is attached with device id 0 again.
  volume.type = "DATADISK";
}

function attachVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "id", caller);
  const machine = world.find(world.machines, parameters, "virtualmachineid", caller);
  const deviceId = parameters.integer("deviceid");
  return {
    instanceType: "Volume",
    instanceId: volume.id,
    queue: machine.id,
    work: async () => {
      await attach(world, volume, machine, deviceId);
      return { volume: writeVolume(call, volume) };
    },
  };
}

function detachVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const byId = parameters.text("id") !== undefined;
  const [machineId, deviceId] = [parameters.text("virtualmachineid"), parameters.integer("deviceid")];
  if (byId ? machineId !== undefined || deviceId !== undefined : machineId === undefined || deviceId === undefined)
    throw invalid("Please provide either a volume id, or a tuple(device id, instance id)");
  const volume = byId
    ? world.find(world.volumes, parameters, "id", caller)
    : world
        .volumesOf(world.find(world.machines, parameters, "virtualmachineid", caller))
        .find((each) => each.deviceId === deviceId);
  if (volume === undefined) throw invalid(`Unable to find volume with device id ${deviceId}`);
  const found = volume;
  return {
    instanceType: "Volume",
    instanceId: found.id,
    queue: found.machine?.id,
    work: async () => {
      await detach(world, found);
      return { volume: writeVolume(call, found) };
    },
  };
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
}

function resizeVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "id", caller);
  const wanted = parameters.integer("size");
  if (wanted === undefined) throw invalid("The offering or the size must be given");
  if (volume.diskOffering?.sizeGib !== undefined)
    throw invalid("The offering's size is fixed; a new size needs an offering with a custom size");
  if (wanted < 1 || wanted > world.settings.largestDiskGib)
    throw invalid(`Volume size: ${wanted}GB is out of allowed range. Min: 1. Max: ${world.settings.largestDiskGib}`);
  const size = wanted * gib;
  if (size < volume.size && parameters.flag("shrinkok") !== true)
    throw invalid(
      `Going from existing size of ${volume.size} to size of ${size} would shrink the volume.Need to sign off by ` +
        `supplying the shrinkok parameter with value of true.`,
    );
  world.checkLimit(volume.owner, "primaryStorage", (size - volume.size) / gib);
  return {
    instanceType: "Volume",
    instanceId: volume.id,
    queue: volume.machine?.id,
    work: async () => {
      if (volume.state !== "Ready" && volume.state !== "Allocated")
        throw invalid("Volume should be in ready or allocated state before attempting a resize.");
      await volume.disk?.resize(size);
      volume.size = size;
      return { volume: writeVolume(call, volume) };
    },
  };
}

async function deleteVolume({ world, parameters, caller }: Call): Promise<object> {
  await expunge(world, world.find(world.volumes, parameters, "id", caller));
  return { success: true };
}

function destroyVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "id", caller);
  return {
    instanceType: "Volume",
    instanceId: volume.id,
    work: async () => {
      await expunge(world, volume);
      return { volume: writeVolume(call, volume) };
    },
  };
}

function updateVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "id", caller);
  return {
    instanceType: "Volume",
    instanceId: volume.id,
    work: async () => {
      volume.name = parameters.text("name") ?? volume.name;
      volume.deleteProtection = parameters.flag("deleteprotection") ?? volume.deleteProtection;
      return { volume: writeVolume(call, volume) };
    },
  };
}

function listVolumes(call: Call): object {
  const { world, parameters, caller } = call;
  const scope = world.scopeOf(parameters, caller);
  const ids = parameters.list("ids");
  const keyword = parameters.text("keyword")?.toLowerCase();
  const matches = (name: string, value: string | undefined): boolean =>
    parameters.text(name) === undefined || parameters.text(name)?.toLowerCase() === value?.toLowerCase();
  const found = [...world.volumes.values()].filter(
    (each) =>
      scope(each.owner) &&
      matches("id", each.id) &&
      (ids.length === 0 || ids.includes(each.id)) &&
      matches("name", each.name) &&
      (keyword === undefined || each.name.toLowerCase().includes(keyword)) &&
      matches("type", each.type) &&
      matches("state", each.state) &&
      matches("zoneid", each.zoneId) &&
      matches("virtualmachineid", each.machine?.id) &&
      matches("diskofferingid", each.diskOffering?.id) &&
      (!caller.rootAdmin || matches("storageid", each.pool?.id)) &&
      hasTags(parameters, each.tags),
  );
  return listed(call, "volume", found, (each) => writeVolume(call, each));
}

/** Volumes and what is done with them. */
export const volumeCommands: readonly CommandDefinition[] = [
  {
    name: "createVolume",
    group: "user.volume",
    description:
      "Creates a disk volume from a disk offering. This disk volume must still be attached to a virtual machine to make use of it.",
    parameters: ["name", "diskofferingid", "size", "snapshotid", "zoneid", "virtualmachineid", "storageid", "customid"],
    submit: createVolume,
  },
  {
    name: "listVolumes",
    group: "user.volume",
    description: "Lists all volumes.",
    parameters: [
      "id",
      "ids",
      "name",
      "type",
      "state",
      "zoneid",
      "virtualmachineid",
      "diskofferingid",
      "storageid",
      "tags",
    ],
    answer: listVolumes,
  },
  {
    name: "attachVolume",
    group: "user.volume",
    description: "Attaches a disk volume to a virtual machine.",
    parameters: ["id", "virtualmachineid", "deviceid"],
    submit: attachVolume,
  },
  {
    name: "detachVolume",
    group: "user.volume",
    description: "Detaches a disk volume from a virtual machine.",
    parameters: ["id", "virtualmachineid", "deviceid"],
    submit: detachVolume,
  },
  {
    name: "resizeVolume",
    group: "user.volume",
    description: "Resizes a volume",
    parameters: ["id", "size", "diskofferingid", "shrinkok"],
    submit: resizeVolume,
  },
  {
    name: "deleteVolume",
    group: "user.volume",
    description: "Deletes a detached disk volume.",
    parameters: ["id"],
    answer: deleteVolume,
  },
  {
    name: "destroyVolume",
    group: "user.volume",
    description: "Destroys a Volume.",
    parameters: ["id", "expunge"],
    submit: destroyVolume,
  },
  {
    name: "updateVolume",
    group: "user.volume",
    description: "Updates the volume.",
    parameters: ["id", "name", "deleteprotection"],
    submit: updateVolume,
  },
];
