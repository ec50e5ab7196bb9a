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
  SourceLoad,
  Wait,
} from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { demandReaders } from "../readers/reader-fitness.ts";
import { DiskReaders } from "../readers/disk-readers.ts";
import { VsphereTracker } from "../tracker/vsphere-tracker.ts";
import { ineligibility } from "../inventory/eligibility.ts";
import { readMachineLoad } from "../inventory/host-load.ts";
import { machineId } from "../inventory/read-machine.ts";
import type { MoRef } from "../vim/moref.ts";
import { listObjects } from "../vim/property-collector.ts";
import { listSnapshots, snapshotDisks, snapshotTree } from "../vim/snapshot-calls.ts";
import type { VirtualDisk } from "../vim/virtual-disk.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { describeDisk, diskPointData, diskPointOf, snapshotPointOf } from "./disk-point.ts";
import { markOf, snapshotsBeneath } from "./snapshot-mark.ts";
import { removeOfKey, type SnapshotMachine, takeSnapshot, type TakenSnapshot, worthOf } from "./take-snapshot.ts";

/** What a source is put together from beside its connection. */
export interface SourceParts {
  readonly connection: VsphereConnection;
  readonly machines: (wait?: Wait) => AsyncIterable<Machine>;
  readonly machine: (id: string, wait?: Wait) => Promise<Machine>;
  /** The managed object behind a machine's handle. */
  readonly refOf: (machine: Machine) => MoRef;
  readonly power: NonNullable<SourceConnector["power"]>;
  readonly preflight?: (machine: Machine | undefined, request: PreflightRequest) => Promise<Preflight>;
}

/** vCenter or an ESXi host as a source: machines, snapshots of all their disks at once, changes, and ways to read them. */
export class VsphereSource implements SourceConnector {
  readonly machines: SourceConnector["machines"];
  readonly machine: SourceConnector["machine"];
  readonly power: NonNullable<SourceConnector["power"]>;
  readonly preflight?: NonNullable<SourceConnector["preflight"]>;
  readonly tracker: ChangeTracker;
  readonly #connection: VsphereConnection;
  readonly #refOf: (machine: Machine) => MoRef;
  readonly #readers: DiskReaders;
  #closed = false;

  constructor(parts: SourceParts) {
    this.#connection = parts.connection;
    this.#refOf = parts.refOf;
    this.machines = (wait) => parts.machines(wait);
    this.machine = (id, wait) => parts.machine(id, wait);
    this.power = parts.power;
    if (parts.preflight !== undefined) this.preflight = parts.preflight;
    this.tracker = new VsphereTracker(parts.connection, parts.refOf);
    this.#readers = new DiskReaders(parts.connection);
  }

