import type { ProviderError, Tile, Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";

/** One answer of QueryChangedDiskAreas: which areas of [startOffset, startOffset + length) changed. Bytes. */
export interface AreasPage {
  readonly startOffset: number;
  readonly length: number;
  readonly areas: readonly { readonly start: number; readonly length: number }[];
}

/** What to list. */
export interface AreasRequest extends Wait {
  /** Asks for the page that begins at `startOffset`. */
  page(startOffset: number, wait: Wait): Promise<AreasPage>;
  /** Bytes of the disk. */
  readonly size: number;
  readonly from: number;
  readonly to: number;
  /** What lies between the areas: `unchanged` since a change id, `zero` where the areas are what is allocated. */
  readonly between: "unchanged" | "zero";
  /** Names the disk in messages. */
  readonly what: string;
}

const sector = 512;
/** No tracker works on less (Virtual Disk Development Kit 7.0, release notes), so every answer covers this much on average. */
const leastPerPage = 65_536;
const spareAnswers = 16;

/**
 * Tiles out of pages: each page has to begin where the one before ended, to advance, and to list its areas in order and
 * within itself. A server answers about 2000 areas, or some hundred GiB of disk, at a time; a page that is missing or cut
 * short must never pass for "unchanged".
 *
 * @throws ProviderError TRACKING_LOST where an answer proves nothing
 */
export async function* tilesOfAreas(request: AreasRequest): AsyncGenerator<Tile, void> {
  const { size, from, to, between, what, signal } = request;
  const mostPages = spareAnswers + Math.ceil((to - from) / leastPerPage);
  let at = from;
  let tiled = from;
  /** Whether the sector in which the last answer ended has changed as far as that answer went. */
  let carried = false;
  for (let page = 0; tiled < to; page++) {
    if (page === mostPages) throw lost(what, `${page} answers did not reach byte ${to}`);
    signal?.throwIfAborted();
    const { startOffset, length, areas } = await request.page(at, { signal });
    signal?.throwIfAborted();
    if (startOffset !== at) throw lost(what, `an answer about byte ${startOffset} where ${at} was asked for`);
    if (!(length > 0)) throw lost(what, `an answer that covers ${length} bytes at ${at}`);
    const end = Math.min(at + length, size);
    const stop = Math.min(to, Math.floor(end / sector) * sector);
    let last = at;
    if (carried && stop > tiled) {
      yield { offset: tiled, length: sector, kind: "changed" };
      tiled += sector;
      carried = false;
    }
    for (const area of areas) {
      const inOrder = area.length > 0 && area.start >= last && area.start < end;
      last = area.start + area.length;
      if (!inOrder || (last > end && end < size)) {
        throw lost(what, `an area of ${area.length} bytes at ${area.start}, in an answer about ${at} to ${end}`);
      }
      // Outward to sectors: more may be called changed than was, never less.
      const first = Math.min(stop, Math.max(tiled, Math.floor(area.start / sector) * sector));
      const until = Math.min(stop, Math.ceil(last / sector) * sector);
      if (first > tiled) yield { offset: tiled, length: first - tiled, kind: between };
      if (until > first) yield { offset: first, length: until - first, kind: "changed" };
      tiled = Math.max(tiled, until);
      if (last > stop) carried = true;
    }
    if (stop > tiled) yield { offset: tiled, length: stop - tiled, kind: between };
    tiled = stop;
    at = end;
  }
}

function lost(what: string, found: string): ProviderError {
  return vsphereError(
    "TRACKING_LOST",
    `The changed areas of ${what} cannot be trusted: ${found}. What changed is found by comparing instead.`,
    { operation: "QueryChangedDiskAreas" },
  );
}
