import { createHash } from "node:crypto";
import { type Clause, pattern } from "./judge.ts";
import { readThrough, type SourceWorld } from "./source-world.ts";

/** What the contract demands of a BlockReader of a source. */
export const readerClauses: readonly Clause<SourceWorld>[] = [
  {
    id: "reader.geometry",
    clause:
      "A reader tells the snapshot's size, a blockSize that is a power of two of at least 512, and a concurrency of at least 1.",
    run: async (world) => {
      const { judge } = world;
      const disk = await world.point();
      const { size, blockSize, concurrency, preferredLength, order } = await world.reader(disk);
      judge.demand(size === disk.size, `size ${size} for a snapshot of ${disk.size}`);
      judge.demand(blockSize >= 512 && Number.isInteger(Math.log2(blockSize)), `blockSize ${blockSize}`);
      judge.demand(
        concurrency === undefined || (Number.isInteger(concurrency) && concurrency >= 1),
        `concurrency ${concurrency}`,
      );
      judge.demand(
        preferredLength === undefined || (preferredLength > 0 && preferredLength % 512 === 0),
        `preferredLength ${preferredLength}`,
      );
      judge.demand(order === undefined || order === "any" || order === "ascending", `order ${String(order)}`);
    },
  },
  {
    id: "reader.read.bytes",
    clause: "`read` gives the bytes of the snapshot, wherever they lie.",
    run: async (world) => {
      const { size } = world.disk;
      const places: [number, number, number][] = [
        [0, 512, 101],
        [3 * 4096, 8192, 102],
        [1024 * 1024 - 512, 1024, 103],
        [size - 4096, 4096, 104],
      ];
      for (const [offset, length, seed] of places) await world.scribble(offset, length, seed);
      const disk = await world.point();
      for (const [offset, length, seed] of places) {
        world.judge.same(
          await world.read(disk, offset, length),
          pattern(length, seed),
          `the range ${offset}+${length}`,
        );
      }
    },
  },
  {
    id: "reader.read.fills",
    clause: "`read` fills all of `into`, zeroes included, and touches nothing beside it.",
    run: async (world) => {
      const { judge, harness } = world;
      await harness.writeGuest(0, new Uint8Array(256 * 1024));
      const reader = await world.reader(await world.point());
      const length = Math.max(reader.blockSize, 4096);
      const around = new Uint8Array(length + 128).fill(0xa5);
      await reader.read(0, around.subarray(64, 64 + length));
      judge.demand(
        around.subarray(0, 64).every((byte) => byte === 0xa5),
        "bytes changed before `into`",
      );
      judge.demand(
        around.subarray(64 + length).every((byte) => byte === 0xa5),
        "bytes changed behind `into`",
      );
      judge.demand(
        around.subarray(64, 64 + length).every((byte) => byte === 0),
        "a range of zeroes that was not filled with zeroes",
      );
    },
  },
  {
    id: "reader.read.repeatable",
    clause: "Reading the same range again gives the same bytes, on a reader opened anew too.",
    excuse: "unfixed",
    run: async (world) => {
      const written = await world.scribble(0, 65536, 111);
      const disk = await world.point();
      for (let round = 0; round < 3; round++) {
        world.judge.same(await world.read(disk, 0, 65536), written, `reading number ${round + 1}`);
        await world.scribble(0, 65536, 112 + round);
      }
    },
  },
  {
    id: "reader.read.short-final-block",
    clause: "The last block of a disk that is no multiple of `blockSize` is read at its own length.",
    run: async (world) => {
      const { size } = world.disk;
      const written = await world.scribble(size - 512, 512, 121);
      const reader = await world.reader(await world.point());
      const rest = size % reader.blockSize;
      if (rest === 0) return world.judge.skip("the disk is a multiple of blockSize");
      const into = new Uint8Array(rest);
      await reader.read(size - rest, into);
      world.judge.same(into.subarray(rest - 512), written, "the end of the disk");
    },
  },
  {
    id: "reader.read.beyond-end",
    clause: "`read` rejects a range that does not lie within the disk, and never fills less than all of `into`.",
    run: async (world) => {
      const reader = await world.reader(await world.point());
      const { size, blockSize } = reader;
      const start = Math.floor((size - 1) / blockSize) * blockSize;
      await world.judge.rejected("a read across the end", reader.read(start, new Uint8Array(2 * blockSize)));
      await world.judge.rejected("a read behind the end", reader.read(start + blockSize, new Uint8Array(blockSize)));
    },
  },
  {
    id: "reader.read.concurrent",
    clause: "`concurrency` reads at once each give their own bytes.",
    run: async (world) => {
      const { judge } = world;
      await world.scribble(0, 1024 * 1024, 131);
      const reader = await world.reader(await world.point());
      const { blockSize, concurrency = 1, order = "any" } = reader;
      if (concurrency < 2 || order === "ascending") return judge.skip("absent: reader.concurrency above 1");
      const length = Math.max(blockSize, 4096);
      const count = Math.min(concurrency, 16, Math.floor((1024 * 1024) / length));
      const buffers = Array.from({ length: count }, () => new Uint8Array(length));
      await Promise.all(buffers.map((into, index) => reader.read(index * length, into)));
      const expected = pattern(1024 * 1024, 131);
      for (const [index, into] of buffers.entries()) {
        judge.same(
          into,
          expected.subarray(index * length, (index + 1) * length),
          `read ${index + 1} of ${count} at once`,
        );
      }
    },
  },
  {
    id: "reader.read.buffer-ownership",
    clause: "The caller owns `into` before and after the call: no later read changes it.",
    run: async (world) => {
      const { judge } = world;
      await world.scribble(0, 1024 * 1024, 141);
      const reader = await world.reader(await world.point());
      const length = Math.max(reader.blockSize, 4096);
      const first = new Uint8Array(length);
      await reader.read(0, first);
      const kept = first.slice();
      first.fill(0x5a);
      await reader.read(length, new Uint8Array(length));
      await new Promise((resolve) => setImmediate(resolve));
      judge.demand(
        first.every((byte) => byte === 0x5a),
        "a buffer that changed after its read had settled",
      );
      judge.same(kept, pattern(1024 * 1024, 141).subarray(0, length), "the first read");
      judge.demand(!Object.is(first.buffer, undefined) && first.byteLength === length, "a buffer that was taken away");
    },
  },
  {
    id: "reader.read.cancel",
    clause:
      "`read` rejects with the reason of its aborted signal, before and during the call, and the next read works.",
    run: async (world) => {
      const { judge } = world;
      const written = await world.scribble(0, 1024 * 1024, 151);
      const disk = await world.point();
      const reader = await world.reader(disk);
      const length = Math.max(reader.blockSize, 4096);
      // An ascending reader is restarted after a failure, never retried in place.
      const next = async () => (reader.order === "ascending" ? world.reader(disk) : reader);
      await judge.abortsBefore("read", (signal) => reader.read(0, new Uint8Array(length), { signal }));
      const other = await next();
      await judge.abortsDuring("read", (signal) => other.read(0, new Uint8Array(length), { signal }));
      judge.same(
        await readThrough(await next(), 0, length),
        written.subarray(0, length),
        "the read after an aborted one",
      );
    },
  },
  {
    id: "reader.digests.equal",
    clause:
      "`digests` gives one digest per leaf, in order, equal to those of the bytes that `read` gives, the short last leaf included.",
    run: async (world) => {
      const { judge } = world;
      await world.scribble(0, 256 * 1024, 161);
      await world.scribble(world.disk.size - 512, 512, 162);
      const disk = await world.point();
      const reader = await world.reader(disk);
      if (reader.digests === undefined) return judge.skip("absent: reader.digests");
      const leaf = Math.max(reader.blockSize, 64 * 1024);
      const bytes = await world.read(disk);
      const expected: Uint8Array[] = [];
      for (let at = 0; at < disk.size; at += leaf) {
        expected.push(
          createHash("sha256")
            .update(bytes.subarray(at, at + leaf))
            .digest(),
        );
      }
      judge.same(
        await reader.digests(0, disk.size, { algorithm: "sha256", leaf }),
        Buffer.concat(expected),
        "the digests by sha256",
      );
      await judge.abortsBefore("digests", async (signal) =>
        reader.digests?.(0, leaf, { algorithm: "sha256", leaf, signal }),
      );
    },
  },
  {
    id: "reader.lane.equal",
    clause: "What a reader's lane opens gives the same bytes, from data that can be posted to a thread.",
    run: async (world) => {
      const { judge } = world;
      const written = await world.scribble(0, 65536, 171);
      const reader = await world.reader(await world.point());
      const { module, data } = judge.needs(reader.lane, "reader.lane");
      const { open } = (await import(module)) as { open(data: unknown): Promise<typeof reader> };
      const lane = await open(structuredClone(data));
      judge.defer(() => lane[Symbol.asyncDispose]());
      judge.demand(lane.size === reader.size && lane.blockSize === reader.blockSize, "a lane of another geometry");
      judge.same(await readThrough(lane, 0, 65536), written, "the lane's bytes");
    },
  },
  {
    id: "reader.dispose.twice",
    clause: "Disposing a reader twice does nothing the second time, and leaves other readers alone.",
    run: async (world) => {
      const written = await world.scribble(0, 4096, 181);
      const disk = await world.point();
      const [one, other] = [await world.reader(disk), await world.reader(disk)];
      await one[Symbol.asyncDispose]();
      await one[Symbol.asyncDispose]();
      world.judge.same(await readThrough(other, 0, 4096), written, "the other reader");
    },
  },
];
