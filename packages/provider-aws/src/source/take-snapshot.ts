import { randomUUID } from "node:crypto";
import {
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  CreateTagsCommand,
  type SnapshotInfo,
} from "@aws-sdk/client-ec2";
import {
  type Consistency,
  type Disk,
  type Machine,
  type Snapshot,
  type SnapshotRequest,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames, tagValue, toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import { guardedCommands, releaseCommands, runInGuest } from "./guest.ts";
import { awaitCompleted, awaitListable, gibi } from "./snapshot-facts.ts";
import { type SnapshotSet, deleteSnapshots, findSets, handleOf } from "./snapshot-set.ts";

/** Data volumes that CreateSnapshots leaves out at most (EC2, InstanceSpecification). */
const mostExcluded = 40;
/** How long a guest stays frozen at most, in seconds, whatever becomes of us. */
const longestFreezeSeconds = 60;

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

/** Makes a set by whichever way reaches the consistency asked for, and is content with a power cut's where none does. */
async function makeSet(
  connection: AwsConnection,
  machine: Machine,
  disks: readonly Disk[],
  request: SnapshotRequest,
): Promise<SnapshotSet> {
  const { consistency = "crash", signal } = request;
  const wantsGuest = consistency === "filesystem" || consistency === "application";
  const { application } = connection.options.source ?? {};
  const create = (): Promise<SnapshotSet> => createSet(connection, machine, disks, request);
  if (!wantsGuest) return create();
  const less = (why: string): Promise<SnapshotSet> => {
    connection.notice(
      `${machine.id}: ${consistency} consistency is not reached, and crash consistency is what there is: ${why}`,
    );
    return create();
  };
  if (!machine.id.startsWith("i-")) return less("a volume or snapshot has no guest that could be asked.");
  if (machine.power === "off")
    return less("it is off, and EC2 does not tell whether its guest had shut down in time or its power was taken.");
  const timeoutSeconds = application?.timeoutSeconds ?? 600;
  const base = { instanceId: machine.id, timeoutSeconds, signal };
  try {
    if (machine.spec?.guestFamily === "windows") {
      const made = await vssSet(connection, machine, request, base);
      return made ?? (await less("AWSEC2-CreateVssSnapshot made no snapshots; see it in Systems Manager."));
    }
    const linux = application?.linux;
    if (linux === undefined)
      return await less("no commands are given for Linux guests; see the option source.application.linux.");
    return await frozenSet(connection, linux, create, base, less);
  } catch (error) {
    if (!isProviderError(error) || (error.code !== "UNSUPPORTED" && error.code !== "DENIED")) throw error;
    return less(error.message);
  }
}

type GuestRequest = { instanceId: string; timeoutSeconds: number } & Wait;

/** Has the guest run its own commands before and after the point in time; after it also when anything failed. */
async function frozenSet(
  connection: AwsConnection,
  linux: { pre: string[]; post: string[]; achieves: Consistency },
  create: () => Promise<SnapshotSet>,
  base: GuestRequest,
  less: (why: string) => Promise<SnapshotSet>,
): Promise<SnapshotSet> {
  const document = "AWS-RunShellScript";
  const { product } = connection.settings;
  const freeze = Math.min(longestFreezeSeconds, base.timeoutSeconds);
  const run = (commands: string[], comment: string, wait: Wait) =>
    runInGuest(connection, {
      ...base,
      document,
      comment,
      parameters: { commands, executionTimeout: [String(base.timeoutSeconds)] },
      ...wait,
    });
  const thaw = () => run(releaseCommands(linux.post), `${product}: after the snapshot`, { signal: undefined });
  let set: SnapshotSet | undefined;
  let why: string | undefined;
  try {
    const before = await run(guardedCommands(linux.pre, linux.post, freeze), `${product}: before the snapshot`, base);
    if (before.status === "Success") set = await create();
    else why = `the commands before the snapshot ended as ${before.status}: ${before.output}`;
  } catch (error) {
    // Not what failed, but that the guest may still be frozen, comes first; its own guard is the last resort.
    await thaw().catch((more: unknown) => connection.notice(`${base.instanceId} could not be thawed: ${String(more)}`));
    throw error;
  }
  const after = await thaw();
  if (set === undefined) return less(why ?? "");
  if (after.status !== "Success") {
    connection.notice(
      `${base.instanceId}: only crash consistency is certain, because the commands after the snapshot ended as ${after.status}: ${after.output}`,
    );
    return set;
  }
  const { consistency } = tagNames(product);
  const Tags = [{ Key: consistency, Value: linux.achieves }];
  await connection.ec2(new CreateTagsCommand({ Resources: idsOf(set), Tags }), {
    object: set.id,
    settling: true,
    signal: base.signal,
  });
  return set;
}

/** Has Windows take the snapshots by VSS; what was achieved is in the tag AppConsistent, and is read there later. */
async function vssSet(
  connection: AwsConnection,
  machine: Machine,
  request: SnapshotRequest,
  base: GuestRequest,
): Promise<SnapshotSet | undefined> {
  const { application } = connection.options.source ?? {};
  const all = machine.disks;
  const tags = setTags(connection, machine, request, all.length);
  // The document takes tags as one text; what would be read as two of them is added by a call of its own.
  const inText = Object.entries(tags).filter((tag) => !/[,;=]/.test(tag.join("")));
  const apart = Object.entries(tags).filter((tag) => !inText.includes(tag));
  const outcome = await runInGuest(connection, {
    ...base,
    document: "AWSEC2-CreateVssSnapshot",
    comment: `${connection.settings.product}: snapshot`,
    parameters: {
      ExcludeBootVolume: ["False"],
      CopyOnly: [application?.windows?.copyOnly === false ? "False" : "True"],
      NoWriters: [application?.windows?.noWriters === true ? "True" : "False"],
      description: [descriptionOf(connection, machine)],
      tags: [inText.map(([key, value]) => `Key=${key},Value=${value}`).join(";")],
      executionTimeout: [String(base.timeoutSeconds)],
    },
  });
  const names = tagNames(connection.settings.product);
  const [made] = await findSets(connection, { [`tag:${names.set}`]: [tags[names.set]!] }, base);
  if (outcome.status !== "Success") {
    connection.notice(`AWSEC2-CreateVssSnapshot on ${machine.id} ended as ${outcome.status}: ${outcome.output}`);
    if (made !== undefined) await deleteSnapshots(connection, idsOf(made), base);
    return undefined;
  }
  if (made !== undefined && apart.length > 0) {
    const Tags = toTags(Object.fromEntries(apart));
    await connection.ec2(new CreateTagsCommand({ Resources: idsOf(made), Tags }), {
      object: made.id,
      signal: base.signal,
    });
  }
  return made;
}

/** Makes the snapshots by one call, tags and description in it. */
async function createSet(
  connection: AwsConnection,
  machine: Machine,
  disks: readonly Disk[],
  request: SnapshotRequest,
): Promise<SnapshotSet> {
  const { signal } = request;
  const tags = setTags(connection, machine, request, disks.length);
  const TagSpecifications = [{ ResourceType: "snapshot" as const, Tags: toTags(tags) }];
  const Description = descriptionOf(connection, machine);
  const set: SnapshotSet = { id: tags[tagNames(connection.settings.product).set]!, count: disks.length, members: [] };
  const about = { object: machine.id, once: true, signal };
  const member = (each: Pick<SnapshotInfo, "SnapshotId" | "VolumeId" | "VolumeSize" | "StartTime">) => ({
    id: each.SnapshotId ?? "",
    state: "pending" as const,
    volumeId: each.VolumeId ?? "",
    ownerId: connection.accountId,
    size: (each.VolumeSize ?? 0) * gibi,
    startedAt: (each.StartTime ?? new Date()).toISOString(),
    encrypted: false,
    archived: false,
    onOutpost: false,
    description: Description,
    tags,
  });
  if (machine.id.startsWith("vol-")) {
    const command = new CreateSnapshotCommand({ VolumeId: machine.id, Description, TagSpecifications });
    set.members = [member(await connection.ec2(command, about))];
    return set;
  }
  const chosen = new Set(disks.map(({ key }) => key));
  const left = machine.disks.filter(({ key }) => !chosen.has(key));
  const ExcludeDataVolumeIds = left.filter(({ boot }) => boot !== true).map(({ key }) => key);
  if (ExcludeDataVolumeIds.length > mostExcluded)
    throw awsError(
      "UNSUPPORTED",
      `${machine.id}: ${ExcludeDataVolumeIds.length} disks would be left out, and EC2 leaves out ${mostExcluded} at most. Choose more disks.`,
      { operation: "CreateSnapshots" },
    );
  const command = new CreateSnapshotsCommand({
    InstanceSpecification: {
      InstanceId: machine.id,
      ExcludeBootVolume: left.some(({ boot }) => boot === true),
      ...(ExcludeDataVolumeIds.length === 0 ? {} : { ExcludeDataVolumeIds }),
    },
    Description,
    TagSpecifications,
  });
  const { Snapshots = [] } = await connection.ec2(command, about);
  set.members = Snapshots.map(member);
  return set;
}

/** Waits until every member of a set is there and completed. @throws ProviderError UNAVAILABLE when one failed */
async function completed(connection: AwsConnection, set: SnapshotSet, wait: Wait): Promise<SnapshotSet> {
  const names = tagNames(connection.settings.product);
  const { pollMs, visibleMs } = connection.settings.timeouts;
  const end = performance.now() + visibleMs;
  let members = set.members;
  // A set that was found may not be seen whole yet.
  while (members.length < set.count) {
    if (performance.now() > end)
      throw awsError(
        "UNAVAILABLE",
        `Of the ${set.count} snapshots that were made together (${names.set} ${set.id}) only ${members.length} are there. ` +
          `Somebody may have removed the others: remove these too and run again.`,
        { operation: "DescribeSnapshots", retryable: false },
      );
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

function setTags(
  connection: AwsConnection,
  machine: Machine,
  request: SnapshotRequest,
  count: number,
): Record<string, string> {
  const { product, tags } = connection.settings;
  const names = tagNames(product);
  return {
    CreatedBy: product,
    Purpose: "Backup",
    ...tags,
    [names.key]: tagValue(request.key),
    [names.set]: randomUUID(),
    [names.count]: String(count),
    [names.machine]: tagValue(machine.id),
    ...(request.job === undefined ? {} : { [names.job]: tagValue(request.job) }),
  };
}

function descriptionOf(connection: AwsConnection, machine: Machine): string {
  return `${connection.settings.product} incremental backup snapshot of ${machine.id}`;
}

function isFailed({ members }: SnapshotSet): boolean {
  return members.some(({ state }) => state === "error");
}

function idsOf({ members }: SnapshotSet): string[] {
  return members.map(({ id }) => id);
}
