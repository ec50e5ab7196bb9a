import { join } from "node:path";
import { machineProperties, snapshotProperties } from "./machine-properties.ts";
import type { MachinePlace } from "./machine-properties.ts";
import type { Release } from "./releases.ts";
import type { DatastoreType, TrackingRules } from "./virtual-disk.ts";
import { VirtualMachine } from "./virtual-machine.ts";
import type { MachineSpec, Snapshot } from "./virtual-machine.ts";
import { objectNotFound } from "./vim-fault.ts";
import { data, enumerated, list, long, reference } from "./vim-value.ts";
import type { Reference, VimValue } from "./vim-value.ts";

/** The properties of a managed object, each computed when asked for. */
export type Properties = Record<string, () => VimValue | undefined>;

/** An object of the inventory that is no machine. */
export interface Entity {
  readonly type: string;
  readonly id: string;
  readonly name: string;
  readonly parent: Entity | undefined;
  readonly children: string[];
  readonly properties: Properties;
}

/** Where the inventory is and what it is made of. */
export interface InventoryOptions {
  readonly kind: "vcenter" | "esxi";
  readonly release: Release;
  readonly folder: string;
  /** At least one, at most four. */
  readonly datacenters: readonly string[];
  /** Hosts of each datacenter, 1 to 7. */
  readonly hosts: number;
  /** Of each datacenter, at least one. */
  readonly datastores: readonly { readonly name: string; readonly type: DatastoreType }[];
  readonly freeSpace: number;
  readonly rules: TrackingRules;
  readonly newUuid: () => string;
}

/** A datastore of a datacenter. */
export interface Datastore extends Entity {
  readonly store: { readonly name: string; readonly type: DatastoreType };
}

/** A datacenter with its folders, its cluster of hosts, its datastores and its network. */
export interface Site {
  readonly datacenter: Entity;
  readonly folders: Map<string, Entity>;
  readonly hosts: readonly Entity[];
  readonly datastores: readonly Datastore[];
  readonly network: Entity;
  readonly pool: Entity;
}

/** The datacenters and the machines of one vCenter, or of one ESXi host. */
export class Inventory {
  readonly options: InventoryOptions;
  readonly machines: Map<string, VirtualMachine> = new Map();
  readonly entities: Map<string, Entity> = new Map();
  readonly root: Entity;
  readonly sites: readonly Site[];
  readonly #parents = new Map<string, Entity>();
  readonly #homes = new Map<string, { site: Site; host: number }>();
  readonly #snapshots = new Map<string, { machine: VirtualMachine; snapshot: Snapshot }>();
  #counter = 100;

  constructor(options: InventoryOptions) {
    this.options = options;
    const esxi = options.kind === "esxi";
    const names = esxi ? ["ha-datacenter"] : options.datacenters;
    const { hosts } = options;
    if (names.length < 1 || names.length > 4) throw new RangeError(`${names.length} datacenters; there are 1 to 4`);
    if (!(hosts >= 1 && hosts <= 7)) throw new RangeError(`${hosts} hosts in a datacenter; there are 1 to 7`);
    this.root = this.#add(
      "Folder",
      esxi ? "ha-folder-root" : "group-d1",
      esxi ? "ha-folder-root" : "Datacenters",
      undefined,
    );
    this.sites = names.map((name, index) => this.#site(name, index));
  }

  /** The datacenter that machines are made in unless they name another. */
  get datacenter(): Entity {
    return this.#first.datacenter;
  }

