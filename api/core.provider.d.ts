import { StandardSchemaV1 } from "@standard-schema/spec";
/**
 * Copies `bytes` into `into` from byte `at` on, where they fit. Blocks lie in shared memory, and there V8's
 * `TypedArray.prototype.set` copies byte by byte unless both sides lie alike: 7 instead of 0.4 µs for 16 KiB.
 */
declare function copyInto(into: Uint8Array, bytes: Uint8Array, at?: number): void;
/** What a reader or writer says of the disk behind it. */
interface Geometry {
  /** Bytes; a multiple of 512. */
  readonly size: number;
  /** The unit that offsets and lengths must be multiples of, in bytes; a power of two of at least 512. */
  readonly blockSize: number;
  /** How many calls may be under way at once. Absent: 1. */
  readonly concurrency?: number;
  /** The request length the far side serves best, in bytes. Absent: core's own choice. */
  readonly preferredLength?: number;
}
/** The last argument of everything that waits. */
interface Wait {
  /** Aborting rejects the call with the signal's reason as soon as it is safe; nothing durable is lost by it. */
  signal?: AbortSignal | undefined;
}
/** A range of a disk in bytes; both numbers are multiples of 512. */
interface Extent {
  offset: number;
  length: number;
}
/**
 * What a tracker knows of a range: `changed` (read it), `zero` (reads as zeroes, nothing to read) or `unchanged`
 * (holds what it held at the checkpoint; without a checkpoint: never used for anything that may be non-zero).
 */
type TileKind = "changed" | "zero" | "unchanged";
/**
 * One piece of a change listing. Tiles are ascending and contiguous: each begins where the one before ended, so a
 * listing that was cut short can never look like one that found nothing.
 */
