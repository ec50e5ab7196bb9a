import { CreateTagsCommand } from "@aws-sdk/client-ec2";
import type { Disk, Machine, Snapshot, SnapshotRequest, Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames, tagValue, toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import { setTags } from "./create-set.ts";
import { makeSet } from "./guest-set.ts";
import { awaitCompleted, awaitListable } from "./snapshot-facts.ts";
import { type SnapshotSet, deleteSnapshots, findSets, handleOf, idsOf } from "./snapshot-set.ts";

/**
 * Takes one point in time of a machine's disks, or finds the one that was taken with the same key, and waits until it can
 * be read. CreateSnapshots has no idempotence of its own: the key is a tag in the call, it is looked for before every try,
 * and where two calls made one each all the same, the earlier one stays.
 */
export async function takeSnapshot(
  connection: AwsConnection,
  machine: Machine,
  disks: readonly Disk[],
  request: SnapshotRequest,
): Promise<Snapshot> {
  const { key, signal } = request;
  const names = tagNames(connection.settings.product);
  const filters = { [`tag:${names.key}`]: [tagValue(key)], [`tag:${names.machine}`]: [tagValue(machine.id)] };
  const find = async (): Promise<SnapshotSet[]> => {
    const sets = await findSets(connection, filters, { signal });
    const failed = sets.filter(isFailed);
    for (const set of failed) await deleteSnapshots(connection, idsOf(set), { signal });
    return sets.filter((set) => !failed.includes(set));
  };
  const make = (): Promise<SnapshotSet> => makeSet(connection, machine, disks, request);
  // Looked for before every try, since a call that seemed to fail may have been heard.
  let ours = await connection.patiently(async () => (await find())[0] ?? (await make()), { signal });
  for (;;) {
    ours = await completed(connection, ours, { signal });
    const [first] = await find();
    if (first === undefined || first.id === ours.id) break;
    connection.notice(
      `Two snapshots of ${machine.id} were made for one key, because the answer to the first was lost; the later one is removed.`,
    );
    await deleteSnapshots(connection, idsOf(ours), { signal });
    ours = first;
  }
  await completeTags(connection, ours, setTags(connection, machine, request, ours.count), { signal });
  const wanted = new Set(disks.map((disk) => disk.key));
  const excluded = new Set(machine.disks.filter(({ ineligible }) => ineligible !== undefined).map((disk) => disk.key));
  // A volume that was taken away since is in the snapshot all the same: only what was never wanted is spare.
  const spare = ours.members.filter(({ volumeId }) =>
    request.disks === undefined ? excluded.has(volumeId) : !wanted.has(volumeId),
  );
  if (spare.length > 0 && spare.length < ours.members.length) {
    // VSS takes all volumes of an instance; those that nobody asked for are given back, and the others told so first.
    const kept = ours.members.filter((each) => !spare.includes(each));
    const Resources = kept.map(({ id }) => id);
    const Tags = [{ Key: names.count, Value: String(kept.length) }];
    await connection.ec2(new CreateTagsCommand({ Resources, Tags }), { object: ours.id, signal });
    await deleteSnapshots(
      connection,
      spare.map(({ id }) => id),
      { signal },
    );
    ours = { ...ours, members: kept };
  }
  for (const { id } of ours.members) await awaitListable(connection, id, { signal });
  return handleOf(connection, ours, key);
}

/** Waits until every member of a set is there and completed. @throws ProviderError UNAVAILABLE when one failed */
async function completed(connection: AwsConnection, set: SnapshotSet, wait: Wait): Promise<SnapshotSet> {
  const names = tagNames(connection.settings.product);
  const { pollMs, visibleMs } = connection.settings.timeouts;
  const end = performance.now() + visibleMs;
  let members = set.members;
  // A set that was found may not be seen whole yet.
  while (members.length < set.count) {
    if (performance.now() > end) {
      const isHeld = members.some(({ tags }) => tags[names.held] !== undefined);
      // Found again each time, what is left of it would stand in the way of every later try.
      if (!isHeld) await deleteSnapshots(connection, idsOf({ ...set, members }), wait);
      throw awsError(
        "UNAVAILABLE",
        `Of the ${set.count} snapshots that were made together (${names.set} ${set.id}) only ${members.length} are there; ` +
          `somebody may have removed the others. ` +
          (isHeld ? "One is held as a base: remove them by hand and run again." : "They are removed too: run again."),
        { operation: "DescribeSnapshots", retryable: false },
      );
    }
    await sleep(pollMs, wait.signal);
    const [seen] = await findSets(connection, { [`tag:${names.set}`]: [set.id] }, wait);
    members = seen?.members ?? [];
  }
  const done = [];
  for (const { id } of members) done.push(await awaitCompleted(connection, id, wait));
  const whole = { ...set, members: done };
  const failed = done.find(({ state }) => state !== "completed");
  if (failed === undefined) return whole;
  await deleteSnapshots(connection, idsOf(whole), wait);
  throw awsError(
    "UNAVAILABLE",
    `Snapshot ${failed.id} of ${failed.volumeId} failed (${failed.stateMessage ?? "EC2 says no more"}); those that were made ` +
      `with it are removed. Run again.`,
    { operation: "CreateSnapshots" },
  );
}

/** VSS does not take every tag in its text, and who would have added the others may have been killed. */
async function completeTags(
  connection: AwsConnection,
  { id, members }: SnapshotSet,
  wanted: Readonly<Record<string, string>>,
  wait: Wait,
): Promise<void> {
  const missing = Object.entries(wanted).filter(([name]) => members.some(({ tags }) => !Object.hasOwn(tags, name)));
  if (missing.length === 0) return;
  const Resources = members.map((each) => each.id);
  const command = new CreateTagsCommand({ Resources, Tags: toTags(Object.fromEntries(missing)) });
  await connection.ec2(command, { object: id, ...wait });
}

function isFailed({ members }: SnapshotSet): boolean {
  return members.some(({ state }) => state === "error");
}
