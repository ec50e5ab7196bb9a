import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DetachVolumeCommand,
  DescribeVolumesCommand,
  type Instance,
  StartInstancesCommand,
  StopInstancesCommand,
  type Volume,
} from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf, tagValue, toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { clientToken } from "../target/client-token.ts";
import { targetTagNames } from "../target/target-tags.ts";
import { awaitState } from "./await-state.ts";
import { instanceIn } from "./instance.ts";
import { ebsOf, type LaunchPlan, type PlannedVolume } from "./launch-plan.ts";
import { findInstance, volumesOf } from "./launched-resources.ts";

/**
 * Puts the disks of a launch in the place of a placeholder's: volumes are made from the commits, the instance is stopped, its
 * own volumes are detached and deleted, the new ones attached, the root as root, and it is started again. Every step looks
 * first at what is there, so that a launch that was killed at any of them goes on.
 */
export async function swapVolumes(
  connection: AwsConnection,
  plan: LaunchPlan,
  instanceId: string,
  wait: Wait,
): Promise<void> {
  const settled = await settledInstance(connection, instanceId, wait);
  const rootDevice = settled.RootDeviceName ?? plan.volumes[0]!.device;
  const zone = settled.Placement?.AvailabilityZone;
  if (zone === undefined)
    throw awsError("UNEXPECTED", `Instance ${instanceId} has no Availability Zone.`, { operation: "launch" });
  const wanted = plan.volumes.map((volume) => (volume.isRoot ? { ...volume, device: rootDevice } : volume));
  const made: { id: string; planned: PlannedVolume }[] = [];
  for (const planned of wanted)
    made.push({ planned, id: await ensureVolume(connection, plan, planned, { instanceId, zone, ...wait }) });
  const isInPlace = await attachedAsWanted(connection, instanceId, made, wait);
  if (!isInPlace) {
    await stop(connection, instanceId, wait);
    await removePlaceholders(
      connection,
      plan,
      made.map(({ id }) => id),
      wait,
    );
    for (const { id, planned } of made) await attach(connection, id, instanceId, planned.device, wait);
  }
  await connection.ec2(new StartInstancesCommand({ InstanceIds: [instanceId] }), {
    object: instanceId,
    signal: wait.signal,
  });
}

/** The instance once it is running or stopped: what passes by cannot be changed. */
async function settledInstance(connection: AwsConnection, id: string, { signal }: Wait): Promise<Instance> {
  const { powerMs } = connection.settings.timeouts;
  return awaitState(connection, { what: `Instance ${id}`, ms: powerMs, operation: "launch", signal }, async () => {
    const found = await findInstance(connection, id, { signal });
    if (found?.State?.Name === "running" || found?.State?.Name === "stopped") return found;
    // One that ended never settles: this says why.
    if (found?.State?.Name === "terminated") await instanceIn(connection, id, "running", { signal });
    return undefined;
  });
}

async function ensureVolume(
  connection: AwsConnection,
  plan: LaunchPlan,
  planned: PlannedVolume,
  { instanceId, zone, signal }: Wait & { instanceId: string; zone: string },
): Promise<string> {
  const names = targetTagNames(connection.settings.product);
  const own = tagValue(planned.disk);
  const mine = (await volumesOf(connection, plan, { signal })).find(({ Tags }) => tagsOf(Tags)[names.disk] === own);
  let id = mine?.VolumeId;
  if (id === undefined) {
    const command = new CreateVolumeCommand({
      AvailabilityZone: zone,
      SnapshotId: planned.snapshotId,
      // The instance is part of the token: its volumes go with it, and another instance gets volumes of its own.
      ClientToken: clientToken([connection.settings.product, "volume", plan.launch, planned.disk, instanceId]),
      ...ebsOf(planned.volume),
      TagSpecifications: [{ ResourceType: "volume", Tags: toTags({ ...plan.tags, [names.disk]: own }) }],
    });
    id = (await connection.ec2(command, { object: `a volume of ${planned.snapshotId}`, signal })).VolumeId ?? "";
  }
  await volumeIn(connection, id, ["available", "in-use"], { signal });
  return id;
}

