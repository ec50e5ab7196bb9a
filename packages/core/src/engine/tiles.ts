import type { Extent, Tile } from "../provider/extents.ts";
import { ProviderError } from "../provider/error.ts";

/**
 * Passes on tiles and proves that they cover [from, to) without gap or overlap.
 * @throws ProviderError CORRUPT when they do not, or end early: a listing cut short must never look like "unchanged".
 */
export async function* provenTiles(
  tiles: AsyncIterable<Tile>,
  from: number,
  to: number,
  disk: string,
): AsyncGenerator<Tile, void> {
  let position = from;
  for await (const tile of tiles) {
    const aligned = tile.offset % 512 === 0 && tile.length % 512 === 0 && tile.length > 0;
    if (!aligned || tile.offset !== position || tile.offset + tile.length > to) {
      throw new ProviderError(
        "CORRUPT",
        `The change listing of disk ${disk} is broken: expected a tile that begins at ${position} and ends by ${to}, ` +
          `got offset ${tile.offset}, length ${tile.length}. Nothing of this run is recorded; report it to the provider's author.`,
        { operation: "changes" },
      );
    }
    position += tile.length;
    yield tile;
  }
  if (position !== to) {
    throw new ProviderError(
      "CORRUPT",
      `The change listing of disk ${disk} ended at ${position} instead of ${to}. Nothing of this run is recorded; run it again.`,
      { operation: "changes", retryable: true },
    );
  }
}

/**
 * Turns `unchanged` into `changed` wherever `suspect` says that the target cannot be trusted to hold its base.
 * `suspect(offset, end)` gives the next suspect range that touches [offset, end), or undefined.
 */
export async function* distrust(
  tiles: AsyncIterable<Tile>,
  suspect: (offset: number, end: number) => Extent | undefined,
): AsyncGenerator<Tile, void> {
  for await (const tile of tiles) {
    if (tile.kind !== "unchanged") {
      yield tile;
      continue;
    }
    const end = tile.offset + tile.length;
    let position = tile.offset;
    while (position < end) {
      const next = suspect(position, end);
      if (next === undefined) {
        yield { offset: position, length: end - position, kind: "unchanged" };
        break;
      }
      const start = Math.max(next.offset, position);
      const stop = Math.min(next.offset + next.length, end);
      if (start > position) yield { offset: position, length: start - position, kind: "unchanged" };
      yield { offset: start, length: stop - start, kind: "changed" };
      position = stop;
    }
  }
}