  async load(machine: Machine, wait: Wait = {}): Promise<SourceLoad | undefined> {
    wait.signal?.throwIfAborted();
    return readMachineLoad(this.#connection.client, this.#refOf(machine), { ...wait, about: machine.name });
  }

  async snapshot(machine: Machine, request: SnapshotRequest): Promise<Snapshot> {
    const { key, job, consistency, signal } = request;
    const chosen = chosenDisks(machine, request.disks);
    const about = { ref: this.#refOf(machine), name: machine.name };
    const demand = (wait: Wait): Promise<void> => demandReaders(this.#connection, { ...machine, disks: chosen }, wait);
    const taken = await takeSnapshot(this.#connection, about, { key, job, consistency, demand, signal });
    return this.#snapshotOf(machine, about, taken, { key, disks: chosen }, { signal });
  }

  async *snapshots(machine: Machine, wait: Wait = {}): AsyncGenerator<Snapshot> {
    const about = { ref: this.#refOf(machine), name: machine.name };
    const disks = chosenDisks(machine, undefined);
    for (const node of await listSnapshots(this.#connection.client, about.ref, { ...wait, about: machine.name })) {
      const consistency = await worthOf(this.#connection, about, node, wait);
      // A disk that was added since is not in it, nor is one that was independent then.
      const frozen = await snapshotDisks(this.#connection.client, node.ref, wait);
      const there = disks.filter(({ key }) => {
        const found = frozen.find((each) => String(each.key) === key);
        return found !== undefined && notHeld(found) === undefined;
      });
      const key = markOf(node)?.key ?? node.ref.value;
      yield this.#snapshotOf(machine, about, { node, consistency }, { key, disks: there }, wait, frozen);
    }
  }

  async open(disk: DiskSnapshot, wait: Wait = {}): Promise<BlockReader> {
    const point = diskPointOf(disk, this.#connection.placeId);
    const found = await this.#frozenDisk(disk, wait);
    return this.#readers.open(disk, point, found, wait);
  }

  async release(snapshot: Snapshot, wait: Wait = {}): Promise<void> {
    wait.signal?.throwIfAborted();
    const { machine } = snapshotPointOf(snapshot, this.#connection.placeId);
    const name = snapshot.data?.["machineName"];
    const about = { ref: machine, name: typeof name === "string" ? name : machine.value };
    await removeOfKey(this.#connection, about, snapshot.key, wait);
  }

  async *owned(job: string, wait: Wait = {}): AsyncGenerator<OwnedResource> {
    const { client, placeId } = this.#connection;
    const wanted = { types: ["VirtualMachine"], paths: ["name", "snapshot", "config.instanceUuid"] };
    for await (const page of listObjects(client, client.references.rootFolder, wanted, wait)) {
      for (const found of page) {
        for (const node of snapshotTree(found.get("snapshot"))) {
          const mark = markOf(node);
          if (mark === undefined || mark.job !== job) continue;
          const name = found.string("name") ?? found.object.value;
          yield {
            kind: "snapshot",
            id: node.ref.value,
            description: `snapshot ${node.name} of ${name}, made ${node.createTime}`,
            snapshot: {
              id: `${placeId}/${node.ref.value}`,
              key: mark.key,
              machine: machineId(placeId, found.string("config.instanceUuid") ?? found.object.value),
              consistency: node.quiesced ? "filesystem" : "crash",
              takenAt: node.createTime,
              disks: [],
              data: { vm: found.object.value, snapshot: node.ref.value, machineName: name },
            },
          };
        }
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#connection[Symbol.asyncDispose]();
  }

  async #snapshotOf(
    machine: Machine,
    about: SnapshotMachine,
    { node, consistency }: TakenSnapshot,
    wanted: { key: string; disks: readonly Disk[] },
    wait: Wait,
    known?: readonly VirtualDisk[],
  ): Promise<Snapshot> {
    const { client, placeId } = this.#connection;
    const beneath = snapshotsBeneath(await listSnapshots(client, about.ref, { ...wait, about: machine.name }), node);
    const frozen =
      known ?? (await snapshotDisks(client, node.ref, { ...wait, about: `${node.ref.value} of ${machine.name}` }));
    const disks = wanted.disks.map((disk): DiskSnapshot => {
      const found = frozen.find(({ key }) => String(key) === disk.key);
      if (found === undefined) {
        throw vsphereError(
          "NOT_FOUND",
          `the snapshot ${node.ref.value} of ${machine.name} has no disk ${disk.key}: it was removed or added meanwhile; run again`,
          { operation: "snapshot" },
        );
      }
      demandHeld(found, `${node.ref.value} of ${machine.name}`);
      return {
        id: `${placeId}/${node.ref.value}/${disk.key}`,
        machine: machine.id,
        disk: disk.key,
        size: found.capacity,
        data: diskPointData({
          machine: about.ref,
          snapshot: node.ref,
          machineName: machine.name,
          deviceKey: found.key,
          label: found.label,
          changeId: found.backing.changeId,
          wasOn: node.powerState === "poweredOn",
          beneath,
          file: found.backing.fileName,
        }),
      };
    });
    return {
      id: `${placeId}/${node.ref.value}`,
      key: wanted.key,
      machine: machine.id,
      consistency,
      takenAt: new Date(node.createTime).toISOString(),
      disks,
      data: { vm: about.ref.value, snapshot: node.ref.value, machineName: machine.name },
    };
  }

  /** The disk as the snapshot froze it: its files may be others than when it was made. */
  async #frozenDisk(disk: DiskSnapshot, wait: Wait): Promise<VirtualDisk> {
    const point = diskPointOf(disk, this.#connection.placeId);
    const about = `${point.snapshot.value} of ${point.machineName}`;
    const frozen = await snapshotDisks(this.#connection.client, point.snapshot, { ...wait, about });
    const found = frozen.find(({ key }) => key === point.deviceKey);
    if (found !== undefined && found.capacity === disk.size) {
      demandHeld(found, about);
      return found;
    }
    throw vsphereError(
      "NOT_FOUND",
      `${describeDisk(point)} is not in ${point.snapshot.value} any more; begin a new run`,
      {
        operation: "open",
      },
    );
  }
}

/** Why a disk that a snapshot's configuration names is not held by it; undefined where it is. Encrypted ones are. */
function notHeld(disk: VirtualDisk): string | undefined {
  return ineligibility(disk, true);
}

/**
 * A snapshot's configuration tells every disk that the machine had then, also one whose bytes go on changing under it: the
 * machine may have been changed since it was listed.
 *
 * @throws ProviderError UNSUPPORTED
 */
function demandHeld(disk: VirtualDisk, snapshot: string): void {
  const why = notHeld(disk);
  if (why === undefined) return;
  throw vsphereError("UNSUPPORTED", `disk ${disk.key} (${disk.label}) is not in the snapshot ${snapshot}: ${why}`, {
    operation: "snapshot",
  });
}

/** The disks that were asked for; every eligible one where nothing was. @throws ProviderError CONFIG_INVALID, UNSUPPORTED */
function chosenDisks(machine: Machine, keys: readonly string[] | undefined): Disk[] {
  if (keys === undefined) return machine.disks.filter(({ ineligible }) => ineligible === undefined);
  return keys.map((key) => {
    const disk = machine.disks.find((each) => each.key === key);
    if (disk === undefined) {
      const known = machine.disks.map((each) => each.key).join(", ");
      throw vsphereError("CONFIG_INVALID", `${machine.name} has no disk ${key}; it has ${known}`, {
        operation: "snapshot",
      });
    }
    if (disk.ineligible !== undefined) {
      throw vsphereError("UNSUPPORTED", `disk ${key} of ${machine.name} cannot be copied: ${disk.ineligible}`, {
        operation: "snapshot",
      });
    }
    return disk;
  });
}
