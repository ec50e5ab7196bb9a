import { type Dirent, constants } from "node:fs";
import { type FileHandle, open, readFile, readdir, realpath } from "node:fs/promises";
import { basename, join } from "node:path";
import { ProviderError, type ProviderErrorCode } from "@diskferry/core/provider";

/** Which volume is looked for among the block devices of this machine. */
export interface AttachedVolume {
  /** Its id, `vol-…`. */
  volumeId: string;
  /** The device name it was attached with, such as `/dev/sdf`: for Xen instances, whose disks have no serial number. */
  device?: string | undefined;
  /** Bytes; the device has to have just as many. */
  size: number;
}

/** The machine that devices are looked for on; tests have their own. */
export interface DeviceRoots {
  /** Default `/sys`. */
  sys: string;
  /** Default `/dev`. */
  dev: string;
  /** What an open file really is. Default: what `fstat` says. */
  identify: (file: FileHandle) => Promise<OpenedFile>;
}

/** What an open file is. */
export interface OpenedFile {
  isBlockDevice: boolean;
  /** `major:minor` of the device it is. */
  number: string;
}

/** A block device that is proven to be the volume. */
export interface FoundDevice {
  path: string;
  /** Its `major:minor`, as the kernel lists it. */
  number: string;
  /** Bytes. */
  size: number;
  /** Bytes of its logical blocks. */
  blockSize: number;
}

/** What Nitro instances show EBS volumes as (EC2, "Amazon EBS and NVMe": model and serial number). */
const EBS_MODEL = "Amazon Elastic Block Store";
/** `/sys/block/…/size` counts these whatever the device's own blocks are (Linux, sysfs-block). */
const SECTOR = 512;

export const hostRoots: DeviceRoots = {
  sys: "/sys",
  dev: "/dev",
  async identify(file) {
    const stat = await file.stat();
    // As the kernel numbers them in user space (Linux, MAJOR and MINOR of makedev).
    const major = ((stat.rdev >> 8) & 0xfff) >>> 0;
    const minor = ((stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00)) >>> 0;
    return { isBlockDevice: stat.isBlockDevice(), number: `${major}:${minor}` };
  },
};

/**
 * Finds the block device that is a volume: by the NVMe serial number, which is the volume's id, else by the name it was
 * attached with, `/dev/sdf` being `/dev/xvdf` to many kernels. The kernel's own list of block devices is searched, so a
 * name that is no block device is never found; the size has to agree.
 * @throws ProviderError NOT_FOUND, CONFIG_INVALID for another size, IN_USE for one that something stands on
 */
export async function findAttachedDevice(volume: AttachedVolume, roots: DeviceRoots = hostRoots): Promise<FoundDevice> {
  const name = (await bySerial(volume, roots)) ?? (await byName(volume, roots));
  if (name === undefined) {
    const known = (await entries(join(roots.sys, "block"))).map((entry) => entry.name);
    throw deviceError(
      "NOT_FOUND",
      `Volume ${volume.volumeId} is no block device of this machine (it has ${known.join(", ") || "none"}). Attach it to ` +
        `the instance this runs on, and wait until the kernel shows it.`,
    );
  }
  const about = join(roots.sys, "block", name);
  const size = Number(await attribute(about, "size")) * SECTOR;
  if (size !== volume.size) {
    throw deviceError(
      "CONFIG_INVALID",
      `Device ${name} has ${size} bytes and volume ${volume.volumeId} has ${volume.size}: it is not that volume, or it grew ` +
        `and the kernel has not noticed. Nothing was written.`,
    );
  }
  const holders = (await entries(join(about, "holders"))).map((entry) => entry.name);
  if (holders.length > 0) {
    throw deviceError(
      "IN_USE",
      `Device ${name} of volume ${volume.volumeId} is held by ${holders.join(", ")}: stop that first. Nothing was written.`,
    );
  }
  const number = await attribute(about, "dev");
  if (number === undefined) throw deviceError("NOT_FOUND", `Device ${name} has no number in ${about}/dev.`);
  return {
    path: join(roots.dev, name),
    number,
    size,
    blockSize: Number((await attribute(about, "queue/logical_block_size")) ?? SECTOR),
  };
}

