import "node:http";
import "node:fs/promises";
/** What a fault does to the request it meets. */
type AwsFault = "throttle" | "resource-throttle" | "dependency-throttle" | "quota-exceeded" | "internal-error" | "unavailable" | "no-capacity" | "hang" | "reset" | "truncate" | "flip" | "empty" | "read-failed" | "write-timeout" | "expired-block-token" | "expired-page-token" | "expired-credentials" | "clock-skew";
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
/** A command that Systems Manager ran, or is running, in a guest. */
interface GuestCommand {
  id: string;
  instanceId: string;
  document: string;
  parameters: Readonly<Record<string, readonly string[]>>;
}
/** How a command ends. */
interface GuestOutcome {
  status: "Success" | "Failed" | "TimedOut" | "Cancelled" | "Undeliverable" | "InProgress";
  /** -1 when the command did not end by itself. */
  responseCode?: number;
  output?: string;
  errors?: string;
  /** Of AWSEC2-CreateVssSnapshot: what the tag AppConsistent says; true by default. */
  applicationConsistent?: boolean;
}
/** Plays the guest: called once for each command and instance, when the command begins. */
type Guest = (command: GuestCommand) => GuestOutcome | Promise<GuestOutcome>;
/** Keys that sign requests for one account. */
interface AwsCredentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary credentials: has to come with each request. */
  sessionToken?: string;
  accountId: string;
  /** Milliseconds since 1970 by the simulator's clock; absent means for ever. */
  expiresAt?: number;
  /** Who the keys belong to; absent means a user of the account. */
  arn?: string;
}
/** How long things take, in milliseconds of the simulator's clock. */
interface AwsDelays {
  /** From StartSnapshot until PutSnapshotBlock knows the snapshot. */
  startVisibleMs: number;
  /** From CompleteSnapshot or CreateSnapshot until `completed`. */
  completeMs: number;
  /** From `completed` until the list calls know the snapshot. */
  listableMs: number;
  /** Of each step of a volume, an instance, an image, a copy, an import, a change of tier, and a command in a guest. */
  changeMs: number;
  /** From RunInstances until other calls know the instance, and from SendCommand until its invocation is known. */
  describableMs: number;
}
/** An IAM role. */
interface AwsRole {
  /** Accounts, or services such as `vmie.amazonaws.com`. */
  trusts: readonly string[];
  externalId?: string;
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
  /** false: of blocks put only the digests are kept, so that uploads of any size need no room. */
  keepUploads?: boolean;
  /** Milliseconds each answer waits; 0 by default. */
  latencyMs?: number;
  /** Of the fault plan's chances; 1 by default. */
  seed?: number;
  /** Whether two instances stand ready in the first account; true by default. */
  readyInstances?: boolean;
  /** Serves over TLS, with a certificate of an authority of its own; off by default. `expired`: one past its time. */
  tls?: boolean | "expired";
  /** The region of the two ready instances; us-east-1 by default. */
  region?: string;
}
/** A running simulator and its back door; stop it with `close()` or `await using`. */
interface AwsSimulator extends AsyncDisposable {
  readonly endpoint: string;
  /** The authority of its certificate in PEM, for a client to trust; undefined over plain HTTP. */
  readonly authority: string | undefined;
  readonly credentials: readonly AwsCredentials[];
  /** Ids of the two instances that stand ready; empty when none were asked for. */
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
  /**
   * Adds a volume to the first account whose blocks are a function of their index, so that it takes no room whatever
   * its size. Every `stride`-th block holds data; the first `digests` of these have their digests computed at once.
   */
  addSyntheticVolume(volume: {
    sizeGib: number;
    stride?: number;
    digests?: number;
  }): string;
  /** Takes a snapshot of a volume as CreateSnapshot does, for its owner. */
  takeSnapshot(volumeId: string): string;
  /** Calls that quotas refused so far, by operation. */
  throttled(): Record<string, number>;
  /** Writes into a volume whether or not a guest has it. */
  fillVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** Grows a volume, as ModifyVolume does. */
  growVolume(volumeId: string, sizeGib: number): void;
  archiveSnapshot(snapshotId: string): void;
  /** Lets a pending snapshot end in `error` instead of `completed`. */
  failSnapshot(snapshotId: string, statusMessage: string): void;
  /** Has the next snapshot of StartSnapshot go into `error` once the call was answered, as one whose key KMS then refuses. */
  failNextStart(statusMessage: string): void;
  /** Moves the clock, so that tokens, credentials and timeouts run out. */
  advance(milliseconds: number): void;
  encryptByDefault(accountId: string, region: string, on: boolean): void;
  /** Denies an action such as `ebs:PutSnapshotBlock` to an account. */
  deny(accountId: string, action: string): void;
  /** Plays the guests for Systems Manager; without one, every command succeeds and says nothing. */
  playGuest(guest: Guest): void;
  /** The commands that Systems Manager was given, in their order. */
  commands(): GuestCommand[];
  /** Whether the agent of Systems Manager runs in a guest: the ready instances have it, launched ones do not. */
  manageInstance(instanceId: string, managed: boolean): void;
  /** Has an instance fail its status checks, as one whose system does not start. */
  impairInstance(instanceId: string): void;
  /** Ends the next task of ImportImage with this status message, such as `ClientError: Unsupported kernel version`. */
  failNextImport(statusMessage: string): void;
  /** Adds an IAM role, or replaces it. */
  addRole(arn: string, role: AwsRole): void;
  /** Removes an IAM role: `role/vmimport` is there from the start, in each account. */
  removeRole(arn: string): void;
  /** Makes KMS refuse a key. */
  denyKey(kmsKeyId: string): void;
  addCredentials(credentials: AwsCredentials): void;
  close(): Promise<void>;
}
/** Starts EC2 and EBS on 127.0.0.1; the region and service of a request are those of its signature. */
declare function startAwsSimulator(options?: AwsSimulatorOptions): Promise<AwsSimulator>;
/** On which bus a guest sees its volumes. */
type DeviceBus = "virtio" | "scsi";
/** Kinds of things that accounts and projects may have only so many of; the numbers are CloudStack's resource types. */
declare const resourceTypes: {
  readonly machine: 0;
  readonly volume: 2;
  readonly snapshot: 3;
  readonly primaryStorage: 10;
  readonly secondaryStorage: 11;
};
/** What a limit is about; storage is counted in GiB. */
type LimitedResource = keyof typeof resourceTypes;
/** What goes wrong when a rule applies. */
type FaultAction = {
  readonly kind: "error";
  readonly code: number;
  readonly text: string;
  readonly exception?: number;
  readonly raw?: true;
} | {
  readonly kind: "status";
  readonly status: number;
  readonly body?: string;
  readonly headers?: Record<string, string>;
} | {
  readonly kind: "hang";
} | {
  readonly kind: "drop";
} | {
  readonly kind: "lose-answer";
} | {
  readonly kind: "delay";
  readonly ms: number;
} | {
  readonly kind: "run";
  readonly run: () => void | Promise<void>;
} | {
  readonly kind: "job-fails";
  readonly code?: number;
  readonly text?: string;
} | {
  readonly kind: "job-fails-late";
  readonly code?: number;
  readonly text?: string;
} | {
  readonly kind: "job-hangs";
} | {
  readonly kind: "job-delay";
  readonly ms: number;
} | {
  readonly kind: "job-held";
};
/** When something goes wrong. */
interface FaultRule {
  /** A command (`attachVolume`), `upload` or `download` at the storage machine, or `*` for every command. */
  readonly command: string;
  /** Only these calls of it, counted from 1 since the simulator's start. */
  readonly calls?: readonly number[];
  /** From 0 to 1, from the plan's seed. */
  readonly probability?: number;
  /** At most so often. */
  readonly times?: number;
  readonly action: FaultAction;
}
/** Releases that can be simulated, oldest first. */
declare const releaseNames: readonly ["4.19.0.0", "4.19.1.0", "4.20.0.0", "4.21.0.0", "4.22.0.0", "4.22.1.0"];
/** A release of CloudStack. */
type ReleaseName = (typeof releaseNames)[number];
/** Global settings that change what commands do. */
interface Settings {
  /** `default.page.size`: the most that one page may have, and what a list without pages is cut to. */
  pageSize: number;
  /** `allow.user.expunge.recover.vm`. */
  allowUserExpunge: boolean;
  /** `kvm.snapshot.enabled`. */
  snapshotsRunningMachines: boolean;
  /** `enforce.post.requests.and.timestamps`. */
  enforcePostAndTimestamps: boolean;
  /** `custom.diskoffering.size.max`, in GiB. */
  largestDiskGib: number;
  /** Calls of one account in one interval (`api.throttling.max`); undefined: as many as it likes. */
  throttle: {
    calls: number;
    intervalMs: number;
  } | undefined;
  /** The management server prepares for maintenance and takes no new jobs. */
  maintenance: boolean;
  /** How long a download URL lives (`extract.url.expiration.interval`), and an upload may take. */
  urlLifetimeMs: number;
  /** New volumes on primary storage hold what somebody else left there. */
  leftovers: boolean;
}
/** A machine that stands ready when the simulator starts. */
interface MachineSpec {
  readonly name: string;
  /** Bytes of its volumes, the root first; multiples of 512. */
  readonly disks: readonly number[];
  /** Running unless told otherwise. */
  readonly state?: "Running" | "Stopped";
  /** A guest operating system's name as `listOsTypes` has it. */
  readonly osType?: string;
  readonly firmware?: "BIOS" | "UEFI";
  /** Megabytes. */
  readonly memory?: number;
  readonly cpuNumber?: number;
  /** Whether its devices appear as files, as an appliance's do. */
  readonly guest?: boolean;
  /** The name of the owner, an account or a project; `tenant` unless given. */
  readonly owner?: string;
}
/** How a simulator starts; everything has a default. */
interface CloudstackSimulatorOptions {
  /** 0 or absent: any free port of 127.0.0.1. */
  readonly port?: number;
  /** 4.22.0.0 unless given. */
  readonly version?: ReleaseName;
  /** HTTPS with a certificate made at start, at the API and at the secondary storage machine; HTTP unless given. */
  readonly tls?: boolean;
  /** Machines of the tenant that stand ready, beside the appliance. */
  readonly machines?: readonly MachineSpec[];
  /** Global settings; those not given are CloudStack's defaults. */
  readonly settings?: Partial<Settings>;
  /** How long each job takes; 5 ms by default. */
  readonly jobMs?: number | ((command: string) => number);
  readonly devices?: {
    /** On which bus guests see their volumes; `virtio` by default. */
    readonly bus?: DeviceBus;
    /** How long after its attachment, or after a rescan, a device appears; 10 ms by default. */
    readonly lagMs?: number;
    /** Whether a device appears only after a rescan; off by default. */
    readonly needsRescan?: boolean;
  };
  /** Of the fault plan's chances; 1 by default. */
  readonly seed?: number;
}
/** One account's way in. */
interface CloudstackCredentials {
  readonly accountId: string;
  readonly account: string;
  readonly apiKey: string;
  readonly secretKey: string;
  readonly userName: string;
  readonly password: string;
  /** As `login` wants it. */
  readonly domain: string;
}
/** What somebody inside a machine sees. */
interface CloudstackGuest {
  /** Stands for the guest's `/`: below it are `dev`, `dev/disk/by-id` and the files of `sys` that rescan. */
  readonly root: string;
  /** `<root>/dev/disk/by-id`. */
  readonly byId: string;
  /** How often the guest has asked its buses to look again. */
  readonly rescans: number;
  /** The path of a volume's link, whether it is there or not. */
  linkOf(volumeId: string): string;
  /** Keeps the device of a volume from appearing. */
  withhold(volumeId: string): void;
  /** Lets the device of a volume appear with another size. */
  misreport(volumeId: string, size: number): void;
}
/** A volume as the back door tells it. */
interface SimulatedVolume {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly type: "ROOT" | "DATADISK";
  /** Bytes. */
  readonly size: number;
  /** The file's name on its pool. */
  readonly path: string | undefined;
  readonly machineId: string | undefined;
  readonly deviceId: number | undefined;
  readonly tags: Readonly<Record<string, string>>;
}
/** A running simulator and its back door; stop it with `close()` or `await using`. */
interface CloudstackSimulator extends AsyncDisposable {
  /** `http://127.0.0.1:<port>/client/api`, or `https:`. */
  readonly url: string;
  /** The authority in PEM and the certificate's SHA-256 in hexadecimal with colons, with `tls`. */
  readonly tls: {
    readonly authority: string;
    readonly sha256: string;
  } | undefined;
  readonly version: ReleaseName;
  /** An ordinary account, another one, and the root administrator. */
  readonly tenant: CloudstackCredentials;
  readonly other: CloudstackCredentials;
  readonly admin: CloudstackCredentials;
  readonly zoneId: string;
  /** A running machine of the tenant whose volumes appear as files. */
  readonly appliance: {
    readonly id: string;
  } & CloudstackGuest;
  /** Ids of `machines`, in their order. */
  readonly machines: readonly string[];
  /** Ids by name. */
  readonly diskOfferings: Readonly<Record<string, string>>;
  readonly serviceOfferings: Readonly<Record<string, string>>;
  readonly networks: Readonly<Record<string, string>>;
  readonly templates: Readonly<Record<string, string>>;
  readonly pools: Readonly<Record<string, string>>;
  /** Global settings; what is changed here counts from the next call on. */
  readonly settings: Settings;
  readonly faults: {
    add(rule: FaultRule): () => void;
    clear(): void;
  };
  /** Calls so far by command, whatever became of them. */
  readonly calls: ReadonlyMap<string, number>;
  /** All volumes of all accounts. */
  volumes(): SimulatedVolume[];
  /** Ids of a machine's volumes by device id. */
  volumesOf(machineId: string): string[];
  machineState(machineId: string): string | undefined;
  /** Snapshots of volumes and of machines that exist, of all accounts. */
  snapshotIds(): string[];
  machineIds(): string[];
  /** Names of the templates that accounts made. */
  templateNames(): string[];
  volumeBytes(volumeId: string, offset: number, length: number): Promise<Buffer>;
  /** The guest's hand on a volume of a running machine. @throws Error when it is not attached to one */
  writeVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** The file with a volume's bytes; read it and keep from writing. @throws Error when it has none yet */
  volumeFile(volumeId: string): string;
  /** Adds a machine with volumes, as if it had been there before. Its id. */
  addMachine(spec: MachineSpec): Promise<string>;
  /** What is seen inside a machine made with `guest`. */
  guestOf(machineId: string): CloudstackGuest;
  /** The folder of a pool's files, as somebody sees it who mounted the pool. */
  poolFolder(name: string): string;
  /** Lets a pool's file look as if somebody had it open, or no longer. */
  lockFile(pool: string, fileName: string, on: boolean): void;
  /** Puts an image with these bytes on a pool, unknown to CloudStack, for `importVolume`: qcow2, or raw on Ceph. */
  addStray(pool: string, fileName: string, bytes: Uint8Array, size?: number): Promise<void>;
  /** Adds a project of the tenant's. Its id. */
  addProject(name: string): string;
  /** Gives the tenant's account, or a project, a limit; storage is counted in GiB. */
  limit(resource: LimitedResource, most: number, ownerId?: string): void;
  /** Takes a command from an account's role. */
  deny(accountId: string, command: string): void;
  /** Puts a pool into maintenance, or back. */
  poolMaintenance(name: string, on: boolean): void;
  /** Bytes that a pool takes. */
  poolCapacity(name: string, bytes: number): void;
  /** Lets held jobs do their work and waits for it. */
  releaseJobs(): Promise<void>;
  /** Jobs that have not ended. */
  pendingJobs(): number;
  /** Forgets jobs that ended, as the server does after a day. */
  forgetJobs(): void;
  /** Moves the clock: signatures, sessions and URLs run out, and uploads that were never begun are given up. */
  advance(milliseconds: number): void;
  /** Ends all sessions, as a restart of the management server does. */
  endSessions(): void;
  close(): Promise<void>;
}
/** Starts a simulated CloudStack on 127.0.0.1. */
declare function startCloudstackSimulator(options?: CloudstackSimulatorOptions): Promise<CloudstackSimulator>;
/** Releases that can be simulated. */
type ReleaseName$1 = "6.0" | "6.5" | "6.7" | "7.0" | "8.0" | "8.0.1" | "8.0.2" | "8.0.3" | "9.0";
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
  /** What the file is called as an object, on datastores that have no files. */
  readonly objectId: string;
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
/** What a disk hangs on, as the machine's settings call it. */
type ControllerName = "pvscsi" | "lsilogic" | "lsilogic-sas" | "buslogic" | "sata" | "nvme" | "ide";
/** A disk's place: the key that vim25 and change tracking call it by, its controller, and its unit there. */
interface DiskSlot {
  readonly key: number;
  readonly unitNumber: number;
  readonly controller: DiskControllerPlace;
}
/** A controller of a machine. */
interface DiskControllerPlace {
  readonly name: ControllerName;
  readonly key: number;
  readonly bus: number;
}
/** How a disk of a simulated machine is made. */
interface DiskSpec {
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
interface ChangeId {
  readonly epoch: string;
  readonly sequence: number;
}
/** Whether snapshots take a disk along. */
type DiskMode = "persistent" | "independent_persistent" | "independent_nonpersistent";
/** What a disk was when a snapshot was made. */
interface DiskState {
  readonly disk: VirtualDisk;
  layer: DiskLayer;
  readonly capacity: number;
  readonly mode: DiskMode;
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
  /** What `*` does where it is not valid: one area over everything, or a fault. */
  readonly wildcardElsewhere: "whole-disk" | "fault";
  /** Whether the snapshot whose creation was the stun that began tracking already carries a change id. */
  readonly firstSnapshotIsTracked: boolean;
  readonly bugs: ReadonlySet<TrackingBug>;
}
/** What a datastore is. */
type DatastoreType = "VMFS" | "NFS" | "vsan";
/** Where a disk hangs, where its files are, and what they are called. */
interface DiskPlace {
  readonly slot: DiskSlot;
  readonly folder: string;
  readonly datastore: {
    readonly name: string;
    readonly type: DatastoreType;
  };
  /** `[datastore1] web/web_1`, without the ending. */
  readonly baseName: string;
}
/** A virtual disk: its chain of layers and its change tracker. */
declare class VirtualDisk implements DiskSlot {
  #private;
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
  wanted: boolean;
  /** The running tracker; undefined: the disk is not tracked. */
  tracker: {
    epoch: string;
    sequence: number;
    wildcardValid: boolean;
  } | undefined;
  constructor(spec: DiskSpec, place: DiskPlace, rules: TrackingRules, newUuid: () => string);
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
  /** How a snapshot's configuration tells a disk that it does not hold: where the guest goes on writing. */
  passBy(): DiskState;
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
interface MachineSpec$1 {
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
  /** Disks of the machine that it does not hold, which its configuration tells all the same. */
  readonly others: readonly DiskState[];
}
/** What quiescing was asked of a snapshot. */
interface SnapshotWish {
  readonly name: string;
  readonly description: string;
  readonly quiesce: boolean;
}
/** Where a machine's files are, and how new it may be. */
interface MachineFiles {
  /** The folder here that holds the bytes of all its disks. */
  readonly folder: string;
  /** The datastore of this name, or the first. @throws RangeError where there is none */
  readonly datastore: (name: string | undefined) => DiskPlace["datastore"];
  readonly hardware: number;
}
/** A virtual machine with its disks, snapshots, power state and guest. Methods throw `VimFault`s as vCenter would. */
declare class VirtualMachine {
  #private;
  readonly id: string;
  readonly spec: MachineSpec$1;
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
  trackingEnabled: boolean;
  /** `runtime.cleanPowerOff`: whether the guest shut down in order; undefined while it is not off. */
  cleanPowerOff: boolean | undefined;
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
  constructor(id: string, spec: MachineSpec$1, place: MachineFiles, rules: TrackingRules, newUuid: () => string);
  /** The disks by device key. */
  get disks(): ReadonlyMap<number, VirtualDisk>;
  /** Hangs one more disk on the first free slot; a machine that tracks changes tracks it from the next stun on. */
  addDisk(spec: DiskSpec): number;
  /** Takes a disk away; its files stay for the snapshots that froze it. */
  removeDisk(key: number): void;
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
declare function generateMachines(count: number): MachineSpec$1[];
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
type FaultAction$1 = {
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
interface FaultRule$1 {
  /** A method's name (`QueryChangedDiskAreas`), a path with its verb (`GET /folder`, `GET /nfc`), or `*` for any. */
  readonly method: string;
  /** Only these calls of the method, counted from 1 since the simulator's start. */
  readonly calls?: readonly number[];
  /** Only with this probability, from the plan's seed. */
  readonly probability?: number;
  /** At most so often. */
  readonly times?: number;
  readonly action: FaultAction$1;
}
/** How types are written: vCenter's `xsi:type`, or with a prefix declared on the spot as another server does. */
type TypeDialect = "xsi" | "local-prefix";
/** How a simulated vCenter, or a bare ESXi host, behaves; every member has a default. */
interface VcenterSimulatorOptions {
  readonly version?: ReleaseName$1;
  readonly kind?: "vcenter" | "esxi";
  readonly machines?: readonly MachineSpec$1[];
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
  /** More datacenters beside the first, each with its own folders, hosts and datastore; three at most. */
  readonly moreDatacenters?: readonly string[];
  /** Hosts of each datacenter, 1 to 7; 1 unless given. */
  readonly hosts?: number;
  /** The name of each datacenter's datastore. */
  readonly datastore?: string;
  /** `VMFS` unless given; elsewhere `*` is no list of what is allocated. */
  readonly datastoreType?: DatastoreType;
  /** More datastores of each datacenter beside the first. */
  readonly moreDatastores?: readonly {
    readonly name: string;
    readonly type?: DatastoreType;
  }[];
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
  readonly faults?: readonly FaultRule$1[];
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
  addMachine(spec: MachineSpec$1): VirtualMachine;
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
  /** A stun without a snapshot, as a migration to another host is; to the host of this number where one is given. */
  migrate(machine: string, host?: number): void;
  /** Hangs one more disk on a machine; its device key. */
  addDisk(machine: string, disk: DiskSpec): number;
  /** Takes a disk from a machine; snapshots keep what they froze of it. */
  removeDisk(machine: string, disk: number): void;
  /** The power fails under a running machine: off, and its trackers start anew. */
  powerFailure(machine: string): void;
  /** Begins a new epoch of change tracking on one disk or on all of a machine. */
  resetTracking(machine: string, disk?: number): void;
  /** A snapshot made by somebody else; its id. */
  takeSnapshot(machine: string, name: string): string;
  /** Somebody else removes a snapshot. */
  removeSnapshot(snapshot: string): void;
  /** Adds a fault; the function returned takes it away. */
  inject(rule: FaultRule$1): () => void;
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
export { type AwsCredentials, type AwsDelays, type AwsFault, type AwsFaultRule, type AwsRole, type AwsSimulator, type AwsSimulatorOptions, type CloudstackCredentials, type DeviceBus as CloudstackDeviceBus, type FaultAction as CloudstackFaultAction, type FaultRule as CloudstackFaultRule, type CloudstackGuest, type LimitedResource as CloudstackLimitedResource, type MachineSpec as CloudstackMachineSpec, type ReleaseName as CloudstackReleaseName, type Settings as CloudstackSettings, type CloudstackSimulator, type CloudstackSimulatorOptions, type SimulatedVolume as CloudstackVolume, type DiskSpec, FaultPlan, type Guest, type GuestCommand, type GuestOutcome, type MachineSpec$1 as MachineSpec, type PowerState, type QuiesceOutcome, type ReadOptions, type ToolsState, type TrackingBug, type FaultAction$1 as VcenterFaultAction, type FaultRule$1 as VcenterFaultRule, type ReleaseName$1 as VcenterReleaseName, type VcenterSimulator, type VcenterSimulatorOptions, type VirtualMachine, generateMachines, startAwsSimulator, startCloudstackSimulator, startVcenterSimulator };