import { CreateTagsCommand } from "@aws-sdk/client-ec2";
import {
  type ChangeTracker,
  type ChangesOptions,
  type Checkpoint,
  type DiskSnapshot,
  type Machine,
  type Tile,
  type TrackerStatus,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames } from "../connection/tags.ts";
import { type ListedBlock, listBlocks } from "./block-listing.ts";
import {
  type BasePoint,
  demandLineage,
  diskData,
  readCheckpoint,
  trackingLost,
  writeCheckpoint,
} from "./checkpoint.ts";
import { demandReadable, describeSnapshot, ebsBlockSize } from "./snapshot-facts.ts";

/** A range of a disk and what is listed of it. */
interface Part {
  from: number;
  to: number;
  /** What it holds where the listing names no block. */
  gap: "zero" | "unchanged";
  pages: AsyncIterable<Iterable<ListedBlock>> | [];
}

/**
 * Changes between two snapshots of a volume, by the EBS direct APIs. It is always on: AWS keeps for every snapshot which
 * blocks are its own, as long as both snapshots exist.
 */
export class EbsTracker implements ChangeTracker {
  readonly keepsBase: true = true;
  readonly #connection: AwsConnection;

  constructor(connection: AwsConnection) {
    this.#connection = connection;
  }

  async status(_machine: Machine, _disk: string, wait: Wait = {}): Promise<TrackerStatus> {
    wait.signal?.throwIfAborted();
    return {
      supported: true,
      enabled: true,
      detail: "EBS tells the difference of any two snapshots of a volume, as long as both exist",
    };
  }

  /** The token of a snapshot; one of ours is tagged as held, so that nobody takes it for a leftover. */
  async checkpoint(disk: DiskSnapshot, wait: Wait = {}): Promise<Checkpoint | undefined> {
    wait.signal?.throwIfAborted();
    const { made, volumeId } = diskData(disk);
    const { region } = this.#connection;
    if (made) {
      const { held } = tagNames(this.#connection.settings.product);
      const Tags = [{ Key: held, Value: "base of the next incremental run" }];
      await this.#connection.ec2(new CreateTagsCommand({ Resources: [disk.id], Tags }), { object: disk.id, ...wait });
    }
    return writeCheckpoint({ snapshotId: disk.id, volumeId, region, size: disk.size });
  }

  changes(disk: DiskSnapshot, options: ChangesOptions = {}): AsyncIterable<Tile> {
    return tiles(this.#parts(disk, options));
  }

  async *#parts(disk: DiskSnapshot, { since, from = 0, to = disk.size, signal }: ChangesOptions): AsyncGenerator<Part> {
    signal?.throwIfAborted();
    if (from < 0 || to > disk.size || from > to || from % 512 !== 0 || to % 512 !== 0)
      throw new RangeError(`${disk.id}: ${from} to ${to} is no range of ${disk.size} bytes`);
    if (since === undefined) {
      yield { from, to, gap: "zero", pages: this.#list(disk.id, undefined, from, signal) };
      return;
    }
    const base = readCheckpoint(since);
    demandLineage(base, { ...diskData(disk), size: disk.size });
    if (base.snapshotId === disk.id) {
      yield { from, to, gap: "unchanged", pages: [] };
      return;
    }
    await this.#demandBase(base, signal);
    const oldEnd = Math.min(to, base.size);
    if (from < oldEnd) yield { from, to: oldEnd, gap: "unchanged", pages: this.#list(disk.id, base, from, signal) };
    // What the disk grew by is told by what the snapshot holds there: nothing documents how a comparison ends.
    const grown = Math.max(from, base.size);
    if (grown < to) yield { from: grown, to, gap: "zero", pages: this.#list(disk.id, undefined, grown, signal) };
  }

  async *#list(
    snapshotId: string,
    base: BasePoint | undefined,
    from: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Iterable<ListedBlock>> {
    const request = { snapshotId, firstSnapshotId: base?.snapshotId, from: Math.floor(from / ebsBlockSize), signal };
    try {
      yield* listBlocks(this.#connection, request);
    } catch (error) {
      if (base === undefined || !isProviderError(error) || error.code !== "NOT_FOUND") throw error;
      // The answer does not say which of the two is gone.
      await describeSnapshot(this.#connection, snapshotId, { signal });
      throw trackingLost(`the base ${base.snapshotId} is gone`, error);
    }
  }

  async #demandBase(base: BasePoint, signal: AbortSignal | undefined): Promise<void> {
    try {
      const facts = await describeSnapshot(this.#connection, base.snapshotId, { signal });
      demandReadable(facts);
      demandLineage(base, { ...facts, region: base.region });
      if (facts.size !== base.size) throw trackingLost(`the base ${base.snapshotId} has another size than it had`);
    } catch (error) {
      if (!isProviderError(error)) throw error;
      if (error.code === "NOT_FOUND") throw trackingLost(`the base ${base.snapshotId} is gone`, error);
      if (error.code === "UNSUPPORTED") throw trackingLost(`the base cannot be read. ${error.message}`, error);
      throw error;
    }
  }
}

/** The tiles of all parts: their listings' blocks, and between them what the listings leave out. */
async function* tiles(parts: AsyncIterable<Part>): AsyncGenerator<Tile> {
  for await (const { from, to, gap, pages } of parts) {
    let at = from;
    // By the page, and yielded here alone: a further wait for every block of a large disk would cost more than its listing.
    listing: for await (const page of pages) {
      for (const { index, token } of page) {
        const start = Math.max(from, index * ebsBlockSize);
        const end = Math.min(to, (index + 1) * ebsBlockSize);
        if (start >= to) break listing;
        if (start > at) yield { offset: at, length: start - at, kind: gap };
        const tile: Tile = { offset: start, length: end - start, kind: token === undefined ? "zero" : "changed" };
        // A tile that is cut lies on no block, and a token is good for a whole one alone.
        if (token !== undefined && tile.length === ebsBlockSize) tile.hint = token;
        yield tile;
        at = end;
      }
    }
    if (at < to) yield { offset: at, length: to - at, kind: gap };
  }
}
