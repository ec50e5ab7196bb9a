import type { Checkpoint } from "@diskferry/core/provider";

/** What a later run needs to ask what changed since, and to notice that it must not ask. */
export interface TrackedPoint {
  /** The machine's id at the source. */
  readonly machine: string;
  /** The disk's key. */
  readonly disk: string;
  /** Bytes of the disk then. */
  readonly size: number;
  /** The snapshot's change id for this disk. */
  readonly changeId: string;
  /** The snapshots that it stood on, by their ids. */
  readonly beneath: readonly string[];
  /** The file that held the disk then; undefined for a disk that is no file, or where an older version did not keep it. */
  readonly file?: string | undefined;
}

const prefix = "cbt1:";

/** A tracked point as the opaque token that core keeps. */
export function formatCheckpoint({ machine, disk, size, changeId, beneath, file }: TrackedPoint): Checkpoint {
  return `${prefix}${JSON.stringify({ machine, disk, size, changeId, beneath, file })}`;
}

/** Reads a token; undefined for what this tracker never gave. */
export function parseCheckpoint(token: Checkpoint): TrackedPoint | undefined {
  if (!token.startsWith(prefix)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(token.slice(prefix.length));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { machine, disk, size, changeId, beneath = [], file } = value as Record<string, unknown>;
  if (typeof machine !== "string" || typeof disk !== "string") return undefined;
  if (typeof size !== "number" || typeof changeId !== "string") return undefined;
  if (!Array.isArray(beneath) || !beneath.every((id) => typeof id === "string")) return undefined;
  if (file !== undefined && typeof file !== "string") return undefined;
  return { machine, disk, size, changeId, beneath, file };
}
