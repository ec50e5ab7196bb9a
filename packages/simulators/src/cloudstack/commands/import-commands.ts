import { randomUUID } from "node:crypto";
import { errorCodes, ApiError, invalid } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { Machine, StoragePool, Volume } from "../entities.ts";
import { writeMachine, writeVolume } from "../responses.ts";
import type { SparseDisk } from "../sparse-disk.ts";
import { gib } from "../world.ts";
import { nicsFor, sizeOf, startDeployed } from "./machine-commands.ts";
import { blankVolume } from "../volume-life.ts";

/** Pools whose files can be adopted (`importVolume`: NFS and local as qcow2, Ceph as raw). */
const importable = new Set<StoragePool["type"]>(["NetworkFilesystem", "Filesystem", "RBD"]);

function poolOf(call: Call): StoragePool {
  const pool = call.world.findShared(call.world.pools, call.parameters, "storageid");
  if (!importable.has(pool.type)) throw invalid(`Storage pool ${pool.name} of type ${pool.type} is not supported`);
  return pool;
}

function strayOf(call: Call, pool: StoragePool, parameter: string): { path: string; disk: SparseDisk } {
  const path = call.parameters.required(parameter);
  const disk = call.world.strays.get(`${pool.id}/${path}`);
  if (disk === undefined) throw invalid(`Cannot find volume ${path} on storage pool ${pool.name}`);
  return { path, disk };
}

function listVolumesForImport(call: Call): object {
  const pool = poolOf(call);
  const wanted = call.parameters.text("path");
  const found = [...call.world.strays]
    .filter(([key]) => key.startsWith(`${pool.id}/`))
    .map(([key, disk]) => ({ path: key.slice(pool.id.length + 1), disk }))
    .filter(({ path }) => wanted === undefined || path === wanted);
  return listed(call, "volumeforimport", found, ({ path, disk }) => ({
    path,
    name: path,
    fullpath: `/mnt/${pool.id}/${path}`,
    format: pool.type === "RBD" ? "RAW" : "QCOW2",
    size: disk.size,
    virtualsize: disk.size,
    storagepoolid: pool.id,
    storagepoolname: pool.name,
    storagepooltype: pool.type,
  }));
}

function importVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const pool = poolOf(call);
  const owner = world.ownerFor(parameters, caller);
  const named = parameters.text("diskofferingid") !== undefined;
  const offering = named ? world.findShared(world.diskOfferings, parameters, "diskofferingid") : undefined;
  return {
    instanceType: "Volume",
    work: async () => {
      const { path, disk } = strayOf(call, pool, "path");
      world.checkLimit(owner, "volume", 1);
      world.checkLimit(owner, "primaryStorage", disk.size / gib);
      if (offering !== undefined && offering.tag !== pool.tag)
        throw invalid(
          `Disk offering: ${offering.id} storage tags are not compatible with selected storage pool: ${pool.id}`,
        );
      const volume: Volume = {
        ...blankVolume(world),
        id: randomUUID(),
        name: parameters.text("name") ?? path,
        owner,
        type: "DATADISK",
        state: "Ready",
        size: disk.size,
        diskOffering: offering,
        snapshotId: undefined,
        pool,
        path,
        disk,
      };
      world.strays.delete(`${pool.id}/${path}`);
      world.volumes.set(volume.id, volume);
      return { volume: writeVolume(call, volume) };
    },
  };
}

function importMachine(call: Call): Submission {
  const { world, parameters, caller } = call;
  world.checkZone(parameters);
  const source = parameters.required("importsource").toLowerCase();
  if (source !== "shared")
    throw invalid(`The simulator imports machines from shared storage alone, not from ${source}`);
  if (parameters.required("hypervisor").toLowerCase() !== "kvm") throw invalid("VM import is supported for KVM alone");
  const pool = poolOf(call);
  const owner = world.ownerFor(parameters, caller);
  const offering = world.findShared(world.serviceOfferings, parameters, "serviceofferingid");
  const details = parameters.details("details");
  const size = sizeOf(offering, details);
  const addNics = nicsFor(call);
  return {
    instanceType: "VirtualMachine",
    work: async () => {
      const { path, disk } = strayOf(call, pool, "diskpath");
      const [osTypeId] = [...world.osTypes.keys()];
      if (osTypeId === undefined) throw new ApiError(errorCodes.internal, "there is no guest operating system");
      const name = parameters.required("name");
      const machine: Machine = {
        id: randomUUID(),
        name,
        displayName: parameters.text("displayname") ?? name,
        owner,
        zoneId: world.zone.id,
        state: "Stopped",
        offering,
        ...size,
        template: undefined,
        osTypeId,
        nics: [],
        details,
        created: world.now(),
        tags: [],
        guest: undefined,
        deleteProtection: false,
      };
      addNics(machine);
      const volume: Volume = {
        ...blankVolume(world),
        id: randomUUID(),
        name: `ROOT-${name}`,
        owner,
        type: "ROOT",
        state: "Ready",
        size: disk.size,
        diskOffering: undefined,
        serviceOffering: offering,
        snapshotId: undefined,
        pool,
        path,
        disk,
        machine,
        // An imported root volume shows device id 1 (apache/cloudstack issue 13771).
        deviceId: 1,
        attached: world.now(),
      };
      world.strays.delete(`${pool.id}/${path}`);
      world.machines.set(machine.id, machine);
      world.volumes.set(volume.id, volume);
      await startDeployed(machine, call);
      return { virtualmachine: writeMachine(call, machine) };
    },
  };
}

/** Adopting files that lie on primary storage; for root administrators. */
export const importCommands: readonly CommandDefinition[] = [
  {
    name: "listVolumesForImport",
    group: "admin.volume",
    since: "4.19.1.0",
    rootAdmin: true,
    description: "Lists unmanaged volumes on a storage pool",
    parameters: ["storageid", "path"],
    answer: listVolumesForImport,
  },
  {
    name: "importVolume",
    group: "admin.volume",
    since: "4.19.1.0",
    rootAdmin: true,
    description: "Import an unmanaged volume from a storage pool on a host into CloudStack",
    parameters: ["storageid", "path", "name", "diskofferingid", "account", "domainid", "projectid"],
    submit: importVolume,
  },
  {
    name: "importVm",
    group: "admin.vm",
    rootAdmin: true,
    description: "Import virtual machine from a unmanaged host into CloudStack",
    parameters: [
      "importsource",
      "hypervisor",
      "zoneid",
      "clusterid",
      "storageid",
      "diskpath",
      "serviceofferingid",
      "networkid",
      "name",
      "displayname",
      "details",
    ],
    submit: importMachine,
  },
];
