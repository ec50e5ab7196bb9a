import { describe, expect, it } from "vitest";
import {
  type BlockWriter,
  isProviderError,
  type Tile,
  type Volume,
  type WrittenExtent,
} from "../../src/provider/index.ts";
import { memoryPlace, type MemoryPlace, type MemoryPlaceOptions } from "../../src/memory/memory-place.ts";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";

const mebibyte = 1024 * 1024;
const size = 2 * mebibyte;

function placeWithMachine(options: MemoryPlaceOptions = {}): MemoryPlace {
  const place = memoryPlace(options);
  place.addMachine({
    id: "web",
    disks: [
      { key: "boot", size, boot: true },
      { key: "data", size },
    ],
  });
  return place;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => "resolved",
    (failure: unknown) => failure,
  );
  return isProviderError(error) ? error.code : String(error);
}

async function* listOf(...extents: [number, number][]): AsyncGenerator<WrittenExtent> {
  for (const [offset, length] of extents) yield { offset, length };
}

async function snapshotOf(place: MemoryPlace, key: string) {
  const machine = await place.source.machine("web");
  const snapshot = await place.source.snapshot(machine, { key, job: "job" });
  return { machine, snapshot, boot: snapshot.disks[0]!, data: snapshot.disks[1]! };
}

async function tilesOf(
  place: MemoryPlace,
  disk: Parameters<NonNullable<MemoryPlace["source"]["tracker"]>["changes"]>[0],
  since?: string,
): Promise<Tile[]> {
  const tiles: Tile[] = [];
  for await (const tile of place.source.tracker!.changes(disk, { since })) tiles.push(tile);
  return tiles;
}

async function writeRun(
  place: MemoryPlace,
  volume: Volume,
  run: string,
  epoch: number,
  data: Uint8Array,
  base?: Volume,
): Promise<Volume> {
  await using writer = await place.target.open(volume, { run, epoch, base });
  await writer.write(0, data);
  await writer.flush();
  return await writer.commit({ written: listOf([0, data.byteLength]) });
}

