import { DescribeImagesCommand, type Image, RegisterImageCommand } from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { awaitState } from "./await-state.ts";
import { deviceMap, type LaunchPlan } from "./launch-plan.ts";
import { imagesOf } from "./launched-resources.ts";
import { checkRequest } from "./request-check.ts";

/**
 * The image of a launch, registered or adopted, ready to be run. What RegisterImage would take by default is a 32-bit
 * paravirtual image without ENA, so everything is said (EC2, RegisterImage).
 */
export async function ensureImage(connection: AwsConnection, plan: LaunchPlan, { signal }: Wait): Promise<Image> {
  const [known] = await imagesOf(connection, plan, { signal });
  if (known !== undefined) checkRequest(connection, plan, known.ImageId ?? "", known.Tags);
  const id = known?.ImageId ?? (await register(connection, plan, signal));
  return imageReady(connection, id, { signal });
}

async function register(connection: AwsConnection, plan: LaunchPlan, signal: AbortSignal | undefined): Promise<string> {
  const { name, architecture, bootMode, machine, options, tags, volumes } = plan;
  const tpm = machine.tpm === true && bootMode === "uefi";
  const command = new RegisterImageCommand({
    Name: name,
    Description: `${connection.settings.product}: ${machine.name ?? "machine"}`
      .replaceAll(/[^ -~]/g, "?")
      .slice(0, 255),
    Architecture: architecture,
    VirtualizationType: "hvm",
    EnaSupport: options.ena ?? true,
    BootMode: bootMode,
    ...(tpm ? { TpmSupport: "v2.0" as const } : {}),
    RootDeviceName: volumes[0]!.device,
    BlockDeviceMappings: deviceMap(plan),
    TagSpecifications: [{ ResourceType: "image", Tags: toTags({ ...tags, Name: name }) }],
  });
  try {
    const { ImageId } = await connection.ec2(command, { object: `image ${name}`, signal });
    if (ImageId !== undefined) return ImageId;
  } catch (error) {
    // The name is the launch's own: whoever registered it did so for this launch.
    if (!isProviderError(error) || error.code !== "EXISTS") throw error;
  }
  const find = new DescribeImagesCommand({ Owners: ["self"], Filters: [{ Name: "name", Values: [name] }] });
  const image = await awaitState(
    connection,
    { what: `Image ${name}`, ms: connection.settings.timeouts.visibleMs, operation: "RegisterImage", signal },
    async () => (await connection.ec2(find, { object: `image ${name}`, signal })).Images?.[0],
  );
  checkRequest(connection, plan, image.ImageId ?? "", image.Tags);
  return image.ImageId ?? "";
}

/** Waits until an image can be run. @throws ProviderError UNEXPECTED when AWS gave it up */
export async function imageReady(connection: AwsConnection, id: string, { signal }: Wait): Promise<Image> {
  const command = new DescribeImagesCommand({ ImageIds: [id] });
  const { powerMs } = connection.settings.timeouts;
  return awaitState(connection, { what: `Image ${id}`, ms: powerMs, operation: "RegisterImage", signal }, async () => {
    let image: Image | undefined;
    try {
      image = (await connection.ec2(command, { object: id, signal })).Images?.[0];
    } catch (error) {
      if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
    }
    if (image?.State === "available") return image;
    if (image === undefined || image.State === "pending" || image.State === "transient") return undefined;
    throw awsError(
      "UNEXPECTED",
      `Image ${id} is ${image.State}: ${image.StateReason?.Message ?? "AWS does not say why"}.`,
      {
        operation: "RegisterImage",
      },
    );
  });
}
