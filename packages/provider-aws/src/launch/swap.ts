import { type Instance, StartInstancesCommand, StopInstancesCommand } from "@aws-sdk/client-ec2";
import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf, tagValue } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { targetTagNames } from "../target/target-tags.ts";
import { awaitState } from "./await-state.ts";
import { instanceIn, PLACEHOLDER } from "./instance.ts";
import type { LaunchPlan, PlannedVolume } from "./launch-plan.ts";
import { findInstance, volumesOf } from "./launched-resources.ts";
import { attachVolume, findVolume, makeVolume, removeVolume, takenUp, usable } from "./volumes.ts";

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
    await removePlaceholders(connection, plan, wait);
    for (const { id, planned } of made)
      await attachVolume(connection, id, { instanceId, device: planned.device, ...wait });
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
  // Another instance gets volumes of its own: what was written to those of an earlier one is not the commit.
  const own = { [names.disk]: tagValue(planned.disk), [names.instance]: instanceId };
  const found = (await volumesOf(connection, plan, { signal })).filter(({ Tags }) =>
    Object.entries(own).every(([name, value]) => tagsOf(Tags)[name] === value),
  );
  const mine = await takenUp(connection, found, { signal });
  if (mine?.VolumeId !== undefined) {
    await usable(connection, mine.VolumeId, { signal });
    return mine.VolumeId;
  }
  const made = await makeVolume(
    connection,
    {
      zone,
      snapshotId: planned.snapshotId,
      about: [plan.launch, planned.disk, instanceId],
      tags: { ...plan.tags, ...own },
      ...planned.volume,
    },
    { signal },
  );
  return made.VolumeId ?? "";
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

/** Whether an instance of the launch has not yet all of its disks: then it is nobody's machine. */
export async function isPlaceholder(
  connection: AwsConnection,
  plan: LaunchPlan,
  instanceId: string,
  { signal }: Wait,
): Promise<boolean> {
  const names = targetTagNames(connection.settings.product);
  const attached = new Set<string | undefined>();
  for (const { Attachments = [], Tags } of await volumesOf(connection, plan, { signal }))
    if (Attachments.some(({ InstanceId }) => InstanceId === instanceId)) attached.add(tagsOf(Tags)[names.disk]);
  return plan.volumes.some(({ disk }) => !attached.has(tagValue(disk)));
}

async function stop(connection: AwsConnection, instanceId: string, { signal }: Wait): Promise<void> {
  const now = await findInstance(connection, instanceId, { signal });
  if (now?.State?.Name === "running")
    await connection.ec2(new StopInstancesCommand({ InstanceIds: [instanceId] }), { object: instanceId, signal });
  await instanceIn(connection, instanceId, "stopped", { signal });
}

/** Detaches and deletes the placeholder's own volumes. */
async function removePlaceholders(connection: AwsConnection, plan: LaunchPlan, { signal }: Wait): Promise<void> {
  const { role } = targetTagNames(connection.settings.product);
  for (const { VolumeId = "", Tags } of await volumesOf(connection, plan, { signal }))
    if (tagsOf(Tags)[role] === PLACEHOLDER) await removeVolume(connection, VolumeId, { signal });
}
