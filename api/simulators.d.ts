import "node:http";
/** What a fault does to the request it meets. */
type AwsFault = "throttle" | "resource-throttle" | "internal-error" | "unavailable" | "hang" | "reset" | "truncate" | "flip" | "empty" | "read-failed" | "write-timeout" | "expired-block-token" | "expired-page-token" | "expired-credentials" | "clock-skew";
/** Which requests meet a fault; every condition given must hold. */
interface AwsFaultRule {
  fault: AwsFault;
  /** An operation's name (`PutSnapshotBlock`, `CreateVolume`); absent means every operation. */
  operation?: string;
  /** Numbers of the operation's calls, from 1, first and last included. */
  calls?: {
    first: number;
    last: number;
  };
  /** From 0 to 1, drawn from the plan's seed; 1 when absent. */
  probability?: number;
  /** How often the rule strikes at most; without it, without end. */
  times?: number;
}
/** Decides by operation, call number and a seeded chance which requests go wrong, and counts calls. */
declare class FaultPlan {
  #private;
  constructor(seed: number);
  /** Adds a rule; earlier rules are asked first. */
  add(rule: AwsFaultRule): void;
  /** Forgets all rules; the counters go on. */
  clear(): void;
  /** Requests seen so far of each operation, whatever became of them. */
  counters(): Record<string, number>;
  /** Counts one call and says which fault it meets, if any. */
  next(operation: string): AwsFault | undefined;
}
/** Keys that sign requests for one account. */
interface AwsCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary credentials: has to come with each request. */
  sessionToken?: string;
  accountId: string;
  /** Milliseconds since 1970 by the simulator's clock; absent means for ever. */
  expiresAt?: number;
}
/** How long things take, in milliseconds of the simulator's clock. */
interface AwsDelays {
  /** From StartSnapshot until PutSnapshotBlock knows the snapshot. */
  startVisibleMs: number;
  /** From CompleteSnapshot or CreateSnapshot until `completed`. */
  completeMs: number;
  /** From `completed` until the list calls know the snapshot. */
  listableMs: number;
  /** Of a detach, an attach, an instance's start or stop, and a copy. */
  changeMs: number;
}
/** How a simulator starts; everything has a default. */
interface AwsSimulatorOptions {
  /** 0 or absent: any free port of 127.0.0.1. */
  port?: number;
  /** Keys of the accounts; by default accounts 111111111111 and 222222222222 with one permanent key each. */
  credentials?: AwsCredentials[];
  /** Multiplies AWS's default quotas; Infinity lifts them. 1 by default. */
  quotaScale?: number;
  /** Multiplies the quotas per account once more; 1 by default. */
  accountQuotaScale?: number;
  delays?: Partial<AwsDelays>;
  /** Each n-th list page is empty with a next token; 0 for none, 5 by default. */
  emptyPageEvery?: number;
  /** Unchanged blocks whose index divides by this are reported as changed too; 0 for none (default). */
  overReportEvery?: number;
  /** A new listing makes the block tokens of earlier listings of the snapshot invalid; off by default. */
  strictTokens?: boolean;
  /** Computes the digests of a guest's writes at the write instead of the first read. */
  precomputeDigests?: boolean;
  /** Milliseconds each answer waits; 0 by default. */
  latencyMs?: number;
  /** Of the fault plan's chances; 1 by default. */
  seed?: number;
  /** The region of the two ready instances; us-east-1 by default. */
  region?: string;
}
/** A running simulator and its back door; stop it with `close()` or `await using`. */
interface AwsSimulator extends AsyncDisposable {
  readonly endpoint: string;
  readonly credentials: readonly AwsCredentials[];
  /** Ids of the two instances that stand ready. */
  readonly instances: {
    readonly linux: string;
    readonly windows: string;
  };
  readonly faults: FaultPlan;
  /** Ids of an instance's volumes, the root first. */
  volumesOf(instanceId: string): string[];
  /** The guest's hand on a volume of a running instance. @throws Error when it is not attached to one */
  writeVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  trimVolume(volumeId: string, offset: number, length: number): Promise<void>;
  volumeBytes(volumeId: string, offset: number, length: number): Promise<Buffer>;
  snapshotBytes(snapshotId: string, offset: number, length: number): Promise<Buffer>;
  /** Grows a volume, as ModifyVolume does. */
  growVolume(volumeId: string, sizeGib: number): void;
  archiveSnapshot(snapshotId: string): void;
  /** Moves the clock, so that tokens, credentials and timeouts run out. */
  advance(milliseconds: number): void;
  encryptByDefault(accountId: string, region: string, on: boolean): void;
  /** Denies an action such as `ebs:PutSnapshotBlock` to an account. */
  deny(accountId: string, action: string): void;
  /** Makes KMS refuse a key. */
  denyKey(kmsKeyId: string): void;
  addCredentials(credentials: AwsCredentials): void;
  close(): Promise<void>;
}
/** Starts EC2 and EBS on 127.0.0.1; the region and service of a request are those of its signature. */
declare function startAwsSimulator(options?: AwsSimulatorOptions): Promise<AwsSimulator>;
/** Releases that can be simulated. */
type ReleaseName = "6.0" | "6.5" | "6.7" | "7.0" | "8.0" | "8.0.1" | "8.0.2" | "8.0.3" | "9.0";
/** Part of a disk as a listing reports it. */
interface Area {
  start: number;
  length: number;
}
/**
 * One file of a disk's chain: the base disk, or a delta that holds what was written since a snapshot and lets the rest
 * shine through from its parent. The bytes are in a sparse file that exists from the first write on; beside them a layer
 * knows for each 64 KiB the change sequence of its last write, 0 where no tracker saw one.
 */
