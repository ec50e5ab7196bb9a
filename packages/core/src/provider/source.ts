import type { BlockReader } from "./reader.ts";
import type { ChangeTracker } from "./tracker.ts";
import type { JsonObject } from "./extents.ts";
import type { Preflight, PreflightRequest } from "./preflight.ts";
import type { Wait } from "./wait.ts";

/**
 * How good a point in time is, from worst to best. `none`: nothing is promised, the disk changed while it was read.
 * `disk`: each disk is one point in time, the disks among themselves are not. `crash`: as after a power cut, all disks
 * at once. `filesystem`: file systems were frozen. `application`: applications flushed too (VSS, pre and post scripts).
 */
export type Consistency = "none" | "disk" | "crash" | "filesystem" | "application";

/** One disk of a machine. Plain JSON. */
export interface Disk {
  /** Stable across runs, unique within the machine: a device key, a volume id; never an order or a path that moves. */
  key: string;
  /** Bytes, a multiple of 512. */
  size: number;
  /** For people: a label or device name. */
  name?: string;
  /** Whether the machine boots from it. */
  boot?: boolean;
  /** The controller it hangs on; absent: unknown. */
  controller?: "ide" | "sata" | "scsi" | "nvme" | "virtio";
  /** Why this disk cannot be copied, when it cannot (independent, shared, encrypted by a key we lack …). */
  ineligible?: string;
  /** What the provider needs to find it again. Opaque to core. */
  data?: JsonObject;
}

/** A network card of a machine. */
export interface NetworkCard {
  mac?: string;
  network?: string;
  addresses?: string[];
}

/** What a launch elsewhere needs to know of a machine. Absent members are unknown. Plain JSON. */
export interface MachineSpec {
  name?: string;
  cpus?: number;
  memoryBytes?: number;
  architecture?: "x86_64" | "arm64";
  firmware?: "bios" | "uefi";
  secureBoot?: boolean;
  /** Whether the machine has a trusted platform module, whose content is never copied. */
  tpm?: boolean;
  /** The guest's operating system, as the platform names it. */
  guest?: string;
  guestFamily?: "linux" | "windows" | "other";
  /** State of the platform's agent inside the guest, as the platform names it. */
  guestTools?: string;
  /** Tags or labels. */
  labels?: { [name: string]: string };
  networkCards?: NetworkCard[];
}

/** A server and its disks, or a disk without a server shown as a machine of one disk. Plain JSON. */
export interface Machine {
  /** Stable and unique within the place; together with a disk's key it identifies the disk across runs. */
  id: string;
  name: string;
  disks: Disk[];
  power?: PowerState;
  spec?: MachineSpec;
  data?: JsonObject;
}

export type PowerState = "on" | "off" | "suspended";

/** One disk as it was at one point in time. Plain JSON; survives a restart. */
export interface DiskSnapshot {
  /** Identifies this point in time of this disk: a different content never has the same id. */
  id: string;
  machine: string;
  disk: string;
  /** Bytes. */
  size: number;
  data?: JsonObject;
}

/** All chosen disks of a machine at one point in time. Plain JSON; survives a restart. */
export interface Snapshot {
  id: string;
  /** The key it was asked for with. */
  key: string;
  machine: string;
  /** What was really achieved, not what was asked for. */
  consistency: Consistency;
  /** When the point in time was fixed, ISO 8601. */
  takenAt: string;
  disks: DiskSnapshot[];
  data?: JsonObject;
}

export interface SnapshotRequest extends Wait {
  /** Idempotence: the same key gives the same snapshot again, also after a restart. */
  key: string;
  /** Keys of the disks; absent: all eligible ones. */
  disks?: readonly string[] | undefined;
  /** The least consistency wanted. The snapshot tells what was achieved; the caller judges. */
  consistency?: Consistency | undefined;
  /** The job it belongs to, for tags and clean-up. */
  job?: string | undefined;
}

/** A thing on a platform that a job made: for clean-up and for people. Plain JSON. */
export interface OwnedResource {
  kind: string;
  id: string;
  description: string;
  /** Pass it to `release` (source) or `remove` (target). */
  snapshot?: Snapshot;
}

/** How busy the host of a machine is, in percent; absent members: not told. Plain JSON. */
export interface SourceLoad {
  /** The host's name, for people. */
  host: string;
  cpuPercent?: number;
  memoryPercent?: number;
}

/** The place disks are copied from. */
export interface SourceConnector {
  /** Every machine of the place, streamed. */
  machines(wait?: Wait): AsyncIterable<Machine>;
  /** One machine by id, name or path. @throws ProviderError NOT_FOUND, naming near names where there are any. */
  machine(id: string, wait?: Wait): Promise<Machine>;
  /** One point in time over the chosen disks; idempotent by key. */
  snapshot(machine: Machine, request: SnapshotRequest): Promise<Snapshot>;
  /** Points in time that exist already and may be copied from. */
  snapshots?(machine: Machine, wait?: Wait): AsyncIterable<Snapshot>;
  /**
   * Opens one disk of a snapshot. @throws ProviderError NOT_FOUND when the snapshot is gone, or is none of this place: an
   * interrupted run gives way to a new one then. Anything else may pass, and the run is kept.
   */
  open(disk: DiskSnapshot, wait?: Wait): Promise<BlockReader>;
  /** Gives up a snapshot that `snapshot` made; idempotent; one that we did not make is left alone. */
  release(snapshot: Snapshot, wait?: Wait): Promise<void>;
  /** What the job made on this place and has not released. */
  owned(job: string, wait?: Wait): AsyncIterable<OwnedResource>;
  /** Absent: every run reads the whole disk. */
  readonly tracker?: ChangeTracker;
  /**
   * Says before a run what it would take and what stands in the way: calls, money, privileges, versions, free space.
   * `machine` absent: about the place alone. Changes nothing. Absent: nothing is known beforehand.
   */
  preflight?(machine: Machine | undefined, request: PreflightRequest): Promise<Preflight>;
  /**
   * How busy the host of a machine is now. Core asks now and then while a run copies, so that the run's effect can be seen; no
   * answer and no error of it stops a run. Undefined, or absent: not known.
   */
  load?(machine: Machine, wait?: Wait): Promise<SourceLoad | undefined>;
  /** Absent: a cutover needs `quiesce`, or an operator who stops the machine. */
  readonly power?: {
    state(machine: Machine, wait?: Wait): Promise<PowerState>;
    /** Asks the guest to shut down and resolves when it is off. Never escalates to power-off. */
    shutdown(machine: Machine, wait?: Wait): Promise<void>;
    powerOff(machine: Machine, wait?: Wait): Promise<void>;
    powerOn(machine: Machine, wait?: Wait): Promise<void>;
  };
  /** Stops writes while the disks stay readable; disposing lets them go on. */
  quiesce?(machine: Machine, wait?: Wait): Promise<AsyncDisposable>;
  /** Closes connections. Releases nothing. */
  [Symbol.asyncDispose](): Promise<void>;
}
