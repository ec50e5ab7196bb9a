import { closeSync, constants, fstatSync, openSync, realpathSync, statSync } from "node:fs";
import { errnoOf, localError, translate } from "../errors.ts";
import { blockDeviceFacts, completedWrites, deviceNumbers, mountOf } from "./block-device.ts";

/** An open raw file or block device, with what is known of it. Whoever has it closes `fd`. */
export interface RawFile {
  readonly fd: number;
  /** The path with its symbolic links resolved. */
  readonly path: string;
  readonly kind: "file" | "device";
  /** Bytes. */
  readonly size: number;
  /** The unit of writing, in bytes. */
  readonly blockSize: number;
  /** Stays the same as long as this is the same file or the same device. */
  readonly identity: string;
  /** What a second opening of the same path is compared with: device and inode numbers. */
  readonly place: string;
  /** Changes when the content does, as far as the system tells; see `contentStamp`. */
  readonly stamp: string;
  /** Bytes the file system has allocated; undefined for a device. */
  readonly allocated: number | undefined;
  readonly readOnly: boolean;
  /** Other places whose bytes it shows; see `Place.within`. */
  readonly within: readonly string[];
}

export interface OpenRawOptions {
  /** Open for writing as well; a block device is then claimed with O_EXCL, so that a mounted one is refused. */
  write?: boolean;
  /** Refuse unless it is the one of this `place`, as an earlier opening told it. */
  place?: string | undefined;
  /** Do not claim a block device: its main writer, in the same process, has. */
  shared?: boolean;
  /** It is an image of a format of its own, whose length means nothing. */
  anySize?: boolean;
  /** Past the page cache: O_DIRECT. */
  direct?: boolean;
}

const nonBlocking = constants.O_NONBLOCK ?? 0;
/** Linux alone has it. */
const directly = constants.O_DIRECT ?? 0;

/**
 * Opens a raw file or block device that exists; nothing is ever created here. What it is gets judged on the open
 * descriptor, so that a name exchanged in between cannot mislead.
 * @throws ProviderError NOT_FOUND, DENIED, IN_USE (a mounted device, naming the mount), CONFIG_INVALID (directory, FIFO,
 * socket, character device, a size that is no multiple of 512).
 */
export function openRaw(path: string, options: OpenRawOptions = {}): RawFile {
  const operation = options.write === true ? "opening for writing" : "opening for reading";
  let real: string;
  try {
    real = realpathSync(path);
    // A FIFO or a tape may act on being opened, so look before; O_NONBLOCK keeps one exchanged meanwhile from hanging.
    refuseOddKinds(path, statSync(real));
  } catch (error) {
    throw translate(error, operation, path);
  }
  const before = statSync(real, { bigint: true, throwIfNoEntry: false });
  const claim = before?.isBlockDevice() === true && options.write === true && options.shared !== true;
  let fd: number;
  try {
    fd = openSync(
      real,
      (options.write === true ? constants.O_RDWR : constants.O_RDONLY) |
        nonBlocking |
        (claim ? constants.O_EXCL : 0) |
        (options.direct === true ? directly : 0),
    );
  } catch (error) {
    if (claim && errnoOf(error) === "EBUSY") throw inUse(path, deviceNumbers(before.rdev), error);
    throw translate(error, operation, path);
  }
  try {
    return factsOf(fd, path, real, options);
  } catch (error) {
    closeSync(fd);
    throw translate(error, operation, path);
  }
}

/**
 * Device and inode numbers and, for a file, times and size, as one string: changes with every write that the system
 * records. A device has no such times: its count of completed writes stands in, where the kernel counts.
 */
export function contentStamp(fd: number): string {
  const stats = fstatSync(fd, { bigint: true });
  if (!stats.isBlockDevice()) return `${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`;
  return `device:writes:${completedWrites(deviceNumbers(stats.rdev)) ?? "uncounted"}`;
}

function factsOf(fd: number, path: string, real: string, options: OpenRawOptions): RawFile {
  const { place } = options;
  const stats = fstatSync(fd, { bigint: true });
  refuseOddKinds(path, stats);
  const isDevice = stats.isBlockDevice();
  const here = isDevice ? `device:${deviceNumbers(stats.rdev)}` : `file:${stats.dev}:${stats.ino}`;
  if (place !== undefined && place !== here) {
    throw localError("NOT_FOUND", `${path} is no longer the ${place} that was opened before, it is ${here} now`);
  }
  if (isDevice) {
    const facts = blockDeviceFacts(fd, path);
    // The superuser may open such a device for writing all the same, and learns it from the first write.
    if (options.write === true && facts.readOnly) {
      throw localError("DENIED", `${path} is read-only; make it writable (blockdev --setrw) or name another target`);
    }
    return {
      fd,
      path: real,
      kind: "device",
      size: facts.size,
      blockSize: facts.blockSize,
      identity: facts.identity,
      place: here,
      stamp: contentStamp(fd),
      allocated: undefined,
      readOnly: facts.readOnly,
      within: facts.within,
    };
  }
  const size = Number(stats.size);
  if (size % 512 !== 0 && options.anySize !== true) {
    throw localError(
      "CONFIG_INVALID",
      `${path} has ${size} bytes, which is no multiple of 512 and so no disk; ` +
        `if it is one, pad it: truncate -s %512 ${JSON.stringify(path)}`,
    );
  }
  return {
    fd,
    path: real,
    kind: "file",
    size,
    blockSize: 512,
    // Inode numbers are used again; the time of birth tells two files of one number apart.
    identity: `inode:${stats.ino}:${stats.birthtimeNs}`,
    place: here,
    stamp: contentStamp(fd),
    allocated: Number(stats.blocks) * 512,
    readOnly: false,
    within: [],
  };
}

interface Kinds {
  isFile(): boolean;
  isBlockDevice(): boolean;
  isDirectory(): boolean;
  isFIFO(): boolean;
  isSocket(): boolean;
}

function refuseOddKinds(path: string, stats: Kinds): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  const kind = stats.isDirectory()
    ? "a directory"
    : stats.isFIFO()
      ? "a FIFO"
      : stats.isSocket()
        ? "a socket"
        : "a character device";
  const remedy = stats.isSocket() ? "; for an NBD server behind it, write nbd+unix:///EXPORT?socket=PATH" : "";
  throw localError("CONFIG_INVALID", `${path} is ${kind}; name a regular file or a block device${remedy}`);
}

function inUse(path: string, numbers: string, cause: unknown): unknown {
  const use = mountOf(numbers) ?? "in use by the kernel or claimed by another program";
  return localError("IN_USE", `${path} is not written to: it is ${use}; unmount or release it first`, {
    operation: "opening for writing",
    cause,
  });
}
