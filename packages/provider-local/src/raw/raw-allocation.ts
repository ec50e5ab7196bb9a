import { closeSync, fdatasync } from "node:fs";
import { promisify } from "node:util";
import type { Tile, Wait } from "@diskferry/core/provider";
import { translate } from "../errors.ts";
import { dataExtents } from "./data-extents.ts";
import { openRaw } from "./raw-file.ts";

/** Tiles begin and end at multiples of this: one hole more or less is nothing beside a tile's cost. */
const grain = 64 * 1024;

const fdatasyncOf: (fd: number) => Promise<void> = promisify(fdatasync);

/**
 * Tiles over [from, to) of a raw file: `zero` where it has holes, else `changed`. A file without holes, a device, and a
 * file whose holes cannot be listed are `changed` throughout: slower, and as right, since zeroes are found by reading.
 */
export async function* rawAllocation(
  path: string,
  place: string | undefined,
  range: { from: number; to: number },
  wait: Wait = {},
): AsyncGenerator<Tile, void, void> {
  const { from, to } = range;
  const file = openRaw(path, { place });
  try {
    if (file.kind === "device" || (file.allocated ?? file.size) >= file.size) {
      if (to > from) yield { offset: from, length: to - from, kind: "changed" };
      return;
    }
    // Some file systems tell of data only once it is on its way to the disk (ZFS before 2.2.2 even lost it here).
    await fdatasyncOf(file.fd);
    let position = from;
    const listing = dataExtents(file.fd, file.size, wait);
    try {
      for (;;) {
        const next = await listing.next();
        if (next.done === true) {
          if (position < to)
            yield { offset: position, length: to - position, kind: next.value.complete ? "zero" : "changed" };
          return;
        }
        const start = Math.max(position, Math.floor(next.value.offset / grain) * grain);
        const end = Math.min(to, Math.ceil((next.value.offset + next.value.length) / grain) * grain);
        if (end <= position) continue;
        if (start >= to) break;
        if (start > position) yield { offset: position, length: start - position, kind: "zero" };
        yield { offset: start, length: end - start, kind: "changed" };
        position = end;
      }
      if (position < to) yield { offset: position, length: to - position, kind: "zero" };
    } finally {
      await listing.return({ complete: false });
    }
  } catch (error) {
    throw translate(error, "listing data", path);
  } finally {
    closeSync(file.fd);
  }
}
