import type { GuestDevices } from "./guest-devices.ts";
import type { SparseDisk } from "./sparse-disk.ts";

/** Kinds of things that accounts and projects may have only so many of; the numbers are CloudStack's resource types. */
export const resourceTypes = { machine: 0, volume: 2, snapshot: 3, primaryStorage: 10, secondaryStorage: 11 } as const;

/** What a limit is about; storage is counted in GiB. */
export type LimitedResource = keyof typeof resourceTypes;

/** Who owns things: an account or a project. */
export interface Owner {
  readonly id: string;
  readonly name: string;
  readonly kind: "account" | "project";
  readonly domainId: string;
  readonly domain: string;
  /** `Infinity` and absent: unlimited. */
  readonly limits: Map<LimitedResource, number>;
}

/** An account with one user. */
export interface Account extends Owner {
  readonly kind: "account";
  readonly rootAdmin: boolean;
  readonly userId: string;
  readonly userName: string;
  readonly password: string;
  readonly apiKey: string;
  readonly secretKey: string;
  /** Commands that its role does not have. */
  readonly denied: Set<string>;
}

/** A project and its members. */
export interface Project extends Owner {
  readonly kind: "project";
  readonly members: Set<string>;
}

/** A zone; everything else lives in one. */
export interface Zone {
  readonly id: string;
  readonly name: string;
}

/** Primary storage. */
export interface StoragePool {
  readonly id: string;
  readonly name: string;
  readonly zoneId: string;
  readonly scope: "ZONE" | "CLUSTER" | "HOST";
  readonly type: "NetworkFilesystem" | "RBD" | "Filesystem" | "PowerFlex" | "Iscsi";
  /** Whether CloudStack makes one LUN for each volume; root volumes there cannot be swapped. */
  readonly managed: boolean;
  /** Disk and service offerings with the same tag go there. */
  readonly tag: string | undefined;
  /** Bytes. */
  capacity: number;
  maintenance: boolean;
}

/** A disk offering. */
export interface DiskOffering {
  readonly id: string;
  readonly name: string;
  /** GiB; undefined: the client chooses. */
  readonly sizeGib: number | undefined;
  readonly tag: string | undefined;
}

/** A service offering: what a machine computes with, and where its root volume goes. */
export interface ServiceOffering {
  readonly id: string;
  readonly name: string;
  /** All three undefined: the client chooses by details. */
  readonly cpuNumber: number | undefined;
  readonly cpuSpeed: number | undefined;
  readonly memory: number | undefined;
  readonly tag: string | undefined;
}

/** A guest network. */
export interface Network {
  readonly id: string;
  readonly name: string;
  readonly zoneId: string;
  readonly type: "Isolated" | "Shared";
  /** Undefined: everybody may use it. */
  readonly owner: Owner | undefined;
  /** The first three numbers of its addresses, as `10.1.1`. */
  readonly prefix: string;
}

/** A template; its root disk's bytes. */
export interface Template {
  readonly id: string;
  readonly name: string;
  readonly zoneId: string;
  readonly owner: Owner | undefined;
  readonly osTypeId: string;
  /** Undefined as long as the job that makes it is at work. */
  disk: SparseDisk | undefined;
}

/** A tag of one object. */
export interface Tag {
  readonly key: string;
  readonly value: string;
  readonly owner: Owner;
}

/** States of a volume (`Volume.State`) that occur here. */
export type VolumeState =
  | "Allocated"
  | "Creating"
  | "Ready"
  | "Attaching"
  | "Copying"
  | "Snapshotting"
  | "Resizing"
  | "RevertSnapshotting"
  | "Expunging"
  | "Expunged"
  | "NotUploaded"
  | "UploadInProgress"
  | "UploadOp"
  | "Uploaded"
  | "UploadError"
  | "UploadAbandoned";

/** A volume. */
export interface Volume {
  readonly id: string;
  name: string;
  readonly owner: Owner;
  readonly zoneId: string;
  type: "ROOT" | "DATADISK";
  state: VolumeState;
  /** Bytes. */
  size: number;
  readonly diskOffering: DiskOffering | undefined;
  readonly serviceOffering: ServiceOffering | undefined;
  readonly template: Template | undefined;
  readonly snapshotId: string | undefined;
  readonly uploaded: boolean;
  /** Undefined as long as the volume is allocated or uploaded: it has no place on primary storage. */
  pool: StoragePool | undefined;
  /** The file's name on its pool. */
  path: string | undefined;
  disk: SparseDisk | undefined;
  /** The file on its pool that it was adopted from. */
  file?: string | undefined;
  machine: Machine | undefined;
  deviceId: number | undefined;
  attached: number | undefined;
  readonly created: number;
  deleteProtection: boolean;
  readonly tags: Tag[];
}

/** A machine's card in a network. */
export interface Nic {
  readonly id: string;
  readonly network: Network;
  readonly macAddress: string;
  readonly ipAddress: string;
  isDefault: boolean;
  deviceId: number;
}

/** States of a machine that occur here. */
export type MachineState = "Starting" | "Running" | "Stopping" | "Stopped" | "Destroyed" | "Expunging" | "Error";

/** A virtual machine ("instance" in newer words). */
export interface Machine {
  readonly id: string;
  name: string;
  displayName: string;
  readonly owner: Owner;
  readonly zoneId: string;
  state: MachineState;
  readonly offering: ServiceOffering;
  /** What the client chose for an offering that leaves it open, or the offering's own. */
  readonly cpuNumber: number;
  readonly cpuSpeed: number;
  readonly memory: number;
  readonly template: Template | undefined;
  osTypeId: string;
  readonly nics: Nic[];
  /** `UEFI` among them, with `LEGACY` or `SECURE`, is the firmware; without it the machine has a BIOS. */
  readonly details: Map<string, string>;
  readonly created: number;
  readonly tags: Tag[];
  /** Its devices as files, where somebody looks at them from inside. */
  guest: GuestDevices | undefined;
  deleteProtection: boolean;
}

/** A snapshot of one volume. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly owner: Owner;
  readonly zoneId: string;
  readonly volume: Volume;
  /** What the volume was at the time; it may have been taken out of its machine since. */
  readonly volumeType: Volume["type"];
  readonly created: number;
  readonly tags: Tag[];
  readonly parentId: string | undefined;
  /** Of the volume at the time, in bytes. */
  readonly size: number;
  state: "Allocated" | "Creating" | "BackingUp" | "BackedUp" | "Error" | "Destroyed";
  /** Undefined until the job has taken it. */
  disk: SparseDisk | undefined;
}

/** A snapshot of all volumes of one machine at one moment. */
export interface MachineSnapshot {
  readonly id: string;
  readonly name: string;
  readonly displayName: string;
  readonly owner: Owner;
  readonly machine: Machine;
  readonly created: number;
  /** `Disk` of a KVM machine is one of files, of which no volume's snapshot can be made. */
  readonly type: "Disk" | "DiskAndMemory";
  /** The volumes' bytes by volume id. */
  readonly disks: Map<string, SparseDisk>;
  state: "Allocated" | "Creating" | "Ready" | "Reverting" | "Error" | "Removed";
}
