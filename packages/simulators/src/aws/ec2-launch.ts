import { blockDevices } from "./ec2-images.ts";
import { endInstance, instanceXml } from "./ec2-instances.ts";
import { defaultNetwork, takeAddress } from "./ec2-network.ts";
import { wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import { makeVolume } from "./ec2-volumes.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import { instanceTypes, type InstanceType } from "./instance-types.ts";
import type { BlockDevice, Image, Instance, Subnet } from "./resources.ts";
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
    // EC2 API, error codes. The first request with a token makes instances that live.
    if (instances.some(({ state }) => state === "terminated"))
      throw wrong(
        "IdempotentInstanceTerminated",
        "The request to launch an instance uses the same client token as a previous request for which the instance has been terminated.",
      );
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
