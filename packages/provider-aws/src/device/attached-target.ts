import { CreateSnapshotCommand } from "@aws-sdk/client-ec2";
import {
  type BlockReader,
  type BlockWriter,
  type CreateRequest,
  isProviderError,
  type LaunchDisk,
  type LaunchedMachine,
  type LaunchRequest,
  type MachineSpec,
  type OpenRequest,
  type OwnedResource,
  type Preflight,
  type TargetPreflightRequest,
  type TargetProvider,
  type Volume,
  type Wait,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagsOf, tagValue, toTags } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { awaitState } from "../launch/await-state.ts";
import { dataDeviceNames } from "../launch/device-names.ts";
import { findInstance } from "../launch/launched-resources.ts";
import { attachVolume, findVolume, makeVolume, removeVolume, takenUp, volumesWith } from "../launch/volumes.ts";
import { EbsTarget } from "../target/ebs-target.ts";
import { deleteSnapshot, findSnapshot, type OwnSnapshot, snapshotsWith, wholeGib } from "../target/own-snapshots.ts";
import { removeUnneeded, unneededAfter } from "../target/retention.ts";
import { isOurs, tagsOfNew, type TargetTagNames, targetTagNames } from "../target/target-tags.ts";
import { actionsOf } from "../plan/policy.ts";
import { type DeviceRoots, findAttachedDevice } from "./attached-device.ts";
import { openAttachedVolume } from "./device-writer.ts";

const GIB = 2 ** 30;
/** The role of a volume that runs write through its block device. */
const ROLE = "attached";
/** Names that are tried for a new volume; an instance takes fewer volumes than that. */
const MOST_DEVICES = 60;

/**
 * Volumes that are attached to the instance this runs on, written in place through their block devices. A commit is a snapshot
 * of the volume; reading, launching and removing commits is as with {@link EbsTarget}.
 */
export class AttachedTarget implements TargetProvider {
  readonly #connection: AwsConnection;
  readonly #commits: EbsTarget;
  readonly #names: TargetTagNames;
  readonly #roots: DeviceRoots | undefined;
  readonly #instance: string;

  constructor(connection: AwsConnection, instance: string, roots?: DeviceRoots) {
    this.#connection = connection;
    this.#commits = new EbsTarget(connection);
    this.#names = targetTagNames(connection.settings.product);
    this.#instance = instance;
    this.#roots = roots;
  }

