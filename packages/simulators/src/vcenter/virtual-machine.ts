import type { DiskLayer } from "./disk-layer.ts";
import { freeSlot } from "./disk-slot.ts";
import { VirtualDisk } from "./virtual-disk.ts";
import type { DiskPlace, DiskSpec, DiskState, TrackingRules } from "./virtual-disk.ts";
import { invalidArgument, VimFault } from "./vim-fault.ts";

/** What the guest's VMware Tools are doing. */
export type ToolsState = "running" | "not-running" | "not-installed";

/** A machine's power state as vim25 names it. */
export type PowerState = "poweredOn" | "poweredOff" | "suspended";

/** What becomes of a quiesced snapshot. */
export type QuiesceOutcome =
  /** The guest quiesces; the snapshot says `quiesced`. */
  | "quiesced"
  /** The snapshot is made without quiescing and says so. */
  | "ignored"
  /** The task fails with ApplicationQuiesceFault. */
  | "application-fault"
  /** The task fails with FilesystemQuiesceFault. */
  | "filesystem-fault";

/** How a simulated machine is made. */
export interface MachineSpec {
  readonly name: string;
  readonly disks: readonly DiskSpec[];
  /** The datacenter's name; the first unless given. */
  readonly datacenter?: string;
  /** The number of the host in its datacenter, from 0. */
  readonly host?: number;
  /** Path of folders under the datacenter's `vm` folder, `/` between them. */
  readonly folder?: string;
  readonly power?: PowerState;
  readonly tools?: ToolsState;
  /** What a quiesced snapshot achieves; by default as the tools allow. */
  readonly quiesce?: QuiesceOutcome;
  /** Whether the guest obeys ShutdownGuest; true unless given. */
  readonly obeysShutdown?: boolean;
  readonly guestId?: string;
  readonly guestFullName?: string;
  readonly cpus?: number;
  readonly memoryMiB?: number;
  readonly firmware?: "bios" | "efi";
  readonly secureBoot?: boolean;
  /** Whether a trusted platform module hangs on it. */
  readonly tpm?: boolean;
  /** The device key of the disk that the boot order names; without it there is no order. */
  readonly bootDisk?: number;
  /** How its SCSI controllers share their bus with other machines. */
  readonly sharedBus?: "virtualSharing" | "physicalSharing";
  /** The virtual hardware version, the release's newest unless given; tracking needs 7. */
  readonly hardware?: number;
  readonly template?: boolean;
  readonly nics?: readonly {
    readonly mac: string;
    readonly network?: string;
    readonly addresses?: readonly string[];
  }[];
  /** Tracking enabled and running from the start. */
  readonly tracking?: boolean;
  readonly instanceUuid?: string;
  readonly biosUuid?: string;
}

/** A snapshot of a machine: its place in the tree and what each disk was. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly created: Date;
  readonly quiesced: boolean;
  readonly power: PowerState;
  readonly number: number;
  parent: Snapshot | undefined;
  readonly children: Snapshot[];
  readonly disks: Map<number, DiskState>;
  /** Disks of the machine that it does not hold, which its configuration tells all the same. */
  readonly others: readonly DiskState[];
}

/** What quiescing was asked of a snapshot. */
export interface SnapshotWish {
  readonly name: string;
  readonly description: string;
  readonly quiesce: boolean;
}

/** Where a machine's files are, and how new it may be. */
export interface MachineFiles {
  /** The folder here that holds the bytes of all its disks. */
  readonly folder: string;
  /** The datastore of this name, or the first. @throws RangeError where there is none */
  readonly datastore: (name: string | undefined) => DiskPlace["datastore"];
  readonly hardware: number;
}