interface Tile extends Extent {
  kind: TileKind;
  /**
   * Opaque to core; given back to `BlockReader.read` for reads inside this tile (EBS: the block's token). A tile with a
   * hint lies on the reader's blocks.
   */
  hint?: unknown;
}
/** A point in time of one disk, as the source knows it. Plain JSON. */
interface JsonObject {
  [key: string]: Json | undefined;
}
/** What survives `JSON.stringify`. */
type Json = string | number | boolean | null | Json[] | JsonObject;
/** An opaque token of at most 4096 characters, from which a later listing is incremental. */
type Checkpoint = string;
interface TrackerStatus {
  supported: boolean;
  enabled: boolean;
  /** For people: why it is off, what would turn it on, known bugs of this version. */
  detail?: string;
  /** The machine's name, as the platform has it now. */
  machine?: string;
  power?: PowerState;
  /** The newest point that the tracker knows of this disk, as the platform writes it; absent: none is known. */
  changeId?: string;
}
interface ChangesOptions extends Wait {
  /** Absent: tiles tell what may be non-zero. */
  since?: Checkpoint | undefined;
  /** Bytes; default 0. */
  from?: number | undefined;
  /** Bytes; default the disk's size. */
  to?: number | undefined;
}
/** Knows what changed between two points in time. */
interface ChangeTracker {
  /** Turns tracking on; idempotent. Absent: it is always on or cannot be turned on by us. */
  enable?(machine: Machine, wait?: Wait): Promise<void>;
  /** Discards tracking that is not to be trusted and begins anew. */
  reset?(machine: Machine, wait?: Wait): Promise<void>;
  status?(machine: Machine, disk: string, wait?: Wait): Promise<TrackerStatus>;
  /** The token of this point in time; undefined: the next run of this disk has to rescan. */
  checkpoint(disk: DiskSnapshot, wait?: Wait): Promise<Checkpoint | undefined>;
  /**
   * Tiles from `from` to `to`: ascending, contiguous, covering all of it, never too little `changed`.
   * @throws ProviderError TRACKING_LOST, at any tile, when the answer cannot be trusted from there on.
   */
  changes(disk: DiskSnapshot, options?: ChangesOptions): AsyncIterable<Tile>;
  /** The snapshot behind a checkpoint must outlive it (EBS). Absent: it is released once the record is written. */
  readonly keepsBase?: true;
}
/** A number and how good it is: counted, a limit that is not exceeded, or a guess. */
interface Figure {
  value: number;
  kind: "exact" | "bound" | "estimate";
}
/** Something to know or to mend before a run. Plain JSON. */
interface Finding {
  /** `blocker`: a run would fail. `warning`: it works, but not as one might expect. `info`: worth knowing. */
  severity: "info" | "warning" | "blocker";
  /** What it is about: a disk, a privilege, a host and port, a version. */
  subject: string;
  /** What was found. Never a secret. */
  message: string;
  /** What to do about it. */
  remedy?: string;
}
/** What a run would do with one disk, as far as core knows before there is a snapshot. */
interface PlannedDisk {
  /** The disk's key at the source. */
  disk: string;
  /** Bytes. */
  size: number;
  mode: "full" | "incremental" | "rescan";
  /** Bytes read from the source. */
  read: Figure;
  /** Bytes sent to the target. */
  write: Figure;
  /** The checkpoint of the last record, where the mode is incremental. */
  since?: Checkpoint;
  /** The volume of the last record. */
  base?: Volume;
}
interface PreflightRequest extends Wait {
  /** Empty when only the place itself is asked about. */
  disks: readonly PlannedDisk[];
  job?: string | undefined;
}
/** What the other end has to say to a target before a run. */
interface TargetPreflightRequest extends PreflightRequest {
  /** The machine the disks belong to, for a launch. */
  machine?: MachineSpec | undefined;
}
/** Money. */
interface Cost {
  /** What is paid for: "GetSnapshotBlock requests", "storage of the replica for a month". */
  item: string;
  amount: Figure;
  currency: "USD";
  /** The day the prices were read, ISO 8601. */
  pricesOf: string;
}
/** What one end says before anything is touched. Absent members are unknown. Plain JSON. */
interface Preflight {
  /** Calls of the platform's API, by name. */
  calls?: {
    operation: string;
    count: Figure;
  }[];
  costs?: Cost[];
  /** How long this end takes at its quotas, at least. */
  minutes?: Figure;
  /** By the platform's names. `missing` absent: could not be asked. */
  privileges?: {
    needed: string[];
    missing?: string[];
  };
  findings: Finding[];
}
/** A disk at the target: created by key, or the result of a commit. Plain JSON; survives a restart. */
interface Volume {
  id: string;
  /** Bytes; may be larger than the disk that was asked for. */
  size: number;
  data?: JsonObject;
}
interface CreateRequest extends Wait {
  /** Idempotence: the same key gives the same volume. */
  key: string;
  /** Bytes. The same key with a larger size grows the volume or rejects with UNSUPPORTED. */
  size: number;
  /** For people. */
  name?: string | undefined;
  job?: string | undefined;
}
interface OpenRequest extends Wait {
  /** The run that writes. The same run opens the same write again, also after its commit. */
  run: string;
  /** The volume of the last record, whose content the run starts from; absent: the first run, nothing is known. */
  base?: Volume | undefined;
  /** Granted by whoever assigns the work; a writer with a lower epoch is cut off before this call resolves. */
  epoch: number;
  job?: string | undefined;
}
interface WriteOptions extends Wait {
  /** The digests of the writer's blocks in `data`, concatenated, where the writer asked for an algorithm. */
  digest?: Uint8Array | undefined;
  /** How many bytes before `data` in the same buffer may be overwritten during the call (a place for a header). */
  headroom?: number | undefined;
}
interface WrittenExtent extends Extent {
  /** The digests of the leaves in this extent, concatenated, where the writer asked for an algorithm. */
  digests?: Uint8Array;
}
/** Writes one run of one disk. */
interface BlockWriter extends Geometry {
  /** Changes when the platform's half-written state is not the one an earlier opening of this run left. */
  readonly generation: string;
  /**
   * True only where every byte that this generation did not write is proven to read as zeroes, bytes that another run left
   * included. Absent: core clears the gaps.
   */
  readonly blank?: boolean;
  /** The digest this target demands of every leaf. Absent: core chooses. */
  readonly digest?: DigestAlgorithm;
  /**
   * Idempotent. Keeps no reference to `data` after it settled. A request that may work if sent again rejects with a
   * retryable error; a session that is lost rejects with UNAVAILABLE and `retryable: false`, upon which core opens the
   * writer again and repeats all that was not flushed.
   */
  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void>;
  /** Makes a range read as zeroes. Absent: core writes zeroes. */
  zero?(offset: number, length: number, wait?: Wait): Promise<void>;
  /** Reads back what this run would commit. Absent: verification reads the target after the commit. */
  read?(offset: number, into: Uint8Array, wait?: Wait): Promise<void>;
  /**
   * A durable barrier over every write that settled before, in this very session with the server, including all that
   * reopening needs; other writes may be under way. Never retried: after a reconnect it rejects, and core writes the group again.
   */
  flush(wait?: Wait): Promise<void>;
  /**
   * Makes the run's result a volume. Idempotent per run. `written`: ascending, every leaf in which this generation wrote
   * something, zeroes included; where the writer asked for digests, exactly the blocks it was given, with them.
   */
  commit(request: {
    written: AsyncIterable<WrittenExtent>;
  } & Wait): Promise<Volume>;
  /**
   * Discards what this run wrote and has not committed, where the platform can; else leaves it for the next run. Opened
   * again, the run then has a new generation. Harmless twice or after the commit.
   */
  abandon(wait?: Wait): Promise<void>;
  /** How worker threads write too. Absent: writes happen on the calling thread. */
  readonly lane?: WriterLane;
  /** Closes, and keeps whatever is durable. */
  [Symbol.asyncDispose](): Promise<void>;
}
interface LaunchRequest extends Wait {
  /** Idempotence: the same key gives the same machine. */
  key: string;
  /** A test boots a clone and leaves the replica as it is; a cutover may consume it, and says so. */
  purpose: "test" | "cutover";
  job?: string | undefined;
}
/** A disk to launch with: the volume and the key the source knew it by. */
interface LaunchDisk {
  disk: string;
  boot?: boolean;
  volume: Volume;
}
/** What a launch made. Plain JSON; survives a restart. */
interface LaunchedMachine {
  id: string;
  name: string;
  purpose: "test" | "cutover";
  /** Whether the replica itself was taken for it. */
  consumed: boolean;
  /** For people: addresses, console, warnings. */
  notes?: string[];
  data?: JsonObject;
}
/** The place disks are copied to. */
interface TargetProvider {
  /**
   * `open` cuts every writer of an older epoch off before it resolves. Absent: where an older worker may still be alive,
   * core waits out its longest request before it writes.
   */
  readonly fences?: true;
  /** Finds or makes the volume of this key. Allocates nothing that depends on a base. */
  create(request: CreateRequest): Promise<Volume>;
  /** Takes an existing disk as a volume that is never cleaned up (failback). */
  adopt?(disk: string, wait?: Wait): Promise<Volume>;
  /**
   * Opens a volume for a run. In place, a new run ends the writers of earlier ones. @throws ProviderError FENCED when a
   * newer epoch was seen; NOT_FOUND when the volume or the base is gone; UNSUPPORTED when the base is another volume, in place.
   */
  open(volume: Volume, request: OpenRequest): Promise<BlockWriter>;
  /** Opens a committed volume for reading: verification, audit, rescan without a manifest, and use as a source. */
  read?(volume: Volume, wait?: Wait): Promise<BlockReader>;
  /**
   * Removes a volume, merging what others stand on; one that is gone already is removed. The bytes of an adopted disk stay.
   * @throws ProviderError IN_USE rather than break a chain.
   */
  remove(volume: Volume, wait?: Wait): Promise<void>;
  /** What the job made on this place. */
  owned(job: string, wait?: Wait): AsyncIterable<OwnedResource & {
    volume?: Volume;
  }>;
  /** Says before a run, or a launch, what it would take and what stands in the way. Changes nothing. */
  preflight?(request: TargetPreflightRequest): Promise<Preflight>;
  /** Starts a machine from committed volumes; idempotent by key. */
  launch?(machine: MachineSpec, disks: readonly LaunchDisk[], request: LaunchRequest): Promise<LaunchedMachine>;
  /** Ends a launched machine; idempotent. A volume that the launch did not make is left. */
  terminate?(machine: LaunchedMachine, wait?: Wait): Promise<void>;
  /** Closes connections. Removes nothing. */
  [Symbol.asyncDispose](): Promise<void>;
}
/**
 * How a worker thread opens its own reader or writer: it imports `module` and calls its export `open` with `data`.
 * A lane's reader or writer is equal to the one that named it and lives no longer than that one.
 */
