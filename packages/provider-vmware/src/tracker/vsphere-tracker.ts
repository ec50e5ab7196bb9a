import {
  type ChangesOptions,
  type ChangeTracker,
  type Checkpoint,
  type DiskSnapshot,
  isProviderError,
  type Machine,
  type Tile,
  type TrackerStatus,
  type Wait,
} from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { describeDisk, type DiskPoint, diskPointOf } from "../source/disk-point.ts";
import type { MoRef } from "../vim/moref.ts";
import { readObject } from "../vim/property-collector.ts";
import { snapshotDisks, snapshotRef } from "../vim/snapshot-calls.ts";
import { queryChangedDiskAreas, readTrackingState } from "../vim/tracking-calls.ts";
import { faultOf } from "../vim/vim-fault.ts";
import { readDisks, slotOf, type VirtualDisk } from "../vim/virtual-disk.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { parseChangeId } from "./change-id.ts";
import { tilesOfAreas } from "./changed-areas.ts";
import { formatCheckpoint, parseCheckpoint, type TrackedPoint } from "./checkpoint.ts";
import { describeTracking, enableTracking, mendTracking, resetTracking } from "./enable-tracking.ts";

/** What `*` asks: which areas of a disk are allocated. */
const allocated = "*";

/**
 * Changed block tracking. A checkpoint holds the change id that the snapshot's own configuration gives its disk; a listing
 * asks a snapshot what changed since such an id, after the snapshot of that id was removed and its deltas merged (KB
 * 344418). Whatever does not prove itself is TRACKING_LOST, with the reason that could be found.
 */
export class VsphereTracker implements ChangeTracker {
  readonly #connection: VsphereConnection;
  readonly #refOf: (machine: Machine) => MoRef;
  /** Machines whose tracking is on, in its epoch, and refuses to answer. */
  readonly #broken = new Set<string>();

  constructor(connection: VsphereConnection, refOf: (machine: Machine) => MoRef) {
    this.#connection = connection;
    this.#refOf = refOf;
  }