/**
 * Opens a found device for writing, exclusively: the kernel refuses while it is mounted or claimed. What was opened has to be
 * a block device with the number that was found; a file of that name is never made and never written.
 * @throws ProviderError NOT_FOUND, IN_USE, DENIED, UNSUPPORTED for what is no such device
 */
export async function openFoundDevice(found: FoundDevice, roots: DeviceRoots = hostRoots): Promise<FileHandle> {
  let file: FileHandle;
  try {
    file = await open(found.path, constants.O_RDWR | constants.O_EXCL);
  } catch (error) {
    throw translateOpen(error, found.path);
  }
  try {
    const { isBlockDevice, number } = await roots.identify(file);
    if (!isBlockDevice || number !== found.number) {
      const is = isBlockDevice ? `block device ${number}` : "no block device";
      throw deviceError(
        "UNSUPPORTED",
        `${found.path} is ${is}, where block device ${found.number} was expected. Nothing was written.`,
      );
    }
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function bySerial({ volumeId }: AttachedVolume, { sys }: DeviceRoots): Promise<string | undefined> {
  const serial = volumeId.replace("-", "");
  const found: string[] = [];
  for (const { name } of await entries(join(sys, "block"))) {
    const about = join(sys, "block", name);
    if ((await attribute(about, "device/model")) !== EBS_MODEL) continue;
    if ((await attribute(about, "device/serial"))?.replace("-", "") === serial) found.push(name);
  }
  return single(found, volumeId);
}

async function byName({ volumeId, device }: AttachedVolume, { sys, dev }: DeviceRoots): Promise<string | undefined> {
  if (device === undefined) return undefined;
  const asked = basename(device);
  const listed = new Set((await entries(join(sys, "block"))).map((entry) => entry.name));
  const found = new Set<string>();
  for (const name of [asked, asked.replace(/^sd/, "xvd"), asked.replace(/^xvd/, "sd")]) {
    // A link that udev made, as Amazon Linux does for NVMe disks, leads to the kernel's name.
    const target = await realpath(join(dev, name)).catch(() => join(dev, name));
    const kernelName = basename(target);
    if (!listed.has(kernelName)) continue;
    const serial = await attribute(join(sys, "block", kernelName), "device/serial");
    // A disk that says which volume it is, and is another one, was looked at by its serial number already.
    if (serial === undefined) found.add(kernelName);
  }
  return single([...found], volumeId);
}

function single(names: readonly string[], volumeId: string): string | undefined {
  if (names.length < 2) return names[0];
  throw deviceError(
    "UNSUPPORTED",
    `Devices ${names.join(" and ")} both look like volume ${volumeId}: which is it? Nothing was written.`,
  );
}

async function entries(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

async function attribute(about: string, name: string): Promise<string | undefined> {
  try {
    return (await readFile(join(about, name), "latin1")).trim();
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}

const meanings: Readonly<Record<string, [ProviderErrorCode, string]>> = {
  ENOENT: ["NOT_FOUND", "does not exist; no file is made in its place"],
  ENXIO: ["NOT_FOUND", "has no device behind it"],
  EBUSY: ["IN_USE", "is mounted or claimed; unmount it, or stop what holds it"],
  EACCES: ["DENIED", "may not be opened by this user; run as one who may"],
  EPERM: ["DENIED", "may not be opened by this user; run as one who may"],
  EISDIR: ["UNSUPPORTED", "is a directory"],
};

function translateOpen(error: unknown, path: string): unknown {
  const errno = (error as NodeJS.ErrnoException).code ?? "";
  const [code, what] = meanings[errno] ?? ["UNEXPECTED", `could not be opened (${errno})`];
  return deviceError(code, `${path} ${what}. Nothing was written.`, error);
}

export function deviceError(code: ProviderErrorCode, message: string, cause?: unknown): ProviderError {
  return new ProviderError(code, message, { provider: "aws-ebs", operation: "device", cause });
}
