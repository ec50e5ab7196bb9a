import type {
  BlockReader,
  ChangeTracker,
  DiskSnapshot,
  Machine,
  Snapshot,
  SourceConnector,
  Tile,
} from "@diskferry/core/provider";
import { gibi } from "../aws-world.ts";

/*
 * The smallest EBS volume has 1 GiB, and the suite reads whole disks many times. So it is shown the first two and the last
 * two MiB of the first GiB, and the last MiB of each further one, as one disk without what lies between. Every call goes to
 * the provider at its real place: its ends, ranges and growth are those of the real disk.
 */

const mebi = 1024 * 1024;

interface Segment {
  /** Where it stands in the view, and on the disk. */
  view: number;
  real: number;
  length: number;
}

function segments(realSize: number): Segment[] {
  const list = [
    { view: 0, real: 0, length: 2 * mebi },
    { view: 2 * mebi, real: gibi - 2 * mebi, length: 2 * mebi },
  ];
  for (let end = 2 * gibi; end <= realSize; end += gibi) {
    const last = list.at(-1)!;
    list.push({ view: last.view + last.length, real: end - mebi, length: mebi });
  }
  return list;
}

/** Bytes of the view of a disk. */
export function viewSize(realSize: number): number {
  const last = segments(realSize).at(-1)!;
  return last.view + last.length;
}

/** The real pieces of a range of the view; what lies behind the view's end lies behind the disk's end. */
export function realRanges(realSize: number, offset: number, length: number): { offset: number; length: number }[] {
  const found = segments(realSize).flatMap((each) => {
    const start = Math.max(offset, each.view);
    const end = Math.min(offset + length, each.view + each.length);
    return start < end ? [{ offset: start - each.view + each.real, length: end - start }] : [];
  });
  const beyond = offset + length - Math.max(offset, viewSize(realSize));
  const last = found.at(-1);
  if (beyond <= 0) return found;
  if (last === undefined) return [{ offset: realSize, length: beyond }];
  last.length += beyond;
  return found;
}

/** A source whose disks show their ends alone. */
export function sparseView(source: SourceConnector): SourceConnector {
  const machineView = (machine: Machine): Machine => ({
    ...machine,
    disks: machine.disks.map((disk) => ({ ...disk, size: viewSize(disk.size) })),
  });
  const diskView = (disk: DiskSnapshot): DiskSnapshot => ({
    ...disk,
    size: viewSize(disk.size),
    data: { ...disk.data, realSize: disk.size },
  });
  const real = (disk: DiskSnapshot): DiskSnapshot => ({ ...disk, size: Number(disk.data?.["realSize"]) });
  const snapshotView = (snapshot: Snapshot): Snapshot => ({ ...snapshot, disks: snapshot.disks.map(diskView) });
  const { tracker, power } = source;
  return {
    async *machines(wait) {
      for await (const machine of source.machines(wait)) yield machineView(machine);
    },
    machine: async (id, wait) => machineView(await source.machine(id, wait)),
    snapshot: async (machine, request) => snapshotView(await source.snapshot(machine, request)),
    async *snapshots(machine, wait) {
      for await (const snapshot of source.snapshots!(machine, wait)) yield snapshotView(snapshot);
    },
    open: async (disk, wait) => readerView(await source.open(real(disk), wait)),
    release: (snapshot, wait) => source.release(snapshot, wait),
    async *owned(job, wait) {
      for await (const each of source.owned(job, wait))
        yield each.snapshot === undefined ? each : { ...each, snapshot: snapshotView(each.snapshot) };
    },
    preflight: (machine, request) => source.preflight!(machine, request),
    power: power!,
    tracker: trackerView(tracker!, real),
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

function readerView(reader: BlockReader): BlockReader {
  const { size, blockSize, concurrency, preferredLength } = reader;
  return {
    size: viewSize(size),
    blockSize,
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(preferredLength === undefined ? {} : { preferredLength }),
    async read(offset, into, options) {
      let at = 0;
      for (const range of realRanges(size, offset, into.byteLength)) {
        await reader.read(range.offset, into.subarray(at, at + range.length), options);
        at += range.length;
      }
    },
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

function trackerView(tracker: ChangeTracker, real: (disk: DiskSnapshot) => DiskSnapshot): ChangeTracker {
  return {
    keepsBase: tracker.keepsBase!,
    status: (machine, disk, wait) => tracker.status!(machine, disk, wait),
    checkpoint: (disk, wait) => tracker.checkpoint(real(disk), wait),
    async *changes(disk, { from = 0, to = disk.size, ...options } = {}): AsyncGenerator<Tile> {
      const { size } = real(disk);
      let at = from;
      for (const range of realRanges(size, from, to - from)) {
        const shift = at - range.offset;
        const bounds = { from: range.offset, to: range.offset + range.length };
        for await (const tile of tracker.changes(real(disk), { ...options, ...bounds }))
          yield { ...tile, offset: tile.offset + shift };
        at += range.length;
      }
    },
  };
}
