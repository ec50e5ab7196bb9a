import { createHash } from "node:crypto";

/** Tags as EC2 and EBS take them. */
export interface Tag {
  Key: string;
  Value: string;
}

/**
 * A tag's value as we make it: what AWS takes as it is, else its digest (EC2 user guide, tag restrictions: 256 characters).
 * Nor does it hold what separates tags where a document of Systems Manager takes them as one text.
 */
export function tagValue(text: string): string {
  if (/^[\p{L}\p{N} +\-._:/@]{1,255}$/u.test(text) && text.trim() === text) return text;
  return `sha256:${createHash("sha256").update(text).digest("hex")}`;
}

/** The tags of one product, by what they tell. */
export interface TagNames {
  /** The key something was asked for with. */
  key: string;
  /** The job it belongs to. */
  job: string;
  /** What one call made together. */
  set: string;
  /** How many things are in the set. */
  count: string;
  /** The machine it is of. */
  machine: string;
  /** The disk it is of. */
  disk: string;
  /** What was really achieved. */
  consistency: string;
  /** A checkpoint stands on it: it must outlive everything but its release. */
  held: string;
  /** The snapshot it was copied from. */
  copyOf: string;
  /** The volume of the snapshot it was copied from. */
  copyVolume: string;
  /** An account that a snapshot is shared with until its copy is done. */
  shared: string;
}

/** How a product's tags are called. */
export function tagNames(product: string): TagNames {
  const of = (name: string): string => `${product}:${name}`;
  return {
    key: of("key"),
    job: of("job"),
    set: of("set"),
    count: of("count"),
    machine: of("machine"),
    disk: of("disk"),
    consistency: of("consistency"),
    held: of("held"),
    copyOf: of("copy-of"),
    copyVolume: of("copy-volume"),
    shared: of("shared-with"),
  };
}

/** Tags as a record; what AWS leaves out is left out. */
export function tagsOf(
  tags: readonly { Key?: string | undefined; Value?: string | undefined }[] = [],
): Record<string, string> {
  return Object.fromEntries(tags.flatMap(({ Key, Value }) => (Key === undefined ? [] : [[Key, Value ?? ""]])));
}

/** A record as tags. */
export function toTags(record: Record<string, string>): Tag[] {
  return Object.entries(record).map(([Key, Value]) => ({ Key, Value }));
}
