import type { BlockDeviceMapping } from "@aws-sdk/client-ec2";
import type { LaunchDisk, LaunchRequest, MachineSpec } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagValue } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { openSnapshotReader } from "../source/snapshot-reader.ts";
import { shortName } from "../target/client-token.ts";
import type { OwnSnapshot } from "../target/own-snapshots.ts";
import type { LaunchOptions, VolumeOptions } from "../target/target-options.ts";
import { tagsOfNew, targetTagNames } from "../target/target-tags.ts";
import { type BootMode, chooseBootMode } from "./boot-mode.ts";
import { dataDeviceNames, ROOT_DEVICE } from "./device-names.ts";
import { rightSize } from "./right-size.ts";

/** A disk to launch with, its commit looked up. */
export interface LaunchCommit extends LaunchDisk {
  snapshot: OwnSnapshot;
}

/** One disk of the machine that is to be. */
export interface PlannedVolume {
  disk: string;
  snapshotId: string;
  device: string;
  isRoot: boolean;
  volume: VolumeOptions;
}

/** Everything a launch needs to know, decided before anything is made. */
export interface LaunchPlan {
  /** The launch's key as a tag's value: everything the launch makes is found by it. */
  launch: string;
  /** What is launched, in short: another request with the same key is noticed by it. */
  request: string;
  /** A name for the image and the security group. */
  name: string;
  purpose: "test" | "cutover";
  machine: MachineSpec;
  options: LaunchOptions;
  instanceType: string;
  architecture: "x86_64" | "arm64";
  bootMode: BootMode;
  /** The root first. */
  volumes: PlannedVolume[];
  /** Tags of everything that the launch makes. */
  tags: Record<string, string>;
  notes: string[];
}

/**
 * Decides what a launch makes: type, boot mode, devices, tags. Reads the start of the boot disk where the source did not tell
 * the firmware.
 * @throws ProviderError UNSUPPORTED, CONFIG_INVALID
 */
export async function planLaunch(
  connection: AwsConnection,
  machine: MachineSpec,
  commits: readonly LaunchCommit[],
  request: LaunchRequest,
): Promise<LaunchPlan> {
  const options = connection.options.target?.launch ?? {};
  const { purpose, key, job, signal } = request;
  const notes: string[] = [];
  const boots = commits.filter(({ boot }) => boot === true);
  if (commits.length === 0 || boots.length > 1)
    throw awsError(
      "CONFIG_INVALID",
      `A launch needs one boot disk; of ${commits.length} disks ${boots.length} say they are it.`,
      {
        operation: "launch",
      },
    );
  const root = boots[0] ?? commits[0]!;
  if (boots.length === 0 && commits.length > 1)
    notes.push(`No disk says that it boots: ${root.disk} was taken, the first one.`);
  const { instanceType, architecture } = typeOf(machine, options, notes);
  const bootMode = options.bootMode ?? (await bootModeOf(connection, machine, root, notes, signal));
  if (machine.tpm === true)
    notes.push("The machine's TPM is new: what the old one sealed (BitLocker, for one) asks for its recovery key.");
  if (machine.guestFamily === "windows" && (options.road ?? "image") === "image")
    notes.push(
      "An image registered from snapshots is no Windows image to AWS (billing, licence): the road convert makes one.",
    );
  const ordered = [root, ...commits.filter((commit) => commit !== root)];
  const names = dataDeviceNames(ordered.length - 1, machine.guestFamily);
  const volumes = ordered.map(({ disk, snapshot }, at): PlannedVolume => ({
    disk,
    snapshotId: snapshot.id,
    device: at === 0 ? ROOT_DEVICE : names[at - 1]!,
    isRoot: at === 0,
    volume: options.disks?.[disk] ?? options.volume ?? {},
  }));
  const { product } = connection.settings;
  const tags = targetTagNames(product);
  const launch = tagValue(key);
  const about = shortName(JSON.stringify([purpose, ordered.map(({ disk, snapshot }) => [disk, snapshot.id])]));
  return {
    launch,
    request: about,
    // Images and groups take few characters (EC2, RegisterImage and CreateSecurityGroup).
    name: `${product.replaceAll(/[^A-Za-z0-9._-]/g, "-")}-${purpose}-${shortName(key)}`,
    purpose,
    machine,
    options,
    instanceType,
    architecture,
    bootMode,
    volumes,
    tags: tagsOfNew(connection.settings, "Launch", { [tags.launch]: launch, [tags.request]: about, [tags.job]: job }),
    notes,
  };
}

function typeOf(
  machine: MachineSpec,
  { instanceType }: LaunchOptions,
  notes: string[],
): { instanceType: string; architecture: "x86_64" | "arm64" } {
  const architecture = machine.architecture ?? "x86_64";
  if (instanceType !== undefined) return { instanceType, architecture };
  const fit = rightSize(machine);
  if (fit === undefined)
    throw awsError(
      "UNSUPPORTED",
      `No instance type that is known here holds ${machine.cpus ?? "?"} processors and ${machine.memoryBytes ?? "?"} bytes of memory: ` +
        `set launch.instanceType.`,
      { operation: "launch" },
    );
  if (fit.note !== undefined) notes.push(fit.note);
  return { instanceType: fit.instanceType, architecture };
}

async function bootModeOf(
  connection: AwsConnection,
  machine: MachineSpec,
  { snapshot }: LaunchCommit,
  notes: string[],
  signal: AbortSignal | undefined,
): Promise<BootMode> {
  let start: Uint8Array | undefined;
  if (machine.firmware === undefined && machine.architecture !== "arm64") {
    await using reader = await openSnapshotReader(connection, snapshot.id, { signal });
    const bytes = new Uint8Array(reader.blockSize);
    await connection.patiently(() => reader.read(0, bytes, { signal }), { signal });
    start = bytes;
  }
  const { mode, note } = chooseBootMode(machine, start);
  if (note !== undefined) notes.push(note);
  return mode;
}

/** What an EBS volume of a launch is made of. */
export function ebsOf({ type = "gp3", iops, throughput }: VolumeOptions): {
  VolumeType: NonNullable<VolumeOptions["type"]>;
  Iops?: number;
  Throughput?: number;
} {
  return {
    VolumeType: type,
    ...(iops === undefined ? {} : { Iops: iops }),
    ...(throughput === undefined ? {} : { Throughput: throughput }),
  };
}

/**
 * The block device map of an image over all disks. Never `Encrypted` beside a snapshot: RegisterImage refuses it (EC2,
 * EbsBlockDevice). A test's volumes go with its instance; those of a cutover only when it is terminated by us.
 */
export function deviceMap({ volumes, purpose }: LaunchPlan): BlockDeviceMapping[] {
  return volumes.map(({ device, snapshotId, volume }) => ({
    DeviceName: device,
    Ebs: { SnapshotId: snapshotId, DeleteOnTermination: purpose === "test", ...ebsOf(volume) },
  }));
}
