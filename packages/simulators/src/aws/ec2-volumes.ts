import { BlockTable } from "./block-table.ts";
import { listing, maybe, tagSet, time, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { Instance, Snapshot, Tags, Volume, VolumeShape } from "./resources.ts";
import type { Caller } from "./signature.ts";
import { shapeOf } from "./volume-types.ts";

/** Least time between two modifications of one volume (EC2 user guide, Amazon EBS Elastic Volumes). */
const modificationPauseMs = 6 * 3_600_000;

/** What a new volume is made of. */
export interface VolumeOrder {
  caller: Caller;
  zone: string;
  shape: VolumeShape;
  tags: Tags;
  snapshot?: Snapshot | undefined;
  encrypted?: boolean | undefined;
  kmsKeyId?: string | undefined;
}

/** Makes a volume; with a key that KMS refuses it comes to nothing but the state `error`. */
export function makeVolume(scope: Ec2Scope, order: VolumeOrder): Volume {
  const { world } = scope;
  const { caller, snapshot } = order;
  const { accountId, region } = caller;
  const encrypted =
    snapshot?.encrypted === true || order.encrypted === true || world.encryptedByDefault.has(`${accountId}/${region}`);
  const kmsKeyId = scope.keyFor(caller, encrypted, order.kmsKeyId ?? snapshot?.kmsKeyId);
  const volume: Volume = {
    ...order.shape,
    id: world.newId("vol"),
    accountId,
    region,
    tags: order.tags,
    state: "creating",
    zone: order.zone,
    encrypted,
    blocks: snapshot?.blocks.copy() ?? new BlockTable(),
    createdAt: world.now(),
    ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
    ...(snapshot === undefined ? {} : { snapshotId: snapshot.id }),
    ...(snapshot?.noiseKey === undefined ? {} : { noiseKey: snapshot.noiseKey }),
  };
  world.volumes.set(volume.id, volume);
  const refused = world.deniedKeys.has(kmsKeyId ?? "");
  world.later(world.delays.changeMs, () => {
    volume.state = refused ? "error" : "available";
  });
  return volume;
}

/** The state DescribeVolumes tells. */
export const volumeState = (each: Volume): string => (each.attachment === undefined ? each.state : "in-use");

/** The actions on volumes. */
export function volumeActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  function createVolume(form: Ec2Form, caller: Caller): XmlObject {
    const [id = ""] = scope.once(form, caller, () => {
      const zone = form.need("AvailabilityZone");
      if (!new RegExp(`^${caller.region}[abc]$`).test(zone))
        throw wrong("InvalidZone.NotFound", `The zone '${zone}' does not exist.`);
      const snapshotId = form.text("SnapshotId");
      const snapshot = snapshotId === undefined ? undefined : scope.usableSnapshot(snapshotId, caller);
      const sizeGib = form.number("Size") ?? snapshot?.sizeGib;
      if (sizeGib === undefined)
        throw wrong("MissingParameter", "The request must contain the parameter size or snapshotId");
      if (snapshot !== undefined && sizeGib < snapshot.sizeGib)
        throw wrong("InvalidParameterValue", `Volume of ${sizeGib}GiB is smaller than snapshot '${snapshot.id}'`);
      const kmsKeyId = form.text("KmsKeyId");
      if (kmsKeyId !== undefined && !form.flag("Encrypted"))
        throw wrong("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.");
      const shape = shapeOf(form.text("VolumeType") ?? "gp2", sizeGib, form.number("Iops"), form.number("Throughput"));
      const encrypted = form.flag("Encrypted");
      return [
        makeVolume(scope, { caller, zone, shape, tags: scope.tags(form, "volume"), snapshot, encrypted, kmsKeyId }).id,
      ];
    });
    return volumeXml(scope.volume(id, caller));
  }

  function describeVolumes(form: Ec2Form, caller: Caller): XmlObject {
    const all = scope.named(
      form,
      "VolumeId",
      (id) => scope.volume(id, caller),
      () => scope.mine(world.volumes, caller),
    );
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      switch (filter) {
        case "attachment.instance-id":
          return maybe(each.attachment?.instanceId);
        case "attachment.device":
          return maybe(each.attachment?.device);
        case "attachment.status":
          return maybe(each.attachment?.status);
        case "status":
          return [volumeState(each)];
        case "volume-id":
          return [each.id];
        case "snapshot-id":
          return maybe(each.snapshotId);
        case "availability-zone":
          return [each.zone];
        case "volume-type":
          return [each.type];
        case "encrypted":
          return [String(each.encrypted)];
        case "size":
          return [String(each.sizeGib)];
        default:
          return undefined;
      }
    });
    return { volumeSet: items.map(volumeXml), nextToken };
  }

  function attachVolume(form: Ec2Form, caller: Caller): XmlObject {
    const volume = scope.volume(form.need("VolumeId"), caller);
    const instance = scope.instance(form.need("InstanceId"), caller);
    const device = form.need("Device");
    if (volume.attachment !== undefined) throw wrong("VolumeInUse", `${volume.id} is already attached to an instance`);
    if (volume.state !== "available") throw wrong("IncorrectState", `${volume.id} is not 'available'.`);
    if (instance.state !== "running" && instance.state !== "stopped")
      throw wrong("IncorrectState", `Instance '${instance.id}' is not 'running'.`);
    if (volume.zone !== instance.zone)
      throw wrong(
        "InvalidVolume.ZoneMismatch",
        `The volume '${volume.id}' is not in the same availability zone as instance '${instance.id}'`,
      );
    if (!/^(\/dev\/(sd[a-z]\d*|xvd[a-z]{1,2}\d*)|xvd[a-z]{1,2})$/.test(device))
      throw wrong(
        "InvalidParameterValue",
        `Value (${device}) for parameter device is invalid. ${device} is not a valid EBS device name.`,
      );
    if (scope.attached(instance.id).some(({ attachment }) => attachment?.device === device))
      throw wrong(
        "InvalidParameterValue",
        `Invalid value '${device}' for unixDevice. Attachment point ${device} is already in use`,
      );
    attach(volume, instance, device, false);
    return attachmentXml(volume);
  }

  function attach(volume: Volume, instance: Instance, device: string, deleteOnTermination: boolean): void {
    const attachedAt = world.now();
    const attachment = {
      instanceId: instance.id,
      device,
      status: "attaching" as const,
      deleteOnTermination,
      attachedAt,
    };
    volume.attachment = attachment;
    world.later(world.delays.changeMs, () => {
      if (volume.attachment === attachment) volume.attachment.status = "attached";
    });
  }

  function detachVolume(form: Ec2Form, caller: Caller): XmlObject {
    const volume = scope.volume(form.need("VolumeId"), caller);
    const { attachment } = volume;
    if (attachment === undefined) throw wrong("IncorrectState", `Volume '${volume.id}' is in the 'available' state.`);
    const instance = world.instances.get(attachment.instanceId);
    if ((form.text("InstanceId") ?? attachment.instanceId) !== attachment.instanceId)
      throw wrong("InvalidAttachment.NotFound", `${volume.id} is not attached to ${form.text("InstanceId")}.`);
    if ((form.text("Device") ?? attachment.device) !== attachment.device)
      throw wrong("InvalidAttachment.NotFound", `${volume.id} is not attached as ${form.text("Device")}.`);
    if (instance?.state !== "stopped" && instance?.rootDevice === attachment.device)
      throw wrong(
        "OperationNotPermitted",
        `Unable to detach root volume '${volume.id}' from instance '${instance.id}'`,
      );
    if (attachment.status === "detaching")
      throw wrong("IncorrectState", `The attachment of '${volume.id}' is already being removed.`);
    attachment.status = "detaching";
    const answer = attachmentXml(volume);
    world.later(world.delays.changeMs, () => {
      if (volume.attachment === attachment) delete volume.attachment;
    });
    return answer;
  }

  function deleteVolume(form: Ec2Form, caller: Caller): XmlObject {
    const volume = scope.volume(form.need("VolumeId"), caller);
    if (volume.attachment !== undefined)
      throw wrong("VolumeInUse", `Volume ${volume.id} is currently attached to ${volume.attachment.instanceId}`);
    if (volume.state === "creating") throw wrong("IncorrectState", `The volume '${volume.id}' is 'creating'`);
    world.volumes.delete(volume.id);
    return { return: true };
  }

  function modifyVolume(form: Ec2Form, caller: Caller): XmlObject {
    const volume = scope.volume(form.need("VolumeId"), caller);
    const earlier = volume.modification;
    if (volume.state !== "available") throw wrong("IncorrectState", `${volume.id} is ${volume.state}`);
    if (earlier !== undefined && earlier.state !== "completed")
      throw wrong("IncorrectModificationState", `${volume.id} is still being modified: ${earlier.state}`);
    if (earlier !== undefined && world.now() < earlier.startedAt + modificationPauseMs)
      throw wrong("VolumeModificationRateExceeded", "Wait at least 6 hours between modifications per EBS volume.");
    const type = form.text("VolumeType") ?? volume.type;
    const same = type === volume.type;
    const sizeGib = form.number("Size") ?? volume.sizeGib;
    if (sizeGib < volume.sizeGib) throw wrong("InvalidParameterValue", "New size cannot be smaller than existing size");
    const to = shapeOf(
      type,
      sizeGib,
      form.number("Iops") ?? (same && type !== "gp2" ? volume.iops : undefined),
      form.number("Throughput") ?? (same ? volume.throughput : undefined),
    );
    const modification = { state: "modifying" as const, startedAt: world.now(), from: shape(volume), to };
    volume.modification = modification;
    const answer = { volumeModification: modificationXml(volume) };
    world.later(world.delays.changeMs, () => {
      Object.assign(volume, to);
      volume.modification = { ...modification, state: "optimizing" };
    });
    world.later(2 * world.delays.changeMs, () => {
      volume.modification = { ...modification, state: "completed" };
    });
    return answer;
  }

  function describeModifications(form: Ec2Form, caller: Caller): XmlObject {
    const mine = scope.mine(world.volumes, caller).filter(({ modification }) => modification !== undefined);
    const one = (id: string): Volume => {
      const volume = scope.volume(id, caller);
      if (volume.modification !== undefined) return volume;
      throw wrong("InvalidVolumeModification.NotFound", `Modification for volume '${id}' does not exist.`);
    };
    const { items, nextToken } = scope.select(
      form,
      scope.named(form, "VolumeId", one, () => mine),
      (each, filter) =>
        filter === "volume-id"
          ? [each.id]
          : filter === "modification-state"
            ? maybe(each.modification?.state)
            : undefined,
    );
    return { volumeModificationSet: items.map(modificationXml), nextToken };
  }

  const order =
    "AvailabilityZone Encrypted Iops KmsKeyId Size SnapshotId VolumeType Throughput ClientToken TagSpecification";
  return {
    CreateVolume: { takes: order, act: createVolume },
    DescribeVolumes: { takes: `VolumeId ${listing}`, act: describeVolumes },
    AttachVolume: { takes: "Device InstanceId VolumeId", act: attachVolume },
    DetachVolume: { takes: "Device InstanceId VolumeId Force", act: detachVolume },
    DeleteVolume: { takes: "VolumeId", act: deleteVolume },
    ModifyVolume: { takes: "VolumeId Size VolumeType Iops Throughput", act: modifyVolume },
    DescribeVolumesModifications: { takes: `VolumeId ${listing}`, act: describeModifications },
  };
}