  get #first(): Site {
    const [first] = this.sites;
    if (first === undefined) throw new RangeError("there is no datacenter");
    return first;
  }

  #site(name: string, index: number): Site {
    const { options } = this;
    const esxi = options.kind === "esxi";
    const id = (prefix: string, number: number, host: string): string =>
      esxi ? host : `${prefix}-${20 * index + number}`;
    const folders = {
      vm: esxi ? "ha-folder-vm" : `group-v${20 * index + 3}`,
      host: esxi ? "ha-folder-host" : `group-h${20 * index + 4}`,
      datastore: esxi ? "ha-folder-datastore" : `group-s${20 * index + 5}`,
      network: esxi ? "ha-folder-network" : `group-n${20 * index + 6}`,
    };
    const datacenter = this.#add("Datacenter", id("datacenter", 2, "ha-datacenter"), name, this.root, {
      vmFolder: () => reference("Folder", folders.vm),
      hostFolder: () => reference("Folder", folders.host),
      datastoreFolder: () => reference("Folder", folders.datastore),
      networkFolder: () => reference("Folder", folders.network),
    });
    const vm = this.#add("Folder", folders.vm, "vm", datacenter);
    const hostFolder = this.#add("Folder", folders.host, "host", datacenter);
    const stores = this.#add("Folder", folders.datastore, "datastore", datacenter);
    const networks = this.#add("Folder", folders.network, "network", datacenter);
    const hostName = (number: number): string => `esx${20 * index + number + 1}.example.org`;
    const hosts: Entity[] = [];
    const cluster = this.#add(
      "ComputeResource",
      id("domain-c", 7, "ha-compute-res").replace("c-", "c"),
      hostName(0),
      hostFolder,
      {
        host: () =>
          list(
            "ManagedObjectReference",
            hosts.map((host) => reference("HostSystem", host.id)),
          ),
        resourcePool: () => reference("ResourcePool", pool.id),
      },
    );
    const pool = this.#add("ResourcePool", id("resgroup", 8, "ha-root-pool"), "Resources", cluster);
    for (let number = 0; number < options.hosts; number++) {
      const hostId = number === 0 ? id("host", 9, "ha-host") : id("host", 12 + number, `ha-host-${number}`);
      const machines = (): Reference[] =>
        this.machineReferences().filter(({ id: machine }) => {
          const home = this.#homes.get(machine);
          return home?.site.datacenter === datacenter && home.host === number;
        });
      hosts.push(
        this.#add("HostSystem", hostId, hostName(number), cluster, {
          ...hostProperties(hostName(number), options.release, `${index}${number}`),
          datastore: () =>
            list(
              "ManagedObjectReference",
              datastores.map((store) => reference("Datastore", store.id)),
            ),
          vm: () => list("ManagedObjectReference", machines()),
        }),
      );
    }
    const datastores = options.datastores.map((store, number): Datastore => {
      const serial = 100 * number + index + 1;
      const at = number === 0 ? 10 : 1000 + 100 * number;
      const entity = this.#add("Datastore", id("datastore", at, `ha-datastore-${number + 1}`), store.name, stores, {
        summary: () =>
          data("DatastoreSummary", {
            datastore: reference("Datastore", entity.id),
            name: store.name,
            url: `ds:///vmfs/volumes/5f000000-00000000-0000-${String(serial).padStart(12, "0")}/`,
            capacity: long(2 ** 43),
            freeSpace: long(options.freeSpace),
            accessible: true,
            multipleHostAccess: options.hosts > 1,
            type: store.type,
            maintenanceMode: "normal",
          }),
        vm: () => list("ManagedObjectReference", this.#machinesOn(datacenter, store.name)),
      });
      return { ...entity, store };
    });
    const network = this.#add("Network", id("network", 11, "HaNetwork-VM Network"), "VM Network", networks);
    return { datacenter, folders: new Map([["", vm]]), hosts, datastores, network, pool };
  }

  /** Adds a machine, making the folders of its path. */
  add(spec: MachineSpec): VirtualMachine {
    const number = ++this.#counter;
    const id = this.options.kind === "esxi" ? String(number) : `vm-${number}`;
    const site = this.#siteOf(spec.datacenter);
    const host = spec.host ?? 0;
    if (site.hosts[host] === undefined) throw new RangeError(`there is no host ${host} in ${site.datacenter.name}`);
    const folder = this.#folder(site, spec.folder ?? "");
    const place = {
      folder: join(this.options.folder, id),
      datastore: (name: string | undefined) => datastoreOf(site, name).store,
      hardware: this.options.release.hardware,
    };
    const made = new VirtualMachine(id, spec, place, this.options.rules, this.options.newUuid);
    this.machines.set(id, made);
    this.#parents.set(id, folder);
    this.#homes.set(id, { site, host });
    folder.children.push(id);
    return made;
  }

  /** The datacenter of a machine. */
  siteOf(machine: VirtualMachine): Site {
    return this.#homes.get(machine.id)?.site ?? this.#first;
  }

  /** Puts a machine on another host of its datacenter. */
  move(machine: VirtualMachine, host: number): void {
    const site = this.siteOf(machine);
    if (site.hosts[host] === undefined) throw new RangeError(`there is no host ${host} in ${site.datacenter.name}`);
    this.#homes.set(machine.id, { site, host });
  }

  /** A new id for a snapshot of this machine. */
  snapshotId(machine: VirtualMachine): string {
    const number = ++this.#counter;
    return this.options.kind === "esxi" ? `${machine.id}-snapshot-${number}` : `snapshot-${number}`;
  }

  /** Remembers the snapshot under its id for as long as the machine has it. */
  register(machine: VirtualMachine, snapshot: Snapshot): void {
    this.#snapshots.set(snapshot.id, { machine, snapshot });
  }

  /** The machine of this reference. */
  machine(object: Reference): VirtualMachine {
    const found = this.machines.get(object.id);
    if (found === undefined) throw objectNotFound(object);
    return found;
  }

  /** The snapshot of this reference, and its machine. */
  snapshot(object: Reference): { machine: VirtualMachine; snapshot: Snapshot } {
    const found = this.#snapshots.get(object.id);
    if (found === undefined || ![...found.machine.snapshots()].includes(found.snapshot)) throw objectNotFound(object);
    return found;
  }

  /** References to every machine. */
  machineReferences(): Reference[] {
    return [...this.machines.keys()].map((id) => reference("VirtualMachine", id));
  }

  /** The folder that holds a machine. */
  parentOf(machine: VirtualMachine): Entity {
    return this.#parents.get(machine.id) ?? this.root;
  }

  /** What an inventory path (`DC0/vm/folder/name`) names. */
  find(path: string): Reference | undefined {
    const parts = path.split("/").filter((part) => part !== "");
    let at: Entity | undefined = this.root;
    if (parts.length === 0) return reference(at.type, at.id);
    for (const [index, part] of parts.entries()) {
      const last = index === parts.length - 1;
      let next: Entity | undefined;
      for (const id of at.children) {
        const machine = this.machines.get(id);
        if (machine !== undefined && last && machine.name === part) return reference("VirtualMachine", id);
        const entity = this.entities.get(id);
        if (entity?.name === part) next = entity;
      }
      if (next === undefined) return undefined;
      at = next;
    }
    return reference(at.type, at.id);
  }

  /** The properties of an inventory object; undefined where it is none. */
  properties(object: Reference): Properties | undefined {
    if (object.type === "VirtualMachine") {
      const machine = this.machines.get(object.id);
      if (machine === undefined) return undefined;
      return machineProperties(machine, this.#placeOf(machine));
    }
    if (object.type === "VirtualMachineSnapshot") {
      const found = this.#snapshots.get(object.id);
      if (found === undefined || ![...found.machine.snapshots()].includes(found.snapshot)) return undefined;
      return snapshotProperties(found.machine, found.snapshot, this.#placeOf(found.machine));
    }
    const entity = this.entities.get(object.id);
    return entity?.type === object.type ? entity.properties : undefined;
  }

  /** Everything below a container, or only what lies directly in it. */
  *below(container: string, recursive: boolean): Generator<Reference> {
    for (const id of this.entities.get(container)?.children ?? []) {
      const entity = this.entities.get(id);
      yield reference(entity?.type ?? "VirtualMachine", id);
      if (recursive && entity !== undefined) yield* this.below(id, true);
    }
  }

  /** Releases the files of every machine. */
  discard(): void {
    for (const machine of this.machines.values()) machine.discard();
  }

  #siteOf(datacenter: string | undefined): Site {
    const found =
      datacenter === undefined ? this.#first : this.sites.find((each) => each.datacenter.name === datacenter);
    if (found === undefined) throw new RangeError(`there is no datacenter '${datacenter}'`);
    return found;
  }

  #machinesOn(datacenter: Entity, datastore: string): Reference[] {
    const found: Reference[] = [];
    for (const machine of this.machines.values()) {
      if (this.siteOf(machine).datacenter !== datacenter) continue;
      const names = [machine.home, ...[...machine.disks.values()].map((disk) => disk.datastore.name)];
      if (names.includes(datastore)) found.push(reference("VirtualMachine", machine.id));
    }
    return found;
  }

  #placeOf(machine: VirtualMachine): MachinePlace {
    const { site, host } = this.#homes.get(machine.id) ?? { site: this.#first, host: 0 };
    return {
      parent: this.parentOf(machine),
      host: site.hosts[host]?.id ?? "",
      datastore: (name) => datastoreOf(site, name).id,
      network: site.network.id,
      networkName: site.network.name,
      pool: site.pool.id,
    };
  }

  #folder(site: Site, path: string): Entity {
    const known = site.folders.get(path);
    if (known !== undefined) return known;
    const cut = path.lastIndexOf("/");
    const parent = this.#folder(site, cut < 0 ? "" : path.slice(0, cut));
    const made = this.#add("Folder", `group-v${++this.#counter}`, path.slice(cut + 1), parent);
    site.folders.set(path, made);
    return made;
  }

  #add(type: string, id: string, name: string, parent: Entity | undefined, more: Properties = {}): Entity {
    const children: string[] = [];
    const properties: Properties = {
      name: () => name,
      parent: () => (parent === undefined ? undefined : reference(parent.type, parent.id)),
      ...more,
    };
    if (type === "Folder") {
      properties["childEntity"] = () =>
        list(
          "ManagedObjectReference",
          children.map((child) => reference(this.entities.get(child)?.type ?? "VirtualMachine", child)),
        );
    }
    const entity = { type, id, name, parent, children, properties } satisfies Entity;
    this.entities.set(id, entity);
    parent?.children.push(id);
    return entity;
  }
}

