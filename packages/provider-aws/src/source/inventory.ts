import {
  DescribeInstanceTypesCommand,
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  type Filter,
  type Instance,
  type InstanceTypeInfo,
  type Volume,
  type _InstanceType,
} from "@aws-sdk/client-ec2";
import { type Disk, type Machine, type Wait, isProviderError } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { findVolume } from "../launch/volumes.ts";
import { beyondSnapshots } from "./beyond-snapshots.ts";
import { machineSpec, powerOf } from "./machine-spec.ts";
import { type SnapshotFacts, describeSnapshot, gibi } from "./snapshot-facts.ts";

/** Instances of a page, and things asked for by id at once (DescribeInstanceTypes takes 100). */
const pageSize = 100;
/** Machines looked at for names near one that is not there. */
const mostNearby = 1000;
/** Instances that are gone are described for an hour more. */
const alive = ["pending", "running", "stopping", "stopped"];

/** Instances, bare volumes and snapshots, as machines. */
export class Inventory {
  readonly #connection: AwsConnection;
  readonly #exclude: ReadonlySet<string>;
  readonly #types = new Map<string, InstanceTypeInfo>();

  constructor(connection: AwsConnection, exclude: readonly string[]) {
    this.#connection = connection;
    this.#exclude = new Set(exclude);
  }

  /** Every instance and then every volume that is attached to none, page by page. */
  async *machines(wait: Wait = {}): AsyncGenerator<Machine, void> {
    wait.signal?.throwIfAborted();
    for await (const page of this.#instances([{ Name: "instance-state-name", Values: alive }], wait)) {
      yield* await this.#fromInstances(page, wait);
    }
    for await (const page of this.#volumes([{ Name: "status", Values: ["available"] }], wait)) {
      for (const volume of page) yield this.#fromVolume(volume);
    }
  }