  async enable(machine: Machine, wait: Wait = {}): Promise<void> {
    const tracked = { ref: this.#refOf(machine), machine };
    await enableTracking(this.#connection, tracked, wait);
    const { reset = true } = this.#connection.options.tracking ?? {};
    if (!reset || !this.#broken.has(tracked.ref.value)) return;
    if (await mendTracking(this.#connection, tracked, wait)) this.#broken.delete(tracked.ref.value);
  }

  /** @throws ProviderError UNSUPPORTED where the options forbid it, or the machine cannot track changes */
  async reset(machine: Machine, wait: Wait = {}): Promise<void> {
    wait.signal?.throwIfAborted();
    if (this.#connection.options.tracking?.reset === false) {
      throw vsphereError("UNSUPPORTED", `tracking of ${machine.name} is not begun anew: tracking.reset is false`, {
        operation: "reset tracking",
      });
    }
    await resetTracking(this.#connection, { ref: this.#refOf(machine), machine }, wait);
  }

  async status(machine: Machine, disk: string, wait: Wait = {}): Promise<TrackerStatus> {
    return describeTracking(this.#connection, { ref: this.#refOf(machine), machine }, disk, wait);
  }

  async checkpoint(disk: DiskSnapshot, wait: Wait = {}): Promise<Checkpoint | undefined> {
    wait.signal?.throwIfAborted();
    const point = diskPointOf(disk, this.#connection.placeId);
    const { changeId, beneath, file } = point;
    if (changeId === undefined || parseChangeId(changeId) === undefined) return undefined;
    const gap = await this.#gapBeneath(point, wait);
    if (gap !== undefined) {
      this.#connection.notice(`${describeDisk(point)} gets no checkpoint: ${gap}`);
      return undefined;
    }
    const { machine, size } = disk;
    return formatCheckpoint({ machine, disk: disk.disk, size, changeId, beneath, file });
  }

  async *changes(disk: DiskSnapshot, options: ChangesOptions = {}): AsyncGenerator<Tile, void> {
    const { since, from = 0, to = disk.size, signal } = options;
    signal?.throwIfAborted();
    if (from >= to) return;
    const point = diskPointOf(disk, this.#connection.placeId);
    const what = describeDisk(point);
    if (since === undefined) {
      if (!(await this.#listsAllocated(point, { signal }))) {
        yield { offset: from, length: to - from, kind: "changed" };
        return;
      }
      const page = (at: number, wait: Wait) => this.#page(point, allocated, at, wait);
      yield* tilesOfAreas({ page, size: disk.size, from, to, between: "zero", what, signal });
      return;
    }
    const tracked = this.#comparable(disk, point, since);
    const gap = await this.#gapBeneath(point, { signal });
    if (gap !== undefined) throw lost(point, gap);
    const page = (at: number, wait: Wait) => this.#page(point, tracked.changeId, at, wait);
    yield* tilesOfAreas({ page, size: disk.size, from, to, between: "unchanged", what, signal });
  }

  /** Whether a listing since a checkpoint can be asked for at all. @throws ProviderError TRACKING_LOST with the reason */
  #comparable(disk: DiskSnapshot, point: DiskPoint, since: Checkpoint): TrackedPoint {
    const tracked = parseCheckpoint(since);
    const before = tracked === undefined ? undefined : parseChangeId(tracked.changeId);
    if (tracked === undefined || before === undefined) throw lost(point, "the checkpoint is none of this tracker's");
    if (tracked.machine !== disk.machine || tracked.disk !== disk.disk) {
      throw lost(point, `the checkpoint is of disk ${tracked.disk} of another machine or slot`);
    }
    if (tracked.size !== disk.size) {
      throw lost(point, `the disk was ${tracked.size} bytes and is ${disk.size} bytes, which tracking does not span`);
    }
    const now = point.changeId === undefined ? undefined : parseChangeId(point.changeId);
    if (now === undefined) {
      throw lost(
        point,
        "the snapshot has no change id for this disk: change tracking is off for it, or waits for the machine's next stun",
      );
    }
    if (now.epoch !== before.epoch) {
      throw lost(
        point,
        "tracking began anew since the checkpoint: a power failure, a revert to a snapshot, a move of the disk, or a reset",
      );
    }
    if (now.sequence < before.sequence)
      throw lost(point, "the disk went back to before the checkpoint, as a revert does");
    const made = point.beneath.filter((id) => !tracked.beneath.includes(id));
    if (made.length > 0) {
      throw lost(
        point,
        `since the checkpoint the snapshot ${made.join(", ")} was made beneath this one, and is still there: what was written ` +
          "between the two lies in a delta of its own, and is only promised to be listed once that is merged (KB 344418)",
      );
    }
    // Every snapshot counts on, so a count that stands still went back and came again (KB 1021607).
    if (now.sequence === before.sequence && tracked.beneath.length > 0) {
      throw lost(point, `its change id is that of the checkpoint, as after a revert to ${tracked.beneath.join(", ")}`);
    }
    // A revert throws the machine's delta away and begins another file above the snapshot, wherever the count goes on from. Where
    // the snapshot was removed, the file is merged into one below either way.
    const [nearest] = tracked.beneath;
    const moved = tracked.file !== undefined && point.file !== undefined && tracked.file !== point.file;
    if (moved && nearest !== undefined && nearest === point.beneath[0]) {
      throw lost(
        point,
        `it goes on in another file (${point.file}) than at the checkpoint (${tracked.file}), as after a revert to ` +
          `${nearest}, or a move to another datastore`,
      );
    }
    return tracked;
  }

  async #page(
    point: DiskPoint,
    changeId: string,
    startOffset: number,
    wait: Wait,
  ): ReturnType<typeof queryChangedDiskAreas> {
    const { machine, snapshot, deviceKey } = point;
    const { client } = this.#connection;
    const about = { ...wait, about: describeDisk(point) };
    try {
      return await queryChangedDiskAreas(client, machine, { snapshot, deviceKey, startOffset, changeId }, about);
    } catch (error) {
      wait.signal?.throwIfAborted();
      const fault = faultOf(error);
      // Without a fault nothing was said about tracking: the answer was lost, or the request never arrived.
      if (fault === undefined || !isProviderError(error) || passes(error.code) || ofTheHost.has(fault.type))
        throw error;
      throw lost(point, await this.#reasonOf(point, fault.message, { ...wait, mayPass: error.retryable }), error);
    }
  }

  /**
   * Why tracking that began above a snapshot which is still there is not to be trusted; undefined where it began below all of
   * them. Since 6.5 vSphere answers in that case and leaves areas out (KB 320557); whoever turned tracking on need not be us.
   */
  async #gapBeneath(point: DiskPoint, wait: Wait): Promise<string | undefined> {
    const epoch = parseChangeId(point.changeId ?? "")?.epoch;
    for (const id of point.beneath) {
      const about = `${id} of ${point.machineName}`;
      let frozen: VirtualDisk[];
      try {
        frozen = await snapshotDisks(this.#connection.client, snapshotRef(id), { ...wait, about });
      } catch (error) {
        if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
        return `the snapshot ${id} was removed from beneath it, so that nobody can tell any more whether tracking began before`;
      }
      const disk = frozen.find(({ key }) => key === point.deviceKey);
      if (disk === undefined || parseChangeId(disk.backing.changeId ?? "")?.epoch === epoch) continue;
      return `tracking began when the snapshot ${id} was there already, so that its map has gaps; remove that snapshot`;
    }
    return undefined;
  }

  /**
   * vSphere faults alike whatever is wrong with tracking; what it is has to be looked for. A fault that may pass is no reason to
   * begin anew, which costs whoever else reads these changes theirs.
   */
  async #reasonOf(point: DiskPoint, fault: string, how: Wait & { mayPass: boolean }): Promise<string> {
    const { client } = this.#connection;
    const { mayPass, ...wait } = how;
    try {
      const { supported, enabled } = await readTrackingState(client, point.machine, wait);
      if (!supported) return `${fault}; the machine's hardware version cannot track changes`;
      if (!enabled) return `${fault}; change tracking was turned off`;
      const properties = await readObject(client, point.machine, ["config.hardware.device"], wait);
      const live = readDisks(properties.get("config.hardware.device")).find(({ key }) => key === point.deviceKey);
      if (live === undefined) return `${fault}; the disk was removed from the machine`;
      if (live.backing.changeId === undefined) return `${fault}; change tracking of this disk is off (${slotOf(live)})`;
      const [now, then] = [parseChangeId(live.backing.changeId), parseChangeId(point.changeId ?? "")];
      if (now?.epoch !== then?.epoch) return `${fault}; tracking began anew while the snapshot existed`;
      if (mayPass) return `${fault}; tracking is on, and this may have another cause`;
      this.#broken.add(point.machine.value);
      return `${fault}; tracking is on and does not answer, see the host's log (vmkernel.log)`;
    } catch (error) {
      wait.signal?.throwIfAborted();
      return `${fault}; why could not be found out (${(error as Error).message})`;
    }
  }

  /**
   * Whether `*` lists what is allocated on this disk: thin and on VMFS, where alone it is defined (KB 320557), and asked for
   * by the options. Elsewhere vSphere answers with the whole disk or with a fault.
   */
  async #listsAllocated(point: DiskPoint, wait: Wait): Promise<boolean> {
    const { client, options } = this.#connection;
    if (options.tracking?.allocated !== true || point.changeId === undefined) return false;
    const frozen = await snapshotDisks(client, point.snapshot, { ...wait, about: describeDisk(point) });
    const backing = frozen.find(({ key }) => key === point.deviceKey)?.backing;
    const { datastore } = backing ?? {};
    if (backing?.type !== "VirtualDiskFlatVer2BackingInfo" || backing.thinProvisioned !== true) return false;
    // With a snapshot below it, tracking may have begun when the disk had deltas already.
    if (backing.parent !== undefined || datastore === undefined) return false;
    const properties = await readObject(client, datastore, ["summary.type"], wait);
    return properties.string("summary.type") === "VMFS";
  }
}

/** Codes that say nothing about tracking: another call may work, or somebody has to act. */
function passes(code: string): boolean {
  return code === "AUTH" || code === "DENIED" || code === "THROTTLED" || code === "NOT_FOUND";
}

/** Faults of a host that is away, or of a machine at which somebody works: asked again later, tracking answers. */
const ofTheHost: ReadonlySet<string> = new Set([
  "HostCommunication",
  "HostNotConnected",
  "HostNotReachable",
  "HostConnectFault",
  "RequestCanceled",
  "TaskInProgress",
  "VAppTaskInProgress",
  "ConcurrentAccess",
]);

function lost(point: DiskPoint, reason: string, cause?: unknown): Error {
  return vsphereError("TRACKING_LOST", `${describeDisk(point)}: ${reason}`, {
    operation: "QueryChangedDiskAreas",
    cause,
  });
}
