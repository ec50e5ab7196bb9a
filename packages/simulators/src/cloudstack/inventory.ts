import { randomBytes, randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { blankVolume } from "./volume-life.ts";
import type {
  Account,
  DiskOffering,
  Machine,
  Network,
  Nic,
  Owner,
  Project,
  ServiceOffering,
  StoragePool,
} from "./entities.ts";
import { GuestDevices, type GuestRules } from "./guest-devices.ts";
import { gib, type World } from "./world.ts";

const rootDomain = { domainId: randomUUID(), domain: "ROOT" };

/** A machine that stands ready when the simulator starts. */
export interface MachineSpec {
  readonly name: string;
  /** Bytes of its volumes, the root first; multiples of 512. */
  readonly disks: readonly number[];
  /** Running unless told otherwise. */
  readonly state?: "Running" | "Stopped";
  /** A guest operating system's name as `listOsTypes` has it. */
  readonly osType?: string;
  readonly firmware?: "BIOS" | "UEFI";
  /** Megabytes. */
  readonly memory?: number;
  readonly cpuNumber?: number;
  /** Whether its devices appear as files, as an appliance's do. */
  readonly guest?: boolean;
  /** The name of the owner, an account or a project; `tenant` unless given. */
  readonly owner?: string;
}

/** Makes an account with a user and keys. */
export function addAccount(world: World, name: string, options: { rootAdmin: boolean }): Account {
  const account: Account = {
    id: randomUUID(),
    name,
    kind: "account",
    ...rootDomain,
    limits: new Map(),
    rootAdmin: options.rootAdmin,
    userId: randomUUID(),
    userName: name,
    password: randomBytes(12).toString("base64url"),
    apiKey: randomBytes(64).toString("base64url"),
    secretKey: randomBytes(64).toString("base64url"),
    denied: new Set(),
  };
  world.accounts.set(account.id, account);
  return account;
}

/** Makes a project with members. */
export function addProject(world: World, name: string, members: readonly Account[]): Project {
  const project: Project = {
    id: randomUUID(),
    name,
    kind: "project",
    ...rootDomain,
    limits: new Map(),
    members: new Set(members.map((each) => each.id)),
  };
  world.projects.set(project.id, project);
  return project;
}

const pools: readonly Omit<StoragePool, "id" | "zoneId" | "maintenance">[] = [
  {
    name: "primary-zone",
    scope: "ZONE",
    type: "NetworkFilesystem",
    managed: false,
    tag: undefined,
    capacity: 4096 * gib,
  },
  { name: "primary-ceph", scope: "ZONE", type: "RBD", managed: false, tag: "ceph", capacity: 4096 * gib },
  {
    name: "primary-cluster",
    scope: "CLUSTER",
    type: "NetworkFilesystem",
    managed: false,
    tag: "cluster",
    capacity: 4096 * gib,
  },
  { name: "local-kvm1", scope: "HOST", type: "Filesystem", managed: false, tag: "local", capacity: 512 * gib },
  { name: "powerflex", scope: "ZONE", type: "PowerFlex", managed: true, tag: "managed", capacity: 4096 * gib },
  // Managed as well, and unlike PowerFlex it takes snapshots.
  { name: "iscsi", scope: "ZONE", type: "Iscsi", managed: true, tag: "iscsi", capacity: 4096 * gib },
];

const diskOfferings: readonly Omit<DiskOffering, "id">[] = [
  { name: "Custom", sizeGib: undefined, tag: undefined },
  { name: "Small", sizeGib: 5, tag: undefined },
  { name: "Custom Ceph", sizeGib: undefined, tag: "ceph" },
  { name: "Custom Cluster", sizeGib: undefined, tag: "cluster" },
  { name: "Custom Local", sizeGib: undefined, tag: "local" },
  { name: "Custom Managed", sizeGib: undefined, tag: "managed" },
  { name: "Custom iSCSI", sizeGib: undefined, tag: "iscsi" },
];

const serviceOfferings: readonly Omit<ServiceOffering, "id">[] = [
  { name: "Small Instance", cpuNumber: 1, cpuSpeed: 500, memory: 512, tag: undefined },
  { name: "Medium Instance", cpuNumber: 2, cpuSpeed: 1000, memory: 2048, tag: undefined },
  { name: "Large Instance", cpuNumber: 8, cpuSpeed: 2000, memory: 16_384, tag: undefined },
  { name: "Custom Instance", cpuNumber: undefined, cpuSpeed: undefined, memory: undefined, tag: undefined },
  { name: "Small Cluster Instance", cpuNumber: 1, cpuSpeed: 500, memory: 512, tag: "cluster" },
];

const osTypes = [
  "Other Linux (64-bit)",
  "Debian GNU/Linux 12 (64-bit)",
  "Ubuntu 24.04 LTS",
  "Red Hat Enterprise Linux 9",
  "Windows Server 2022 (64-bit)",
  "Windows Server 2019 (64-bit)",
];

/** Fills an empty world: pools, offerings, networks, operating systems, a small template. */
export async function furnish(world: World, tenant: Account): Promise<void> {
  const zoneId = world.zone.id;
  const put = <T extends { readonly id: string }>(map: Map<string, T>, item: T): void => void map.set(item.id, item);
  for (const each of pools) put(world.pools, { ...each, id: randomUUID(), zoneId, maintenance: false });
  for (const each of world.pools.values()) await mkdir(world.folderOf(each));
  for (const each of diskOfferings) put(world.diskOfferings, { ...each, id: randomUUID() });
  for (const each of serviceOfferings) put(world.serviceOfferings, { ...each, id: randomUUID() });
  const networks: Omit<Network, "id">[] = [
    { name: "production", zoneId, type: "Isolated", owner: tenant, prefix: "10.1.1" },
    { name: "isolated-test", zoneId, type: "Isolated", owner: tenant, prefix: "10.1.2" },
    { name: "shared", zoneId, type: "Shared", owner: undefined, prefix: "192.168.7" },
  ];
  for (const each of networks) put(world.networks, { ...each, id: randomUUID() });
  for (const name of osTypes) world.osTypes.set(randomUUID(), name);
  const disk = await world.newDisk(64 * 2 ** 20);
  await disk.write(0, Buffer.from("the simulated template's root disk".padEnd(512, ".")));
  const osTypeId = osTypeNamed(world, "Other Linux (64-bit)");
  put(world.templates, { id: randomUUID(), name: "tiny Linux", zoneId, owner: undefined, osTypeId, disk });
}

function osTypeNamed(world: World, name: string): string {
  const found = [...world.osTypes].find(([, each]) => each === name);
  if (found === undefined) throw new RangeError(`no guest operating system is called '${name}'`);
  return found[0];
}

/** A card with the first free address; `wanted` asks for its addresses. */
export function makeNic(
  world: World,
  network: Network,
  deviceId: number,
  wanted: { macAddress?: string | undefined; ipAddress?: string | undefined } = {},
): Nic {
  const taken = new Set<string>();
  for (const machine of world.machines.values())
    for (const nic of machine.nics) if (nic.network === network) taken.add(nic.ipAddress);
  let host = 10;
  while (taken.has(`${network.prefix}.${host}`)) host++;
  return {
    id: randomUUID(),
    network,
    macAddress: wanted.macAddress ?? world.newMac(),
    ipAddress: wanted.ipAddress ?? `${network.prefix}.${host}`,
    isDefault: deviceId === 0,
    deviceId,
  };
}

/** Makes a machine with volumes that read as zeroes, without any call of the API. */
export async function addMachine(world: World, spec: MachineSpec, rules: GuestRules): Promise<Machine> {
  const owner = ownerNamed(world, spec.owner ?? "tenant");
  const id = randomUUID();
  const network = [...world.networks.values()].find((each) => each.owner === owner || each.owner === undefined);
  const offering = [...world.serviceOfferings.values()].find((each) => each.name === "Custom Instance");
  if (offering === undefined) throw new Error("the world has no custom offering");
  const machine: Machine = {
    id,
    name: spec.name,
    displayName: spec.name,
    owner,
    zoneId: world.zone.id,
    state: spec.state ?? "Running",
    offering,
    cpuNumber: spec.cpuNumber ?? 2,
    cpuSpeed: 1000,
    memory: spec.memory ?? 2048,
    template: undefined,
    osTypeId: osTypeNamed(world, spec.osType ?? "Other Linux (64-bit)"),
    nics: network === undefined ? [] : [makeNic(world, network, 0)],
    details: new Map(spec.firmware === "UEFI" ? [["UEFI", "LEGACY"]] : []),
    created: world.now(),
    tags: [],
    guest: spec.guest === true ? await GuestDevices.create(world.pathOf(`guest-${id}`), rules) : undefined,
    deleteProtection: false,
  };
  world.machines.set(id, machine);
  const diskOffering = [...world.diskOfferings.values()].find((each) => each.name === "Custom");
  for (const [index, size] of spec.disks.entries()) {
    if (!Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0)
      throw new RangeError(`a volume of ${size} bytes: the size is a positive multiple of 512`);
    const disk = await world.newDisk(size);
    const volumeId = randomUUID();
    world.volumes.set(volumeId, {
      ...blankVolume(world),
      id: volumeId,
      name: `${index === 0 ? "ROOT" : "DATA"}-${spec.name}-${index}`,
      owner,
      type: index === 0 ? "ROOT" : "DATADISK",
      state: "Ready",
      size,
      diskOffering: index === 0 ? undefined : diskOffering,
      serviceOffering: index === 0 ? offering : undefined,
      snapshotId: undefined,
      pool: world.poolFor(undefined, size),
      path: volumeId,
      disk,
      machine,
      // Device id 3 is the CD-ROM's.
      deviceId: index < 3 ? index : index + 1,
      attached: world.now(),
    });
    if (machine.state === "Running") machine.guest?.plug(volumeId, disk);
  }
  if (machine.state === "Running") await machine.guest?.appear();
  return machine;
}

function ownerNamed(world: World, name: string): Owner {
  const found = [...world.accounts.values(), ...world.projects.values()].find((each) => each.name === name);
  if (found === undefined) throw new RangeError(`no account or project is called '${name}'`);
  return found;
}
