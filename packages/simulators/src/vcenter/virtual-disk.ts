import { join } from "node:path";
import { DiskLayer, grainSize } from "./disk-layer.ts";
import type { Area } from "./disk-layer.ts";
import type { ControllerName, DiskControllerPlace, DiskSlot } from "./disk-slot.ts";
import { invalidArgument, VimFault } from "./vim-fault.ts";

/** How a disk of a simulated machine is made. */
export interface DiskSpec {
  /** Bytes, a multiple of 512. */
  readonly size: number;
  /** A thin disk, the default; only one on VMFS answers `*` with what is allocated. */
  readonly thin?: boolean;
  /** Of a thick disk: zeroed when it was made, not when it is first written. */
  readonly eager?: boolean;
  /** What it hangs on; `pvscsi` unless given. */
  readonly controller?: ControllerName;
  /** The number of the controller; the first with room unless given. */
  readonly bus?: number;
  /** The name of its datastore; the machine's datacenter's first unless given. */
  readonly datastore?: string;
  /** `persistent` unless given; the independent modes have neither snapshots nor change tracking. */
  readonly mode?: DiskMode;
  /** `flat` unless given; a physical mapping has neither snapshots nor change tracking. */
  readonly backing?: "flat" | "rdm-virtual" | "rdm-physical";
  /** Shared by several machines, which excludes change tracking. */
  readonly shared?: boolean;
  /** Encrypted by a key of a key server. */
  readonly encrypted?: boolean;
  /** `false` leaves this disk out when the machine's tracking is enabled (its own `ctkEnabled` flag). */
  readonly tracked?: boolean;
}

/** The tracker's point in time that a snapshot recorded for one disk. */
export interface ChangeId {
  readonly epoch: string;
  readonly sequence: number;
}

/** Whether snapshots take a disk along. */
export type DiskMode = "persistent" | "independent_persistent" | "independent_nonpersistent";

/** What a disk was when a snapshot was made. */
export interface DiskState {
  readonly disk: VirtualDisk;
  layer: DiskLayer;
  readonly capacity: number;
  readonly mode: DiskMode;
  readonly changeId: ChangeId | undefined;
}

/** Bugs of old releases that can be switched on. */
export type TrackingBug =
  /** KB 2136854, ESXi 6.0: marks of changes are lost while a snapshot is consolidated. */
  | "changes-lost-in-consolidation"
  /** KB 2090639, ESXi 4 and 5: after a disk grew, the areas reported are wrong. */
  | "wrong-areas-after-growth";

/** How change tracking answers, for every disk of a simulator. */
export interface TrackingRules {
  /** Areas in one answer; 2000 is what vCenter gives. */
  readonly areaLimit: number;
  /** Bytes that one answer covers; undefined: a quarter of the disk, at most 512 GiB. */
  readonly spanLimit: number | undefined;
  /** Bytes of a tracked block; undefined: by the disk's size. */
  readonly granularity: number | undefined;
  /** Whether new machines of this release track finer blocks. */
  readonly fine: boolean;
  /** Share of unchanged blocks reported as changed as well, 0 to 1. */
  readonly overReport: number;
  /** What `*` does where it is not valid: one area over everything, or a fault. */
  readonly wildcardElsewhere: "whole-disk" | "fault";
  /** Whether the snapshot whose creation was the stun that began tracking already carries a change id. */
  readonly firstSnapshotIsTracked: boolean;
  readonly bugs: ReadonlySet<TrackingBug>;
}

/** What a datastore is. */
export type DatastoreType = "VMFS" | "NFS" | "vsan";

/** Where a disk hangs, where its files are, and what they are called. */
export interface DiskPlace {
  readonly slot: DiskSlot;
  readonly folder: string;
  readonly datastore: { readonly name: string; readonly type: DatastoreType };
  /** `[datastore1] web/web_1`, without the ending. */
  readonly baseName: string;
}

