import { digestLength, zeroDigest } from "../manifest/digest.ts";
import type { ManifestBuilder } from "../manifest/manifest-builder.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Extent, Tile } from "../provider/extents.ts";
import type { Batch, CopyItem } from "./copier.ts";
import { Grid, type WorkItem } from "./grid.ts";
import type { Knowledge } from "./knowledge.ts";
import { narrowed, type FarDigests } from "./narrow.ts";
import { distrust } from "./tiles.ts";

/** Batches that become durable together. */
export interface Group {
  batches: Batch[];
  /** Everything in it, ascending: the journal's intent. */
  extents: Extent[];
  /** Bytes of it that will be read. */
  bytes: number;
}

export interface WorkPlanOptions {
  /** What the tiles cover, in bytes. */
  from: number;
  to: number;
  knowledge: Knowledge;
  algorithm: DigestAlgorithm | "none";
  itemLength: number;
  /** The most bytes of one zero item. */
  zeroLength: number;
  /** Whether the target is proven to read as zeroes wherever no run wrote. */
  blank: boolean;
  /** Whether digests of the target are to be compared with, asked for every item: not when everything has to be sent. */
  compare: () => boolean;
  /** Whether the target holds the record's content, so that changed parts of a leaf are enough. */
  parts: boolean;
  /** Asked anew for every group. */
  groupBytes: () => number;
  groupMs: number;
  /** Where the source hashes: leaves that the target holds already are not even read. */
  farDigests: FarDigests | undefined;
  /** Told of bytes that the far side's digests showed to be equal. */
  same(bytes: number): void;
  /** Told of bytes that need no work: done by an earlier attempt, or known to be right already. */
  settled(bytes: number): void;
}

/** Items that travel together to a lane. */
export const BATCH_BYTES: number = 8 << 20;
const BATCH_ITEMS = 128;
const GROUP_ITEMS = 8192;

/**
 * The work that tiles leave to do, in groups: leaves that an earlier attempt of this run made durable are left out, and
 * so are zeroes where the target is known to hold them.
 */
export async function* planWork(tiles: AsyncIterable<Tile>, options: WorkPlanOptions): AsyncGenerator<Group, void> {
  const { knowledge, itemLength, zeroLength } = options;
  const { leaf, size } = knowledge;
  const trusted = distrust(tiles, (offset, end) => knowledge.nextSuspect(offset, end));
  const wanted =
    options.farDigests === undefined || knowledge.builder === undefined || !options.compare()
      ? trusted
      : narrowed(trusted, knowledge, options.farDigests, options.same);
  let group: Group = { batches: [], extents: [], bytes: 0 };
  let batch: Batch = { id: 0, items: [] };
  let batchBytes = 0;
  let items = 0;
  let nextId = 1;
  let begunAt = performance.now();

  const closeBatch = (): void => {
    if (batch.items.length === 0) return;
    batch.id = nextId++;
    group.batches.push(batch);
    batch = { id: 0, items: [] };
    batchBytes = 0;
  };

  let position = options.from;
  for await (const wholes of laid(wanted, new Grid({ leaf, size, itemLength, zeroLength }))) {
    for (const whole of wholes) {
      if (whole.offset > position) options.settled(whole.offset - position);
      position = whole.offset + whole.length;
      for (const item of undone(whole, knowledge, options.settled)) {
        // Waited for only where digests are looked up: there are as many items as the disk has MiB.
        const decided = decideItem(item, options);
        const work = decided instanceof Promise ? await decided : decided;
        if (work === undefined) {
          options.settled(item.length);
          continue;
        }
        batch.items.push(work);
        items++;
        if (work.kind === "copy") {
          batchBytes += work.length;
          group.bytes += work.length;
        }
        const last = group.extents.at(-1);
        if (last !== undefined && last.offset + last.length === work.offset) last.length += work.length;
        else group.extents.push({ offset: work.offset, length: work.length });
        if (batchBytes >= BATCH_BYTES || batch.items.length >= BATCH_ITEMS) closeBatch();
      }
      const late = items > 0 && performance.now() - begunAt >= options.groupMs;
      if (group.bytes >= options.groupBytes() || items >= GROUP_ITEMS || late) {
        closeBatch();
        yield group;
        group = { batches: [], extents: [], bytes: 0 };
        items = 0;
        begunAt = performance.now();
      }
    }
  }
  if (options.to > position) options.settled(options.to - position);
  closeBatch();
  if (group.batches.length > 0) yield group;
}