describe("the source of a memory place", () => {
  it("shows every disk of a machine as it was at one moment, whatever is written later", async () => {
    const place = placeWithMachine();
    place.write("web", "boot", 0, randomBytes(4096, 1));
    place.write("web", "data", 512, randomBytes(4096, 2));
    const { boot, data } = await snapshotOf(place, "first");
    place.write("web", "boot", 0, randomBytes(4096, 3));
    place.trim("web", "data", 0, size);
    const seen = new Uint8Array(size);
    await (await place.source.open(boot)).read(0, seen);
    expect(Buffer.compare(seen.subarray(0, 4096), randomBytes(4096, 1))).toBe(0);
    await (await place.source.open(data)).read(0, seen);
    expect(Buffer.compare(seen.subarray(512, 4608), randomBytes(4096, 2))).toBe(0);
  });

  it("never lists too little as changed, over random writes, trims and snapshots", async () => {
    const seed = seedOf(81);
    const random = randomFrom(seed);
    const place = placeWithMachine({ source: { tracker: { granularity: 4096 } } });
    const past: { checkpoint: string; bytes: Uint8Array }[] = [];
    for (let round = 0; round < 25; round++) {
      for (let step = 0; step < 4; step++) {
        const offset = Math.floor(random() * (size / 512)) * 512;
        const length = Math.min(size - offset, 512 * Math.ceil(random() * 200));
        if (random() < 0.3) place.trim("web", "boot", offset, length);
        else place.write("web", "boot", offset, randomBytes(length, round * 10 + step));
      }
      const { boot } = await snapshotOf(place, `round ${round}`);
      const now = place.snapshotBytes(boot.id);
      for (const { checkpoint, bytes } of past.slice(-5)) {
        let end = 0;
        for (const tile of await tilesOf(place, boot, checkpoint)) {
          expect(tile.offset, `seed ${seed}`).toBe(end);
          end += tile.length;
          const here = now.subarray(tile.offset, end);
          if (tile.kind === "zero") expect(here.every((byte) => byte === 0)).toBe(true);
          if (tile.kind === "unchanged")
            expect(Buffer.compare(here, bytes.subarray(tile.offset, end)), `seed ${seed}`).toBe(0);
        }
        expect(end).toBe(size);
      }
      past.push({ checkpoint: (await place.source.tracker!.checkpoint(boot))!, bytes: now });
    }
  });

  it("lists exactly what changed at its own granularity, and trimmed ranges as zero", async () => {
    const place = placeWithMachine({ source: { tracker: { granularity: 64 * 1024 } } });
    place.write("web", "boot", 0, randomBytes(size, 1));
    const first = await snapshotOf(place, "first");
    const checkpoint = await place.source.tracker!.checkpoint(first.boot);
    place.write("web", "boot", 70_000, new Uint8Array(512));
    place.trim("web", "boot", mebibyte, 128 * 1024);
    const second = await snapshotOf(place, "second");
    place.write("web", "boot", 0, randomBytes(512, 9));
    expect(await tilesOf(place, second.boot, checkpoint)).toEqual([
      { offset: 0, length: 65_536, kind: "unchanged" },
      { offset: 65_536, length: 65_536, kind: "changed" },
      { offset: 131_072, length: mebibyte - 131_072, kind: "unchanged" },
      { offset: mebibyte, length: 131_072, kind: "zero" },
      { offset: mebibyte + 131_072, length: mebibyte - 131_072, kind: "unchanged" },
    ]);
  });

  it.each<[string, (place: MemoryPlace, snapshot: string) => Promise<void> | void]>([
    ["a revert", (place: MemoryPlace, snapshot: string) => place.revert(snapshot)],
    ["a growth", (place: MemoryPlace) => place.grow("web", "boot", 2 * size)],
    ["a lost tracker", (place: MemoryPlace) => place.breakTracking("lost")],
    ["a reset", async (place: MemoryPlace) => place.source.tracker!.reset!(await place.source.machine("web"))],
  ])("says TRACKING_LOST after %s", async (_, happens) => {
    const place = placeWithMachine();
    const { snapshot, boot } = await snapshotOf(place, "first");
    const since = await place.source.tracker!.checkpoint(boot);
    await happens(place, snapshot.id);
    const second = await snapshotOf(place, "second");
    expect(await codeOf(tilesOf(place, second.boot, since))).toBe("TRACKING_LOST");
    expect((await tilesOf(place, second.boot)).length).toBeGreaterThan(0);
  });

  it("says TRACKING_LOST when the base it needs was released, and only where it keeps bases", async () => {
    for (const keepsBase of [true, false]) {
      const place = placeWithMachine({ source: { tracker: { keepsBase } } });
      const { snapshot, boot } = await snapshotOf(place, "first");
      const since = await place.source.tracker!.checkpoint(boot);
      await place.source.release(snapshot);
      const second = await snapshotOf(place, "second");
      expect(await codeOf(tilesOf(place, second.boot, since))).toBe(keepsBase ? "TRACKING_LOST" : "resolved");
    }
  });

  it("spoils a listing in every way that a test asks for", async () => {
    const shape = async (fault: Parameters<MemoryPlace["breakTracking"]>[0]) => {
      const place = placeWithMachine({ source: { tracker: { tileLength: mebibyte } } });
      place.write("web", "boot", 0, randomBytes(size, 5));
      const { boot } = await snapshotOf(place, "first");
      place.breakTracking(fault, {
        disk: "boot",
        tiles: fault === "disorder" || fault === "gap" || fault === "lie" ? 0 : 1,
      });
      return (await tilesOf(place, boot)).map(
        ({ offset, length, kind }) => `${offset / mebibyte}+${length / mebibyte} ${kind}`,
      );
    };
    expect(await shape("truncated")).toEqual(["0+1 changed"]);
    expect(await shape("gap")).toEqual(["1+1 changed"]);
    expect(await shape("disorder")).toEqual(["1+1 changed", "0+1 changed"]);
    expect(await shape("empty")).toEqual(["0+1 changed", "1+0 changed", "1+1 changed"]);
    expect(await shape("overlap")).toEqual(["0+1 changed", "1+1.00048828125 changed"]);
    expect(await shape("lie")).toEqual(["0+1 unchanged", "1+1 unchanged"]);
    expect(await codeOf(shape("lost-midway"))).toBe("TRACKING_LOST");
  });

  it("demands the hint of the tile that a read lies in, where it is told to", async () => {
    const place = placeWithMachine({ source: { tracker: { hints: "required" } } });
    place.write("web", "boot", 0, randomBytes(512, 1));
    const { boot } = await snapshotOf(place, "first");
    const [tile] = await tilesOf(place, boot);
    const reader = await place.source.open(boot);
    await reader.read(0, new Uint8Array(512), { hint: tile!.hint });
    expect(await codeOf(reader.read(0, new Uint8Array(512)))).toBe("UNEXPECTED");
    expect(await codeOf(reader.read(mebibyte, new Uint8Array(512), { hint: tile!.hint }))).toBe("CORRUPT");
  });

  it("leaves a snapshot alone that somebody else took", async () => {
    const place = placeWithMachine();
    const foreign = place.takeSnapshot("web", "before the upgrade");
    await place.source.release(foreign);
    expect(place.snapshotBytes(foreign.disks[0]!.id, 0, 512)).toEqual(new Uint8Array(512));
  });

  it("holds an ascending reader to its order and every reader to its concurrency", async () => {
    const ascending = placeWithMachine({ source: { order: "ascending" } });
    const stream = await ascending.source.open((await snapshotOf(ascending, "first")).boot);
    await stream.read(1024, new Uint8Array(512));
    expect(await codeOf(stream.read(512, new Uint8Array(512)))).toBe("UNSUPPORTED");
    const place = placeWithMachine({ source: { concurrency: 2 } });
    const reader = await place.source.open((await snapshotOf(place, "first")).boot);
    const reads = [0, 512, 1024].map((offset) => codeOf(reader.read(offset, new Uint8Array(512))));
    expect((await Promise.all(reads)).map((outcome) => outcome.slice(0, 10))).toEqual([
      "resolved",
      "resolved",
      "RangeError",
    ]);
  });

  it("keeps the guest from writing while the machine is off or quiesced", async () => {
    const place = placeWithMachine();
    const machine = await place.source.machine("web");
    const quiet = await place.source.quiesce!(machine);
    expect(() => place.write("web", "boot", 0, new Uint8Array(512))).toThrow("quiesced");
    await quiet[Symbol.asyncDispose]();
    await place.source.power!.shutdown(machine);
    expect(() => place.write("web", "boot", 0, new Uint8Array(512))).toThrow("off");
    await place.source.power!.powerOn(machine);
    place.write("web", "boot", 0, new Uint8Array(512));
  });
});

