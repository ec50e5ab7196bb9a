import { readFileSync } from "node:fs";
import { localError } from "../errors.ts";

/**
 * Refuses an image that another process holds locked. qemu locks bytes of an image that it has open (OFD locks), and
 * Linux lists every lock with its inode in /proc/locks (proc_locks(5)); elsewhere nothing is known and nothing refused.
 * @throws ProviderError IN_USE
 */
export function refuseLocked(path: string, identity: string): void {
  let list: string;
  try {
    list = readFileSync("/proc/locks", "utf8");
  } catch {
    return;
  }
  // Block devices are named otherwise: their locks are on the inode of whichever node was opened.
  const parts = /^(\d+):(\d+)$/.exec(identity);
  if (parts === null) return;
  const inode = parts[2]!;
  const number = BigInt(parts[1]!);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn & 0xffffffffn);
  const place = `${hex(major)}:${hex(minor)}:${inode}`;
  for (const line of list.split("\n")) {
    const fields = line.trim().split(/\s+/);
    if (fields.includes(place)) {
      throw localError(
        "IN_USE",
        `${path} is locked by another program (qemu?): stop the machine that runs from it first`,
        {
          operation: "open",
        },
      );
    }
  }
}

function hex(value: bigint): string {
  return value.toString(16).padStart(2, "0");
}
