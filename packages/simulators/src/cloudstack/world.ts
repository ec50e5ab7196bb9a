import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { ApiError, errorCodes, invalid } from "./api-error.ts";
import type {
  Account,
  DiskOffering,
  LimitedResource,
  Machine,
  MachineSnapshot,
  Network,
  Owner,
  Project,
  ServiceOffering,
  Snapshot,
  StoragePool,
  Template,
  Volume,
  Zone,
} from "./entities.ts";
import type { Parameters } from "./parameters.ts";
import type { ReleaseName, ReleaseTraits } from "./releases.ts";
import { traitsOf } from "./releases.ts";
import { SparseDisk } from "./sparse-disk.ts";

/** Bytes in the unit in which CloudStack sells disks. */
export const gib: number = 2 ** 30;

/** Global settings that change what commands do. */
export interface Settings {
  /** `default.page.size`: the most that one page may have, and what a list without pages is cut to. */
  pageSize: number;
  /** `allow.user.expunge.recover.vm`. */
  allowUserExpunge: boolean;
  /** `kvm.snapshot.enabled`. */
  snapshotsRunningMachines: boolean;
  /** `enforce.post.requests.and.timestamps`. */
  enforcePostAndTimestamps: boolean;
  /** `custom.diskoffering.size.max`, in GiB. */
  largestDiskGib: number;
  /** Calls of one account in one interval (`api.throttling.max`); undefined: as many as it likes. */
  throttle: { calls: number; intervalMs: number } | undefined;
  /** The management server prepares for maintenance and takes no new jobs. */
  maintenance: boolean;
  /** How long a download URL lives (`extract.url.expiration.interval`), and an upload may take. */
  urlLifetimeMs: number;
  /** New volumes on primary storage hold what somebody else left there. */
  leftovers: boolean;
}

/** Everything that the simulated cloud has. */
export class World {
  readonly release: ReleaseName;
  readonly traits: ReleaseTraits;
  readonly settings: Settings;
  readonly folder: string;
  readonly zone: Zone = { id: randomUUID(), name: "zone1" };
  readonly clusterId: string = randomUUID();
  readonly hostId: string = randomUUID();
  readonly accounts: Map<string, Account> = new Map();
  readonly projects: Map<string, Project> = new Map();
  readonly pools: Map<string, StoragePool> = new Map();
  readonly diskOfferings: Map<string, DiskOffering> = new Map();
  readonly serviceOfferings: Map<string, ServiceOffering> = new Map();
  readonly networks: Map<string, Network> = new Map();
  readonly templates: Map<string, Template> = new Map();
  readonly osTypes: Map<string, string> = new Map();
  readonly volumes: Map<string, Volume> = new Map();
  readonly machines: Map<string, Machine> = new Map();
  readonly snapshots: Map<string, Snapshot> = new Map();
  readonly machineSnapshots: Map<string, MachineSnapshot> = new Map();
  /** Files on pools that somebody has open (qemu's locks), by path. */
  readonly locked: Set<string> = new Set();
  #clockOffset = 0;
  #macs = 0;

  constructor(folder: string, release: ReleaseName, settings: Partial<Settings>) {
    this.folder = folder;
    this.release = release;
    this.traits = traitsOf(release);
    this.settings = {
      pageSize: 500,
      allowUserExpunge: false,
      snapshotsRunningMachines: this.traits.snapshotsRunningMachines,
      enforcePostAndTimestamps: false,
      largestDiskGib: 1024,
      throttle: undefined,
      maintenance: false,
      urlLifetimeMs: 14_400_000,
      leftovers: false,
      ...settings,
    };
  }

  /** Milliseconds since 1970 by the simulated clock. */
  now(): number {
    return Date.now() + this.#clockOffset;
  }

  advance(milliseconds: number): void {
    this.#clockOffset += milliseconds;
  }

