import type { NbdClient, NbdExtent } from "@diskferry/nbd";
import type {
  BlockReader,
  ChangesOptions,
  Checkpoint,
  Disk,
  DiskSnapshot,
  Tile,
  TileKind,
  TrackerStatus,
  Wait,
} from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { nbdAddress } from "../nbd/nbd-options.ts";
import { NbdPlace, blockSizeOf, checkExportSize, endsSession } from "../nbd/nbd-place.ts";
import { openNbdReader } from "../nbd/nbd-reader.ts";
import { claimPlace } from "../open-places.ts";
import type { DiskOptions } from "../options.ts";
import type { DiskMoment, DiskSource } from "./disk-source.ts";
import { hashOf, withRelease } from "./raw-disk.ts";

const allocation = "base:allocation";
const bitmapPrefix = "qemu:dirty-bitmap:";

/** The meta context that holds a bitmap: QEMU's, unless the name is that of a context itself, such as our own server's. */
function contextOf(bitmap: string): string {
  return bitmap.includes(":") ? bitmap : bitmapPrefix + bitmap;
}

/** NBD protocol, "base:allocation" metadata context: bit 1 is set where the range reads as zeroes. */
const readsAsZeroes = 2;
/** QEMU docs/interop/nbd.txt: bit 0 of a dirty bitmap's status is set where the range was written. */
const dirty = 1;

/** The token's first member, so that a token of another kind or age is seen for what it is. */
const tokenKind = "nbd-bitmap-1";

/**
 * An NBD export to copy from. Its allocation (`base:allocation`) spares reading zeroes. With `bitmap` it tracks changes:
 * the bitmap of that name holds every write since the point in time that is copied, and the next run reads it. The
 * bitmap is made and cleared by whoever runs the server: at the very moment the point in time is fixed, and never before
 * the run that reads it has been recorded. A bitmap that was cleared too late costs time; one cleared too early, changes.
 */
export function nbdDisk(options: DiskOptions & { uri: string }): DiskSource {
  const contexts = options.bitmap === undefined ? [allocation] : [allocation, contextOf(options.bitmap)];
  const place = new NbdPlace(nbdAddress(options), contexts);
  const { uri } = place;

  async function sizeOf(wait: Wait | undefined): Promise<number> {
    const client = await place.client(wait);
    checkExportSize(client);
    return client.size;
  }

  /** A machine of the same name may be served elsewhere now; its point in time is not that of the other server. */
  function checkHere(disk: DiskSnapshot): void {
    const there = disk.data?.["uri"];
    if (there === uri) return;
    const where = typeof there === "string" ? `of ${there}` : "of a disk of another kind";
    throw localError("NOT_FOUND", `the snapshot ${disk.id} is ${where}, and this is ${uri}; start a new run`);
  }

  async function client(disk: DiskSnapshot, wait: Wait): Promise<NbdClient> {
    checkHere(disk);
    const live = await place.client(wait);
    checkExportSize(live);
    if (live.size === disk.size) return live;
    throw localError("NOT_FOUND", `${uri} had ${disk.size} bytes and has ${live.size}; start a new run`);
  }

  return {
    place: uri,
    async describe(wait?: Wait): Promise<Omit<Disk, "key">> {
      return { size: await sizeOf(wait), name: options.name ?? uri };
    },
    async moment(key: string, wait?: Wait): Promise<DiskMoment> {
      const size = await sizeOf(wait);
      // A server tells nothing of its content's age: what tells two points in time apart is the request alone.
      return { id: hashOf([uri, String(size), key]), size, frozen: options.frozen === true, data: { uri } };
    },
    async open(disk: DiskSnapshot, _live: boolean, wait?: Wait): Promise<BlockReader> {
      checkHere(disk);
      const release = claimPlace({ place: uri, label: uri }, "source");
      try {
        return withRelease(await openNbdReader(place, disk.size, wait), release);
      } catch (error) {
        release();
        throw error;
      }
    },
    async checkpoint(disk: DiskSnapshot, wait: Wait = {}): Promise<Checkpoint | undefined> {
      const { bitmap } = options;
      if (bitmap === undefined) return undefined;
      const { metaContexts } = await client(disk, wait);
      if (!metaContexts.includes(contextOf(bitmap))) return undefined;
      return JSON.stringify([tokenKind, disk.machine, disk.disk, disk.size, bitmap]);
    },
    async *changes(disk: DiskSnapshot, request: ChangesOptions): AsyncGenerator<Tile, void, void> {
      const from = request.from ?? 0;
      const to = request.to ?? disk.size;
      const bitmap = request.since === undefined ? undefined : bitmapIn(request.since, uri, disk);
      const live = await client(disk, request);
      if (bitmap !== undefined && !live.metaContexts.includes(contextOf(bitmap))) {
        throw lost(
          uri,
          `the server does not show the dirty bitmap ${bitmap}; start it with that bitmap (qemu-nbd -B ${bitmap})`,
        );
      }
      const asked = [allocation, ...(bitmap === undefined ? [] : [contextOf(bitmap)])].filter((context) =>
        live.metaContexts.includes(context),
      );
      if (asked.length === 0) {
        if (to > from) yield { offset: from, length: to - from, kind: "changed" };
        return;
      }
      try {
        const extents = live.blockStatus(from, to - from, { contexts: asked, signal: request.signal });
        yield* tilesOf(extents, bitmap, blockSizeOf(live), to);
      } catch (error) {
        if (endsSession(error)) await place.retire(live);
        throw error;
      }
    },
    async status(wait?: Wait): Promise<TrackerStatus> {
      const { metaContexts } = await place.client(wait);
      const { bitmap } = options;
      const shown = metaContexts.filter((context) => context !== allocation);
      if (bitmap === undefined) {
        return {
          supported: true,
          enabled: false,
          detail: `${uri}: name a QEMU dirty bitmap (bitmap) to track changes`,
        };
      }
      const enabled = shown.includes(contextOf(bitmap));
      const names = shown.join(", ") || "none";
      return { supported: true, enabled, detail: `${uri}: bitmap ${bitmap} asked for, shown: ${names}` };
    },
    close: () => place.close(),
  };
}