function shape({ sizeGib, type, iops, throughput }: VolumeShape): VolumeShape {
  return {
    sizeGib,
    type,
    ...(iops === undefined ? {} : { iops }),
    ...(throughput === undefined ? {} : { throughput }),
  };
}

function modificationXml({ id, modification }: Volume): XmlObject {
  if (modification === undefined) return {};
  const { state, startedAt, from, to } = modification;
  return {
    volumeId: id,
    modificationState: state,
    targetSize: to.sizeGib,
    targetIops: to.iops,
    targetVolumeType: to.type,
    targetThroughput: to.throughput,
    originalSize: from.sizeGib,
    originalIops: from.iops,
    originalVolumeType: from.type,
    originalThroughput: from.throughput,
    progress: state === "completed" ? 100 : 0,
    startTime: time(startedAt),
  };
}

function attachmentXml({ id, attachment }: Volume): XmlObject {
  return {
    volumeId: id,
    instanceId: attachment?.instanceId,
    device: attachment?.device,
    status: attachment?.status,
    attachTime: time(attachment?.attachedAt ?? 0),
    deleteOnTermination: attachment?.deleteOnTermination,
  };
}

function volumeXml(each: Volume): XmlObject {
  return {
    volumeId: each.id,
    size: each.sizeGib,
    snapshotId: each.snapshotId ?? "",
    availabilityZone: each.zone,
    status: volumeState(each),
    createTime: time(each.createdAt),
    attachmentSet: each.attachment === undefined ? [] : [attachmentXml(each)],
    volumeType: each.type,
    iops: each.iops,
    throughput: each.throughput,
    encrypted: each.encrypted,
    kmsKeyId: each.kmsKeyId,
    tagSet: tagSet(each.tags),
    multiAttachEnabled: false,
  };
}
