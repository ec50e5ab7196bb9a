import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  type Filter,
  type Volume,
} from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { toTags } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import { clientToken } from "../target/client-token.ts";
import type { VolumeOptions } from "../target/target-options.ts";
import { awaitState } from "./await-state.ts";

/** What a new volume is made of. */
export interface VolumeOrder extends VolumeOptions {
  zone: string;
  /** What the order is about: the same gives the same volume. */
  about: readonly string[];
  tags: Record<string, string>;
  /** Absent: an empty volume. */
  snapshotId?: string | undefined;
  /** GiB; absent: the snapshot's. */
  sizeGib?: number | undefined;
  /** ARN of a KMS key; absent: as the snapshot, or as the account does by default. */
  kmsKey?: string | undefined;
}

/** So often may a volume of one order have been deleted before another key is asked for. */
const MOST_GENERATIONS = 20;

/**
 * Makes a volume and waits until it can be used. Asked again after a kill, the same order gives the same volume; once that was
 * deleted, another one. One that ends in error is removed.
 * @throws ProviderError DENIED when it ends in error, which AWS does not explain and a refused KMS key is the cause of
 */
export async function makeVolume(connection: AwsConnection, order: VolumeOrder, { signal }: Wait): Promise<Volume> {
  const { zone, about, tags, snapshotId, sizeGib, kmsKey, type = "gp3", iops, throughput } = order;
  const shape = {
    AvailabilityZone: zone,
    VolumeType: type,
    ...(snapshotId === undefined ? {} : { SnapshotId: snapshotId }),
    ...(sizeGib === undefined ? {} : { Size: sizeGib }),
    ...(iops === undefined ? {} : { Iops: iops }),
    ...(throughput === undefined ? {} : { Throughput: throughput }),
    ...(kmsKey === undefined ? {} : { Encrypted: true, KmsKeyId: kmsKey }),
    TagSpecifications: [{ ResourceType: "volume" as const, Tags: toTags(tags) }],
  };
  const object = snapshotId === undefined ? `an empty volume in ${zone}` : `a volume of ${snapshotId}`;
  for (let generation = 0; generation < MOST_GENERATIONS; generation++) {
    // With its shape, since a token is refused with another: what failed for its type or key is asked for anew with a better one.
    const token = clientToken([connection.settings.product, "volume", ...about, JSON.stringify(shape), generation]);
    const command = new CreateVolumeCommand({ ...shape, ClientToken: token });
    let id: string;
    try {
      id = (await connection.ec2(command, { object, signal })).VolumeId ?? "";
    } catch (error) {
      if (failureOf(error)?.awsCode === "InvalidVolume.NotFound") continue;
      throw error;
    }
    if (await becomesKnown(connection, id, signal)) return usable(connection, id, { signal });
  }
  throw awsError("UNAVAILABLE", `${MOST_GENERATIONS} volumes of ${object} were made and deleted: use another key.`, {
    operation: "CreateVolume",
    retryable: false,
  });
}

/** The answer to an old token is the volume of that time, deleted or not; a new one may not be known at once. */
async function becomesKnown(connection: AwsConnection, id: string, signal: AbortSignal | undefined): Promise<boolean> {
  const { visibleMs, pollMs } = connection.settings.timeouts;
  for (const end = performance.now() + visibleMs; ;) {
    if ((await findVolume(connection, id, { signal })) !== undefined) return true;
    if (performance.now() >= end) return false;
    await sleep(pollMs, signal);
  }
}

/** Waits until a new volume can be used. @throws ProviderError DENIED when it ends in error; it is removed then */
export async function usable(connection: AwsConnection, id: string, { signal }: Wait): Promise<Volume> {
  const volume = await volumeIn(connection, id, ["available", "in-use", "error"], { signal });
  if (volume.State !== "error") return volume;
  await deleteVolume(connection, id, { signal });
  throw awsError(
    "DENIED",
    `Volume ${id} ended in error while it was made, and was removed. AWS does not say why; a KMS key that these credentials ` +
      `may not use ends like this: allow kms:CreateGrant, kms:Decrypt and kms:GenerateDataKeyWithoutPlaintext on it.`,
    { operation: "CreateVolume" },
  );
}

/**
 * The one volume that an earlier call left and that is, or will be, good; undefined when there is none. Those in error are
 * removed: they never come to be anything, and would be found again each time.
 */
export async function takenUp(
  connection: AwsConnection,
  found: readonly Volume[],
  { signal }: Wait,
): Promise<Volume | undefined> {
  for (const { VolumeId, State } of found)
    if (State === "error" && VolumeId !== undefined) await deleteVolume(connection, VolumeId, { signal });
  return found.find(({ State }) => State === "creating" || State === "available" || State === "in-use");
}

