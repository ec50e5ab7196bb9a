import { BlockReader, BlockWriter, ChangeTracker, ChangesOptions, Checkpoint, Consistency, Cost, CreateRequest, DigestAlgorithm, Disk, DiskSnapshot, Extent, Figure, Finding, Geometry, Json, JsonObject, Lane, LaneWriter, LaunchDisk, LaunchRequest, LaunchedMachine, Machine, MachineSpec, NetworkCard, OpenRequest, OwnedResource, PlannedDisk, PowerState, Preflight, PreflightRequest, ProviderContext, ProviderDefinition, ProviderError, ProviderErrorCode, ProviderErrorOptions, ReadOptions, ReaderLaneModule, Snapshot, SnapshotRequest, SourceConnector, SourceLoad, TargetPreflightRequest, TargetProvider, Tile, TileKind, TrackerStatus, Volume, Wait, WriteOptions, WriterLane, WriterLaneModule, WrittenExtent, copyInto, defineProvider, isAbort, isProviderError } from "./provider.js";
/** One call that reached the memory place. */
interface MemoryCall {
  side: "source" | "target";
  /**
   * The member called: of a connector by its name alone (`snapshot`, `create`, `remove`), of anything else with the
   * object before it (`reader.read`, `writer.commit`, `power.shutdown`); `tracker.changes` comes once per tile.
   */
  method: string;
  /** Id of the snapshot, volume or machine it acts on. */
  on?: string;
  /** Bytes. */
  offset?: number;
  /** Bytes. */
  length?: number;
}
/** Throws, rejects, waits or hangs to make the call do so. A call that hangs still ends when its signal aborts. */
type MemoryHook = (call: MemoryCall) => Promise<void> | void;
/** How often a method was called, and over how many bytes. */
interface MemoryTraffic {
  calls: number;
  bytes: number;
}
/** A machine to put into a memory place. */
interface MemoryMachine {
  id: string;
  /** Default: the id. */
  name?: string;
  disks: Disk[];
  /** Default `on`. */
  power?: PowerState;
  spec?: MachineSpec;
}
/** How a tracker stops being trustworthy. The first three are honest: the contract foresees them. */
type TrackingFault = "lost" | "lost-midway" | "no-checkpoint" | "truncated" | "gap" | "overlap" | "disorder" | "empty" | "lie";
/** Shapes a reader of a memory place; `false` leaves the member off. */
interface MemoryReaderOptions {
  /** Bytes. Default 512. */
  blockSize?: number | undefined;
  /** Default 8. */
  concurrency?: number | false | undefined;
  /** Default: absent. */
  preferredLength?: number | undefined;
  /** Default `any`, by leaving the member off. */
  order?: "any" | "ascending" | undefined;
  /** Digests at the far side: `true` knows SHA-256 alone, a function computes what it is asked for. Default false. */
  digests?: boolean | ((algorithm: DigestAlgorithm, data: Uint8Array) => Uint8Array) | undefined;
}
/** Shapes the tracker of a memory place. */
interface MemoryTrackerOptions {
  /** The unit it reports in, in bytes; a larger one reports more than what changed. Default 64 KiB. */
  granularity?: number | undefined;
  /** The longest tile, in bytes: a small one makes long listings. Default: no bound. */
  tileLength?: number | undefined;
  /** Tiles carry a hint; `required`: reads of changed tiles without it are rejected. Default false. */
  hints?: boolean | "required" | undefined;
  /** The snapshot behind a checkpoint must outlive it. Default false. */
  keepsBase?: boolean | undefined;
  /** Whether tracking is on before `enable` was called. Default true. */
  enabled?: boolean | undefined;
}
/** Shapes the source of a memory place; `false` leaves the member off. */
interface MemorySourceOptions extends MemoryReaderOptions {
  /** The best consistency that can be achieved. Default `application`. */
  consistency?: Consistency | undefined;
  tracker?: MemoryTrackerOptions | false | undefined;
  power?: false | undefined;
  quiesce?: false | undefined;
  snapshots?: false | undefined;
}
/** Shapes a writer of a memory place; `false` leaves the member off. */
interface MemoryWriterOptions {
  /** Bytes. Default 512. */
  blockSize?: number | undefined;
  /** Default 8. */
  concurrency?: number | false | undefined;
  /** Default: absent. */
  preferredLength?: number | undefined;
  blank?: false | undefined;
  zero?: false | undefined;
  /** Whether a writer reads back what it would commit. */
  writerRead?: false | undefined;
  /** Demands digests of every block. Default: absent. */
  digest?: "sha256" | undefined;
  /**
   * How strictly a commit compares `written`: `exact` demands all that was written and nothing more (zeroed ranges may
   * be named or not), `within` only nothing more, `covers` only all of it; each demands that all was flushed.
   * `unchecked` commits whatever is there, as a platform would that looks at nothing. Default: what the contract says, `exact`
   * with `digest` and `covers` without, as leaves may be wider than what was written in them.
   */
  written?: "exact" | "within" | "covers" | "unchecked" | undefined;
}
/** Shapes the target of a memory place; `false` leaves the member off. */
interface MemoryTargetOptions extends MemoryWriterOptions {
  /**
   * `in-place`: a volume is one disk that every run writes. `versioned`: each commit is a new volume that stands on
   * the one it began from, and what a run does not write holds its base's bytes (as EBS snapshots do). Default
   * `in-place`.
   */
  style?: "in-place" | "versioned" | undefined;
  /** Only in place: a disk that exists cannot become a root of versions. */
  adopt?: false | undefined;
  /** Whether the target opens committed volumes for reading. */
  read?: false | undefined;
  launch?: false | undefined;
  /** Whether a volume can grow; `false` rejects with UNSUPPORTED. */
  growth?: false | undefined;
  /** Volumes are rounded up to multiples of this, in bytes. Default: they are as large as asked for. */
  sizeUnit?: number | undefined;
  /** What `remove` does with a version that others stand on. Default `refuse`. */
  removal?: "refuse" | "merge" | undefined;
  /** Whether writers of an older epoch are cut off, and the target says so. */
  fences?: false | undefined;
  /** Whether a cutover takes the replica itself. Default `consume`. */
  cutover?: "consume" | "clone" | undefined;
}
/** Shapes a memory place, so that a test meets every form a platform may take. */
interface MemoryPlaceOptions {
  /** What a configuration or a URI `memory:NAME` must call it. Default `place`. */
  name?: string | undefined;
  source?: MemorySourceOptions | undefined;
  target?: MemoryTargetOptions | undefined;
  fault?: MemoryHook | undefined;
}
/** The configuration of the `memory` provider. */
interface MemoryConfig {
  /** The place's name; absent: whichever place the provider belongs to. */
  place?: string;
}
/** Which disk a tracking fault strikes, and when. */
interface TrackingFaultScope {
  /** Default: every machine. */
  machine?: string;
  /** Default: every disk. */
  disk?: string;
  /** How many tiles come out right before it shows, for the faults that spoil a listing. Default 0. */
  tiles?: number;
}
/** How a memory target fails. */
interface CrashOptions {
  /** Decides which part of what was not flushed survives. Default 1. */
  seed?: number;
  /**
   * `dead`: openings from before reject everything with UNAVAILABLE and runs are opened again. `reconnect`: writers go
   * on, but their next flush rejects. Default `dead`.
   */
  writers?: "dead" | "reconnect";
}
/** A place that lives in this process: machines with disks that a guest writes, and a target for volumes. */
interface MemoryPlace {
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
/**
 * Makes a memory place, the reference of the whole contract: change tracking that is exact, multi-disk snapshots,
 * volumes in place or in versions, fencing, durability that a crash can put to the test. Disks are sparse: one of 1 TiB
 * costs what is written to it. Everything lives as long as the place; every handle is plain JSON.
 */
declare function memoryPlace(options?: MemoryPlaceOptions): MemoryPlace;
/** What a run did, for somebody who was not there. Plain JSON. */
interface ReceiptFacts extends JsonObject {
  job: string;
  machine: string;
  disk: string;
  /** Bytes of the disk. */
  size: number;
  /** The point in time that was copied. */
  source: {
    snapshot: string;
    takenAt: string;
    consistency: Consistency;
  };
  /** What its content hashes to: see `Manifest.root`. */
  manifest: {
    algorithm: DigestAlgorithm;
    leaf: number;
    root: string;
  };
  /** The volume that holds it. */
  volume: string;
  run: string;
  /** How much of the volume was read back and compared before the record was written, and how. */
  verified: {
    mode: string;
    bytes: number;
  };
  /** ISO 8601. */
  issuedAt: string;
}
/** Facts with a version and, where a key was given, a signature over the canonical JSON of all the rest. */
interface Receipt extends ReceiptFacts {
  version: 1;
  signature?: ReceiptSignature;
}
interface ReceiptSignature extends JsonObject {
  algorithm: "ed25519";
  /** SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal: which key to check with. */
  key: string;
  /** Base64. */
  value: string;
}
interface IssueOptions {
  /** An Ed25519 private key, PKCS #8 in PEM. Absent: the receipt is not signed. */
  privateKey?: string | undefined;
}
/** What a receipt is held against. Whatever is absent is not checked, and the verdict says so. */
interface VerifyReceiptOptions extends Wait {
  /** An Ed25519 public key in PEM; then a receipt without a signature is refused. */
  publicKey?: string | undefined;
  /** The root it should name, such as that of a manifest at hand. */
  root?: string | undefined;
  /** The machine and disk it should be of. */
  machine?: string | undefined;
  disk?: string | undefined;
  /** A volume to hash anew, all of it, whose root should be the receipt's. The caller disposes it. */
  reader?: BlockReader | undefined;
  /** Bytes hashed so far. */
  progress?: ((bytes: number) => void) | undefined;
}
/** What was checked; whatever was checked and wrong is an error instead. */
interface ReceiptVerdict {
  receipt: Receipt;
  /** `unchecked`: there is a signature and no key was given. `absent`: it was never signed. */
  signature: "valid" | "unchecked" | "absent";
  root: "equal" | "unchecked";
  content: "equal" | "unchecked";
}
/** Makes a receipt. @throws ProviderError CONFIG_INVALID for a key that is no Ed25519 private key. */
declare function issueReceipt(facts: ReceiptFacts, options?: IssueOptions): Receipt;
/**
 * Checks a receipt offline.
 * @throws ProviderError CORRUPT when it is malformed, was altered, or does not match the content; NOT_FOUND when it is of
 * another disk; DENIED when it is not signed by the key given; UNSUPPORTED for a version or digest not known here.
 */
declare function verifyReceipt(given: unknown, options?: VerifyReceiptOptions): Promise<ReceiptVerdict>;
/** A record as it was read: its value and the revision to give back to `set`. */
interface StateRecord {
  value: Json;
  revision: string;
}
interface SetOptions extends Wait {
  /** The revision the caller read; null: the key must not exist yet. */
  revision: string | null;
}
/** Who held a job before. */
interface PreviousLease {
  epoch: number;
  /** Whether it was given back in order. */
  released: boolean;
  /**
   * False only when its holder is proven dead: it ran on this host, and the host was restarted since or the process is
   * gone. True when it is proven alive. Undefined: nobody here can tell (another host, another container).
   */
  alive: boolean | undefined;
  /** When its holder was last heard of, ISO 8601, by the clock of the state's own file system. */
  seenAt: string;
}
/**
 * The right to work on a job, until somebody else acquires it. Acquiring never waits for the holder before: it gets a
 * newer epoch, and the older holder finds out at its next `check`.
 */
interface Lease {
  readonly job: string;
  /** Larger than every epoch this job had before. */
  readonly epoch: number;
  /** Absent: the job was never acquired before. */
  readonly previous?: PreviousLease;
  /** Resolves while no newer epoch exists, and lets others see that this holder lives. @throws ProviderError FENCED */
  check(wait?: Wait): Promise<void>;
  /** Gives the job back; idempotent, and without effect once a newer epoch exists. */
  release(): Promise<void>;
  /** The same as `release`. */
  [Symbol.asyncDispose](): Promise<void>;
}
/**
 * Where a job's state lives: records with compare-and-set, blobs, and logs that are appended to, all by key.
 *
 * A key is parts joined by `/`; build it with `stateKey`, which encodes parts such as URIs. A key is used for one kind
 * alone: a record, a blob or a log. What a call acknowledged survives a power loss, and nothing torn is ever returned,
 * but for the end of a log.
 */
interface StateStore {
  /** The record of a key. @throws ProviderError CORRUPT when it cannot be read. */
  get(key: string, wait?: Wait): Promise<StateRecord | undefined>;
  /**
   * Writes a record if its revision is still the one given, atomically among all processes, and resolves with the new
   * revision once it is durable. @throws ProviderError IN_USE when it changed meanwhile; nothing was written then.
   */
  set(key: string, value: Json, options: SetOptions): Promise<string>;
  /** Removes what a key names; idempotent. A power loss may bring a blob back, never a record or a log. */
  delete(key: string, wait?: Wait): Promise<void>;
  /** Every key that begins with `prefix`, in no order. Keys that come or go meanwhile may be missed. */
  list(prefix: string, wait?: Wait): AsyncIterable<string>;
  /** Writes a blob: afterwards all of it is durable; after a failure all of it or what was there before. */
  put(key: string, bytes: Uint8Array, wait?: Wait): Promise<void>;
  /** A blob, the caller's to keep. */
  bytes(key: string, wait?: Wait): Promise<Uint8Array | undefined>;
  /**
   * Appends to a log, durable when resolved. One writer per log. A power loss before that may leave any part of `bytes`
   * at the log's end; after a rejection nothing of them is left, or later appends to this log are refused.
   */
  append(key: string, bytes: Uint8Array, wait?: Wait): Promise<void>;
  /** A log from its beginning, in pieces of no meaning of their own; nothing where there is none. */
  log(key: string, wait?: Wait): AsyncIterable<Uint8Array>;
  /** Takes a job over, with an epoch larger than all before. */
  acquire(job: string, wait?: Wait): Promise<Lease>;
  /** Closes files. Releases no lease. */
  [Symbol.asyncDispose](): Promise<void>;
}
/** Time as the layers see it; tests put their own in its place. */
interface Clock {
  /** Milliseconds that only grow, from an unspecified start. */
  now(): number;
  /** Milliseconds since 1970 UTC; may jump. */
  date(): number;
  /**
   * Calls `action` once, `delayMs` later; the result cancels it. A timer that is not `keepAlive` does not keep the
   * process from ending.
   */
  after(delayMs: number, action: () => void, keepAlive?: boolean): () => void;
}
/** What a disk or run is busy with. `waiting`: for its backup window. `paused`: because somebody said so. */
type ProgressPhase = "snapshot" | "copying" | "verifying" | "committing" | "releasing" | "paused" | "waiting";
/** How far one disk has come. Plain JSON. */
interface DiskProgress {
  disk: string;
  phase: ProgressPhase;
  /** Bytes of the work that are done, those of an earlier, interrupted run included. */
  doneBytes: number;
  /** Bytes of work, as far as known by now; may grow while changes are listed. */
  totalBytes: number;
  /** Bytes really sent by this run. */
  movedBytes: number;
  /** Speed of the last seconds. */
  mibPerSecond: number;
  /** Milliseconds to go at that speed; absent when that cannot be said. */
  etaMs?: number | undefined;
}
/** How far a run has come, over all of its disks. Plain JSON. */
interface ProgressReport extends Omit<DiskProgress, "disk"> {
  job?: string | undefined;
  run?: string | undefined;
  machine?: string | undefined;
  disks: DiskProgress[];
  elapsedMs: number;
  /** How busy the source's host was when it was last asked; absent: it does not tell. */
  load?: SourceLoad | undefined;
  /** True once, in the last report. */
  final: boolean;
}
/** Throughput, lag and efficiency of one run. Plain JSON. */
interface RunMetrics {
  throughput: {
    elapsedMs: number;
    readGibPerSecond: number;
    movedGibPerSecond: number;
  };
  /**
   * From a change at the source to the moment it is durable at the target. `leastMs`: of a change made just before the
   * snapshot. `mostMs`: of one made just after the previous snapshot, so that it had to wait for this one; absent in a
   * first run. `mostMs` is also the worst-case recovery point objective of the interval that this run ended: just
   * before its record was written, the newest recovery point was the previous snapshot, so a source lost at that
   * moment would have lost all changes since `previousTakenAt`.
   */
  lag: {
    leastMs: number;
    mostMs?: number | undefined;
  };
  /**
   * In bytes. `changed`: what the tracker called changed, the whole disk where it could not tell. `ratio`: moved ÷ full; what
   * this run sent of what a full copy would have sent. 0 for disks of no size.
   */
  efficiency: {
    moved: number;
    changed: number;
    full: number;
    ratio: number;
  };
}
/** The algorithm new manifests use: BLAKE3 where its native module loads, else SHA-256. */
declare function preferredAlgorithm(): DigestAlgorithm;
/** What is asked of a source or target. */
type CallMethod = "open" | "snapshot" | "changes" | "checkpoint" | "read" | "digests" | "create" | "write" | "zero" | "flush" | "commit" | "abandon" | "release" | "remove";
/**
 * One call to a source or target on its way through the layers. The same object passes through all of them and through
 * all attempts; what is not `readonly` is theirs to update.
 */
interface Call {
  readonly method: CallMethod;
  readonly side: "source" | "target";
  /** Key of the disk, for messages and telemetry. */
  readonly disk?: string | undefined;
  /** Bytes. */
  readonly offset?: number | undefined;
  /** Bytes. */
  readonly length?: number | undefined;
  /** What a read fills or a write takes: the innermost `run` uses these bytes. Absent where they are in another thread. */
  readonly data?: Uint8Array | undefined;
  /** 1 for the first attempt. */
  attempt: number;
  /** Aborted when the caller gives up, or a layer outside of the one that looks. */
  signal: AbortSignal;
  /** When the retry layer gives up, on the clock's `now`; holding a call back moves it. */
  deadlineAt?: number | undefined;
  /** Milliseconds for which our own gates and limits held the call back so far. */
  heldMs?: number | undefined;
  /** Since when, on the clock's `now`, a gate or limit holds the call back. */
  heldSince?: number | undefined;
  /**
   * Set when the call was given up although the far side did not let go of it: its buffer must not be used again
   * before this resolves, and the reader or writer counts as dead. Never rejects.
   */
  unsettled?: Promise<void> | undefined;
}
/** What a layer wraps: the call itself, or the layers further in. */
type Run = (call: Call) => Promise<void>;
/**
 * Something around every call: it may wait, refuse, repeat `run`, measure it or check what it did. A layer that is
 * composed once serves any number of calls at once.
 */
type Layer = (call: Call, run: Run) => Promise<void>;
/**
 * One layer out of many, the first outermost. The order in which core's own belong: watchdog, retry, gate, throttle,
 * metrics, tracing, timeout, verify, faults. So a call that waits for a gate or limit is never taken for one that
 * hangs, every attempt is charged and measured, and a timed-out attempt is repeated.
 */
declare function compose(layers: readonly Layer[]): Layer;
/** How often and how patiently every request is tried. Plain data: it crosses to worker threads. */
interface AttemptPolicy {
  /** Tries of one request, the first included. Default 8. */
  attempts: number;
  /** Upper bound of the first wait between tries, doubled with each. Default 200. */
  baseMs: number;
  /** Upper bound of every wait. Default 20 000. */
  maxMs: number;
  /** After this no further try begins. Default 120 000. */
  totalMs: number;
  /** How long one try may take. Default 60 000. */
  perAttemptMs: number;
  /** How long one flush may take. Default 600 000. */
  flushMs: number;
  /**
   * How long a call that is no transfer may take with all its tries: a snapshot, a release, a commit, creating and opening.
   * Platforms take hours for some of them and providers bound their own waits; this ends what hangs all the same. Default
   * 86 400 000, a day.
   */
  controlMs: number;
  /**
   * How often a worker looks whether it still holds its job; what it began before it found out ends within one request.
   * Default 5 000.
   */
  leaseMs: number;
  /** How often in a row a lost reader or writer is opened again without anything getting durable in between. Default 5. */
  reopens: number;
}
/** Something that lets calls pass or holds them: a pause, a backup window. Calls under way are never interrupted. */
interface Gate {
  readonly open: boolean;
  /** What a held run says of itself. */
  readonly phase: "paused" | "waiting";
  /** Resolves when the gate is open, at once when it is. */
  wait(wait?: Wait): Promise<void>;
  /** Calls `listener` at every change; the result takes it off again. */
  listen(listener: (open: boolean) => void): () => void;
}
/** A gate that its owner opens and closes. */
declare class PauseGate implements Gate {
  #private;
  readonly phase = "paused";
  get open(): boolean;
  /** Holds what comes from now on. */
  pause(): void;
  /** Lets go what was held. */
  resume(): void;
  wait(wait?: Wait): Promise<void>;
  listen(listener: (open: boolean) => void): () => void;
}
/** Absent: not limited. To stop everything, use a pause gate. */
interface Rates {
  /** Bytes per second of reads and writes, more than 0. */
  bytesPerSecond?: number | undefined;
  /** Calls of any kind per second, more than 0. */
  callsPerSecond?: number | undefined;
}
interface LimitOptions extends Rates {
  /** How much may come at once after a quiet time, in milliseconds of the rate. Default 100. */
  burstMs?: number | undefined;
  clock?: Clock | undefined;
}
/**
 * A limit in bytes and calls per second, shared by any number of layers, and changed while calls run. Two token buckets
 * with one queue, first come first served: a request goes when both hold enough for it, or, if it is larger than the
 * burst, when they are full; it then leaves a debt. So in any span of time no more than rate × time + the burst (or one
 * request, where that is larger) goes through, and no request is too large.
 */
declare class Limit {
  #private;
  constructor(options?: LimitOptions);
  /** The rates in force. */
  get rates(): Rates;
  /** How many calls wait. */
  get waiting(): number;
  /** Puts new rates in force at once, for those who wait too. */
  set(rates: Rates): void;
  /** Undefined when one call of `bytes` may go now, and is charged; else what to wait for. */
  take(bytes: number, wait?: Wait): Promise<void> | undefined;
}
/**
 * What holds a run back: rates, a pause, a backup window. One object may be shared by any number of runs and changed
 * while they go on.
 */
declare class Limits {
  #private;
  readonly rates: Limit;
  readonly pause: PauseGate;
  constructor(options?: Rates & {
    window?: Gate | undefined;
  });
  /** The backup window; replace it at any time, also by none: what waits for the old one looks at the new one at once. */
  get window(): Gate | undefined;
  set window(window: Gate | undefined);
  /** Resolves when `bytes` more may be moved. */
  pass(bytes: number, wait?: Wait): Promise<void>;
  /** What a held run says of itself; undefined while nothing holds it. */
  get held(): "paused" | "waiting" | undefined;
}
/** What to do when a tracker cannot say what changed: read all and send what differs, send all, or stop. */
type TrackingLostPolicy = "rescan" | "full" | "fail";
/**
 * How much of the replica is read back and compared with the digests of what was sent, before the record is written.
 * `written`: all that this run wrote. `full`: the whole disk. `none`: nothing is read back; digests are kept all the same.
 */
type VerifyMode = "none" | "written" | "full";
/** The replication of one machine from a source to a target: everything a run needs, opened by the caller. */
interface Job {
  /** Names the job in the state store and on both platforms. Runs of one id continue each other. */
  id: string;
  source: SourceConnector;
  /** Id, name or path of the machine, as the source understands it. */
  machine: string;
  /** Keys of the disks to copy; absent: all eligible ones. */
  disks?: readonly string[];
  target: TargetProvider;
  store: StateStore;
  options?: JobOptions;
}
interface JobOptions {
  /** The least consistency that is worth copying. Default `none`: whatever the source achieves, reported. */
  consistency?: Consistency;
  /** `auto` is incremental where a record allows it; `full` sends everything again; `rescan` compares everything. */
  mode?: "auto" | "full" | "rescan";
  /** Default `rescan`. */
  onTrackingLost?: TrackingLostPolicy;
  /** Default `written`. */
  verify?: VerifyMode;
  /**
   * So many leaves of each disk that its tracker called unchanged are read and compared with the last record's digests in every
   * incremental run. One that has changed takes the tracker's word away: `onTrackingLost` applies to the whole disk, this run
   * leaves no checkpoint for it, and tracking is begun anew before the next. Default 0: none.
   */
  canary?: number;
  /** Default BLAKE3 where its native module loads, else SHA-256. `none` keeps no manifest: no rescan, audit or proof. */
  digest?: DigestAlgorithm | "none";
  /** Bytes of a leaf for a new replica; a power of two from 64 KiB to 1 MiB. Default: by the disk's size. */
  leaf?: number;
  /** Disks at once. Default 4. */
  parallelDisks?: number;
  /**
   * Worker threads for each disk whose reader and writer have lanes; 0 keeps all on this thread. Default: 2; but 0 on
   * machines of two cores or fewer where nothing is computed (no digest, no compression, no encryption), since a thread
   * then takes time from what serves the disks.
   */
  workers?: number;
  /** The most bytes that one disk's blocks take per worker thread, and twice as many where none copies. Default 32 MiB. */
  memory?: number;
  /** Retries and deadlines of every request. */
  attempts?: Partial<AttemptPolicy>;
  /**
   * Your own layers around every read, write and zero, innermost: metrics, faults, a verification after each write. They
   * run on the calling thread, so with any of them no worker copies.
   */
  layers?: readonly Layer[];
  /** Bandwidth, calls and the backup window; may be changed while a run goes on. */
  limits?: Limits;
  /** How much is written between two durable points of the journal. Default 256 MiB or 5 s. */
  journal?: {
    bytes?: number;
    ms?: number;
  };
  /**
   * Milliseconds between two questions to the source how busy the machine's host is, where it can tell: in progress reports, in
   * the run's report and on the channel `diskferry:load-report`. Default 30 000; 0 asks nothing.
   */
  loadIntervalMs?: number;
  /** An Ed25519 private key, PKCS #8 in PEM, that signs receipts. Absent: receipts carry no signature. */
  receiptKey?: string;
  /** For people: lines about what was slow, lost or decided. */
  notice?: (message: string) => void;
}
/** What a run did, step by step decided and reported. */
type RunMode = "full" | "incremental" | "rescan";
/** Something that was not done as asked, and why. */
interface Fallback {
  disk: string;
  from: string;
  to: string;
  reason: string;
}
/** What a look at leaves that a tracker called unchanged found, within a run. Plain JSON. */
interface CanaryReport {
  /** Leaves that the tracker called unchanged and this run left alone. */
  unchanged: number;
  /** How many of them were read from the run's own snapshot and compared with the last record's digests. */
  sampled: number;
  /** The same seed chooses the same leaves. */
  seed: string;
  /** How many had changed all the same: the tracker missed writes. */
  missed: number;
  /** Where, as far as the first thousand go. */
  missedAt: Extent[];
  /** With a probability of 0.99 less than this share of the unchanged leaves has changed; absent when a miss was found. */
  bound?: number;
}
interface CutoverState {
  id: string;
  step: "begun" | "stopped" | "replicated" | "launched" | "finalized" | "reverting" | "reverted";
  /** Whether the source ran when the cutover began, so that going back starts it again. */
  wasRunning: boolean;
  /** A run that had begun before the source stopped: its point in time is too old to be the last one. */
  stale?: string;
  /** The target was told to launch, and whether it did is not known yet. */
  launching?: true;
  machine?: LaunchedMachine;
}
/** What one disk's part of a run came to. Plain JSON. */
interface DiskReport {
  disk: string;
  mode: RunMode;
  size: number;
  read: number;
  /** Bytes of data sent. */
  moved: number;
  /** Bytes made zero at the target. */
  zeroed: number;
  /** Bytes that the source's tracker called changed; the whole disk where it could not tell. */
  changed: number;
  /** Bytes read whose digest the target held already. */
  same: number;
  /** Bytes that the tracker, or an earlier attempt of this run, left nothing to do for. */
  settled: number;
  verifiedBytes: number;
  reopened: number;
  threads: number;
  fallbacks: Fallback[];
  volume?: Volume;
  root?: string;
  leaf: number;
  digest: DigestAlgorithm | "none";
  /** Whether the next run can be incremental. */
  checkpoint: boolean;
  /** What was found of the tracker's word, where the job asks for that and it was taken. */
  canary?: CanaryReport;
}
/** One counter over a run, in percent. Plain JSON. */
interface LoadCounter {
  /** When the run began. */
  first: number;
  mean: number;
  most: number;
}
/** How busy a source's host was while a run copied from it. Plain JSON. */
interface LoadSummary {
  /** How often it was asked. */
  samples: number;
  /** The host of the last sample. */
  host: string;
  cpuPercent?: LoadCounter;
  memoryPercent?: LoadCounter;
}
interface RunOptions extends Wait {
  /** Aborting this stops at the next durable point; the same job goes on from there later. */
  pause?: AbortSignal | undefined;
  onProgress?: ((report: ProgressReport) => void) | undefined;
}
/** What a run came to. Plain JSON. */
interface RunReport {
  job: string;
  run: string;
  machine: string;
  status: "done" | "paused";
  /** Whether this run went on with one that had been interrupted. */
  resumed: boolean;
  snapshot: {
    id: string;
    takenAt: string;
    consistency: Consistency;
  };
  disks: DiskReport[];
  fallbacks: Fallback[];
  startedAt: string;
  endedAt: string;
  metrics?: RunMetrics;
  /** How busy the source's host was meanwhile; absent: it does not tell. */
  load?: LoadSummary;
  receipts: Receipt[];
}
/**
 * Replicates a machine: one snapshot, its disks in parallel, verified, committed and written down as one record; then
 * what is no longer needed is released. A run that was interrupted goes on where it was durable.
 * @throws ProviderError with the code of whatever failed; what was durable stays and the next call goes on from there.
 */
declare function replicate(job: Job, options?: RunOptions): Promise<RunReport>;
/** One reusable buffer. `data` is a view of what was asked for; disposing returns the buffer to its pool. */
interface PooledBlock extends Disposable {
  readonly data: Uint8Array;
  /** Gives the buffer up for good: something outside may still write into it. */
  forsake(): void;
}
/**
 * A bounded set of equal buffers in shared memory, so that other threads can hash them without a copy, that begin at pages,
 * so that a file can be written from them directly. Taking one when all are out waits: this is the back-pressure of a
 * transfer and the bound on its memory.
 */
declare class BlockPool {
  #private;
  /** `count` buffers of `length` bytes; the system gives each its memory when it is first used. */
  constructor(count: number, length: number);
  /** A block of `length` bytes, at most the pool's; at once where one is free. @throws the signal's reason when it aborts first. */
  take(length: number, signal?: AbortSignal): PooledBlock | Promise<PooledBlock>;
}
/** A piece of an item that one call reads. */
interface ReadPiece extends Extent {
  hint?: unknown;
}
/**
 * One unit of work, whole leaves of the disk (the last may be short): `copy` reads it, `zero` knows that it reads as
 * zeroes.
 */
interface WorkItem extends Extent {
  kind: "copy" | "zero";
  /** What really changed inside, ascending, where that is less than all: enough to write onto a trusted base. */
  parts?: Extent[];
  /** How to read it, where tiles carried hints; absent: in one call without a hint. */
  pieces?: ReadPiece[];
}
/** A piece of a disk on its way. Dispose it when done: that recycles the buffer and lets the next block be read. */
interface StreamBlock<Item extends Extent = WorkItem> extends Extent, Disposable {
  /** The bytes, valid until the block is disposed; null where the range reads as zeroes. */
  data: Uint8Array | null;
  item: Item;
}
/** Where a stream's items come from. */
interface ItemSource<Item> {
  /** The next item, at once where there is one; undefined: there are no more. */
  next(): Item | undefined | Promise<Item | undefined>;
  /** Nobody asks for more. */
  end?(): Promise<unknown>;
}
/**
 * Reads items of work through a reader, as many at once as there are `next()` calls under way: those calls are the
 * concurrency, the back-pressure and the memory bound. Blocks may come out of order, but every item comes once.
 */
declare class BlockStream<Item extends WorkItem = WorkItem> implements AsyncIterableIterator<StreamBlock<Item>, void> {
  #private;
  constructor(reader: BlockReader, items: ItemSource<Item>, options: {
    pool: BlockPool;
    layer?: Layer;
    signal?: AbortSignal | undefined;
  });
  [Symbol.asyncIterator](): this;
  /** The next block. @throws ProviderError what the reader says, after the layer gave up. */
  next(): Promise<IteratorResult<StreamBlock<Item>, void>>;
  return(): Promise<IteratorResult<StreamBlock<Item>, void>>;
}
interface BlockStreamOptions {
  /** Bytes of a block; a power of two and a multiple of the reader's block size. Default 1 MiB. */
  blockLength?: number;
  /** How many blocks may be out at once. Default 4. */
  blocks?: number;
  signal?: AbortSignal;
}
/**
 * The changed blocks of a disk as a stream, for tools that have a target of their own: tiles come from a tracker's
 * `changes` or from anything that tiles the disk; `unchanged` tiles give no block.
 */
declare function blockStream(reader: BlockReader, tiles: AsyncIterable<Tile>, options?: BlockStreamOptions): BlockStream;
interface TransferOptions extends RunOptions {
  /** Stops at the next durable point after so many milliseconds; the report then says `paused`. */
  deadlineMs?: number | undefined;
}
/**
 * Replicates one disk: the machine's only one, or the only one the job names.
 * @throws ProviderError CONFIG_INVALID when the job names several.
 */
declare function transfer(job: Job, options?: TransferOptions): Promise<RunReport>;
/** What independent processes need to copy slices of one run. Plain JSON. */
interface RunTicket {
  job: string;
  run: string;
  epoch: number;
  disks: {
    disk: string;
    size: number;
    leaf: number;
  }[];
}
/**
 * Begins a run, or finds the one under way, for {@link transferSlice} to work on in any number of processes. Nothing is
 * copied. `replicate` then copies what is missing, verifies, commits and records; until then no other run may begin.
 */
declare function beginRun(job: Job, wait?: Wait): Promise<RunTicket>;
interface SliceOptions extends TransferOptions {
  disk: string;
  /** What to copy; on multiples of the leaf, but where the disk ends. Slices of one run do not overlap. */
  range: Extent;
}
/** What a slice came to. Plain JSON. */
interface SliceReport {
  status: "done" | "paused";
  disk: DiskReport;
}
/**
 * Copies a slice of a disk for a run that {@link beginRun} began, journaled and flushed but neither verified nor
 * committed. @throws ProviderError FENCED when the run has ended or another worker took the job over.
 */
declare function transferSlice(job: Job, ticket: RunTicket, options: SliceOptions): Promise<SliceReport>;
interface VerifyOptions extends Wait {
  onProgress?: ((report: ProgressReport) => void) | undefined;
}
interface DiskVerification {
  disk: string;
  volume: string;
  /** Bytes read back. */
  bytes: number;
  /** Bytes that differ from what was recorded. */
  different: number;
  /** Where, as far as the first thousand go. */
  differences: Extent[];
  root: string;
}
/** What a verification found. Plain JSON. */
interface VerificationReport {
  job: string;
  run: string;
  equal: boolean;
  disks: DiskVerification[];
}
/**
 * Reads every recorded volume back, all of it, and compares it with the manifest of what was sent. The source is not
 * touched. @throws ProviderError UNSUPPORTED where the target cannot be read or no digest is kept; IN_USE while torn.
 */
declare function verify(job: Job, options?: VerifyOptions): Promise<VerificationReport>;
interface AuditOptions extends Wait {
  /** Leaves read of each disk. Default 2000. */
  samples?: number | undefined;
  /** The probability with which the stated bound holds, in (0, 1). Default 0.99. */
  confidence?: number | undefined;
  /** A number below `limit`, evenly distributed. Default: `crypto.randomInt`. */
  random?: ((limit: number) => number) | undefined;
}
interface DiskAudit {
  disk: string;
  /** Leaves that the tracker calls unchanged since the record. */
  unchanged: number;
  /** How many of them were read from the source and compared with the record. */
  sampled: number;
  /** How many of those had changed: the tracker missed a write. */
  missed: number;
  /** Where, as far as the first thousand go. */
  missedAt: Extent[];
  /**
   * With the stated confidence, less than this share of the leaves called unchanged has changed. 0 when all were read;
   * absent when a miss was found.
   */
  bound?: number;
  confidence: number;
}
/** What an audit found. Plain JSON. */
interface AuditReport {
  job: string;
  run: string;
  sound: boolean;
  disks: DiskAudit[];
}
/**
 * Puts the tracker to the test: takes a snapshot, asks what changed since the record, and reads a random sample of what
 * it calls unchanged from the source. Nothing is written to the target; the snapshot is released.
 * @throws ProviderError UNSUPPORTED where there is no tracker or no digest to compare with; IN_USE while a run is under way.
 */
declare function audit(job: Job, options?: AuditOptions): Promise<AuditReport>;
interface LaunchOptions extends Wait {
  /** Boots several disks although they are not one point in time. Default false. */
  allowInconsistent?: boolean | undefined;
}
/**
 * Boots a clone of the last record, isolated as the target can; the replica stays as it is. Where each commit makes a
 * volume of its own, a run under way goes on meanwhile. Where the replica is written in place, the launch takes the job
 * over while it clones: a run under way ends, and goes on when it is called again.
 * Idempotent per record: the second call gives the machine of the first.
 * @throws ProviderError UNSUPPORTED where the target launches nothing; IN_USE while the replica is torn.
 */
declare function launch(job: Job, options?: LaunchOptions): Promise<LaunchedMachine>;
/** Ends a machine that a launch of this job made; idempotent. A machine of a cutover is ended by reverting it. */
declare function terminate(job: Job, machineId: string, wait?: Wait): Promise<void>;
interface CutoverOptions extends RunOptions, LaunchOptions {
  /** Whether a guest that does not shut down may be powered off. Default false: the cutover fails and nothing changed. */
  allowPowerOff?: boolean | undefined;
}
interface CutoverReport {
  machine: LaunchedMachine;
  /** The last increment, made after the source had stopped; absent when an interrupted cutover had made it. */
  run?: RunReport;
}
/**
 * Moves a machine for good: stops it, confirmed; takes a last snapshot; sends the last increment; verifies; launches.
 * Every step is written down first, so that an interrupted cutover goes on, and until {@link finalizeCutover} it can be
 * taken back with {@link revertCutover}. When tracking is lost, or the last increment fails, the source is started again.
 */
declare function cutover(job: Job, options?: CutoverOptions): Promise<CutoverReport>;
/** Makes a cutover final: it can no longer be reverted, and what it kept for that may be cleaned up. Idempotent. */
declare function finalizeCutover(job: Job, wait?: Wait): Promise<void>;
/**
 * Takes a cutover back: ends the launched machine and starts the source again if it ran before. What the launched
 * machine wrote is lost. Where it had consumed the replica, the next run is a full copy. Idempotent.
 * @throws ProviderError DENIED once the cutover is final.
 */
declare function revertCutover(job: Job, wait?: Wait): Promise<void>;
interface DiskPlan extends PlannedDisk {
  /** Why this mode. */
  reason: string;
  fallbacks: Fallback[];
}
/** What a run would do. Plain JSON. */
interface Plan {
  job: string;
  machine: string;
  /** A run under way that the next one goes on with. */
  resumes?: string;
  disks: DiskPlan[];
  /** Calls of both platforms' APIs, as far as they can tell. */
  calls: {
    side: "source" | "target";
    operation: string;
    count: Figure;
  }[];
  costs: Cost[];
  /** How long it takes: at the bandwidth limit and at the platforms' quotas, whichever is longest. Absent: nobody knows. */
  minutes?: Figure;
  /** By the platforms' names; `missing` absent: could not be asked. */
  privileges: {
    source?: Preflight["privileges"];
    target?: Preflight["privileges"];
  };
  /** What stands in the way or should be known before; blockers first. */
  findings: Finding[];
}
/** Says what a run would do, before anything is touched: no snapshot is taken and no volume made. */
declare function plan(job: Job, wait?: Wait): Promise<Plan>;
/** What is known of a job, for people. Plain JSON. */
interface JobStatus {
  job: string;
  /** Absent before the first run has ended. */
  record?: {
    run: string;
    at: string;
    machine: string;
    snapshot: {
      id: string;
      takenAt: string;
      consistency: Consistency;
    };
    disks: {
      disk: string;
      size: number;
      volume: Volume;
      mode: RunMode;
      root?: string;
      incrementalNext: boolean;
    }[];
  };
  /** A run that has begun and not ended. */
  run?: {
    id: string;
    startedAt: string;
    phase: string;
    disks: string[];
  };
  torn: string[];
  launches: LaunchedMachine[];
  cutover?: CutoverState;
}
/** Reads a job's state; touches neither source nor target. */
declare function status(store: StateStore, job: string, wait?: Wait): Promise<JobStatus>;
interface CleanupOptions extends Wait {
  /** Removes volumes too that hold a record or a run that could go on. Default false. */
  includeReplicas?: boolean | undefined;
  /** Only tells what would be removed. Default false. */
  dryRun?: boolean | undefined;
}
/** What a clean-up removed, or would remove, and what it left and why. Plain JSON. */
interface CleanupReport {
  removed: OwnedResource[];
  kept: (OwnedResource & {
    reason: string;
  })[];
}
/**
 * Removes what this job made on both platforms and no longer needs: by its tags and keys, never by a name's beginning.
 * A volume that a record names or named, or that a run is half-way through, stays unless `includeReplicas` says otherwise;
 * so does, always, what something stands on.
 */
declare function cleanup(job: Job, options?: CleanupOptions): Promise<CleanupReport>;
/** A state store that lives as long as its process: for tests, trials and runs that need no resume. */
declare class MemoryStateStore implements StateStore {
  #private;
  get(key: string, wait?: Wait): Promise<StateRecord | undefined>;
  set(key: string, value: StateRecord["value"], options: SetOptions): Promise<string>;
  delete(key: string, wait?: Wait): Promise<void>;
  list(prefix: string, wait?: Wait): AsyncIterable<string>;
  put(key: string, bytes: Uint8Array, wait?: Wait): Promise<void>;
  bytes(key: string, wait?: Wait): Promise<Uint8Array | undefined>;
  append(key: string, bytes: Uint8Array, wait?: Wait): Promise<void>;
  log(key: string, wait?: Wait): AsyncIterable<Uint8Array>;
  acquire(job: string, wait?: Wait): Promise<Lease>;
  [Symbol.asyncDispose](): Promise<void>;
}
/** One entry of a directory. */
interface DirectoryEntry {
  name: string;
  directory: boolean;
}
/** A file that is open for appending. */
interface AppendFile {
  /** Its length now, in bytes. */
  readonly length: number;
  /** Appends all of `bytes` and makes them durable. */
  append(bytes: Uint8Array): Promise<void>;
  /** Cuts it to `length` bytes, durably. */
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}
/**
 * What a directory state store does with files, small enough to be replaced by one that loses power. Paths are absolute.
 * Failures are `ProviderError`s that name the path; EXISTS where a name is taken.
 */
interface StateFiles {
  /** The whole file, or undefined where there is none. */
  read(path: string): Promise<Uint8Array | undefined>;
  /** A file from its beginning in pieces; none where there is no file. */
  pieces(path: string): AsyncIterable<Uint8Array>;
  /** Makes a new file of mode 0600 with this content, durable but for its name. Rejects with EXISTS. */
  create(path: string, bytes: Uint8Array): Promise<void>;
  /** Gives a file a new name, replacing what had it; durable after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  /** Gives a file another name. Rejects with EXISTS. */
  link(from: string, to: string): Promise<void>;
  /** Removes a file; resolves with whether there was one. */
  remove(path: string): Promise<boolean>;
  /** Opens a file for appending, made with mode 0600 where there is none. */
  open(path: string): Promise<AppendFile>;
  /** Makes a directory of mode 0700; resolves with whether it is new. */
  makeDirectory(path: string): Promise<boolean>;
  /** The entries of a directory; none where there is none. */
  list(path: string): AsyncIterable<DirectoryEntry>;
  /** Makes the names in a directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Sets a file's time of modification to now. */
  touch(path: string): Promise<void>;
  /** When a file was last modified, in milliseconds, or undefined where there is none. */
  modifiedAt(path: string): Promise<number | undefined>;
}
/** Which process this is, told apart from every other that ever ran. Plain JSON. */
interface ProcessIdentity extends JsonObject {
  /** The machine: its name and, where it has one, its machine id. */
  host: string;
  /** This start of the machine; absent where the system does not tell. */
  boot?: string;
  /** The namespace of process ids (containers); absent where there are none. */
  space?: string;
  pid: number;
  /** When the process began, in the system's own unit, which tells a reused id; absent where it does not tell. */
  started?: string;
}
interface DirectoryStateOptions extends Wait {
  /** The file system below; tests give one that loses power. Default: this machine's. */
  files?: StateFiles | undefined;
  /** Who this process is; tests give one of a machine that was restarted. */
  identity?: ProcessIdentity | undefined;
}
/**
 * Opens a directory as state store, made where it does not exist. Many processes may share it.
 * @throws ProviderError CORRUPT or UNSUPPORTED for a state directory this version cannot read, CONFIG_INVALID for a
 * directory of something else, DENIED without the rights; nothing was touched then.
 */
declare function openDirectoryState(path: string, options?: DirectoryStateOptions): Promise<StateStore>;
/** What a user writes to name a disk. Holds no secret, so that it may be printed and recorded. */
interface DiskUri {
  /** In lower case; `local` for a plain path. */
  readonly scheme: string;
  /** The text as it was given, a plain path included. */
  readonly text: string;
}
/**
 * Reads the name of a disk: `scheme:…`, or a path (`disk.raw`, `./disk.raw`, `/dev/vdb`, `C:\disk.raw`), which belongs to
 * the scheme `local`. A file whose name looks like a URI is named by `./name`.
 * @throws ProviderError CONFIG_INVALID when it is empty, malformed or carries a secret.
 */
declare function parseUri(text: string): DiskUri;
/** A URI and the provider that answers to it. */
interface ResolvedUri {
  uri: DiskUri;
  definition: ProviderDefinition;
  /** What the provider's `fromUri` made of it, not validated yet. */
  options: unknown;
}
/** The providers that a program knows, by name and by URI scheme. */
declare class Registry {
  #private;
  constructor(definitions?: Iterable<ProviderDefinition>);
  /**
   * Adds a provider; the very same one again changes nothing.
   * @throws ProviderError EXISTS when its name or a scheme is taken, UNSUPPORTED or CONFIG_INVALID when it is not valid.
   */
  register(definition: ProviderDefinition): this;
  /** The provider of this name. @throws ProviderError NOT_FOUND naming those that are there, and the package to install. */
  get(name: string): ProviderDefinition;
  has(name: string): boolean;
  /** All providers, in the order of their registration. */
  list(): readonly ProviderDefinition[];
  /** All URI schemes that can be resolved. */
  schemes(): readonly string[];
  /**
   * Finds the provider of a disk named by a URI or path, and the options it stands for.
   * @throws ProviderError CONFIG_INVALID when the URI is not valid, holds a secret or has an unknown scheme.
   */
  resolve(text: string): ResolvedUri;
}
/**
 * Checks the options and opens the provider as a source.
 * @throws ProviderError UNSUPPORTED when it is none, CONFIG_INVALID when the options are not valid, and whatever the
 * provider rejects with.
 */
declare function openSource<Config, Options>(definition: ProviderDefinition<Config, Options>, options: NoInfer<Options>, context?: ProviderContext): Promise<SourceConnector>;
/** The same as {@link openSource} for a target. */
declare function openTarget<Config, Options>(definition: ProviderDefinition<Config, Options>, options: NoInfer<Options>, context?: ProviderContext): Promise<TargetProvider>;
interface LoadOptions {
  /** The user's project: a folder, or `import.meta.url` of one of its modules. Default: the working folder. */
  from?: string | URL | undefined;
}
/**
 * Loads a provider: a package by its name, by the name of a provider of this project (`aws-ebs`) or by a path; or checks
 * a definition that is at hand. What the package says of itself is judged before any of its code runs.
 * @throws ProviderError NOT_FOUND when it is not installed, UNSUPPORTED when it is written for another spec,
 * CONFIG_INVALID when it is no provider; each with the command that helps.
 */
declare function loadProvider(provider: string | ProviderDefinition, options?: LoadOptions): Promise<ProviderDefinition>;
/** An installed package that calls itself a provider. */
interface DiscoveredProvider {
  package: string;
  version: string | undefined;
  directory: string;
  /** The provider's name; absent where the package does not tell. */
  name: string | undefined;
  spec: string | undefined;
  /** Why it cannot be loaded; absent when it can, as far as its package.json tells. */
  problem: string | undefined;
}
/**
 * Lists the installed packages with the keyword `diskferry-provider` that a project can load, sorted by package name.
 * None of their code runs. Of a package that is installed several times, the one that an import finds is listed.
 */
declare function discoverProviders(options?: LoadOptions): Promise<DiscoveredProvider[]>;
/** A provider of this project, so that an error can name the package that is missing. */
interface KnownProvider {
  readonly name: string;
  readonly package: string;
  readonly schemes: readonly string[];
}
/** The providers published together with core. Others are found by their own packages alone. */
declare const knownProviders: readonly KnownProvider[];
/** One thing that is wrong with a provider's options. */
interface ConfigProblem {
  /** Where, from the options on; empty for the whole. */
  path: readonly PropertyKey[];
  /** What; values of secret options never appear in it. */
  message: string;
}
/** Everything a provider's own schema finds wrong with options; nothing where they are valid. */
declare function configProblems(definition: ProviderDefinition, options: unknown): Promise<ConfigProblem[]>;
/**
 * Checks options against a provider's own schema and returns what the provider works with.
 * @throws ProviderError CONFIG_INVALID listing every issue with its path; values of secret options never appear in it.
 */
declare function validateConfig<Config>(definition: ProviderDefinition<Config>, options: unknown): Promise<Config>;
/** A path into nested options in words: `targets[0].host`; `(options)` for the whole. */
declare function formatPath(path: readonly PropertyKey[]): string;
/**
 * A copy of configuration data in which `${NAME}` inside strings, at any depth, is replaced by the environment's
 * variable of that name. `$${NAME}` stands for the text `${NAME}`. Names of members are left alone, and what came from
 * a variable is not looked at again.
 * @throws ProviderError CONFIG_INVALID naming every variable that is not set, with the paths where it is used.
 */
declare function expandEnvironment(value: unknown, env?: Readonly<Record<string, string | undefined>>): unknown;
/**
 * Whether a member or parameter of this name is likely to hold a secret: `password`, `apiKey`, `X-Amz-Signature`; not
 * `tls-psk-file`, which names a place. Errs on the side of yes.
 */
declare function isSecretName(name: string): boolean;
/**
 * A URI with what may be secret replaced by `***`: the password of its user part and the values of parameters with
 * secret names, in query and fragment. For text that is shown although it was refused; works on anything.
 */
declare function redactUri(text: string): string;
/** The versions of the provider contract that this core can work with, oldest first. */
declare const supportedSpecs: readonly string[];
/**
 * When copying is allowed: `22:00-06:00`, `Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00`. A window that ends before it
 * begins crosses midnight; its weekdays are those on which it opens. It is open while a clock on the wall of its time
 * zone shows a time from its beginning to just before its end, also on the days when clocks change: an hour that is
 * skipped is not made up for, and one that comes twice counts twice.
 */
declare class BackupWindow {
  #private;
  /** The IANA time zone it is read in. */
  readonly timeZone: string;
  private constructor();
  /**
   * Reads a window from text. `timeZone` is an IANA name such as `Europe/Berlin`; the machine's own where absent.
   * @throws ProviderError CONFIG_INVALID
   */
  static parse(text: string, options?: {
    timeZone?: string | undefined;
  }): BackupWindow;
  /** Whether it is open at `at`, in milliseconds since 1970 UTC. */
  isOpen(at: number): boolean;
  /** The first moment from `at` on when it is open: `at` itself when it is. Milliseconds since 1970 UTC. */
  nextOpen(at: number): number;
  /** The first moment from `at` on when it is closed; Infinity when it never closes. Milliseconds since 1970 UTC. */
  nextClose(at: number): number;
  /** In words, with the time zone. */
  toString(): string;
}
/**
 * A gate that is open while a backup window is. The window can be changed or taken away while calls wait. Disposing
 * ends its timer, which keeps the process alive only while somebody waits.
 */
declare class WindowGate implements Gate, Disposable {
  #private;
  readonly phase = "waiting";
  constructor(window?: BackupWindow, options?: {
    clock?: Clock | undefined;
  });
  get window(): BackupWindow | undefined;
  get open(): boolean;
  /** When it opens or closes next, in milliseconds since 1970 UTC; Infinity when never. */
  get nextChange(): number;
  /** Puts another window in force; without one the gate is open. */
  set(window: BackupWindow | undefined): void;
  wait(wait?: Wait): Promise<void>;
  listen(listener: (open: boolean) => void): () => void;
  [Symbol.dispose](): void;
}
/** A key from its parts, each of which may be any string that is not empty, such as a URI: encoded and joined by `/`. */
declare function stateKey(...parts: readonly string[]): string;
/** The parts of a key that {@link stateKey} built. @throws RangeError for a string that is no key. */
declare function keyParts(key: string): string[];
/** Milliseconds. Quantiles are at most 12.5 % above the true value; all are 0 where nothing was recorded. Plain JSON. */
interface LatencySummary {
  count: number;
  mean: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
}
/** What one kind of call did so far. Plain JSON. */
interface CallMetrics {
  side: Call["side"];
  method: CallMethod;
  /** Attempts that ended, well or not. */
  calls: number;
  /** Attempts under way. */
  inFlight: number;
  /** Bytes of attempts that succeeded. */
  bytes: number;
  errors: number;
  /** The same by ProviderError code; `ABORTED` and `UNEXPECTED` stand for what has none. */
  errorsByCode: Record<string, number>;
  /** Attempts after the first. */
  retries: number;
  /** Milliseconds of attempts that succeeded. */
  latency: LatencySummary;
  /** Bytes over the time from the first attempt's start to the last one's end. */
  mibPerSecond: number;
}
/** Everything a metrics layer counted. Plain JSON. */
interface MetricsSnapshot {
  /** Milliseconds since counting began. */
  elapsedMs: number;
  calls: CallMetrics[];
}
/** What is counted of an attempt that did not pass through the layer, because it happened in another thread. */
interface CountedAttempt {
  side: Call["side"];
  method: CallMethod;
  bytes: number;
  elapsedMs: number;
  attempt: number;
  /** Absent: it succeeded. */
  code?: string | undefined;
}
/** Counts calls, bytes, errors, retries and latencies by side and method; inside the retry layer, so that each attempt counts. */
declare class Metrics {
  #private;
  constructor(options?: {
    clock?: Clock | undefined;
  });
  readonly layer: Layer;
  /** Counts an attempt that ended just now elsewhere. */
  record(attempt: CountedAttempt): void;
  snapshot(): MetricsSnapshot;
}
/**
 * What goes wrong. `error` instead of the call, or after it was done (an answer that was lost); `hang` never answers,
 * and does not stop when aborted where it is `deaf`; `corrupt` turns one bit over in what is read or written and
 * reports success.
 */
type Fault = {
  kind: "error";
  code?: ProviderErrorCode;
  when?: "before" | "after";
  retryAfterMs?: number;
  error?: Error;
} | {
  kind: "delay";
  delayMs: number;
} | {
  kind: "hang";
  deaf?: boolean;
} | {
  kind: "corrupt";
};
/** When a fault strikes. Every condition that is given must hold. */
interface FaultRule {
  fault: Fault;
  method?: CallMethod | undefined;
  side?: Call["side"] | undefined;
  /** The numbers of the attempts it strikes, among those that the rule's method and side admit; the first is 1. */
  at?: readonly number[] | undefined;
  /** Chance per attempt. */
  probability?: number | undefined;
  /** How often it strikes at most. */
  times?: number | undefined;
}
interface FaultsOptions {
  /** The first that strikes counts. */
  rules: readonly FaultRule[];
  /** Numbers in [0, 1), from the test's seed. */
  random?: (() => number) | undefined;
  clock?: Clock | undefined;
  /** Told of every fault that struck. */
  onFault?: ((call: Call, fault: Fault) => void) | undefined;
}
/** Makes calls fail, hang, wait or lie by plan, for tests; innermost, in the place of a bad network or disk. */
declare function faults(options: FaultsOptions): Layer;
interface VerifyOptions$1 {
  /** Reads what was written: a writer's `read`. */
  read: (offset: number, into: Uint8Array, wait?: Wait) => Promise<void>;
}
/**
 * Reads back every write and zero and compares all of its bytes, for runs that trust nothing; a target is then read as
 * much as it is written. One buffer of the written length per call under way.
 * @throws ProviderError CORRUPT naming the first byte that differs.
 * @throws TypeError when a write comes without its data: what cannot be compared must not pass as compared.
 */
declare function verifyWrites(options: VerifyOptions$1): Layer;
/** Which run, and which disk of it, a message is about. */
interface RunScope {
  job?: string | undefined;
  run?: string | undefined;
  machine?: string | undefined;
  disk?: string | undefined;
}
/** Messages of single moments, by channel name. */
interface ChannelMessages {
  "diskferry:replication-start": RunScope & {
    disks: number;
  };
  "diskferry:replication-end": RunScope & {
    outcome: "done" | "paused" | "failed";
    metrics?: RunMetrics | undefined;
  };
  "diskferry:transfer-start": RunScope & {
    mode: string;
    reason?: string | undefined;
    totalBytes: number;
  };
  "diskferry:transfer-end": RunScope & {
    outcome: "done" | "paused" | "failed";
    movedBytes: number;
  };
  /** A run resumes one that ended early. */
  "diskferry:transfer-resume": RunScope & {
    doneBytes: number;
    totalBytes: number;
  };
  "diskferry:snapshot-take": RunScope & {
    snapshot: string;
    consistency: Consistency;
    takenAt: string;
  };
  "diskferry:snapshot-release": RunScope & {
    snapshot: string;
  };
  /** A policy applied because something better was not possible; no fallback is silent. */
  "diskferry:fallback-take": RunScope & {
    from: string;
    to: string;
    reason: string;
  };
  "diskferry:journal-write": RunScope & {
    durableBytes: number;
  };
  "diskferry:record-write": RunScope & {
    root?: string | undefined;
  };
  /** An attempt failed and another follows. */
  "diskferry:call-retry": CallMessage & {
    code: ProviderErrorCode;
    message: string;
    delayMs: number;
  };
  /** A pause or backup window opened or closed. */
  "diskferry:gate-change": RunScope & {
    phase: "paused" | "waiting";
    open: boolean;
  };
  /** How busy the source's host is while a run copies from it. */
  "diskferry:load-report": RunScope & SourceLoad;
  "diskferry:progress-report": ProgressReport;
}
/** One attempt of a call. */
interface CallMessage extends RunScope {
  side: Call["side"];
  method: CallMethod;
  offset?: number | undefined;
  length?: number | undefined;
  attempt: number;
}
/**
 * Operations that take time, by name: each is a tracing channel of Node (`tracing:diskferry:block-read:start`,
 * `:end`, `:asyncStart`, `:asyncEnd`, `:error`) whose message is shared by all of its events.
 */
interface TraceMessages {
  "diskferry:block-read": CallMessage;
  "diskferry:block-write": CallMessage;
  "diskferry:block-zero": CallMessage;
  "diskferry:block-digest": CallMessage;
  "diskferry:target-flush": CallMessage;
  "diskferry:volume-commit": CallMessage;
  /** Every other method of a call. */
  "diskferry:provider-call": CallMessage;
  "diskferry:disk-verify": RunScope;
  "diskferry:machine-launch": RunScope & {
    purpose: "test" | "cutover";
  };
}
/** Listens to a channel; the result ends it. */
declare function listen<Name extends keyof ChannelMessages>(name: Name, listener: (message: ChannelMessages[Name]) => void): () => void;
export { type AttemptPolicy, type AuditOptions, type AuditReport, BackupWindow, BlockReader, BlockStream, type BlockStreamOptions, type BlockWriter, type Call, type CallMethod, type CanaryReport, type ChangeTracker, type ChangesOptions, type ChannelMessages, type Checkpoint, type CleanupOptions, type CleanupReport, type ConfigProblem, type Consistency, type Cost, CrashOptions, type CreateRequest, type CutoverOptions, type CutoverReport, type CutoverState, DigestAlgorithm, type DirectoryStateOptions, type DiscoveredProvider, type Disk, type DiskAudit, type DiskPlan, type DiskProgress, type DiskReport, type DiskSnapshot, type DiskUri, type DiskVerification, Extent, type Fallback, type FaultRule, type Figure, type Finding, type Gate, Geometry, type Job, type JobOptions, type JobStatus, Json, JsonObject, type KnownProvider, Lane, LaneWriter, type LaunchDisk, type LaunchOptions, type LaunchRequest, type LaunchedMachine, type Layer, type Lease, Limits, type LoadCounter, type LoadOptions, type LoadSummary, type Machine, type MachineSpec, type MemoryCall, MemoryConfig, type MemoryHook, type MemoryMachine, MemoryPlace, MemoryPlaceOptions, type MemoryReaderOptions, type MemorySourceOptions, MemoryStateStore, type MemoryTargetOptions, type MemoryTrackerOptions, type MemoryTraffic, type MemoryWriterOptions, Metrics, type MetricsSnapshot, type NetworkCard, type OpenRequest, type OwnedResource, type Plan, type PlannedDisk, type PowerState, type Preflight, type PreflightRequest, type ProgressReport, ProviderContext, ProviderDefinition, ProviderError, ProviderErrorCode, ProviderErrorOptions, ReadOptions, ReaderLaneModule, type Receipt, type ReceiptFacts, type ReceiptVerdict, Registry, type ResolvedUri, type RunMode, type RunOptions, type RunReport, type RunTicket, type SliceOptions, type SliceReport, type Snapshot, type SnapshotRequest, type SourceConnector, type SourceLoad, type StateRecord, type StateStore, type StreamBlock, type TargetPreflightRequest, type TargetProvider, Tile, TileKind, type TraceMessages, type TrackerStatus, type TrackingFault, TrackingFaultScope, type TrackingLostPolicy, type TransferOptions, type VerificationReport, type VerifyMode, type VerifyOptions, type VerifyReceiptOptions, type Volume, type Wait, WindowGate, type WriteOptions, WriterLane, WriterLaneModule, type WrittenExtent, audit, beginRun, blockStream, cleanup, compose, configProblems, copyInto, cutover, defineProvider, discoverProviders, expandEnvironment, faults, finalizeCutover, formatPath, isAbort, isProviderError, isSecretName, issueReceipt, keyParts, knownProviders, launch, listen, loadProvider, memoryPlace, openDirectoryState, openSource, openTarget, parseUri, plan, preferredAlgorithm, redactUri, replicate, revertCutover, stateKey, status, supportedSpecs, terminate, transfer, transferSlice, validateConfig, verify, verifyReceipt, verifyWrites };