/**
 * Tiles of block status. Extents of a server need not keep to the grid of its blocks: a block of which two things are
 * told is changed, since what is read is right whatever they were.
 */
export async function* tilesOf(
  extents: AsyncIterable<NbdExtent>,
  bitmap: string | undefined,
  unit: number,
  to: number,
): AsyncGenerator<Tile, void, void> {
  let tile: Tile | undefined;
  for await (const piece of onGrid(extents, bitmap, unit, to)) {
    if (tile !== undefined && tile.kind === piece.kind) {
      tile.length += piece.length;
      continue;
    }
    if (tile !== undefined) yield tile;
    tile = piece;
  }
  if (tile !== undefined) yield tile;
}

async function* onGrid(
  extents: AsyncIterable<NbdExtent>,
  bitmap: string | undefined,
  unit: number,
  to: number,
): AsyncGenerator<Tile, void, void> {
  /** A block of which only the first part has been told. */
  let open: Tile | undefined;
  for await (const extent of extents) {
    const kind = kindOf(extent.flags, bitmap);
    const end = extent.offset + extent.length;
    for (let offset = extent.offset; offset < end;) {
      const blockEnd = Math.min(to, (Math.floor(offset / unit) + 1) * unit);
      const whole = end === to ? end : Math.floor(end / unit) * unit;
      if (open === undefined && whole > offset) {
        yield { offset, length: whole - offset, kind };
        offset = whole;
        continue;
      }
      const told = Math.min(end, blockEnd);
      open = {
        offset: open?.offset ?? offset,
        length: told - (open?.offset ?? offset),
        kind: open === undefined || open.kind === kind ? kind : "changed",
      };
      if (told === blockEnd) {
        yield open;
        open = undefined;
      }
      offset = told;
    }
  }
}

function kindOf(flags: NbdExtent["flags"], bitmap: string | undefined): TileKind {
  if (bitmap !== undefined && ((flags[contextOf(bitmap)] ?? dirty) & dirty) === 0) return "unchanged";
  // HOLE alone promises nothing of the content.
  return ((flags[allocation] ?? 0) & readsAsZeroes) === 0 ? "changed" : "zero";
}

/** A disk is known by its machine and key; where neither was stated, its address stands in for the machine. */
function bitmapIn(since: Checkpoint, uri: string, disk: DiskSnapshot): string {
  let token: unknown;
  try {
    token = JSON.parse(since);
  } catch {
    token = undefined;
  }
  const [kind, machine, key, size, bitmap] = Array.isArray(token) ? (token as unknown[]) : [];
  if (kind !== tokenKind || typeof bitmap !== "string") throw lost(uri, "its checkpoint is not one of a dirty bitmap");
  if (machine !== disk.machine || key !== disk.disk) {
    throw lost(uri, `its checkpoint belongs to the disk ${String(key)} of ${String(machine)}`);
  }
  if (size !== disk.size) throw lost(uri, `it had ${String(size)} bytes and has ${disk.size}`);
  return bitmap;
}

function lost(uri: string, why: string): unknown {
  return localError("TRACKING_LOST", `${uri}: what changed since the last run is not known: ${why}`, {
    operation: "changes",
  });
}
