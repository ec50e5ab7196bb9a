import { randomUUID } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ApiError, errorCodes, invalid } from "../api-error.ts";
import { listed, type Call, type CommandDefinition, type Submission } from "../command.ts";
import type { DiskOffering, Machine, Network, Owner, StoragePool, Volume } from "../entities.ts";
import { makeNic } from "../inventory.ts";
import { inspectQcow2, readQcow2 } from "../qcow2-image.ts";
import { reaches } from "../releases.ts";
import { writeMachine, writeVolume } from "../responses.ts";
import type { SparseDisk } from "../sparse-disk.ts";
import { blankVolume, writeBack } from "../volume-life.ts";
import { gib } from "../world.ts";
import { sizeOf } from "./machine-commands.ts";

// As `VolumeImportUnmanageManagerImpl`, `UnmanagedVMsManagerImpl.importKvmInstance` and the KVM agent's
// `LibvirtGetVolumesOnStorageCommandWrapper` do it; nearly every refusal is a CloudRuntimeException, 530 with its text.

/** `SUPPORTED_STORAGE_POOL_TYPES_FOR_KVM`; SharedMountPoint is not simulated. */
const importable = new Set<StoragePool["type"]>(["NetworkFilesystem", "Filesystem", "RBD"]);

function refused(text: string): ApiError {
  return new ApiError(errorCodes.internal, text);
}

/** A file on a pool that is no volume yet. */
interface Stray {
  readonly path: string;
  readonly file: string;
  readonly size: number;
}

function checkPool(pool: StoragePool): void {
  if (pool.maintenance) throw refused(`Storage pool ${pool.name} is in maintenance`);
}

function isManaged(call: Call, pool: StoragePool, path: string): boolean {
  return [...call.world.volumes.values()].some((each) => each.pool === pool && each.path === path);
}

/** `getVolumeOnStorageAndCheck`. */
async function strayOf(call: Call, pool: StoragePool, path: string): Promise<Stray> {
  if (!importable.has(pool.type))
    throw refused(`Importing and unmanaging volume are not supported for pool type ${pool.type} on hypervisor KVM`);
  const file = join(call.world.folderOf(pool), path);
  // Only what lies in the pool's own folder is known to it by this name.
  const isThere = !path.includes("/") && (await stat(file).catch(() => undefined))?.isFile() === true;
  if (!isThere) throw refused(`Cannot find volume on storage pool: ${path}`);
  return { path, file, size: await sizeOfImage(call, pool, file) };
}

async function sizeOfImage(call: Call, pool: StoragePool, file: string): Promise<number> {
  if (call.world.locked.has(file)) throw refused("Locked volume cannot be imported or unmanaged.");
  const about = await inspectQcow2(file);
  if (pool.type === "RBD") {
    if (about !== undefined) throw refused("Volume cannot be imported due to disk format QCOW2 is unsupported");
    return (await stat(file)).size;
  }
  if (about === undefined)
    throw refused("Volume cannot be imported due to The file format is raw, but expected to be QCOW2");
  if (about.encrypted) throw refused("Encrypted volume cannot be imported or unmanaged.");
  if (about.backed) throw refused("Volume with backing file cannot be imported or unmanaged.");
  return about.size;
}

async function diskOf(call: Call, pool: StoragePool, { file, size }: Stray): Promise<SparseDisk> {
  const disk = await call.world.newDisk(size);
  if (pool.type === "RBD") await disk.load(file);
  else await readQcow2(file, disk);
  return disk;
}

async function listVolumesForImport(call: Call): Promise<object> {
  const pool = call.world.findShared(call.world.pools, call.parameters, "storageid");
  checkPool(pool);
  const wanted = call.parameters.text("path");
  const keyword = call.parameters.text("keyword") ?? "";
  const found: Stray[] = [];
  if (wanted !== undefined) {
    if (!importable.has(pool.type)) await strayOf(call, pool, wanted);
    const stray = await strayOf(call, pool, wanted).catch(() => undefined);
    if (stray !== undefined) found.push(stray);
  } else {
    for (const name of await readdir(call.world.folderOf(pool))) {
      const stray = name.includes(keyword) ? await strayOf(call, pool, name).catch(() => undefined) : undefined;
      if (stray !== undefined) found.push(stray);
    }
  }
  const free = found.filter(({ path }) => !isManaged(call, pool, path));
  return listed(call, "volumeforimport", free, ({ path, file, size }) => ({
    path,
    name: path,
    fullpath: file,
    format: pool.type === "RBD" ? "RAW" : "QCOW2",
    size,
    virtualsize: size,
    storagepoolid: pool.id,
    storagepoolname: pool.name,
    storagepooltype: pool.type,
  }));
}

