import { createHash } from "node:crypto";
import { mkdirSync, readdirSync } from "node:fs";
import { sep } from "node:path";
import type { Volume } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import type { RawFile } from "../raw/raw-file.ts";
import { type TargetState, stateFolderOfFile, stateFolderOfIdentity } from "./target-state.ts";

/** A name that any file system takes: the key itself where it is one, else its letters and a hash of the rest. */
export function fileNameOf(key: string): string {
  if (/^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/.test(key)) return key;
  const letters = key
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[-.]+/, "")
    .slice(0, 60);
  return `${letters}-${createHash("sha256").update(key).digest("hex").slice(0, 12)}`;
}

/** Makes the folder of a target where there is none. @throws ProviderError CONFIG_INVALID when a file has its name. */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    if ((error as { code?: unknown }).code === "EEXIST") {
      throw localError("CONFIG_INVALID", `${path} is no directory; name one, or give the file as path`, {
        cause: error,
      });
    }
    throw translate(error, "creating the directory", path);
  }
}

/** Where a target file or device is remembered. */
export function stateFolderOf(file: RawFile): string {
  return file.kind === "file" ? stateFolderOfFile(file.path) : stateFolderOfIdentity(file.identity);
}

/** @throws ProviderError NOT_FOUND for a name in /dev: a mistyped device is no new file. */
export function refuseNewDevice(path: string): void {
  if (!path.startsWith(`${sep}dev${sep}`) || path.startsWith(`${sep}dev${sep}shm${sep}`)) return;
  throw localError("NOT_FOUND", `there is no block device ${path}; check its name, a file is not made there`);
}

/** @throws RangeError for a size that no disk has. */
export function checkDiskSize(size: number): void {
  if (Number.isSafeInteger(size) && size > 0 && size % 512 === 0) return;
  throw new RangeError(`a disk of ${size} bytes: the size must be a positive multiple of 512`);
}

/** The error for a target that the disk does not fit in. */
export function tooSmall(path: string, size: number, wanted: number): unknown {
  return localError(
    "CONFIG_INVALID",
    `${path} has ${size} bytes, ${wanted - size} too few for a disk of ${wanted}; nothing was written: ` +
      "enlarge it or name another target",
  );
}

/** The error for a target that holds something else's replica. */
export function holdsOther(label: string, key: string): unknown {
  return localError(
    "EXISTS",
    `${label} holds the replica ${key}; name another target, or set overwrite to give that replica up`,
  );
}

/**
 * @throws ProviderError NOT_FOUND when a volume that was created for a key is not that key's any more: it was removed, or
 * another job took the target over.
 */
export function checkStillOurs(label: string, volume: Volume, state: TargetState | undefined): void {
  const key = volume.data?.["key"];
  if (typeof key !== "string" || state?.key === key) return;
  const now = state?.key === undefined ? "it was given up" : `it holds the replica ${state.key} now`;
  throw localError("NOT_FOUND", `${label} is no longer the replica ${key}: ${now}; create the volume anew`);
}

/** The names in a folder; none where there is no such folder. */
export function listOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return [];
    throw translate(error, "listing", folder);
  }
}
