import { realpathSync, statSync, statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { stateFolderOfFile, stateFolderOfIdentity } from "../target/target-state.ts";

/**
 * File systems that one kernel alone mounts and writes: ext4, XFS, Btrfs, tmpfs, ZFS, F2FS, bcachefs, overlayfs (Linux,
 * statfs(2) and include/uapi/linux/magic.h).
 */
const ofOneHost: ReadonlySet<number> = new Set([
  0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0xf2f5_2010, 0xca45_1a4e, 0x794c_7630,
]);

/**
 * Whether everybody who can write the files at a path, or below it, meets at the fence beside them: a regular file on a file
 * system of this host alone. Not a network file system, whose other hosts may see a fence late; not a device, whose fence
 * lies in a folder of this user's.
 */
export function isFencedForAll(path: string): boolean {
  const existing = nearest(resolve(path));
  const kind = statSync(existing);
  if (!kind.isFile() && !kind.isDirectory()) return false;
  if (!ofOneHost.has(statfsSync(existing).type)) return false;
  return kind.isDirectory() || stateFolderOfFile(existing) !== stateFolderOfIdentity(`file:${existing}`);
}

/** The path itself, or what is there of the folders above it. */
function nearest(path: string): string {
  for (let at = path; ; at = dirname(at)) {
    if (statSync(at, { throwIfNoEntry: false }) !== undefined) return realpathSync(at);
    if (dirname(at) === at) return at;
  }
}
