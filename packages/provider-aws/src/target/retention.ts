import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { deleteSnapshot, type OwnSnapshot, snapshotsWith } from "./own-snapshots.ts";
import { targetTagNames } from "./target-tags.ts";

const DAY_MS = 86_400_000;

/** Floors of retention, both of them. */
export interface Keep {
  count?: number | undefined;
  ageDays?: number | undefined;
}

/**
 * Which commits retention lets go, oldest first. Count and age are floors, both of them; the newest commit and those in
 * `held` stay whatever they say. Deleting one breaks no other: EBS keeps the blocks that later snapshots share with it.
 */
export function expired(
  commits: readonly OwnSnapshot[],
  keep: Keep | undefined,
  held: ReadonlySet<string>,
  now: number,
): OwnSnapshot[] {
  const { count, ageDays } = keep ?? {};
  if (count === undefined && ageDays === undefined) return [];
  const youngest = ageDays === undefined ? Number.POSITIVE_INFINITY : now - ageDays * DAY_MS;
  const oldestFirst = [...commits].sort((one, other) => one.startedAt - other.startedAt);
  return oldestFirst.filter(({ id, startedAt }, index) => {
    const newer = oldestFirst.length - 1 - index;
    return newer >= Math.max(1, count ?? 1) && startedAt < youngest && !held.has(id);
  });
}

/**
 * What a run's commit leaves to remove: what earlier runs of the volume left half-written, and commits that retention lets go.
 * The run's own commit and its base stay.
 */
export async function unneededAfter(
  connection: AwsConnection,
  { key, own, base, startedAt }: { key: string; own: string; base: string | undefined; startedAt: number },
  { signal }: Wait,
): Promise<OwnSnapshot[]> {
  const names = targetTagNames(connection.settings.product);
  const uploads = await snapshotsWith(connection, { [names.key]: key, [names.role]: "upload" }, { signal });
  const isLeftOver = ({ id, state, startedAt: at }: OwnSnapshot): boolean =>
    id !== own && state !== "completed" && at < startedAt;
  const commits = uploads.filter(({ state }) => state === "completed");
  // A commit on which a half-written snapshot stands is still needed to finish that one.
  const needed = uploads
    .filter((each) => each.state === "pending" && !isLeftOver(each))
    .map(({ tags }) => tags[names.base]);
  const held = new Set([own, base, ...needed].filter((id) => id !== undefined));
  const { keep } = connection.options.target ?? {};
  return [...uploads.filter(isLeftOver), ...expired(commits, keep, held, Date.now())];
}

/** Removes what is no longer needed. What cannot be removed is said and left: the commit is good without it. */
export async function removeUnneeded(
  connection: AwsConnection,
  unneeded: readonly OwnSnapshot[],
  { signal }: Wait,
): Promise<void> {
  for (const { id } of unneeded) {
    try {
      await deleteSnapshot(connection, id, { signal });
    } catch (error) {
      if (!isProviderError(error)) throw error;
      connection.notice(`Snapshot ${id} is no longer needed and could not be removed: ${error.message}`);
    }
  }
}
