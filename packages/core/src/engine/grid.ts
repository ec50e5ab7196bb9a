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

/** Lays tiles onto the grid of leaves, see {@link Grid}. */
export async function* workOf(tiles: AsyncIterable<Tile>, options: GridOptions): AsyncGenerator<WorkItem, void> {
  const grid = new Grid(options);
  for await (const tile of tiles) yield* grid.lay(tile);
  yield* grid.end();
}

/**
 * Lays tiles, one after the other, onto the grid of leaves: `changed` widens outward to whole leaves, `zero` shrinks inward
 * and its edges become data, `unchanged` leaves drop out. Items come ascending and never overlap; the last one comes with
 * the tile behind it, or at the end.
 */
export class Grid {
  readonly #options: GridOptions;
  #pending: WorkItem | undefined;
  /** The pieces of tiles that fill the leaf so far which several of them share. */
  #partial: Tile[] = [];

  constructor(options: GridOptions) {
    this.#options = options;
  }

  /** @throws ProviderError CORRUPT when the tiles before broke off inside a leaf. */
  *lay(tile: Tile): Generator<WorkItem, void> {
    const { leaf, size } = this.#options;
    const before = this.#partial.at(-1);
    if (before !== undefined && before.offset + before.length !== tile.offset) throw brokenOff(before, leaf);
    let position = tile.offset;
    const end = tile.offset + tile.length;
    while (position < end) {
      const leafStart = position - (position % leaf);
      const leafEnd = Math.min(leafStart + leaf, size);
      if (position === leafStart && end >= leafEnd) {
        const wholeEnd = end >= size ? size : end - (end % leaf);
        if (tile.kind !== "unchanged") {
          yield* this.#layRange(position, wholeEnd, tile.kind === "zero" ? "zero" : "copy", tile.hint);
        }
        position = wholeEnd;
        continue;
      }
      const stop = Math.min(end, leafEnd);
      const piece: Tile = { offset: position, length: stop - position, kind: tile.kind };
      if (tile.hint !== undefined) piece.hint = tile.hint;
      this.#partial.push(piece);
      position = stop;
      if (stop === leafEnd) {
        const item = mixedLeaf(leafStart, leafEnd - leafStart, this.#partial);
        const whole = item === undefined ? undefined : this.#add(item);
        if (whole !== undefined) yield whole;
        this.#partial = [];
      }
    }
  }

  /** The last item. @throws ProviderError CORRUPT when the tiles broke off inside a leaf. */
  *end(): Generator<WorkItem, void> {
    const rest = this.#partial.at(-1);
    if (rest !== undefined) throw brokenOff(rest, this.#options.leaf);
    if (this.#pending !== undefined) yield this.#pending;
    this.#pending = undefined;
  }

  *#layRange(offset: number, end: number, kind: "copy" | "zero", hint: unknown): Generator<WorkItem, void> {
    const limit = this.#limit(kind);
    let position = offset;
    while (position < end) {
      // Items begin at multiples of their limit, so that they fall on the boundaries storage likes.
      const stop = Math.min(end, (Math.floor(position / limit) + 1) * limit);
      const item: WorkItem = { offset: position, length: stop - position, kind };
      if (hint !== undefined && kind === "copy") item.pieces = [{ offset: position, length: stop - position, hint }];
      const whole = this.#add(item);
      if (whole !== undefined) yield whole;
      position = stop;
    }
  }

  /** Takes an item in; the one before it comes out, unless both are one. */
  #add(item: WorkItem): WorkItem | undefined {
    const pending = this.#pending;
    if (pending !== undefined && mergeable(pending, item, this.#limit(item.kind))) {
      pending.length += item.length;
      if (item.pieces !== undefined) pending.pieces?.push(...item.pieces);
      return undefined;
    }
    this.#pending = item;
    return pending;
  }

  #limit(kind: WorkItem["kind"]): number {
    return kind === "copy" ? this.#options.itemLength : this.#options.zeroLength;
  }
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
