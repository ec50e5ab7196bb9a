import type {
  BlockReader,
  ChangeTracker,
  Disk,
  DiskSnapshot,
  Machine,
  OwnedResource,
  Preflight,
  PreflightRequest,
  Snapshot,
  SnapshotRequest,
  SourceConnector,
  Wait,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames, tagValue } from "../connection/tags.ts";
import { awsError } from "../errors.ts";
import { toldOf } from "./beyond-snapshots.ts";
import { diskData } from "./checkpoint.ts";
import { EbsTracker } from "./ebs-tracker.ts";
import { Inventory } from "./inventory.ts";
import { instancePower } from "./power.ts";
import { type SnapshotFacts, demandReadable, describeSnapshot, existing, findSnapshots } from "./snapshot-facts.ts";
import { openSnapshotReader } from "./snapshot-reader.ts";
import { type SnapshotSet, consistencyOf, deleteSnapshots, findSets, handleOf } from "./snapshot-set.ts";
import { preflightSource } from "./source-preflight.ts";
import { takeSnapshot } from "./take-snapshot.ts";

/** Instances, volumes and snapshots of one account in one Region, as the place disks are copied from. */
export class AwsSource implements SourceConnector {
  readonly tracker: ChangeTracker;
  readonly power: NonNullable<SourceConnector["power"]>;
  readonly #connection: AwsConnection;
  readonly #inventory: Inventory;