/** A datastore by its name, or the first. */
function datastoreOf({ datastores, datacenter }: Site, name: string | undefined): Datastore {
  const found = name === undefined ? datastores[0] : datastores.find((each) => each.name === name);
  if (found === undefined) throw new RangeError(`there is no datastore '${name ?? ""}' in ${datacenter.name}`);
  return found;
}

function hostProperties(name: string, release: Release, suffix: string): Properties {
  return {
    runtime: () =>
      data("HostRuntimeInfo", {
        connectionState: enumerated("HostSystemConnectionState", "connected"),
        powerState: enumerated("HostSystemPowerState", "poweredOn"),
        inMaintenanceMode: false,
      }),
    summary: () =>
      data("HostListSummary", {
        hardware: data("HostHardwareSummary", {
          vendor: "VMware, Inc.",
          model: "VMware Virtual Platform",
          uuid: `4c4c4544-0000-4000-8000-0000000000${suffix}`,
          memorySize: long(64 * 2 ** 30),
          cpuModel: "simulated",
          cpuMhz: 2_500,
          numCpuPkgs: 1,
          numCpuCores: 8,
          numCpuThreads: 16,
          numNics: 1,
          numHBAs: 1,
        }),
        config: data("HostConfigSummary", {
          name,
          port: 902,
          product: data("AboutInfo", {
            name: "VMware ESXi",
            fullName: `VMware ESXi ${release.version} build-${release.build}`,
            vendor: "VMware, Inc.",
            version: release.version,
            build: release.build,
            osType: "vmnix-x86",
            productLineId: "embeddedEsx",
            apiType: "HostAgent",
            apiVersion: release.apiVersion,
          }),
          vmotionEnabled: true,
        }),
        quickStats: data("HostListSummaryQuickStats", { overallCpuUsage: 1_500, overallMemoryUsage: 16_384 }),
        overallStatus: enumerated("ManagedEntityStatus", "green"),
      }),
  };
}

/** Whether an object of `type` is also a `base`. */
export function isA(type: string, base: string): boolean {
  if (type === base || base === "ManagedObject") return true;
  const entities = ["Folder", "Datacenter", "ComputeResource", "ResourcePool", "HostSystem", "VirtualMachine"];
  if (base === "ManagedEntity") return entities.includes(type) || type === "Datastore" || type === "Network";
  return false;
}

/** `count` machines of one empty 8 GiB disk each, in folders of a hundred, for tests of large inventories. */
export function generateMachines(count: number): MachineSpec[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `machine-${String(index).padStart(5, "0")}`,
    folder: `folder-${String(Math.floor(index / 100)).padStart(3, "0")}`,
    power: index % 5 === 4 ? "poweredOff" : "poweredOn",
    disks: [{ size: 8 * 2 ** 30 }],
  }));
}
