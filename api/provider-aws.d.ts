import { BlockWriter, ProviderDefinition, Snapshot, Wait } from "@diskferry/core/provider";
import { z } from "zod";
import { FileHandle } from "node:fs/promises";
import "@aws-sdk/client-ebs";
import "@aws-sdk/client-ec2";
import "@aws-sdk/client-ssm";
/** Options of sources alone. */
interface SourceOptions {
  /** Volumes that are left out of every machine: ids, or device names such as `/dev/sdf`. */
  exclude?: string[] | undefined;
  /** How application consistency is reached through Systems Manager, where it is asked for. */
  application?: ApplicationOptions | undefined;
}
/** How application consistency is reached through Systems Manager. */
interface ApplicationOptions {
  /** Shell commands before and after the point in time, run by AWS-RunShellScript, and what they achieve. */
  linux?: {
    pre: string[];
    post: string[];
    achieves: "filesystem" | "application";
  } | undefined;
  /** The document AWSEC2-CreateVssSnapshot. */
  windows?: {
    copyOnly?: boolean | undefined;
    noWriters?: boolean | undefined;
  } | undefined;
  /** How long the guest may take, in seconds. Default 600. */
  timeoutSeconds?: number | undefined;
}
/** Type, IOPS and throughput of a volume that is made from a snapshot. */
interface VolumeOptions {
  type?: "gp3" | "gp2" | "io1" | "io2" | "st1" | "sc1" | "standard" | undefined;
  iops?: number | undefined;
  /** MiB per second. */
  throughput?: number | undefined;
}
/** Where an instance stands. */
interface NetworkOptions {
  subnet?: string | undefined;
  securityGroups?: string[] | undefined;
}
/** How machines are launched; see `targetOptionsSchema` for what each means. */
interface LaunchOptions extends NetworkOptions {
  road?: "image" | "convert" | "swap" | undefined;
  instanceType?: string | undefined;
  privateIp?: string | undefined;
  userData?: string | undefined;
  keyName?: string | undefined;
  instanceProfile?: string | undefined;
  bootMode?: "legacy-bios" | "uefi" | "uefi-preferred" | undefined;
  ena?: boolean | undefined;
  volume?: VolumeOptions | undefined;
  disks?: Record<string, VolumeOptions> | undefined;
  test?: NetworkOptions | undefined;
  placeholder?: string | undefined;
  convert?: {
    role?: string | undefined;
    platform?: "Linux" | "Windows" | undefined;
    licenseType?: "AWS" | "BYOL" | undefined;
  } | undefined;
}
/** The options of a target alone. */
interface TargetOptions {
  /** Whether snapshots are encrypted. Absent: as the account does by default, or as the snapshot a run starts from. */
  encrypted?: boolean | undefined;
  /** ARN of the key; implies `encrypted`. Absent: the account's key for EBS. */
  kmsKey?: string | undefined;
  /**
   * After so many minutes without a block written a half-written snapshot is lost. 10 to 4320, which is the default: a run
   * that is interrupted can then be taken up for three days.
   */
  timeoutMinutes?: number | undefined;
  /** Floors of retention: a commit is removed when it is outside of both. Absent: all stay. The last one always stays. */
  keep?: {
    count?: number | undefined;
    ageDays?: number | undefined;
  } | undefined;
  launch?: LaunchOptions | undefined;
  /**
   * Each disk becomes a volume that is attached to this instance, the one this runs on, and written through its block device;
   * a commit is a snapshot of it. Absent: blocks are put into snapshots directly.
   */
  attached?: {
    instance: string;
    volume?: VolumeOptions | undefined;
  } | undefined;
}
/** The options of the provider `aws-ebs`, for a source or a target; every name unknown to it is refused. */
declare const optionsSchema: z.ZodType<AwsOptions, AwsOptions>;
/** Keys as AWS hands them out. */
interface StaticKeys {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string | undefined;
  /** The account they are of; absent: STS is asked. */
  accountId?: string | undefined;
}
/** Gives keys, and gives others when asked again after these ran out. */
type CredentialFunction = () => Promise<StaticKeys & {
  expiration?: Date | undefined;
}>;
/** Where keys come from. */
type CredentialOptions = StaticKeys | {
  profile: string;
} | {
  roleArn: string;
  externalId?: string | undefined;
  sessionName?: string | undefined;
  durationSeconds?: number | undefined;
  from?: StaticKeys | {
    profile: string;
  } | CredentialFunction | undefined;
} | CredentialFunction;
/** How long things may take, in milliseconds. */
interface TimeoutOptions {
  /** A connection, TLS included. Default 5000. */
  connectMs?: number | undefined;
  /** One attempt to read or write a block or a page of a listing, its body included. Default 20 000. */
  blockMs?: number | undefined;
  /** One attempt of any other call. Default 60 000. */
  requestMs?: number | undefined;
  /** Between two looks at something that is under way. Default 5000. */
  pollMs?: number | undefined;
  /** From CreateSnapshots or a copy until `completed`. Default 24 hours: a first snapshot of a large volume takes hours. */
  snapshotMs?: number | undefined;
  /** How long something new may be unknown to another part of AWS. Default 120 000. */
  visibleMs?: number | undefined;
  /** For an instance to stop or start. Default 900 000. */
  powerMs?: number | undefined;
}
/** The options of the provider `aws-ebs`. */
interface AwsOptions {
  /** Absent: as the SDK finds it (AWS_REGION, the profile). */
  region?: string | undefined;
  /** The instance, volume or snapshot that a URI names. */
  resource?: string | undefined;
  /** Absent: the SDK's default chain (environment, profile, SSO, container, instance). */
  credentials?: CredentialOptions | undefined;
  /** One URL for all services, or one for each: interface endpoints, FIPS, a simulator. Absent: AWS's own. */
  endpoint?: string | {
    ec2?: string | undefined;
    ebs?: string | undefined;
    ssm?: string | undefined;
    sts?: string | undefined;
  } | undefined;
  /** The name that stands in tags and descriptions. Default `diskferry`. */
  product?: string | undefined;
  /** Tags that everything made gets besides our own. */
  tags?: Record<string, string> | undefined;
  timeouts?: TimeoutOptions | undefined;
  /**
   * How long a call of the control plane is repeated. Default 120 000, which is core's budget too: when this one is spent,
   * core does not begin again. Reads and writes of blocks are repeated by core alone.
   */
  retryBudgetMs?: number | undefined;
  /** Blocks under way at once, and connections for them. Default 128 (EBS direct APIs, performance: 100 × 100 ms = 1000/s). */
  concurrency?: number | undefined;
  /** The most blocks per second that this process asks of one account and Region, to leave others their share. */
  blocksPerSecond?: number | undefined;
  /** Of sources alone. */
  source?: SourceOptions | undefined;
  /** Of targets alone. */
  target?: TargetOptions | undefined;
}
/** The provider of AWS: instances, EBS volumes and snapshots. */
declare const provider: ProviderDefinition<AwsOptions, AwsOptions>;
/** What a job does in an account; each part has its actions. */
type Duty = "source" | "power" | "target" | "launch" | "convert" | "swap" | "volumes" | "attached" | "ssm" | "copy" | "kms";
/** One statement of an IAM policy. */
interface PolicyStatement {
  Sid: string;
  Effect: "Allow";
  Action: string[];
  Resource: string | string[];
  Condition?: {
    [operator: string]: {
      [key: string]: string | string[];
    };
  };
}
/** An IAM policy document, to be printed as JSON. */
interface PolicyDocument {
  Version: "2012-10-17";
  Statement: PolicyStatement[];
}
/** Where a policy holds. */
interface PolicyScope {
  /** `*` for every Region. */
  region: string;
  /** The account's twelve digits, `*` for whichever uses the policy. */
  account?: string;
  /** `aws`, `aws-cn` or `aws-us-gov`. */
  partition?: string;
  /** The tag that marks what the job made, as it does in the options. Deleting is limited to what carries it. */
  madeBy?: {
    key: string;
    value: string;
  };
  /** ARNs of the keys; absent: all of the account. */
  kmsKeys?: readonly string[];
  /** ARNs of roles that launched instances or imports are given. */
  passRoles?: readonly string[];
}
/** Every action that the duties need, sorted, each once. */
declare function actionsOf(duties: readonly Duty[]): string[];
/**
 * The IAM policy for a job: what only looks is allowed everywhere, blocks on snapshots alone, and deleting, stopping, starting,
 * attaching and detaching on what carries the job's tag alone. Two things carry none: the source's instance, so `power` stops
 * and starts any; and the instance this runs on, so `attached` attaches to and detaches from any, but volumes of ours alone.
 */
