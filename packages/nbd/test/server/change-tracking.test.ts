import { describe, expect, test } from "vitest";
import { command, errorNumber } from "../../src/protocol.ts";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import type { NbdBackend } from "../../src/server/backend.ts";
import { type ChangeTracking, trackChanges } from "../../src/server/change-tracking.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import { closeAfterEach, gate, serve } from "./fixture.ts";
import { errorOf, RawClient } from "./raw-client.ts";

closeAfterEach();

const KiB = 1024;
const MiB = 1024 * KiB;

function note(tracking: ChangeTracking, offset: number, length: number): void {
  tracking.end(tracking.begin(offset, length));
}

describe("the map", () => {
  test("widens to the granularity, clips to the disk and merges neighbours", () => {
    const tracking = trackChanges({ name: "t", size: MiB + 100, granularity: 64 * KiB });
    expect([...tracking.changes()]).toEqual([]);
    note(tracking, 64 * KiB - 1, 2);
    note(tracking, MiB + 50, 1);
    note(tracking, 500 * KiB, 0);
    expect([...tracking.changes()]).toEqual([
      { offset: 0, length: 128 * KiB },
      { offset: MiB, length: 100 },
    ]);
    expect([...tracking.changes({ from: 1000, to: 70_000 })]).toEqual([{ offset: 1000, length: 69_000 }]);
  });

  test("agrees with a model that knows every block, over random writes and resets", () => {
    const seed = seedOf(11);
    const next = randomFrom(seed);
    const size = 3000 * 512 + 17;
    const tracking = trackChanges({ name: "t", size, granularity: 512 });
    let model = new Set<number>();
    for (let step = 0; step < 2000; step++) {
      const offset = Math.floor(next() * size);
      const length = Math.floor(next() ** 4 * (size - offset));
      note(tracking, offset, length);
      for (let block = Math.floor(offset / 512); length > 0 && block * 512 < offset + length; block++) model.add(block);
      if (step % 100 === 99) {
        const listed = new Set<number>();
        let end = -1;
        for (const extent of tracking.changes()) {
          expect(extent.offset, `seed ${seed}`).toBeGreaterThan(end);
          end = extent.offset + extent.length;
          for (let block = extent.offset / 512; block * 512 < end; block++) listed.add(block);
        }
        expect(listed, `seed ${seed}, step ${step}`).toEqual(model);
        for (let at = 0; at < size;) {
          const run = tracking.runAt(at, size);
          expect(run.length).toBeGreaterThan(0);
          expect(run.changed, `seed ${seed}, at ${at}`).toBe(model.has(Math.floor(at / 512)));
          at += run.length;
        }
        expect(tracking.reset()).toBe(tracking.epoch);
        model = new Set();
      }
    }
    expect(tracking.epoch).toBe(21);
  });

  test("keeps a write that is under way across a reset", () => {
    const tracking = trackChanges({ name: "t", size: MiB });
    const write = tracking.begin(64 * KiB, 1);
    expect(tracking.reset()).toBe(2);
    expect([...tracking.changes()]).toEqual([{ offset: 64 * KiB, length: 64 * KiB }]);
    tracking.end(write);
    tracking.reset();
    expect([...tracking.changes()]).toEqual([]);
  });

  test("goes by another meta context for every tracking and every reset, and by the same one in between", () => {
    const trackings = [1, 2].map(() => trackChanges({ name: "t", size: MiB }));
    const seen = new Set<string>();
    for (const tracking of trackings) {
      for (const epoch of [1, 2, 3]) {
        expect(tracking.metaContext).toBe(`diskferry:changes:t:${tracking.identity}:${epoch}`);
        seen.add(tracking.metaContext);
        note(tracking, 0, 1);
        seen.add(tracking.metaContext);
        tracking.reset();
      }
    }
    expect(seen.size).toBe(6);
  });

  test("bounds its memory: a huge disk gets a coarser granularity, or a refusal where one was demanded", () => {
    expect(trackChanges({ name: "t", size: 2 ** 50 }).granularity).toBe(4 * MiB);
    expect(() => trackChanges({ name: "t", size: 2 ** 50, granularity: 512 })).toThrow(RangeError);
    expect(() => trackChanges({ name: "with space", size: 1 })).toThrow(RangeError);
    expect(() => trackChanges({ name: "t", size: 1, granularity: 1000 })).toThrow(RangeError);
  });
});

