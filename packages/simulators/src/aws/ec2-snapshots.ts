import { listing, tagSet, time, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { Snapshot, Tags, Volume } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** Pending snapshots of one volume (st1 and sc1: one), and copies into one Region, at once (EC2 user guide). */
const pendingPerVolume = 5;
const copiesAtOnce = 20;

/** A snapshot of a volume's bytes as they are now. @throws AwsError ConcurrentSnapshotLimitExceeded, IncorrectState */
export function takeSnapshot(scope: Ec2Scope, volume: Volume, description: string, tags: Tags): Snapshot {
  limitPending(scope, volume);
  return scope.world.snapshotOf(volume, description, tags);
}

/** @throws AwsError ConcurrentSnapshotLimitExceeded, IncorrectState */
export function limitPending({ world }: Ec2Scope, volume: Volume): void {
  if (volume.state !== "available") throw wrong("IncorrectState", `The volume '${volume.id}' is '${volume.state}'`);
  const pending = [...world.snapshots.values()].filter(
    (each) => each.volumeId === volume.id && world.stateOf(each) === "pending",
  );
  const limit = volume.type === "st1" || volume.type === "sc1" ? 1 : pendingPerVolume;
  if (pending.length >= limit)
    throw wrong("ConcurrentSnapshotLimitExceeded", `Maximum allowed in-progress snapshots for ${volume.id} exceeded.`);
}

/** The actions on snapshots, but for their storage tiers. */
export function snapshotActions(scope: Ec2Scope): Ec2Actions {
  const { world } = scope;

  function createSnapshot(form: Ec2Form, caller: Caller): XmlObject {
    const volume = scope.volume(form.need("VolumeId"), caller);
    return snapshotXml(takeSnapshot(scope, volume, form.text("Description") ?? "", scope.tags(form, "snapshot")));
  }

  function createSnapshots(form: Ec2Form, caller: Caller): XmlObject {
    const instance = scope.instance(form.need("InstanceSpecification.InstanceId"), caller);
    if (instance.state !== "running" && instance.state !== "stopped" && instance.state !== "stopping")
      throw wrong("IncorrectInstanceState", `The instance '${instance.id}' is ${instance.state}.`);
    const withoutRoot = form.flag("InstanceSpecification.ExcludeBootVolume");
    const excluded = form.list("InstanceSpecification.ExcludeDataVolumeId");
    const attached = scope.attached(instance.id);
    for (const id of excluded) {
      const volume = attached.find((each) => each.id === id);
      if (volume === undefined) throw wrong("InvalidParameterValue", `${id} is not attached to ${instance.id}.`);
      if (volume.attachment?.device === instance.rootDevice)
        throw wrong("InvalidParameterValue", `${id} is the root volume.`);
    }
    const volumes = attached.filter(({ id, attachment }) =>
      attachment?.device === instance.rootDevice ? !withoutRoot : !excluded.includes(id),
    );
    if (volumes.length === 0) throw wrong("InvalidParameterValue", "No volumes are left to take snapshots of.");
    // All limits are looked at before the first snapshot, so that the set is whole or absent.
    for (const volume of volumes) limitPending(scope, volume);
    const copyTags = form.text("CopyTagsFromSource") === "volume";
    const own = scope.tags(form, "snapshot");
    const snapshotSet = volumes.map((volume) => {
      const tags = { ...(copyTags ? volume.tags : {}), ...own };
      const { status, ...rest } = snapshotXml(takeSnapshot(scope, volume, form.text("Description") ?? "", tags));
      return { ...rest, state: status };
    });
    return { snapshotSet };
  }

  function describeSnapshots(form: Ec2Form, caller: Caller): XmlObject {
    const owners = form.list("Owner").map((owner) => (owner === "self" ? caller.accountId : owner));
    const restorers = form.list("RestorableBy").map((each) => (each === "self" ? caller.accountId : each));
    const readable = (each: Snapshot, who: string): boolean => each.accountId === who || each.sharedWith.has(who);
    const visible = [...world.snapshots.values()].filter(
      (each) => each.region === caller.region && (readable(each, caller.accountId) || each.sharedWith.has("all")),
    );
    const one = (id: string): Snapshot => visible.find((each) => each.id === id) ?? scope.snapshot(id, caller);
    const all = scope
      .named(form, "SnapshotId", one, () => visible)
      .filter(
        (each) =>
          (owners.length === 0 || owners.includes(each.accountId)) &&
          (restorers.length === 0 || restorers.some((who) => readable(each, who))),
      );
    const { items, nextToken } = scope.select(form, all, (each, filter) => {
      switch (filter) {
        case "status":
          return [world.stateOf(each)];
        case "volume-id":
          return [each.volumeId];
        case "snapshot-id":
          return [each.id];
        case "owner-id":
          return [each.accountId];
        case "description":
          return [each.description];
        case "encrypted":
          return [String(each.encrypted)];
        case "storage-tier":
          return [each.tier];
        case "volume-size":
          return [String(each.sizeGib)];
        default:
          return undefined;
      }
    });
    return { snapshotSet: items.map(snapshotXml), nextToken };
  }

  function snapshotXml(each: Snapshot): XmlObject {
    const status = world.stateOf(each);
    return {
      snapshotId: each.id,
      volumeId: each.volumeId,
      status,
      statusMessage: status === "error" ? (each.failure ?? "The snapshot timed out") : undefined,
      startTime: time(each.startedAt),
      completionTime: status === "completed" ? time(each.completesAt ?? each.startedAt) : undefined,
      progress: status === "completed" ? "100%" : "0%",
      ownerId: each.accountId,
      volumeSize: each.sizeGib,
      description: each.description,
      encrypted: each.encrypted,
      kmsKeyId: each.kmsKeyId,
      storageTier: each.tier,
      restoreExpiryTime: each.tiering?.restoreExpiresAt === undefined ? undefined : time(each.tiering.restoreExpiresAt),
      tagSet: tagSet(each.tags),
    };
  }

  function deleteSnapshot(form: Ec2Form, caller: Caller): XmlObject {
    const { id } = scope.snapshot(form.need("SnapshotId"), caller);
    const image = scope
      .mine(world.images, caller)
      .find(({ devices, rootDeviceName }) =>
        devices.some((each) => each.snapshotId === id && each.deviceName === rootDeviceName),
      );
    if (image !== undefined)
      throw wrong("InvalidSnapshot.InUse", `The snapshot ${id} is currently in use by ${image.id}`);
    world.snapshots.delete(id);
    return { return: true };
  }

  function copySnapshot(form: Ec2Form, caller: Caller): XmlObject {
    const sourceId = form.need("SourceSnapshotId");
    const source = world.snapshots.get(sourceId);
    const shared = source?.sharedWith.has(caller.accountId) === true || source?.sharedWith.has("all") === true;
    if (
      source === undefined ||
      (source.accountId !== caller.accountId && !shared) ||
      source.region !== form.need("SourceRegion")
    )
      throw wrong("InvalidSnapshot.NotFound", `The snapshot '${sourceId}' does not exist.`);
    // A presigned copy carries the Region it goes to; one that names another was meant for another endpoint.
    if ((form.text("DestinationRegion") ?? caller.region) !== caller.region)
      throw wrong("InvalidParameterValue", "DestinationRegion is not the Region of this endpoint.");
    if (world.stateOf(source) !== "completed") throw wrong("IncorrectState", `${source.id} is not completed.`);
    if (source.tier === "archive") throw wrong("IncorrectState", `${source.id} is archived.`);
    const duration = form.number("CompletionDurationMinutes");
    if (duration !== undefined && (duration % 15 !== 0 || duration < 15 || duration > 2880))
      throw wrong("InvalidParameterValue", "CompletionDurationMinutes goes in steps of 15 up to 2880.");
    const mine = scope.mine(world.snapshots, caller);
    if (mine.filter((each) => each.copyOf !== undefined && world.stateOf(each) === "pending").length >= copiesAtOnce)
      throw wrong("ResourceLimitExceeded", `At most ${copiesAtOnce} snapshot copies run at once.`);
    const key = form.text("KmsKeyId");
    const wanted = form.flag("Encrypted") || world.encryptedByDefault.has(`${caller.accountId}/${caller.region}`);
    if (key !== undefined && !form.flag("Encrypted"))
      throw wrong("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.");
    const encrypted = source.encrypted || wanted;
    const kmsKeyId = scope.keyFor(caller, encrypted, key);
    // Only a copy with the key of the last copy of the same lineage adds to that one; any other starts a lineage.
    const last = mine.findLast((each) => each.copyOf === source.lineage && each.kmsKeyId === kmsKeyId);
    const now = world.now();
    const id = world.newId("snap");
    const refused = [kmsKeyId, source.encrypted ? source.kmsKeyId : undefined].some((each) =>
      world.deniedKeys.has(each ?? ""),
    );
    const copy: Snapshot = {
      id,
      accountId: caller.accountId,
      region: caller.region,
      tags: scope.tags(form, "snapshot"),
      sizeGib: source.sizeGib,
      blocks: source.blocks.copy(),
      description: form.text("Description") ?? "",
      encrypted,
      volumeId: "vol-ffffffff",
      lineage: last?.lineage ?? id,
      startedAt: now,
      completesAt: now + world.delays.changeMs,
      tier: "standard",
      sharedWith: new Set(),
      generation: 0,
      copyOf: source.lineage,
      ...(source.noiseKey === undefined ? {} : { noiseKey: source.noiseKey }),
      ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
      ...(refused ? { failure: "Given key ID is not accessible" } : {}),
    };
    world.snapshots.set(id, copy);
    return { snapshotId: id, tagSet: tagSet(copy.tags) };
  }

  function share(form: Ec2Form, caller: Caller): XmlObject {
    const snapshot = scope.snapshot(form.need("SnapshotId"), caller);
    const added = form.forms("CreateVolumePermission.Add").map((each) => each.text("UserId") ?? each.need("Group"));
    const removed = form
      .forms("CreateVolumePermission.Remove")
      .map((each) => each.text("UserId") ?? each.need("Group"));
    const plain = [...form.list("UserId"), ...form.list("UserGroup")];
    if (plain.length > 0) (form.need("OperationType") === "remove" ? removed : added).push(...plain);
    if (added.length > 0 && snapshot.encrypted) {
      if (added.includes("all")) throw wrong("OperationNotPermitted", "Encrypted snapshots cannot be shared publicly.");
      if (snapshot.kmsKeyId === world.defaultKey(caller.accountId, caller.region))
        throw wrong("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared.");
    }
    for (const who of added) snapshot.sharedWith.add(who);
    for (const who of removed) snapshot.sharedWith.delete(who);
    return { return: true };
  }

  function describeSharing(form: Ec2Form, caller: Caller): XmlObject {
    const snapshot = scope.snapshot(form.need("SnapshotId"), caller);
    if (form.need("Attribute") !== "createVolumePermission")
      throw wrong("InvalidParameterValue", `Unknown attribute ${form.need("Attribute")}`);
    const createVolumePermission = [...snapshot.sharedWith].map((who): XmlObject =>
      who === "all" ? { group: who } : { userId: who },
    );
    return { snapshotId: snapshot.id, createVolumePermission };
  }

  const several = "InstanceSpecification Description TagSpecification CopyTagsFromSource";
  const copying =
    "SourceRegion SourceSnapshotId Description DestinationRegion Encrypted KmsKeyId PresignedUrl TagSpecification CompletionDurationMinutes";
  const sharing = "SnapshotId Attribute CreateVolumePermission UserGroup OperationType UserId";
  return {
    CreateSnapshot: { takes: "VolumeId Description TagSpecification", act: createSnapshot },
    CreateSnapshots: { takes: several, act: createSnapshots },
    DescribeSnapshots: { takes: `SnapshotId Owner RestorableBy ${listing}`, act: describeSnapshots },
    DeleteSnapshot: { takes: "SnapshotId", act: deleteSnapshot },
    CopySnapshot: { takes: copying, act: copySnapshot },
    ModifySnapshotAttribute: { takes: sharing, act: share },
    DescribeSnapshotAttribute: { takes: "SnapshotId Attribute", act: describeSharing },
    GetEbsEncryptionByDefault: {
      takes: "",
      act: (_, { accountId, region }) => ({
        ebsEncryptionByDefault: world.encryptedByDefault.has(`${accountId}/${region}`),
      }),
    },
    GetEbsDefaultKmsKeyId: {
      takes: "",
      act: (_, { accountId, region }) => ({ kmsKeyId: world.defaultKey(accountId, region) }),
    },
  };
}
