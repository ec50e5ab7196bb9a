import { createHash } from "node:crypto";
import { closeSync, fdatasync } from "node:fs";
import { basename, resolve } from "node:path";
import { promisify } from "node:util";
import type { BlockReader, ChangesOptions, Disk, DiskSnapshot, Tile, TrackerStatus } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import { claimPlace } from "../open-places.ts";
import type { DiskOptions } from "../options.ts";
import { type RawFile, openRaw } from "../raw/raw-file.ts";
import { openRawReader } from "../raw/raw-reader.ts";
import { rawAllocation } from "../raw/raw-allocation.ts";
import type { DiskMoment, DiskSource } from "./disk-source.ts";

/** What is kept of a raw disk's point in time. */
interface RawMoment {
  path: string;
  place: string;
  identity: string;
  stamp: string;
  frozen: boolean;
}

/** A raw file or block device to copy from. It tracks no changes; its holes are known without reading. */
export function rawDisk(options: DiskOptions & { path: string }): DiskSource {
  const path = resolve(options.path);

  function look(): RawFile {
    const file = openRaw(path);
    closeSync(file.fd);
    if (file.size === 0) throw localError("CONFIG_INVALID", `${path} is empty: a disk has at least 512 bytes`);
    return file;
  }

  /** The point in time is the present content: once that is another one, the old one is nowhere to be had. */
  function check(disk: DiskSnapshot, live: boolean): RawMoment {
    const moment = momentOf(disk);
    const file = look();
    const same = file.identity === moment.identity && file.size === disk.size;
    if (same && (file.stamp === moment.stamp || (live && !moment.frozen))) return moment;
    const what = same ? "was written to" : "was replaced or resized";
    throw localError(
      "NOT_FOUND",
      `the point in time ${disk.id} of ${path} is gone: it ${what} since; start a new run`,
      { operation: "opening" },
    );
  }

  return {
    place: path,
    async describe(): Promise<Omit<Disk, "key">> {
      return { size: look().size, name: options.name ?? basename(path) };
    },
    async moment(key: string): Promise<DiskMoment> {
      await settleDevice(path);
      const file = look();
      // A device that the kernel keeps from being written to needs nobody's word.
      const frozen = options.frozen === true || file.readOnly;
      const data = { path: file.path, place: file.place, identity: file.identity, stamp: file.stamp, frozen };
      // Times tell a file's contents apart; a device has none, and its count of writes begins anew with the machine.
      const moment = file.kind === "file" ? [] : [key];
      return { id: hashOf([file.identity, String(file.size), file.stamp, ...moment]), size: file.size, frozen, data };
    },
    async open(disk: DiskSnapshot, live: boolean): Promise<BlockReader> {
      const moment = check(disk, live);
      const file = openRaw(moment.path);
      closeSync(file.fd);
      const release = claimPlace({ place: file.place, within: file.within, label: path }, "source");
      try {
        const reader = await openRawReader(moment.path, {
          size: disk.size,
          place: moment.place,
          stamp: moment.frozen ? moment.stamp : undefined,
        });
        return withRelease(reader, release);
      } catch (error) {
        release();
        throw error;
      }
    },
    checkpoint: () => Promise.resolve(undefined),
    async *changes(disk: DiskSnapshot, request: ChangesOptions): AsyncGenerator<Tile, void, void> {
      if (request.since !== undefined) {
        throw localError("TRACKING_LOST", `${path} is a raw disk, which nobody tracks: the run has to read all of it`);
      }
      const moment = momentOf(disk);
      const range = { from: request.from ?? 0, to: request.to ?? disk.size };
      yield* rawAllocation(moment.path, moment.place, range, request);
    },
    status: (): Promise<TrackerStatus> =>
      Promise.resolve({
        supported: false,
        enabled: false,
        detail: `${path}: raw disks have no change tracking; each run reads all of it and sends what differs`,
      }),
    close: () => Promise.resolve(),
  };
}

/** Writes on their way to a device would be counted later, as if somebody had written during the copy. */
async function settleDevice(path: string): Promise<void> {
  const file = openRaw(path);
  try {
    if (file.kind === "device") await promisify(fdatasync)(file.fd);
  } catch (error) {
    throw translate(error, "flushing", path);
  } finally {
    closeSync(file.fd);
  }
}

/** A reader that calls `release` once it is closed. */
export function withRelease(reader: BlockReader, release: () => void): BlockReader {
  const close = reader[Symbol.asyncDispose].bind(reader);
  return Object.assign(reader, {
    async [Symbol.asyncDispose](): Promise<void> {
      await close();
      release();
    },
  });
}

/** A short name of everything that is given: different lists have different names. */
export function hashOf(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}

function momentOf(disk: DiskSnapshot): RawMoment {
  const data = disk.data ?? {};
  const { path, place, identity, stamp, frozen } = data;
  if (
    typeof path !== "string" ||
    typeof place !== "string" ||
    typeof identity !== "string" ||
    typeof stamp !== "string" ||
    typeof frozen !== "boolean"
  ) {
    throw localError(
      "NOT_FOUND",
      `the snapshot ${disk.id} of ${disk.disk} is of a disk of another kind, which is not here; start a new run`,
    );
  }
  return { path, place, identity, stamp, frozen };
}