/** A virtual machine with its disks, snapshots, power state and guest. Methods throw `VimFault`s as vCenter would. */
export class VirtualMachine {
  readonly id: string;
  readonly spec: MachineSpec;
  readonly #disks = new Map<number, VirtualDisk>();
  readonly #newDisk: (spec: DiskSpec) => VirtualDisk;
  readonly instanceUuid: string;
  readonly biosUuid: string;
  readonly hardware: number;
  /** The name of the datastore that its own files are on. */
  readonly home: string;
  name: string;
  power: PowerState;
  tools: ToolsState;
  quiesce: QuiesceOutcome | undefined;
  obeysShutdown: boolean;
  template: boolean;
  /** `config.changeTrackingEnabled`. */
  trackingEnabled = false;
  /** `runtime.cleanPowerOff`: whether the guest shut down in order; undefined while it is not off. */
  cleanPowerOff: boolean | undefined;
  /** A question that blocks power operations until AnswerVM. */
  question: { id: string; text: string } | undefined;
  /** Let the next consolidations leave their deltas behind, as a locked file does. */
  consolidationFails = false;
  /** Called when a quiesced snapshot freezes the guest, before the snapshot is made: the guest's last writes. */
  onFreeze: (() => void) | undefined;
  readonly roots: Snapshot[] = [];
  currentSnapshot: Snapshot | undefined;
  #snapshotCount = 0;

  constructor(id: string, spec: MachineSpec, place: MachineFiles, rules: TrackingRules, newUuid: () => string) {
    this.id = id;
    this.spec = spec;
    this.home = place.datastore(spec.disks[0]?.datastore).name;
    this.name = spec.name.replaceAll("/", "%2f");
    this.power = spec.power ?? "poweredOn";
    this.cleanPowerOff = this.power === "poweredOff" ? true : undefined;
    this.tools = spec.tools ?? "running";
    this.quiesce = spec.quiesce;
    this.obeysShutdown = spec.obeysShutdown ?? true;
    this.template = spec.template ?? false;
    this.hardware = spec.hardware ?? place.hardware;
    this.instanceUuid = spec.instanceUuid ?? newUuid();
    this.biosUuid = spec.biosUuid ?? newUuid();
    const called = spec.name.replaceAll("/", "_");
    const directories = new Map<string, string>();
    this.#newDisk = (disk) => {
      const { controller: name = "pvscsi", bus } = disk;
      const slot = freeSlot(this.#disks.values(), { name, bus });
      if (slot === undefined) throw new RangeError(`'${spec.name}' has no free slot on ${name} ${bus ?? ""}`);
      const datastore = place.datastore(disk.datastore);
      // On vSAN the folder of a machine is an object, and called by its UUID.
      const directory = directories.get(datastore.name) ?? (datastore.type === "vsan" ? newUuid() : called);
      directories.set(datastore.name, directory);
      const bases = [...this.#disks.values()].map((each) => each.baseName);
      const baseName = (index: number): string =>
        `[${datastore.name}] ${directory}/${index === 0 ? called : `${called}_${index}`}`;
      let index = 0;
      while (bases.includes(baseName(index))) index++;
      return new VirtualDisk(
        disk,
        { slot, folder: place.folder, datastore, baseName: baseName(index) },
        rules,
        newUuid,
      );
    };
    for (const disk of spec.disks) this.#hang(disk);
    if (spec.tracking === true) {
      this.setTracking(true);
      for (const disk of this.disks.values()) disk.stun();
    }
  }

  /** The disks by device key. */
  get disks(): ReadonlyMap<number, VirtualDisk> {
    return this.#disks;
  }

  /** Hangs one more disk on the first free slot; a machine that tracks changes tracks it from the next stun on. */
  addDisk(spec: DiskSpec): number {
    const disk = this.#hang(spec);
    disk.wanted = this.trackingEnabled && disk.trackable && spec.tracked !== false;
    return disk.key;
  }

  /** Takes a disk away; its files stay for the snapshots that froze it. */
  removeDisk(key: number): void {
    this.#disk(key);
    this.#disks.delete(key);
  }

  #hang(spec: DiskSpec): VirtualDisk {
    const disk = this.#newDisk(spec);
    this.#disks.set(disk.key, disk);
    return disk;
  }

  /** Whether the machine's hardware can track changes (KB 320557: version 7 or newer). */
  get trackingSupported(): boolean {
    return this.hardware >= 7;
  }