interface Lane {
  /** A `file:` URL of a module, normally `new URL("./….js", import.meta.url).href`. */
  readonly module: string;
  /** How many lanes may be open at once. Absent: as many as core likes. */
  readonly limit?: number;
  /**
   * What passes through costs more than its way: compression, encryption. Threads are worth their start then, even where
   * cores are few. Absent: bytes are only passed on.
   */
  readonly demanding?: true;
  /** Given to the module's `open`; anything `postMessage` can carry, shared memory included. */
  readonly data: unknown;
}
/** What a reader's lane module exports. */
interface ReaderLaneModule {
  open(data: unknown, wait?: Wait): Promise<BlockReader>;
}
/**
 * A writer inside a worker thread. It has no `flush`: `settle` hands over what the main writer must know to flush
 * (an allocation, a list of written clusters), and its `flush` then covers the writes of every lane that settled.
 */
interface LaneWriter extends Geometry {
  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void>;
  zero?(offset: number, length: number, wait?: Wait): Promise<void>;
  /**
   * Covers every write that settled before; others may be under way. Resolves with a note for `WriterLane.merge`, of
   * anything `postMessage` can carry. A writer whose sessions are flushed one by one flushes its own here.
   */
  settle(wait?: Wait): Promise<unknown>;
  [Symbol.asyncDispose](): Promise<void>;
}
/** What a writer's lane module exports. */
interface WriterLaneModule {
  open(data: unknown, wait?: Wait): Promise<LaneWriter>;
}
/** A writer's lanes: `merge` takes each lane's note before the main writer's `flush`. */
interface WriterLane extends Lane {
  merge?(note: unknown): void;
}
/** The algorithms of digests that core knows. */
type DigestAlgorithm = "blake3" | "sha256";
interface ReadOptions extends Wait {
  /** The hint of the tile this read lies in, when the tracker gave one. */
  hint?: unknown;
}
/** Reads one disk of a snapshot. */
interface BlockReader extends Geometry {
  /** `ascending`: offsets of successive reads only grow, one read at a time (a stream). Default `any`. */
  readonly order?: "any" | "ascending";
  /**
   * Fills all of `into` from `offset`, or rejects. `offset` and `into.byteLength` are multiples of `blockSize`, except
   * where the disk ends. The caller owns `into` before and after the call.
   */
  read(offset: number, into: Uint8Array, options?: ReadOptions): Promise<void>;
  /**
   * Digests computed at the far side, one per leaf, concatenated in order. Absent: core reads and hashes.
   * @throws ProviderError UNSUPPORTED for an algorithm or leaf it does not compute; core then reads and hashes too.
   */
  digests?(offset: number, length: number, options: {
    algorithm: DigestAlgorithm;
    leaf: number;
  } & Wait): Promise<Uint8Array>;
  /** How a worker thread opens a reader equal to this one. Absent: reads happen on the calling thread. */
  readonly lane?: Lane;
  [Symbol.asyncDispose](): Promise<void>;
}
/**
 * How good a point in time is, from worst to best. `none`: nothing is promised, the disk changed while it was read.
 * `disk`: each disk is one point in time, the disks among themselves are not. `crash`: as after a power cut, all disks
 * at once. `filesystem`: file systems were frozen. `application`: applications flushed too (VSS, pre and post scripts).
 */
