import { randomUUID } from "node:crypto";
import { CreateSnapshotCommand, CreateSnapshotsCommand, type SnapshotInfo } from "@aws-sdk/client-ec2";
import type { Disk, Machine, SnapshotRequest, Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames, tagValue, toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { gibi } from "./snapshot-facts.ts";
import { deleteSnapshots, idsOf, type SnapshotSet } from "./snapshot-set.ts";

/** Data volumes that CreateSnapshots leaves out at most (EC2, InstanceSpecification). */
const mostExcluded = 40;

/** Makes the snapshots by one call, tags and description in it. */
export async function createSet(
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
  await demandWhole(connection, machine, disks, set, { signal });
  return set;
}

/** A volume may have been taken off between the look at the instance and the call: such a set would never be whole. */
async function demandWhole(
  connection: AwsConnection,
  { id }: Machine,
  disks: readonly Disk[],
  set: SnapshotSet,
  wait: Wait,
): Promise<void> {
  const there = new Set(set.members.map(({ volumeId }) => volumeId));
  const gone = disks.filter(({ key }) => !there.has(key)).map(({ key }) => key);
  if (gone.length === 0) return;
  await deleteSnapshots(connection, idsOf(set), wait);
  throw awsError(
    "NOT_FOUND",
    `${id} lost ${gone.join(", ")} just before its snapshot was made; what was made of its other disks is removed. Run again, ` +
      `with the disks it has now.`,
    { operation: "CreateSnapshots" },
  );
}

/** The tags of a new set; each call makes another set. */
export function setTags(
  connection: AwsConnection,
  machine: Machine,
  request: SnapshotRequest,
  count: number,
): Record<string, string> {
  const { product, tags } = connection.settings;
  const names = tagNames(product);
  return {
    ...tags,
    // Ours over the user's: the policy lets only what carries this be removed.
    CreatedBy: product,
    Purpose: "Backup",
    [names.key]: tagValue(request.key),
    [names.set]: randomUUID(),
    [names.count]: String(count),
    [names.machine]: tagValue(machine.id),
    ...(request.job === undefined ? {} : { [names.job]: tagValue(request.job) }),
  };
}

/** What stands in the description of snapshots. */
export function descriptionOf(connection: AwsConnection, machine: Machine): string {
  return `${connection.settings.product} incremental backup snapshot of ${machine.id}`;
}
