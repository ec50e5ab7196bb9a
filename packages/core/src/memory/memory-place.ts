import type { ProviderDefinition } from "../provider/definition.ts";
import type { PowerState, Snapshot, SourceConnector } from "../provider/source.ts";
import type { TargetProvider } from "../provider/target.ts";
import { MemoryGate, memoryError, type MemoryHook, type MemoryTraffic } from "./memory-gate.ts";
import { markChanged, MemoryGuests, type MemoryMachine, type TrackingFault } from "./memory-guest.ts";
import { type MemorySourceOptions, openMemorySource } from "./memory-source.ts";
import { type MemoryTargetOptions, openMemoryTarget } from "./memory-target.ts";
import { MemoryVolumes } from "./memory-volumes.ts";
import { SparseBytes } from "./sparse-bytes.ts";

/** Shapes a memory place, so that a test meets every form a platform may take. */
export interface MemoryPlaceOptions {
  /** What a configuration or a URI `memory:NAME` must call it. Default `place`. */
  name?: string | undefined;
  source?: MemorySourceOptions | undefined;
  target?: MemoryTargetOptions | undefined;
  fault?: MemoryHook | undefined;
}

/** The configuration of the `memory` provider. */
export interface MemoryConfig {
  /** The place's name; absent: whichever place the provider belongs to. */
  place?: string;
}

/** Which disk a tracking fault strikes, and when. */
export interface TrackingFaultScope {
  /** Default: every machine. */
  machine?: string;
  /** Default: every disk. */
  disk?: string;
  /** How many tiles come out right before it shows, for the faults that spoil a listing. Default 0. */
  tiles?: number;
}

/** How a memory target fails. */
export interface CrashOptions {
  /** Decides which part of what was not flushed survives. Default 1. */
  seed?: number;
  /**
   * `dead`: openings from before reject everything with UNAVAILABLE and runs are opened again. `reconnect`: writers go
   * on, but their next flush rejects. Default `dead`.
   */
  writers?: "dead" | "reconnect";
}

/** A place that lives in this process: machines with disks that a guest writes, and a target for volumes. */
export interface MemoryPlace {
  /** A connection to the place; opened anew when it was disposed. */
  readonly source: SourceConnector;
  /** A connection to the place; opened anew when it was disposed. */
  readonly target: TargetProvider;
  /** Makes another connection, as after a restart. */
  openSource(): SourceConnector;
  /** Makes another connection, as after a restart. */
  openTarget(): TargetProvider;
  readonly provider: ProviderDefinition<MemoryConfig>;

  /** Called before each operation takes effect. */
  fault: MemoryHook | undefined;
  /** Called after an operation took effect, before its answer is given: throw, and the answer is lost. */
  answer: MemoryHook | undefined;
  traffic(method: string): MemoryTraffic;
  clearTraffic(): void;

  addMachine(machine: MemoryMachine): void;
  /** The guest writes. Throws while the machine is off or quiesced. */
  write(machine: string, disk: string, offset: number, bytes: Uint8Array): void;
  /** The guest gives a range back: it reads as zeroes. Throws while the machine is off or quiesced. */
  trim(machine: string, disk: string, offset: number, length: number): void;
  /** What the disk holds now; default all of it. */
  read(machine: string, disk: string, offset?: number, length?: number): Uint8Array;
  grow(machine: string, disk: string, size: number): void;
  shrink(machine: string, disk: string, size: number): void;
  /** Takes the machine's disks back to a snapshot. */
  revert(snapshot: string): void;
  /** A snapshot that somebody else took: it is listed, and `release` leaves it alone. */
  takeSnapshot(machine: string, name: string): Snapshot;
  /** What a snapshot holds of a disk; default all of it. */
  snapshotBytes(diskSnapshot: string, offset?: number, length?: number): Uint8Array;
  setPower(machine: string, state: PowerState): void;
  breakTracking(fault: TrackingFault, scope?: TrackingFaultScope): void;
  /** Ends every tracking fault but `lost`, which no one can undo. */
  mendTracking(): void;

