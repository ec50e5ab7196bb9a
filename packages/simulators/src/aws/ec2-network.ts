import { listing, tagSet, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { Permission, SecurityGroup, Subnet } from "./resources.ts";
import type { Caller } from "./signature.ts";

const vpcCidr = "172.31.0.0/16";
const everywhere: Permission = { protocol: "-1", cidrs: ["0.0.0.0/0"], cidrs6: [], groups: [] };

/** The default VPC of an account in a Region: a subnet for each zone and a default group; made when first asked for. */
export function defaultNetwork({ world }: Ec2Scope, caller: Caller): { subnets: Subnet[]; group: SecurityGroup } {
  const { accountId, region } = caller;
  const own = (each: { accountId: string; region: string }): boolean =>
    each.accountId === accountId && each.region === region;
  const known = [...world.groups.values()].find((each) => own(each) && each.name === "default");
  if (known !== undefined) return { subnets: [...world.subnets.values()].filter(own), group: known };
  const vpcId = world.newId("vpc");
  const subnets = ["a", "b", "c"].map((letter, at): Subnet => {
    const cidr = `172.31.${at * 16}.0/20`;
    return {
      id: world.newId("subnet"),
      accountId,
      region,
      tags: {},
      vpcId,
      zone: region + letter,
      cidr,
      isDefault: true,
    };
  });
  for (const each of subnets) world.subnets.set(each.id, each);
  const group = makeGroup("default", "default VPC security group", vpcId);
  world.groups.set(group.id, group);
  return { subnets, group };

  function makeGroup(name: string, description: string, ofVpc: string): SecurityGroup {
    const id = world.newId("sg");
    const base = { id, accountId, region, tags: {}, name, description, vpcId: ofVpc };
    return { ...base, ingress: [], egress: [everywhere] };
  }
}

/** An address as a number; undefined when the text is none. */
export function addressNumber(address: string): number | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(address)?.slice(1).map(Number);
  if (parts === undefined || parts.some((part) => part > 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

const addressText = (number: number): string =>
  [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");

/** The first and last usable address of a subnet: AWS keeps four at the start and one at the end (VPC user guide). */
function usable({ cidr }: Subnet): [number, number] {
  const [base = "", bits = "32"] = cidr.split("/");
  const first = addressNumber(base) ?? 0;
  return [first + 4, first + 2 ** (32 - Number(bits)) - 2];
}

/** The address asked for, or a free one. @throws AwsError InvalidIPAddress.InUse, InvalidParameterValue */
export function takeAddress({ world }: Ec2Scope, subnet: Subnet, wanted?: string): string {
  const used = new Set(
    [...world.instances.values()]
      .filter((each) => each.subnetId === subnet.id && each.state !== "terminated")
      .map(({ privateIp }) => privateIp),
  );
  const [first, last] = usable(subnet);
  if (wanted !== undefined) {
    const number = addressNumber(wanted);
    if (number === undefined) throw wrong("InvalidParameterValue", `Invalid address ${wanted}`);
    if (number < first || number > last)
      throw wrong("InvalidParameterValue", `Address ${wanted} does not fall within the subnet's address range`);
    if (used.has(wanted)) throw wrong("InvalidIPAddress.InUse", `Address ${wanted} is in use.`);
    return wanted;
  }
  for (let number = first; number <= last; number++) if (!used.has(addressText(number))) return addressText(number);
  throw wrong("InsufficientFreeAddressesInSubnet", `There are no free addresses in subnet '${subnet.id}'.`);
}

/** The actions on VPCs, subnets and security groups. */
export function networkActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;
  const group = (id: string, caller: Caller): SecurityGroup => scope.own(world.groups, id, caller, "sg");

  function describeVpcs(form: Ec2Form, caller: Caller): XmlObject {
    const { group: own } = defaultNetwork(scope, caller);
    const all = scope.named(
      form,
      "VpcId",
      (id) => {
        if (id === own.vpcId) return { id };
        throw wrong("InvalidVpcID.NotFound", `The vpc ID '${id}' does not exist`);
      },
      () => [{ id: own.vpcId }],
    );
    const { items } = scope.select(form, all, ({ id }, filter) => {
      if (filter === "vpc-id") return [id];
      if (filter === "is-default" || filter === "isDefault") return ["true"];
      return filter === "state" ? ["available"] : undefined;
    });
    const vpcSet = items.map(({ id }) => ({ vpcId: id, state: "available", cidrBlock: vpcCidr, isDefault: true }));
    return { vpcSet };
  }

  function describeSubnets(form: Ec2Form, caller: Caller): XmlObject {
    const { subnets } = defaultNetwork(scope, caller);
    const all = scope.named(
      form,
      "SubnetId",
      (id) => scope.own(world.subnets, id, caller, "subnet"),
      () => subnets,
    );
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      switch (filter) {
        case "subnet-id":
          return [each.id];
        case "vpc-id":
          return [each.vpcId];
        case "availability-zone":
        case "availabilityZone":
          return [each.zone];
        case "default-for-az":
        case "defaultForAz":
          return [String(each.isDefault)];
        case "cidr-block":
        case "cidr":
          return [each.cidr];
        case "state":
          return ["available"];
        default:
          return undefined;
      }
    });
    const subnetSet = items.map((each) => {
      const [first, last] = usable(each);
      const used = [...world.instances.values()].filter(
        ({ subnetId, state }) => subnetId === each.id && state !== "terminated",
      ).length;
      return {
        subnetId: each.id,
        state: "available",
        vpcId: each.vpcId,
        cidrBlock: each.cidr,
        availableIpAddressCount: last - first + 1 - used,
        availabilityZone: each.zone,
        defaultForAz: each.isDefault,
        mapPublicIpOnLaunch: true,
        ownerId: each.accountId,
        tagSet: tagSet(each.tags),
      };
    });
    return { subnetSet, nextToken };
  }

  function describeGroups(form: Ec2Form, caller: Caller): XmlObject {
    defaultNetwork(scope, caller);
    const names = form.list("GroupName");
    const all = scope
      .named(
        form,
        "GroupId",
        (id) => group(id, caller),
        () => scope.mine(world.groups, caller),
      )
      .filter(({ name }) => names.length === 0 || names.includes(name));
    for (const name of names)
      if (all.every((each) => each.name !== name))
        throw wrong("InvalidGroup.NotFound", `The security group '${name}' does not exist`);
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      if (filter === "group-id") return [each.id];
      if (filter === "group-name") return [each.name];
      if (filter === "description") return [each.description];
      return filter === "vpc-id" ? [each.vpcId] : undefined;
    });
    const securityGroupInfo = items.map((each) => ({
      ownerId: each.accountId,
      groupId: each.id,
      groupName: each.name,
      groupDescription: each.description,
      vpcId: each.vpcId,
      ipPermissions: each.ingress.map(permissionXml),
      ipPermissionsEgress: each.egress.map(permissionXml),
      tagSet: tagSet(each.tags),
    }));
    return { securityGroupInfo, nextToken };
  }

  function createGroup(form: Ec2Form, caller: Caller): XmlObject {
    const { group: own } = defaultNetwork(scope, caller);
    const vpcId = form.text("VpcId") ?? own.vpcId;
    if (vpcId !== own.vpcId) throw wrong("InvalidVpcID.NotFound", `The vpc ID '${vpcId}' does not exist`);
    const name = form.need("GroupName");
    const description = form.need("GroupDescription");
    if (!/^[\w .:/()#,@[\]+=&;{}!$*-]{1,255}$/.test(name) || name.startsWith("sg-"))
      throw wrong("InvalidParameterValue", `Value (${name}) for parameter GroupName is invalid.`);
    if (!/^[\w .:/()#,@[\]+=&;{}!$*-]{1,255}$/.test(description))
      throw wrong("InvalidParameterValue", `Value (${description}) for parameter GroupDescription is invalid.`);
    if (scope.mine(world.groups, caller).some((each) => each.name === name && each.vpcId === vpcId))
      throw wrong("InvalidGroup.Duplicate", `The security group '${name}' already exists for VPC '${vpcId}'`);
    const id = world.newId("sg");
    const tags = scope.tags(form, "security-group");
    const base = { id, accountId: caller.accountId, region: caller.region, tags, name, description, vpcId };
    world.groups.set(id, { ...base, ingress: [], egress: [everywhere] });
    return { return: true, groupId: id, tagSet: tagSet(tags) };
  }

  function deleteGroup(form: Ec2Form, caller: Caller): XmlObject {
    const { id, name } = group(form.need("GroupId"), caller);
    if (name === "default")
      throw wrong("CannotDelete", `the specified group: "${id}" name: "default" cannot be deleted`);
    const user = [...world.instances.values()].find(
      ({ groupIds, state }) => groupIds.includes(id) && state !== "terminated",
    );
    if (user !== undefined) throw wrong("DependencyViolation", `resource ${id} has a dependent object`);
    world.groups.delete(id);
    return { return: true, groupId: id };
  }

  function change(side: "ingress" | "egress", road: "authorize" | "revoke") {
    return (form: Ec2Form, caller: Caller): XmlObject => {
      const target = group(form.need("GroupId"), caller);
      const permissions = form.forms("IpPermissions").map(permissionIn);
      if (permissions.length === 0) throw wrong("MissingParameter", "The request must contain ipPermissions");
      for (const permission of permissions) {
        const at = target[side].findIndex((each) => JSON.stringify(each) === JSON.stringify(permission));
        if (road === "authorize" && at >= 0)
          throw wrong("InvalidPermission.Duplicate", "the specified rule already exists");
        if (road === "revoke" && at < 0)
          throw wrong("InvalidPermission.NotFound", "The specified rule does not exist in this security group.");
      }
      const texts = new Set(permissions.map((each) => JSON.stringify(each)));
      target[side] =
        road === "authorize"
          ? [...target[side], ...permissions]
          : target[side].filter((each) => !texts.has(JSON.stringify(each)));
      return { return: true };
    };
  }

  const rules = "GroupId IpPermissions";
  return {
    DescribeVpcs: { takes: `VpcId ${listing}`, act: describeVpcs },
    DescribeSubnets: { takes: `SubnetId ${listing}`, act: describeSubnets },
    DescribeSecurityGroups: { takes: `GroupId GroupName ${listing}`, act: describeGroups },
    CreateSecurityGroup: { takes: "GroupName GroupDescription VpcId TagSpecification", act: createGroup },
    DeleteSecurityGroup: { takes: "GroupId", act: deleteGroup },
    AuthorizeSecurityGroupIngress: { takes: rules, act: change("ingress", "authorize") },
    AuthorizeSecurityGroupEgress: { takes: rules, act: change("egress", "authorize") },
    RevokeSecurityGroupIngress: { takes: rules, act: change("ingress", "revoke") },
    RevokeSecurityGroupEgress: { takes: rules, act: change("egress", "revoke") },
  };
}

function permissionIn(form: Ec2Form): Permission {
  form.only("IpProtocol FromPort ToPort IpRanges.CidrIp Ipv6Ranges.CidrIpv6 Groups.GroupId IpRanges.Description");
  const protocol = form.need("IpProtocol");
  const port = (name: string): number | undefined => (form.text(name) === "-1" ? undefined : form.number(name));
  const [fromPort, toPort] = protocol === "-1" ? [] : [port("FromPort"), port("ToPort")];
  return {
    protocol,
    ...(fromPort === undefined ? {} : { fromPort }),
    ...(toPort === undefined ? {} : { toPort }),
    cidrs: form.forms("IpRanges").map((each) => each.need("CidrIp")),
    cidrs6: form.forms("Ipv6Ranges").map((each) => each.need("CidrIpv6")),
    groups: form.forms("Groups").map((each) => each.need("GroupId")),
  };
}

function permissionXml(each: Permission): XmlObject {
  return {
    ipProtocol: each.protocol,
    fromPort: each.fromPort,
    toPort: each.toPort,
    groups: each.groups.map((groupId) => ({ groupId })),
    ipRanges: each.cidrs.map((cidrIp) => ({ cidrIp })),
    ipv6Ranges: each.cidrs6.map((cidrIpv6) => ({ cidrIpv6 })),
    prefixListIds: [],
  };
}