  /** Whether a delta is left that no snapshot owns. */
  get consolidationNeeded(): boolean {
    return this.#orphans().length > 0;
  }

  /** Every snapshot, parents first. */
  *snapshots(from: readonly Snapshot[] = this.roots): Generator<Snapshot> {
    for (const snapshot of from) {
      yield snapshot;
      yield* this.snapshots(snapshot.children);
    }
  }

  /** Sets the machine's flag and that of every disk that can be tracked; it takes effect at the next stun. */
  setTracking(enabled: boolean): void {
    if (enabled && !this.trackingSupported) {
      throw new VimFault("NotSupported", `Change tracking needs virtual hardware 7; '${this.name}' is older`);
    }
    this.trackingEnabled = enabled;
    for (const disk of this.disks.values()) disk.wanted = enabled && disk.trackable && disk.spec.tracked !== false;
  }

  /** What a stun does to every disk. */
  stun(): void {
    for (const disk of this.disks.values()) disk.stun();
  }

  /** Makes a snapshot of every persistent disk at one instant. */
  snapshot(wish: SnapshotWish, id: string): Snapshot {
    const quiesced = wish.quiesce && this.#freezeGuest();
    const disks = new Map<number, DiskState>();
    const others: DiskState[] = [];
    for (const disk of this.disks.values()) {
      if (disk.snapshotted) disks.set(disk.key, disk.freeze());
      else others.push(disk.passBy());
    }
    const parent = this.currentSnapshot;
    const snapshot: Snapshot = {
      id,
      name: wish.name,
      description: wish.description,
      created: new Date(),
      quiesced,
      power: this.power,
      number: ++this.#snapshotCount,
      parent,
      children: [],
      disks,
      others,
    };
    (parent?.children ?? this.roots).push(snapshot);
    this.currentSnapshot = snapshot;
    return snapshot;
  }

  /** Removes a snapshot, merging what was written after it into what it froze. */
  removeSnapshot(snapshot: Snapshot, options: { removeChildren: boolean; consolidate: boolean }): void {
    const children = [...snapshot.children];
    if (options.removeChildren) {
      for (const child of children) this.removeSnapshot(child, options);
      snapshot.children.length = 0;
    }
    const siblings = snapshot.parent?.children ?? this.roots;
    siblings.splice(siblings.indexOf(snapshot), 1, ...snapshot.children);
    for (const child of snapshot.children) child.parent = snapshot.parent;
    if (this.currentSnapshot === snapshot) this.currentSnapshot = snapshot.parent;
    snapshot.children.length = 0;
    if (options.consolidate && !this.consolidationFails) this.consolidate();
    this.stun();
  }