declare class DiskLayer {
  #private;
  /** The name on the datastore: `[datastore1] web/web-000001.vmdk`. */
  readonly fileName: string;
  /** The sparse file; a base layer's is the raw content of its `-flat.vmdk`. */
  readonly path: string;
  parent: DiskLayer | undefined;
  capacity: number;
  constructor(fileName: string, path: string, capacity: number, parent?: DiskLayer);
  /** How many layers the chain has, this one included. */
  get depth(): number;
  /** Fills `into` with the chain's bytes from `offset` on. */
  read(offset: number, into: Uint8Array): void;
  /** Writes into this layer; `sequence` marks the grains as changed. */
  write(offset: number, bytes: Uint8Array, sequence: number): void;
  /** Makes a range read as zeroes; whole grains become unallocated. */
  trim(offset: number, length: number, sequence: number): void;
  /** Marks a range as changed as if the guest had written the bytes that are there already; costs no space. */
  touch(offset: number, length: number, sequence: number): void;
  /** Forgets every change sequence of the chain, as a reset of the tracker does. */
  forgetSequences(): void;
  /**
   * Takes over what a delta on top of this layer holds and removes the delta's file. `keepsSequence` is asked for each
   * changed grain and says whether its mark survives.
   */
  absorb(delta: DiskLayer, keepsSequence: (grain: number) => boolean): void;
  /**
   * Lists ascending, disjoint areas of [start, end) of whole blocks of `granularity` in which a grain is of interest, at
   * most `limit` of them. `covered` is where the listing stopped: `end` unless the limit was met.
   */
  areas(kind: {
    allocated: true;
  } | {
    since: number;
  }, range: {
    start: number;
    end: number;
    limit: number;
    granularity: number;
  }, also?: (block: number) => boolean): {
    areas: Area[];
    covered: number;
  };
  /** Bytes that this layer's file holds. */
  get allocatedBytes(): number;
  /** Makes the file exist with its full length, for those who read it by themselves. */
  materialize(): string;
  /** Closes and removes the file. */
  discard(): void;
  /** Closes the file and keeps it. */
  close(): void;
}
/** How a disk of a simulated machine is made. */
interface DiskSpec {
  /** Bytes, a multiple of 512. */
  readonly size: number;
  /** A thin disk, the default; only one on VMFS answers `*` with what is allocated. */
  readonly thin?: boolean;
  /** `persistent` unless given; the independent modes have neither snapshots nor change tracking. */
  readonly mode?: "persistent" | "independent_persistent" | "independent_nonpersistent";
  /** `flat` unless given; a physical mapping has neither snapshots nor change tracking. */
  readonly backing?: "flat" | "rdm-virtual" | "rdm-physical";
  /** Shared by several machines, which excludes change tracking. */
  readonly shared?: boolean;
  /** `false` leaves this disk out when the machine's tracking is enabled (its own `ctkEnabled` flag). */
  readonly tracked?: boolean;
}
/** The tracker's point in time that a snapshot recorded for one disk. */
interface ChangeId {
  readonly epoch: string;
  readonly sequence: number;
}
/** What a disk was when a snapshot was made. */
interface DiskState {
  readonly disk: VirtualDisk;
  layer: DiskLayer;
  readonly capacity: number;
  readonly changeId: ChangeId | undefined;
}
/** Bugs of old releases that can be switched on. */
type TrackingBug = "changes-lost-in-consolidation" | "wrong-areas-after-growth";
/** How change tracking answers, for every disk of a simulator. */
interface TrackingRules {
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
  /** Whether the datastore is VMFS, where alone `*` lists what is allocated (VDDK guide, "About CBT"). */
  readonly wildcardValid: boolean;
  /** What `*` does where it is not valid: one area over everything, or a fault. */
  readonly wildcardElsewhere: "whole-disk" | "fault";
  /** Whether the snapshot whose creation was the stun that began tracking already carries a change id. */
  readonly firstSnapshotIsTracked: boolean;
  readonly bugs: ReadonlySet<TrackingBug>;
}
/** A virtual disk: its chain of layers and its change tracker. */
declare class VirtualDisk {
  #private;
  readonly key: number;
  readonly unitNumber: number;
  readonly uuid: string;
  readonly spec: DiskSpec;
  /** Where the guest writes. */
  current: DiskLayer;
  /** The machine's flag or the disk's own asks for tracking; it begins at the next stun without snapshots. */
  wanted: boolean;
  /** The running tracker; undefined: the disk is not tracked. */
  tracker: {
    epoch: string;
    sequence: number;
    wildcardValid: boolean;
  } | undefined;
  constructor(spec: DiskSpec, place: {
    key: number;
    unitNumber: number;
    folder: string;
    baseName: string;
  }, rules: TrackingRules, newUuid: () => string);
  /** Bytes. */
  get capacity(): number;
  /** Whether a snapshot takes this disk along. */
  get snapshotted(): boolean;
  /** Whether the platform can track this disk (KB 320557). */
  get trackable(): boolean;
  /** The sequence that the guest's writes get now; 0 without a tracker. */
  get sequence(): number;
  /** Bytes of a block in which changes are reported. */
  get granularity(): number;
  /** A stun: tracking that was asked for begins, tracking no longer wanted ends. Both need a disk without deltas. */
  stun(): void;
  /** Begins a new epoch: every change id from before is refused. */
  reset(): void;
  /** Freezes the current layer for a snapshot and lets the guest write to a new one. */
  freeze(): DiskState;
  /** Continues on a new, empty delta over `layer`. */
  branchFrom(layer: DiskLayer): void;
  /** Merges the delta `child` into its parent `layer`, which keeps its file. */
  merge(layer: DiskLayer, child: DiskLayer): void;
  /** Grows the disk; tracking starts anew, except with the bug of KB 2090639. */
  grow(size: number): void;
  /**
   * QueryChangedDiskAreas over one layer of this disk.
   *
   * @throws VimFault FileFault where the tracker cannot answer, InvalidArgument for an offset outside the disk
   */
  changedAreas(state: {
    layer: DiskLayer;
    capacity: number;
    changeId: ChangeId | undefined;
  }, startOffset: number, since: string): {
    startOffset: number;
    length: number;
    areas: Area[];
  };
}
/** What the guest's VMware Tools are doing. */
type ToolsState = "running" | "not-running" | "not-installed";
/** A machine's power state as vim25 names it. */
type PowerState = "poweredOn" | "poweredOff" | "suspended";
/** What becomes of a quiesced snapshot. */
type QuiesceOutcome = "quiesced" | "ignored" | "application-fault" | "filesystem-fault";
/** How a simulated machine is made. */
interface MachineSpec {
  readonly name: string;
  readonly disks: readonly DiskSpec[];
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
  /** The virtual hardware version, the release's newest unless given; tracking needs 7. */
  readonly hardware?: number;
  readonly template?: boolean;
  readonly nics?: readonly {
    readonly mac: string;
    readonly network?: string;
  }[];
  /** Tracking enabled and running from the start. */
  readonly tracking?: boolean;
  readonly instanceUuid?: string;
  readonly biosUuid?: string;
}
/** A snapshot of a machine: its place in the tree and what each disk was. */
interface Snapshot {
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
}
/** What quiescing was asked of a snapshot. */
interface SnapshotWish {
  readonly name: string;
  readonly description: string;
  readonly quiesce: boolean;
}
/** A virtual machine with its disks, snapshots, power state and guest. Methods throw `VimFault`s as vCenter would. */
declare class VirtualMachine {
  #private;
  readonly id: string;
  readonly spec: MachineSpec;
  readonly disks: ReadonlyMap<number, VirtualDisk>;
  readonly instanceUuid: string;
  readonly biosUuid: string;
  readonly hardware: number;
  name: string;
  power: PowerState;
  tools: ToolsState;
  quiesce: QuiesceOutcome | undefined;
  obeysShutdown: boolean;
  template: boolean;
  /** `config.changeTrackingEnabled`. */
  trackingEnabled: boolean;
  /** A question that blocks power operations until AnswerVM. */
  question: {
    id: string;
    text: string;
  } | undefined;
  /** Let the next consolidations leave their deltas behind, as a locked file does. */
  consolidationFails: boolean;
  /** Called when a quiesced snapshot freezes the guest, before the snapshot is made: the guest's last writes. */
  onFreeze: (() => void) | undefined;
  readonly roots: Snapshot[];
  currentSnapshot: Snapshot | undefined;
  constructor(id: string, spec: MachineSpec, place: {
    folder: string;
    datastore: string;
    hardware: number;
  }, rules: TrackingRules, newUuid: () => string);
  /** Whether the machine's hardware can track changes (KB 320557: version 7 or newer). */
  get trackingSupported(): boolean;
  /** Whether a delta is left that no snapshot owns. */
  get consolidationNeeded(): boolean;
  /** Every snapshot, parents first. */
  snapshots(from?: readonly Snapshot[]): Generator<Snapshot>;
  /** Sets the machine's flag and that of every disk that can be tracked; it takes effect at the next stun. */
  setTracking(enabled: boolean): void;
  /** What a stun does to every disk. */
  stun(): void;
  /** Makes a snapshot of every persistent disk at one instant. */
  snapshot(wish: SnapshotWish, id: string): Snapshot;
  /** Removes a snapshot, merging what was written after it into what it froze. */
  removeSnapshot(snapshot: Snapshot, options: {
    removeChildren: boolean;
    consolidate: boolean;
  }): void;
  /** Merges every delta that no snapshot owns. */
  consolidate(): void;
  /** Throws away what was written since the snapshot; trackers begin anew. */
  revert(snapshot: Snapshot): void;
  /** Powers on: a stun, which starts wanted tracking. */
  powerOn(): void;
  /** Cuts the power: an unclean close resets the trackers (KB 432633). */
  powerOff(): void;
  /** Suspends: a stun. */
  suspend(): void;
  /** A clean shutdown by the guest; trackers go on. */
  shutDown(): void;
  /** Checks what ShutdownGuest needs. */
  demandTools(): void;
  /** Grows a disk, which only a machine without snapshots allows. */
  grow(key: number, size: number): void;
  /** Releases the files. */
  discard(): void;
}
/**
 * A value of the vim25 type system, written as XML for SOAP and as JSON for VI/JSON. A number is an `xsd:int`; a larger
 * type is said by `long`. A list is written as a repeated element, or as `ArrayOf…` where its type is not declared.
 */