  async create({ key, size, name, job, signal }: CreateRequest): Promise<Volume> {
    signal?.throwIfAborted();
    const connection = this.#connection;
    const own = { [this.#names.key]: tagValue(key), [this.#names.role]: ROLE };
    const known = await takenUp(connection, await volumesWith(connection, own, { signal }), { signal });
    const instance = await findInstance(connection, this.#instance, { signal });
    const zone = instance?.Placement?.AvailabilityZone;
    if (instance === undefined || zone === undefined)
      throw awsError(
        "NOT_FOUND",
        `Instance ${this.#instance} is not in ${connection.region}: name the one this runs on.`,
        {
          operation: "create",
        },
      );
    const volume =
      known ??
      (await makeVolume(
        connection,
        {
          zone,
          sizeGib: wholeGib(size) / GIB,
          kmsKey: connection.options.target?.kmsKey,
          about: [key, this.#instance],
          tags: tagsOfNew(connection.settings, "Replica", {
            ...own,
            [this.#names.job]: job,
            [this.#names.disk]: name,
            Name: name,
          }),
          ...connection.options.target?.attached?.volume,
        },
        { signal },
      ));
    const id = volume.VolumeId ?? "";
    if ((volume.Size ?? 0) * GIB < size)
      throw awsError(
        "UNSUPPORTED",
        `Volume ${id} has ${volume.Size} GiB, fewer than the ${size} bytes of the disk: begin a new job.`,
        {
          operation: "create",
        },
      );
    const device = volume.Attachments?.[0]?.Device ?? this.#freeDevice(instance.BlockDeviceMappings ?? []);
    await attachVolume(connection, id, { instanceId: this.#instance, device, signal });
    return this.#handle(id, (volume.Size ?? 0) * GIB, tagValue(key), device);
  }

  #freeDevice(mappings: readonly { DeviceName?: string | undefined }[]): string {
    // The same device goes by several names: what the letters say is compared.
    const letters = (name: string): string => name.replace(/^\/dev\//, "").replace(/^(sd|xvd)/, "");
    const used = new Set(mappings.map(({ DeviceName = "" }) => letters(DeviceName)));
    const free = dataDeviceNames(MOST_DEVICES).find((name) => !used.has(letters(name)));
    if (free !== undefined) return free;
    throw awsError("UNSUPPORTED", `Instance ${this.#instance} has no device name left.`, { operation: "create" });
  }

  async open(volume: Volume, { run, base, job, signal }: OpenRequest): Promise<BlockWriter> {
    signal?.throwIfAborted();
    const connection = this.#connection;
    const [key, asked] = [volume.data?.["key"], volume.data?.["device"]];
    if (volume.data?.["kind"] !== ROLE || typeof key !== "string" || typeof asked !== "string")
      throw awsError("UNSUPPORTED", `${volume.id} is no attached volume: open what create gave.`, {
        operation: "open",
      });
    const found = await findVolume(connection, volume.id, { signal });
    if (found === undefined)
      throw awsError("NOT_FOUND", `Volume ${volume.id} is gone: create it anew.`, { operation: "open" });
    if (base !== undefined) await this.#checkBase(base, volume, signal);
    // Another volume may have come into its place since; on Xen nothing but the name tells them apart.
    const [at] = found.Attachments ?? [];
    const device = (at?.InstanceId === this.#instance ? at.Device : undefined) ?? asked;
    await attachVolume(connection, volume.id, { instanceId: this.#instance, device, signal });
    const about = { volumeId: volume.id, device, size: volume.size };
    const { visibleMs } = connection.settings.timeouts;
    // The kernel shows a volume a moment after EC2 calls it attached.
    const wait = { what: `The block device of ${volume.id}`, ms: visibleMs, operation: "open", signal };
    await awaitState(connection, wait, () =>
      findAttachedDevice(about, this.#roots).catch((error: unknown) => {
        if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
        throw error;
      }),
    );
    const writer = await openAttachedVolume({ ...about, run, signal }, this.#roots);
    const { commit } = writer;
    return Object.assign(writer, {
      commit: async (request: Parameters<BlockWriter["commit"]>[0]): Promise<Volume> => {
        await commit(request);
        return this.#commit(volume, { key, run, base: base?.id, job, signal: request.signal });
      },
    });
  }

  /** What a run starts from has to be what this volume holds. @throws ProviderError NOT_FOUND: it is copied in full then */
  async #checkBase(base: Volume, volume: Volume, signal: AbortSignal | undefined): Promise<void> {
    const found = await findSnapshot(this.#connection, base.id, { signal });
    if (found?.tags[this.#names.volume] === volume.id) return;
    throw awsError(
      "NOT_FOUND",
      `The last commit ${base.id} is gone or of another volume than ${volume.id}, which holds something else.`,
      { operation: "open" },
    );
  }

  /** A snapshot of what the device holds now; the same run finds the one it made. */
  async #commit(
    volume: Volume,
    {
      key,
      run,
      base,
      job,
      signal,
    }: Wait & { key: string; run: string; base: string | undefined; job: string | undefined },
  ): Promise<Volume> {
    const connection = this.#connection;
    const { settings } = connection;
    const own = { [this.#names.key]: key, [this.#names.volume]: volume.id, [this.#names.run]: tagValue(run) };
    const known = (await snapshotsWith(connection, own, { signal })).filter(({ state }) => state !== "error");
    const tags = tagsOfNew(settings, "Replica", {
      ...own,
      [this.#names.role]: "upload",
      [this.#names.job]: job,
      [this.#names.base]: base,
    });
    const command = new CreateSnapshotCommand({
      VolumeId: volume.id,
      Description: `${settings.product}: written by run ${run}`.slice(0, 255),
      TagSpecifications: [{ ResourceType: "snapshot", Tags: toTags(tags) }],
    });
    // Asked once: it has no idempotence of its own, and a second one would hold the same bytes for the same money.
    const id =
      known[0]?.id ?? (await connection.ec2(command, { object: volume.id, once: true, signal })).SnapshotId ?? "";
    const done = await this.#completed(id, signal);
    const commit = { key, own: id, base, startedAt: done.startedAt };
    await removeUnneeded(connection, await unneededAfter(connection, commit, { signal }), { signal });
    return { id, size: done.size, data: { kind: "commit", key, region: connection.region } };
  }

  async #completed(id: string, signal: AbortSignal | undefined): Promise<OwnSnapshot> {
    const connection = this.#connection;
    const wait = {
      what: `Snapshot ${id}`,
      ms: connection.settings.timeouts.snapshotMs,
      operation: "CreateSnapshot",
      signal,
    };
    return awaitState(connection, wait, async () => {
      const found = await findSnapshot(connection, id, { signal });
      if (found?.state !== "error") return found?.state === "completed" ? found : undefined;
      await deleteSnapshot(connection, id, { signal });
      throw awsError(
        "UNAVAILABLE",
        `Snapshot ${id} went into error: ${found.message ?? "AWS does not say why"}. It was removed; run again.`,
        {
          operation: "CreateSnapshot",
        },
      );
    });
  }

  read(volume: Volume, wait?: Wait): Promise<BlockReader> {
    return this.#commits.read(volume, wait);
  }

  async remove(volume: Volume, wait: Wait = {}): Promise<void> {
    wait.signal?.throwIfAborted();
    if (volume.data?.["kind"] !== ROLE) return this.#commits.remove(volume, wait);
    const { product } = this.#connection.settings;
    const found = await findVolume(this.#connection, volume.id, wait);
    if (found === undefined) return;
    if (!isOurs(product, found.Tags) || tagsOf(found.Tags)[this.#names.role] !== ROLE)
      throw awsError("DENIED", `Volume ${volume.id} was not made by ${product}: remove it by hand.`, {
        operation: "remove",
      });
    const [at] = found.Attachments ?? [];
    if (at !== undefined && at.State !== "detached" && at.InstanceId !== this.#instance)
      throw awsError("IN_USE", `Volume ${volume.id} is attached to ${at.InstanceId} by now: detach it first.`, {
        operation: "remove",
      });
    await removeVolume(this.#connection, volume.id, wait);
  }

  async *owned(job: string, wait: Wait = {}): AsyncIterable<OwnedResource & { volume?: Volume }> {
    yield* this.#commits.owned(job, wait);
    const own = { [this.#names.job]: tagValue(job), [this.#names.role]: ROLE };
    for (const { VolumeId = "", Size = 0, Tags, Attachments } of await volumesWith(this.#connection, own, wait)) {
      const key = tagsOf(Tags)[this.#names.key] ?? "";
      const device = Attachments?.[0]?.Device ?? "";
      const description = `volume attached to ${Attachments?.[0]?.InstanceId ?? "nothing"} as ${device}`;
      yield { kind: "volume", id: VolumeId, description, volume: this.#handle(VolumeId, Size * GIB, key, device) };
    }
  }

  /** As for snapshots, but that bytes go to the device: what is asked of AWS is one snapshot of each volume. */
  async preflight(request: TargetPreflightRequest): Promise<Preflight> {
    const { minutes: _, calls: __, costs = [], privileges, ...rest } = await this.#commits.preflight(request);
    const needed = [...new Set([...(privileges?.needed ?? []), ...actionsOf(["attached"])])].sort();
    return {
      ...rest,
      calls: [{ operation: "CreateSnapshot", count: { value: request.disks.length, kind: "exact" } }],
      costs: costs.filter(({ item }) => !item.startsWith("PutSnapshotBlock")),
      privileges: { ...privileges, needed },
    };
  }

  launch(machine: MachineSpec, disks: readonly LaunchDisk[], request: LaunchRequest): Promise<LaunchedMachine> {
    return this.#commits.launch(machine, disks, request);
  }

  terminate(machine: LaunchedMachine, wait?: Wait): Promise<void> {
    return this.#commits.terminate(machine, wait);
  }

  #handle(id: string, size: number, key: string, device: string): Volume {
    return { id, size, data: { kind: ROLE, key, device, region: this.#connection.region } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#commits[Symbol.asyncDispose]();
  }
}