declare function policyFor(duties: readonly Duty[], scope: PolicyScope): PolicyDocument;
/** Which volume is looked for among the block devices of this machine. */
interface AttachedVolume {
  /** Its id, `vol-…`. */
  volumeId: string;
  /** The device name it was attached with, such as `/dev/sdf`: for Xen instances, whose disks have no serial number. */
  device?: string | undefined;
  /** Bytes; the device has to have just as many. */
  size: number;
}
/** The machine that devices are looked for on; tests have their own. */
interface DeviceRoots {
  /** Default `/sys`. */
  sys: string;
  /** Default `/dev`. */
  dev: string;
  /** What an open file really is. Default: what `fstat` says. */
  identify: (file: FileHandle) => Promise<OpenedFile>;
}
/** What an open file is. */
interface OpenedFile {
  isBlockDevice: boolean;
  /** `major:minor` of the device it is. */
  number: string;
}
/** A block device that is proven to be the volume. */
interface FoundDevice {
  path: string;
  /** Its `major:minor`, as the kernel lists it. */
  number: string;
  /** Bytes. */
  size: number;
  /** Bytes of its logical blocks. */
  blockSize: number;
}
/** A run that writes a volume in place. */
interface DeviceRun extends AttachedVolume, Wait {
  run: string;
}
/**
 * Opens a volume that is attached to the instance this runs on, to be written in place through its block device. What is
 * written is durable at the next flush. The volume is never blank: core clears every gap.
 * @throws ProviderError NOT_FOUND, CONFIG_INVALID, IN_USE, DENIED, UNSUPPORTED; nothing was written then
 */
