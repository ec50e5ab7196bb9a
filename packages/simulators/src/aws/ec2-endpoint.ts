import { AwsError } from "./aws-error.ts";
import type { Answer } from "./ebs-endpoint.ts";
import { Ec2Form, xml, type XmlValue } from "./ec2-wire.ts";
import type { Caller } from "./signature.ts";
import type { Resource, Snapshot, Tags, Volume, World } from "./world.ts";

interface Instance extends Resource {
  state: "running" | "stopped";
  type: string;
  zone: string;
  rootDevice: string;
  bootMode: "legacy-bios" | "uefi";
  platform?: "windows";
  launchedAt: number;
}

type Action = (form: Ec2Form, caller: Caller) => { [name: string]: XmlValue };

/** Pending snapshots of one volume (st1 and sc1: one), and copies into one Region, at once (EC2 user guide). */
const pendingPerVolume = 5;
const copiesAtOnce = 20;

const namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";

/** Reads the body of a query request. */
export function ec2Form(body: string): Ec2Form {
  return new Ec2Form(new Map(new URLSearchParams(body)));
}

/** An error as the EC2 query protocol writes it. */
export function ec2ErrorAnswer(error: AwsError): Answer {
  const Error = { Code: error.code, Message: error.message };
  return page(error.status, xml("Response", { Errors: { Error }, RequestID: "simulated" }));
}

function page(status: number, body: string): Answer {
  const head = '<?xml version="1.0" encoding="UTF-8"?>\n';
  return { status, headers: { "content-type": "text/xml;charset=UTF-8" }, body: head + body };
}

const wrong = (code: string, message: string): AwsError => new AwsError(400, code, message);
const tagSet = (tags: Tags): XmlValue => Object.entries(tags).map(([key, value]) => ({ key, value }));
const time = (at: number): string => new Date(at).toISOString();

/** The EC2 actions over the volumes and snapshots of a world. */
export class Ec2Endpoint {
  readonly #world: World;
  readonly #instances = new Map<string, Instance>();
  readonly #actions: Readonly<Record<string, Action>>;

