import { DeleteSnapshotCommand } from "@aws-sdk/client-ec2";
import { type Consistency, type Snapshot, type Wait, isProviderError } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames } from "../connection/tags.ts";
import { type SnapshotFacts, findSnapshots } from "./snapshot-facts.ts";

/** Snapshots that one call of ours made together. */
export interface SnapshotSet {
  /** What its members' tags call it. */
  id: string;
  /** How many members there have to be. */
  count: number;
  members: SnapshotFacts[];
}

/** Sets of this account whose members pass the filters, the earliest first. */
export async function findSets(
  connection: AwsConnection,
  filters: Record<string, string[]>,
  wait: Wait = {},
): Promise<SnapshotSet[]> {
  const names = tagNames(connection.settings.product);
  const sets = new Map<string, SnapshotSet>();
  for await (const facts of findSnapshots(connection, filters, wait)) {
    const id = facts.tags[names.set];
    if (id === undefined) continue;
    const count = Number(facts.tags[names.count] ?? 0);
    const set = sets.get(id) ?? { id, count, members: [] };
    // Those that stay are told of their new number before the spare ones go, which may then be gone in part.
    set.count = Math.min(set.count, count);
    set.members.push(facts);
    sets.set(id, set);
  }
  const began = (set: SnapshotSet): string => set.members.map(({ startedAt }) => startedAt).toSorted()[0] ?? "";
  return [...sets.values()].toSorted((a, b) => began(a).localeCompare(began(b)) || a.id.localeCompare(b.id));
}

/** Removes snapshots; those that are gone already are removed. */
export async function deleteSnapshots(
  connection: AwsConnection,
  ids: readonly string[],
  wait: Wait = {},
): Promise<void> {
  let failure: unknown;
  for (const id of ids) {
    try {
      await connection.ec2(new DeleteSnapshotCommand({ SnapshotId: id }), { object: id, ...wait });
    } catch (error) {
      wait.signal?.throwIfAborted();
      // One that cannot be removed keeps none of the others.
      if (!isProviderError(error) || error.code !== "NOT_FOUND") failure ??= error;
    }
  }
  if (failure !== undefined) throw failure as Error;
}

/** What the tags of a set's members and of VSS say was achieved; without a word of them a power cut's quality. */
export function consistencyOf(connection: AwsConnection, members: readonly SnapshotFacts[]): Consistency {
  const { consistency } = tagNames(connection.settings.product);
  // Windows' own document writes down whether all writers took part (EC2 user guide, VSS snapshots: AppConsistent).
  if (members.length > 0 && members.every(({ tags }) => tags["AppConsistent"] === "True")) return "application";
  const said = members[0]?.tags[consistency];
  return said === "application" || said === "filesystem" ? said : "crash";
}

/** A set as the handle that callers keep. */
export function handleOf(connection: AwsConnection, set: SnapshotSet, key?: string): Snapshot {
  const names = tagNames(connection.settings.product);
  const members = set.members.toSorted((a, b) => a.volumeId.localeCompare(b.volumeId) || a.id.localeCompare(b.id));
  const [first] = members;
  const machine = first?.tags[names.machine] ?? "";
  const { region } = connection;
  return {
    id: set.id,
    key: key ?? first?.tags[names.key] ?? "",
    machine,
    consistency: consistencyOf(connection, set.members),
    takenAt: set.members.map(({ startedAt }) => startedAt).toSorted()[0] ?? new Date(0).toISOString(),
    disks: members.map(({ id, size, volumeId, tags }) => ({
      id,
      machine,
      disk: tags[names.disk] ?? volumeId,
      size,
      data: { volumeId, region, made: true },
    })),
    data: { made: true, region },
  };
}

/** Ids of a set's members. */
export function idsOf({ members }: SnapshotSet): string[] {
  return members.map(({ id }) => id);
}
