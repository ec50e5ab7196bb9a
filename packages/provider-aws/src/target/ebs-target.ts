import { CompleteSnapshotCommand, StartSnapshotCommand } from "@aws-sdk/client-ebs";
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
import { tagValue, toTags } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { createdOf, isCreatedVolume, removeAbandoned } from "../launch/create-volume.ts";
import { launchedOf, launchMachine } from "../launch/launch.ts";
import { whereAllowed } from "../launch/where-allowed.ts";
import { terminateMachine } from "../launch/terminate.ts";
import { preflightTarget } from "../plan/target-preflight.ts";
import { openSnapshotReader } from "../source/snapshot-reader.ts";
import { clientToken } from "./client-token.ts";
import { deleteSnapshot, findSnapshot, type OwnSnapshot, snapshotsWith, wholeGib } from "./own-snapshots.ts";
import { unneededAfter } from "./retention.ts";
import { snapshotWriter } from "./snapshot-writer.ts";
import { isOurs, tagsOfNew, type TargetTagNames, targetTagNames } from "./target-tags.ts";
import { openUpload } from "./uploads.ts";

/** The largest volume and snapshot (EBS, volume constraints). */
const LARGEST: number = 65_536 * 2 ** 30;
/** So often may a key's volume have been removed and made again. */
const MOST_MARKERS = 100;

/** Snapshots of EBS as a place to copy to, and EC2 as the place to launch from them. */
export class EbsTarget implements TargetProvider {
  readonly #connection: AwsConnection;
  readonly #names: TargetTagNames;
  /** Volumes made by this connection, which AWS may not list yet. */
  readonly #fresh = new Set<string>();

  constructor(connection: AwsConnection) {
    this.#connection = connection;
    this.#names = targetTagNames(connection.settings.product);
  }

