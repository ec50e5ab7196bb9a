import {
  CreateTagsCommand,
  DescribeImagesCommand,
  DescribeImportImageTasksCommand,
  type Image,
  ImportImageCommand,
  type ImportImageTask,
} from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { clientToken } from "../target/client-token.ts";
import { targetTagNames } from "../target/target-tags.ts";
import { awaitState } from "./await-state.ts";
import { imageReady } from "./image.ts";
import type { LaunchPlan } from "./launch-plan.ts";

/** The most volumes of one import (VM Import/Export, limitations of ImportImage). */
const MOST_DISKS = 21;

/** Imports of a launch, in whatever state, in the order AWS lists them. */
export async function importsOf(
  connection: AwsConnection,
  { launch }: { launch: string },
  { signal }: Wait,
): Promise<ImportImageTask[]> {
  const names = targetTagNames(connection.settings.product);
  const found: ImportImageTask[] = [];
  for (let NextToken: string | undefined; ;) {
    const command = new DescribeImportImageTasksCommand({
      Filters: [{ Name: `tag:${names.launch}`, Values: [launch] }],
      NextToken,
    });
    const page = await connection.ec2(command, { object: "imports", signal });
    found.push(...(page.ImportImageTasks ?? []));
    NextToken = page.NextToken;
    if (NextToken === undefined || NextToken === "") return found;
  }
}

/**
 * Has AWS put its drivers into the guest (ImportImage from the snapshots) and gives the image that comes of it. The replica
 * stays as it is: AWS converts copies of its own. A task that an earlier call began is taken up.
 * @throws ProviderError UNSUPPORTED, and UNEXPECTED with AWS's own words when the conversion failed
 */
export async function ensureConversion(connection: AwsConnection, plan: LaunchPlan, { signal }: Wait): Promise<Image> {
  const known = await importsOf(connection, plan, { signal });
  for (const task of known) {
    if (task.Status !== "completed" || task.ImageId === undefined) continue;
    const image = await findImage(connection, task.ImageId, { signal });
    if (image !== undefined) return adopt(connection, plan, task.ImageId, { signal });
  }
  const active = known.find(({ Status }) => Status === "active");
  const id = active?.ImportTaskId ?? (await begin(connection, plan, known.length, signal));
  return adopt(connection, plan, await converted(connection, id, signal), { signal });
}

async function begin(
  connection: AwsConnection,
  plan: LaunchPlan,
  generation: number,
  signal: AbortSignal | undefined,
): Promise<string> {
  const { volumes, options, architecture, bootMode, machine, launch, request, tags, name } = plan;
  const refuse = (why: string): Error =>
    awsError("UNSUPPORTED", `${why} Take the road image or swap.`, { operation: "ImportImage" });
  if (architecture === "arm64") throw refuse("AWS converts no ARM guests.");
  if (volumes.length > MOST_DISKS)
    throw refuse(`AWS converts machines of up to ${MOST_DISKS} disks; this one has ${volumes.length}.`);
  const { role, licenseType, platform = platformOf(machine.guestFamily) } = options.convert ?? {};
  if (bootMode !== "legacy-bios" && platform === undefined)
    throw awsError(
      "CONFIG_INVALID",
      "A UEFI guest is converted only when AWS is told what it is: set launch.convert.platform to Linux or Windows.",
      { operation: "ImportImage" },
    );
  const command = new ImportImageCommand({
    ClientToken: clientToken([connection.settings.product, "import", launch, request, generation]),
    Description: name,
    Architecture: architecture,
    BootMode: bootMode,
    ...(platform === undefined ? {} : { Platform: platform }),
    ...(role === undefined ? {} : { RoleName: role }),
    ...(licenseType === undefined ? {} : { LicenseType: licenseType }),
    DiskContainers: volumes.map(({ snapshotId, disk }) => ({
      SnapshotId: snapshotId,
      Description: disk.slice(0, 255),
    })),
    TagSpecifications: [{ ResourceType: "import-image-task", Tags: toTags(tags) }],
  });
  const { ImportTaskId } = await connection.ec2(command, { object: `the import ${name}`, signal });
  if (ImportTaskId !== undefined) return ImportTaskId;
  throw awsError("UNEXPECTED", "ImportImage gave no task.", { operation: "ImportImage" });
}

function platformOf(family: LaunchPlan["machine"]["guestFamily"]): "Linux" | "Windows" | undefined {
  return family === "linux" ? "Linux" : family === "windows" ? "Windows" : undefined;
}

/** Waits for an import and gives the id of its image. */
async function converted(connection: AwsConnection, id: string, signal: AbortSignal | undefined): Promise<string> {
  const command = new DescribeImportImageTasksCommand({ ImportTaskIds: [id] });
  const { snapshotMs } = connection.settings.timeouts;
  let last = "";
  return awaitState(
    connection,
    { what: `Import ${id}`, ms: snapshotMs, operation: "ImportImage", signal },
    async () => {
      const task = (await connection.ec2(command, { object: id, signal })).ImportImageTasks?.[0];
      const { Status, StatusMessage, Progress, ImageId } = task ?? {};
      if (Status === "completed" && ImageId !== undefined) return ImageId;
      if (Status === "deleted" || Status === "deleting")
        throw awsError(
          "UNEXPECTED",
          `AWS could not convert the guest (${id}): ${StatusMessage ?? "it does not say why"}. The replica is as it was. Check the ` +
            `guest against the limits of VM Import/Export, or take the road image with the drivers put in beforehand.`,
          { operation: "ImportImage" },
        );
      const step = `${StatusMessage ?? ""} ${Progress === undefined ? "" : `${Progress} %`}`.trim();
      if (step !== last && step !== "") connection.notice(`Import ${id}: ${step}`);
      last = step;
      return undefined;
    },
  );
}

async function findImage(connection: AwsConnection, id: string, { signal }: Wait): Promise<Image | undefined> {
  try {
    return (await connection.ec2(new DescribeImagesCommand({ ImageIds: [id] }), { object: id, signal })).Images?.[0];
  } catch (error) {
    if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

/** Snapshots that AWS's conversion left under an image: all but the commits themselves. */
export function snapshotsUnder(image: Image, commits: readonly string[]): string[] {
  const ids = (image.BlockDeviceMappings ?? []).flatMap(({ Ebs }) => Ebs?.SnapshotId ?? []);
  return ids.filter((id) => !commits.includes(id));
}

/** Tags what the import made, which AWS leaves untagged, so that the launch's end finds it. */
async function adopt(connection: AwsConnection, plan: LaunchPlan, id: string, { signal }: Wait): Promise<Image> {
  const image = await imageReady(connection, id, { signal });
  const own = snapshotsUnder(
    image,
    plan.volumes.map(({ snapshotId }) => snapshotId),
  );
  const command = new CreateTagsCommand({ Resources: [id, ...own], Tags: toTags(plan.tags) });
  await connection.ec2(command, { object: id, signal });
  return image;
}