declare function openAttachedVolume(request: DeviceRun, roots?: DeviceRoots): Promise<BlockWriter>;
/** Which volume to make of a commit. */
interface CreateVolumeRequest extends VolumeOptions, Wait {
  /** The account and Region of the snapshot. */
  in: AwsOptions;
  snapshotId: string;
  /** The Availability Zone, such as `eu-central-1a`. */
  zone: string;
  /** Idempotence: the same key gives the same volume again, until it is deleted. */
  key: string;
  /** The job it belongs to, for clean-up. */
  job?: string | undefined;
  /** ARN of a KMS key to encrypt the volume with. Absent: as the snapshot, or as the account does by default. */
  kmsKey?: string | undefined;
}
/** A volume that can be attached. */
interface CreatedVolume {
  volumeId: string;
  zone: string;
  /** Bytes. */
  size: number;
}
/**
 * Makes an EBS volume of a commit, for an instance that is there already. It is tagged as handed over before this resolves: from
 * then on it is the caller's, who may have written to it, and clean-up leaves it; {@link removeCreatedVolume} removes it.
 * @throws ProviderError NOT_FOUND for the snapshot; CONFIG_INVALID for a type, IOPS or throughput that do not fit its size;
 * EXISTS when the key's volume was made of another snapshot or in another zone; DENIED when KMS refuses
 */
declare function createVolume(request: CreateVolumeRequest): Promise<CreatedVolume>;
/**
 * Deletes the volume that {@link createVolume} made for a key, with what was written to it since; one that is gone is deleted.
 * @throws ProviderError IN_USE while it is attached
 */
declare function removeCreatedVolume(request: {
  in: AwsOptions;
  key: string;
} & Wait): Promise<void>;
/** What to copy, from where to where. */
interface CopySnapshotRequest extends Wait {
  /** The account and Region that hold the snapshot. */
  from: AwsOptions;
  /** The account and Region it is to be in. */
  to: AwsOptions;
  snapshotId: string;
  /** Idempotence: the same key gives the same copy again. */
  key: string;
  /** The job it belongs to, for clean-up. */
  job?: string | undefined;
  /** A KMS key of the destination, by id, alias or ARN: the copy is encrypted by it. */
  kmsKey?: string | undefined;
  /** Encrypts the copy by the destination's default key. A copy of an encrypted snapshot is encrypted anyway. */
  encrypted?: boolean | undefined;
  /** For people: something slow or unexpected that was handled. */
  notice?: ((message: string) => void) | undefined;
}
/** A copy that is completed and can be read. */
interface CopiedSnapshot {
  snapshotId: string;
  region: string;
  accountId: string;
  encrypted: boolean;
  kmsKeyId?: string;
  /** The earlier copy of the same volume under the same key, upon which AWS copies only what changed; absent: a full copy. */
  builtOn?: string;
  /** For the source at the destination, which releases it, opens it and tells what changed between two copies. */
  snapshot: Snapshot;
}
/**
 * Copies a snapshot to another Region or account by CopySnapshot, inside AWS: no byte passes through here. AWS copies only
 * what changed where the last copy of the same volume still exists under the same key; with another key it copies in full.
 * At most 20 copies go to one account and Region at once; more wait.
 * @throws ProviderError UNSUPPORTED for a snapshot that cannot be copied or shared; DENIED when KMS refuses the copy, which
 * AWS only finds out after it has begun; nothing is left of a copy that failed
 */
declare function copySnapshot(request: CopySnapshotRequest): Promise<CopiedSnapshot>;
export { type ApplicationOptions, type AttachedVolume, type AwsOptions, type CopiedSnapshot, type CopySnapshotRequest, type CreateVolumeRequest, type CreatedVolume, type CredentialFunction, type CredentialOptions, type DeviceRoots, type DeviceRun, type Duty, type FoundDevice, type LaunchOptions, type NetworkOptions, type OpenedFile, type PolicyDocument, type PolicyScope, type PolicyStatement, type SourceOptions, type StaticKeys, type TargetOptions, type TimeoutOptions, type VolumeOptions, actionsOf, copySnapshot, createVolume, openAttachedVolume, optionsSchema, policyFor, provider, removeCreatedVolume };