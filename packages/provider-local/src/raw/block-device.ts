import {
  type BigIntStats,
  fstatSync,
  readFileSync,
  readSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { localError } from "../errors.ts";

/** What Linux tells of a block device. */
export interface BlockDeviceFacts {
  /** Bytes. */
  size: number;
  /** Logical sector in bytes. */
  blockSize: number;
  /** The best name that stays with the device: a dm uuid, WWN or serial; else its numbers and size. */
  identity: string;
  /** Whether `identity` would still hold after a restart of the machine. */
  lasting: boolean;
  readOnly: boolean;
  /** Numbers of the devices and places of the files whose bytes it shows: a partition's disk, what is behind a loop. */
  within: string[];
}

/** Major and minor number as glibc's `gnu_dev_major` and `gnu_dev_minor` unpack them. */
export function deviceNumbers(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn & 0xffffffffn);
  return `${major}:${minor}`;
}

/**
 * Facts of the block device behind an open descriptor, from Linux' sysfs (Documentation/ABI/stable/sysfs-block: `size`
 * counts 512-byte sectors whatever the logical block). The size is proven by reading at both sides of the end; where
 * there is no sysfs it is found by reading.
 */
export function blockDeviceFacts(fd: number, path: string): BlockDeviceFacts {
  const stats: BigIntStats = fstatSync(fd, { bigint: true });
  const numbers = deviceNumbers(stats.rdev);
  const folder = join("/sys/dev/block", numbers);
  const sectors = readText(join(folder, "size"));
  const size = sectors === undefined ? sizeByReading(fd) : Number(sectors) * 512;
  if (size === 0) throw localError("NOT_FOUND", `${path} is a block device of 0 bytes; check that it has a medium`);
  if (!endsAt(fd, size)) {
    throw localError("UNEXPECTED", `${path} does not end at the ${size} bytes that the kernel states for it`);
  }
  const named = lastingIdentity(folder);
  return {
    size,
    blockSize: Number(queueText(folder, "logical_block_size") ?? 512),
    identity: named ?? `numbers:${numbers}:${size}`,
    lasting: named !== undefined,
    readOnly: readText(join(folder, "ro")) === "1",
    within: sharersOf(folder),
  };
}

/** Where a block device of these numbers is mounted, or who holds it; undefined when neither is known. */
export function mountOf(numbers: string): string | undefined {
  const mounts = readText("/proc/self/mountinfo")?.split("\n") ?? [];
  for (const line of mounts) {
    const fields = line.split(" ");
    if (fields[2] === numbers) return `mounted at ${fields[4] ?? "?"}`;
  }
  const folder = join("/sys/dev/block", numbers);
  const holders = listOf(join(folder, "holders"));
  if (holders.length > 0) return `held by ${holders.join(", ")}`;
  for (const part of listOf(folder)) {
    const partNumbers = readText(join(folder, part, "dev"));
    if (readText(join(folder, part, "partition")) === undefined || partNumbers === undefined) continue;
    const use: string | undefined = mountOf(partNumbers);
    if (use !== undefined) return `its partition ${part} is ${use}`;
  }
  const swaps = readText("/proc/swaps")?.split("\n") ?? [];
  const name = nameOf(folder);
  if (name !== undefined && swaps.some((line) => line.startsWith(`/dev/${name} `))) return "used as swap";
  return undefined;
}

function lastingIdentity(folder: string): string | undefined {
  const partition = readText(join(folder, "partition"));
  if (partition !== undefined) {
    const whole = lastingIdentity(join(realpathOr(folder), ".."));
    return whole === undefined ? undefined : `${whole}:partition:${partition}`;
  }
  const dm = readText(join(folder, "dm/uuid"));
  if (dm !== undefined && dm !== "") return `dm:${dm}`;
  for (const place of ["wwid", "device/wwid"]) {
    const wwid = readText(join(folder, place));
    if (wwid !== undefined && wwid !== "") return `wwn:${wwid.replaceAll(/\s+/g, " ")}`;
  }
  for (const place of ["serial", "device/serial"]) {
    const serial = readText(join(folder, place));
    if (serial !== undefined && serial !== "") return `serial:${serial}`;
  }
  const name = nameOf(folder);
  const links = "/dev/disk/by-id";
  const link = listOf(links)
    .toSorted()
    .find((entry) => basename(readlinkOr(join(links, entry))) === name);
  return link === undefined ? undefined : `by-id:${link}`;
}

/**
 * How many writes a block device has completed since it was attached (field 5 of sysfs' `stat`, Documentation/block/
 * stat.rst); undefined where the kernel does not count.
 */
export function completedWrites(numbers: string): number | undefined {
  const field = readText(join("/sys/dev/block", numbers, "stat"))?.split(/\s+/)[4];
  return field === undefined ? undefined : Number(field);
}

function sharersOf(folder: string): string[] {
  const within: string[] = [];
  const whole = readText(join(realpathOr(folder), "..", "dev"));
  if (readText(join(folder, "partition")) !== undefined && whole !== undefined) within.push(`device:${whole}`);
  for (const slave of listOf(join(folder, "slaves"))) {
    const numbers = readText(join(folder, "slaves", slave, "dev"));
    if (numbers !== undefined) within.push(`device:${numbers}`);
  }
  const backing = readText(join(folder, "loop/backing_file"));
  const stats = backing === undefined ? undefined : statSync(backing, { bigint: true, throwIfNoEntry: false });
  if (stats !== undefined) within.push(`file:${stats.dev}:${stats.ino}`);
  return within;
}

/** A partition has no queue of its own: its disk's is one folder up. */
function queueText(folder: string, name: string): string | undefined {
  return readText(join(folder, "queue", name)) ?? readText(join(dirname(realpathOr(folder)), "queue", name));
}

function nameOf(folder: string): string | undefined {
  const real = realpathOr(folder);
  return real === folder ? undefined : basename(real);
}

function endsAt(fd: number, size: number): boolean {
  const sector = new Uint8Array(512);
  return readSync(fd, sector, 0, 512, size - 512) === 512 && readSync(fd, sector, 0, 512, size) === 0;
}

function sizeByReading(fd: number): number {
  const sector = new Uint8Array(512);
  const holds = (index: number): boolean => readSync(fd, sector, 0, 512, index * 512) === 512;
  let beyond = 1;
  while (beyond < 2 ** 44 && holds(beyond - 1)) beyond *= 2;
  let low = 0;
  let high = beyond;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) low = middle + 1;
    else high = middle;
  }
  return low * 512;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function listOf(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function realpathOr(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function readlinkOr(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
