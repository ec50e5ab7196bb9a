import type { Clause } from "./judge.ts";
import { freshKey, gather, isPlainJson, pattern, roundTrip } from "./judge.ts";
import { readThrough } from "./source-world.ts";
import type { TargetWorld } from "./target-world.ts";

/** What the contract demands of a TargetProvider, launching left out. */
export const targetClauses: readonly Clause<TargetWorld>[] = [
  {
    id: "target.create.idempotent",
    clause: "`create` with the same key gives the same volume, also on another connection.",
    run: async (world) => {
      const { judge, target, harness } = world;
      const key = freshKey("same");
      const volume = await world.volume({ key });
      for (const connection of [target, await world.restarted()]) {
        const again = await connection.create({ key, size: harness.size });
        judge.demand(again.id === volume.id, `volume ${again.id} for the key of ${volume.id}`);
      }
    },
  },
  {
    id: "target.create.distinct",
    clause: "`create` with another key gives another volume.",
    run: async (world) => {
      const [one, other] = [await world.volume(), await world.volume()];
      world.judge.demand(one.id !== other.id, `volume ${one.id} for two keys`);
      const bytes = pattern(65536, 501);
      const first = await world.run(one, [[0, bytes]]);
      await world.run(other, [[0, pattern(65536, 502)]]);
      await world.holds(first, 0, bytes, "the first volume after the second was written");
    },
  },
  {
    id: "target.create.size",
    clause: "A volume has at least the size asked for, and a multiple of 512 bytes.",
    run: async (world) => {
      const { size } = await world.volume();
      world.judge.demand(
        size >= world.harness.size && size % 512 === 0,
        `${size} bytes where ${world.harness.size} were asked for`,
      );
    },
  },
  {
    id: "target.create.grows",
    clause: "The same key with a larger size grows the volume and keeps its bytes, or rejects with UNSUPPORTED.",
    run: async (world) => {
      const { judge, target, harness } = world;
      const key = freshKey("grows");
      const volume = await world.volume({ key });
      const bytes = pattern(65536, 511);
      const committed = await world.run(volume, [[0, bytes]]);
      const larger = volume.size + 1024 * 1024;
      let grown;
      try {
        grown = await target.create({ key, size: larger });
      } catch {
        return judge.rejects("create with a larger size", target.create({ key, size: larger }), "UNSUPPORTED");
      }
      judge.demand(grown.id === volume.id, `volume ${grown.id}, another than ${volume.id}`);
      judge.demand(grown.size >= larger, `${grown.size} bytes where ${larger} were asked for`);
      await world.holds(committed, 0, bytes, "the volume that grew");
      const next = await world.open(grown, { base: world.hasVersions(volume, committed) ? committed : grown });
      judge.demand(next.writer.size >= larger, `a writer of ${next.writer.size} bytes of a volume of ${grown.size}`);
      const smaller = await target.create({ key, size: harness.size });
      judge.demand(smaller.size >= larger, `a volume that shrank to ${smaller.size} bytes`);
    },
  },
  {
    id: "target.create.keeps",
    clause: "`create` with a known key leaves what the volume holds.",
    run: async (world) => {
      const key = freshKey("keeps");
      const volume = await world.volume({ key });
      const bytes = pattern(65536, 521);
      const committed = await world.run(volume, [[0, bytes]]);
      await world.target.create({ key, size: world.harness.size });
      await world.holds(committed, 0, bytes, "the volume after create was repeated");
    },
  },
  {
    id: "target.create.cancel",
    clause: "`create` rejects with the reason of its aborted signal and leaves nothing behind.",
    run: async ({ judge, target, harness }) => {
      const job = freshKey("job");
      await judge.abortsBefore("create", (signal) =>
        target.create({ key: freshKey("never"), size: harness.size, job, signal }),
      );
      judge.demand((await gather(target.owned(job))).length === 0, "a volume after an aborted call");
    },
  },
  {
    id: "target.handles.json",
    clause: "Volumes are plain JSON and work after a round trip through it, on another connection.",
    run: async (world) => {
      const { judge } = world;
      const volume = await world.volume();
      judge.demand(isPlainJson(volume), "a volume that is no plain JSON");
      const bytes = pattern(65536, 531);
      const first = await world.run(roundTrip(volume), [[0, bytes]], { target: await world.restarted() });
      judge.demand(isPlainJson(first), "a committed volume that is no plain JSON");
      const { unit, writer } = await world.open(volume);
      await writer[Symbol.asyncDispose]();
      const second = await world.run(roundTrip(volume), [[16 * unit, bytes]], {
        base: roundTrip(first),
        target: await world.restarted(),
      });
      await world.holds(roundTrip(second), 0, bytes, "the volume after the round trip");
    },
  },
  {
    id: "target.handles.no-secrets",
    clause: "No volume holds a secret.",
    run: async (world) => {
      const secrets = world.judge.needs(world.judge.harness.secrets, "harness.secrets");
      const volume = await world.volume();
      const handles = JSON.stringify([volume, await world.run(volume, [[0, pattern(65536, 541)]])]);
      for (const secret of secrets)
        world.judge.demand(!handles.includes(secret), "a handle that holds one of the harness's secrets");
    },
  },
  {
    id: "target.owned.lists",
    clause: "`owned` lists what the job made, each with the volume to remove, and nothing of another job.",
    run: async (world) => {
      const { judge, target } = world;
      const job = freshKey("job");
      const volume = await world.volume({ job });
      const foreign = await world.volume({ job: freshKey("job") });
      const owned = await gather((await world.restarted()).owned(job));
      judge.demand(
        owned.some((resource) => resource.volume?.id === volume.id),
        `a listing without ${volume.id}`,
      );
      judge.demand(!owned.some((resource) => resource.volume?.id === foreign.id), "a volume of another job");
      judge.demand(
        owned.every(({ kind, id, description }) => kind !== "" && id !== "" && description !== ""),
        "a resource without kind, id or description",
      );
      for (const resource of owned) if (resource.volume !== undefined) await target.remove(resource.volume);
      judge.demand((await gather(target.owned(job))).length === 0, "a removed volume that is still listed");
    },
  },
  {
    id: "target.remove.gone",
    clause: "A removed volume cannot be opened: NOT_FOUND. Its key gives a new, empty one.",
    run: async (world) => {
      const { judge, target } = world;
      const key = freshKey("gone");
      const volume = await world.volume({ key });
      const bytes = pattern(65536, 551);
      const committed = await world.run(volume, [[0, bytes]]);
      if (world.hasVersions(volume, committed)) await target.remove(committed);
      await target.remove(volume);
      await judge.rejects(
        "open of a removed volume",
        target.open(volume, { run: freshKey("run"), epoch: 1 }),
        "NOT_FOUND",
      );
      const again = await world.volume({ key });
      const next = await world.open(again);
      if (next.writer.blank !== true) return;
      await next.write(16 * next.unit, pattern(next.unit, 552));
      await world.holds(await next.commit(), 0, new Uint8Array(next.unit), "a new volume that calls itself blank");
    },
  },
  {
    id: "target.remove.idempotent",
    clause: "`remove` of a volume that is gone does nothing: clean-up may be repeated after a kill.",
    run: async (world) => {
      const volume = await world.volume();
      await world.target.remove(volume);
      await world.target.remove(volume);
      await (await world.restarted()).remove(volume);
    },
  },
  {
    id: "target.remove.others",
    clause: "`remove` removes that volume alone.",
    run: async (world) => {
      const [kept, gone] = [await world.volume(), await world.volume()];
      const bytes = pattern(65536, 561);
      const committed = await world.run(kept, [[0, bytes]]);
      await world.target.remove(gone);
      await world.holds(committed, 0, bytes, "another volume");
    },
  },
  {
    id: "target.remove.in-use",
    clause: "`remove` of a volume that another stands on merges it or rejects with IN_USE, and never breaks the chain.",
    run: async (world) => {
      const { judge, target } = world;
      const volume = await world.volume();
      const bytes = pattern(65536, 571);
      const first = await world.run(volume, [[0, bytes]]);
      if (!world.hasVersions(volume, first)) return judge.skip("absent: volumes that stand on others");
      const opened = await world.open(volume, { base: first });
      await opened.write(16 * opened.unit, pattern(opened.unit, 572));
      const second = await opened.commit();
      await opened.writer[Symbol.asyncDispose]();
      const refused: unknown = await target.remove(first).then(
        () => undefined,
        (error: unknown) => error ?? "nothing",
      );
      if (refused !== undefined) {
        await judge.rejects("remove of a base", target.remove(first), "IN_USE");
        await world.holds(first, 0, bytes, "the base that was not removed");
      }
      await world.holds(second, 0, bytes, "the volume that stood on the removed one");
      await world.holds(
        second,
        16 * opened.unit,
        pattern(opened.unit, 572),
        "the volume that stood on the removed one",
      );
      // Removed in the order of the chain, everything goes.
      await target.remove(second);
      await target.remove(first);
    },
  },
  {
    id: "target.remove.cancel",
    clause: "`remove` rejects with the reason of its aborted signal.",
    run: async (world) => {
      const volume = await world.volume();
      await world.judge.abortsBefore("remove", (signal) => world.target.remove(volume, { signal }));
      await world.open(volume);
    },
  },
  {
    id: "target.adopt.keeps",
    clause: "`adopt` takes a disk as it is, twice the same, and its writer is not blank.",
    run: async (world) => {
      const { judge, target, harness } = world;
      if (target.adopt === undefined) return judge.skip("absent: target.adopt");
      const disk = judge.needs(harness.existingDisk, "harness.target.existingDisk");
      const volume = await target.adopt(disk);
      judge.demand((await target.adopt(disk)).id === volume.id, "another volume for the same disk");
      judge.demand(volume.size > 0 && volume.size % 512 === 0, `${volume.size} bytes`);
      const before = (await harness.readVolume(volume, 0, 4096)).slice();
      const { writer } = await world.open(volume);
      judge.demand(writer.blank !== true, "a disk that holds bytes and calls itself blank");
      await writer[Symbol.asyncDispose]();
      await world.holds(volume, 0, before, "the adopted disk");
      await judge.rejects("adopt of an unknown disk", target.adopt(freshKey("nothing")), "NOT_FOUND");
    },
  },
  {
    id: "target.adopt.never-removed",
    clause: "An adopted disk is owned by no job, and `remove` leaves its bytes.",
    run: async (world) => {
      const { judge, target, harness } = world;
      if (target.adopt === undefined) return judge.skip("absent: target.adopt");
      const disk = judge.needs(harness.existingDisk, "harness.target.existingDisk");
      const volume = await target.adopt(disk);
      const before = (await harness.readVolume(volume, 0, 4096)).slice();
      // Whether it rejects or lets go of the disk is the provider's choice; the bytes have to stay.
      await target.remove(volume).catch(() => undefined);
      const again = await target.adopt(disk);
      await world.holds(again, 0, before, "the adopted disk after remove");
    },
  },
  {
    id: "target.read.bytes",
    clause: "`read` opens a committed volume with the bytes that were committed, on another connection too.",
    run: async (world) => {
      const volume = await world.volume();
      const bytes = pattern(1024 * 64, 581);
      const committed = await world.run(volume, [[0, bytes]]);
      for (const connection of [world.target, await world.restarted()]) {
        const reader = await world.reader(roundTrip(committed), connection);
        world.judge.demand(
          reader.size === committed.size,
          `a reader of ${reader.size} bytes of a volume of ${committed.size}`,
        );
        world.judge.demand(
          reader.blockSize >= 512 && Number.isInteger(Math.log2(reader.blockSize)),
          `blockSize ${reader.blockSize}`,
        );
        world.judge.same(await readThrough(reader, 0, bytes.byteLength), bytes, "the committed volume");
        await reader[Symbol.asyncDispose]();
        await reader[Symbol.asyncDispose]();
      }
    },
  },
  {
    id: "target.read.cancel",
    clause: "`read` and the reader's `read` reject with the reason of their aborted signal.",
    run: async (world) => {
      const committed = await world.run(await world.volume(), [[0, pattern(65536, 591)]]);
      const reader = await world.reader(committed);
      const into = new Uint8Array(Math.max(4096, reader.blockSize));
      await world.judge.abortsBefore("target.read", async (signal) => world.target.read?.(committed, { signal }));
      await world.judge.abortsBefore("read", (signal) => reader.read(0, into, { signal }));
      await world.judge.abortsDuring("read", (signal) => reader.read(0, into, { signal }));
    },
  },
  {
    id: "target.dispose.twice",
    clause: "Disposing a target twice does nothing the second time.",
    run: async (world) => {
      const other = await world.restarted();
      await other[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    },
  },
  {
    id: "target.dispose.removes-nothing",
    clause: "Disposing a target removes nothing.",
    run: async (world) => {
      const other = await world.harness.open();
      const key = freshKey("outlives");
      const volume = await other.create({ key, size: world.harness.size });
      world.willRemove(volume);
      await other[Symbol.asyncDispose]();
      const again = await world.target.create({ key, size: world.harness.size });
      world.judge.demand(again.id === volume.id, "another volume after the connection was closed");
      await world.open(volume);
    },
  },
];
