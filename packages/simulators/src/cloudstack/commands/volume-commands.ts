import { randomUUID } from "node:crypto";
import { errorCodes, invalid, ApiError } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { DiskOffering, Snapshot, Volume } from "../entities.ts";
import { writeVolume } from "../responses.ts";
import { attach, blankVolume, detach, expunge, place } from "../volume-life.ts";
import { gib, type World } from "../world.ts";
import { hasTags } from "./tag-commands.ts";

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
        place(volume, world.poolFor(offering?.tag, size));
        volume.disk = await world.copyOf(snapshot.disk, size);
        volume.state = "Ready";
      }
      if (machine !== undefined) await attach(world, volume, machine, undefined);
      return { volume: writeVolume(call, volume) };
    },
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