  /**
   * A volume is a tagged snapshot without data that stands for all commits of its key; what it costs is nothing, and no block of
   * it is ever read. It makes a key findable after a crash, and tells a removed volume from one that never was.
   */
  async create({ key, size, name, job, signal }: CreateRequest): Promise<Volume> {
    signal?.throwIfAborted();
    if (size > LARGEST)
      throw awsError(
        "UNSUPPORTED",
        `A disk of ${size} bytes is larger than the ${LARGEST} bytes that EBS has room for.`,
        {
          operation: "create",
        },
      );
    const own = tagValue(key);
    const all = await snapshotsWith(this.#connection, { [this.#names.key]: own }, { signal });
    // What a source takes carries a key too, and no role.
    const known = all.filter(({ tags }) => tags[this.#names.role] !== undefined);
    const marker = known.find(({ state, tags }) => tags[this.#names.role] === "volume" && state !== "error");
    // Grown is what a run has begun to write at a larger size; until then nothing depends on the size.
    const largest = Math.max(wholeGib(size), ...known.map((snapshot) => snapshot.size));
    // One that a killed process began and did not complete would be lost after its time.
    const isThere =
      marker?.state === "completed" || (marker !== undefined && (await this.#completeMarker(marker.id, signal)));
    const id = isThere ? marker.id : await this.#mark(own, name, job, signal);
    return { id, size: largest, data: { kind: "volume", key: own, region: this.#connection.region } };
  }

  async #mark(
    key: string,
    name: string | undefined,
    job: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const connection = this.#connection;
    const { settings } = connection;
    const own = {
      [this.#names.role]: "volume",
      [this.#names.key]: key,
      [this.#names.job]: job,
      [this.#names.disk]: name,
    };
    for (let generation = 0; generation < MOST_MARKERS; generation++) {
      const command = new StartSnapshotCommand({
        VolumeSize: 1,
        Description: `${settings.product}: stands for ${name ?? key} and holds no data`.slice(0, 255),
        Tags: toTags(tagsOfNew(settings, "Replica", own)),
        ClientToken: clientToken([settings.product, "volume", job ?? "", key, generation]),
      });
      let id: string | undefined;
      try {
        const about = { object: `the volume of ${key}`, signal };
        id = (await connection.patiently(() => connection.ebs(command, about), { signal })).SnapshotId;
      } catch (error) {
        if (isProviderError(error) && error.code === "EXISTS") continue;
        throw error;
      }
      if (id !== undefined && (await this.#completeMarker(id, signal))) {
        this.#fresh.add(id);
        return id;
      }
    }
    throw awsError("UNAVAILABLE", `No volume could be made for ${key}: remove what is left of earlier ones.`, {
      operation: "create",
      retryable: false,
    });
  }

  /** Completes a snapshot without blocks; false when it is gone. */
  async #completeMarker(id: string, signal: AbortSignal | undefined): Promise<boolean> {
    const connection = this.#connection;
    const command = new CompleteSnapshotCommand({ SnapshotId: id, ChangedBlocksCount: 0 });
    const { visibleMs } = connection.settings.timeouts;
    const visibleBy = performance.now() + visibleMs;
    try {
      await connection.patiently(
        () => connection.ebs(command, { object: id, settling: performance.now() < visibleBy, signal }),
        { signal },
      );
      return true;
    } catch (error) {
      // Completed by whoever asked with the same token before, or removed since.
      if (!isProviderError(error) || failureOf(error) === undefined || error.code === "DENIED") throw error;
      const found = await findSnapshot(connection, id, { signal });
      if (found === undefined) return false;
      if (found.state === "completed" || failureOf(error)?.reason === "INVALID_SNAPSHOT_ID")
        return found.state !== "error";
      throw error;
    }
  }

  async open(volume: Volume, { run, base, job, signal }: OpenRequest): Promise<BlockWriter> {
    signal?.throwIfAborted();
    const connection = this.#connection;
    this.#here(volume, "open");
    const key = this.#keyOf(volume);
    // One that this connection made, and did not remove, need not be looked for.
    const marker = this.#fresh.has(volume.id) ? undefined : await this.#find(volume.id, signal);
    if (!this.#fresh.has(volume.id) && marker?.tags[this.#names.role] !== "volume")
      throw this.#gone(volume.id, "It was removed: create the volume anew.");
    const parent = base === undefined ? undefined : await this.#parent(base, signal);
    const size = Math.max(volume.size, parent?.size ?? 0);
    const upload = await openUpload(connection, { volume: { ...volume, size }, key, run, base: parent, job, signal });
    return snapshotWriter({
      connection,
      upload,
      commitOf: (id) => this.#commitOf(id, upload.snapshot.size, key),
      removable: (wait) =>
        unneededAfter(
          connection,
          { key, own: upload.snapshot.id, base: upload.base, startedAt: upload.snapshot.startedAt },
          wait,
        ),
    });
  }

  /** The commit a run starts from, fit to be a parent. */
  async #parent(base: Volume, signal: AbortSignal | undefined): Promise<OwnSnapshot> {
    this.#here(base, "open");
    const { encrypted, kmsKey } = this.#connection.options.target ?? {};
    const parent = await this.#find(base.id, signal);
    if (parent === undefined || parent.state === "error")
      throw this.#gone(base.id, "It was the last commit, and the run cannot start from it.");
    if (parent.archived)
      throw awsError(
        "UNSUPPORTED",
        `The last commit ${parent.id} is archived: restore it to the standard tier (it takes up to 72 hours), or copy in full.`,
        { operation: "open" },
      );
    const otherKey =
      kmsKey !== undefined && parent.encrypted && parent.kmsKey !== undefined && parent.kmsKey !== kmsKey;
    const wantsEncryption = encrypted === true || kmsKey !== undefined;
    if ((wantsEncryption && !parent.encrypted) || otherKey)
      throw awsError(
        "UNSUPPORTED",
        `The last commit ${parent.id} is ${parent.encrypted ? `encrypted with ${parent.kmsKey}` : "not encrypted"}, and a snapshot ` +
          `that starts from it is so too: EBS takes no encryption beside a parent. Copy once in full (mode full) to change ` +
          `the key, or take the options encrypted and kmsKey away.`,
        { operation: "open" },
      );
    return parent;
  }

  async read(volume: Volume, { signal }: Wait = {}): Promise<BlockReader> {
    signal?.throwIfAborted();
    const snapshot = await this.#commit(volume, signal);
    return openSnapshotReader(this.#connection, snapshot.id, { signal });
  }

  /** A commit that is there. */
  async #commit(volume: Volume, signal: AbortSignal | undefined): Promise<OwnSnapshot> {
    this.#here(volume, "open");
    const { id, data } = volume;
    const found = data?.["kind"] === "volume" ? undefined : await this.#find(id, signal);
    if (found?.state === "completed" && found.tags[this.#names.role] !== "volume") return found;
    throw this.#gone(id, "It is no commit, or was removed.");
  }

  async remove(volume: Volume, { signal }: Wait = {}): Promise<void> {
    signal?.throwIfAborted();
    const connection = this.#connection;
    this.#here(volume, "remove");
    if (isCreatedVolume(volume)) return removeAbandoned(connection, volume.id, { signal });
    const snapshot = await this.#find(volume.id, signal, this.#fresh.has(volume.id));
    if (volume.data?.["kind"] === "volume") {
      const uploads = { [this.#names.volume]: volume.id, [this.#names.role]: "upload" };
      for (const { id, state } of await snapshotsWith(connection, uploads, { signal }))
        if (state !== "completed") await deleteSnapshot(connection, id, { signal });
    }
    this.#fresh.delete(volume.id);
    if (snapshot === undefined) return;
    const { product } = connection.settings;
    if (!isOurs(product, toTags(snapshot.tags)) || snapshot.tags[this.#names.role] === undefined)
      throw awsError("DENIED", `Snapshot ${snapshot.id} was not made by ${product}: remove it by hand.`, {
        operation: "remove",
      });
    const standing = await snapshotsWith(connection, { [this.#names.base]: snapshot.id }, { signal });
    const pending = standing.find(({ state }) => state === "pending");
    if (pending !== undefined)
      throw awsError(
        "IN_USE",
        `Commit ${snapshot.id} stays: the half-written snapshot ${pending.id} stands on it. Let that run end, or remove it first.`,
        { operation: "remove" },
      );
    await deleteSnapshot(connection, snapshot.id, { signal });
  }

  async *owned(job: string, { signal }: Wait = {}): AsyncIterable<OwnedResource & { volume?: Volume }> {
    const found = await snapshotsWith(this.#connection, { [this.#names.job]: tagValue(job) }, { signal });
    const of = (role: string): OwnSnapshot[] => found.filter(({ tags }) => tags[this.#names.role] === role).reverse();
    yield* launchedOf(this.#connection, job, { signal });
    yield* whereAllowed(this.#connection, job, createdOf(this.#connection, job, { signal }));
    for (const { id, state, size, tags } of of("upload")) {
      const [run, key] = [tags[this.#names.run] ?? "?", tags[this.#names.key] ?? ""];
      const marker = tags[this.#names.volume] ?? "";
      yield state === "completed"
        ? { kind: "commit", id, description: `snapshot committed by run ${run}`, volume: this.#commitOf(id, size, key) }
        : {
            kind: "upload",
            id,
            description: `half-written snapshot (${state}) of run ${run} for volume ${marker}`,
            // Removing the volume removes what is half-written for it; as long as a run can go on, core keeps the volume.
            volume: this.#markerOf(marker, size, key),
          };
    }
    for (const { id, tags } of of("volume")) {
      const key = tags[this.#names.key] ?? "";
      const size = Math.max(0, ...found.filter((each) => each.tags[this.#names.key] === key).map((each) => each.size));
      const description = `empty snapshot that stands for ${tags[this.#names.disk] ?? key}`;
      yield { kind: "volume", id, description, volume: this.#markerOf(id, size, key) };
    }
  }

  preflight(request: TargetPreflightRequest): Promise<Preflight> {
    return preflightTarget(this.#connection, request);
  }

  async launch(machine: MachineSpec, disks: readonly LaunchDisk[], request: LaunchRequest): Promise<LaunchedMachine> {
    request.signal?.throwIfAborted();
    const commits = [];
    for (const disk of disks) commits.push({ ...disk, snapshot: await this.#commit(disk.volume, request.signal) });
    return launchMachine(this.#connection, machine, commits, request);
  }

  async terminate(machine: LaunchedMachine, { signal }: Wait = {}): Promise<void> {
    signal?.throwIfAborted();
    await terminateMachine(this.#connection, machine, { signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }

  #find(id: string, signal: AbortSignal | undefined, settling = false): Promise<OwnSnapshot | undefined> {
    // What is no id of AWS is not there; asked for, it would be refused in other words.
    if (!/^snap-[0-9a-f]+$/.test(id)) return Promise.resolve(undefined);
    return findSnapshot(this.#connection, id, { settling, signal });
  }

  /** Elsewhere the same id would only look as if it were gone. */
  #here({ id, data }: Volume, operation: string): void {
    const region = data?.["region"];
    if (region === undefined || region === this.#connection.region) return;
    throw awsError(
      "CONFIG_INVALID",
      `Snapshot ${id} is in ${JSON.stringify(region)}, and this target is in ${this.#connection.region}: open a target in that Region.`,
      { operation },
    );
  }

  #keyOf(volume: Volume): string {
    const key = volume.data?.["key"];
    if (volume.data?.["kind"] === "volume" && typeof key === "string") return key;
    throw awsError("UNSUPPORTED", `${volume.id} is a commit, not a volume: open the volume that create gave.`, {
      operation: "open",
    });
  }

  #commitOf(id: string, size: number, key: string): Volume {
    return { id, size, data: { kind: "commit", key, region: this.#connection.region } };
  }

  #markerOf(id: string, size: number, key: string): Volume {
    return { id, size, data: { kind: "volume", key, region: this.#connection.region } };
  }

  #gone(id: string, remedy: string): unknown {
    const { region, accountId } = this.#connection;
    return awsError("NOT_FOUND", `There is no snapshot ${id} in ${region} of account ${accountId}. ${remedy}`, {
      operation: "open",
    });
  }
}
