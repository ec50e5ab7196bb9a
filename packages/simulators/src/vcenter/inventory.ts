import { join } from "node:path";
import { machineProperties, snapshotProperties } from "./machine-properties.ts";
import type { MachinePlace } from "./machine-properties.ts";
import type { Release } from "./releases.ts";
import type { TrackingRules } from "./virtual-disk.ts";
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
  readonly datacenter: string;
  readonly datastore: string;
  readonly datastoreType: "VMFS" | "NFS" | "vsan";
  readonly freeSpace: number;
  readonly rules: TrackingRules;
  readonly newUuid: () => string;
}

/** The folders, the host, the datastore and the machines of one vCenter, or of one ESXi host. */
export class Inventory {
  readonly options: InventoryOptions;
  readonly machines: Map<string, VirtualMachine> = new Map();
  readonly entities: Map<string, Entity> = new Map();
  readonly root: Entity;
  readonly datacenter: Entity;
  readonly #folders = new Map<string, Entity>();
  readonly #parents = new Map<string, Entity>();
  readonly #snapshots = new Map<string, { machine: VirtualMachine; snapshot: Snapshot }>();
  readonly #place: Omit<MachinePlace, "parent">;
  #counter = 100;

  constructor(options: InventoryOptions) {
    this.options = options;
    const esxi = options.kind === "esxi";
    const id = (vcenter: string, host: string): string => (esxi ? host : vcenter);
    this.root = this.#add(
      "Folder",
      id("group-d1", "ha-folder-root"),
      esxi ? "ha-folder-root" : "Datacenters",
      undefined,
    );
    const name = esxi ? "ha-datacenter" : options.datacenter;
    const folders = {
      vm: id("group-v3", "ha-folder-vm"),
      host: id("group-h4", "ha-folder-host"),
      datastore: id("group-s5", "ha-folder-datastore"),
      network: id("group-n6", "ha-folder-network"),
    };
    this.datacenter = this.#add("Datacenter", id("datacenter-2", "ha-datacenter"), name, this.root, {
      vmFolder: () => reference("Folder", folders.vm),
      hostFolder: () => reference("Folder", folders.host),
      datastoreFolder: () => reference("Folder", folders.datastore),
      networkFolder: () => reference("Folder", folders.network),
    });
    const vm = this.#add("Folder", folders.vm, "vm", this.datacenter);
    const host = this.#add("Folder", folders.host, "host", this.datacenter);
    const stores = this.#add("Folder", folders.datastore, "datastore", this.datacenter);
    const networks = this.#add("Folder", folders.network, "network", this.datacenter);
    this.#folders.set("", vm);
    const cluster = this.#add("ComputeResource", id("domain-c7", "ha-compute-res"), "esx1.example.org", host, {
      host: () => list("ManagedObjectReference", [reference("HostSystem", this.#place.host)]),
      resourcePool: () => reference("ResourcePool", this.#place.pool),
    });
    const pool = this.#add("ResourcePool", id("resgroup-8", "ha-root-pool"), "Resources", cluster);
    const machine = this.#add("HostSystem", id("host-9", "ha-host"), "esx1.example.org", cluster, {
      runtime: () =>
        data("HostRuntimeInfo", {
          connectionState: enumerated("HostSystemConnectionState", "connected"),
          powerState: enumerated("HostSystemPowerState", "poweredOn"),
          inMaintenanceMode: false,
        }),
      datastore: () => list("ManagedObjectReference", [reference("Datastore", this.#place.datastore)]),
      vm: () => list("ManagedObjectReference", this.machineReferences()),
    });
    const store = this.#add("Datastore", id("datastore-10", "ha-datastore-1"), options.datastore, stores, {
      summary: () =>
        data("DatastoreSummary", {
          datastore: reference("Datastore", this.#place.datastore),
          name: options.datastore,
          url: "ds:///vmfs/volumes/5f000000-00000000-0000-000000000001/",
          capacity: long(2 ** 43),
          freeSpace: long(options.freeSpace),
          accessible: true,
          multipleHostAccess: false,
          type: options.datastoreType,
          maintenanceMode: "normal",
        }),
      vm: () => list("ManagedObjectReference", this.machineReferences()),
    });
    const network = this.#add("Network", id("network-11", "HaNetwork-VM Network"), "VM Network", networks);
    this.#place = {
      host: machine.id,
      datastore: store.id,
      network: network.id,
      networkName: network.name,
      pool: pool.id,
    };
  }

  /** Adds a machine, making the folders of its path. */
  add(spec: MachineSpec): VirtualMachine {
    const number = ++this.#counter;
    const id = this.options.kind === "esxi" ? String(number) : `vm-${number}`;
    const folder = this.#folder(spec.folder ?? "");
    const place = { folder: join(this.options.folder, id), datastore: this.options.datastore };
    const made = new VirtualMachine(
      id,
      spec,
      { ...place, hardware: this.options.release.hardware },
      this.options.rules,
      this.options.newUuid,
    );
    this.machines.set(id, made);
    this.#parents.set(id, folder);
    folder.children.push(id);
    return made;
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
      return machineProperties(machine, { ...this.#place, parent: this.parentOf(machine) });
    }
    if (object.type === "VirtualMachineSnapshot") {
      const found = this.#snapshots.get(object.id);
      if (found === undefined || ![...found.machine.snapshots()].includes(found.snapshot)) return undefined;
      return snapshotProperties(found.machine, found.snapshot, {
        ...this.#place,
        parent: this.parentOf(found.machine),
      });
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

  #folder(path: string): Entity {
    const known = this.#folders.get(path);
    if (known !== undefined) return known;
    const cut = path.lastIndexOf("/");
    const parent = this.#folder(cut < 0 ? "" : path.slice(0, cut));
    const made = this.#add("Folder", `group-v${++this.#counter}`, path.slice(cut + 1), parent);
    this.#folders.set(path, made);
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