/** A virtual disk: its chain of layers and its change tracker. */
export class VirtualDisk implements DiskSlot {
  readonly key: number;
  readonly unitNumber: number;
  readonly controller: DiskControllerPlace;
  readonly datastore: DiskPlace["datastore"];
  readonly baseName: string;
  readonly uuid: string;
  readonly spec: DiskSpec;
  /** `diskMode`, which can be edited while the machine is off. */
  mode: DiskMode;
  /** Where the guest writes. */
  current: DiskLayer;
  /** The machine's flag or the disk's own asks for tracking; it begins at the next stun without snapshots. */
  wanted = false;
  /** The running tracker; undefined: the disk is not tracked. */
  tracker: { epoch: string; sequence: number; wildcardValid: boolean } | undefined;
  readonly #folder: string;
  readonly #rules: TrackingRules;
  readonly #newUuid: () => string;
  #deltas = 0;
  #grew = false;

  constructor(spec: DiskSpec, place: DiskPlace, rules: TrackingRules, newUuid: () => string) {
    if (!Number.isSafeInteger(spec.size) || spec.size <= 0 || spec.size % 512 !== 0) {
      throw new RangeError(`a disk of ${spec.size} bytes: the size is a positive multiple of 512`);
    }
    this.spec = spec;
    this.mode = spec.mode ?? "persistent";
    this.key = place.slot.key;
    this.unitNumber = place.slot.unitNumber;
    this.controller = place.slot.controller;
    this.datastore = place.datastore;
    this.uuid = newUuid();
    this.#folder = place.folder;
    this.baseName = place.baseName;
    this.#rules = rules;
    this.#newUuid = newUuid;
    this.current = new DiskLayer(`${place.baseName}.vmdk`, this.#pathOf("flat"), spec.size);
  }

  /** Bytes. */
  get capacity(): number {
    return this.current.capacity;
  }

  /** Whether a snapshot takes this disk along. */
  get snapshotted(): boolean {
    return this.mode === "persistent" && this.spec.backing !== "rdm-physical";
  }

  /** Whether the platform can track this disk (KB 320557). */
  get trackable(): boolean {
    return this.snapshotted && this.spec.shared !== true;
  }

  /** The sequence that the guest's writes get now; 0 without a tracker. */
  get sequence(): number {
    return this.tracker?.sequence ?? 0;
  }

  /** Bytes of a block in which changes are reported. */
  get granularity(): number {
    if (this.#rules.granularity !== undefined) return this.#rules.granularity;
    const unit = (this.#rules.fine ? 256 : 128) * 2 ** 30;
    return grainSize * Math.min(1024, 2 ** Math.ceil(Math.log2(Math.max(1, this.capacity / unit))));
  }

  /** A stun: tracking that was asked for begins, tracking no longer wanted ends. Both need a disk without deltas. */
  stun(): void {
    if (!this.wanted) {
      this.tracker = undefined;
    } else if (this.tracker === undefined && this.trackable && this.current.parent === undefined) {
      this.reset();
    }
  }

  /** Begins a new epoch: every change id from before is refused. */
  reset(): void {
    if (!this.wanted || !this.trackable) return;
    this.current.forgetSequences();
    this.tracker = { epoch: this.#newUuid(), sequence: 1, wildcardValid: this.current.parent === undefined };
  }

  /** How a snapshot's configuration tells a disk that it does not hold: where the guest goes on writing. */
  passBy(): DiskState {
    return { disk: this, layer: this.current, capacity: this.capacity, mode: this.mode, changeId: undefined };
  }

  /** Freezes the current layer for a snapshot and lets the guest write to a new one. */
  freeze(): DiskState {
    const layer = this.current;
    let changeId: ChangeId | undefined;
    const before = this.tracker;
    this.stun();
    if (this.tracker !== undefined) {
      this.tracker.sequence++;
      if (before !== undefined || this.#rules.firstSnapshotIsTracked) {
        changeId = { epoch: this.tracker.epoch, sequence: this.tracker.sequence };
      }
    }
    this.branchFrom(layer);
    return { disk: this, layer, capacity: layer.capacity, mode: this.mode, changeId };
  }

  /** Continues on a new, empty delta over `layer`. */
  branchFrom(layer: DiskLayer): void {
    const number = String(++this.#deltas).padStart(6, "0");
    this.current = new DiskLayer(`${this.baseName}-${number}.vmdk`, this.#pathOf(number), layer.capacity, layer);
  }

  /** Merges the delta `child` into its parent `layer`, which keeps its file. */
  merge(layer: DiskLayer, child: DiskLayer): void {
    const loses = this.#rules.bugs.has("changes-lost-in-consolidation");
    layer.absorb(child, (grain) => !loses || grain % 2 === 0);
    if (this.current === child) this.current = layer;
  }

  /** Grows the disk; tracking starts anew, except with the bug of KB 2090639. */
  grow(size: number): void {
    if (size <= this.capacity || size % 512 !== 0) throw invalidArgument("capacityInKB");
    this.current.capacity = size;
    this.#grew = true;
    if (!this.#rules.bugs.has("wrong-areas-after-growth") && this.tracker !== undefined) this.reset();
  }

  /**
   * QueryChangedDiskAreas over one layer of this disk.
   *
   * @throws VimFault FileFault where the tracker cannot answer, InvalidArgument for an offset outside the disk
   */
  changedAreas(
    state: { layer: DiskLayer; capacity: number; changeId: ChangeId | undefined },
    startOffset: number,
    since: string,
  ): { startOffset: number; length: number; areas: Area[] } {
    if (!Number.isSafeInteger(startOffset) || startOffset < 0 || startOffset >= state.capacity) {
      throw invalidArgument("startOffset");
    }
    const { tracker } = this;
    const file = state.layer.fileName;
    const at = state.changeId;
    if (tracker === undefined || at === undefined || at.epoch !== tracker.epoch) throw fileFault(file);
    const span = this.#rules.spanLimit ?? Math.min(Math.max(Math.ceil(state.capacity / 4), 1 << 20), 512 * 2 ** 30);
    const end = Math.min(state.capacity, startOffset + span);
    const range = { start: startOffset, end, limit: this.#rules.areaLimit, granularity: this.granularity };
    if (since === "*") {
      if (
        // Only there does `*` list what is allocated (VDDK guide, "About CBT").
        this.datastore.type !== "VMFS" ||
        !tracker.wildcardValid ||
        this.spec.thin === false ||
        this.spec.backing === "rdm-virtual"
      ) {
        if (this.#rules.wildcardElsewhere === "fault") throw fileFault(file);
        const length = state.capacity - startOffset;
        return { startOffset, length, areas: [{ start: startOffset, length }] };
      }
      const { areas, covered } = state.layer.areas({ allocated: true }, range);
      return { startOffset, length: covered - startOffset, areas };
    }
    const id = parseChangeId(since);
    if (id === undefined) throw invalidArgument("changeId");
    if (id.epoch !== tracker.epoch || id.sequence > at.sequence) throw fileFault(file);
    const also = (block: number): boolean => this.#rules.overReport > 0 && noise(block) < this.#rules.overReport;
    const { areas, covered } = state.layer.areas({ since: id.sequence }, range, also);
    const wrong = this.#grew && this.#rules.bugs.has("wrong-areas-after-growth");
    return { startOffset, length: covered - startOffset, areas: wrong ? areas.slice(0, -1) : areas };
  }

  #pathOf(name: string): string {
    return join(this.#folder, `disk-${this.key}-${name}.bin`);
  }
}

/** A change id as the platform writes it: `52 de c0 d9 2c 0b 7f 1a-8d 15 2f 6e 42 11 90 ab/81`. */
export function formatChangeId(id: ChangeId): string {
  return `${spacedUuid(id.epoch)}/${id.sequence}`;
}

/** A UUID as 16 bytes in hexadecimal with spaces and one dash, as the platform writes it in change ids. */
function spacedUuid(uuid: string): string {
  const bytes = uuid.replaceAll("-", "").match(/../g) ?? [];
  return `${bytes.slice(0, 8).join(" ")}-${bytes.slice(8).join(" ")}`;
}

function parseChangeId(text: string): ChangeId | undefined {
  const match = /^((?:[0-9a-f]{2} ?){8}-(?:[0-9a-f]{2} ?){8})\/(\d+)$/i.exec(text);
  if (match === null) return undefined;
  const hex = (match[1] ?? "").replace(/[ -]/g, "").toLowerCase();
  const epoch = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  return { epoch, sequence: Number(match[2]) };
}

/** What vCenter answers whenever the tracker has no answer, whatever the reason. */
function fileFault(file: string): VimFault {
  return new VimFault("FileFault", `Error caused by file ${file}`, { file });
}

/** A number in [0, 1) that depends on the block alone. */
function noise(block: number): number {
  let mixed = Math.imul(block ^ (block >>> 15), 0x2c1b3c6d);
  mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
  return ((mixed ^ (mixed >>> 15)) >>> 0) / 4294967296;
}
