import type { LaneWriter } from "@diskferry/core/provider";
import type { Clause } from "./judge.ts";
import { isProviderError } from "@diskferry/core/provider";
import { describeError, freshKey, isPlainJson, pattern } from "./judge.ts";
import type { TargetWorld } from "./target-world.ts";

/** What the contract demands of a BlockWriter. */
export const writerClauses: readonly Clause<TargetWorld>[] = [
  {
    id: "writer.geometry",
    clause:
      "A writer tells a size that holds the disk, a blockSize that is a power of two of at least 512, and a concurrency of at least 1.",
    run: async (world) => {
      const { judge } = world;
      const volume = await world.volume();
      const { size, blockSize, concurrency, preferredLength, digest } = (await world.open(volume)).writer;
      judge.demand(size === volume.size, `size ${size} for a volume of ${volume.size}`);
      judge.demand(blockSize >= 512 && Number.isInteger(Math.log2(blockSize)), `blockSize ${blockSize}`);
      judge.demand(
        concurrency === undefined || (Number.isInteger(concurrency) && concurrency >= 1),
        `concurrency ${concurrency}`,
      );
      judge.demand(
        preferredLength === undefined || (preferredLength > 0 && preferredLength % 512 === 0),
        `preferredLength ${preferredLength}`,
      );
      judge.demand(digest === undefined || digest === "sha256" || digest === "blake3", `digest ${String(digest)}`);
    },
  },
  {
    id: "writer.generation.stable",
    clause: "The same run opened again has the same `generation`, on another connection too.",
    run: async (world) => {
      const volume = await world.volume();
      const first = await world.open(volume, { run: "again" });
      await first.write(0, pattern(first.unit, 701));
      await first.flush();
      await first.writer[Symbol.asyncDispose]();
      for (const target of [world.target, await world.restarted()]) {
        const { writer } = await world.open(volume, { run: "again", target });
        world.judge.demand(
          writer.generation === first.writer.generation,
          `generation ${writer.generation} after ${first.writer.generation}`,
        );
        await writer[Symbol.asyncDispose]();
      }
    },
  },
  {
    id: "writer.generation.new-run",
    clause: "Another run has another `generation`.",
    run: async (world) => {
      const volume = await world.volume();
      const first = await world.open(volume);
      await first.writer[Symbol.asyncDispose]();
      const { writer } = await world.open(volume);
      world.judge.demand(writer.generation !== first.writer.generation, `generation ${writer.generation} for two runs`);
    },
  },
  {
    id: "writer.blank.proven",
    clause:
      "`blank` is true only where what this run does not write reads as zeroes, whatever earlier runs left unfinished.",
    run: async (world) => {
      const volume = await world.volume();
      const first = await world.open(volume);
      const { unit } = first;
      await first.write(0, pattern(unit, 711));
      await first.write(4 * unit, pattern(unit, 712));
      await first.flush();
      await first.writer[Symbol.asyncDispose]();
      const second = await world.open(volume);
      if (second.writer.blank === undefined && first.writer.blank === undefined)
        return world.judge.skip("absent: writer.blank");
      await second.write(2 * unit, pattern(unit, 713));
      const blank = second.writer.blank === true;
      const committed = await second.commit();
      if (blank) await world.holds(committed, 0, new Uint8Array(unit), "what a blank run did not write");
      if (blank) await world.holds(committed, 4 * unit, new Uint8Array(unit), "what a blank run did not write");
      await second.writer[Symbol.asyncDispose]();
      const third = await world.open(volume, { base: committed });
      world.judge.demand(third.writer.blank !== true, "a run that starts from bytes and calls itself blank");
    },
  },
  {
    id: "writer.blank.zeroes",
    clause: "Where `blank` is true on a new volume, what was not written reads as zeroes.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      if (writing.writer.blank !== true) return world.judge.skip("absent: writer.blank");
      await writing.write(writing.unit, pattern(writing.unit, 721));
      const committed = await writing.commit();
      await world.holds(committed, 0, new Uint8Array(writing.unit), "the range before the write");
      await world.holds(committed, 2 * writing.unit, new Uint8Array(8 * writing.unit), "the range behind the write");
    },
  },
  {
    id: "writer.write.bytes",
    clause: "What was written is what the committed volume holds, to its last byte.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { unit, writer } = writing;
      const last = Math.floor((writer.size - 1) / unit) * unit - unit;
      const places: [number, Uint8Array][] = [
        [0, pattern(unit, 731)],
        [3 * unit, pattern(3 * unit, 732)],
        [last, pattern(unit, 733)],
      ];
      for (const [offset, bytes] of places) await writing.write(offset, bytes);
      const committed = await writing.commit();
      for (const [offset, bytes] of places)
        await world.holds(committed, offset, bytes, `the range ${offset}+${bytes.byteLength}`);
    },
  },
  {
    id: "writer.write.idempotent",
    clause: "Writing the same again changes nothing, and a later write of other bytes wins.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { unit } = writing;
      const bytes = pattern(unit, 741);
      await writing.write(0, bytes);
      await writing.write(0, bytes);
      await writing.write(unit, pattern(unit, 742));
      await writing.flush();
      await writing.write(0, bytes);
      await writing.write(unit, pattern(unit, 743));
      const committed = await writing.commit();
      await world.holds(committed, 0, bytes, "what was written three times");
      await world.holds(committed, unit, pattern(unit, 743), "what was overwritten");
    },
  },
  {
    id: "writer.write.exact-range",
    clause: "A write changes its own range alone.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { unit } = writing;
      await writing.write(0, pattern(6 * unit, 751));
      await writing.flush();
      await writing.write(2 * unit, pattern(unit, 752));
      const committed = await writing.commit();
      const expected = pattern(6 * unit, 751);
      expected.set(pattern(unit, 752), 2 * unit);
      await world.holds(committed, 0, expected, "the range around the write");
    },
  },
  {
    id: "writer.write.keeps-no-reference",
    clause: "`write` keeps no reference to `data` after it settled: what the caller does with it later is not written.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const data = pattern(writing.unit, 761);
      await writing.write(0, data);
      data.fill(0xee);
      await new Promise((resolve) => setImmediate(resolve));
      const committed = await writing.commit();
      await world.holds(committed, 0, pattern(writing.unit, 761), "what was written before its buffer was used again");
    },
  },
  {
    id: "writer.write.leaves-data",
    clause: "`write` leaves `data` as it was, and without `headroom` the bytes around it too.",
    run: async (world) => {
      const { judge } = world;
      const writing = await world.open(await world.volume());
      const around = pattern(writing.unit + 256, 771);
      await writing.write(0, around.subarray(128, 128 + writing.unit));
      judge.same(around, pattern(writing.unit + 256, 771), "the caller's buffer");
      await writing.writer.write(writing.unit, around.subarray(128, 128 + writing.unit), { headroom: 64 });
      judge.same(
        around.subarray(128),
        pattern(writing.unit + 256, 771).subarray(128),
        "the caller's data behind its headroom",
      );
      judge.same(
        around.subarray(0, 64),
        pattern(writing.unit + 256, 771).subarray(0, 64),
        "what lies before the headroom",
      );
    },
  },
  {
    id: "writer.write.concurrent",
    clause: "`concurrency` writes at once each write their own range.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { writer, unit } = writing;
      const count = Math.min(writer.concurrency ?? 1, 16);
      if (count < 2) return world.judge.skip("absent: writer.concurrency above 1");
      await Promise.all(
        Array.from({ length: count }, (_, index) => writing.write(index * unit, pattern(unit, 780 + index))),
      );
      const committed = await writing.commit();
      for (let index = 0; index < count; index++) {
        await world.holds(
          committed,
          index * unit,
          pattern(unit, 780 + index),
          `write ${index + 1} of ${count} at once`,
        );
      }
    },
  },
  {
    id: "writer.write.short-final-block",
    clause: "The last block of a volume that is no multiple of `blockSize` is written at its own length.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { size, blockSize } = writing.writer;
      const rest = size % blockSize;
      if (rest === 0) return world.judge.skip("the volume is a multiple of blockSize");
      await writing.write(size - rest, pattern(rest, 801));
      await world.holds(await writing.commit(), size - rest, pattern(rest, 801), "the end of the volume");
    },
  },
  {
    id: "writer.write.beyond-end",
    clause: "`write` rejects a range that does not lie within the volume.",
    run: async (world) => {
      const { writer, unit } = await world.open(await world.volume());
      const start = Math.floor((writer.size - 1) / unit) * unit;
      await world.judge.rejected("a write across the end", writer.write(start, pattern(2 * unit, 811)));
      await world.judge.rejected("a write behind the end", writer.write(start + unit, pattern(unit, 812)));
    },
  },
  {
    id: "writer.write.cancel",
    clause: "`write` rejects with the reason of its aborted signal, before and during the call, and can be repeated.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { unit, writer } = writing;
      await writing.write(0, pattern(unit, 821));
      await world.judge.abortsBefore("write", (signal) => writer.write(0, pattern(unit, 822), { signal }));
      await world.judge.abortsDuring("write", (signal) => writing.write(unit, pattern(unit, 823), { signal }));
      await writing.write(unit, pattern(unit, 824));
      const committed = await writing.commit();
      await world.holds(committed, 0, pattern(unit, 821), "the range of a write that was aborted before it began");
      await world.holds(committed, unit, pattern(unit, 824), "the range of a write that was aborted and repeated");
    },
  },
  {
    id: "writer.zero.zeroes",
    clause: "`zero` makes its range read as zeroes, and no other.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { writer, unit } = writing;
      if (writer.zero === undefined) return world.judge.skip("absent: writer.zero");
      await writing.write(0, pattern(8 * unit, 831));
      await writing.flush();
      await writing.zero(2 * unit, 3 * unit);
      const committed = await writing.commit();
      const expected = pattern(8 * unit, 831);
      expected.fill(0, 2 * unit, 5 * unit);
      await world.holds(committed, 0, expected, "the range around the zeroes");
    },
  },
  {
    id: "writer.zero.order",
    clause: "Of a `zero` and a `write` over the same range the later one wins.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      const { writer, unit } = writing;
      if (writer.zero === undefined) return world.judge.skip("absent: writer.zero");
      await writing.write(0, pattern(4 * unit, 841));
      await writing.zero(0, 4 * unit);
      await writing.write(unit, pattern(unit, 842));
      const committed = await writing.commit();
      const expected = new Uint8Array(4 * unit);
      expected.set(pattern(unit, 842), unit);
      await world.holds(committed, 0, expected, "zeroes with a later write in them");
    },
  },
  {
    id: "writer.zero.over-base",
    clause: "`zero` clears what an earlier run committed.",
    run: async (world) => {
      const volume = await world.volume();
      const first = await world.run(volume, [[0, pattern(128 * 1024, 851)]]);
      const writing = await world.open(volume, { base: first });
      const { writer, unit } = writing;
      if (writer.zero === undefined) return world.judge.skip("absent: writer.zero");
      await writing.zero(0, unit);
      await writing.write(16 * unit, pattern(unit, 852));
      await world.holds(await writing.commit(), 0, new Uint8Array(unit), "what the base held and the run zeroed");
    },
  },
  {
    id: "writer.zero.rejects",
    clause: "`zero` rejects a range beyond the volume, and with the reason of its aborted signal.",
    run: async (world) => {
      const { writer, unit } = await world.open(await world.volume());
      if (writer.zero === undefined) return world.judge.skip("absent: writer.zero");
      const start = Math.floor((writer.size - 1) / unit) * unit;
      await world.judge.rejected("a zero behind the end", writer.zero(start + unit, unit));
      await world.judge.abortsBefore("zero", async (signal) => writer.zero?.(0, unit, { signal }));
    },
  },
  {
    id: "writer.read.back",
    clause: "`read` gives what this run would commit: its writes over its base.",
    run: async (world) => {
      const { judge } = world;
      const volume = await world.volume();
      const first = await world.run(volume, [[0, pattern(128 * 1024, 861)]]);
      const writing = await world.open(volume, { base: first });
      const { writer, unit } = writing;
      if (writer.read === undefined) return judge.skip("absent: writer.read");
      await writing.write(unit, pattern(unit, 862));
      await writing.flush();
      const into = new Uint8Array(unit).fill(0xa5);
      await writer.read(unit, into);
      judge.same(into, pattern(unit, 862), "what the run wrote");
      await writer.read(0, into);
      judge.same(into, pattern(128 * 1024, 861).subarray(0, unit), "what the base holds");
      await judge.abortsBefore("writer.read", async (signal) => writer.read?.(0, into, { signal }));
    },
  },
  {
    id: "writer.flush.repeatable",
    clause: "`flush` works with nothing to flush, and again, and rejects with the reason of its aborted signal.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      await writing.flush();
      await writing.write(0, pattern(writing.unit, 871));
      await writing.flush();
      await writing.flush();
      await world.judge.abortsBefore("flush", (signal) => writing.writer.flush({ signal }));
      await world.holds(await writing.commit(), 0, pattern(writing.unit, 871), "the flushed range");
    },
  },
  {
    id: "writer.flush.durable",
    clause: "What was written before a `flush` that settled survives a crash, with all that reopening needs.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.crash === undefined) return judge.skip("absent: harness.target.crash");
      const volume = await world.volume();
      const writing = await world.open(volume, { run: "crashed" });
      const { unit } = writing;
      for (let index = 0; index < 12; index++) await writing.write(index * unit, pattern(unit, 880 + index));
      await writing.flush();
      await writing.write(13 * unit, pattern(unit, 899));
      await harness.crash();
      await writing.writer[Symbol.asyncDispose]().catch(() => undefined);
      const again = await world.open(volume, { run: "crashed", epoch: 2, target: await world.restarted() });
      judge.demand(
        again.writer.generation === writing.writer.generation,
        "another generation, though what was flushed is there",
      );
      await again.write(13 * unit, pattern(unit, 900));
      const committed = await again.commit(writing);
      for (let index = 0; index < 12; index++) {
        await world.holds(
          committed,
          index * unit,
          pattern(unit, 880 + index),
          `write ${index + 1}, flushed before the crash`,
        );
      }
      await world.holds(committed, 13 * unit, pattern(unit, 900), "what was written again after the crash");
    },
  },
  {
    id: "writer.flush.this-session",
    clause: "After a crash the writer's `flush` rejects: it must not vouch for writes of an earlier session.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.crash === undefined) return judge.skip("absent: harness.target.crash");
      const writing = await world.open(await world.volume());
      await writing.write(0, pattern(writing.unit, 911));
      await harness.crash();
      await judge.rejects("a flush after a crash", writing.flush(), "UNAVAILABLE", "FENCED", "NOT_FOUND");
    },
  },
  {
    id: "writer.write.lost-session",
    clause:
      "After a crash `write` works again, or rejects with UNAVAILABLE and `retryable: false` so that the run is opened anew.",
    run: async (world) => {
      const { judge, harness } = world;
      if (harness.crash === undefined) return judge.skip("absent: harness.target.crash");
      const { writer, unit } = await world.open(await world.volume());
      await harness.crash();
      let error: unknown;
      for (let attempt = 0; attempt < 8; attempt++) {
        error = await writer.write(0, pattern(unit, 915)).then(
          () => undefined,
          (failure: unknown) => failure ?? "nothing",
        );
        if (error === undefined) return;
        if (!isProviderError(error) || !error.retryable) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const lost = isProviderError(error) && !error.retryable && ["UNAVAILABLE", "FENCED"].includes(error.code);
      judge.demand(lost, `a write that rejects with ${describeError(error)} again and again`);
    },
  },
  {
    id: "writer.dispose.keeps",
    clause:
      "Disposing closes a writer and keeps what was flushed: the run goes on where it was. Twice does nothing more.",
    run: async (world) => {
      const volume = await world.volume();
      const first = await world.open(volume, { run: "on" });
      const { unit } = first;
      await first.write(0, pattern(unit, 921));
      await first.flush();
      await first.writer[Symbol.asyncDispose]();
      await first.writer[Symbol.asyncDispose]();
      const second = await world.open(volume, { run: "on", target: await world.restarted() });
      await second.write(unit, pattern(unit, 922));
      const committed = await second.commit(first);
      await world.holds(committed, 0, pattern(unit, 921), "what was written before the run was opened again");
      await world.holds(committed, unit, pattern(unit, 922), "what was written after the run was opened again");
    },
  },
  {
    id: "writer.commit.volume",
    clause: "`commit` gives a volume of the run's size, plain JSON, and rejects with the reason of its aborted signal.",
    run: async (world) => {
      const { judge } = world;
      const writing = await world.open(await world.volume());
      await writing.write(0, pattern(writing.unit, 931));
      await writing.flush();
      await judge.abortsBefore("commit", (signal) => writing.writer.commit({ written: writing.written(), signal }));
      const committed = await writing.commit();
      judge.demand(isPlainJson(committed), "a volume that is no plain JSON");
      judge.demand(
        committed.size === writing.writer.size,
        `${committed.size} bytes of a run of ${writing.writer.size}`,
      );
      await world.holds(committed, 0, pattern(writing.unit, 931), "the committed volume");
    },
  },
  {
    id: "writer.commit.idempotent",
    clause: "`commit` gives the same volume again, also when the run was opened again after its commit.",
    run: async (world) => {
      const { judge } = world;
      const volume = await world.volume();
      const first = await world.open(volume, { run: "once" });
      await first.write(0, pattern(first.unit, 941));
      const committed = await first.commit();
      const again = await first.writer.commit({ written: first.written() });
      judge.demand(again.id === committed.id, `volume ${again.id} by the second commit, ${committed.id} by the first`);
      await first.writer[Symbol.asyncDispose]();
      for (const target of [world.target, await world.restarted()]) {
        const { writer } = await world.open(volume, { run: "once", target });
        const third = await writer.commit({ written: first.written() });
        judge.demand(third.id === committed.id, `volume ${third.id} by the run opened again, ${committed.id} before`);
        await writer[Symbol.asyncDispose]();
      }
      await world.holds(committed, 0, pattern(first.unit, 941), "the volume after it was committed again");
    },
  },
  {
    id: "writer.commit.over-base",
    clause: "A run that starts from a base holds the base's bytes where it wrote nothing.",
    run: async (world) => {
      const volume = await world.volume();
      const base = await world.run(volume, [[0, pattern(128 * 1024, 951)]]);
      const writing = await world.open(volume, { base });
      await writing.write(writing.unit, pattern(writing.unit, 952));
      const committed = await writing.commit();
      const { unit } = writing;
      const expected = pattern(128 * 1024, 951).subarray(0, Math.max(unit, 64 * 1024));
      if (unit < expected.byteLength) expected.set(pattern(unit, 952), unit);
      await world.holds(committed, 0, expected, "the increment over its base");
    },
  },
  {
    id: "writer.commit.earlier-versions",
    clause: "Where each commit is a volume of its own, an earlier one keeps its bytes.",
    run: async (world) => {
      const volume = await world.volume();
      const bytes = pattern(128 * 1024, 961);
      const base = await world.run(volume, [[0, bytes]]);
      if (!world.hasVersions(volume, base)) return world.judge.skip("absent: volumes that stand on others");
      const next = await world.run(volume, [[0, pattern(128 * 1024, 962)]], { base });
      world.judge.demand(next.id !== base.id, `volume ${next.id} for two commits`);
      await world.holds(base, 0, bytes, "the earlier version");
    },
  },
  {
    id: "writer.abandon.base",
    clause:
      "`abandon` discards what the run wrote where it can, harms no earlier version, works twice, and the volume takes a new run.",
    run: async (world) => {
      const volume = await world.volume();
      const bytes = pattern(128 * 1024, 971);
      const base = await world.run(volume, [[0, bytes]]);
      const writing = await world.open(volume, { base, run: "given-up" });
      await writing.write(0, pattern(writing.unit, 972));
      await writing.flush();
      await writing.writer.abandon();
      await writing.writer.abandon();
      await writing.writer[Symbol.asyncDispose]();
      if (world.hasVersions(volume, base))
        await world.holds(base, 0, bytes, "the version that the abandoned run started from");
      const next = await world.run(volume, [[0, bytes]], { base });
      await world.holds(next, 0, bytes, "the run after the abandoned one");
    },
  },
  {
    id: "writer.abandon.generation",
    clause: "A run opened again after `abandon` has another `generation`, and is blank only if nothing of it is left.",
    run: async (world) => {
      const volume = await world.volume();
      const first = await world.open(volume, { run: "given-up" });
      await first.write(0, pattern(first.unit, 981));
      await first.flush();
      await first.writer.abandon();
      await first.writer[Symbol.asyncDispose]();
      const again = await world.open(volume, { run: "given-up" });
      world.judge.demand(
        again.writer.generation !== first.writer.generation,
        `generation ${again.writer.generation} before and after`,
      );
      if (again.writer.blank !== true) return;
      await again.write(again.unit, pattern(again.unit, 982));
      await world.holds(await again.commit(), 0, new Uint8Array(again.unit), "what the abandoned run had written");
    },
  },
  {
    id: "writer.abandon.keeps-commit",
    clause: "`abandon` after a commit leaves the committed volume.",
    run: async (world) => {
      const writing = await world.open(await world.volume());
      await writing.write(0, pattern(writing.unit, 991));
      const committed = await writing.commit();
      await writing.writer.abandon();
      await world.holds(committed, 0, pattern(writing.unit, 991), "the committed volume after abandon");
    },
  },
  {
    id: "writer.digest.checked",
    clause: "A writer that demands digests rejects a write whose bytes do not have them.",
    run: async (world) => {
      const { judge } = world;
      const { writer, unit } = await world.open(await world.volume());
      if (writer.digest === undefined) return judge.skip("absent: writer.digest");
      const digest = new Uint8Array(32 * Math.ceil(unit / writer.blockSize)).fill(7);
      await judge.rejects("a write with other digests", writer.write(0, pattern(unit, 1001), { digest }), "CORRUPT");
    },
  },
  {
    id: "writer.lane.equal",
    clause: "What a writer's lane writes and settles is covered by the writer's next `flush`.",
    run: async (world) => {
      const { judge } = world;
      const volume = await world.volume();
      const writing = await world.open(volume, { run: freshKey("lane") });
      const { writer, unit } = writing;
      const lane = judge.needs(writer.lane, "writer.lane");
      const { open } = (await import(lane.module)) as { open(data: unknown): Promise<LaneWriter> };
      const own = await open(structuredClone(lane.data));
      judge.demand(own.size === writer.size && own.blockSize === writer.blockSize, "a lane of another geometry");
      await own.write(2 * unit, pattern(unit, 1011));
      lane.merge?.(structuredClone(await own.settle()));
      await writing.write(4 * unit, pattern(unit, 1012));
      await writer.flush();
      await own[Symbol.asyncDispose]();
      const extents = [2 * unit, 4 * unit].map((offset) => ({ offset, length: unit }));
      const committed = await writer.commit({
        written: (async function* () {
          yield* extents;
        })(),
      });
      if (committed.id !== volume.id) world.willRemove(committed);
      await world.holds(committed, 2 * unit, pattern(unit, 1011), "what the lane wrote");
      await world.holds(committed, 4 * unit, pattern(unit, 1012), "what the writer wrote beside the lane");
    },
  },
];
