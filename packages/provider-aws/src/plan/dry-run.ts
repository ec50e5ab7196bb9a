import {
  CreateSecurityGroupCommand,
  DeleteSnapshotCommand,
  DeregisterImageCommand,
  DescribeImagesCommand,
  DescribeInstancesCommand,
  DescribeSecurityGroupsCommand,
  DescribeSnapshotsCommand,
  DescribeSubnetsCommand,
  DescribeVolumesCommand,
  RegisterImageCommand,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { failureOf } from "../errors.ts";

type Ask = (connection: AwsConnection, about: { object: string; once: true } & Wait) => Promise<unknown>;

/** Ids that are nobody's: EC2 judges the permission before it looks for the thing. */
const nobody = "00000000000000000";

/** Actions that EC2 lets one try without effect, with requests that need nothing to exist (EC2, DryRun). */
const probes: Readonly<Record<string, Ask>> = {
  "ec2:DescribeSnapshots": (connection, about) =>
    connection.ec2(new DescribeSnapshotsCommand({ OwnerIds: ["self"], DryRun: true }), about),
  "ec2:DeleteSnapshot": (connection, about) =>
    connection.ec2(new DeleteSnapshotCommand({ SnapshotId: `snap-${nobody}`, DryRun: true }), about),
  "ec2:DescribeImages": (connection, about) =>
    connection.ec2(new DescribeImagesCommand({ Owners: ["self"], DryRun: true }), about),
  "ec2:DescribeInstances": (connection, about) => connection.ec2(new DescribeInstancesCommand({ DryRun: true }), about),
  "ec2:DescribeVolumes": (connection, about) => connection.ec2(new DescribeVolumesCommand({ DryRun: true }), about),
  "ec2:DescribeSecurityGroups": (connection, about) =>
    connection.ec2(new DescribeSecurityGroupsCommand({ DryRun: true }), about),
  "ec2:DescribeSubnets": (connection, about) => connection.ec2(new DescribeSubnetsCommand({ DryRun: true }), about),
  "ec2:RegisterImage": (connection, about) =>
    connection.ec2(
      new RegisterImageCommand({
        Name: `${connection.settings.product}-dry-run`,
        Architecture: "x86_64",
        VirtualizationType: "hvm",
        RootDeviceName: "/dev/sda1",
        BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs: { SnapshotId: `snap-${nobody}` } }],
        DryRun: true,
      }),
      about,
    ),
  "ec2:DeregisterImage": (connection, about) =>
    connection.ec2(new DeregisterImageCommand({ ImageId: `ami-${nobody}`, DryRun: true }), about),
  "ec2:CreateSecurityGroup": (connection, about) =>
    connection.ec2(
      new CreateSecurityGroupCommand({ GroupName: "dry-run", Description: "dry run", DryRun: true }),
      about,
    ),
  "ec2:TerminateInstances": (connection, about) =>
    connection.ec2(new TerminateInstancesCommand({ InstanceIds: [`i-${nobody}`], DryRun: true }), about),
};

/** What dry runs told of some actions. */
export interface Probed {
  allowed: string[];
  missing: string[];
  /** Those that cannot be asked about: EBS direct APIs and KMS know no dry run, and some calls need a thing that exists. */
  unasked: string[];
}

/** Asks EC2 which of the actions are allowed. Changes nothing; an answer other than yes or no counts as not asked. */
export async function probeActions(
  connection: AwsConnection,
  actions: readonly string[],
  { signal }: Wait,
): Promise<Probed> {
  const probed: Probed = { allowed: [], missing: [], unasked: [] };
  for (const action of actions) {
    const ask = Object.hasOwn(probes, action) ? probes[action] : undefined;
    if (ask === undefined) {
      probed.unasked.push(action);
      continue;
    }
    try {
      await ask(connection, { object: `${action} (dry run)`, once: true, signal });
      // A dry run that is answered as if it were none tells nothing.
      probed.unasked.push(action);
    } catch (error) {
      if (!isProviderError(error)) throw error;
      if (failureOf(error)?.awsCode === "DryRunOperation") probed.allowed.push(action);
      else if (error.code === "DENIED") probed.missing.push(action);
      else if (error.code === "AUTH") throw error;
      else probed.unasked.push(action);
    }
  }
  return probed;
}