/** Waits until a volume is in one of the states. @throws ProviderError UNEXPECTED when it is in error */
async function volumeIn(
  connection: AwsConnection,
  id: string,
  states: readonly string[],
  { signal }: Wait,
): Promise<Volume> {
  const { powerMs } = connection.settings.timeouts;
  const about = { what: `Volume ${id}: ${states.join(" or ")}`, ms: powerMs, operation: "launch", signal };
  return awaitState(connection, about, async () => {
    const found = await findVolume(connection, id, { signal });
    if (found?.State === "error")
      throw awsError("UNEXPECTED", `Volume ${id} is in error; a KMS key that may not be used ends like this.`, {
        operation: "CreateVolume",
      });
    return found?.State !== undefined && states.includes(found.State) ? found : undefined;
  });
}

async function findVolume(connection: AwsConnection, id: string, { signal }: Wait): Promise<Volume | undefined> {
  try {
    const command = new DescribeVolumesCommand({ VolumeIds: [id] });
    return (await connection.ec2(command, { object: id, signal })).Volumes?.[0];
  } catch (error) {
    if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

async function attachedAsWanted(
  connection: AwsConnection,
  instanceId: string,
  made: readonly { id: string; planned: PlannedVolume }[],
  { signal }: Wait,
): Promise<boolean> {
  for (const { id, planned } of made) {
    const attachment = (await findVolume(connection, id, { signal }))?.Attachments?.[0];
    if (attachment?.InstanceId !== instanceId || attachment.Device !== planned.device) return false;
  }
  return true;
}

async function stop(connection: AwsConnection, instanceId: string, { signal }: Wait): Promise<void> {
  const now = await findInstance(connection, instanceId, { signal });
  if (now?.State?.Name === "running")
    await connection.ec2(new StopInstancesCommand({ InstanceIds: [instanceId] }), { object: instanceId, signal });
  await instanceIn(connection, instanceId, "stopped", { signal });
}

/** Detaches and deletes the launch's volumes that are none of its disks: the placeholder's own. */
async function removePlaceholders(
  connection: AwsConnection,
  plan: LaunchPlan,
  disks: readonly string[],
  { signal }: Wait,
): Promise<void> {
  for (const volume of await volumesOf(connection, plan, { signal })) {
    const id = volume.VolumeId ?? "";
    if (disks.includes(id)) continue;
    const state = volume.Attachments?.[0]?.State;
    if (state !== undefined && state !== "detaching" && state !== "detached")
      await connection.ec2(new DetachVolumeCommand({ VolumeId: id }), { object: id, signal });
    await volumeIn(connection, id, ["available"], { signal });
    await deleteVolume(connection, id, { signal });
  }
}

/** Deletes a volume; one that is gone is deleted. */
export async function deleteVolume(connection: AwsConnection, id: string, { signal }: Wait): Promise<void> {
  try {
    await connection.ec2(new DeleteVolumeCommand({ VolumeId: id }), { object: id, signal });
  } catch (error) {
    if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
  }
}

async function attach(
  connection: AwsConnection,
  id: string,
  instanceId: string,
  device: string,
  { signal }: Wait,
): Promise<void> {
  const { powerMs } = connection.settings.timeouts;
  const before = (await findVolume(connection, id, { signal }))?.Attachments?.[0];
  if (before === undefined) {
    const command = new AttachVolumeCommand({ VolumeId: id, InstanceId: instanceId, Device: device });
    await connection.ec2(command, { object: id, signal });
  } else if (before.InstanceId !== instanceId || before.Device !== device)
    throw awsError(
      "IN_USE",
      `Volume ${id} is attached to ${before.InstanceId} as ${before.Device}, where ${instanceId} needs it as ${device}: detach it.`,
      { operation: "AttachVolume" },
    );
  const about = { what: `Volume ${id} at ${instanceId}`, ms: powerMs, operation: "AttachVolume", signal };
  await awaitState(connection, about, async () => {
    const found = await findVolume(connection, id, { signal });
    return found?.Attachments?.[0]?.State === "attached" ? found : undefined;
  });
}
