import type { Consistency, Disk, Machine, MachineSpec, PowerState, Snapshot } from "../provider/source.ts";
import { ExtentSet } from "./extent-set.ts";
import { memoryError } from "./memory-gate.ts";
import { SparseBytes } from "./sparse-bytes.ts";

/** A machine to put into a memory place. */
export interface MemoryMachine {
  id: string;
  /** Default: the id. */
  name?: string;
  disks: Disk[];
  /** Default `on`. */
  power?: PowerState;
  spec?: MachineSpec;
}

/** How a tracker stops being trustworthy. The first three are honest: the contract foresees them. */
export type TrackingFault =
  /** The tracker's identity changes: every earlier checkpoint is TRACKING_LOST. */
  | "lost"
  /** TRACKING_LOST in the middle of a listing, after `tiles` tiles. */
  | "lost-midway"
  /** `checkpoint` answers undefined. */
  | "no-checkpoint"
  /** The listing ends after `tiles` tiles as if that were all. */
  | "truncated"
  /** One tile is left out, after `tiles` tiles. */
  | "gap"
  /** A tile begins before the one before it ended, after `tiles` tiles. */
  | "overlap"
  /** A tile comes after its successor, after `tiles` tiles. */
  | "disorder"
  /** A tile without length, after `tiles` tiles. */
  | "empty"
  /** Changed ranges are called unchanged, after `tiles` tiles. */
  | "lie";

/** A disk's tracking: what changed in which generation. A generation ends with each snapshot. */
export interface Tracking {
  /** A checkpoint of another identity is worth nothing. */
  identity: number;
  enabled: boolean;
  generation: number;
  /** By generation, in order; the last entry is the one being written. */
  history: { generation: number; changed: ExtentSet }[];
  fault?: { kind: TrackingFault; tiles: number };
}

/** A disk that a guest writes. */
export interface GuestDisk {
  disk: Disk;
  content: SparseBytes;
  tracking: Tracking;
}

/** What a snapshot keeps of one disk. */
export interface DiskPoint {
  machine: string;
  disk: string;
  content: SparseBytes;
  identity: number;
  generation: number;
  enabled: boolean;
}

/** A point in time, kept until it is released. */
export interface TakenSnapshot {
  snapshot: Snapshot;
  /** False: somebody else made it, and it is not ours to release. */
  ours: boolean;
  job: string | undefined;
  points: Map<string, DiskPoint>;
}

interface Guest {
  machine: MemoryMachine & { name: string; power: PowerState };
  disks: Map<string, GuestDisk>;
  quiesced: number;
}

/** The machines of a memory place with their disks and snapshots: what would be the platform behind a source. */
export class MemoryGuests {
  readonly #guests: Map<string, Guest> = new Map();
  readonly #taken: Map<string, TakenSnapshot> = new Map();
  #counter = 0;

