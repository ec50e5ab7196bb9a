import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type DiskReport, MemoryStateStore, replicate } from "@diskferry/core";
import type { DiskSnapshot, SourceConnector, Tile } from "@diskferry/core/provider";
import { type ChangeTracking, type NbdServer, connectNbd, memoryBackend, serveNbd, trackChanges } from "@diskferry/nbd";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { type LocalOptions, provider } from "../../src/index.ts";
import { freshFolder } from "../folder.ts";
import { listed } from "../shapes.ts";

const seed = seedOf(67);
const grain = 64 * 1024;
const size = 64 * grain + 4096;

beforeEach(() => {
  vi.stubEnv("XDG_STATE_HOME", freshFolder());
  return () => vi.unstubAllEnvs();
});

/** A server of ours, its guest, and a job that copies what the guest writes. */
class World implements AsyncDisposable {
  readonly content: Uint8Array;
  readonly copy = join(freshFolder(), "copy.raw");
  /** Those of the present life of the server; of the same names in each. */
  trackings: ChangeTracking[] = [];
  readonly #socket = join(freshFolder(), "socket");
  readonly #names: readonly string[];
  readonly #disk: { size: number; granularity: number };
  readonly #store = new MemoryStateStore();
  readonly #kept: AsyncDisposable[] = [];
  #server: NbdServer | undefined;
  #written = 0;

  constructor(names: readonly string[] = ["backup"], disk = { size, granularity: grain }) {
    this.content = randomBytes(disk.size, seed);
    this.#names = names;
    this.#disk = disk;
  }