/** Waits until a volume is in one of the states. @throws ProviderError UNEXPECTED when it is in error and that is none of them */
export async function volumeIn(
  connection: AwsConnection,
  id: string,
  states: readonly string[],
  { signal }: Wait,
): Promise<Volume> {
  const { powerMs } = connection.settings.timeouts;
  const about = { what: `Volume ${id}: ${states.join(" or ")}`, ms: powerMs, operation: "CreateVolume", signal };
  return awaitState(connection, about, async () => {
    const found = await findVolume(connection, id, { signal });
    if (found?.State === "error" && !states.includes("error"))
      throw awsError("UNEXPECTED", `Volume ${id} is in error; a KMS key that may not be used ends like this.`, {
        operation: "CreateVolume",
      });
    return found?.State !== undefined && states.includes(found.State) ? found : undefined;
  });
}

/** One volume; undefined when it is not there. */
export async function findVolume(connection: AwsConnection, id: string, { signal }: Wait): Promise<Volume | undefined> {
  try {
    const command = new DescribeVolumesCommand({ VolumeIds: [id] });
    return (await connection.ec2(command, { object: id, signal })).Volumes?.[0];
  } catch (error) {
    if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

/** Volumes that carry all of these tags. */
export async function volumesWith(
  connection: AwsConnection,
  tags: Readonly<Record<string, string>>,
  { signal }: Wait,
): Promise<Volume[]> {
  const Filters: Filter[] = Object.entries(tags).map(([name, value]) => ({ Name: `tag:${name}`, Values: [value] }));
  const found: Volume[] = [];
  for (let NextToken: string | undefined; ;) {
    const command = new DescribeVolumesCommand({ Filters, NextToken });
    const page = await connection.ec2(command, { object: "this account's volumes", signal });
    found.push(...(page.Volumes ?? []));
    NextToken = page.NextToken;
    if (NextToken === undefined || NextToken === "") return found;
  }
}

/** Attaches a volume, or finds it attached, and waits until it is. @throws ProviderError IN_USE elsewhere */
export async function attachVolume(
  connection: AwsConnection,
  id: string,
  { instanceId, device, signal }: Wait & { instanceId: string; device: string },
): Promise<void> {
  const { powerMs } = connection.settings.timeouts;
  const about = { what: `Volume ${id} at ${instanceId}`, ms: powerMs, operation: "AttachVolume", signal };
  await awaitState(connection, about, async () => {
    const at = (await findVolume(connection, id, { signal }))?.Attachments?.[0];
    if (at === undefined) {
      const command = new AttachVolumeCommand({ VolumeId: id, InstanceId: instanceId, Device: device });
      try {
        await connection.ec2(command, { object: id, signal });
      } catch (error) {
        // By an earlier try, whose answer was lost, or by somebody else: the next look tells.
        if (failureOf(error)?.awsCode !== "VolumeInUse") throw error;
      }
      return undefined;
    }
    if (at.InstanceId !== instanceId || at.Device !== device)
      throw awsError(
        "IN_USE",
        `Volume ${id} is attached to ${at.InstanceId} as ${at.Device}, where ${instanceId} needs it as ${device}: detach it.`,
        { operation: "AttachVolume" },
      );
    return at.State === "attached" ? at : undefined;
  });
}

/** Detaches a volume, where it is attached, and deletes it; one that is gone is deleted. */
export async function removeVolume(connection: AwsConnection, id: string, { signal }: Wait): Promise<void> {
  // Looked at before every try: AWS refuses to detach what an earlier one, whose answer was lost, has detached.
  const found = await connection.patiently(
    async () => {
      const now = await findVolume(connection, id, { signal });
      const state = now?.Attachments?.[0]?.State;
      if (state !== undefined && state !== "detaching" && state !== "detached")
        await connection.ec2(new DetachVolumeCommand({ VolumeId: id }), { object: id, once: true, signal });
      return now;
    },
    { signal },
  );
  if (found === undefined) return;
  await volumeIn(connection, id, ["available", "error"], { signal });
  await deleteVolume(connection, id, { signal });
}

/** Deletes a volume; one that is gone is deleted. */
export async function deleteVolume(connection: AwsConnection, id: string, { signal }: Wait): Promise<void> {
  try {
    await connection.ec2(new DeleteVolumeCommand({ VolumeId: id }), { object: id, signal });
  } catch (error) {
    if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
  }
}
