import { listing, maybe, tagSet, time, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { BlockDevice, Image } from "./resources.ts";
import type { Caller } from "./signature.ts";
import { isBootable, shapeOf } from "./volume-types.ts";

/** Bytes of a UEFI variable store (EC2 API, RegisterImage: UefiData). */
const longestUefiData = 64_000;

const deviceFields =
  "DeviceName NoDevice VirtualName Ebs.SnapshotId Ebs.VolumeSize Ebs.VolumeType Ebs.Iops Ebs.Throughput Ebs.DeleteOnTermination Ebs.Encrypted Ebs.KmsKeyId";

/**
 * The devices a request maps, over those of `image` where it launches one: what a mapping leaves out is the image's.
 * @throws AwsError InvalidBlockDeviceMapping and the errors of its snapshots and volume types.
 */
export function blockDevices(scope: Ec2Scope, form: Ec2Form, caller: Caller, image?: Image): BlockDevice[] {
  const devices = new Map((image?.devices ?? []).map((each) => [each.deviceName, each]));
  const seen = new Set<string>();
  for (const mapping of form.forms("BlockDeviceMapping")) {
    mapping.only(deviceFields);
    const deviceName = mapping.need("DeviceName");
    if (seen.has(deviceName)) throw unfit(`duplicate device name ${deviceName}`);
    seen.add(deviceName);
    if (mapping.text("NoDevice") !== undefined) {
      devices.delete(deviceName);
      continue;
    }
    const base = devices.get(deviceName);
    const snapshotId = mapping.text("Ebs.SnapshotId") ?? base?.snapshotId;
    if (base?.snapshotId !== undefined && snapshotId !== base.snapshotId)
      throw unfit(`snapshotId can not be modified on device ${deviceName}`);
    const encrypted = mapping.text("Ebs.Encrypted") === undefined ? undefined : mapping.flag("Ebs.Encrypted");
    // RegisterImage takes no Encrypted beside a snapshot; RunInstances does (EC2 API, EbsBlockDevice).
    if (image === undefined && encrypted !== undefined && snapshotId !== undefined)
      throw unfit(`the encrypted flag cannot be specified since device ${deviceName} has a snapshot specified.`);
    const snapshot = snapshotId === undefined ? undefined : scope.usableSnapshot(snapshotId, caller);
    const sizeGib = mapping.number("Ebs.VolumeSize") ?? base?.shape.sizeGib ?? snapshot?.sizeGib;
    if (sizeGib === undefined) throw unfit(`the device ${deviceName} has neither a size nor a snapshot`);
    if (snapshot !== undefined && sizeGib < snapshot.sizeGib)
      throw unfit(
        `Volume of size ${sizeGib}GB is smaller than snapshot '${snapshot.id}', expect size >= ${snapshot.sizeGib}GB`,
      );
    const type = mapping.text("Ebs.VolumeType") ?? base?.shape.type ?? (image === undefined ? "standard" : "gp2");
    const same = type === base?.shape.type;
    const shape = shapeOf(
      type,
      sizeGib,
      mapping.number("Ebs.Iops") ?? (same && type !== "gp2" ? base.shape.iops : undefined),
      mapping.number("Ebs.Throughput") ?? (same ? base.shape.throughput : undefined),
    );
    const kept = mapping.text("Ebs.DeleteOnTermination");
    const kmsKeyId = mapping.text("Ebs.KmsKeyId");
    if (kmsKeyId !== undefined && encrypted !== true)
      throw wrong("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.");
    devices.set(deviceName, {
      deviceName,
      shape,
      deleteOnTermination: kept === undefined ? (base?.deleteOnTermination ?? true) : kept === "true",
      ...(snapshotId === undefined ? {} : { snapshotId }),
      ...(encrypted === undefined ? {} : { encrypted }),
      ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
    });
  }
  return [...devices.values()];
}

const unfit = (message: string): Error =>
  wrong("InvalidBlockDeviceMapping", `Invalid block device mapping: ${message}`);

/** The parameter, if it is one of the words allowed. */
function word(form: Ec2Form, name: string, allowed: string[]): string | undefined {
  const value = form.text(name);
  if (value !== undefined && !allowed.includes(value))
    throw wrong("InvalidParameterValue", `Value (${value}) for parameter ${name} is invalid.`);
  return value;
}

/** The actions on images. */
export function imageActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  function registerImage(form: Ec2Form, caller: Caller): XmlObject {
    const name = form.need("Name");
    if (!/^[A-Za-z0-9()[\] ./\-'@_]{3,128}$/.test(name))
      throw wrong(
        "InvalidAMIName.Malformed",
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' and '_'",
      );
    const other = scope.mine(world.images, caller).find((each) => each.name === name);
    if (other !== undefined)
      throw wrong("InvalidAMIName.Duplicate", `AMI name ${name} is already in use by AMI ${other.id}`);
    const architecture = word(form, "Architecture", ["i386", "x86_64", "arm64"]) ?? "i386";
    const virtualizationType = word(form, "VirtualizationType", ["paravirtual", "hvm"]) ?? "paravirtual";
    const bootMode = word(form, "BootMode", ["legacy-bios", "uefi", "uefi-preferred"]);
    const tpmSupport = word(form, "TpmSupport", ["v2.0"]);
    const imdsSupport = word(form, "ImdsSupport", ["v2.0"]);
    const uefiData = form.text("UefiData");
    const hvm = virtualizationType === "hvm";
    if (architecture === "arm64" && (!hvm || (bootMode ?? "uefi") !== "uefi"))
      throw wrong(
        "InvalidParameterCombination",
        "arm64 images need the virtualization type hvm and the boot mode uefi.",
      );
    if (bootMode !== undefined && bootMode !== "legacy-bios" && (!hvm || architecture === "i386"))
      throw wrong("InvalidParameterCombination", `The boot mode ${bootMode} needs hvm and a 64-bit architecture.`);
    if (tpmSupport !== undefined && bootMode !== "uefi")
      throw wrong("InvalidParameterCombination", "TpmSupport needs the boot mode uefi.");
    if (uefiData !== undefined && bootMode !== "uefi" && bootMode !== "uefi-preferred")
      throw wrong("InvalidParameterCombination", "UefiData needs the boot mode uefi or uefi-preferred.");
    if (uefiData !== undefined && (!/^[A-Za-z0-9+/]+={0,2}$/.test(uefiData) || uefiData.length > longestUefiData))
      throw wrong("InvalidParameterValue", "UefiData has to be base64 of at most 64000 characters.");
    if (form.text("EnaSupport") === "true" && !hvm)
      throw wrong("InvalidParameterCombination", "EnaSupport needs the virtualization type hvm.");
    const rootDeviceName = form.need("RootDeviceName");
    const devices = blockDevices(scope, form, caller);
    const root = devices.find(({ deviceName }) => deviceName === rootDeviceName);
    if (root?.snapshotId === undefined) throw unfit(`the root device ${rootDeviceName} is not mapped to a snapshot`);
    if (!isBootable(root.shape.type)) throw unfit(`${root.shape.type} volumes cannot be root devices`);
    const image: Image = {
      id: world.newId("ami"),
      accountId: caller.accountId,
      region: caller.region,
      tags: scope.tags(form, "image"),
      name,
      description: form.text("Description") ?? "",
      state: "pending",
      architecture,
      virtualizationType,
      enaSupport: form.flag("EnaSupport"),
      rootDeviceName,
      devices,
      createdAt: world.now(),
      ...(bootMode === undefined ? {} : { bootMode }),
      ...(tpmSupport === undefined ? {} : { tpmSupport }),
      ...(imdsSupport === undefined ? {} : { imdsSupport }),
      ...(uefiData === undefined ? {} : { uefiData }),
    };
    world.images.set(image.id, image);
    world.later(world.delays.changeMs, () => {
      image.state = "available";
    });
    return { imageId: image.id };
  }

  function deregisterImage(form: Ec2Form, caller: Caller): XmlObject {
    const image = scope.image(form.need("ImageId"), caller);
    world.images.delete(image.id);
    if (!form.flag("DeleteAssociatedSnapshots")) return { return: true };
    const deleteSnapshotResultSet = image.devices.flatMap(({ snapshotId }) => {
      if (snapshotId === undefined || !world.snapshots.delete(snapshotId)) return [];
      return [{ snapshotId, returnCode: "success" }];
    });
    return { return: true, deleteSnapshotResultSet };
  }

  function describeImages(form: Ec2Form, caller: Caller): XmlObject {
    const owners = form.list("Owner").map((owner) => (owner === "self" ? caller.accountId : owner));
    const all = scope
      .named(
        form,
        "ImageId",
        (id) => scope.image(id, caller),
        () => scope.mine(world.images, caller),
      )
      .filter(({ accountId }) => owners.length === 0 || owners.includes(accountId));
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      switch (filter) {
        case "name":
          return [each.name];
        case "image-id":
          return [each.id];
        case "state":
          return [each.state];
        case "architecture":
          return [each.architecture];
        case "boot-mode":
          return maybe(each.bootMode);
        case "virtualization-type":
          return [each.virtualizationType];
        case "owner-id":
          return [each.accountId];
        case "is-public":
          return ["false"];
        case "root-device-name":
          return [each.rootDeviceName];
        case "block-device-mapping.snapshot-id":
          return each.devices.flatMap(({ snapshotId }) => maybe(snapshotId));
        default:
          return undefined;
      }
    });
    return { imagesSet: items.map(imageXml), nextToken };
  }

  function imageXml(each: Image): XmlObject {
    const blockDeviceMapping = each.devices.map((device) => ({
      deviceName: device.deviceName,
      ebs: {
        snapshotId: device.snapshotId,
        volumeSize: device.shape.sizeGib,
        volumeType: device.shape.type,
        iops: device.shape.type === "gp2" ? undefined : device.shape.iops,
        throughput: device.shape.throughput,
        deleteOnTermination: device.deleteOnTermination,
        encrypted: device.encrypted ?? world.snapshots.get(device.snapshotId ?? "")?.encrypted ?? false,
      },
    }));
    return {
      imageId: each.id,
      imageLocation: `${each.accountId}/${each.name}`,
      imageState: each.state,
      imageOwnerId: each.accountId,
      creationDate: time(each.createdAt),
      isPublic: false,
      architecture: each.architecture,
      imageType: "machine",
      platform: each.platform,
      platformDetails: each.platform === "windows" ? "Windows" : "Linux/UNIX",
      usageOperation: each.platform === "windows" ? "RunInstances:0002" : "RunInstances",
      name: each.name,
      description: each.description,
      rootDeviceType: "ebs",
      rootDeviceName: each.rootDeviceName,
      blockDeviceMapping,
      virtualizationType: each.virtualizationType,
      hypervisor: "xen",
      enaSupport: each.enaSupport ? true : undefined,
      bootMode: each.bootMode,
      tpmSupport: each.tpmSupport,
      imdsSupport: each.imdsSupport,
      tagSet: tagSet(each.tags),
    };
  }

  const registering =
    "Name Description Architecture RootDeviceName BlockDeviceMapping VirtualizationType EnaSupport BootMode TpmSupport UefiData ImdsSupport TagSpecification";
  return {
    RegisterImage: { takes: registering, act: registerImage },
    DeregisterImage: { takes: "ImageId DeleteAssociatedSnapshots", act: deregisterImage },
    DescribeImages: {
      takes: `ImageId Owner ExecutableBy IncludeDeprecated IncludeDisabled ${listing}`,
      act: describeImages,
    },
  };
}
