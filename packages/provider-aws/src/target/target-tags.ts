import { tagNames, tagsOf, tagValue } from "../connection/tags.ts";
import type { Settings } from "../options.ts";

/** The tags of what a target makes, besides those that both ends have. */
export interface TargetTagNames {
  key: string;
  job: string;
  disk: string;
  /**
   * What it is at the target: `volume` for an empty snapshot that stands for a volume, `upload` for one that a run writes or
   * wrote (a commit once it is completed), `attached` for a volume that runs write through its block device, `created` for a
   * volume that was made of a commit for somebody to attach, `placeholder` for one that came with an instance which waits for
   * its disks.
   */
  role: string;
  /** Of an upload: the id of the snapshot that stands for its volume. */
  volume: string;
  run: string;
  /** Of an upload: the commit it was started from. */
  base: string;
  /** Of what a launch made: the launch's key. */
  launch: string;
  /** Of an instance: what it was launched from, so that another request with the same key is noticed. */
  request: string;
  /** Of a volume of a launch: the instance whose disk it is to be. */
  instance: string;
  /** Of a volume made for somebody to attach, and of an instance that got its disks: that it was given to whoever asked. */
  handed: string;
}

export function targetTagNames(product: string): TargetTagNames {
  const { key, job, disk } = tagNames(product);
  const of = (name: string): string => `${product}:${name}`;
  return {
    key,
    job,
    disk,
    role: of("role"),
    volume: of("volume"),
    run: of("run"),
    base: of("base"),
    launch: of("launch"),
    request: of("request"),
    instance: of("instance"),
    handed: of("handed-over"),
  };
}

/** The tag that everything this product made carries; the IAM policy of the docs limits deleting to it. */
export function madeBy(product: string): { key: string; value: string } {
  return { key: "CreatedBy", value: product };
}

/** The tags of something new: the user's, ours over them, absent values left out. */
export function tagsOfNew(
  { product, tags }: Pick<Settings, "product" | "tags">,
  purpose: "Replica" | "Launch",
  own: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const { key, value } = madeBy(product);
  const all: Record<string, string> = { ...tags, [key]: value, Purpose: purpose };
  for (const [name, text] of Object.entries(own)) if (text !== undefined) all[name] = tagValue(text);
  return all;
}

/** Whether this product made what carries these tags. */
export function isOurs(product: string, tags: Parameters<typeof tagsOf>[0]): boolean {
  const { key, value } = madeBy(product);
  return tagsOf(tags)[key] === value;
}