  constructor(connection: AwsConnection) {
    this.#connection = connection;
    this.#inventory = new Inventory(connection, connection.options.source?.exclude ?? []);
    this.tracker = new EbsTracker(connection);
    this.power = instancePower(connection, this.#inventory);
  }

  async *machines(wait: Wait = {}): AsyncIterable<Machine> {
    const { resource } = this.#connection.options;
    if (resource === undefined) yield* this.#inventory.machines(wait);
    else yield await this.#inventory.machine(resource, wait);
  }

  machine(id: string, wait: Wait = {}): Promise<Machine> {
    return this.#inventory.machine(id, wait);
  }

  async snapshot(given: Machine, request: SnapshotRequest): Promise<Snapshot> {
    const { signal } = request;
    signal?.throwIfAborted();
    if (given.id.startsWith("snap-")) return this.#existing(given, request);
    // As it is now: a volume may have been attached or taken away since the handle was made.
    const machine = await this.#inventory.machine(given.id, { signal });
    for (const line of toldOf(machine)) this.#connection.notice(line);
    return takeSnapshot(this.#connection, machine, chosen(machine, request.disks), request);
  }

  async *snapshots(machine: Machine, wait: Wait = {}): AsyncIterable<Snapshot> {
    wait.signal?.throwIfAborted();
    if (machine.id.startsWith("snap-")) {
      yield await this.#existing(machine, { key: machine.id, ...wait });
      return;
    }
    const names = tagNames(this.#connection.settings.product);
    const volumes = machine.disks.map(({ key }) => key);
    if (volumes.length === 0) return;
    const sets = new Map<string, SnapshotSet>();
    for await (const facts of findSnapshots(this.#connection, { "volume-id": volumes }, wait)) {
      if (facts.state !== "completed" || facts.archived || facts.onOutpost) continue;
      const id = facts.tags[names.set];
      if (id === undefined || facts.tags[names.machine] !== tagValue(machine.id)) {
        yield this.#foreign(machine, facts);
        continue;
      }
      const set = sets.get(id) ?? { id, count: Number(facts.tags[names.count] ?? 0), members: [] };
      set.members.push(facts);
      sets.set(id, set);
    }
    for (const set of sets.values()) yield handleOf(this.#connection, set);
  }

  async open(disk: DiskSnapshot, wait: Wait = {}): Promise<BlockReader> {
    wait.signal?.throwIfAborted();
    this.#demandRegion(disk);
    return openSnapshotReader(this.#connection, disk.id, wait);
  }

  async release(snapshot: Snapshot, wait: Wait = {}): Promise<void> {
    wait.signal?.throwIfAborted();
    if (snapshot.data?.["made"] !== true) return;
    const { set } = tagNames(this.#connection.settings.product);
    const isOurs = ({ tags }: SnapshotFacts): boolean => tags[set] === snapshot.id;
    const ids = snapshot.disks.map(({ id }) => id);
    // By id what the handle knows; by tag what was made with it and is not in the handle.
    const members = (await existing(this.#connection, ids, wait)).filter(isOurs);
    for await (const each of findSnapshots(this.#connection, { [`tag:${set}`]: [snapshot.id] }, wait))
      members.push(each);
    await deleteSnapshots(this.#connection, [...new Set(members.map(({ id }) => id))], wait);
  }

  async *owned(job: string, wait: Wait = {}): AsyncIterable<OwnedResource> {
    wait.signal?.throwIfAborted();
    const names = tagNames(this.#connection.settings.product);
    for (const set of await findSets(this.#connection, { [`tag:${names.job}`]: [tagValue(job)] }, wait)) {
      const snapshot = handleOf(this.#connection, set);
      const held = set.members.some(({ tags }) => tags[names.held] !== undefined);
      yield {
        kind: "snapshot",
        id: set.id,
        description:
          `${set.members.map(({ id }) => id).join(", ")} of ${snapshot.machine}, ${snapshot.takenAt}` +
          (held ? ", held as the base of the next incremental run" : ""),
        snapshot,
      };
    }
  }

  preflight(machine: Machine | undefined, request: PreflightRequest): Promise<Preflight> {
    return preflightSource(this.#connection, machine, request);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }

  /** A snapshot that exists, as the one point in time of itself. */
  async #existing(machine: Machine, request: SnapshotRequest): Promise<Snapshot> {
    const facts = await describeSnapshot(this.#connection, machine.id, request);
    demandReadable(facts);
    const snapshot = this.#foreign({ ...machine, id: facts.id }, facts);
    const disks = snapshot.disks.map((disk) => ({ ...disk, disk: facts.id }));
    return { ...snapshot, key: request.key, disks };
  }

  /** A snapshot that is not, or need not be, ours: it is read, and left alone. */
  #foreign(machine: Machine, facts: SnapshotFacts): Snapshot {
    const { id, size, volumeId, startedAt } = facts;
    const consistency = consistencyOf(this.#connection, [facts]);
    return {
      id,
      key: id,
      machine: machine.id,
      // Among the disks of a machine nothing tells that they were taken together.
      consistency: machine.disks.length > 1 ? "disk" : consistency,
      takenAt: startedAt,
      disks: [
        {
          id,
          machine: machine.id,
          disk: volumeId,
          size,
          data: { volumeId, region: this.#connection.region, made: false },
        },
      ],
      data: { made: false, region: this.#connection.region },
    };
  }

  #demandRegion(disk: DiskSnapshot): void {
    const { region } = diskData(disk);
    if (region === "" || region === this.#connection.region) return;
    throw awsError("NOT_FOUND", `Snapshot ${disk.id} is in ${region}, and this source in ${this.#connection.region}.`, {
      operation: "open",
    });
  }
}

/** The disks of a request. @throws ProviderError NOT_FOUND or UNSUPPORTED, naming the disk */
function chosen(machine: Machine, keys: readonly string[] | undefined): Disk[] {
  if (keys === undefined) {
    const eligible = machine.disks.filter(({ ineligible }) => ineligible === undefined);
    if (eligible.length > 0) return eligible;
    throw awsError("UNSUPPORTED", `${machine.id} has no disk that can be copied.`, { operation: "snapshot" });
  }
  return keys.map((key) => {
    const disk = machine.disks.find((each) => each.key === key);
    if (disk === undefined)
      throw awsError(
        "NOT_FOUND",
        `${machine.id} has no disk ${key}; it has ${machine.disks.map((each) => each.key).join(", ") || "none"}. A volume that ` +
          `was replaced has another id.`,
        { operation: "snapshot" },
      );
    if (disk.ineligible === undefined) return disk;
    throw awsError("UNSUPPORTED", `${machine.id}: disk ${key} cannot be copied: ${disk.ineligible}.`, {
      operation: "snapshot",
    });
  });
}
