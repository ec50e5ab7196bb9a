import { createHash } from "node:crypto";
import type { SnapshotNode } from "../vim/snapshot-calls.ts";

/** What a snapshot of ours carries in its description: whose it is, and by which key it was asked for. */
export interface SnapshotMark {
  readonly key: string;
  /** Absent: it belongs to no job. */
  readonly job: string | undefined;
}

/** vSphere takes names of up to 80 characters. */
const nameOf = (key: string): string => `diskferry ${createHash("sha256").update(key).digest("hex").slice(0, 16)}`;

const introduction =
  "Made by diskferry to copy the disks at one point in time. It is removed when the copy is recorded; do not build on it.";

/** Name and description of a new snapshot. */
export function markedSnapshot({ key, job }: SnapshotMark): { name: string; description: string } {
  return { name: nameOf(key), description: `${introduction}\n${JSON.stringify({ diskferry: 1, job, key })}` };
}

/**
 * The ids of the snapshots that one stands on, nearest first: other jobs', other people's, and what a lost run left. Snapshots of
 * ours without a job are left out, beneath others of that kind: who asks for those orders their removal.
 */
export function snapshotsBeneath(nodes: readonly SnapshotNode[], node: SnapshotNode): string[] {
  const byId = new Map(nodes.map((each) => [each.ref.value, each]));
  const own = markOf(node);
  const found: string[] = [];
  for (let at = byId.get(node.parent?.value ?? ""); at !== undefined; at = byId.get(at.parent?.value ?? "")) {
    const mark = markOf(at);
    const callersOwn = own !== undefined && mark !== undefined && own.job === undefined && mark.job === undefined;
    if (!callersOwn) found.push(at.ref.value);
  }
  return found;
}

/** The mark of a snapshot that we made; undefined for everybody else's, whatever it is called. */
export function markOf({ name, description }: SnapshotNode): SnapshotMark | undefined {
  const line = description.slice(description.lastIndexOf("\n") + 1);
  if (!line.startsWith('{"diskferry":1,')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { key, job } = value as { key?: unknown; job?: unknown };
  if (typeof key !== "string" || (job !== undefined && typeof job !== "string")) return undefined;
  return name === nameOf(key) ? { key, job } : undefined;
}