function checkOffering(call: Call, offering: DiskOffering, pool: StoragePool, size: number): void {
  const place = [...call.world.pools.values()].find((each) => each.tag === offering.tag);
  const isLocal = pool.scope === "HOST";
  if ((place?.scope === "HOST") !== isLocal)
    throw refused(`Disk offering ${offering.name} should use ${isLocal ? "local" : "shared"} storage`);
  if (offering.sizeGib === undefined && Math.floor(size / gib) > call.world.settings.largestDiskGib)
    throw invalid(
      `Volume size: ${Math.floor(size / gib)} is out of allowed range. Max: ${call.world.settings.largestDiskGib}`,
    );
  if (offering.tag !== undefined && offering.tag !== pool.tag)
    throw refused(
      `Disk offering: ${offering.name} storage tags are not compatible with selected storage pool: ${pool.name}`,
    );
}

function checkRoom(call: Call, owner: Owner, size: number): void {
  try {
    call.world.checkLimit(owner, "volume", 1);
    call.world.checkLimit(owner, "primaryStorage", size / gib);
  } catch (error) {
    throw refused(
      `VM resource allocation error for account: ${owner.id}. ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function importVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const pool = world.findShared(world.pools, parameters, "storageid");
  const path = parameters.required("path");
  const owner = world.ownerFor(parameters, caller);
  const named = parameters.text("diskofferingid") !== undefined;
  const offering = named ? world.findShared(world.diskOfferings, parameters, "diskofferingid") : undefined;
  return {
    instanceType: "Volume",
    work: async () => {
      checkPool(pool);
      if (isManaged(call, pool, path)) throw refused(`Volume is already managed by CloudStack: ${path}`);
      const stray = await strayOf(call, pool, path);
      if (offering !== undefined) checkOffering(call, offering, pool, stray.size);
      checkRoom(call, owner, stray.size);
      const volume: Volume = {
        ...blankVolume(world),
        id: randomUUID(),
        name: parameters.text("name") ?? path,
        owner,
        type: "DATADISK",
        state: "Ready",
        size: stray.size,
        diskOffering: offering,
        snapshotId: undefined,
        pool,
        path,
        file: stray.file,
        disk: await diskOf(call, pool, stray),
      };
      world.volumes.set(volume.id, volume);
      return { volume: writeVolume(call, volume) };
    },
  };
}

function unmanageVolume(call: Call): Submission {
  const { world, parameters, caller } = call;
  const volume = world.find(world.volumes, parameters, "id", caller);
  return {
    instanceType: "Volume",
    instanceId: volume.id,
    work: async () => {
      const { pool, path } = volume;
      if (volume.state !== "Ready") throw refused(`Volume ${volume.name} is not ready`);
      if (volume.machine !== undefined)
        throw refused(`Volume ${volume.name} is attached to VM (ID: ${volume.machine.id})`);
      if (pool === undefined || path === undefined) throw refused(`Volume ${volume.name} is not ready`);
      checkPool(pool);
      volume.file ??= join(world.folderOf(pool), path);
      await writeBack(volume);
      await strayOf(call, pool, path);
      world.volumes.delete(volume.id);
      await volume.disk?.discard();
      return { success: true };
    },
  };
}

/** What `importKvmInstance` asks for before it looks at any file. */
function checkMachineImport(call: Call): { pool: StoragePool; path: string; network: Network } {
  const { world, parameters } = call;
  const source = parameters.required("importsource").toLowerCase();
  if (source !== "shared" && source !== "local")
    throw invalid(`The simulator imports machines from shared and local storage alone, not from ${source}`);
  if (parameters.required("hypervisor").toLowerCase() !== "kvm")
    throw invalid(`VM import is currently not supported for hypervisor: ${parameters.required("hypervisor")}`);
  if (!/^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(parameters.required("name")))
    throw invalid(
      "Please provide hostname for the VM. VM name contains unsupported characters for it to be used as hostname",
    );
  const path = parameters.text("diskpath");
  if (path === undefined) throw invalid("Disk Path is required for Import from shared/local storage");
  if (parameters.text("networkid") === undefined)
    throw invalid("Network is required for Import from shared/local storage");
  if (parameters.text("storageid") === undefined)
    throw invalid("Storage Pool is required for Import from shared/local storage");
  const pool = world.findShared(world.pools, parameters, "storageid");
  if (isManaged(call, pool, path)) throw invalid("Disk image is already in use");
  if (source === "local") {
    if (parameters.text("hostid") === undefined) throw invalid("Host is required for Import from local storage");
    if (parameters.text("hostid") !== world.hostId) throw invalid("Host not found");
    if (pool.scope !== "HOST") throw invalid("Specified Local Storage Pool not found on Host");
  }
  return { pool, path, network: world.findShared(world.networks, parameters, "networkid") };
}

function importMachine(call: Call): Submission {
  const { world, parameters, caller } = call;
  world.checkZone(parameters);
  if (parameters.required("clusterid") !== world.clusterId)
    throw parameters.badValue("clusterid", parameters.required("clusterid"));
  const owner = world.ownerFor(parameters, caller);
  const offering = world.findShared(world.serviceOfferings, parameters, "serviceofferingid");
  const details = parameters.details("details");
  return {
    instanceType: "VirtualMachine",
    work: async () => {
      const { pool, path, network } = checkMachineImport(call);
      if (offering.tag !== pool.tag && offering.tag !== undefined)
        throw invalid(
          `Service offering: ${offering.id} storage tags are not compatible with selected storage pool: ${pool.id}`,
        );
      if (network.owner !== undefined && network.owner !== owner)
        throw new ApiError(errorCodes.account, `Unable to use network with id= ${network.id}, permission denied`);
      const size = sizeOf(offering, details);
      world.checkLimit(owner, "machine", 1);
      // `LibvirtCheckVolumeCommandWrapper` knows files alone, and says of all else the same.
      if (pool.type === "RBD") throw refused("Disk not found or is invalid");
      const stray = await strayOf(call, pool, path).catch((error: unknown) => {
        const text = error instanceof Error ? error.message : "";
        throw /^(Locked|Encrypted|Volume with)/.test(text) ? error : refused("Disk not found or is invalid");
      });
      const [osTypeId] = [...world.osTypes.keys()];
      if (osTypeId === undefined) throw refused("there is no guest operating system");
      const name = parameters.required("name");
      const machine: Machine = {
        id: randomUUID(),
        name,
        displayName: parameters.text("displayname") ?? name,
        owner,
        zoneId: world.zone.id,
        // Imported powered off, and left so.
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
      const chooses = reaches(world.release, "4.22.1.0");
      const wanted = chooses
        ? { macAddress: parameters.text("macaddress"), ipAddress: parameters.text("ipaddress") }
        : {};
      machine.nics.push(makeNic(world, network, 0, wanted));
      const volume: Volume = {
        ...blankVolume(world),
        id: randomUUID(),
        name: `ROOT-${machine.id.slice(0, 6)}`,
        owner,
        type: "ROOT",
        state: "Ready",
        size: stray.size,
        diskOffering: undefined,
        serviceOffering: offering,
        snapshotId: undefined,
        pool,
        path,
        file: stray.file,
        disk: await diskOf(call, pool, stray),
        machine,
        // An imported root volume shows device id 1 (apache/cloudstack issue 13771).
        deviceId: 1,
        attached: world.now(),
      };
      world.machines.set(machine.id, machine);
      world.volumes.set(volume.id, volume);
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
    name: "unmanageVolume",
    group: "admin.volume",
    since: "4.19.1.0",
    rootAdmin: true,
    description: "Unmanage a volume on storage pool.",
    parameters: ["id"],
    submit: unmanageVolume,
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
      "hostid",
      "storageid",
      "diskpath",
      "serviceofferingid",
      "networkid",
      "macaddress",
      "ipaddress",
      "name",
      "displayname",
      "details",
      "account",
      "domainid",
      "projectid",
    ],
    submit: importMachine,
  },
];
