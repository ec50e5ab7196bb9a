/** A range of a disk in bytes; both numbers are multiples of 512. */
export interface Extent {
  offset: number;
  length: number;
}

/**
 * What a tracker knows of a range: `changed` (read it), `zero` (reads as zeroes, nothing to read) or `unchanged`
 * (holds what it held at the checkpoint; without a checkpoint: never used for anything that may be non-zero).
 */
export type TileKind = "changed" | "zero" | "unchanged";

/**
 * One piece of a change listing. Tiles are ascending and contiguous: each begins where the one before ended, so a
 * listing that was cut short can never look like one that found nothing.
 */
export interface Tile extends Extent {
  kind: TileKind;
  /**
   * Opaque to core; given back to `BlockReader.read` for reads inside this tile (EBS: the block's token). A tile with a
   * hint lies on the reader's blocks.
   */
  hint?: unknown;
}

/** A point in time of one disk, as the source knows it. Plain JSON. */
export interface JsonObject {
  [key: string]: Json | undefined;
}

/** What survives `JSON.stringify`. */
export type Json = string | number | boolean | null | Json[] | JsonObject;