  /** Puts a disk at the target for `adopt` to find. */
  addDisk(id: string, size: number, bytes?: Uint8Array): void;
  /** What a volume, a version, a half-written run (by generation) or `machine/disk` of a launch holds now. */
  volumeBytes(id: string, offset?: number, length?: number): Uint8Array;
  /** Ids of the volumes and versions at the target. */
  volumeIds(): string[];
  /** Ids of the machines that were launched and not terminated. */
  launchedIds(): string[];
  /** A launched machine writes one of its disks. */
  writeLaunched(machine: string, disk: string, offset: number, bytes: Uint8Array): void;
  /** What a launched machine's disk holds. */
  readLaunched(machine: string, disk: string, offset?: number, length?: number): Uint8Array;
  /** The target loses its power, or its connections: what was not flushed is lost but for a random part. */
  crash(options?: CrashOptions): void;
}

/** The most that a test may look at in one piece, in bytes. */
const mostBytes = 1024 ** 3;

/**
 * Makes a memory place, the reference of the whole contract: change tracking that is exact, multi-disk snapshots,
 * volumes in place or in versions, fencing, durability that a crash can put to the test. Disks are sparse: one of 1 TiB
 * costs what is written to it. Everything lives as long as the place; every handle is plain JSON.
 */
export function memoryPlace(options: MemoryPlaceOptions = {}): MemoryPlace {
  const { name = "place", source: sourceOptions = {}, target: targetOptions = {} } = options;
  const gate = new MemoryGate();
  gate.fault = options.fault;
  const guests = new MemoryGuests();
  const volumes = new MemoryVolumes();
  const openSource = (): SourceConnector => openMemorySource({ gate, guests, options: sourceOptions });
  const openTarget = (): TargetProvider => openMemoryTarget({ gate, volumes, options: targetOptions });
  const source = reopening(openSource);
  const target = reopening(openTarget);
  const tracking = sourceOptions.tracker === false ? undefined : (sourceOptions.tracker ?? {});

  const launchedDisk = (machine: string, disk: string) => {
    const found = volumes.launches.get(machine)?.disks.get(disk);
    if (found === undefined) throw new TypeError(`machine ${machine} with disk ${disk} was not launched here`);
    return found;
  };

  return {
    get source() {
      return source();
    },
    get target() {
      return target();
    },
    openSource,
    openTarget,
    provider: {
      spec: "v1",
      name: "memory",
      schemes: ["memory"],
      config: configSchema(name),
      fromUri: (uri) => ({ place: decodeURIComponent(uri.slice(uri.indexOf(":") + 1)) }),
      source: async (_config, context) => {
        context?.signal?.throwIfAborted();
        return openSource();
      },
      target: async (_config, context) => {
        context?.signal?.throwIfAborted();
        return openTarget();
      },
    },

    get fault() {
      return gate.fault;
    },
    set fault(hook) {
      gate.fault = hook;
    },
    get answer() {
      return gate.answer;
    },
    set answer(hook) {
      gate.answer = hook;
    },
    traffic: (method) => gate.traffic(method),
    clearTraffic: () => gate.clearTraffic(),

    addMachine: (machine) => guests.add(machine, tracking !== undefined && tracking.enabled !== false),
    write(machine, disk, offset, bytes) {
      const guest = guests.writable(machine, disk);
      guest.content.write(offset, bytes);
      markChanged(guest.tracking, offset, bytes.byteLength);
    },
    trim(machine, disk, offset, length) {
      const guest = guests.writable(machine, disk);
      guest.content.zero(offset, length);
      markChanged(guest.tracking, offset, length);
    },
    read: (machine, disk, offset, length) => bytesOf(guests.disk(machine, disk, "read").content, offset, length),
    grow(machine, disk, size) {
      const { size: now } = guests.disk(machine, disk, "grow").disk;
      if (size <= now) throw new RangeError(`disk ${disk} has ${now} bytes: ${size} is no growth`);
      guests.resize(machine, disk, size);
    },
    shrink(machine, disk, size) {
      const { size: now } = guests.disk(machine, disk, "shrink").disk;
      if (size >= now) throw new RangeError(`disk ${disk} has ${now} bytes: ${size} is no shrinking`);
      guests.resize(machine, disk, size);
    },
    revert: (snapshot) => guests.revert(snapshot),
    takeSnapshot(machine, label) {
      const { id, disks } = guests.machine(machine);
      return guests.take(
        id,
        label,
        disks.map(({ key }) => key),
        "crash",
        false,
        undefined,
      );
    },
    snapshotBytes: (diskSnapshot, offset, length) =>
      bytesOf(guests.point(diskSnapshot, "read").content, offset, length),
    setPower(machine, state) {
      guests.guest(machine, "power").machine.power = state;
    },
    breakTracking(kind, { machine, disk, tiles = 0 } = {}) {
      for (const guest of guestDisks(guests, machine, disk)) {
        if (kind === "lost") guests.resetTracking(guest, guest.tracking.enabled);
        else guest.tracking.fault = { kind, tiles };
      }
    },
    mendTracking() {
      for (const guest of guestDisks(guests)) delete guest.tracking.fault;
    },

    addDisk(id, size, bytes) {
      if (volumes.existing.has(id)) throw new TypeError(`disk ${id} exists already`);
      const content = new SparseBytes(size);
      if (bytes !== undefined) content.write(0, bytes);
      volumes.existing.set(id, content);
    },
    volumeBytes(id, offset, length) {
      const content = volumes.content(id);
      if (content === undefined)
        throw memoryError("NOT_FOUND", "read", `volume ${id} is gone or holds nothing committed`);
      return bytesOf(content, offset, length);
    },
    volumeIds: () => [...volumes.lines.keys(), ...volumes.versions.keys()],
    launchedIds: () => [...volumes.launches.keys()],
    writeLaunched(machine, disk, offset, bytes) {
      const stored = launchedDisk(machine, disk);
      stored.write(offset, bytes);
      stored.flush();
    },
    readLaunched: (machine, disk, offset, length) => bytesOf(launchedDisk(machine, disk).live, offset, length),
    crash({ seed = 1, writers = "dead" } = {}) {
      volumes.crash(randomFrom(seed), targetOptions.blockSize ?? 512);
      if (writers === "dead") volumes.dropSession();
      else volumes.connection++;
    },
  };
}

