import { CreateTagsCommand, type Instance } from "@aws-sdk/client-ec2";
import {
  isAbort,
  isProviderError,
  type LaunchedMachine,
  type LaunchRequest,
  type MachineSpec,
  type OwnedResource,
  type Wait,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf, tagValue } from "../connection/tags.ts";
import { targetTagNames } from "../target/target-tags.ts";
import { ensureConversion } from "./convert.ts";
import { ensureImage } from "./image.ts";
import { instanceIn, launchedInstance, PLACEHOLDER, runInstance } from "./instance.ts";
import { type LaunchCommit, type LaunchPlan, planLaunch } from "./launch-plan.ts";
import { groupsOf, imagesOf, instancesOf, volumesOf } from "./launched-resources.ts";
import { isPlaceholder, swapVolumes } from "./swap.ts";
import { endLaunch } from "./terminate.ts";
import { placeOf } from "./test-network.ts";
import { whereAllowed } from "./where-allowed.ts";

/**
 * Launches a machine from commits by the road that the options name. Everything made carries the launch's key, and every step
 * looks first for what an earlier call made: repeated after a kill at any call, it goes on. A launch that fails for good and
 * has no instance, or one that never got its disks, takes back what it made.
 */
export async function launchMachine(
  connection: AwsConnection,
  machine: MachineSpec,
  commits: readonly LaunchCommit[],
  request: LaunchRequest,
): Promise<LaunchedMachine> {
  const { signal } = request;
  const plan = await planLaunch(connection, machine, commits, request);
  const earlier = await volumesOfEnded(connection, plan, { signal });
  try {
    const instance = await converge(connection, plan, { signal });
    return describe(connection, plan, instance);
  } catch (error) {
    const isFinal = isProviderError(error) && !error.retryable && error.code !== "EXISTS" && !isAbort(error, signal);
    if (isFinal) await takeBack(connection, plan, earlier, { signal });
    throw error;
  }
}

/**
 * Volumes of a machine of this launch that was ended by somebody else: they may hold what was written since, and nobody has
 * told to remove them.
 */
async function volumesOfEnded(connection: AwsConnection, plan: LaunchPlan, wait: Wait): Promise<Set<string>> {
  const { instance, role } = targetTagNames(connection.settings.product);
  const live = new Set((await instancesOf(connection, plan, wait)).map(({ InstanceId }) => InstanceId));
  const ended = (await volumesOf(connection, plan, wait)).filter(
    ({ Attachments = [], Tags }) =>
      tagsOf(Tags)[role] !== PLACEHOLDER &&
      !live.has(tagsOf(Tags)[instance]) &&
      !Attachments.some(({ InstanceId }) => live.has(InstanceId)),
  );
  return new Set(ended.map(({ VolumeId = "" }) => VolumeId));
}

async function converge(connection: AwsConnection, plan: LaunchPlan, wait: Wait): Promise<Instance> {
  const { road = "image", placeholder } = plan.options;
  const known = await launchedInstance(connection, plan, wait);
  // One that was launched and stopped since is the machine of this key all the same; nobody asked to start it.
  const { handed } = targetTagNames(connection.settings.product);
  const isWhole = road !== "swap" || tagsOf(known?.Tags)[handed] !== undefined;
  if (known !== undefined && isWhole && known.State?.Name !== "pending") return known;
  let id = known?.InstanceId;
  if (id === undefined) {
    const image =
      road === "swap"
        ? placeholder!
        : (await (road === "image" ? ensureImage : ensureConversion)(connection, plan, wait)).ImageId!;
    const place = await placeOf(connection, plan, wait);
    id = await runInstance(connection, plan, { image, place, ...wait });
  }
  if (road === "swap") await swapVolumes(connection, plan, id, wait);
  const running = await instanceIn(connection, id, "running", wait);
  if (road === "swap") {
    // From now on its disks are its owner's, who may put others in their place, and stop it.
    const Tags = [{ Key: handed, Value: "its disks are in place" }];
    await connection.ec2(new CreateTagsCommand({ Resources: [id], Tags }), { object: id, ...wait });
  }
  return running!;
}

/**
 * After a failure that will not pass, nothing is left behind; unless there is an instance, which may be somebody's by now. One
 * that still waits for its disks is not, and costs money.
 */
async function takeBack(
  connection: AwsConnection,
  plan: LaunchPlan,
  earlier: ReadonlySet<string>,
  { signal }: Wait,
): Promise<void> {
  try {
    const live = await instancesOf(connection, plan, { signal });
    const isNobodys = async ({ InstanceId = "" }: Instance): Promise<boolean> =>
      plan.options.road === "swap" && (await isPlaceholder(connection, plan, InstanceId, { signal }));
    const nobodys = await Promise.all(live.map(isNobodys));
    if (!nobodys.every(Boolean)) return;
    await endLaunch(connection, plan, { signal }, earlier);
    if (earlier.size > 0)
      connection.notice(
        `${[...earlier].join(", ")} of an earlier machine of the launch ${plan.launch} stay: terminate removes them, with what was written to them.`,
      );
  } catch (error) {
    if (!isProviderError(error)) throw error;
    connection.notice(
      `What the failed launch ${plan.launch} made could not be removed and carries its tags: ${error.message}`,
    );
  }
}

function describe(connection: AwsConnection, plan: LaunchPlan, instance: Instance): LaunchedMachine {
  const { purpose, launch, machine, bootMode, notes } = plan;
  const id = instance.InstanceId ?? "";
  const address = instance.PrivateIpAddress;
  return {
    id,
    name: machine.name ?? id,
    purpose,
    // Volumes are made of the commits; the replica stays as it is, also in a cutover.
    consumed: false,
    notes: [
      `${instance.InstanceType} in ${instance.Placement?.AvailabilityZone}${address === undefined ? "" : `, private address ${address}`}`,
      ...notes,
    ],
    data: { launch, region: connection.region, instanceType: instance.InstanceType ?? plan.instanceType, bootMode },
  };
}

/** What launches of a job made and what is still there. */
export async function* launchedOf(connection: AwsConnection, job: string, wait: Wait): AsyncGenerator<OwnedResource> {
  const by = { job: tagValue(job) };
  const names = targetTagNames(connection.settings.product);
  const of = (tags: Parameters<typeof tagsOf>[0]): string => `of the launch ${tagsOf(tags)[names.launch] ?? "?"}`;
  const instances = async function* (): AsyncGenerator<OwnedResource> {
    for (const { InstanceId: id = "", State, Tags } of await instancesOf(connection, by, wait))
      yield { kind: "instance", id, description: `instance (${State?.Name}) ${of(Tags)}` };
  };
  const volumes = async function* (): AsyncGenerator<OwnedResource> {
    for (const { VolumeId: id = "", State, Tags } of await volumesOf(connection, by, wait))
      yield { kind: "launched-volume", id, description: `volume (${State}) ${of(Tags)}` };
  };
  const images = async function* (): AsyncGenerator<OwnedResource> {
    for (const { ImageId: id = "", Tags } of await imagesOf(connection, by, wait))
      yield { kind: "image", id, description: `image ${of(Tags)}` };
  };
  const groups = async function* (): AsyncGenerator<OwnedResource> {
    for (const { GroupId: id = "", Tags } of await groupsOf(connection, by, wait))
      yield { kind: "security-group", id, description: `security group ${of(Tags)}` };
  };
  for (const list of [instances, volumes, images, groups]) yield* whereAllowed(connection, job, list());
}
