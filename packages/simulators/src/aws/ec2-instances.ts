import { listing, maybe, tagSet, time, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import { instanceCodes, type Instance } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** Ends an instance: what is to be deleted with it goes, the rest is let go. */
export function endInstance({ world }: Ec2Scope, instance: Instance, reason: { code: string; message: string }): void {
  instance.state = "terminated";
  instance.stateReason = reason;
  for (const volume of [...world.volumes.values()]) {
    if (volume.attachment?.instanceId !== instance.id) continue;
    const { deleteOnTermination } = volume.attachment;
    delete volume.attachment;
    if (deleteOnTermination) world.volumes.delete(volume.id);
  }
}

/** An instance as DescribeInstances and RunInstances show it. */
export function instanceXml(scope: Ec2Scope, each: Instance): XmlObject {
  const { world } = scope;
  const blockDeviceMapping = scope.attached(each.id).map(({ id, attachment }) => ({
    deviceName: attachment?.device,
    ebs: {
      volumeId: id,
      status: attachment?.status,
      attachTime: time(attachment?.attachedAt ?? 0),
      deleteOnTermination: attachment?.deleteOnTermination,
    },
  }));
  const groupSet = each.groupIds.map((groupId) => ({ groupId, groupName: world.groups.get(groupId)?.name }));
  const gone = each.state === "terminated";
  const network = {
    networkInterfaceId: each.interfaceId,
    subnetId: each.subnetId,
    vpcId: each.vpcId,
    status: "in-use",
    privateIpAddress: each.privateIp,
    groupSet,
    attachment: { deviceIndex: 0, status: "attached", deleteOnTermination: true },
  };
  return {
    instanceId: each.id,
    imageId: each.imageId,
    instanceState: { code: instanceCodes[each.state], name: each.state },
    stateReason: each.stateReason,
    reason: each.transitionReason,
    instanceType: each.type,
    keyName: each.keyName,
    launchTime: time(each.launchedAt),
    placement: { availabilityZone: each.zone, tenancy: "default" },
    platform: each.platform,
    platformDetails: each.platform === "windows" ? "Windows" : "Linux/UNIX",
    subnetId: gone ? undefined : each.subnetId,
    vpcId: gone ? undefined : each.vpcId,
    privateIpAddress: gone ? undefined : each.privateIp,
    ipAddress: each.state === "running" ? each.publicIp : undefined,
    architecture: each.architecture,
    rootDeviceType: "ebs",
    rootDeviceName: each.rootDevice,
    blockDeviceMapping,
    virtualizationType: "hvm",
    hypervisor: "xen",
    clientToken: each.clientToken ?? "",
    tagSet: tagSet(each.tags),
    groupSet,
    networkInterfaceSet: gone ? [] : [network],
    enaSupport: each.enaSupport,
    iamInstanceProfile: each.profileArn === undefined ? undefined : { arn: each.profileArn },
    metadataOptions: { state: "applied", httpTokens: each.metadataTokens, httpEndpoint: "enabled" },
    bootMode: each.bootMode,
    currentInstanceBootMode: each.currentBootMode,
    tpmSupport: each.tpmSupport,
  };
}

/** The values of an instance that filters look at; undefined for a filter EC2 does not have or the simulator lacks. */
export function instanceField(scope: Ec2Scope, each: Instance, filter: string): string[] | undefined {
  switch (filter) {
    case "instance-state-name":
      return [each.state];
    case "instance-state-code":
      return [String(instanceCodes[each.state])];
    case "instance-id":
      return [each.id];
    case "image-id":
      return [each.imageId];
    case "instance-type":
      return [each.type];
    case "vpc-id":
      return [each.vpcId];
    case "subnet-id":
      return [each.subnetId];
    case "private-ip-address":
    case "network-interface.addresses.private-ip-address":
      return [each.privateIp];
    case "client-token":
      return maybe(each.clientToken);
    case "root-device-name":
      return [each.rootDevice];
    case "availability-zone":
      return [each.zone];
    case "architecture":
      return [each.architecture];
    case "platform":
      return maybe(each.platform);
    case "instance.group-id":
      return each.groupIds;
    case "block-device-mapping.volume-id":
      return scope.attached(each.id).map(({ id }) => id);
    case "block-device-mapping.device-name":
      return scope.attached(each.id).flatMap(({ attachment }) => maybe(attachment?.device));
    default:
      return undefined;
  }
}

/** The actions that look at instances. */
export function instanceViews(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  const visible = (caller: Caller): Instance[] =>
    scope.mine(world.instances, caller).filter((each) => world.now() >= each.launchedAt + world.delays.describableMs);

  function describeInstances(form: Ec2Form, caller: Caller): XmlObject {
    const all = scope.named(
      form,
      "InstanceId",
      (id) => scope.instance(id, caller),
      () => visible(caller),
    );
    const { items, nextToken } = scope.select(form, all, (each, filter) => instanceField(scope, each, filter));
    const reservationSet = items.map((each) => ({
      reservationId: each.id.replace("i-", "r-"),
      ownerId: each.accountId,
      instancesSet: [instanceXml(scope, each)],
    }));
    return { reservationSet, nextToken };
  }

  function describeStatus(form: Ec2Form, caller: Caller): XmlObject {
    const everyone = form.flag("IncludeAllInstances");
    const all = scope
      .named(
        form,
        "InstanceId",
        (id) => scope.instance(id, caller),
        () => visible(caller),
      )
      .filter(({ state }) => everyone || state === "running");
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      if (filter === "instance-state-name") return [each.state];
      if (filter === "instance-status.status") return [statusOf(each)];
      return filter === "availability-zone" ? [each.zone] : undefined;
    });
    const instanceStatusSet = items.map((each) => {
      const reachability =
        { ok: "passed", impaired: "failed", initializing: "initializing" }[statusOf(each)] ?? "insufficient-data";
      const details = [{ name: "reachability", status: reachability }];
      const system = each.state === "running" ? "ok" : "not-applicable";
      return {
        instanceId: each.id,
        availabilityZone: each.zone,
        instanceState: { code: instanceCodes[each.state], name: each.state },
        systemStatus: { status: system, details: [{ name: "reachability", status: "passed" }] },
        instanceStatus: { status: statusOf(each), details },
      };
    });
    return { instanceStatusSet, nextToken };
  }

  function statusOf(each: Instance): string {
    if (each.state !== "running") return "not-applicable";
    if (world.now() < each.launchedAt + 3 * world.delays.changeMs) return "initializing";
    return each.impaired ? "impaired" : "ok";
  }

  function uefiData(form: Ec2Form, caller: Caller): XmlObject {
    const instance = scope.instance(form.need("InstanceId"), caller);
    if (instance.currentBootMode !== "uefi")
      throw wrong("UnsupportedOperation", `The instance '${instance.id}' was not started in the boot mode uefi.`);
    return { instanceId: instance.id, uefiData: instance.uefiData ?? "" };
  }

  function consoleOutput(form: Ec2Form, caller: Caller): XmlObject {
    const instance = scope.instance(form.need("InstanceId"), caller);
    const text = instance.impaired ? "No bootable device." : `${instance.id} login: `;
    return { instanceId: instance.id, timestamp: time(world.now()), output: Buffer.from(text).toString("base64") };
  }

  return {
    DescribeInstances: { takes: `InstanceId ${listing}`, act: describeInstances },
    DescribeInstanceStatus: { takes: `InstanceId IncludeAllInstances ${listing}`, act: describeStatus },
    GetInstanceUefiData: { takes: "InstanceId", act: uefiData },
    GetConsoleOutput: { takes: "InstanceId Latest", act: consoleOutput },
  };
}
