import type {
  BlockReader,
  ChangeTracker,
  Disk,
  DiskSnapshot,
  Machine,
  Snapshot,
  SourceConnector,
  Tile,
} from "@diskferry/core/provider";
import type { SourceHarness } from "./harness.ts";
import { freshKey, gather, type Judge, pattern } from "./judge.ts";

/** A source under test with its guest, and the words in which clauses speak of them. */
export class SourceWorld {
  readonly judge: Judge;
  readonly harness: SourceHarness;
  readonly source: SourceConnector;
  readonly machine: Machine;
  readonly disk: Disk;
  readonly #snapshots = new Map<DiskSnapshot, Snapshot>();

  private constructor(judge: Judge, harness: SourceHarness, source: SourceConnector, machine: Machine, disk: Disk) {
    this.judge = judge;
    this.harness = harness;
    this.source = source;
    this.machine = machine;
    this.disk = disk;
  }

  static async open(judge: Judge): Promise<SourceWorld> {
    const harness = judge.needs(judge.harness.source, "source");
    const source = await harness.open();
    judge.defer(() => source[Symbol.asyncDispose]());
    const machine = await source.machine(harness.machine);
    const disk = machine.disks.find(({ key }) => key === harness.disk);
    if (disk === undefined) throw new TypeError(`harness: machine ${harness.machine} has no disk ${harness.disk}`);
    return new SourceWorld(judge, harness, source, machine, disk);
  }

  /** Another connection, as after a restart. */
  async restarted(): Promise<SourceConnector> {
    const source = await this.harness.open();
    this.judge.defer(() => source[Symbol.asyncDispose]());
    return source;
  }

  /** Snapshots the machine and releases it when the clause was judged. */
  async snapshot(options: { key?: string; disks?: string[]; job?: string } = {}): Promise<Snapshot> {
    const { key = freshKey("snapshot"), ...rest } = options;
    const snapshot = await this.source.snapshot(this.machine, { key, ...rest });
    this.judge.defer(() => this.source.release(snapshot));
    return snapshot;
  }

  /** The disk under test in a snapshot. */
  of(snapshot: Snapshot, key: string = this.disk.key): DiskSnapshot {
    const found = snapshot.disks.find(({ disk }) => disk === key);
    return found ?? this.judge.fail(`snapshot ${snapshot.id} holds no disk ${key}`);
  }

  /** Snapshots the disk under test alone. */
  async point(): Promise<DiskSnapshot> {
    const snapshot = await this.snapshot({ disks: [this.disk.key] });
    const point = this.of(snapshot);
    this.#snapshots.set(point, snapshot);
    return point;
  }

  /**
   * Gives a point in time up as core does once its checkpoint is recorded: where the tracker keeps no base it goes before the
   * next one is taken, and a checkpoint has to do without it.
   */
  async recorded(point: DiskSnapshot): Promise<void> {
    const snapshot = this.#snapshots.get(point);
    if (snapshot !== undefined && this.tracker.keepsBase !== true) await this.source.release(snapshot);
  }

  /** The next point in time of the disk under test, once `before` was recorded. */
  async pointAfter(before: DiskSnapshot): Promise<DiskSnapshot> {
    await this.recorded(before);
    return this.point();
  }

  async reader(disk: DiskSnapshot, source: SourceConnector = this.source): Promise<BlockReader> {
    const reader = await source.open(disk);
    this.judge.defer(() => reader[Symbol.asyncDispose]());
    return reader;
  }

  /** Reads a range through a reader of its own, as far as the reader's blocks allow in pieces of 1 MiB. */
  async read(
    disk: DiskSnapshot,
    offset = 0,
    length: number = disk.size - offset,
    source?: SourceConnector,
  ): Promise<Uint8Array> {
    const reader = await this.reader(disk, source);
    return readThrough(reader, offset, length);
  }

  /** A random write of the guest, the same for the same seed; gives back what it wrote and where. */
  async scribble(offset: number, length: number, seed: number): Promise<Uint8Array> {
    const bytes = pattern(length, seed);
    await this.harness.writeGuest(offset, bytes);
    return bytes;
  }

  get tracker(): ChangeTracker {
    return this.judge.needs(this.source.tracker, "source.tracker");
  }

  /** The token of a disk's point in time; leaves the clause unjudged where this disk has none. */
  async checkpoint(disk: DiskSnapshot): Promise<string> {
    const token = await this.tracker.checkpoint(disk);
    return token ?? this.judge.skip("the tracker gave no checkpoint for this disk");
  }

  async tiles(disk: DiskSnapshot, options: { since?: string; from?: number; to?: number } = {}): Promise<Tile[]> {
    return gather(this.tracker.changes(disk, options));
  }

  /** Demands that tiles are ascending, contiguous and cover [from, to). */
  tiled(tiles: readonly Tile[], from: number, to: number): void {
    let at = from;
    for (const { offset, length } of tiles) {
      this.judge.demand(offset === at, `a tile at ${offset} where ${at} had to follow`);
      this.judge.demand(length > 0, `a tile of ${length} bytes at ${offset}`);
      at = offset + length;
    }
    this.judge.demand(at === to, `tiles that end at ${at}, not at ${to}`);
  }

  /**
   * Demands that what tiles call unchanged is what `before` held, and that what they call zero is zero. Without
   * `before` nothing but zeroes may be called unchanged.
   */
  async never(tiles: readonly Tile[], now: DiskSnapshot, before?: Uint8Array): Promise<void> {
    const bytes = await this.read(now);
    for (const { offset, length, kind } of tiles) {
      if (kind === "changed") continue;
      const here = bytes.subarray(offset, offset + length);
      const then = new Uint8Array(length);
      if (kind === "unchanged" && before !== undefined) then.set(before.subarray(offset, offset + length));
      const held = Buffer.compare(here, then) === 0;
      const meaning =
        kind === "zero" || before === undefined ? "is not all zero" : "is not what the checkpoint's snapshot holds";
      this.judge.demand(held, `a tile called ${kind} at ${offset}+${length}, which ${meaning}`);
    }
  }
}

/** Reads a range in pieces of at most 1 MiB, widened to the reader's blocks. */
export async function readThrough(reader: BlockReader, offset: number, length: number): Promise<Uint8Array> {
  const { blockSize, size } = reader;
  const start = Math.floor(offset / blockSize) * blockSize;
  const end = Math.min(size, Math.ceil((offset + length) / blockSize) * blockSize);
  const step = Math.max(blockSize, 1024 * 1024);
  const bytes = new Uint8Array(end - start).fill(0xa5);
  for (let at = start; at < end; at += step) {
    await reader.read(at, bytes.subarray(at - start, Math.min(end, at + step) - start));
  }
  return bytes.subarray(offset - start, offset - start + length);
}