  /** Merges every delta that no snapshot owns. */
  consolidate(): void {
    if (this.consolidationFails) {
      throw new VimFault("FileLocked", `Unable to access a file of '${this.name}' since it is locked`, {
        file: this.name,
      });
    }
    // Every round takes one layer away, so that there are never more rounds than layers.
    let rounds = 0;
    for (const disk of this.disks.values()) rounds += this.#layers(disk).length;
    for (; rounds > 0; rounds--) {
      const [disk, layer] = this.#orphans()[0] ?? [];
      if (disk === undefined || layer === undefined) return;
      const child = this.#layers(disk).find((each) => each.parent === layer);
      if (child === undefined) return;
      // What stood on the child stands on the merged layer now.
      for (const each of this.#layers(disk)) if (each.parent === child) each.parent = layer;
      disk.merge(layer, child);
      for (const snapshot of this.snapshots()) {
        const state = snapshot.disks.get(disk.key);
        if (state?.layer === child) state.layer = layer;
      }
    }
  }

  /** Throws away what was written since the snapshot; trackers begin anew. */
  revert(snapshot: Snapshot): void {
    for (const [key, state] of snapshot.disks) {
      const disk = this.disks.get(key);
      if (disk === undefined) continue;
      disk.current.discard();
      disk.branchFrom(state.layer);
      disk.reset();
    }
    this.currentSnapshot = snapshot;
    if (snapshot.power === "poweredOff") {
      this.power = "poweredOff";
      this.cleanPowerOff = false;
    }
  }

  /** Powers on: a stun, which starts wanted tracking. */
  powerOn(): void {
    this.#demandPower("poweredOff", "suspended");
    if (this.template) throw new VimFault("NotSupported", `'${this.name}' is a template`);
    this.power = "poweredOn";
    this.cleanPowerOff = undefined;
    this.stun();
  }

  /** Cuts the power: an unclean close resets the trackers (KB 432633). */
  powerOff(): void {
    this.#demandPower("poweredOn", "suspended");
    this.power = "poweredOff";
    this.cleanPowerOff = false;
    for (const disk of this.disks.values()) if (disk.tracker !== undefined) disk.reset();
  }

  /** Suspends: a stun. */
  suspend(): void {
    this.#demandPower("poweredOn");
    this.power = "suspended";
    this.stun();
  }

  /** A clean shutdown by the guest; trackers go on. */
  shutDown(): void {
    this.power = "poweredOff";
    this.cleanPowerOff = true;
  }

  /** Checks what ShutdownGuest needs. */
  demandTools(): void {
    this.#demandPower("poweredOn");
    if (this.tools !== "running") {
      throw new VimFault(
        "ToolsUnavailable",
        "Cannot complete operation because VMware Tools is not running in this virtual machine.",
      );
    }
  }

  /** Grows a disk, which only a machine without snapshots allows. */
  grow(key: number, size: number): void {
    if (this.currentSnapshot !== undefined || this.consolidationNeeded) throw invalidArgument("spec.deviceChange");
    this.#disk(key).grow(size);
  }

  /** Releases the files. */
  discard(): void {
    for (const disk of this.disks.values()) for (const layer of this.#layers(disk)) layer.discard();
  }

  #disk(key: number): VirtualDisk {
    const disk = this.disks.get(key);
    if (disk === undefined) throw invalidArgument("deviceKey");
    return disk;
  }

  #demandPower(...allowed: PowerState[]): void {
    if (this.question !== undefined) {
      throw new VimFault("InvalidState", `'${this.name}' waits for an answer to a question`);
    }
    if (allowed.includes(this.power)) return;
    throw new VimFault(
      "InvalidPowerState",
      `The attempted operation cannot be performed in the current state (${this.power}).`,
      { requestedState: allowed[0] ?? "poweredOn", existingState: this.power },
    );
  }

  /** Whether the guest was quiesced. */
  #freezeGuest(): boolean {
    const able = this.power === "poweredOn" && this.tools === "running";
    const outcome = this.quiesce ?? (able ? "quiesced" : "ignored");
    const reason = `An error occurred while quiescing the virtual machine '${this.name}'.`;
    if (outcome === "application-fault") throw new VimFault("ApplicationQuiesceFault", reason);
    if (outcome === "filesystem-fault") throw new VimFault("FilesystemQuiesceFault", reason);
    if (outcome === "ignored") return false;
    this.onFreeze?.();
    return true;
  }

  /** Frozen layers that no snapshot owns and that have exactly one delta on them. */
  #orphans(): [VirtualDisk, DiskLayer][] {
    const found: [VirtualDisk, DiskLayer][] = [];
    const snapshots = [...this.snapshots()];
    for (const disk of this.disks.values()) {
      const layers = this.#layers(disk);
      for (const layer of layers) {
        if (layer === disk.current) continue;
        if (snapshots.some((each) => each.disks.get(disk.key)?.layer === layer)) continue;
        if (layers.filter((each) => each.parent === layer).length === 1) found.push([disk, layer]);
      }
    }
    return found;
  }

  /** Every layer of the disk, branches included. */
  #layers(disk: VirtualDisk): DiskLayer[] {
    const found = new Set<DiskLayer>();
    const tops = [disk.current, ...[...this.snapshots()].map((each) => each.disks.get(disk.key)?.layer)];
    for (let layer of tops) {
      for (; layer !== undefined; layer = layer.parent) found.add(layer);
    }
    return [...found];
  }
}
