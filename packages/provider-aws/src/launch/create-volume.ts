import { CreateTagsCommand, type Volume as Ec2Volume } from "@aws-sdk/client-ec2";
import type { OwnedResource, Volume, Wait } from "@diskferry/core/provider";
import { AwsConnection } from "../connection/connection.ts";
import { tagsOf, tagValue } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import type { AwsOptions } from "../options.ts";
import type { VolumeOptions } from "../target/target-options.ts";
import { isOurs, tagsOfNew, targetTagNames } from "../target/target-tags.ts";
import { deleteVolume, findVolume, makeVolume, takenUp, usable, volumeIn, volumesWith } from "./volumes.ts";

/** The role of a volume that was made for somebody to attach. */
const ROLE = "created";
const GIB = 2 ** 30;

/** Which volume to make of a commit. */
export interface CreateVolumeRequest extends VolumeOptions, Wait {
  /** The account and Region of the snapshot. */
  in: AwsOptions;
  snapshotId: string;
  /** The Availability Zone, such as `eu-central-1a`. */
  zone: string;
  /** Idempotence: the same key gives the same volume again, until it is deleted. */
  key: string;
  /** The job it belongs to, for clean-up. */
  job?: string | undefined;
  /** ARN of a KMS key to encrypt the volume with. Absent: as the snapshot, or as the account does by default. */
  kmsKey?: string | undefined;
}

/** A volume that can be attached. */
export interface CreatedVolume {
  volumeId: string;
  zone: string;
  /** Bytes. */
  size: number;
}

/**
 * Makes an EBS volume of a commit, for an instance that is there already. It is tagged as handed over before this resolves: from
 * then on it is the caller's, who may have written to it, and clean-up leaves it; {@link removeCreatedVolume} removes it.
 * @throws ProviderError NOT_FOUND for the snapshot; CONFIG_INVALID for a type, IOPS or throughput that do not fit its size;
 * EXISTS when the key's volume was made of another snapshot or in another zone; DENIED when KMS refuses
 */
export async function createVolume(request: CreateVolumeRequest): Promise<CreatedVolume> {
  const { in: options, snapshotId, zone, key, job, kmsKey, type, iops, throughput, signal } = request;
  await using connection = await AwsConnection.open(options, { signal });
  const { settings } = connection;
  const names = targetTagNames(settings.product);
  const mine = await volumeOf(connection, key, { signal });
  if (mine !== undefined && (mine.SnapshotId !== snapshotId || mine.AvailabilityZone !== zone))
    throw awsError(
      "EXISTS",
      `The key ${key} has volume ${mine.VolumeId} already, made of ${mine.SnapshotId} in ${mine.AvailabilityZone}, and not of ` +
        `${snapshotId} in ${zone}. Use another key, or remove that volume first.`,
      { operation: "CreateVolume" },
    );
  const own = { [names.key]: tagValue(key), [names.role]: ROLE };
  const made =
    mine?.VolumeId === undefined
      ? await makeVolume(
          connection,
          {
            zone,
            snapshotId,
            kmsKey,
            type,
            iops,
            throughput,
            about: [key, snapshotId, zone],
            tags: tagsOfNew(settings, "Replica", { ...own, [names.job]: job }),
          },
          { signal },
        )
      : await usable(connection, mine.VolumeId, { signal });
  const volumeId = made.VolumeId ?? "";
  if (tagsOf(made.Tags)[names.handed] === undefined) {
    const Tags = [{ Key: names.handed, Value: "to whoever asked for it; clean-up leaves it" }];
    await connection.ec2(new CreateTagsCommand({ Resources: [volumeId], Tags }), { object: volumeId, signal });
  }
  return { volumeId, zone: made.AvailabilityZone ?? zone, size: (made.Size ?? 0) * GIB };
}

/**
 * Deletes the volume that {@link createVolume} made for a key, with what was written to it since; one that is gone is deleted.
 * @throws ProviderError IN_USE while it is attached
 */
export async function removeCreatedVolume(request: { in: AwsOptions; key: string } & Wait): Promise<void> {
  const { in: options, key, signal } = request;
  await using connection = await AwsConnection.open(options, { signal });
  const mine = await volumeOf(connection, key, { signal });
  if (mine?.VolumeId !== undefined) await remove(connection, mine.VolumeId, { signal });
}

/**
 * Volumes that `createVolume` made for a job. Those that nobody ever got, because the process that asked was killed, can be
 * removed as the job's; those that were handed over are told of alone.
 */
export async function* createdOf(
  connection: AwsConnection,
  job: string,
  wait: Wait,
): AsyncGenerator<OwnedResource & { volume?: Volume }> {
  const names = targetTagNames(connection.settings.product);
  const own = { [names.job]: tagValue(job), [names.role]: ROLE };
  for (const { VolumeId: id = "", Size = 0, SnapshotId, State, Tags } of await volumesWith(connection, own, wait)) {
    const tags = tagsOf(Tags);
    const what = `EBS volume (${State}) made of ${SnapshotId ?? "?"} for key ${tags[names.key] ?? "?"}`;
    if (tags[names.handed] !== undefined)
      yield { kind: "created-volume", id, description: `${what}, handed over: removeCreatedVolume removes it` };
    else {
      const volume = { id, size: Size * GIB, data: { kind: ROLE, region: connection.region } };
      yield { kind: "created-volume", id, description: `${what}, abandoned before anybody got it`, volume };
    }
  }
}

/** Whether a handle is one of a volume that `createVolume` made. */
export function isCreatedVolume({ data }: Volume): boolean {
  return data?.["kind"] === ROLE;
}

/** Removes a volume that nobody got. @throws ProviderError DENIED for one that is not such, IN_USE while it is attached */
export async function removeAbandoned(connection: AwsConnection, id: string, wait: Wait): Promise<void> {
  const { product } = connection.settings;
  const names = targetTagNames(product);
  const found = await findVolume(connection, id, wait);
  if (found === undefined) return;
  const tags = tagsOf(found.Tags);
  if (!isOurs(product, found.Tags) || tags[names.role] !== ROLE || tags[names.handed] !== undefined)
    throw awsError("DENIED", `Volume ${id} was not made by ${product}, or was handed over: remove it by hand.`, {
      operation: "remove",
    });
  await remove(connection, id, wait);
}

async function volumeOf(connection: AwsConnection, key: string, wait: Wait): Promise<Ec2Volume | undefined> {
  const names = targetTagNames(connection.settings.product);
  const own = { [names.key]: tagValue(key), [names.role]: ROLE };
  return takenUp(connection, await volumesWith(connection, own, wait), wait);
}

/** Never detaches: what is attached is in somebody's use. */
async function remove(connection: AwsConnection, id: string, wait: Wait): Promise<void> {
  const volume = await volumeIn(connection, id, ["available", "in-use", "error"], wait);
  const [attachment] = volume.Attachments ?? [];
  if (attachment !== undefined && attachment.State !== "detached")
    throw awsError("IN_USE", `Volume ${id} is attached to ${attachment.InstanceId}: detach it first.`, {
      operation: "DeleteVolume",
    });
  await deleteVolume(connection, id, wait);
}
