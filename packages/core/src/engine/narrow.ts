import type { Tile } from "../provider/extents.ts";
import { digestLength, isUnknownDigest } from "../manifest/digest.ts";
import type { Knowledge } from "./knowledge.ts";

/** What one question to the far side covers, in bytes. */
const WINDOW = 64 << 20;

/** Digests of the source's leaves from `offset` on, computed where the source is; undefined: it does not, read them. */
export type FarDigests = (offset: number, length: number) => Promise<Uint8Array | undefined>;

/**
 * Calls whole leaves `unchanged` whose digest, computed at the far side, is the one the target is known to hold, so that
 * they are never read. Tiles with hints, and the parts of leaves at a tile's edges, stay as they are.
 */
export async function* narrowed(
  tiles: AsyncIterable<Tile>,
  knowledge: Knowledge,
  farDigests: FarDigests,
  onSame: (bytes: number) => void,
): AsyncGenerator<Tile, void> {
  const { leaf, size } = knowledge;
  for await (const tile of tiles) {
    const end = tile.offset + tile.length;
    const first = Math.ceil(tile.offset / leaf) * leaf;
    const last = end === size ? size : Math.floor(end / leaf) * leaf;
    if (tile.kind !== "changed" || tile.hint !== undefined || first >= last) {
      yield tile;
      continue;
    }
    if (first > tile.offset) yield { offset: tile.offset, length: first - tile.offset, kind: "changed" };
    for (let offset = first; offset < last; offset += WINDOW) {
      yield* compared(knowledge, farDigests, offset, Math.min(last, offset + WINDOW), onSame);
    }
    if (last < end) yield { offset: last, length: end - last, kind: "changed" };
  }
}

async function* compared(
  knowledge: Knowledge,
  farDigests: FarDigests,
  from: number,
  to: number,
  onSame: (bytes: number) => void,
): AsyncGenerator<Tile, void> {
  const { leaf } = knowledge;
  const count = Math.ceil((to - from) / leaf);
  const known = await knowledge.builder!.digests(from / leaf, count);
  // Where nothing is known there is nothing to compare with, and asking would only cost the far side its time.
  const anyKnown = Array.from({ length: count }, (_, index) => slice(known, index)).some(
    (digest) => !isUnknownDigest(digest),
  );
  const far = anyKnown ? await farDigests(from, to - from) : undefined;
  let tile: Tile | undefined;
  for (let index = 0; index < count; index++) {
    const offset = from + index * leaf;
    const length = Math.min(leaf, to - offset);
    const same = far !== undefined && Buffer.compare(slice(known, index), slice(far, index)) === 0;
    const kind = same ? "unchanged" : "changed";
    if (same) onSame(length);
    if (tile?.kind === kind) tile.length += length;
    else {
      if (tile !== undefined) yield tile;
      tile = { offset, length, kind };
    }
  }
  if (tile !== undefined) yield tile;
}

function slice(digests: Uint8Array, index: number): Uint8Array {
  return digests.subarray(index * digestLength, (index + 1) * digestLength);
}
