import { basename } from "node:path";
import type {
  BlockReader,
  ChangesOptions,
  ChangeTracker,
  Checkpoint,
  Disk,
  DiskSnapshot,
  Machine,
  OwnedResource,
  Snapshot,
  SnapshotRequest,
  SourceConnector,
  Tile,
  TrackerStatus,
  Wait,
} from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import type { LocalOptions } from "../options.ts";
import type { DiskSource } from "./disk-source.ts";
import { hashOf } from "./raw-disk.ts";

/** A disk of the source with what it is called. */
export interface NamedDisk {
  machine: string;
  machineName: string;
  key: string;
  boot: boolean | undefined;
  source: DiskSource;
}

/** The place `local` as a source: the disks that the options name, as one machine or each as a machine of its own. */
export function localSource(disks: readonly NamedDisk[]): SourceConnector {
  // Points in time that this very connector fixed; kept small by `release`.
  const live = new Set<string>();

  function find(machine: string, key: string): NamedDisk {
    const found = disks.find((disk) => disk.machine === machine && disk.key === key);
    if (found !== undefined) return found;
    throw localError("NOT_FOUND", `there is no disk ${key} of ${machine} here; known: ${namesOf(disks)}`);
  }

  async function machineOf(id: string, wait: Wait | undefined): Promise<Machine> {
    const members = disks.filter((disk) => disk.machine === id);
    const described: Disk[] = [];
    for (const member of members) {
      const disk = await member.source.describe(wait);
      described.push({ key: member.key, ...disk, ...(member.boot === undefined ? {} : { boot: member.boot }) });
    }
    return { id, name: members[0]!.machineName, disks: described };
  }

  async function snapshot(machine: Machine, request: SnapshotRequest): Promise<Snapshot> {
    request.signal?.throwIfAborted();
    const chosen = disks.filter(
      (disk) => disk.machine === machine.id && (request.disks === undefined || request.disks.includes(disk.key)),
    );
    for (const key of request.disks ?? []) find(machine.id, key);
    if (chosen.length === 0)
      throw localError("NOT_FOUND", `there is no machine ${machine.id} here; known: ${namesOf(disks)}`);
    const snapshots: DiskSnapshot[] = [];
    let frozen = true;
    for (const disk of chosen) {
      request.signal?.throwIfAborted();
      const moment = await disk.source.moment(request.key, request);
      frozen &&= moment.frozen;
      snapshots.push({ id: moment.id, machine: machine.id, disk: disk.key, size: moment.size, data: moment.data });
      live.add(moment.id);
    }
    return {
      id: hashOf([machine.id, ...snapshots.flatMap((each) => [each.disk, each.id])]),
      key: request.key,
      machine: machine.id,
      // Nothing here can stop a guest: either somebody states that all is at rest, or nothing is promised.
      consistency: frozen ? "crash" : "none",
      takenAt: new Date().toISOString(),
      disks: snapshots,
    };
  }

  const tracker: ChangeTracker = {
    async checkpoint(disk: DiskSnapshot, wait?: Wait): Promise<Checkpoint | undefined> {
      wait?.signal?.throwIfAborted();
      return find(disk.machine, disk.disk).source.checkpoint(disk, wait);
    },
    async *changes(disk: DiskSnapshot, options: ChangesOptions = {}): AsyncIterable<Tile> {
      for await (const tile of find(disk.machine, disk.disk).source.changes(disk, options)) {
        options.signal?.throwIfAborted();
        yield tile;
      }
    },
    async status(machine: Machine, disk: string, wait?: Wait): Promise<TrackerStatus> {
      wait?.signal?.throwIfAborted();
      return find(machine.id, disk).source.status(wait);
    },
  };

  return {
    tracker,
    snapshot,
    async *machines(wait?: Wait): AsyncIterable<Machine> {
      for (const id of new Set(disks.map((disk) => disk.machine))) {
        wait?.signal?.throwIfAborted();
        yield await machineOf(id, wait);
      }
    },
    async machine(id: string, wait?: Wait): Promise<Machine> {
      wait?.signal?.throwIfAborted();
      const found = disks.find((disk) => [disk.machine, disk.machineName, disk.source.place].includes(id));
      if (found !== undefined) return machineOf(found.machine, wait);
      throw localError("NOT_FOUND", `there is no machine ${id} here; known: ${namesOf(disks)}`);
    },
    async open(disk: DiskSnapshot, wait?: Wait): Promise<BlockReader> {
      wait?.signal?.throwIfAborted();
      return find(disk.machine, disk.disk).source.open(disk, live.has(disk.id), wait);
    },
    async release(given: Snapshot, wait?: Wait): Promise<void> {
      wait?.signal?.throwIfAborted();
      // Nothing was made on the place: a point in time here is only remembered.
      for (const disk of given.disks) live.delete(disk.id);
    },
    async *owned(): AsyncIterable<OwnedResource> {},
    async [Symbol.asyncDispose](): Promise<void> {
      live.clear();
      for (const disk of disks) await disk.source.close();
    },
  };
}

/** Gives each disk its machine and key, from the options or its place. */
export function nameDisks(options: LocalOptions, sources: readonly DiskSource[]): NamedDisk[] {
  const given = options.disks ?? [options];
  const named = sources.map((source, index): NamedDisk => {
    const disk = given[index]!;
    const short = basename(source.place) || source.place;
    const machine = options.machine ?? source.place;
    const key = disk.key ?? (options.machine === undefined ? "disk" : short);
    return { machine, machineName: options.machine ?? short, key, boot: disk.boot, source };
  });
  for (const [index, disk] of named.entries()) {
    const first = named.findIndex((other) => other.machine === disk.machine && other.key === disk.key);
    if (first === index) continue;
    throw localError("CONFIG_INVALID", `two disks of ${disk.machine} go by the key ${disk.key}; give each its own key`);
  }
  return named;
}

function namesOf(disks: readonly NamedDisk[]): string {
  const names = [...new Set(disks.map((disk) => disk.machine))];
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}