  add(machine: MemoryMachine, trackingEnabled: boolean): void {
    if (this.#guests.has(machine.id)) throw new TypeError(`machine ${machine.id} exists already`);
    const disks = new Map<string, GuestDisk>();
    for (const disk of machine.disks) {
      if (disks.has(disk.key)) throw new TypeError(`machine ${machine.id} has two disks ${disk.key}`);
      if (disk.size <= 0 || disk.size % 512 !== 0)
        throw new RangeError(`disk ${disk.key}: ${disk.size} is no multiple of 512`);
      const content = new SparseBytes(disk.size);
      disks.set(disk.key, { disk: structuredClone(disk), content, tracking: this.#freshTracking(trackingEnabled) });
    }
    const { id, name = id, power = "on" } = machine;
    this.#guests.set(id, { machine: { ...structuredClone(machine), name, power }, disks, quiesced: 0 });
  }

  /** The handles of every machine. */
  machines(): Machine[] {
    return [...this.#guests.values()].map(describe);
  }

  /** @throws ProviderError NOT_FOUND, naming the machines there are. */
  guest(id: string, operation: string): Guest {
    const found = this.#guests.get(id) ?? [...this.#guests.values()].find(({ machine }) => machine.name === id);
    if (found !== undefined) return found;
    const known = [...this.#guests.keys()].slice(0, 8).join(", ");
    throw memoryError(
      "NOT_FOUND",
      operation,
      `machine ${id} was not found here: ${known === "" ? "there is none" : `known are ${known}`}`,
    );
  }

  machine(id: string): Machine {
    return describe(this.guest(id, "machine"));
  }

  /** @throws ProviderError NOT_FOUND */
  disk(machine: string, key: string, operation: string): GuestDisk {
    const found = this.guest(machine, operation).disks.get(key);
    if (found === undefined)
      throw memoryError("NOT_FOUND", operation, `machine ${machine} has no disk ${key}: list its disks`);
    return found;
  }

  /** A disk that the guest may write now; a machine that is off or quiesced writes nothing. */
  writable(machine: string, key: string): GuestDisk {
    const {
      machine: { power },
      quiesced,
    } = this.guest(machine, "guest write");
    if (power !== "on") throw new TypeError(`machine ${machine} is ${power}: its guest cannot write`);
    if (quiesced > 0) throw new TypeError(`machine ${machine} is quiesced: its guest cannot write`);
    return this.disk(machine, key, "guest write");
  }

  resize(machine: string, key: string, size: number): void {
    const { disk, content, tracking } = this.disk(machine, key, "resize");
    if (size <= 0 || size % 512 !== 0) throw new RangeError(`disk ${key}: ${size} is no multiple of 512`);
    if (size > disk.size) markChanged(tracking, disk.size, size - disk.size);
    content.resize(size);
    disk.size = size;
  }

  /** Takes every disk back to a snapshot; tracking begins anew, as no listing can tell what that changed. */
  revert(id: string): void {
    const taken = this.#taken.get(id);
    if (taken === undefined) throw new TypeError(`snapshot ${id} is gone`);
    for (const [key, point] of taken.points) {
      const guest = this.disk(taken.snapshot.machine, key, "revert");
      guest.content = point.content.fork();
      guest.disk.size = point.content.size;
      guest.tracking = this.#freshTracking(guest.tracking.enabled);
    }
  }

  /** Begins tracking anew: earlier checkpoints are lost. */
  resetTracking(guest: GuestDisk, enabled: boolean): void {
    guest.tracking = this.#freshTracking(enabled);
  }

  /** Fixes one point in time over all the disks at once. */
  take(
    machine: string,
    key: string,
    disks: readonly string[],
    consistency: Consistency,
    ours: boolean,
    job: string | undefined,
  ): Snapshot {
    const id = `snapshot-${++this.#counter}`;
    const points = new Map<string, DiskPoint>();
    const snapshot: Snapshot = { id, key, machine, consistency, takenAt: new Date().toISOString(), disks: [] };
    for (const disk of disks) {
      const { content, tracking } = this.disk(machine, disk, "snapshot");
      const { identity, generation, enabled } = tracking;
      points.set(disk, { machine, disk, content: content.fork(), identity, generation, enabled });
      tracking.generation++;
      tracking.history.push({ generation: tracking.generation, changed: new ExtentSet() });
      snapshot.disks.push({ id: `${id}/${disk}`, machine, disk, size: content.size });
    }
    this.#taken.set(id, { snapshot, ours, job, points });
    return structuredClone(snapshot);
  }

  taken(): Iterable<TakenSnapshot> {
    return this.#taken.values();
  }

  takenById(id: string): TakenSnapshot | undefined {
    return this.#taken.get(id);
  }

  forget(id: string): void {
    this.#taken.delete(id);
  }

  /** What a disk snapshot stands for. @throws ProviderError NOT_FOUND when its snapshot is gone. */
  point(diskSnapshotId: string, operation: string): DiskPoint {
    const [id = "", ...rest] = diskSnapshotId.split("/");
    const point = this.#taken.get(id)?.points.get(rest.join("/"));
    if (point === undefined) {
      throw memoryError("NOT_FOUND", operation, `disk snapshot ${diskSnapshotId} is gone: take a new snapshot`);
    }
    return point;
  }

  #freshTracking(enabled: boolean): Tracking {
    return {
      identity: ++this.#counter,
      enabled,
      generation: 1,
      history: [{ generation: 1, changed: new ExtentSet() }],
    };
  }
}

/** Notes that a range changed in the generation being written. */
export function markChanged(tracking: Tracking, offset: number, length: number): void {
  if (tracking.enabled) tracking.history.at(-1)?.changed.add(offset, length);
}

function describe({ machine, disks }: Guest): Machine {
  return structuredClone({ ...machine, disks: [...disks.values()].map(({ disk }) => disk) });
}
