import type { BlockTable } from "./block-table.ts";

/** Key and value of each tag. */
export type Tags = Record<string, string>;

/** What everything that belongs to an account in a Region has in common. */
export interface Resource {
  id: string;
  accountId: string;
  region: string;
  tags: Tags;
}

/** An EBS volume with its bytes. */
export interface Volume extends Resource {
  state: "creating" | "available" | "error";
  sizeGib: number;
  zone: string;
  type: string;
  iops?: number;
  throughput?: number;
  encrypted: boolean;
  kmsKeyId?: string;
  snapshotId?: string;
  blocks: BlockTable;
  /** What a block that was never written holds: zeros, or noise when it came out of an encrypted snapshot's hole. */
  noiseKey?: string;
  attachment?: Attachment;
  modification?: VolumeModification;
  createdAt: number;
}

/** A volume's place at an instance; a volume that has one is `in-use`. */
export interface Attachment {
  instanceId: string;
  device: string;
  status: "attaching" | "attached" | "detaching";
  deleteOnTermination: boolean;
  attachedAt: number;
}

/** The last ModifyVolume of a volume. */
export interface VolumeModification {
  state: "modifying" | "optimizing" | "completed";
  startedAt: number;
  from: VolumeShape;
  to: VolumeShape;
}

/** Size and speed of a volume. */
export interface VolumeShape {
  sizeGib: number;
  type: string;
  iops?: number;
  throughput?: number;
}

/** A snapshot; its state follows from the clock. */
export interface Snapshot extends Resource {
  sizeGib: number;
  blocks: BlockTable;
  description: string;
  encrypted: boolean;
  kmsKeyId?: string;
  volumeId: string;
  /** Snapshots with the same lineage can be compared by ListChangedBlocks. */
  lineage: string;
  parentId?: string;
  startedAt: number;
  /** When `completed` is reached; absent while somebody still writes. */
  completesAt?: number;
  /** Set when the end is `error` instead of `completed`, with what DescribeSnapshots tells. */
  failure?: string;
  /** Of snapshots begun by StartSnapshot. */
  upload?: SnapshotUpload;
  tier: "standard" | "archive";
  /** The last move between the tiers. */
  tiering?: SnapshotTiering;
  sharedWith: Set<string>;
  noiseKey?: string;
  /** Raised by each new listing, so that the tokens of listings differ. */
  generation: number;
  /** The snapshot this one was copied from. */
  copyOf?: string;
  copiedAt?: number;
}

/** What a snapshot begun by StartSnapshot keeps while it is written. */
export interface SnapshotUpload {
  timeoutMs: number;
  touchedAt: number;
  /** Digests in base64 by index. */
  written: Map<number, string>;
  /** Indices that a request is writing at this moment. */
  busy: Set<number>;
  visibleAt: number;
}

/** A move of a snapshot between storage tiers. */
export interface SnapshotTiering {
  status:
    | "archival-in-progress"
    | "archival-completed"
    | "permanent-restore-in-progress"
    | "permanent-restore-completed"
    | "temporary-restore-in-progress"
    | "temporary-restore-completed";
  startedAt: number;
  completedAt?: number;
  restoreExpiresAt?: number;
}

/** One device of an image, or of a request to launch one. */
export interface BlockDevice {
  deviceName: string;
  snapshotId?: string;
  shape: VolumeShape;
  deleteOnTermination: boolean;
  /** Absent: as the snapshot and the account's default say. */
  encrypted?: boolean;
  kmsKeyId?: string;
}

/** An Amazon Machine Image. */
export interface Image extends Resource {
  name: string;
  description: string;
  state: "pending" | "available";
  architecture: string;
  virtualizationType: string;
  enaSupport: boolean;
  bootMode?: string;
  tpmSupport?: string;
  uefiData?: string;
  imdsSupport?: string;
  platform?: "windows";
  rootDeviceName: string;
  devices: BlockDevice[];
  createdAt: number;
}

/** The states of an instance, with EC2's codes. */
export const instanceCodes = {
  pending: 0,
  running: 16,
  "shutting-down": 32,
  terminated: 48,
  stopping: 64,
  stopped: 80,
} as const;

/** An instance with the place of its one network interface. */
export interface Instance extends Resource {
  state: keyof typeof instanceCodes;
  stateReason?: { code: string; message: string };
  transitionReason: string;
  type: string;
  zone: string;
  rootDevice: string;
  architecture: string;
  /** As the image says it; absent when the image leaves it to the type. */
  bootMode?: string;
  currentBootMode: "legacy-bios" | "uefi";
  tpmSupport?: string;
  uefiData?: string;
  enaSupport: boolean;
  platform?: "windows";
  imageId: string;
  subnetId: string;
  vpcId: string;
  groupIds: string[];
  interfaceId: string;
  privateIp: string;
  publicIp?: string;
  userData?: string;
  clientToken?: string;
  keyName?: string;
  profileArn?: string;
  metadataTokens: string;
  protected: boolean;
  /** Fails its status checks: the guest did not come up. */
  impaired: boolean;
  /** The agent of Systems Manager runs in the guest. */
  managed: boolean;
  launchedAt: number;
}

/** A subnet of a VPC in one zone. */
export interface Subnet extends Resource {
  vpcId: string;
  zone: string;
  cidr: string;
  isDefault: boolean;
}

/** One rule of a security group, as a text that two equal rules share. */
export interface Permission {
  protocol: string;
  fromPort?: number;
  toPort?: number;
  cidrs: string[];
  cidrs6: string[];
  groups: string[];
}

/** A security group. */
export interface SecurityGroup extends Resource {
  name: string;
  description: string;
  vpcId: string;
  ingress: Permission[];
  egress: Permission[];
}

/** A task of ImportImage. */
export interface ImportTask extends Resource {
  status: "active" | "completed" | "deleting" | "deleted";
  statusMessage?: string;
  progress?: string;
  architecture: string;
  platform?: string;
  bootMode?: string;
  licenseType?: string;
  usageOperation?: string;
  description: string;
  encrypted: boolean;
  kmsKeyId?: string;
  imageId?: string;
  disks: { snapshotId: string; deviceName?: string; description?: string; importedId?: string }[];
}
