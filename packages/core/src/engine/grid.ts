import { ProviderError } from "../provider/error.ts";
import type { Extent, Tile } from "../provider/extents.ts";

/** A piece of an item that one call reads. */
export interface ReadPiece extends Extent {
  hint?: unknown;
}

/**
 * One unit of work, whole leaves of the disk (the last may be short): `copy` reads it, `zero` knows that it reads as
 * zeroes.
 */
export interface WorkItem extends Extent {
  kind: "copy" | "zero";
  /** What really changed inside, ascending, where that is less than all: enough to write onto a trusted base. */
  parts?: Extent[];
  /** How to read it, where tiles carried hints; absent: in one call without a hint. */
  pieces?: ReadPiece[];
}

export interface GridOptions {
  /** Bytes of a leaf; a power of two. */
  leaf: number;
  /** Bytes of the disk. */
  size: number;
  /** The most bytes of a copy item; a multiple of `leaf`. */
  itemLength: number;
  /** The most bytes of a zero item; a multiple of `leaf`. */
  zeroLength: number;
}

/**
 * Lays tiles onto the grid of leaves: `changed` widens outward to whole leaves, `zero` shrinks inward and its edges
 * become data, `unchanged` leaves drop out. Items come ascending and never overlap.
 */
export async function* workOf(tiles: AsyncIterable<Tile>, options: GridOptions): AsyncGenerator<WorkItem, void> {
  const { leaf, size } = options;
  let pending: WorkItem | undefined;
  let partial: Tile[] = [];

  function* add(item: WorkItem): Generator<WorkItem, void> {
    const limit = item.kind === "copy" ? options.itemLength : options.zeroLength;
    if (pending !== undefined && mergeable(pending, item, limit)) {
      pending.length += item.length;
      if (item.pieces !== undefined) pending.pieces?.push(...item.pieces);
      return;
    }
    if (pending !== undefined) yield pending;
    pending = item;
  }

  function* addRange(offset: number, length: number, kind: "copy" | "zero", hint: unknown): Generator<WorkItem, void> {
    const limit = kind === "copy" ? options.itemLength : options.zeroLength;
    let position = offset;
    const end = offset + length;
    while (position < end) {
      // Items begin at multiples of their limit, so that they fall on the boundaries storage likes.
      const stop = Math.min(end, (Math.floor(position / limit) + 1) * limit);
      const item: WorkItem = { offset: position, length: stop - position, kind };
      if (hint !== undefined && kind === "copy") item.pieces = [{ offset: position, length: stop - position, hint }];
      yield* add(item);
      position = stop;
    }
  }

  for await (const tile of tiles) {
    const before = partial.at(-1);
    if (before !== undefined && before.offset + before.length !== tile.offset) throw brokenOff(before, leaf);
    let position = tile.offset;
    const end = tile.offset + tile.length;
    while (position < end) {
      const leafStart = position - (position % leaf);
      const leafEnd = Math.min(leafStart + leaf, size);
      if (position === leafStart && end >= leafEnd) {
        const wholeEnd = end >= size ? size : end - (end % leaf);
        if (tile.kind !== "unchanged") {
          yield* addRange(position, wholeEnd - position, tile.kind === "zero" ? "zero" : "copy", tile.hint);
        }
        position = wholeEnd;
        continue;
      }
      const stop = Math.min(end, leafEnd);
      const piece: Tile = { offset: position, length: stop - position, kind: tile.kind };
      if (tile.hint !== undefined) piece.hint = tile.hint;
      partial.push(piece);
      position = stop;
      if (stop === leafEnd) {
        const item = mixedLeaf(leafStart, leafEnd - leafStart, partial);
        if (item !== undefined) yield* add(item);
        partial = [];
      }
    }
  }
  const rest = partial.at(-1);
  if (rest !== undefined) throw brokenOff(rest, leaf);
  if (pending !== undefined) yield pending;
}

/** Tiles that end inside a leaf would leave bytes of it out without a word. */
function brokenOff({ offset, length }: Extent, leaf: number): ProviderError {
  return new ProviderError(
    "CORRUPT",
    `The tiles break off at ${offset + length}, inside a block of ${leaf} bytes: they have to cover whole blocks.`,
    { operation: "changes" },
  );
}

function mergeable(before: WorkItem, item: WorkItem, limit: number): boolean {
  return (
    before.kind === item.kind &&
    before.parts === undefined &&
    item.parts === undefined &&
    (before.pieces === undefined) === (item.pieces === undefined) &&
    before.offset + before.length === item.offset &&
    Math.floor(before.offset / limit) === Math.floor((item.offset + item.length - 1) / limit)
  );
}

/** A leaf that several tiles share. */
function mixedLeaf(offset: number, length: number, tiles: readonly Tile[]): WorkItem | undefined {
  if (tiles.every((tile) => tile.kind === "unchanged")) return undefined;
  if (tiles.every((tile) => tile.kind === "zero")) return { offset, length, kind: "zero" };
  const parts: Extent[] = [];
  for (const tile of tiles) {
    if (tile.kind === "unchanged") continue;
    const last = parts.at(-1);
    if (last !== undefined && last.offset + last.length === tile.offset) last.length += tile.length;
    else parts.push({ offset: tile.offset, length: tile.length });
  }
  const item: WorkItem = { offset, length, kind: "copy" };
  if (parts.length !== 1 || parts[0]?.length !== length) item.parts = parts;
  if (tiles.some((tile) => tile.hint !== undefined)) {
    item.pieces = tiles.map((tile) =>
      tile.hint === undefined
        ? { offset: tile.offset, length: tile.length }
        : { offset: tile.offset, length: tile.length, hint: tile.hint },
    );
  }
  return item;
}

const MEBIBYTE = 1 << 20;
/** The least that a leaf of a replica has, in bytes. */
export const SMALLEST_LEAF: number = 64 << 10;
/** So many leaves keep a manifest at 16 MiB until the leaf has grown to 1 MiB. */
const WANTED_LEAVES = 512 << 10;

/**
 * The leaf of a new replica, in bytes: 64 KiB on small disks, up to 1 MiB on large ones. It grows further where either
 * end has larger blocks.
 */
export function chooseLeaf(size: number): number {
  let leaf = SMALLEST_LEAF;
  while (leaf < MEBIBYTE && size / leaf > WANTED_LEAVES) leaf *= 2;
  return leaf;
}
