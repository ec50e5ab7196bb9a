import { randomUUID } from "node:crypto";
import { ApiError, errorCodes, invalid } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { Machine, MachineSnapshot, Snapshot, Volume } from "../entities.ts";
import { writeMachine, writeMachineSnapshot, writeSnapshot } from "../responses.ts";
import type { SparseDisk } from "../sparse-disk.ts";
import { gib } from "../world.ts";
import { hasTags } from "./tag-commands.ts";

/** Makes the row of a snapshot; `take` gives its bytes when the job runs. */
function allocate(call: Call, volume: Volume, name: string | undefined, take: () => Promise<SparseDisk>): Submission {
  const { world, parameters } = call;
  if (volume.state !== "Ready")
    throw invalid(`Volume: ${volume.id} is not in Ready state but ${volume.state}. Cannot take snapshot.`);
  if (volume.pool?.type === "PowerFlex")
    throw invalid(`Cannot perform this operation, unsupported on storage pool type ${volume.pool.type}`);
  world.checkLimit(volume.owner, "snapshot", 1);
  world.checkLimit(volume.owner, "secondaryStorage", volume.size / gib);
  const newest = [...world.snapshots.values()].findLast((each) => each.volume === volume && each.state === "BackedUp");
  const stamp = new Date(world.now()).toISOString().replace(/\D/g, "").slice(0, 14);
  const snapshot: Snapshot = {
    id: randomUUID(),
    name: name ?? `${volume.machine?.name ?? "detached"}_${volume.name}_${stamp}`,
    owner: volume.owner,
    zoneId: volume.zoneId,
    volume,
    volumeType: volume.type,
    created: world.now(),
    // The only tags that are given in the call that makes what they mark.
    tags: parameters
      .entries("tags")
      .map((each) => ({ key: each.get("key") ?? "", value: each.get("value") ?? "", owner: volume.owner })),
    parentId: newest?.id,
    size: volume.size,
    state: "Allocated",
    disk: undefined,
  };
  world.snapshots.set(snapshot.id, snapshot);
  return {
    createdId: snapshot.id,
    instanceType: "Snapshot",
    instanceId: snapshot.id,
    queue: volume.machine?.id,
    failed: () => {
      snapshot.state = "Error";
    },
    work: async () => {
      snapshot.state = "Creating";
      volume.state = "Snapshotting";
      try {
        snapshot.disk = await take();
        snapshot.state = "BackedUp";
      } catch (error) {
        snapshot.state = "Error";
        throw error;
      } finally {
        volume.state = "Ready";
      }
      return { snapshot: writeSnapshot(call, snapshot) };
    },
  };
}

function createSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "volumeid", caller);
  return allocate(call, volume, parameters.text("name"), async () => {
    if (volume.machine?.state === "Running" && !world.settings.snapshotsRunningMachines)
      throw new ApiError(
        errorCodes.internal,
        "KVM Snapshot is not supported for Running VMs. It is disabled by default due to a possible volume corruption in " +
          "certain cases. To enable it set global settings kvm.snapshot.enabled to True. See the documentation for more details.",
      );
    if (volume.disk === undefined) throw invalid(`Volume: ${volume.id} is not in Ready state. Cannot take snapshot.`);
    return world.copyOf(volume.disk);
  });
}

function deleteSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const snapshot = world.find(world.snapshots, parameters, "id", caller);
  return {
    instanceType: "Snapshot",
    instanceId: snapshot.id,
    work: async () => {
      if (snapshot.state !== "BackedUp" && snapshot.state !== "Error")
        throw invalid(`Can't delete snapshotshot ${snapshot.id} due to it is not in BackedUp or Error Status`);
      world.snapshots.delete(snapshot.id);
      await snapshot.disk?.discard();
      return { success: true };
    },
  };
}

function revertSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const snapshot = world.find(world.snapshots, parameters, "id", caller);
  const { volume } = snapshot;
  return {
    instanceType: "Snapshot",
    instanceId: snapshot.id,
    queue: volume.machine?.id,
    work: async () => {
      if (volume.state !== "Ready") throw invalid("The volume is not in Ready state.");
      if (volume.machine !== undefined && volume.machine.state !== "Stopped")
        throw invalid("The VM the specified disk is attached to is not in the shutdown state.");
      if (snapshot.disk === undefined || volume.disk === undefined)
        throw new ApiError(
          errorCodes.internal,
          `snapshot ${snapshot.name} [${snapshot.id}] does not exists in data store`,
        );
      await volume.disk.replace(snapshot.disk);
      return { snapshot: writeSnapshot(call, snapshot) };
    },
  };
}

function listSnapshots(call: Call): object {
  const { world, parameters, caller } = call;
  const scope = world.scopeOf(parameters, caller);
  const wanted = (name: string, value: string): boolean => (parameters.text(name) ?? value) === value;
  const found = [...world.snapshots.values()].filter(
    (each) =>
      scope(each.owner) &&
      wanted("id", each.id) &&
      wanted("name", each.name) &&
      wanted("volumeid", each.volume.id) &&
      wanted("zoneid", each.zoneId) &&
      hasTags(parameters, each.tags),
  );
  return listed(call, "snapshot", found, (each) => writeSnapshot(call, each));
}

function checkStrategy(call: Call, machine: Machine, memory: boolean): void {
  const { world } = call;
  if (machine.state !== "Running" && machine.state !== "Stopped")
    throw invalid(`Creating vm snapshot failed due to VM:${machine.id} is not in the running or Stopped state`);
  if (memory && machine.state !== "Running") throw invalid("Can not snapshot memory when VM is not in Running state");
  const files = world.volumesOf(machine).every((each) => each.pool?.type !== "RBD" && each.pool?.type !== "PowerFlex");
  // With memory by qcow2's own snapshots; without by files of a chain, which KVM has from 4.21 on.
  if (!files || (!memory && !world.traits.diskOnlyMachineSnapshots))
    throw new ApiError(
      errorCodes.internal,
      `No strategy was able to handle requested snapshot for VM [${machine.id}].`,
    );
}

function createMachineSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const machine = world.find(world.machines, parameters, "virtualmachineid", caller);
  const memory = parameters.flag("snapshotmemory") === true;
  checkStrategy(call, machine, memory);
  const id = randomUUID();
  const snapshot: MachineSnapshot = {
    id,
    name: `i-2-3-VM_VS_${id.slice(0, 8)}`,
    displayName: parameters.text("name") ?? id,
    owner: machine.owner,
    machine,
    created: world.now(),
    type: memory ? "DiskAndMemory" : "Disk",
    disks: new Map(),
    state: "Allocated",
  };
  world.machineSnapshots.set(id, snapshot);
  return {
    createdId: id,
    instanceType: "VmSnapshot",
    instanceId: id,
    queue: machine.id,
    work: async () => {
      snapshot.state = "Creating";
      const volumes = world.volumesOf(machine).filter((each) => each.disk !== undefined);
      const copies = await world.copiesOf(volumes.map((each) => each.disk as SparseDisk));
      for (const [index, volume] of volumes.entries()) snapshot.disks.set(volume.id, copies[index] as SparseDisk);
      snapshot.state = "Ready";
      return { vmsnapshot: writeMachineSnapshot(call, snapshot) };
    },
  };
}

function deleteMachineSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const snapshot = world.find(world.machineSnapshots, parameters, "vmsnapshotid", caller);
  return {
    instanceType: "VmSnapshot",
    instanceId: snapshot.id,
    queue: snapshot.machine.id,
    work: async () => {
      snapshot.state = "Removed";
      world.machineSnapshots.delete(snapshot.id);
      for (const disk of snapshot.disks.values()) await disk.discard();
      return { success: true };
    },
  };
}

function revertToMachineSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const snapshot = world.find(world.machineSnapshots, parameters, "vmsnapshotid", caller);
  const { machine } = snapshot;
  return {
    instanceType: "VmSnapshot",
    instanceId: snapshot.id,
    queue: machine.id,
    work: async () => {
      if (snapshot.state !== "Ready")
        throw invalid("VM Snapshot reverting failed due to vm snapshot is not in the state of Created.");
      if ((machine.state === "Running") !== (snapshot.type === "DiskAndMemory"))
        throw invalid("VM Snapshot revert not allowed: a running VM takes one with memory, a stopped VM one without");
      for (const [volumeId, disk] of snapshot.disks) await world.volumes.get(volumeId)?.disk?.replace(disk);
      return { virtualmachine: writeMachine(call, machine) };
    },
  };
}

function createSnapshotFromMachineSnapshot(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "volumeid", caller);
  const from = world.find(world.machineSnapshots, parameters, "vmsnapshotid", caller);
  if (volume.machine !== from.machine)
    throw invalid(`Creating snapshot failed due to volume:${volume.id} doesn't attach to vm :${from.machine.id}`);
  if (from.type === "Disk") throw invalid("Cannot perform this operation, unsupported VM snapshot type.");
  return allocate(call, volume, parameters.text("name"), async () => {
    const disk = from.disks.get(volume.id);
    if (disk === undefined)
      throw new ApiError(errorCodes.internal, `volume ${volume.id} is not part of vm snapshot ${from.id}`);
    return world.copyOf(disk);
  });
}

function listMachineSnapshots(call: Call): object {
  const { world, parameters, caller } = call;
  const scope = world.scopeOf(parameters, caller);
  const wanted = (name: string, value: string): boolean => (parameters.text(name) ?? value) === value;
  const found = [...world.machineSnapshots.values()].filter(
    (each) =>
      scope(each.owner) &&
      wanted("vmsnapshotid", each.id) &&
      wanted("virtualmachineid", each.machine.id) &&
      wanted("name", each.displayName),
  );
  return listed(call, "vmSnapshot", found, (each) => writeMachineSnapshot(call, each));
}

/** Snapshots of volumes and of whole machines. */
export const snapshotCommands: readonly CommandDefinition[] = [
  {
    name: "createSnapshot",
    group: "user.snapshot",
    description: "Creates an instant snapshot of a volume.",
    parameters: ["volumeid", "name", "quiescevm", "asyncbackup", "locationtype", "zoneids", "tags"],
    submit: createSnapshot,
  },
  {
    name: "listSnapshots",
    group: "user.snapshot",
    description: "Lists all available snapshots for the account.",
    parameters: ["id", "name", "volumeid", "zoneid", "tags"],
    answer: listSnapshots,
  },
  {
    name: "deleteSnapshot",
    group: "user.snapshot",
    description: "Deletes a snapshot of a disk volume.",
    parameters: ["id", "zoneid"],
    submit: deleteSnapshot,
  },
  {
    name: "revertSnapshot",
    group: "user.snapshot",
    description: "This is supposed to revert a volume snapshot.",
    parameters: ["id"],
    submit: revertSnapshot,
  },
  {
    name: "createVMSnapshot",
    group: "user.vmsnapshot",
    description: "Creates snapshot for a vm.",
    parameters: ["virtualmachineid", "name", "description", "snapshotmemory", "quiescevm"],
    submit: createMachineSnapshot,
  },
  {
    name: "listVMSnapshot",
    group: "user.vmsnapshot",
    description: "List virtual machine snapshot by conditions",
    parameters: ["vmsnapshotid", "virtualmachineid", "name"],
    answer: listMachineSnapshots,
  },
  {
    name: "deleteVMSnapshot",
    group: "user.vmsnapshot",
    description: "Deletes a vmsnapshot.",
    parameters: ["vmsnapshotid"],
    submit: deleteMachineSnapshot,
  },
  {
    name: "revertToVMSnapshot",
    group: "user.vmsnapshot",
    description: "Revert VM from a vmsnapshot.",
    parameters: ["vmsnapshotid"],
    submit: revertToMachineSnapshot,
  },
  {
    name: "createSnapshotFromVMSnapshot",
    group: "user.snapshot",
    description: "Creates an instant snapshot of a volume from existing vm snapshot.",
    parameters: ["volumeid", "vmsnapshotid", "name"],
    submit: createSnapshotFromMachineSnapshot,
  },
];