  constructor(world: World) {
    this.#world = world;
    this.#actions = {
      DescribeInstances: (form, caller) => this.#describeInstances(form, caller),
      DescribeVolumes: (form, caller) => this.#describeVolumes(form, caller),
      DescribeSnapshots: (form, caller) => this.#describeSnapshots(form, caller),
      CreateSnapshot: (form, caller) => this.#createSnapshot(form, caller),
      CreateSnapshots: (form, caller) => this.#createSnapshots(form, caller),
      DeleteSnapshot: (form, caller) => this.#deleteSnapshot(form, caller),
      CopySnapshot: (form, caller) => this.#copySnapshot(form, caller),
      ModifySnapshotAttribute: (form, caller) => this.#share(form, caller),
      CreateVolume: (form, caller) => this.#createVolume(form, caller),
      AttachVolume: (form, caller) => this.#attachVolume(form, caller),
      DetachVolume: (form, caller) => this.#detachVolume(form, caller),
      DeleteVolume: (form, caller) => this.#deleteVolume(form, caller),
      CreateTags: (form, caller) => this.#createTags(form, caller),
      StartInstances: (form, caller) => this.#setState(form, caller, "running"),
      StopInstances: (form, caller) => this.#setState(form, caller, "stopped"),
      GetEbsEncryptionByDefault: (_, { accountId, region }) => ({
        ebsEncryptionByDefault: world.encryptedByDefault.has(`${accountId}/${region}`),
      }),
    };
  }

  /** Answers one action. @throws AwsError */
  async answer(form: Ec2Form, caller: Caller): Promise<Answer> {
    const name = form.need("Action");
    const action = Object.hasOwn(this.#actions, name) ? this.#actions[name] : undefined;
    if (action === undefined) throw wrong("InvalidAction", `The action ${name} is not valid for this web service.`);
    this.#world.authorize(caller.accountId, `ec2:${name}`, `arn:aws:ec2:${caller.region}:${caller.accountId}:*`);
    if (form.flag("DryRun"))
      throw new AwsError(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.");
    const body = xml(`${name}Response`, { requestId: "simulated", ...action(form, caller) });
    return page(200, body.replace(">", ` xmlns="${namespace}">`));
  }

  /** Two running instances: Linux with three volumes, and a UEFI machine like Windows with two. */
  makeReadyInstances(accountId: string, region: string): { linux: string; windows: string } {
    const make = (name: string, rootDevice: string, devices: string[], windows: boolean): string => {
      const now = this.#world.now();
      const zone = `${region}a`;
      const base = { accountId, region, zone };
      const instance: Instance = {
        ...base,
        id: this.#world.newId("i"),
        tags: { Name: name },
        state: "running",
        type: "m5.large",
        rootDevice,
        bootMode: windows ? "uefi" : "legacy-bios",
        launchedAt: now,
        ...(windows ? { platform: "windows" } : {}),
      };
      this.#instances.set(instance.id, instance);
      for (const device of devices) {
        const id = this.#world.newId("vol");
        const attachment = {
          instanceId: instance.id,
          device,
          deleteOnTermination: device === rootDevice,
          attachedAt: now,
        };
        const volume = { ...base, id, tags: { Name: `${name} ${device}` }, sizeGib: 1, type: "gp3", encrypted: false };
        this.#world.volumes.set(id, { ...volume, blocks: new Map(), attachment, createdAt: now });
      }
      return instance.id;
    };
    return {
      linux: make("linux", "/dev/xvda", ["/dev/xvda", "/dev/sdf", "/dev/sdg"], false),
      windows: make("windows", "/dev/sda1", ["/dev/sda1", "xvdf"], true),
    };
  }

  /** Ids of an instance's volumes, the root first. */
  volumesOf(instanceId: string): string[] {
    return this.#attached(instanceId).map(({ id }) => id);
  }

  /** Whether a guest that runs has the volume. */
  isGuestWritable(volume: Volume): boolean {
    this.#settle(volume);
    return this.#instances.get(volume.attachment?.instanceId ?? "")?.state === "running";
  }

  #attached(instanceId: string): Volume[] {
    const root = this.#instances.get(instanceId)?.rootDevice;
    const volumes = [...this.#world.volumes.values()];
    for (const volume of volumes) this.#settle(volume);
    const mine = volumes.filter(({ attachment }) => attachment?.instanceId === instanceId);
    return mine.sort((a, b) => Number(b.attachment?.device === root) - Number(a.attachment?.device === root));
  }

  #settle(volume: Volume): void {
    if (volume.detachesAt === undefined || this.#world.now() < volume.detachesAt) return;
    delete volume.attachment;
    delete volume.detachesAt;
  }

  #own<T extends Resource>(all: ReadonlyMap<string, T>, id: string, caller: Caller, kind: string): T {
    const each = all.get(id);
    if (each !== undefined && each.accountId === caller.accountId && each.region === caller.region) return each;
    throw wrong(`Invalid${kind}.NotFound`, `The ${kind} '${id}' does not exist.`);
  }

  #snapshot = (id: string, caller: Caller): Snapshot => this.#own(this.#world.snapshots, id, caller, "Snapshot");

  #volume(id: string, caller: Caller): Volume {
    const volume = this.#own(this.#world.volumes, id, caller, "Volume");
    this.#settle(volume);
    return volume;
  }

  #instance(id: string, caller: Caller): Instance {
    const each = this.#instances.get(id);
    if (each?.accountId === caller.accountId && each.region === caller.region) return each;
    throw wrong("InvalidInstanceID.NotFound", `The instance ID '${id}' does not exist`);
  }

  #tags(form: Ec2Form, type: string): Tags {
    const tags: Tags = {};
    for (const specification of form.forms("TagSpecification")) {
      if (specification.text("ResourceType") === type) Object.assign(tags, tagsIn(specification));
    }
    return tags;
  }

  /** Applies the filters that every resource has, those given by name, and paging. */
  #select<T extends Resource>(
    form: Ec2Form,
    all: T[],
    field: (each: T, filter: string) => string[] | undefined,
  ): { items: T[]; nextToken?: string } {
    let items = all;
    for (const filter of form.forms("Filter")) {
      const name = filter.need("Name");
      const wanted = filter.list("Value");
      const values = (each: T): string[] => {
        if (name.startsWith("tag:")) return [each.tags[name.slice(4)] ?? []].flat();
        if (name === "tag-key") return Object.keys(each.tags);
        const known = field(each, name);
        if (known === undefined) throw wrong("InvalidParameterValue", `The filter '${name}' is invalid`);
        return known;
      };
      items = items.filter((each) => values(each).some((value) => wanted.some((pattern) => matches(pattern, value))));
    }
    const from =
      form.text("NextToken") === undefined ? 0 : Number(Buffer.from(form.need("NextToken"), "base64").toString());
    if (!Number.isInteger(from)) throw wrong("InvalidNextToken", "The token is not valid.");
    const end = from + Math.min(1000, form.number("MaxResults") ?? 1000);
    return {
      items: items.slice(from, end),
      ...(end < items.length ? { nextToken: Buffer.from(String(end)).toString("base64") } : {}),
    };
  }

  #mine<T extends Resource>(all: ReadonlyMap<string, T>, { accountId, region }: Caller): T[] {
    return [...all.values()].filter((each) => each.accountId === accountId && each.region === region);
  }

  #describeInstances(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const ids = form.list("InstanceId");
    const all = ids.length > 0 ? ids.map((id) => this.#instance(id, caller)) : this.#mine(this.#instances, caller);
    const { items, nextToken } = this.#select(form, all, (each, filter) =>
      filter === "instance-state-name" ? [each.state] : filter === "instance-id" ? [each.id] : undefined,
    );
    const reservationSet = items.map((each) => ({
      reservationId: each.id.replace("i-", "r-"),
      ownerId: each.accountId,
      instancesSet: [this.#instanceXml(each)],
    }));
    return { reservationSet, nextToken };
  }

  #instanceXml(each: Instance): XmlValue {
    const blockDeviceMapping = this.#attached(each.id).map(({ id, attachment, detachesAt }) => ({
      deviceName: attachment?.device,
      ebs: {
        volumeId: id,
        status: detachesAt === undefined ? "attached" : "detaching",
        attachTime: time(attachment?.attachedAt ?? 0),
        deleteOnTermination: attachment?.deleteOnTermination,
      },
    }));
    return {
      instanceId: each.id,
      instanceState: each.state === "running" ? { code: 16, name: "running" } : { code: 80, name: "stopped" },
      instanceType: each.type,
      launchTime: time(each.launchedAt),
      placement: { availabilityZone: each.zone },
      platform: each.platform,
      architecture: "x86_64",
      rootDeviceType: "ebs",
      rootDeviceName: each.rootDevice,
      blockDeviceMapping,
      virtualizationType: "hvm",
      tagSet: tagSet(each.tags),
      enaSupport: true,
      bootMode: each.bootMode,
    };
  }

  #describeVolumes(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const ids = form.list("VolumeId");
    const all = ids.length > 0 ? ids.map((id) => this.#volume(id, caller)) : this.#mine(this.#world.volumes, caller);
    for (const each of all) this.#settle(each);
    const { items, nextToken } = this.#select(form, all, (each, filter) => {
      if (filter === "attachment.instance-id") return [each.attachment?.instanceId ?? []].flat();
      if (filter === "status") return [volumeState(each)];
      return filter === "volume-id" ? [each.id] : undefined;
    });
    return { volumeSet: items.map(volumeXml), nextToken };
  }

  #describeSnapshots(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const ids = form.list("SnapshotId");
    const owners = form.list("Owner").map((owner) => (owner === "self" ? caller.accountId : owner));
    const visible = [...this.#world.snapshots.values()].filter(
      (each) =>
        each.region === caller.region &&
        (each.accountId === caller.accountId || each.sharedWith.has(caller.accountId) || each.sharedWith.has("all")),
    );
    for (const id of ids) {
      if (visible.every((each) => each.id !== id))
        throw wrong("InvalidSnapshot.NotFound", `The snapshot '${id}' does not exist.`);
    }
    const all = visible.filter(
      (each) => (ids.length === 0 || ids.includes(each.id)) && (owners.length === 0 || owners.includes(each.accountId)),
    );
    const { items, nextToken } = this.#select(form, all, (each, filter) => {
      if (filter === "status") return [this.#world.stateOf(each)];
      if (filter === "volume-id") return [each.volumeId];
      if (filter === "storage-tier") return [each.archived ? "archive" : "standard"];
      return filter === "snapshot-id" ? [each.id] : undefined;
    });
    return { snapshotSet: items.map((each) => this.#snapshotXml(each)), nextToken };
  }

  #snapshotXml(each: Snapshot): { [name: string]: XmlValue } {
    const status = this.#world.stateOf(each);
    return {
      snapshotId: each.id,
      volumeId: each.volumeId,
      status,
      statusMessage: status === "error" ? (each.failure ?? "The snapshot timed out") : undefined,
      startTime: time(each.startedAt),
      progress: status === "completed" ? "100%" : "0%",
      ownerId: each.accountId,
      volumeSize: each.sizeGib,
      description: each.description,
      encrypted: each.encrypted,
      kmsKeyId: each.kmsKeyId,
      storageTier: each.archived ? "archive" : "standard",
      tagSet: tagSet(each.tags),
    };
  }

  #limitPending(volume: Volume): void {
    const pending = [...this.#world.snapshots.values()].filter(
      (each) => each.volumeId === volume.id && this.#world.stateOf(each) === "pending",
    );
    const limit = volume.type === "st1" || volume.type === "sc1" ? 1 : pendingPerVolume;
    if (pending.length >= limit)
      throw wrong(
        "ConcurrentSnapshotLimitExceeded",
        `Maximum allowed in-progress snapshots for ${volume.id} exceeded.`,
      );
  }

  #createSnapshot(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const volume = this.#volume(form.need("VolumeId"), caller);
    this.#limitPending(volume);
    const tags = this.#tags(form, "snapshot");
    return this.#snapshotXml(this.#world.snapshotOf(volume, form.text("Description") ?? "", tags));
  }

  #createSnapshots(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const instance = this.#instance(form.need("InstanceSpecification.InstanceId"), caller);
    const inner = form.text("InstanceSpecification.ExcludeBootVolume") === "true";
    const excluded = form.list("InstanceSpecification.ExcludeDataVolumeId");
    const volumes = this.#attached(instance.id).filter(({ id, attachment }) => {
      const root = attachment?.device === instance.rootDevice;
      if (root && excluded.includes(id)) throw wrong("InvalidParameterValue", `${id} is the root volume.`);
      return root ? !inner : !excluded.includes(id);
    });
    // All limits are looked at before the first snapshot, so that the set is whole or absent.
    for (const volume of volumes) this.#limitPending(volume);
    const copyTags = form.text("CopyTagsFromSource") === "volume";
    const snapshotSet = volumes.map((volume) => {
      const tags = { ...(copyTags ? volume.tags : {}), ...this.#tags(form, "snapshot") };
      const snapshot = this.#snapshotXml(this.#world.snapshotOf(volume, form.text("Description") ?? "", tags));
      const { status, ...rest } = snapshot;
      return { ...rest, state: status };
    });
    return { snapshotSet };
  }

  #deleteSnapshot(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const { id } = this.#snapshot(form.need("SnapshotId"), caller);
    this.#world.snapshots.delete(id);
    return { return: true };
  }

  #copySnapshot(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const world = this.#world;
    const source = world.snapshots.get(form.need("SourceSnapshotId"));
    const visible = source?.accountId === caller.accountId || source?.sharedWith.has(caller.accountId) === true;
    if (source === undefined || !visible || source.region !== form.need("SourceRegion"))
      throw wrong("InvalidSnapshot.NotFound", `The snapshot '${form.need("SourceSnapshotId")}' does not exist.`);
    if (world.stateOf(source) !== "completed") throw wrong("InvalidSnapshot.InUse", `${source.id} is not completed.`);
    const mine = this.#mine(world.snapshots, caller);
    if (mine.filter((each) => each.copyOf !== undefined && world.stateOf(each) === "pending").length >= copiesAtOnce)
      throw wrong("ResourceLimitExceeded", `At most ${copiesAtOnce} snapshot copies run at once.`);
    const key = form.text("KmsKeyId");
    const wanted = form.flag("Encrypted") || world.encryptedByDefault.has(`${caller.accountId}/${caller.region}`);
    const encrypted = source.encrypted || wanted;
    const kmsKeyId = encrypted ? (key ?? world.defaultKey(caller.accountId, caller.region)) : undefined;
    // Only a copy with the key of the last copy of the same lineage adds to that one; any other starts a lineage.
    const last = mine.findLast((each) => each.copyOf === source.lineage && each.kmsKeyId === kmsKeyId);
    const now = world.now();
    const id = world.newId("snap");
    const refused = [kmsKeyId, source.encrypted ? source.kmsKeyId : undefined].some((each) =>
      world.deniedKeys.has(each ?? ""),
    );
    const { kmsKeyId: _, upload: __, parentId: ___, failure: ____, ...copied } = source;
    const copy: Snapshot = {
      ...copied,
      id,
      accountId: caller.accountId,
      region: caller.region,
      tags: this.#tags(form, "snapshot"),
      blocks: new Map(source.blocks),
      description: form.text("Description") ?? "",
      encrypted,
      volumeId: "vol-ffffffff",
      lineage: last?.lineage ?? id,
      startedAt: now,
      completesAt: now + world.delays.changeMs,
      archived: false,
      sharedWith: new Set(),
      generation: 0,
      copyOf: source.lineage,
      ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
      ...(refused ? { failure: "Given key ID is not accessible" } : {}),
    };
    world.snapshots.set(id, copy);
    return { snapshotId: id, tagSet: tagSet(copy.tags) };
  }

  #share(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const snapshot = this.#snapshot(form.need("SnapshotId"), caller);
    const change = (road: "Add" | "Remove", act: (who: string) => void): void => {
      for (const each of form.forms(`CreateVolumePermission.${road}`)) act(each.text("UserId") ?? each.need("Group"));
    };
    change("Add", (who) => snapshot.sharedWith.add(who));
    change("Remove", (who) => snapshot.sharedWith.delete(who));
    return { return: true };
  }

  #createVolume(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const world = this.#world;
    const { accountId, region } = caller;
    const snapshotId = form.text("SnapshotId");
    const snapshot = snapshotId === undefined ? undefined : this.#snapshot(snapshotId, caller);
    if (snapshot !== undefined && (world.stateOf(snapshot) !== "completed" || snapshot.archived))
      throw wrong("IncorrectState", `Snapshot is in invalid state - ${world.stateOf(snapshot)}`);
    const sizeGib = form.number("Size") ?? snapshot?.sizeGib;
    if (sizeGib === undefined)
      throw wrong("MissingParameter", "The request must contain the parameter size or snapshotId");
    const type = form.text("VolumeType") ?? "gp2";
    if (sizeGib < Math.max(1, snapshot?.sizeGib ?? 1) || sizeGib > 65536 || (/^(st1|sc1)$/.test(type) && sizeGib < 125))
      throw wrong("InvalidParameterValue", `Volume of ${sizeGib}GiB is too small or too large`);
    const encrypted =
      snapshot?.encrypted === true || form.flag("Encrypted") || world.encryptedByDefault.has(`${accountId}/${region}`);
    const [iops, throughput] = [form.number("Iops"), form.number("Throughput")];
    const volume: Volume = {
      id: world.newId("vol"),
      accountId,
      region,
      tags: this.#tags(form, "volume"),
      sizeGib,
      zone: form.need("AvailabilityZone"),
      type,
      encrypted,
      blocks: new Map(snapshot?.blocks),
      createdAt: world.now(),
      ...(iops === undefined ? {} : { iops }),
      ...(throughput === undefined ? {} : { throughput }),
      ...(encrypted
        ? { kmsKeyId: form.text("KmsKeyId") ?? snapshot?.kmsKeyId ?? world.defaultKey(accountId, region) }
        : {}),
      ...(snapshot === undefined ? {} : { snapshotId: snapshot.id }),
      ...(snapshot?.noiseKey === undefined ? {} : { noiseKey: snapshot.noiseKey }),
    };
    if (!volume.zone.startsWith(region))
      throw wrong("InvalidZone.NotFound", `The zone '${volume.zone}' does not exist.`);
    world.volumes.set(volume.id, volume);
    return volumeXml(volume);
  }

  #attachVolume(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const volume = this.#volume(form.need("VolumeId"), caller);
    const instance = this.#instance(form.need("InstanceId"), caller);
    const device = form.need("Device");
    if (volume.attachment !== undefined) throw wrong("VolumeInUse", `${volume.id} is already attached to an instance`);
    if (volume.zone !== instance.zone) throw wrong("InvalidVolume.ZoneMismatch", `${volume.id} is in another zone.`);
    if (this.#attached(instance.id).some(({ attachment }) => attachment?.device === device))
      throw wrong("InvalidParameterValue", `${device} is already in use`);
    volume.attachment = { instanceId: instance.id, device, deleteOnTermination: false, attachedAt: this.#world.now() };
    return { volumeId: volume.id, instanceId: instance.id, device, status: "attaching" };
  }

  #detachVolume(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const volume = this.#volume(form.need("VolumeId"), caller);
    const { attachment } = volume;
    if (attachment === undefined) throw wrong("IncorrectState", `Volume '${volume.id}' is in the 'available' state.`);
    const instance = this.#instances.get(attachment.instanceId);
    if (instance?.state === "running" && instance.rootDevice === attachment.device)
      throw wrong("OperationNotPermitted", "Unable to detach the root volume of a running instance");
    volume.detachesAt ??= this.#world.now() + this.#world.delays.changeMs;
    return { volumeId: volume.id, instanceId: attachment.instanceId, device: attachment.device, status: "detaching" };
  }

  #deleteVolume(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    const volume = this.#volume(form.need("VolumeId"), caller);
    if (volume.attachment !== undefined) throw wrong("VolumeInUse", `${volume.id} is attached`);
    this.#world.volumes.delete(volume.id);
    return { return: true };
  }

  #createTags(form: Ec2Form, caller: Caller): { [name: string]: XmlValue } {
    for (const id of form.list("ResourceId")) {
      const target = id.startsWith("snap-")
        ? this.#snapshot(id, caller)
        : id.startsWith("vol-")
          ? this.#volume(id, caller)
          : this.#instance(id, caller);
      Object.assign(target.tags, tagsIn(form));
    }
    return { return: true };
  }

  #setState(form: Ec2Form, caller: Caller, state: Instance["state"]): { [name: string]: XmlValue } {
    const word = (each: Instance["state"]): XmlValue => ({ code: each === "running" ? 16 : 80, name: each });
    const instances = form.list("InstanceId").map((id) => this.#instance(id, caller));
    const instancesSet = instances.map((each) => {
      const previous = each.state;
      each.state = state;
      return { instanceId: each.id, currentState: word(state), previousState: word(previous) };
    });
    return { instancesSet };
  }
}

function tagsIn(form: Ec2Form): Tags {
  return Object.fromEntries(form.forms("Tag").map((each) => [each.need("Key"), each.text("Value") ?? ""]));
}

function matches(pattern: string, value: string): boolean {
  const quoted = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${quoted}$`, "s").test(value);
}

const volumeState = (each: Volume): string => (each.attachment === undefined ? "available" : "in-use");

function volumeXml(each: Volume): { [name: string]: XmlValue } {
  const { attachment } = each;
  return {
    volumeId: each.id,
    size: each.sizeGib,
    snapshotId: each.snapshotId ?? "",
    availabilityZone: each.zone,
    status: volumeState(each),
    createTime: time(each.createdAt),
    attachmentSet:
      attachment === undefined
        ? []
        : [
            {
              volumeId: each.id,
              instanceId: attachment.instanceId,
              device: attachment.device,
              status: each.detachesAt === undefined ? "attached" : "detaching",
              deleteOnTermination: attachment.deleteOnTermination,
            },
          ],
    volumeType: each.type,
    iops: each.iops,
    throughput: each.throughput,
    encrypted: each.encrypted,
    kmsKeyId: each.kmsKeyId,
    tagSet: tagSet(each.tags),
  };
}