type VimValue = string | number | boolean | Date | Reference | Data | Enumerated | Long | List | Any;
/** The fields of a data object in the order of the schema; absent ones are left out. */
type Fields = Record<string, VimValue | undefined>;
/** A managed object reference ("moref"). */
declare class Reference {
  readonly type: string;
  readonly id: string;
  constructor(type: string, id: string);
}
/** A data object; `explicit` ones stand where a base type is declared and so carry their type in XML. */
declare class Data {
  readonly type: string;
  readonly fields: Fields;
  readonly explicit: boolean;
  constructor(type: string, fields: Fields, explicit: boolean);
}
/** A value of an enumeration, whose type is written where `anyType` is declared. */
declare class Enumerated {
  readonly type: string;
  readonly value: string;
  constructor(type: string, value: string);
}
/** An `xsd:long`. */
declare class Long {
  readonly value: number;
  constructor(value: number);
}
/** A list of values of one declared type. */
declare class List {
  readonly itemType: string;
  readonly items: readonly VimValue[];
  constructor(itemType: string, items: readonly VimValue[]);
}
/** A value where the schema declares `anyType`: it always carries its type. */
declare class Any {
  readonly value: VimValue;
  constructor(value: VimValue);
}
/** `count` machines of one empty 8 GiB disk each, in folders of a hundred, for tests of large inventories. */
declare function generateMachines(count: number): MachineSpec[];
/** A server's certificate for 127.0.0.1 and localhost with its key, and the authority that signed it. */
interface ServerCertificate {
  readonly key: string;
  readonly certificate: string;
  /** The authority in PEM, for a client to trust. */
  readonly authority: string;
  /** SHA-1 in capital hexadecimal with colons, as vSphere calls a thumbprint. */
  readonly sha1: string;
  readonly sha256: string;
}
/** What goes wrong when a rule applies. */
type FaultAction = {
  readonly kind: "fault";
  readonly type: string;
  readonly message?: string;
  readonly fields?: Fields;
} | {
  readonly kind: "task-fault";
  readonly type: string;
  readonly message?: string;
  readonly fields?: Fields;
} | {
  readonly kind: "hang";
} | {
  readonly kind: "drop";
} | {
  readonly kind: "drop-after";
} | {
  readonly kind: "delay";
  readonly ms: number;
} | {
  readonly kind: "status";
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
} | {
  readonly kind: "truncate";
  readonly bytes: number;
  readonly clean: boolean;
} | {
  readonly kind: "expire-sessions";
} | {
  readonly kind: "run";
  readonly run: () => void | Promise<void>;
};
/** When something goes wrong. */
interface FaultRule {
  /** A method's name (`QueryChangedDiskAreas`), a path with its verb (`GET /folder`, `GET /nfc`), or `*` for any. */
  readonly method: string;
  /** Only these calls of the method, counted from 1 since the simulator's start. */
  readonly calls?: readonly number[];
  /** Only with this probability, from the plan's seed. */
  readonly probability?: number;
  /** At most so often. */
  readonly times?: number;
  readonly action: FaultAction;
}
/** How types are written: vCenter's `xsi:type`, or with a prefix declared on the spot as another server does. */
type TypeDialect = "xsi" | "local-prefix";
/** How a simulated vCenter, or a bare ESXi host, behaves; every member has a default. */
interface VcenterSimulatorOptions {
  readonly version?: ReleaseName;
  readonly kind?: "vcenter" | "esxi";
  readonly machines?: readonly MachineSpec[];
  /** `administrator@vsphere.local` unless given. */
  readonly userName?: string;
  /** `password` unless given. */
  readonly password?: string;
  /** `false` serves plain HTTP, for tests without the `openssl` program; `expired` a certificate past its time. */
  readonly tls?: boolean | "expired";
  /** 0, the default: any free port. */
  readonly port?: number;
  /** Privileges that the user lacks, by id. */
  readonly missingPrivileges?: readonly string[];
  readonly datacenter?: string;
  readonly datastore?: string;
  /** `VMFS` unless given; elsewhere `*` is no list of what is allocated. */
  readonly datastoreType?: "VMFS" | "NFS" | "vsan";
  /** Bytes. */
  readonly freeSpace?: number;
  /** The vCenter's instance UUID. */
  readonly instanceUuid?: string;
  /** Milliseconds that tasks take: all, or by method; 0 unless given. */
  readonly taskMs?: number | Readonly<Record<string, number>>;
  /** Milliseconds that a guest takes to shut down; 0 unless given. */
  readonly shutdownMs?: number;
  /** Milliseconds after which an idle session ends; 30 minutes unless given. */
  readonly sessionIdleMs?: number;
  readonly sessionLimit?: number;
  /** Objects in one answer of RetrievePropertiesEx; 500 unless given. */
  readonly pageSize?: number;
  /** Areas in one answer of QueryChangedDiskAreas; 2000 unless given. */
  readonly areaLimit?: number;
  /** Bytes that one answer of QueryChangedDiskAreas covers; a quarter of the disk (≥ 1 MiB, ≤ 512 GiB) unless given. */
  readonly spanLimit?: number;
  /** Bytes of a tracked block, a multiple of 64 KiB; by the disk's size unless given. */
  readonly granularity?: number;
  /** Share of unchanged blocks reported as changed too. */
  readonly overReport?: number;
  readonly wildcardElsewhere?: "whole-disk" | "fault";
  /** Whether the very snapshot whose creation was the stun that began tracking carries change ids; false unless given. */
  readonly firstSnapshotIsTracked?: boolean;
  readonly bugs?: readonly TrackingBug[];
  /** Seconds without progress after which a lease ends; 300 unless given. */
  readonly leaseTimeoutSeconds?: number;
  readonly leaseInitializeMs?: number;
  /** Whether links of leases name the host as `*`, which the client replaces. */
  readonly wildcardLeaseHost?: boolean;
  /** Bytes per second of exports and datastore files. */
  readonly bytesPerSecond?: number;
  /** How types are written in XML: vCenter's `xsi:type`, or a prefix declared on the spot. */
  readonly xml?: TypeDialect;
  readonly faults?: readonly FaultRule[];
  /** Of the faults with a probability. */
  readonly seed?: number;
}
/** A running simulator: the server, and the hands of the guest, of the administrator and of bad luck. */
interface VcenterSimulator extends AsyncDisposable {
  /** `https://127.0.0.1:port`, without a path. */
  readonly url: string;
  readonly userName: string;
  readonly password: string;
  /** The certificate and its authority; undefined over plain HTTP. */
  readonly tls: Omit<ServerCertificate, "key"> | undefined;
  readonly instanceUuid: string;
  /** Calls so far by method. */
  readonly calls: ReadonlyMap<string, number>;
  /** What is alive now, for tests that nothing is left behind. */
  readonly alive: {
    readonly sessions: number;
    readonly leases: number;
    readonly tasks: number;
  };
  /** Every machine by id. */
  readonly machines: ReadonlyMap<string, VirtualMachine>;
  /** A machine by its id or, where it is unique, by its name. */
  machine(idOrName: string): VirtualMachine;
  addMachine(spec: MachineSpec): VirtualMachine;
  /** The guest writes; the machine must be on. */
  write(machine: string, disk: number, offset: number, bytes: Uint8Array): void;
  /** The guest discards a range, which reads as zeroes from then on. */
  trim(machine: string, disk: number, offset: number, length: number): void;
  /** The guest writes what is there already: changed and allocated without taking space here. */
  touch(machine: string, disk: number, offset: number, length: number): void;
  /** Puts bytes on a disk as if they had been there before anything was tracked. */
  populate(machine: string, disk: number, offset: number, bytes: Uint8Array): void;
  /** Reads a disk as the guest does, or as a snapshot froze it. */
  readDisk(machine: string, disk: number, options: ReadOptions): Uint8Array;
  /** A sparse raw file with the content of a snapshot's disk, for a program that reads it by itself; not to be written. */
  diskPath(snapshot: string, disk: number): string;
  /** Grows a disk, which needs a machine without snapshots. */
  grow(machine: string, disk: number, size: number): void;
  /** A stun without a snapshot, as a migration to another host is. */
  migrate(machine: string): void;
  /** The power fails under a running machine: off, and its trackers start anew. */
  powerFailure(machine: string): void;
  /** Begins a new epoch of change tracking on one disk or on all of a machine. */
  resetTracking(machine: string, disk?: number): void;
  /** A snapshot made by somebody else; its id. */
  takeSnapshot(machine: string, name: string): string;
  /** Somebody else removes a snapshot. */
  removeSnapshot(snapshot: string): void;
  /** Adds a fault; the function returned takes it away. */
  inject(rule: FaultRule): () => void;
  grantPrivilege(id: string): void;
  revokePrivilege(id: string): void;
  expireSessions(): void;
  /** Restarts vCenter: connections cut, sessions, tasks, leases and filters forgotten, refused for `downMs`. */
  reboot(options?: {
    readonly downMs?: number;
  }): Promise<void>;
  /** Stops the server, closes every connection and removes every file. */
  stop(): Promise<void>;
}
/** What to read of a disk; everything where nothing is said. */
interface ReadOptions {
  readonly snapshot?: string;
  readonly offset?: number;
  readonly length?: number;
}
/** Starts a simulated vCenter on 127.0.0.1. */
declare function startVcenterSimulator(options?: VcenterSimulatorOptions): Promise<VcenterSimulator>;
export { type AwsCredentials, type AwsDelays, type AwsFault, type AwsFaultRule, type AwsSimulator, type AwsSimulatorOptions, type DiskSpec, FaultPlan, type MachineSpec, type PowerState, type QuiesceOutcome, type ReadOptions, type ToolsState, type TrackingBug, type FaultAction as VcenterFaultAction, type FaultRule as VcenterFaultRule, type ReleaseName as VcenterReleaseName, type VcenterSimulator, type VcenterSimulatorOptions, type VirtualMachine, generateMachines, startAwsSimulator, startVcenterSimulator };