describe("an export that is tracked", () => {
  test("marks a range before the write reaches the backend, and keeps it when the write fails", async () => {
    const tracking = trackChanges({ name: "t", size: MiB });
    const atArrival: number[] = [];
    const fail = (): never => {
      atArrival.push([...tracking.changes()].length);
      throw new Error("broken");
    };
    const backend: NbdBackend = { size: MiB, read: () => undefined, write: fail, zero: fail, trim: fail };
    const { address } = await serve({ exports: { "": { backend, tracking: [tracking] } } });
    const client = await RawClient.transmitting(address);
    client.request(command.write, { payload: Buffer.alloc(512) });
    expect(errorOf(await client.reply())).toBe(errorNumber.EIO);
    client.request(command.writeZeroes, { offset: 256 * KiB, length: 512 });
    await client.reply();
    client.request(command.trim, { offset: 512 * KiB, length: 512 });
    await client.reply();
    expect(atArrival).toEqual([1, 2, 3]);
    // What was refused before it could reach the disk changed nothing.
    client.request(command.write, { offset: MiB, payload: Buffer.alloc(512) });
    await client.reply();
    expect([...tracking.changes()].map(({ offset }) => offset / KiB)).toEqual([0, 256, 512]);
    client.destroy();
  });

  test("is refused where two trackings go by one name", async () => {
    const tracking = [1, 2].map(() => trackChanges({ name: "t", size: MiB }));
    await expect(serve({ exports: { disk: { backend: memoryBackend(MiB), tracking } } })).rejects.toThrow(
      /"disk".*two trackings go by the name "t"/,
    );
  });

  test("loses nothing of a write that is under way while a consumer lists and resets", async () => {
    const tracking = trackChanges({ name: "t", size: MiB });
    const arrived = gate();
    const goOn = gate();
    const memory = memoryBackend(MiB);
    const backend: NbdBackend = {
      ...memory,
      async write(offset, data, options) {
        arrived.open();
        await goOn.opened;
        await memory.write?.(offset, data, options);
      },
    };
    const { address } = await serve({ exports: { "": { backend, tracking: [tracking] } } });
    const client = await RawClient.transmitting(address);
    client.request(command.write, { payload: Buffer.alloc(512, 1) });
    await arrived.opened;
    const first = [...tracking.changes()];
    tracking.reset();
    goOn.open();
    await client.reply();
    expect(first).toEqual([{ offset: 0, length: 64 * KiB }]);
    expect([...tracking.changes()]).toEqual([{ offset: 0, length: 64 * KiB }]);
    client.destroy();
  });

  test("copies made from its listings equal the disk, with concurrent writers on several connections", async () => {
    const seed = seedOf(29);
    const size = 4 * MiB;
    const disk = new Uint8Array(size);
    const memory = memoryBackend(disk);
    const next = randomFrom(seed);
    const slow: NbdBackend = {
      ...memory,
      async write(offset, data, options) {
        // Let others run between the mark and the write, so that resets fall in between.
        for (let turn = Math.floor(next() * 4); turn > 0; turn--) await new Promise((resolve) => setImmediate(resolve));
        await memory.write?.(offset, data, options);
      },
    };
    const tracking = trackChanges({ name: "t", size, granularity: 4 * KiB });
    const { address } = await serve({ exports: { "": { backend: slow, tracking: [tracking] } } });
    const copy = new Uint8Array(size);
    let writing = true;
    let rounds = 0;
    let copied = 0;
    const copyChanges = (): void => {
      const changes = [...tracking.changes()];
      tracking.reset();
      for (const { offset, length } of changes) {
        copy.set(disk.subarray(offset, offset + length), offset);
        copied += length;
      }
      rounds += 1;
    };
    const writer = async (number: number): Promise<void> => {
      const random = randomFrom(seed + number);
      const client = await RawClient.transmitting(address);
      for (let batch = 0; batch < 20; batch++) {
        for (let index = 0; index < 8; index++) {
          const length = 1 + Math.floor(random() * 20_000);
          const offset = Math.floor(random() * (size - length));
          client.request(command.write, { offset, payload: Buffer.alloc(length, 1 + Math.floor(random() * 255)) });
        }
        for (let index = 0; index < 8; index++) expect(errorOf(await client.reply())).toBe(0);
      }
      client.destroy();
    };
    const consumer = async (): Promise<void> => {
      while (writing) {
        copyChanges();
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const consuming = consumer();
    await Promise.all([1, 2, 3].map(writer));
    writing = false;
    await consuming;
    copyChanges();
    expect(Buffer.from(copy).equals(disk), `seed ${seed}`).toBe(true);
    expect(rounds).toBeGreaterThan(3);
    expect(copied).toBeGreaterThan(size / 2);
  });
});
