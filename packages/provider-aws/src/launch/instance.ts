import { type Instance, RunInstancesCommand, type RunInstancesCommandInput } from "@aws-sdk/client-ec2";
import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { toTags } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import { clientToken } from "../target/client-token.ts";
import { targetTagNames } from "../target/target-tags.ts";
import { awaitState } from "./await-state.ts";
import type { LaunchPlan } from "./launch-plan.ts";
import { findInstance, instancesOf } from "./launched-resources.ts";
import { checkRequest } from "./request-check.ts";
import type { Placement } from "./test-network.ts";

/** The role of the volumes that an instance has before it gets its disks. */
export const PLACEHOLDER = "placeholder";
/** So often may a launch's instance have been terminated before another key is asked for. */
const MOST_GENERATIONS = 20;

/** The instance that a launch made and that is still there. @throws ProviderError EXISTS for another request */
export async function launchedInstance(
  connection: AwsConnection,
  plan: Pick<LaunchPlan, "launch" | "request">,
  { signal }: Wait,
): Promise<Instance | undefined> {
  const [known] = await instancesOf(connection, plan, { signal });
  if (known !== undefined) checkRequest(connection, plan, known.InstanceId ?? "", known.Tags);
  return known;
}

/** Runs the launch's one instance. The client token makes a call that was repeated after a kill give the same one. */
export async function runInstance(
  connection: AwsConnection,
  plan: LaunchPlan,
  { image, place, signal }: Wait & { image: string; place: Placement },
): Promise<string> {
  const { settings } = connection;
  const { options, tags, machine, name } = plan;
  const own = { ...tags, Name: (machine.name ?? name).slice(0, 255) };
  const ofVolumes = options.road === "swap" ? { ...own, [targetTagNames(settings.product).role]: PLACEHOLDER } : own;
  const shape: RunInstancesCommandInput = {
    ImageId: image,
    InstanceType: plan.instanceType as NonNullable<RunInstancesCommandInput["InstanceType"]>,
    MinCount: 1,
    MaxCount: 1,
    ...networkOf(place),
    ...(options.userData === undefined ? {} : { UserData: Buffer.from(options.userData).toString("base64") }),
    ...(options.keyName === undefined ? {} : { KeyName: options.keyName }),
    ...(options.instanceProfile === undefined ? {} : { IamInstanceProfile: profileOf(options.instanceProfile) }),
    TagSpecifications: [
      { ResourceType: "instance", Tags: toTags(own) },
      { ResourceType: "volume", Tags: toTags(ofVolumes) },
    ],
  };
  for (let generation = 0; generation < MOST_GENERATIONS; generation++) {
    const token = clientToken([settings.product, "run", plan.launch, plan.request, image, generation]);
    const command = new RunInstancesCommand({ ...shape, ClientToken: token });
    try {
      const { Instances } = await connection.ec2(command, { object: `an instance of ${image}`, signal });
      const id = Instances?.[0]?.InstanceId;
      const state = Instances?.[0]?.State?.Name;
      // The answer to an old token is the instance of that time, ended or not.
      if (id !== undefined && state !== "terminated" && state !== "shutting-down") return id;
    } catch (error) {
      const code = failureOf(error)?.awsCode;
      if (code === "IdempotentParameterMismatch") {
        // An earlier call with this key asked with other options. Its instance, if it lives, is the key's machine.
        const live = await comesToLight(connection, plan, { signal });
        if (live !== undefined) return live;
      } else if (code !== "IdempotentInstanceTerminated") throw error;
    }
  }
  throw awsError(
    "UNAVAILABLE",
    `The key ${plan.launch} launched and lost ${MOST_GENERATIONS} instances: use another key.`,
    {
      operation: "RunInstances",
      retryable: false,
    },
  );
}

/** The launch's instance, which may not be listed yet; undefined when it was not after as long as that takes at most. */
async function comesToLight(
  connection: AwsConnection,
  plan: LaunchPlan,
  { signal }: Wait,
): Promise<string | undefined> {
  const { visibleMs, pollMs } = connection.settings.timeouts;
  for (const end = performance.now() + visibleMs; ;) {
    const known = await launchedInstance(connection, plan, { signal });
    if (known !== undefined) return known.InstanceId;
    if (performance.now() >= end) return undefined;
    await sleep(pollMs, signal);
  }
}

function networkOf({ subnet, securityGroups, privateIp, isIsolated }: Placement): Partial<RunInstancesCommandInput> {
  if (isIsolated)
    return {
      NetworkInterfaces: [
        {
          DeviceIndex: 0,
          AssociatePublicIpAddress: false,
          Groups: securityGroups,
          DeleteOnTermination: true,
          ...(subnet === undefined ? {} : { SubnetId: subnet }),
        },
      ],
    };
  return {
    ...(subnet === undefined ? {} : { SubnetId: subnet }),
    ...(securityGroups.length === 0 ? {} : { SecurityGroupIds: securityGroups }),
    ...(privateIp === undefined ? {} : { PrivateIpAddress: privateIp }),
  };
}

function profileOf(profile: string): { Arn: string } | { Name: string } {
  return profile.startsWith("arn:") ? { Arn: profile } : { Name: profile };
}

/**
 * Waits until an instance is in a state.
 * @throws ProviderError UNAVAILABLE, not retryable, when it ended instead, with AWS's reason
 */
export async function instanceIn(
  connection: AwsConnection,
  id: string,
  wanted: "running" | "stopped" | "terminated",
  { signal }: Wait,
): Promise<Instance | undefined> {
  const { powerMs } = connection.settings.timeouts;
  const about = { what: `Instance ${id}: ${wanted}`, ms: powerMs, operation: "launch", signal };
  const { instance } = await awaitState(connection, about, async () => {
    const found = await findInstance(connection, id, { signal });
    const state = found?.State?.Name;
    if (state === wanted || (wanted === "terminated" && found === undefined)) return { instance: found };
    if (wanted === "terminated" || (state !== "terminated" && state !== "shutting-down")) return undefined;
    const why = found?.StateReason?.Message ?? "AWS does not say why";
    throw awsError(
      "UNAVAILABLE",
      `Instance ${id} ended instead of being ${wanted}: ${why}. A wrong boot mode, a KMS key that may not be used and a lack ` +
        `of capacity end like this.`,
      { operation: "launch", retryable: false },
    );
  });
  return instance;
}