describe("the target of a memory place", () => {
  it("loses what was not flushed and keeps what was, whichever seed decides", async () => {
    const fates = new Set<string>();
    for (let seed = 1; seed <= 20; seed++) {
      const place = memoryPlace({ target: { written: "exact" } });
      const volume = await place.target.create({ key: "v", size });
      const writer = await place.target.open(volume, { run: "r", epoch: 1 });
      await writer.write(0, new Uint8Array(4096).fill(1));
      await writer.flush();
      await writer.write(0, new Uint8Array(4096).fill(2));
      place.crash({ seed });
      expect(await codeOf(writer.flush())).toBe("UNAVAILABLE");
      const found = place.volumeBytes(volume.id, 0, 4096);
      for (let at = 0; at < 4096; at += 512) {
        const block = new Set(found.subarray(at, at + 512));
        expect(block.size).toBe(1);
        fates.add([...block].join());
      }
      const again = await place.target.open(volume, { run: "r", epoch: 1 });
      expect(again.generation).toBe(writer.generation);
      expect(await codeOf(again.commit({ written: listOf([0, 8192]) }))).toBe("CORRUPT");
      expect(await codeOf(again.commit({ written: listOf() }))).toBe("CORRUPT");
      expect(await codeOf(again.commit({ written: listOf([0, 4096]) }))).toBe("resolved");
    }
    expect([...fates].sort()).toEqual(["1", "2"]);
  });

  it("rejects the flush that follows a lost connection, and takes the group again", async () => {
    const place = memoryPlace();
    const volume = await place.target.create({ key: "v", size });
    const writer = await place.target.open(volume, { run: "r", epoch: 1 });
    await writer.write(0, new Uint8Array(512).fill(1));
    place.crash({ writers: "reconnect" });
    await writer.write(512, new Uint8Array(512).fill(1));
    expect(await codeOf(writer.flush())).toBe("UNAVAILABLE");
    await writer.write(0, new Uint8Array(1024).fill(1));
    await writer.flush();
    expect(await codeOf(writer.commit({ written: listOf([0, 1024]) }))).toBe("resolved");
  });

  it("refuses to commit what was not flushed", async () => {
    const place = memoryPlace();
    const volume = await place.target.create({ key: "v", size });
    const writer = await place.target.open(volume, { run: "r", epoch: 1 });
    await writer.write(0, new Uint8Array(512));
    expect(await codeOf(writer.commit({ written: listOf([0, 512]) }))).toBe("UNEXPECTED");
  });

  it("cuts an older writer off with FENCED, also one whose write is under way", async () => {
    const place = memoryPlace();
    const volume = await place.target.create({ key: "v", size });
    const old = await place.target.open(volume, { run: "r", epoch: 1 });
    const gate = Promise.withResolvers<void>();
    place.fault = ({ method }) => (method === "writer.write" ? gate.promise : undefined);
    const late = codeOf(old.write(0, new Uint8Array(512).fill(9)));
    const young = await place.target.open(volume, { run: "r", epoch: 2 });
    gate.resolve();
    expect(await late).toBe("FENCED");
    expect(await codeOf(old.flush())).toBe("FENCED");
    expect(await codeOf(place.target.open(volume, { run: "r", epoch: 1 }))).toBe("FENCED");
    await young.write(0, new Uint8Array(512).fill(1));
    expect(place.volumeBytes(volume.id, 0, 1)[0]).toBe(1);
  });

  it("gives another generation to another run, and to the same run when another wrote in between", async () => {
    const place = memoryPlace();
    const volume = await place.target.create({ key: "v", size });
    const generationOf = async (run: string): Promise<[string, boolean | undefined]> => {
      await using writer: BlockWriter = await place.target.open(volume, { run, epoch: 1 });
      await writer.write(0, new Uint8Array(512).fill(1));
      await writer.flush();
      return [writer.generation, writer.blank];
    };
    const first = await generationOf("a");
    expect(await generationOf("a")).toEqual(first);
    const second = await generationOf("b");
    const third = await generationOf("a");
    expect(new Set([first[0], second[0], third[0]]).size).toBe(3);
    expect([first[1], second[1], third[1]]).toEqual([true, false, false]);
  });

  it("makes each commit a version that stands on its base, where it is versioned", async () => {
    const place = memoryPlace({ target: { style: "versioned" } });
    const volume = await place.target.create({ key: "v", size, job: "job" });
    const first = await writeRun(place, volume, "a", 1, new Uint8Array(1024).fill(1));
    const second = await writeRun(place, volume, "b", 1, new Uint8Array(512).fill(2), first);
    expect([
      place.volumeBytes(first.id, 0, 1)[0],
      place.volumeBytes(second.id, 0, 1)[0],
      place.volumeBytes(second.id, 512, 1)[0],
    ]).toEqual([1, 2, 1]);
    expect(await codeOf(place.target.remove(first))).toBe("IN_USE");
    await using again = await place.target.open(volume, { run: "b", epoch: 1, base: first });
    expect(await again.commit({ written: listOf([0, 512]) })).toEqual(second);
    await place.target.remove(second);
    await place.target.remove(first);
    await place.target.remove(volume);
    expect(place.volumeIds()).toEqual([]);
  });

  it("merges a version into what stands on it, where it is told to", async () => {
    const place = memoryPlace({ target: { style: "versioned", removal: "merge" } });
    const volume = await place.target.create({ key: "v", size });
    const first = await writeRun(place, volume, "a", 1, new Uint8Array(1024).fill(1));
    const second = await writeRun(place, volume, "b", 1, new Uint8Array(512).fill(2), first);
    await place.target.remove(first);
    expect(place.volumeBytes(second.id, 512, 1)[0]).toBe(1);
  });

  it("boots a clone for a test and the replica itself for a cutover", async () => {
    const place = memoryPlace();
    const volume = await place.target.create({ key: "v", size });
    await writeRun(place, volume, "a", 1, new Uint8Array(512).fill(1));
    const disks = [{ disk: "boot", boot: true, volume }];
    const trial = await place.target.launch!({}, disks, { key: "t", purpose: "test" });
    place.writeLaunched(trial.id, "boot", 0, new Uint8Array(512).fill(7));
    expect([trial.consumed, place.volumeBytes(volume.id, 0, 1)[0]]).toEqual([false, 1]);
    const real = await place.target.launch!({}, disks, { key: "c", purpose: "cutover" });
    expect(real.consumed).toBe(true);
    expect(await codeOf(place.target.remove(volume))).toBe("IN_USE");
    expect(await codeOf(place.target.open(volume, { run: "b", epoch: 1 }))).toBe("IN_USE");
    await place.target.terminate!(real);
    await place.target.remove(volume);
  });

  it("refuses to launch a volume that is half written", async () => {
    const place = memoryPlace();
    const volume = await place.target.create({ key: "v", size });
    const writer = await place.target.open(volume, { run: "a", epoch: 1 });
    await writer.write(0, new Uint8Array(512).fill(1));
    await writer.flush();
    const launched = place.target.launch!({}, [{ disk: "boot", volume }], { key: "t", purpose: "test" });
    expect(await codeOf(launched)).toBe("IN_USE");
  });

  it("writes an adopted disk and never removes it", async () => {
    const place = memoryPlace();
    place.addDisk("old-disk", size, new Uint8Array(512).fill(3));
    const volume = await place.target.adopt!("old-disk");
    const writer = await place.target.open(volume, { run: "a", epoch: 1 });
    expect(writer.blank).toBe(false);
    await writer[Symbol.asyncDispose]();
    expect(await codeOf(place.target.remove(volume))).toBe("DENIED");
  });

  it("checks digests where it demands them", async () => {
    const place = memoryPlace({ target: { digest: "sha256", blockSize: 4096 } });
    const volume = await place.target.create({ key: "v", size });
    const writer = await place.target.open(volume, { run: "a", epoch: 1 });
    const wrong = { digest: new Uint8Array(32) };
    expect(await codeOf(writer.write(0, new Uint8Array(4096).fill(1), wrong))).toBe("CORRUPT");
    await writer.write(0, new Uint8Array(4096).fill(1));
    await writer.flush();
    expect(await codeOf(writer.commit({ written: listOf([0, 4096]) }))).toBe("CORRUPT");
  });
});