/** The items of each tile, and the last one. */
async function* laid(tiles: AsyncIterable<Tile>, grid: Grid): AsyncGenerator<Iterable<WorkItem>, void> {
  for await (const tile of tiles) yield grid.lay(tile);
  yield grid.end();
}

/** The pieces of an item whose leaves are not done yet. */
function* undone(item: WorkItem, knowledge: Knowledge, settled: (bytes: number) => void): Generator<WorkItem> {
  const [first, count] = knowledge.leavesOf(item);
  const end = item.offset + item.length;
  let position = item.offset;
  for (const run of knowledge.done.runs(first, first + count)) {
    const start = run.leaf * knowledge.leaf;
    const stop = Math.min(end, start + run.count * knowledge.leaf);
    if (start > position) yield slice(item, position, start);
    settled(stop - start);
    position = stop;
  }
  if (position < end) yield position === item.offset ? item : slice(item, position, end);
}

function slice(item: WorkItem, start: number, end: number): WorkItem {
  const piece: WorkItem = { offset: start, length: end - start, kind: item.kind };
  const inside = <T extends Extent>(extents: readonly T[]): T[] =>
    extents
      .map((extent) => {
        const from = Math.max(extent.offset, start);
        return { ...extent, offset: from, length: Math.min(extent.offset + extent.length, end) - from };
      })
      .filter((extent) => extent.length > 0);
  if (item.parts !== undefined) piece.parts = inside(item.parts);
  if (item.pieces !== undefined) piece.pieces = inside(item.pieces);
  return piece;
}

/** What an item needs; undefined: nothing, the target holds it already. */
function decideItem(item: WorkItem, options: WorkPlanOptions): CopyItem | undefined | Promise<CopyItem | undefined> {
  const { knowledge, algorithm } = options;
  const suspect = knowledge.isSuspect(item);
  const work: CopyItem = { ...item, blank: options.blank && !suspect };
  if (suspect || !options.parts) delete work.parts;
  if (knowledge.builder !== undefined && algorithm !== "none") {
    return compareItem(work, knowledge, knowledge.builder, algorithm, options.compare);
  }
  return item.kind === "zero" && work.blank ? undefined : work;
}

/** Leaves out what digests show that the target holds. */
async function compareItem(
  work: CopyItem,
  knowledge: Knowledge,
  builder: ManifestBuilder,
  algorithm: DigestAlgorithm,
  compare: () => boolean,
): Promise<CopyItem | undefined> {
  const [first, count] = knowledge.leavesOf(work);
  if (work.kind === "zero") {
    const zeroes = zeroDigests(algorithm, knowledge, first, count);
    if (compare() && (await builder.holds(first, zeroes))) return undefined;
    if (work.blank) {
      await builder.setMany(first, zeroes);
      return undefined;
    }
  } else if (compare()) {
    work.base = await builder.digests(first, count);
  }
  return work;
}

/** The digests of leaves that hold zeroes, not to be written to; the disk's last leaf may be short. */
export function zeroDigests(
  algorithm: DigestAlgorithm,
  shape: { leaf: number; size: number },
  first: number,
  count: number,
): Uint8Array {
  const full = zeroRun(algorithm, shape.leaf, count);
  const last = shape.size - (first + count - 1) * shape.leaf;
  if (last >= shape.leaf) return full;
  const digests = full.slice();
  digests.set(zeroDigest(algorithm, last), (count - 1) * digestLength);
  return digests;
}

/** The last run of a bounded length, by algorithm and leaf: a new one for every hole is garbage by the hundred MiB. */
const zeroRuns = new Map<string, Uint8Array>();
const LONGEST_KEPT_RUN = 16_384;

function zeroRun(algorithm: DigestAlgorithm, leaf: number, count: number): Uint8Array {
  const key = `${algorithm} ${leaf}`;
  const length = count * digestLength;
  const known = zeroRuns.get(key);
  if (known !== undefined && known.byteLength >= length) return known.subarray(0, length);
  const run = new Uint8Array(length);
  const digest = zeroDigest(algorithm, leaf);
  for (let at = 0; at < length; at += digestLength) run.set(digest, at);
  if (count <= LONGEST_KEPT_RUN) zeroRuns.set(key, run);
  return run;
}