/** Gives the same connection until it is disposed, then another. */
function reopening<Connection extends AsyncDisposable>(open: () => Connection): () => Connection {
  let current: Connection | undefined;
  return () => {
    if (current !== undefined) return current;
    const opened = open();
    const connection: Connection = {
      ...opened,
      async [Symbol.asyncDispose]() {
        if (current === connection) current = undefined;
        await opened[Symbol.asyncDispose]();
      },
    };
    current = connection;
    return connection;
  };
}

function* guestDisks(
  guests: MemoryGuests,
  machine?: string,
  disk?: string,
): Generator<ReturnType<MemoryGuests["disk"]>> {
  for (const { id, disks } of machine === undefined ? guests.machines() : [guests.machine(machine)]) {
    for (const { key } of disks) if (disk === undefined || disk === key) yield guests.disk(id, key, "tracking");
  }
}

function bytesOf(content: SparseBytes, offset = 0, length: number = content.size - offset): Uint8Array {
  if (length > mostBytes)
    throw new RangeError(`${length} bytes are too many to look at in one piece: give an offset and a length`);
  const bytes = new Uint8Array(length);
  content.read(offset, bytes);
  return bytes;
}

function configSchema(name: string): ProviderDefinition<MemoryConfig>["config"] {
  return {
    "~standard": {
      version: 1,
      vendor: "diskferry",
      validate(value) {
        if (typeof value !== "object" || value === null || Array.isArray(value)) {
          return { issues: [{ message: "the configuration of the memory provider is an object" }] };
        }
        const unknown = Object.keys(value).filter((key) => key !== "place");
        if (unknown.length > 0)
          return {
            issues: unknown.map((key) => ({
              message: `${key} is no option of the memory provider: remove it`,
              path: [key],
            })),
          };
        const { place } = value as { place?: unknown };
        if (place === undefined) return { value: {} };
        if (place !== name)
          return { issues: [{ message: `this process holds the place ${name} and no other`, path: ["place"] }] };
        return { value: { place: name } };
      },
    },
  };
}

/** A small deterministic generator (mulberry32) of numbers in [0, 1). */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