type Consistency = "none" | "disk" | "crash" | "filesystem" | "application";
/** One disk of a machine. Plain JSON. */
interface Disk {
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
interface NetworkCard {
  mac?: string;
  network?: string;
  addresses?: string[];
}
/** What a launch elsewhere needs to know of a machine. Absent members are unknown. Plain JSON. */
interface MachineSpec {
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
  labels?: {
    [name: string]: string;
  };
  networkCards?: NetworkCard[];
}
/** A server and its disks, or a disk without a server shown as a machine of one disk. Plain JSON. */
interface Machine {
  /** Stable and unique within the place; together with a disk's key it identifies the disk across runs. */
  id: string;
  name: string;
  disks: Disk[];
  power?: PowerState;
  spec?: MachineSpec;
  data?: JsonObject;
}
type PowerState = "on" | "off" | "suspended";
/** One disk as it was at one point in time. Plain JSON; survives a restart. */
interface DiskSnapshot {
  /** Identifies this point in time of this disk: a different content never has the same id. */
  id: string;
  machine: string;
  disk: string;
  /** Bytes. */
  size: number;
  data?: JsonObject;
}
/** All chosen disks of a machine at one point in time. Plain JSON; survives a restart. */
interface Snapshot {
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
interface SnapshotRequest extends Wait {
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
interface OwnedResource {
  kind: string;
  id: string;
  description: string;
  /** Pass it to `release` (source) or `remove` (target). */
  snapshot?: Snapshot;
}
/** How busy the host of a machine is, in percent; absent members: not told. Plain JSON. */
interface SourceLoad {
  /** The host's name, for people. */
  host: string;
  cpuPercent?: number;
  memoryPercent?: number;
}
/** The place disks are copied from. */
interface SourceConnector {
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
/** What core gives a provider when it opens one. */
interface ProviderContext extends Wait {
  /** For people who watch: a line about something slow or unexpected that was handled. */
  notice?(message: string): void;
}
/**
 * What a provider package exports as `provider`. `Config`: what its schema makes of options, and its `source` and `target`
 * get. `Options`: what a user writes; named, it makes wrong options errors of the compiler.
 */
interface ProviderDefinition<Config = unknown, Options = unknown> {
  /** The version of this contract the provider was written for. */
  readonly spec: "v1";
  /** The product's name, unique among providers: `local`, `aws-ebs`, `vsphere`, `cloudstack`. */
  readonly name: string;
  /** URI schemes this provider answers to, without the colon. */
  readonly schemes?: readonly string[];
  /** Checks and completes the options; never holds a default secret. */
  readonly config: StandardSchemaV1<Options, Config>;
  /** The options that a URI of one of `schemes` stands for. Absent: this provider has no URIs. */
  fromUri?(uri: string): unknown;
  source?(config: Config, context?: ProviderContext): Promise<SourceConnector>;
  target?(config: Config, context?: ProviderContext): Promise<TargetProvider>;
}
/** Gives a provider its types; returns it as it is. */
declare function defineProvider<Config, Options = unknown>(definition: ProviderDefinition<Config, Options>): ProviderDefinition<Config, Options>;
/** What went wrong, in the few kinds a caller acts on differently. */
type ProviderErrorCode = "CONFIG_INVALID" | "AUTH" | "DENIED" | "NOT_FOUND" | "EXISTS" | "IN_USE" | "UNSUPPORTED" | "TRACKING_LOST" | "FENCED" | "CORRUPT" | "THROTTLED" | "UNAVAILABLE" | "UNEXPECTED";
interface ProviderErrorOptions {
  /** Name of the provider that failed, for example `local`; absent when core itself failed. */
  provider?: string | undefined;
  /** What was being done, for example `GetSnapshotBlock` or `nbd read`. */
  operation?: string | undefined;
  /** Whether the same call may succeed later. Default: true for THROTTLED and UNAVAILABLE alone. */
  retryable?: boolean | undefined;
  /** How long the far side asked to wait, in milliseconds. */
  retryAfterMs?: number | undefined;
  cause?: unknown;
}
/**
 * The one error class for anything a user can meet. The message says what failed, on which object and what to do,
 * and never holds a secret. Recognise it with {@link isProviderError}, never with `instanceof`: two copies of core
 * may live in one process.
 */
declare class ProviderError extends Error {
  readonly code: ProviderErrorCode;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly provider: string | undefined;
  readonly operation: string | undefined;
  constructor(code: ProviderErrorCode, message: string, options?: ProviderErrorOptions);
}
/** Whether `error` is a {@link ProviderError}, made by this copy of core or by another. */
declare function isProviderError(error: unknown): error is ProviderError;
/** Whether `error` is the rejection of an aborted signal, which is no failure of the disk. */
declare function isAbort(error: unknown, signal?: AbortSignal): boolean;
export { BlockReader, type BlockWriter, type ChangeTracker, type ChangesOptions, type Checkpoint, type Consistency, type Cost, type CreateRequest, DigestAlgorithm, type Disk, type DiskSnapshot, Extent, type Figure, type Finding, Geometry, Json, JsonObject, Lane, LaneWriter, type LaunchDisk, type LaunchRequest, type LaunchedMachine, type Machine, type MachineSpec, type NetworkCard, type OpenRequest, type OwnedResource, type PlannedDisk, type PowerState, type Preflight, type PreflightRequest, ProviderContext, ProviderDefinition, ProviderError, ProviderErrorCode, ProviderErrorOptions, ReadOptions, ReaderLaneModule, type Snapshot, type SnapshotRequest, type SourceConnector, type SourceLoad, type TargetPreflightRequest, type TargetProvider, Tile, TileKind, type TrackerStatus, type Volume, type Wait, type WriteOptions, WriterLane, WriterLaneModule, type WrittenExtent, copyInto, defineProvider, isAbort, isProviderError };