  /** A MAC address that no other card has, from the range that CloudStack uses. */
  newMac(): string {
    const number = (++this.#macs).toString(16).padStart(6, "0");
    return `02:00:4c:${number.slice(0, 2)}:${number.slice(2, 4)}:${number.slice(4)}`;
  }

  /** Where a file of the world's own lies. */
  pathOf(name: string): string {
    return join(this.folder, name);
  }

  /** Where a pool's files lie, as who mounts it sees them; a volume has one there only if it was adopted from it. */
  folderOf(pool: StoragePool): string {
    return this.pathOf(`pool-${pool.id}`);
  }

  async newDisk(size: number): Promise<SparseDisk> {
    return SparseDisk.create(this.pathOf(`${randomUUID()}.raw`), size);
  }

  async copyOf(disk: SparseDisk, size?: number): Promise<SparseDisk> {
    return SparseDisk.copy(this.pathOf(`${randomUUID()}.raw`), disk, size);
  }

  /** Writes a disk's bytes to a file of the caller's. */
  async copyInto(disk: SparseDisk, path: string): Promise<void> {
    await SparseDisk.copy(path, disk);
  }

  /** Fills a disk with a raw file's bytes. */
  async fill(disk: SparseDisk, path: string): Promise<void> {
    await disk.load(path);
  }

  /** Copies of several disks at one moment. */
  async copiesOf(disks: readonly SparseDisk[]): Promise<SparseDisk[]> {
    return SparseDisk.copyTogether(disks.map((from) => ({ from, path: this.pathOf(`${randomUUID()}.raw`) })));
  }

  /** Volumes that were not expunged. */
  volumesOf(machine: Machine): Volume[] {
    const volumes = [...this.volumes.values()].filter((each) => each.machine === machine);
    return volumes.toSorted((one, other) => (one.deviceId ?? 0) - (other.deviceId ?? 0));
  }

  rootOf(machine: Machine): Volume | undefined {
    return this.volumesOf(machine).find((each) => each.type === "ROOT");
  }

  /** The pool for a storage tag; without one the first that has none. @throws ApiError 530 where nothing fits */
  poolFor(tag: string | undefined, size: number): StoragePool {
    for (const pool of this.pools.values()) {
      if (pool.tag !== tag || pool.maintenance) continue;
      if (this.usedOf(pool) + size <= pool.capacity) return pool;
    }
    throw new ApiError(
      errorCodes.internal,
      `Unable to find suitable primary storage when creating volume (${size} bytes)`,
    );
  }

  /** Bytes that volumes of a pool were promised. */
  usedOf(pool: StoragePool): number {
    let used = 0;
    for (const each of this.volumes.values()) if (each.pool === pool) used += each.size;
    return used;
  }

  /**
   * The entity that a parameter names, if the caller may use it.
   * @throws ApiError 431 where there is none, 531 where it is somebody else's
   */
  find<T extends { readonly owner: Owner | undefined }>(
    map: ReadonlyMap<string, T>,
    parameters: Parameters,
    name: string,
    caller: Account,
  ): T {
    const id = parameters.required(name);
    const entity = map.get(id);
    if (entity === undefined) throw parameters.badValue(name, id);
    if (entity.owner !== undefined && !this.mayUse(caller, entity.owner)) {
      throw new ApiError(
        errorCodes.account,
        `Acct[${caller.id}-${caller.name}] does not have permission to operate with resource ${id}`,
      );
    }
    return entity;
  }

  /** What everybody may name: zones, offerings. @throws ApiError 431 where there is none */
  findShared<T>(map: ReadonlyMap<string, T>, parameters: Parameters, name: string): T {
    const id = parameters.required(name);
    const entity = map.get(id);
    if (entity === undefined) throw parameters.badValue(name, id);
    return entity;
  }

  checkZone(parameters: Parameters): void {
    const id = parameters.required("zoneid");
    if (id !== this.zone.id) throw parameters.badValue("zoneid", id);
  }

  mayUse(caller: Account, owner: Owner): boolean {
    if (caller.rootAdmin || owner === caller) return true;
    return owner.kind === "project" && (owner as Project).members.has(caller.id);
  }

  /** For whom a command makes something: the caller, a project (`projectid`) or an account (`account`, `domainid`). */
  ownerFor(parameters: Parameters, caller: Account): Owner {
    const projectId = parameters.text("projectid");
    if (projectId !== undefined) {
      const project = this.projects.get(projectId);
      if (project === undefined) throw parameters.badValue("projectid", projectId);
      if (!this.mayUse(caller, project)) {
        throw new ApiError(errorCodes.account, `Account ${caller.name} can't access project ${project.name}`);
      }
      return project;
    }
    const name = parameters.text("account");
    if (name === undefined) return caller;
    const account = [...this.accounts.values()].find((each) => each.name === name);
    if (account === undefined || account.domainId !== parameters.text("domainid")) {
      throw invalid(`Unable to find account ${name} in domain ${parameters.text("domainid") ?? ""}`);
    }
    if (!this.mayUse(caller, account)) {
      throw new ApiError(errorCodes.account, `Account ${caller.name} is not authorized to operate for ${name}`);
    }
    return account;
  }

  /** Whose things a list shows: things in projects only where a project is named. */
  scopeOf(parameters: Parameters, caller: Account): (owner: Owner) => boolean {
    const projectId = parameters.text("projectid");
    if (projectId === "-1") return (owner) => this.mayUse(caller, owner);
    if (projectId !== undefined || parameters.text("account") !== undefined) {
      const wanted = this.ownerFor(parameters, caller);
      return (owner) => owner === wanted;
    }
    if (parameters.flag("listall") === true) {
      return (owner) => owner.kind === "account" && this.mayUse(caller, owner);
    }
    return (owner) => owner === caller;
  }

  /** How much of a limited resource an owner has. */
  amountOf(owner: Owner, resource: LimitedResource): number {
    const volumes = [...this.volumes.values()].filter((each) => each.owner === owner && each.state !== "Expunged");
    switch (resource) {
      case "volume":
        return volumes.length;
      case "primaryStorage":
        return volumes.reduce((sum, each) => sum + each.size, 0) / gib;
      case "machine":
        return [...this.machines.values()].filter((each) => each.owner === owner && each.state !== "Expunging").length;
      case "snapshot":
        return [...this.snapshots.values()].filter((each) => each.owner === owner).length;
      case "secondaryStorage":
        return (
          ([...this.snapshots.values()].reduce((sum, each) => sum + (each.owner === owner ? each.size : 0), 0) +
            [...this.templates.values()].reduce(
              (sum, { owner: own, disk }) => sum + (own === owner ? (disk?.size ?? 0) : 0),
              0,
            )) /
          gib
        );
    }
  }

  /** @throws ApiError 535 where the owner would have more than it may have */
  checkLimit(owner: Owner, resource: LimitedResource, more: number): void {
    const limit = owner.limits.get(resource) ?? Number.POSITIVE_INFINITY;
    const amount = this.amountOf(owner, resource);
    if (amount + more <= limit) return;
    const words = {
      machine: "user_vm",
      volume: "volume",
      snapshot: "snapshot",
      primaryStorage: "primary_storage",
      secondaryStorage: "secondary_storage",
    };
    const storage = resource === "primaryStorage" || resource === "secondaryStorage";
    const written = (value: number): string => (storage ? `(${value.toFixed(2)} GB) ${value * gib}` : String(value));
    throw new ApiError(
      errorCodes.resourceAllocation,
      `Maximum amount of resources of Type = '${words[resource]}' for Account Name = ${owner.name} in Domain Id = ` +
        `${owner.domainId} is exceeded: Account Resource Limit = ${written(limit)}, Current Account Resource Amount = ` +
        `${written(amount)}, Requested Resource Amount = ${written(more)}.`,
    );
  }
}
