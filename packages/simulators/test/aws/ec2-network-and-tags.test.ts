import {
  AuthorizeSecurityGroupEgressCommand,
  CreateSecurityGroupCommand,
  CreateTagsCommand,
  DeleteSecurityGroupCommand,
  DeleteTagsCommand,
  DescribeAvailabilityZonesCommand,
  DescribeRegionsCommand,
  DescribeSecurityGroupsCommand,
  DescribeSubnetsCommand,
  DescribeTagsCommand,
  DescribeVpcsCommand,
  ModifyInstanceAttributeCommand,
  RevokeSecurityGroupEgressCommand,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { setup } from "./aws-client.ts";

const named = (name: string): unknown => expect.objectContaining({ name });

test("regions, zones, the default VPC and its subnets are described, each Region for itself", async () => {
  const { ec2, client } = await setup();
  const { Regions } = await ec2.send(new DescribeRegionsCommand({}));
  expect(Regions?.map(({ RegionName }) => RegionName)).toContain("eu-west-1");
  const { AvailabilityZones } = await client(0, "eu-west-1").ec2.send(new DescribeAvailabilityZonesCommand({}));
  expect(AvailabilityZones?.map(({ ZoneName }) => ZoneName)).toEqual(["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
  const { Vpcs } = await ec2.send(new DescribeVpcsCommand({}));
  const VpcId = Vpcs?.[0]?.VpcId ?? "";
  const filter = {
    Filters: [
      { Name: "vpc-id", Values: [VpcId] },
      { Name: "availability-zone", Values: ["us-east-1b"] },
    ],
  };
  const { Subnets } = await ec2.send(new DescribeSubnetsCommand(filter));
  expect(Subnets).toMatchObject([{ CidrBlock: "172.31.16.0/20", AvailableIpAddressCount: 4091 }]);
  const other = client(1, "us-east-1").ec2;
  const foreign = new DescribeSubnetsCommand({ SubnetIds: [Subnets?.[0]?.SubnetId ?? ""] });
  await expect(other.send(foreign)).rejects.toEqual(named("InvalidSubnetID.NotFound"));
});

test("a security group for an isolated launch: egress is open at first, can be revoked, and a group in use stays", async () => {
  const { ec2, simulator } = await setup();
  const create = new CreateSecurityGroupCommand({
    GroupName: "isolated",
    Description: "no way out",
    TagSpecifications: [{ ResourceType: "security-group", Tags: [{ Key: "job", Value: "test" }] }],
  });
  const { GroupId = "" } = await ec2.send(create);
  await expect(ec2.send(create)).rejects.toEqual(named("InvalidGroup.Duplicate"));
  const egress = async () =>
    (await ec2.send(new DescribeSecurityGroupsCommand({ GroupIds: [GroupId] }))).SecurityGroups?.[0]
      ?.IpPermissionsEgress;
  const everywhere = [{ IpProtocol: "-1", IpRanges: [{ CidrIp: "0.0.0.0/0" }] }];
  expect(await egress()).toMatchObject(everywhere);
  await ec2.send(new RevokeSecurityGroupEgressCommand({ GroupId, IpPermissions: everywhere }));
  expect(await egress()).toEqual([]);
  await expect(ec2.send(new RevokeSecurityGroupEgressCommand({ GroupId, IpPermissions: everywhere }))).rejects.toEqual(
    named("InvalidPermission.NotFound"),
  );
  const dns = {
    GroupId,
    IpPermissions: [{ IpProtocol: "udp", FromPort: 53, ToPort: 53, IpRanges: [{ CidrIp: "172.31.0.2/32" }] }],
  };
  await ec2.send(new AuthorizeSecurityGroupEgressCommand(dns));
  await expect(ec2.send(new AuthorizeSecurityGroupEgressCommand(dns))).rejects.toEqual(
    named("InvalidPermission.Duplicate"),
  );
  const { linux } = simulator.instances;
  await ec2.send(new ModifyInstanceAttributeCommand({ InstanceId: linux, Groups: [GroupId] }));
  const remove = new DeleteSecurityGroupCommand({ GroupId });
  await expect(ec2.send(remove)).rejects.toEqual(named("DependencyViolation"));
  await ec2.send(new TerminateInstancesCommand({ InstanceIds: [linux] }));
  await ec2.send(remove);
  await expect(egress()).rejects.toEqual(named("InvalidGroup.NotFound"));
});

test("tags are found by resource and by key, deleted with or without a value, and limited in name and number", async () => {
  const { ec2, simulator } = await setup();
  const [VolumeId = ""] = simulator.volumesOf(simulator.instances.linux);
  const tag = (Tags: { Key: string; Value: string }[]) =>
    ec2.send(new CreateTagsCommand({ Resources: [VolumeId], Tags }));
  await tag([
    { Key: "job", Value: "a&<b>" },
    { Key: "kept", Value: "" },
  ]);
  const found = async () => {
    const Filters = [{ Name: "resource-id", Values: [VolumeId] }];
    const { Tags } = await ec2.send(new DescribeTagsCommand({ Filters }));
    return Object.fromEntries(
      (Tags ?? []).map(({ Key = "", Value, ResourceType }) => [Key, `${ResourceType} ${Value}`]),
    );
  };
  expect(await found()).toEqual({ Name: "volume linux /dev/xvda", job: "volume a&<b>", kept: "volume " });
  const remove = (Tags: { Key: string; Value?: string }[]) =>
    ec2.send(new DeleteTagsCommand({ Resources: [VolumeId], Tags }));
  await remove([{ Key: "job", Value: "other" }, { Key: "kept" }]);
  expect(Object.keys(await found())).toEqual(["Name", "job"]);
  await expect(tag([{ Key: "aws:mine", Value: "" }])).rejects.toEqual(named("InvalidParameterValue"));
  await expect(tag([{ Key: "k".repeat(128), Value: "" }])).rejects.toEqual(named("InvalidParameterValue"));
  const many = Array.from({ length: 49 }, (_, at) => ({ Key: `k${at}`, Value: "" }));
  await expect(tag(many)).rejects.toEqual(named("TagLimitExceeded"));
});