  /** Begins the server's next life. */
  async start(): Promise<void> {
    await this.#server?.close();
    this.trackings = this.#names.map((name) => trackChanges({ name, ...this.#disk }));
    this.#server = await serveNbd({
      listen: { path: this.#socket },
      exports: { "": { backend: memoryBackend(this.content), tracking: this.trackings } },
    });
  }

  /** One grain each, of new bytes; the server's memory is the disk, so that `content` follows. */
  async write(...grains: number[]): Promise<void> {
    await using guest = await connectNbd(this.#server!.uri());
    for (const each of grains) await guest.write(each * grain, randomBytes(grain, seed + ++this.#written));
  }

  options(name = "backup"): LocalOptions {
    return { uri: this.#server!.uri(), bitmap: `diskferry:changes:${name}`, machine: "vm", key: "vda", frozen: true };
  }

  async source(name?: string): Promise<SourceConnector> {
    const source = await provider.source!(this.options(name));
    this.#kept.push(source);
    return source;
  }

  async run(source: SourceConnector): Promise<DiskReport> {
    await using target = await provider.target!({ path: this.copy });
    const job = { id: "job", source, machine: "vm", target, store: this.#store, options: { leaf: grain } };
    return (await replicate(job)).disks[0]!;
  }

  expectEqual(when: string): void {
    expect(Buffer.compare(readFileSync(this.copy), this.content), `${when}, seed ${seed}`).toBe(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#kept) await each[Symbol.asyncDispose]();
    await this.#server?.close();
  }
}

const incremental = { mode: "incremental", fallbacks: [], checkpoint: true };
/** The run says that it compares all, and why. */
function rescanned(moved: number): object {
  const reason = expect.stringMatching(/no longer knows diskferry:changes:.*started again, or that tracking reset/);
  return { mode: "rescan", fallbacks: [{ from: "incremental", to: "rescan", reason }], checkpoint: true, moved };
}

async function momentOf(source: SourceConnector): Promise<DiskSnapshot> {
  const [machine] = await listed(source.machines());
  return (await source.snapshot(machine!, { key: "key" })).disks[0]!;
}

describe("runs over changes that our own server tracks", () => {
  test.each(["one source for all runs", "a source for each run"])(
    "are incremental while it lives, and compare all once it was started again, whatever it calls its tracking; %s",
    async (how) => {
      await using world = new World();
      await world.start();
      const kept = how.startsWith("one") ? await world.source() : undefined;
      const run = async (): Promise<DiskReport> => world.run(kept ?? (await world.source()));
      expect(await run()).toMatchObject({ mode: "full", checkpoint: true, fallbacks: [] });
      world.expectEqual("full");

      await world.write(3, 40);
      expect(await run()).toMatchObject({ ...incremental, read: 2 * grain, moved: 2 * grain });
      world.expectEqual("incremental");

      // The new life's tracking knows nothing of 7, and knows 9 alone.
      await world.write(7);
      await world.start();
      await world.write(9);
      expect(await run()).toMatchObject(rescanned(2 * grain));
      world.expectEqual("after a restart");

      await world.write(11);
      expect(await run()).toMatchObject({ ...incremental, read: 2 * grain, moved: grain });
      world.expectEqual("incremental again");
    },
  );

  test.each(["is started again", "begins that tracking anew"])(
    "leave no checkpoint to build on when, before the run is recorded, the server %s",
    async (what) => {
      await using world = new World();
      await world.start();
      const source = await world.source();
      const tracker = source.tracker!;
      const checkpoint = tracker.checkpoint.bind(tracker);
      vi.spyOn(tracker, "checkpoint").mockImplementationOnce(async (...args) => {
        // Written when all had been read.
        await world.write(5);
        if (what === "is started again") await world.start();
        else world.trackings[0]!.reset();
        return checkpoint(...args);
      });
      await world.run(source);
      await world.write(6);
      expect(await world.run(source)).toMatchObject({ mode: "rescan", checkpoint: true, moved: 2 * grain });
      world.expectEqual("after that");
      await world.write(8);
      expect(await world.run(source)).toMatchObject(incremental);
      world.expectEqual("incremental again");
    },
  );

  test("compare all when the tracking was begun anew between two of them", async () => {
    await using world = new World();
    await world.start();
    const source = await world.source();
    await world.run(source);
    await world.write(1);
    world.trackings[0]!.reset();
    await world.write(2);
    expect(await world.run(source)).toMatchObject(rescanned(2 * grain));
    world.expectEqual("after a reset");
    await world.write(4);
    expect(await world.run(source)).toMatchObject({ ...incremental, read: 2 * grain, moved: grain });
    world.expectEqual("incremental again");
  });

  test("move what was written since the run before and no more, where two trackings take turns", async () => {
    await using world = new World(["even", "odd"]);
    await world.start();
    for (const [round, grains] of [[], [1, 2], [30], [31, 50, 63]].entries()) {
      await world.write(...grains);
      const mine = world.trackings[round % 2]!;
      // At the moment that is copied: what is written from here on is the next run's.
      mine.reset();
      const report = await world.run(await world.source(mine.name));
      if (round > 0) expect(report, `round ${round}`).toMatchObject({ ...incremental, moved: grains.length * grain });
      world.expectEqual(`round ${round}`);
    }
    // Too early: the run that reads it comes after.
    await world.write(20);
    for (const tracking of world.trackings) tracking.reset();
    expect(await world.run(await world.source("even"))).toMatchObject(rescanned(grain));
    world.expectEqual("both begun anew");
  });
});

describe("the tracker of an NBD source", () => {
  test("tells TRACKING_LOST in the midst of a listing when the tracking is begun anew", async () => {
    const disk = { size: 24 * 1024 * 1024, granularity: 512 };
    await using world = new World(["backup"], disk);
    await world.start();
    const source = await world.source();
    const moment = await momentOf(source);
    const since = await source.tracker!.checkpoint(moment);
    const [tracking] = world.trackings;
    // Every other block, so that there are more extents than one reply holds.
    for (let offset = 0; offset < disk.size; offset += 1024) tracking!.end(tracking!.begin(offset, 512));
    const tiles: Tile[] = [];
    const listing = (async () => {
      for await (const tile of source.tracker!.changes(moment, { since })) {
        if (tiles.length === 0) tracking!.reset();
        tiles.push(tile);
      }
    })();
    await expect(listing).rejects.toMatchObject({ code: "TRACKING_LOST" });
    expect(tiles.map(({ kind }) => kind)).toEqual(tiles.map((_, index) => (index % 2 === 0 ? "changed" : "unchanged")));
    await expect(listed(source.tracker!.changes(moment, { since }))).rejects.toMatchObject({ code: "TRACKING_LOST" });
  });

  test("takes no checkpoint that names a tracking without saying which, and none of another tracking", async () => {
    await using world = new World(["backup", "other"]);
    await world.start();
    const source = await world.source();
    const disk = await momentOf(source);
    const since = (await source.tracker!.checkpoint(disk))!;
    const [context, other] = world.trackings.map(({ metaContext }) => metaContext) as [string, string];
    expect(since).toContain(context);
    expect(await listed(source.tracker!.changes(disk, { since }))).toEqual([
      { offset: 0, length: size, kind: "unchanged" },
    ]);
    await world.write(0);
    const written = [
      { offset: 0, length: grain, kind: "changed" },
      { offset: grain, length: size - grain, kind: "unchanged" },
    ];
    for (const each of [since, since.replace(context, other)]) {
      expect(await listed(source.tracker!.changes(disk, { since: each }))).toEqual(written);
    }
    for (const wrong of ["diskferry:changes:backup", context.replace(/:1$/, ":2"), "diskferry:changes:none:x:1"]) {
      const listing = listed(source.tracker!.changes(disk, { since: since.replace(context, wrong) }));
      await expect(listing, wrong).rejects.toMatchObject({ code: "TRACKING_LOST" });
    }
    const [machine] = await listed(source.machines());
    expect(await source.tracker!.status!(machine!, "vda")).toMatchObject({ supported: true, enabled: true });
    const unknown = await world.source("none");
    expect(await unknown.tracker!.status!(machine!, "vda")).toMatchObject({ supported: true, enabled: false });
    expect(await unknown.tracker!.checkpoint(await momentOf(unknown))).toBeUndefined();
  });
});
