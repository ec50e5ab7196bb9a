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
import { ListingAhead } from "./listing-ahead.ts";
import {
  begunAnew,
  contextIn,
  contextsToAsk,
  isLost,
  knowsTrackings,
  notShown,
  shownAs,
  trackingToken,
} from "./nbd-tracking.ts";
import { hashOf, withRelease } from "./raw-disk.ts";

const allocation = "base:allocation";

/** NBD protocol, "base:allocation" metadata context: bit 1 is set where the range reads as zeroes. */
const readsAsZeroes = 2;
/** QEMU docs/interop/nbd.txt: bit 0 of a dirty bitmap's status is set where the range was written. So it is in ours. */
const dirty = 1;

/**
 * An NBD export to copy from. Its allocation (`base:allocation`) spares reading zeroes. With `bitmap` it tracks changes:
 * the bitmap of that name holds every write since the point in time that is copied, and the next run reads it. The
 * bitmap is made and cleared by whoever runs the server: at the very moment the point in time is fixed, and never before
 * the run that reads it has been recorded. A bitmap that was cleared too late costs time; one cleared too early, changes.
 * That is QEMU's: a tracking of our own server has an identity, and one begun anew is lost tracking.
 */
export function nbdDisk(options: DiskOptions & { uri: string }): DiskSource {
  const contexts = options.bitmap === undefined ? [allocation] : [allocation, ...contextsToAsk(options.bitmap)];
  const place = new NbdPlace(nbdAddress(options), contexts);
  const ahead = new ListingAhead();
  const { uri } = place;

  async function sound(wait: Wait | undefined): Promise<NbdClient> {
    const live = await place.client(wait);
    checkExportSize(live);
    return live;
  }

  /** A session that sees the trackings there are now, and not those there were when an earlier one began. */
  async function current(wait: Wait | undefined): Promise<NbdClient> {
    const live = await sound(wait);
    if (await knowsTrackings(live, wait)) return live;
    await place.retire(live);
    return sound(wait);
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
    const live = await sound(wait);
    if (live.size === disk.size) return live;
    throw localError("NOT_FOUND", `${uri} had ${disk.size} bytes and has ${live.size}; start a new run`);
  }

  async function* stillTracked(
    extents: AsyncIterable<NbdExtent>,
    tracking: string | undefined,
  ): AsyncGenerator<NbdExtent, void, void> {
    for await (const extent of extents) {
      if (tracking !== undefined && isLost(extent.flags, tracking)) throw begunAnew(uri, tracking);
      yield extent;
    }
  }

  return {
    place: uri,
    async describe(wait?: Wait): Promise<Omit<Disk, "key">> {
      return { size: (await sound(wait)).size, name: options.name ?? uri };
    },
    async moment(key: string, wait?: Wait): Promise<DiskMoment> {
      const live = await current(wait);
      const { size, metaContexts } = live;
      // What is shown when the run is recorded may have begun since, and would not know what was written before.
      const tracking = options.bitmap === undefined ? undefined : shownAs(options.bitmap, metaContexts);
      const data = tracking === undefined ? { uri } : { uri, tracking };
      // A server tells nothing of its content's age: what tells two points in time apart is the request alone.
      const id = hashOf([uri, String(size), key]);
      // Found out and asked meanwhile, so that a copy finds it done. What changed is asked for when it is known since when.
      const joined = place.join(live);
      joined.catch(() => {});
      if (tracking === undefined && metaContexts.includes(allocation)) ahead.begin(id, live, [allocation], joined);
      return { id, size, frozen: options.frozen === true, data };
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
      const tracking = disk.data?.["tracking"];
      if (typeof tracking !== "string") return undefined;
      const { metaContexts } = await client(disk, wait);
      return metaContexts.includes(tracking) ? trackingToken(disk, tracking) : undefined;
    },
    async *changes(disk: DiskSnapshot, request: ChangesOptions): AsyncGenerator<Tile, void, void> {
      const from = request.from ?? 0;
      const to = request.to ?? disk.size;
      const tracking = request.since === undefined ? undefined : contextIn(request.since, uri, disk);
      const live = await client(disk, request);
      if (tracking !== undefined && !live.metaContexts.includes(tracking)) throw notShown(uri, tracking);
      const asked = [allocation, ...(tracking === undefined ? [] : [tracking])].filter((context) =>
        live.metaContexts.includes(context),
      );
      if (asked.length === 0) {
        if (to > from) yield { offset: from, length: to - from, kind: "changed" };
        return;
      }
      try {
        const extents = ahead.list(disk.id, live, { from, to, contexts: asked, signal: request.signal });
        yield* tilesOf(stillTracked(extents, tracking), tracking, blockSizeOf(live), to);
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
      const enabled = shownAs(bitmap, shown) !== undefined;
      const names = shown.join(", ") || "none";
      return { supported: true, enabled, detail: `${uri}: bitmap ${bitmap} asked for, shown: ${names}` };
    },
    close(): Promise<void> {
      ahead.drop();
      return place.close();
    },
  };
}

/**
 * Tiles of block status; `tracking` is the context that tells what changed, if one does. Extents of a server need not
 * keep to the grid of its blocks: a block of which two things are told is changed, since what is read is right whatever
 * they were.
 */
export async function* tilesOf(
  extents: AsyncIterable<NbdExtent>,
  tracking: string | undefined,
  unit: number,
  to: number,
): AsyncGenerator<Tile, void, void> {
  let tile: Tile | undefined;
  for await (const piece of onGrid(extents, tracking, unit, to)) {
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
  tracking: string | undefined,
  unit: number,
  to: number,
): AsyncGenerator<Tile, void, void> {
  /** A block of which only the first part has been told. */
  let open: Tile | undefined;
  for await (const extent of extents) {
    const kind = kindOf(extent.flags, tracking);
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

function kindOf(flags: NbdExtent["flags"], tracking: string | undefined): TileKind {
  if (tracking !== undefined && ((flags[tracking] ?? dirty) & dirty) === 0) return "unchanged";
  // HOLE alone promises nothing of the content.
  return ((flags[allocation] ?? 0) & readsAsZeroes) === 0 ? "changed" : "zero";
}