describe("a memory place under test", () => {
  it("fails, delays and hangs where the fault says so, and a hang ends with its signal", async () => {
    const place = placeWithMachine();
    place.fault = ({ method }) => (method === "machine" ? new Promise(() => {}) : undefined);
    const reason = new Error("enough");
    const abort = new AbortController();
    const hung = place.source.machine("web", { signal: abort.signal });
    abort.abort(reason);
    await expect(hung).rejects.toBe(reason);
  });

  it("loses an answer after the effect, and gives the same thing to the repeated call", async () => {
    const place = placeWithMachine({ target: { style: "versioned" } });
    const volume = await place.target.create({ key: "v", size });
    const writer = await place.target.open(volume, { run: "a", epoch: 1 });
    await writer.write(0, new Uint8Array(512).fill(1));
    await writer.flush();
    place.answer = ({ method }) => {
      if (method === "writer.commit") throw new Error("the answer was lost");
    };
    await expect(writer.commit({ written: listOf([0, 512]) })).rejects.toThrow("lost");
    place.answer = undefined;
    const committed = await writer.commit({ written: listOf([0, 512]) });
    expect(place.volumeIds()).toEqual([volume.id, committed.id]);
    expect(place.traffic("writer.write")).toEqual({ calls: 1, bytes: 512 });
  });

  it("opens anew after its connections were disposed, with everything still there", async () => {
    const place = placeWithMachine();
    const old = place.source;
    await old[Symbol.asyncDispose]();
    await expect(old.machine("web")).rejects.toThrow("disposed");
    expect((await place.source.machine("web")).id).toBe("web");
  });

  it("leaves off every member that it is told to", async () => {
    const place = placeWithMachine({
      source: { tracker: false, power: false, quiesce: false, snapshots: false, concurrency: false },
      target: {
        adopt: false,
        read: false,
        launch: false,
        blank: false,
        zero: false,
        writerRead: false,
        concurrency: false,
      },
    });
    const volume = await place.target.create({ key: "v", size });
    const writer = await place.target.open(volume, { run: "a", epoch: 1 });
    const { boot } = await snapshotOf(place, "first");
    const reader = await place.source.open(boot);
    for (const member of ["tracker", "power", "quiesce", "snapshots"])
      expect(member in place.source, member).toBe(false);
    for (const member of ["adopt", "read", "launch", "terminate"]) expect(member in place.target, member).toBe(false);
    for (const member of ["blank", "zero", "read", "concurrency"]) expect(member in writer, member).toBe(false);
    for (const member of ["concurrency", "order", "digests"]) expect(member in reader, member).toBe(false);
  });

  it("copies a disk of 1 TiB that holds little at the cost of that little", async () => {
    const place = memoryPlace();
    place.addMachine({ id: "big", disks: [{ key: "d", size: 1024 ** 4 }] });
    place.write("big", "d", 1024 ** 4 - 512, randomBytes(512, 4));
    const snapshot = await place.source.snapshot(await place.source.machine("big"), { key: "k" });
    const tiles = await tilesOf(place, snapshot.disks[0]!);
    expect(tiles.map(({ kind }) => kind)).toEqual(["zero", "changed"]);
    const volume = await place.target.create({ key: "v", size: 1024 ** 4 });
    const writer = await place.target.open(volume, { run: "a", epoch: 1 });
    await writer.zero!(0, 1024 ** 4);
    place.crash({ seed: 3 });
  });
});
