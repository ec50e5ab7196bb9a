import {
  CancelImportTaskCommand,
  DeleteSecurityGroupCommand,
  DeregisterImageCommand,
  DescribeImagesCommand,
  type Image,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { isProviderError, type LaunchedMachine, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { awsError, failureOf } from "../errors.ts";
import { deleteSnapshot, findSnapshot, snapshotsWith } from "../target/own-snapshots.ts";
import { targetTagNames } from "../target/target-tags.ts";
import { awaitState } from "./await-state.ts";
import { importsOf, snapshotsUnder } from "./convert.ts";
import { instanceIn } from "./instance.ts";
import { groupsOf, imagesOf, instancesOf, volumesOf } from "./launched-resources.ts";
import { deleteVolume } from "./volumes.ts";

/** Ends a launched machine and all that its launch made; what is gone already is passed over. Commits stay. */
export async function terminateMachine(connection: AwsConnection, machine: LaunchedMachine, wait: Wait): Promise<void> {
  const launch = machine.data?.["launch"];
  if (machine.data === undefined || typeof launch !== "string")
    throw awsError("CONFIG_INVALID", `Machine ${machine.id} is none that this target launched.`, {
      operation: "terminate",
    });
  const region = machine.data["region"];
  if (region !== connection.region)
    throw awsError(
      "CONFIG_INVALID",
      `Machine ${machine.id} was launched in ${JSON.stringify(region)}, and this target is in ${connection.region}.`,
      { operation: "terminate" },
    );
  await endLaunch(connection, { launch }, wait);
}

/** Removes everything that carries the launch's key, but for the volumes of `keep`, in the order that AWS allows. */
export async function endLaunch(
  connection: AwsConnection,
  by: { launch: string },
  wait: Wait,
  keep: ReadonlySet<string> = new Set(),
): Promise<void> {
  const { signal } = wait;
  const only = { launch: by.launch };
  const instances = (await instancesOf(connection, only, wait)).map(({ InstanceId = "" }) => InstanceId);
  for (const id of instances)
    await connection.ec2(new TerminateInstancesCommand({ InstanceIds: [id] }), { object: id, signal });
  for (const id of instances) await instanceIn(connection, id, "terminated", wait);
  await deleteVolumes(connection, only, keep, wait);
  await endImports(connection, only, wait);
  for (const { ImageId } of await imagesOf(connection, only, wait)) await deregister(connection, ImageId ?? "", wait);
  const names = targetTagNames(connection.settings.product);
  for (const { id, tags } of await snapshotsWith(connection, { [names.launch]: by.launch }, wait))
    // A commit carries no launch's key; should one ever do, it stays.
    if (tags[names.role] === undefined) await deleteSnapshot(connection, id, wait);
  for (const { GroupId } of await groupsOf(connection, only, wait)) await deleteGroup(connection, GroupId ?? "", wait);
}

/** Deletes the launch's volumes once they are let go; some go with their instance. */
async function deleteVolumes(
  connection: AwsConnection,
  by: { launch: string },
  keep: ReadonlySet<string>,
  { signal }: Wait,
): Promise<void> {
  const { powerMs } = connection.settings.timeouts;
  const about = { what: `Deleting the volumes of ${by.launch}`, ms: powerMs, operation: "DeleteVolume", signal };
  await awaitState(connection, about, async () => {
    const left = (await volumesOf(connection, by, { signal })).filter(({ VolumeId = "" }) => !keep.has(VolumeId));
    for (const { VolumeId = "", State } of left)
      if (State === "available" || State === "error") await deleteVolume(connection, VolumeId, { signal });
    return left.length === 0 ? true : undefined;
  });
}

async function endImports(connection: AwsConnection, by: { launch: string }, wait: Wait): Promise<void> {
  const { signal } = wait;
  let tasks;
  try {
    tasks = await importsOf(connection, by, wait);
  } catch (error) {
    // Who may not look at imports has begun none.
    if (isProviderError(error) && (error.code === "DENIED" || error.code === "UNSUPPORTED")) return;
    throw error;
  }
  for (const { ImportTaskId = "", Status, ImageId } of tasks) {
    if (Status === "active")
      await connection.ec2(new CancelImportTaskCommand({ ImportTaskId }), { object: ImportTaskId, signal });
    if (ImageId !== undefined) await endConverted(connection, ImageId, wait);
  }
}

/** An image that an import made, and AWS's snapshots under it, whether or not they were tagged before a kill. */
async function endConverted(connection: AwsConnection, id: string, wait: Wait): Promise<void> {
  const { signal } = wait;
  const names = targetTagNames(connection.settings.product);
  let image: Image | undefined;
  try {
    image = (await connection.ec2(new DescribeImagesCommand({ ImageIds: [id] }), { object: id, signal })).Images?.[0];
  } catch (error) {
    if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
  }
  if (image === undefined) return;
  await deregister(connection, id, wait);
  for (const snapshot of snapshotsUnder(image, [])) {
    const found = await findSnapshot(connection, snapshot, wait);
    if (found !== undefined && found.tags[names.role] === undefined) await deleteSnapshot(connection, snapshot, wait);
  }
}

async function deregister(connection: AwsConnection, id: string, { signal }: Wait): Promise<void> {
  try {
    await connection.ec2(new DeregisterImageCommand({ ImageId: id }), { object: id, signal });
  } catch (error) {
    if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
  }
}

/** A terminated instance holds its group for a moment longer. */
async function deleteGroup(connection: AwsConnection, id: string, { signal }: Wait): Promise<void> {
  const { visibleMs } = connection.settings.timeouts;
  const about = { what: `Deleting security group ${id}`, ms: visibleMs, operation: "DeleteSecurityGroup", signal };
  await awaitState(connection, about, async () => {
    try {
      await connection.ec2(new DeleteSecurityGroupCommand({ GroupId: id }), { object: id, signal });
      return true;
    } catch (error) {
      if (isProviderError(error) && error.code === "NOT_FOUND") return true;
      if (failureOf(error)?.awsCode === "DependencyViolation") return undefined;
      throw error;
    }
  });
}
