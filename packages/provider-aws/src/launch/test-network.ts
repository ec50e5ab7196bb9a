import {
  CreateSecurityGroupCommand,
  DescribeSubnetsCommand,
  RevokeSecurityGroupEgressCommand,
  type SecurityGroup,
} from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { toTags } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { awaitState } from "./await-state.ts";
import type { LaunchPlan } from "./launch-plan.ts";
import { groupsOf } from "./launched-resources.ts";

/** Where an instance is put. */
export interface Placement {
  subnet: string | undefined;
  securityGroups: string[];
  privateIp: string | undefined;
  /** A test is given no public address, whatever its subnet gives by default. */
  isIsolated: boolean;
}

/**
 * Where a launch's instance goes. A test goes to the subnet and groups set for tests; without groups it gets one of its own
 * that lets nothing in and nothing out, so that the clone cannot talk to what its original talks to.
 */
export async function placeOf(connection: AwsConnection, plan: LaunchPlan, { signal }: Wait): Promise<Placement> {
  const { options, purpose } = plan;
  if (purpose === "cutover")
    return {
      subnet: options.subnet,
      securityGroups: options.securityGroups ?? [],
      privateIp: options.privateIp,
      isIsolated: false,
    };
  const subnet = options.test?.subnet ?? options.subnet;
  const groups = options.test?.securityGroups ?? [await ensureSilentGroup(connection, plan, subnet, signal)];
  return { subnet, securityGroups: groups, privateIp: undefined, isIsolated: true };
}

async function ensureSilentGroup(
  connection: AwsConnection,
  plan: LaunchPlan,
  subnet: string | undefined,
  signal: AbortSignal | undefined,
): Promise<string> {
  const [known] = await groupsOf(connection, plan, { signal });
  const group = known ?? (await createGroup(connection, plan, subnet, signal));
  await silence(connection, group, signal);
  return group.GroupId ?? "";
}

async function createGroup(
  connection: AwsConnection,
  plan: LaunchPlan,
  subnet: string | undefined,
  signal: AbortSignal | undefined,
): Promise<SecurityGroup> {
  const { name, tags } = plan;
  const vpc = subnet === undefined ? undefined : await vpcOf(connection, subnet, signal);
  const command = new CreateSecurityGroupCommand({
    GroupName: name,
    Description: `${name}: a test launch that talks to nobody`,
    ...(vpc === undefined ? {} : { VpcId: vpc }),
    TagSpecifications: [{ ResourceType: "security-group", Tags: toTags({ ...tags, Name: name }) }],
  });
  try {
    await connection.ec2(command, { object: `security group ${name}`, signal });
  } catch (error) {
    // Made by this very call, whose answer was lost: the name is the launch's own.
    if (!isProviderError(error) || error.code !== "EXISTS") throw error;
  }
  return awaitState(
    connection,
    {
      what: `Security group ${name}`,
      ms: connection.settings.timeouts.visibleMs,
      operation: "CreateSecurityGroup",
      signal,
    },
    async () => (await groupsOf(connection, plan, { signal }))[0],
  );
}

async function vpcOf(connection: AwsConnection, subnet: string, signal: AbortSignal | undefined): Promise<string> {
  const command = new DescribeSubnetsCommand({ SubnetIds: [subnet] });
  const { Subnets } = await connection.ec2(command, { object: subnet, signal });
  const vpc = Subnets?.[0]?.VpcId;
  if (vpc !== undefined) return vpc;
  throw awsError("NOT_FOUND", `Subnet ${subnet} is not in ${connection.region}.`, { operation: "launch" });
}

/** Takes every rule of a new group away; a new one lets everything out. */
async function silence(
  connection: AwsConnection,
  group: SecurityGroup,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { GroupId, IpPermissionsEgress = [] } = group;
  if (IpPermissionsEgress.length === 0) return;
  const IpPermissions = IpPermissionsEgress.map((rule) => ({
    IpProtocol: rule.IpProtocol,
    ...(rule.FromPort === undefined ? {} : { FromPort: rule.FromPort }),
    ...(rule.ToPort === undefined ? {} : { ToPort: rule.ToPort }),
    ...(rule.IpRanges === undefined || rule.IpRanges.length === 0 ? {} : { IpRanges: rule.IpRanges }),
    ...(rule.Ipv6Ranges === undefined || rule.Ipv6Ranges.length === 0 ? {} : { Ipv6Ranges: rule.Ipv6Ranges }),
  }));
  try {
    const command = new RevokeSecurityGroupEgressCommand({ GroupId, IpPermissions });
    await connection.ec2(command, { object: GroupId ?? "a security group", signal });
  } catch (error) {
    // Revoked by an earlier call whose answer was lost.
    if (failureOf(error)?.awsCode !== "InvalidPermission.NotFound") throw error;
  }
}
