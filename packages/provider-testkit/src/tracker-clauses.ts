import type { Clause } from "./judge.ts";
import { freshKey, gather, pattern } from "./judge.ts";
import { readThrough, type SourceWorld } from "./source-world.ts";

/** What the contract demands of a ChangeTracker. */
export const trackerClauses: readonly Clause<SourceWorld>[] = [
  {
    id: "tracker.tiles.contiguous",
    clause:
      "Tiles are ascending, contiguous and reach from the disk's start to its end, with a checkpoint and without.",
    run: async (world) => {
      await world.scribble(0, 4096, 201);
      await world.scribble(1024 * 1024, 4096, 202);
      const first = await world.point();
      world.tiled(await world.tiles(first), 0, first.size);
      const since = await world.checkpoint(first);
      await world.scribble(512 * 1024, 4096, 203);
      const second = await world.pointAfter(first);
      world.tiled(await world.tiles(second, { since }), 0, second.size);
    },
  },
  {
    id: "tracker.tiles.kinds",
    clause: "A tile is changed, zero or unchanged, and its offset and length are multiples of 512.",
    run: async (world) => {
      await world.scribble(4096, 512, 211);
      for (const { offset, length, kind } of await world.tiles(await world.point())) {
        world.judge.demand(["changed", "zero", "unchanged"].includes(kind), `a tile called ${String(kind)}`);
        world.judge.demand(offset % 512 === 0 && length % 512 === 0, `a tile at ${offset}+${length}`);
      }
    },
  },
  {
    id: "tracker.tiles.range",
    clause: "`from` and `to` bound the listing exactly, and pieces tell what the whole tells.",
    run: async (world) => {
      for (let at = 0; at < 1024 * 1024; at += 128 * 1024) await world.scribble(at, 4096, 221 + at);
      const disk = await world.point();
      const cuts = [0, 4096, 300 * 1024, 1024 * 1024 + 512, disk.size];
      const pieces = [];
      for (let index = 0; index + 1 < cuts.length; index++) {
        const [from = 0, to = 0] = cuts.slice(index, index + 2);
        const tiles = await world.tiles(disk, { from, to });
        world.tiled(tiles, from, to);
        pieces.push(...tiles);
      }
      await world.never(pieces, disk);
    },
  },
  {
    id: "tracker.full.never-too-few",
    clause: "Without `since`, whatever is not zero lies in tiles called changed.",
    run: async (world) => {
      await world.scribble(65536, 512, 231);
      await world.scribble(world.disk.size - 512, 512, 232);
      const disk = await world.point();
      await world.never(await world.tiles(disk), disk);
    },
  },
  {
    id: "tracker.never-too-few",
    clause:
      "Since a checkpoint, whatever differs from its snapshot lies in tiles called changed, or in zero ones that are zero.",
    run: async (world) => {
      const { disk } = world;
      await world.scribble(0, 1024 * 1024, 241);
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      const blocks = Math.floor(disk.size / 512);
      for (let step = 0; step < 24; step++) {
        const at = ((step * 7919 + 13) % blocks) * 512;
        await world.scribble(at, Math.min(512 * (1 + (step % 5)), disk.size - at), 242 + step);
      }
      await world.scribble(disk.size - 512, 512, 299);
      const second = await world.pointAfter(first);
      await world.never(await world.tiles(second, { since }), second, before);
    },
  },
  {
    id: "tracker.chain",
    clause: "A listing over several snapshots holds the changes of each of them.",
    run: async (world) => {
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      let last = first;
      for (let round = 0; round < 3; round++) {
        await world.scribble(round * 300 * 1024, 4096, 301 + round);
        const later = await world.pointAfter(last);
        await world.never(await world.tiles(later, { since }), later, before);
        last = later;
      }
    },
  },
  {
    id: "tracker.overwritten",
    clause: "A listing tells of its snapshot, also when the guest wrote again since.",
    run: async (world) => {
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      await world.scribble(4096, 65536, 311);
      const second = await world.pointAfter(first);
      await world.scribble(4096, 65536, 312);
      await world.scribble(1024 * 1024, 4096, 313);
      // A tracker without a base has one snapshot at a time.
      if (world.tracker.keepsBase === true) await world.snapshot();
      await world.never(await world.tiles(second, { since }), second, before);
    },
  },
  {
    id: "tracker.zero.trimmed",
    clause: "A range that the guest gave back is called zero or changed, and never unchanged.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.trimGuest === undefined) return judge.skip("absent: harness.source.trimGuest");
      await world.scribble(0, 1024 * 1024, 321);
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      await harness.trimGuest(256 * 1024, 512 * 1024);
      await harness.writeGuest(0, new Uint8Array(4096));
      const second = await world.pointAfter(first);
      await world.never(await world.tiles(second, { since }), second, before);
    },
  },
  {
    id: "tracker.paging",
    clause: "A long listing is complete, and one that was left early does no harm to the next.",
    run: async (world) => {
      await world.harness.writeGuest(0, new Uint8Array(world.disk.size));
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      for (let at = 0; at + 512 <= world.disk.size; at += 128 * 1024) await world.scribble(at, 512, 331 + at);
      const second = await world.pointAfter(first);
      for await (const tile of world.tracker.changes(second, { since })) {
        if (tile.offset > 0) break;
      }
      const tiles = await world.tiles(second, { since });
      world.tiled(tiles, 0, second.size);
      await world.never(tiles, second, before);
    },
  },
  {
    id: "tracker.checkpoint.token",
    clause: "A checkpoint is a string of at most 4096 characters, or undefined.",
    run: async (world) => {
      const token: unknown = await world.tracker.checkpoint(await world.point());
      world.judge.demand(
        token === undefined || (typeof token === "string" && token.length <= 4096),
        `a checkpoint of ${String(token).length} characters`,
      );
    },
  },
  {
    id: "tracker.checkpoint.restart",
    clause: "A checkpoint works on another connection, and again.",
    run: async (world) => {
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      await world.scribble(12288, 4096, 341);
      const second = await world.pointAfter(first);
      const { tracker } = await world.restarted();
      if (tracker === undefined) return world.judge.fail("a second connection without a tracker");
      for (let round = 0; round < 2; round++) {
        const tiles = await gather(tracker.changes(second, { since }));
        world.tiled(tiles, 0, second.size);
        await world.never(tiles, second, before);
      }
    },
  },
  {
    id: "tracker.checkpoint.unknown",
    clause: "A checkpoint that the tracker does not know is TRACKING_LOST, and no listing.",
    run: async (world) => {
      const disk = await world.point();
      await world.judge.rejects(
        "changes since an unknown checkpoint",
        world.tiles(disk, { since: freshKey("token") }),
        "TRACKING_LOST",
      );
    },
  },
  {
    id: "tracker.checkpoint.other-disk",
    clause: "The checkpoint of another disk is TRACKING_LOST, and no listing.",
    run: async (world) => {
      const second = world.judge.needs(world.harness.second, "harness.source.second");
      const snapshot = await world.snapshot();
      const since = await world.checkpoint(world.of(snapshot, second.key));
      await world.judge.rejects(
        "changes since another disk's checkpoint",
        world.tiles(world.of(snapshot), { since }),
        "TRACKING_LOST",
      );
    },
  },
  {
    id: "tracker.keeps-base",
    clause:
      "Without `keepsBase` a checkpoint outlives the release of its snapshot; with it, it holds as long as the snapshot does.",
    run: async (world) => {
      const { source, tracker } = world;
      const base = await world.snapshot();
      const before = await world.read(world.of(base));
      const since = await world.checkpoint(world.of(base));
      if (tracker.keepsBase !== true) await source.release(base);
      await world.scribble(20480, 4096, 351);
      const next = await world.point();
      const tiles = await world.tiles(next, { since });
      world.tiled(tiles, 0, next.size);
      await world.never(tiles, next, before);
    },
  },
  {
    id: "tracker.lost",
    clause: "A tracker that lost its memory says TRACKING_LOST, and still lists what may be non-zero.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.breakTracking === undefined) return judge.skip("absent: harness.source.breakTracking");
      const first = await world.point();
      const since = await world.checkpoint(first);
      await world.scribble(4096, 4096, 361);
      await harness.breakTracking();
      const second = await world.pointAfter(first);
      await judge.rejects("changes after tracking was lost", world.tiles(second, { since }), "TRACKING_LOST");
      const tiles = await world.tiles(second);
      world.tiled(tiles, 0, second.size);
      await world.never(tiles, second);
    },
  },
  {
    id: "tracker.revert",
    clause: "After a revert a checkpoint is TRACKING_LOST, unless the listing is right nevertheless.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.revert === undefined) return judge.skip("absent: harness.source.revert");
      await world.scribble(0, 4096, 371);
      const old = await world.snapshot();
      await world.scribble(0, 4096, 372);
      const middle = await world.point();
      const before = await world.read(middle);
      const since = await world.checkpoint(middle);
      await harness.revert(old);
      await world.recorded(middle);
      await lostOrRight(world, since, before);
    },
  },
  {
    id: "tracker.reset",
    clause: "After `reset` every earlier checkpoint is TRACKING_LOST, and new ones work.",
    run: async (world) => {
      const { judge, tracker, machine } = world;
      if (tracker.reset === undefined) return judge.skip("absent: tracker.reset");
      const first = await world.point();
      const since = await world.checkpoint(first);
      await tracker.reset(machine);
      const second = await world.pointAfter(first);
      const before = await world.read(second);
      await judge.rejects("changes since before the reset", world.tiles(second, { since }), "TRACKING_LOST");
      const fresh = await world.checkpoint(second);
      await world.scribble(8192, 512, 381);
      const third = await world.pointAfter(second);
      await world.never(await world.tiles(third, { since: fresh }), third, before);
    },
  },
  {
    id: "tracker.enable.idempotent",
    clause: "`enable` turns tracking on, does nothing when it is on, and loses no checkpoint by that.",
    run: async (world) => {
      const { judge, tracker, machine } = world;
      if (tracker.enable === undefined) return judge.skip("absent: tracker.enable");
      await tracker.enable(machine);
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      await tracker.enable(machine);
      await world.scribble(8192, 512, 391);
      const second = await world.pointAfter(first);
      await world.never(await world.tiles(second, { since }), second, before);
      const status = await tracker.status?.(machine, world.disk.key);
      judge.demand(status?.enabled !== false, "a status that calls it off after enable");
    },
  },
  {
    id: "tracker.status",
    clause: "`status` tells whether tracking is supported and enabled.",
    run: async (world) => {
      const { judge, tracker, machine } = world;
      if (tracker.status === undefined) return judge.skip("absent: tracker.status");
      const { supported, enabled } = await tracker.status(machine, world.disk.key);
      judge.demand(
        typeof supported === "boolean" && typeof enabled === "boolean",
        `supported ${String(supported)}, enabled ${String(enabled)}`,
      );
      await judge.abortsBefore("status", async (signal) => tracker.status?.(machine, world.disk.key, { signal }));
    },
  },
  {
    id: "tracker.hints",
    clause: "A tile's hint, given back to `read`, gives the bytes of that tile.",
    run: async (world) => {
      const { judge } = world;
      await world.scribble(0, 65536, 401);
      const disk = await world.point();
      const tiles = await world.tiles(disk);
      const hinted = tiles.filter(({ hint, kind }) => hint !== undefined && kind === "changed");
      if (hinted.length === 0) return judge.skip("absent: tile.hint");
      const expected = await world.read(disk);
      const reader = await world.reader(disk);
      for (const { offset, length, hint } of hinted.slice(0, 8)) {
        const into = new Uint8Array(Math.min(length, Math.max(reader.blockSize, 64 * 1024)));
        await reader.read(offset, into, { hint });
        judge.same(into, expected.subarray(offset, offset + into.byteLength), `the tile at ${offset}`);
      }
    },
  },
  {
    id: "tracker.cancel",
    clause: "An aborted listing rejects with the signal's reason, and never ends as if it were complete.",
    run: async (world) => {
      const { judge, tracker } = world;
      for (let at = 0; at < 1024 * 1024; at += 128 * 1024) await world.scribble(at, 512, 411 + at);
      const disk = await world.point();
      await judge.abortsBefore("changes", (signal) => gather(tracker.changes(disk, { signal })));
      await judge.abortsBefore("checkpoint", (signal) => tracker.checkpoint(disk, { signal }));
      const reason = new Error("aborted within the listing");
      const controller = new AbortController();
      let end = 0;
      const listing = (async () => {
        for await (const tile of tracker.changes(disk, { signal: controller.signal })) {
          end = tile.offset + tile.length;
          controller.abort(reason);
        }
      })();
      const error: unknown = await listing.then(
        () => undefined,
        (failure: unknown) => failure,
      );
      judge.demand(
        error === reason || (error === undefined && end === disk.size),
        `a listing that ended at ${end} after its signal aborted`,
      );
    },
  },
  {
    id: "tracker.released",
    clause: "Changes of a snapshot that is gone are refused, and never listed as unchanged.",
    excuse: "snapshotless",
    run: async (world) => {
      const first = await world.point();
      const since = await world.checkpoint(first);
      await world.recorded(first);
      const gone = await world.snapshot();
      await world.source.release(gone);
      await world.judge.rejects(
        "changes of a released snapshot",
        world.tiles(world.of(gone), { since }),
        "NOT_FOUND",
        "TRACKING_LOST",
      );
    },
  },
  {
    id: "tracker.growth",
    clause:
      "After the disk grew a checkpoint is TRACKING_LOST, unless the listing is right nevertheless; the snapshot has the new size.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.grow === undefined) return judge.skip("absent: harness.source.grow");
      const first = await world.point();
      const before = await world.read(first);
      const since = await world.checkpoint(first);
      await world.recorded(first);
      await harness.grow();
      const machine = await world.source.machine(world.machine.id);
      const { size } = machine.disks.find(({ key }) => key === world.disk.key) ?? { size: 0 };
      judge.demand(size > first.size, `a machine whose disk still has ${size} bytes`);
      await harness.writeGuest(size - 512, pattern(512, 421));
      const snapshot = await world.source.snapshot(machine, { key: freshKey("grown"), disks: [world.disk.key] });
      judge.defer(() => world.source.release(snapshot));
      const grown = world.of(snapshot);
      judge.demand(grown.size === size, `a snapshot of ${grown.size} bytes of a disk of ${size}`);
      const reader = await world.reader(grown);
      judge.demand(reader.size === size, `a reader of ${reader.size} bytes of a disk of ${size}`);
      judge.same(await readThrough(reader, size - 512, 512), pattern(512, 421), "the new end of the disk");
      const padded = new Uint8Array(size);
      padded.set(before);
      if (world.tracker.keepsBase !== true) await world.source.release(snapshot);
      await lostOrRight(world, since, padded);
    },
  },
];

async function lostOrRight(world: SourceWorld, since: string, before: Uint8Array): Promise<void> {
  const machine = await world.source.machine(world.machine.id);
  const snapshot = await world.source.snapshot(machine, { key: freshKey("after"), disks: [world.disk.key] });
  world.judge.defer(() => world.source.release(snapshot));
  const now = world.of(snapshot);
  let tiles;
  try {
    tiles = await world.tiles(now, { since });
  } catch {
    return world.judge.rejects("the listing", world.tiles(now, { since }), "TRACKING_LOST");
  }
  world.tiled(tiles, 0, now.size);
  return world.never(tiles, now, before);
}
