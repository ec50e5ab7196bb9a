import { blockDevices } from "./ec2-images.ts";
import { defaultNetwork, takeAddress } from "./ec2-network.ts";
import { listing, maybe, tagSet, time, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import { makeVolume } from "./ec2-volumes.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import { instanceTypes, type InstanceType } from "./instance-types.ts";
import { instanceCodes, type BlockDevice, type Image, type Instance, type Subnet } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** Bytes of user data before base64 (EC2 user guide, instance user data). */
const longestUserData = 16_384;

/** Virtual processors of one account's running instances in a Region (Service Quotas, standard On-Demand instances). */
const vcpuLimit = 256;

/** The actions that launch instances. */
export function launchActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  function runInstances(form: Ec2Form, caller: Caller): XmlObject {
    const ids = scope.once(form, caller, () => {
      const count = form.number("MaxCount") ?? Number(form.need("MaxCount"));
      form.need("MinCount");
      if (count < 1 || count > 20)
        throw wrong("InvalidParameterValue", `Value (${count}) for parameter maxCount is invalid.`);
      const plan = launchPlan(form, caller);
      if (count > 1 && plan.privateIp !== undefined)
        throw wrong("InvalidParameterCombination", "One private address cannot be given to several instances.");
      const running = scope
        .mine(world.instances, caller)
        .filter(({ state }) => state !== "terminated" && state !== "stopped");
      const used = running.reduce((sum, { type }) => sum + (instanceTypes.get(type)?.vcpus ?? 0), 0);
      if (used + count * plan.type.vcpus > vcpuLimit)
        throw wrong(
          "VcpuLimitExceeded",
          `You have requested more vCPU capacity than your current vCPU limit of ${vcpuLimit} allows`,
        );
      return Array.from({ length: count }, () => launch(form, caller, plan));
    });
    const instances = ids.flatMap((id) => world.instances.get(id) ?? []);
    return {
      reservationId: ids[0]?.replace("i-", "r-"),
      ownerId: caller.accountId,
      instancesSet: instances.map((each) => instanceXml(scope, each)),
    };
  }

  interface LaunchPlan {
    image: Image;
    type: InstanceType;
    subnet: Subnet;
    groupIds: string[];
    devices: BlockDevice[];
    privateIp: string | undefined;
    publicIp: boolean;
    /** Why the instance ends instead of running. */
    failure: { code: string; message: string } | undefined;
    bootMode: "legacy-bios" | "uefi";
  }

  /** Checks a request whole before anything is made. */
  function launchPlan(form: Ec2Form, caller: Caller): LaunchPlan {
    const image = scope.image(form.need("ImageId"), caller);
    if (image.state !== "available")
      throw wrong("InvalidAMIID.Unavailable", `The image ID '${image.id}' is not available`);
    // EC2's own default is a type that no longer takes hvm images (EC2 API, RunInstances).
    const typeName = form.text("InstanceType") ?? "m1.small";
    const type = instanceTypes.get(typeName);
    if (type === undefined) throw wrong("InvalidParameterValue", `Invalid value '${typeName}' for InstanceType.`);
    if (!type.architectures.includes(image.architecture))
      throw wrong(
        "InvalidParameterValue",
        `The architecture '${type.architectures.join(",")}' of the specified instance type does not match the architecture '${image.architecture}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.`,
      );
    if (image.virtualizationType !== "hvm")
      throw wrong(
        "InvalidParameterCombination",
        `Non-Windows instances with a virtualization type of '${image.virtualizationType}' are currently not supported for this instance type.`,
      );
    if (type.ena === "required" && !image.enaSupport)
      throw wrong(
        "InvalidParameterCombination",
        `Enhanced networking with the Elastic Network Adapter (ENA) is required for the '${type.name}' instance type. Ensure that you are using an AMI that is enabled for ENA.`,
      );
    if (image.tpmSupport !== undefined && !type.tpm)
      throw wrong(
        "InvalidParameterCombination",
        `The instance type '${type.name}' does not support NitroTPM, which the AMI requires.`,
      );
    const userData = form.text("UserData");
    if (userData !== undefined) {
      if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(userData))
        throw wrong("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.");
      if (Buffer.from(userData, "base64").length > longestUserData)
        throw wrong("InvalidParameterValue", "User data is limited to 16384 bytes");
    }
    const network = networkOf(form, caller);
    const devices = blockDevices(scope, form, caller, image);
    if (devices.every(({ deviceName }) => deviceName !== image.rootDeviceName))
      throw wrong("InvalidBlockDeviceMapping", "Invalid block device mapping: the root device cannot be left out");
    for (const { snapshotId } of devices) if (snapshotId !== undefined) scope.usableSnapshot(snapshotId, caller);
    const wanted = image.bootMode ?? (type.bootModes.includes("legacy-bios") ? "legacy-bios" : "uefi");
    const bootMode = wanted === "uefi-preferred" ? (type.bootModes.includes("uefi") ? "uefi" : "legacy-bios") : wanted;
    const mode = bootMode === "uefi" ? "uefi" : "legacy-bios";
    const keys = devices.map(
      ({ kmsKeyId, snapshotId }) => kmsKeyId ?? world.snapshots.get(snapshotId ?? "")?.kmsKeyId ?? "",
    );
    const failure = !type.bootModes.includes(mode)
      ? { code: "Server.InternalError", message: "Server.InternalError: Internal error on launch" }
      : keys.some((key) => world.deniedKeys.has(key))
        ? { code: "Client.InternalError", message: "Client.InternalError: Client error on launch" }
        : undefined;
    return { image, type, devices, failure, bootMode: mode, ...network };
  }

  function networkOf(
    form: Ec2Form,
    caller: Caller,
  ): { subnet: Subnet; groupIds: string[]; privateIp: string | undefined; publicIp: boolean } {
    const { subnets, group } = defaultNetwork(scope, caller);
    const interfaces = form.forms("NetworkInterface");
    const [own] = interfaces;
    const plain = ["SubnetId", "PrivateIpAddress"].filter((name) => form.text(name) !== undefined);
    if (own !== undefined && (plain.length > 0 || form.list("SecurityGroupId").length > 0))
      throw wrong(
        "InvalidParameterCombination",
        "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request",
      );
    own?.only(
      "DeviceIndex SubnetId SecurityGroupId PrivateIpAddress AssociatePublicIpAddress DeleteOnTermination Description",
    );
    if (interfaces.length > 1) throw wrong("UnknownParameter", "The simulator's instances have one network interface.");
    if (own !== undefined && own.number("DeviceIndex") !== 0)
      throw wrong("InvalidParameterValue", "The first network interface needs the device index 0.");
    const from = own ?? form;
    const subnetId = from.text("SubnetId");
    const zone = form.text("Placement.AvailabilityZone");
    const subnet =
      subnetId === undefined
        ? subnets.find((each) => each.zone === (zone ?? `${caller.region}a`))
        : scope.own(world.subnets, subnetId, caller, "subnet");
    if (subnet === undefined) throw wrong("InvalidParameterValue", `Invalid availability zone: [${zone}]`);
    if (zone !== undefined && zone !== subnet.zone)
      throw wrong("InvalidParameterValue", `The availability zone '${zone}' is not that of the subnet '${subnet.id}'`);
    const named = from.list("SecurityGroupId").map((id) => scope.own(world.groups, id, caller, "sg"));
    for (const each of named)
      if (each.vpcId !== subnet.vpcId)
        throw wrong(
          "InvalidParameter",
          `Security group ${each.id} and subnet ${subnet.id} belong to different networks.`,
        );
    const groupIds = named.length === 0 ? [group.id] : named.map(({ id }) => id);
    const wanted = from.text("PrivateIpAddress");
    const privateIp = wanted === undefined ? undefined : takeAddress(scope, subnet, wanted);
    return { subnet, groupIds, privateIp, publicIp: own?.text("AssociatePublicIpAddress") !== "false" };
  }

  function launch(form: Ec2Form, caller: Caller, plan: LaunchPlan): string {
    const { image, type, subnet } = plan;
    const now = world.now();
    const base = { accountId: caller.accountId, region: caller.region };
    const profile = form.text("IamInstanceProfile.Arn") ?? form.text("IamInstanceProfile.Name");
    const optional = (name: string, value: string | undefined): object =>
      value === undefined ? {} : { [name]: value };
    const instance: Instance = {
      ...base,
      id: world.newId("i"),
      tags: scope.tags(form, "instance"),
      state: "pending",
      transitionReason: "",
      type: type.name,
      zone: subnet.zone,
      rootDevice: image.rootDeviceName,
      architecture: image.architecture,
      currentBootMode: plan.bootMode,
      enaSupport: image.enaSupport,
      imageId: image.id,
      subnetId: subnet.id,
      vpcId: subnet.vpcId,
      groupIds: plan.groupIds,
      interfaceId: world.newId("eni"),
      privateIp: plan.privateIp ?? takeAddress(scope, subnet),
      metadataTokens:
        form.text("MetadataOptions.HttpTokens") ?? (image.imdsSupport === "v2.0" ? "required" : "optional"),
      protected: form.flag("DisableApiTermination"),
      impaired: false,
      managed: false,
      launchedAt: now,
      ...(plan.publicIp ? { publicIp: `203.0.113.${1 + (world.instances.size % 254)}` } : {}),
      ...(image.platform === undefined ? {} : { platform: image.platform }),
      ...optional("bootMode", image.bootMode),
      ...optional("tpmSupport", image.tpmSupport),
      ...optional("uefiData", image.uefiData),
      ...optional("userData", form.text("UserData")),
      ...optional("clientToken", form.text("ClientToken")),
      ...optional("keyName", form.text("KeyName")),
      ...optional("profileArn", profile),
    };
    world.instances.set(instance.id, instance);
    for (const device of plan.devices) {
      const snapshot = device.snapshotId === undefined ? undefined : world.snapshots.get(device.snapshotId);
      const { shape, encrypted, kmsKeyId } = device;
      const tags = scope.tags(form, "volume");
      const volume = makeVolume(scope, { caller, zone: subnet.zone, shape, tags, snapshot, encrypted, kmsKeyId });
      volume.state = "available";
      const { deviceName, deleteOnTermination } = device;
      const place = { instanceId: instance.id, device: deviceName, deleteOnTermination, attachedAt: now };
      volume.attachment = { ...place, status: "attached" };
    }
    world.later(world.delays.changeMs, () => {
      if (instance.state !== "pending") return;
      if (plan.failure === undefined) instance.state = "running";
      else endInstance(scope, instance, plan.failure);
    });
    return instance.id;
  }

  const running =
    "ImageId InstanceType MinCount MaxCount ClientToken SubnetId SecurityGroupId PrivateIpAddress NetworkInterface BlockDeviceMapping UserData KeyName TagSpecification Placement IamInstanceProfile MetadataOptions DisableApiTermination EbsOptimized InstanceInitiatedShutdownBehavior Monitoring";
  return { RunInstances: { takes: running, act: runInstances } };
}

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