  /** An instance, volume or snapshot by id, or an instance by its tag Name. @throws ProviderError NOT_FOUND */
  async machine(id: string, wait: Wait = {}): Promise<Machine> {
    wait.signal?.throwIfAborted();
    if (/^snap-[0-9a-f]+$/.test(id)) return fromSnapshot(await describeSnapshot(this.#connection, id, wait));
    if (/^vol-[0-9a-f]+$/.test(id)) {
      const { Volumes = [] } = await this.#connection.ec2(new DescribeVolumesCommand({ VolumeIds: [id] }), {
        object: id,
        ...wait,
      });
      if (Volumes[0] === undefined) throw await this.#notFound(id, wait);
      return this.#fromVolume(Volumes[0]);
    }
    const byId = /^i-[0-9a-f]+$/.test(id);
    const found: Instance[] = [];
    const filters: Filter[] = [
      byId ? { Name: "instance-id", Values: [id] } : { Name: "tag:Name", Values: [literal(id)] },
      { Name: "instance-state-name", Values: alive },
    ];
    for await (const page of this.#instances(filters, wait)) found.push(...page);
    const [first, ...others] = found;
    if (first === undefined) throw await this.#notFound(id, wait);
    if (others.length > 0) {
      const ids = found.map((each) => each.InstanceId).join(", ");
      throw awsError("CONFIG_INVALID", `${found.length} instances are called ${id} (${ids}); name one by its id.`, {
        operation: "DescribeInstances",
      });
    }
    const [machine] = await this.#fromInstances([first], wait);
    return machine!;
  }

  /** An instance as EC2 describes it now. @throws ProviderError NOT_FOUND */
  async instance(id: string, wait: Wait = {}): Promise<Instance> {
    const { Reservations = [] } = await this.#connection.ec2(new DescribeInstancesCommand({ InstanceIds: [id] }), {
      object: id,
      ...wait,
    });
    const found = Reservations[0]?.Instances?.[0];
    if (found !== undefined) return found;
    throw await this.#notFound(id, wait);
  }

  async *#instances(Filters: Filter[], wait: Wait): AsyncGenerator<Instance[], void> {
    let NextToken: string | undefined;
    do {
      const page = await this.#connection.ec2(
        new DescribeInstancesCommand({
          Filters,
          MaxResults: pageSize,
          ...(NextToken === undefined ? {} : { NextToken }),
        }),
        { object: "instances", ...wait },
      );
      yield (page.Reservations ?? []).flatMap(({ Instances = [] }) => Instances);
      NextToken = page.NextToken === "" ? undefined : page.NextToken;
    } while (NextToken !== undefined);
  }

  async *#volumes(Filters: Filter[], wait: Wait): AsyncGenerator<Volume[], void> {
    let NextToken: string | undefined;
    do {
      const page = await this.#connection.ec2(
        new DescribeVolumesCommand({ Filters, MaxResults: 500, ...(NextToken === undefined ? {} : { NextToken }) }),
        { object: "volumes", ...wait },
      );
      yield page.Volumes ?? [];
      NextToken = page.NextToken === "" ? undefined : page.NextToken;
    } while (NextToken !== undefined);
  }

  async #fromInstances(instances: readonly Instance[], wait: Wait): Promise<Machine[]> {
    if (instances.length === 0) return [];
    const ids = instances.map(({ InstanceId = "" }) => InstanceId);
    const volumes = new Map<string, Volume>();
    for await (const page of this.#volumes([{ Name: "attachment.instance-id", Values: ids }], wait)) {
      for (const volume of page) volumes.set(volume.VolumeId ?? "", volume);
    }
    await this.#learnMissing(instances, volumes, wait);
    await this.#learnTypes(instances, wait);
    return instances.map((instance) => this.#fromInstance(instance, volumes));
  }

  /** A volume attached a moment ago may not pass the filter yet; left out, a disk of the machine would not be copied. */
  async #learnMissing(instances: readonly Instance[], volumes: Map<string, Volume>, wait: Wait): Promise<void> {
    for (const { InstanceId = "", BlockDeviceMappings = [] } of instances) {
      for (const { Ebs } of BlockDeviceMappings) {
        const id = Ebs?.VolumeId;
        if (id === undefined || volumes.has(id)) continue;
        const found = await findVolume(this.#connection, id, wait);
        if (found !== undefined) volumes.set(id, found);
        else
          this.#connection.notice(`${InstanceId} is said to have ${id}, which EC2 does not know: it was taken away.`);
      }
    }
  }

  async #learnTypes(instances: readonly Instance[], wait: Wait): Promise<void> {
    const unknown = [...new Set(instances.flatMap(({ InstanceType }) => InstanceType ?? []))].filter(
      (type) => !this.#types.has(type),
    );
    if (unknown.length === 0) return;
    const InstanceTypes: _InstanceType[] = unknown.slice(0, pageSize);
    try {
      const answer = await this.#connection.ec2(new DescribeInstanceTypesCommand({ InstanceTypes }), {
        object: InstanceTypes.join(", "),
        ...wait,
      });
      for (const info of answer.InstanceTypes ?? []) this.#types.set(info.InstanceType ?? "", info);
    } catch (error) {
      // CPUs and memory are for a launch elsewhere; a copy does not need them.
      if (!isProviderError(error) || (error.code !== "DENIED" && error.code !== "UNSUPPORTED")) throw error;
      this.#connection.notice(`CPUs and memory of instances are unknown: ${error.message}`);
    }
  }

  #fromInstance(instance: Instance, volumes: ReadonlyMap<string, Volume>): Machine {
    const { InstanceId: id = "", RootDeviceName: root, InstanceType: typeName = "" } = instance;
    const type = this.#types.get(typeName);
    const disks = (instance.BlockDeviceMappings ?? []).flatMap(({ DeviceName: device, Ebs }): Disk[] => {
      const volume = volumes.get(Ebs?.VolumeId ?? "");
      if (volume === undefined) return [];
      const disk = this.#disk(volume, device);
      if (device !== undefined && device === root) disk.boot = true;
      // Nitro shows every EBS volume as NVMe (EC2 user guide, NVMe EBS volumes).
      if (type?.Hypervisor === "nitro") disk.controller = "nvme";
      return [disk];
    });
    const spec = machineSpec(instance, type);
    const beyond = beyondSnapshots(instance, type, volumes);
    const data = { kind: "instance", typeName, ...(beyond.length === 0 ? {} : { beyond }) };
    return { id, name: spec.name ?? id, disks, power: powerOf(instance), spec, data };
  }

  #fromVolume(volume: Volume): Machine {
    const id = volume.VolumeId ?? "";
    const labels = tagsOf(volume.Tags);
    const name = labels["Name"] ?? "";
    return {
      id,
      name: name === "" ? id : name,
      disks: [this.#disk(volume, volume.Attachments?.[0]?.Device)],
      spec: { labels },
      data: { kind: "volume" },
    };
  }

  #disk(volume: Volume, device: string | undefined): Disk {
    const key = volume.VolumeId ?? "";
    const disk: Disk = { key, size: (volume.Size ?? 0) * gibi };
    if (device !== undefined) disk.name = device;
    if (this.#exclude.has(key) || (device !== undefined && this.#exclude.has(device)))
      disk.ineligible = "it is left out by the option source.exclude";
    if (volume.OutpostArn !== undefined && volume.OutpostArn !== "")
      disk.ineligible = "it lies on an Outpost, whose snapshots the EBS direct APIs do not read";
    return disk;
  }

  async #notFound(id: string, wait: Wait): Promise<Error> {
    const names: string[] = [];
    let seen = 0;
    for await (const page of this.#instances([{ Name: "instance-state-name", Values: alive }], wait)) {
      for (const instance of page) {
        const known = [instance.InstanceId ?? "", tagsOf(instance.Tags)["Name"] ?? ""];
        if (known.some((name) => isNear(name, id))) names.push(known.filter((name) => name !== "").join(" "));
      }
      seen += page.length;
      if (seen >= mostNearby || names.length >= 5) break;
    }
    const near = names.length === 0 ? "" : ` Near it: ${names.slice(0, 5).join(", ")}.`;
    return awsError(
      "NOT_FOUND",
      `There is no ${id} in ${this.#connection.region} of account ${this.#connection.accountId}. Check the id, the account ` +
        `and the Region.${near}`,
      { operation: "DescribeInstances" },
    );
  }
}

/** An existing snapshot as a machine of one disk. */
function fromSnapshot(facts: SnapshotFacts): Machine {
  const name = facts.tags["Name"] ?? "";
  return {
    id: facts.id,
    name: name === "" ? facts.id : name,
    disks: [{ key: facts.id, size: facts.size, ...(facts.description === "" ? {} : { name: facts.description }) }],
    spec: { labels: facts.tags },
    data: { kind: "snapshot" },
  };
}

/** A filter's value that means itself: `*`, `?` and `\` have a meaning of their own (EC2, filtering). */
export function literal(text: string): string {
  return text.replace(/[\\*?]/g, "\\$&");
}

/** Whether a name is one that somebody may have meant: it begins alike, or the one holds the other. */
function isNear(name: string, wanted: string): boolean {
  const [a, b] = [name.toLowerCase(), wanted.toLowerCase()];
  if (a === "" || b === "") return false;
  const most = Math.min(a.length, b.length, 32);
  let alike = 0;
  while (alike < most && a[alike] === b[alike]) alike++;
  return a.includes(b) || b.includes(a) || (alike >= 3 && alike * 4 >= Math.max(a.length, b.length) * 3);
}
