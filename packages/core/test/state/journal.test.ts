import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Bounds } from "../../../../test/bounds.ts";
import { randomBytes, randomFrom, seedOf, seedsOf } from "../../../../test/seed.ts";
import { isProviderError } from "../../src/provider/error.ts";
import type { WrittenExtent } from "../../src/provider/target.ts";
import { openDirectoryState } from "../../src/state/directory-state-store.ts";
import { encodeFrame } from "../../src/state/frame.ts";
import {
  type Journal,
  type JournalEntry,
  type JournalHeader,
  type JournalLine,
  openJournal,
  replayJournals,
} from "../../src/state/journal.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import type { StateStore } from "../../src/state/state-store.ts";
import { LosingFiles } from "./losing-files.ts";

const leaf = 65_536;
const header: JournalHeader = {
  run: "run-1",
  snapshot: "snap/Ü",
  generation: "g1",
  size: 2 ** 45,
  leaf,
  algorithm: "blake3",
};

async function entries(store: StateStore, prefix = ""): Promise<JournalEntry[]> {
  const found: JournalEntry[] = [];
  for await (const entry of replayJournals(store, prefix)) found.push(entry);
  return found;
}

/** Any line; offsets reach beyond 32 bits. */
function randomLine(random: () => number): JournalLine {
  const extents: WrittenExtent[] = [];
  for (let left = Math.floor(random() * 5); left >= 0; left--) {
    const offset = Math.floor(random() * (header.size / 512 - 4000)) * 512;
    extents.push({ offset, length: Math.floor(random() * 4000) * 512 });
  }
  const dice = random();
  if (dice < 0.3) return { kind: "intent", extents };
  if (dice < 0.4) return { kind: "note", note: { phase: "verify", at: [extents.length, null, "ü"] } };
  for (const extent of extents) {
    const first = Math.floor(extent.offset / leaf);
    const touched = extent.length === 0 ? 0 : Math.ceil((extent.offset + extent.length) / leaf) - first;
    if (random() < 0.7) extent.digests = randomBytes(touched * 32, touched + 1);
  }
  return { kind: "durable", extents };
}

/** Lines as texts, which are quick to compare and to show. */
function texts(lines: readonly object[]): string[] {
  return lines.map((line) =>
    JSON.stringify(line, (_, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value,
    ).replace(/"log":"[^"]*"/, ""),
  );
}

async function write(journal: Journal, line: JournalLine): Promise<void> {
  if (line.kind === "intent") await journal.intent(line.extents);
  else if (line.kind === "durable") await journal.durable(line.extents);
  else if (line.kind === "note") await journal.note(line.note);
}

describe("a journal", () => {
  it("gives back every line as it was, in order", async () => {
    const store = new MemoryStateStore();
    const random = randomFrom(seedOf(31));
    const journal = await openJournal(store, "j/1", header);
    const lines: object[] = [{ kind: "open", ...header, log: "j/1" }];
    for (let index = 0; index < 200; index++) {
      const line = randomLine(random);
      lines.push({ ...line, log: "j/1" });
      await write(journal, line);
    }
    const found = await entries(store, "j/");
    expect(texts(found)).toEqual(texts(lines));
    expect(found.every(({ log }) => log === "j/1")).toBe(true);
    const digests = found
      .flatMap((entry) => (entry.kind === "durable" ? entry.extents : []))
      .find((e) => e.digests)!.digests!;
    expect(digests.buffer.byteLength, "memory of its own").toBe(digests.byteLength);
    expect(journal.header).toEqual(header);
    expect(journal.bytes).toBeGreaterThan(200 * 16);
  });

  it("keeps an extent in a few bytes beside its digests", async () => {
    const store = new MemoryStateStore();
    const journal = await openJournal(store, "j", header);
    const before = journal.bytes;
    await journal.intent(Array.from({ length: 256 }, (_, index) => ({ offset: 2 ** 44 + index * leaf, length: leaf })));
    expect(journal.bytes - before).toBeLessThan(256 * 4 + 40);
  });

  it("cuts what does not fit a frame, and nothing is lost or torn apart within a leaf", async () => {
    const store = new MemoryStateStore();
    const journal = await openJournal(store, "j", header);
    const leaves = 200_001;
    const digests = randomBytes(leaves * 32, 6);
    const offset = 7 * leaf - 512;
    const length = leaves * leaf - leaf;
    await journal.durable([
      { offset: 0, length: 512 },
      { offset, length, digests },
      { offset: 2 ** 44, length: 512 },
    ]);
    await journal.intent(Array.from({ length: 10_000 }, (_, index) => ({ offset: index * leaf * 2, length: 512 })));
    const found = (await entries(store)).slice(1);
    const durable = found.flatMap((entry) => (entry.kind === "durable" ? entry.extents : []));
    expect(durable.at(0)).toEqual({ offset: 0, length: 512 });
    expect(durable.at(-1)).toEqual({ offset: 2 ** 44, length: 512 });
    const pieces = durable.slice(1, -1);
    expect(pieces.length).toBeGreaterThan(2);
    let end = offset;
    for (const piece of pieces) {
      expect(piece.offset).toBe(end);
      if (piece !== pieces[0]) expect(piece.offset % leaf).toBe(0);
      end = piece.offset + piece.length;
    }
    expect(end).toBe(offset + length);
    expect(Buffer.compare(Buffer.concat(pieces.map((piece) => piece.digests!)), digests)).toBe(0);
    expect(found.reduce((sum, entry) => sum + (entry.kind === "intent" ? entry.extents.length : 0), 0)).toBe(10_000);
  });

  it("replays the logs of a run one after the other, epochs by number, and no others", async () => {
    const store = new MemoryStateStore();
    for (const key of ["j/run-1/10", "j/run-1/9/slice-2", "j/run-1/9/slice-10", "j/run-1/1", "j/run-2/1"]) {
      await (await openJournal(store, key, header)).note(key);
    }
    await (await openJournal(store, "j/run-10", header)).note("another run, whose key begins the same");
    const logs = (await entries(store, "j/run-1")).filter(({ kind }) => kind === "note").map(({ log }) => log);
    expect(logs).toEqual(["j/run-1/1", "j/run-1/9/slice-2", "j/run-1/9/slice-10", "j/run-1/10"]);
    await expect(openJournal(store, "j/run-1/10", header)).rejects.toMatchObject({ code: "EXISTS" });
  });

  it("refuses extents that are none and digests that do not fit, and writes nothing then", async () => {
    const store = new MemoryStateStore();
    const journal = await openJournal(store, "j", header);
    const before = journal.bytes;
    for (const extent of [
      { offset: 1, length: 512 },
      { offset: -512, length: 512 },
      { offset: 0, length: 0.5 },
    ]) {
      await expect(journal.intent([extent])).rejects.toThrow(RangeError);
    }
    await expect(journal.durable([{ offset: leaf - 512, length: 1024, digests: new Uint8Array(32) }])).rejects.toThrow(
      RangeError,
    );
    const far = { offset: 0, length: leaf, digests: new Uint8Array(3 * 1024 * 1024) };
    await expect(journal.durable([far])).rejects.toThrow(RangeError);
    expect(journal.bytes).toBe(before);
  });
});

/** A log as its frames, to damage. */
async function frames(count: number): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  class Recorder extends MemoryStateStore {
    override async append(_: string, bytes: Uint8Array): Promise<void> {
      pieces.push(bytes.slice());
    }
  }
  const journal = await openJournal(new Recorder(), "j", header);
  const random = randomFrom(8);
  while (pieces.length < count) await write(journal, randomLine(random));
  return pieces;
}

async function replay(log: Uint8Array, pieceLength = 1000): Promise<JournalEntry[]> {
  const store = new MemoryStateStore();
  for (let at = 0; at < log.length; at += pieceLength) await store.append("j/1", log.subarray(at, at + pieceLength));
  return await entries(store);
}

describe("a journal's log", () => {
  it("may end anywhere: what is whole is there, and the torn frame is not", async () => {
    const pieces = await frames(8);
    const whole = Buffer.concat(pieces);
    const all = await replay(whole);
    const ends = pieces.reduce<number[]>((sums, piece) => [...sums, (sums.at(-1) ?? 0) + piece.length], []);
    for (let length = 0; length <= whole.length; length += 1 + Math.floor(whole.length / 400)) {
      const expected = ends.filter((end) => end <= length).length;
      expect(texts(await replay(whole.subarray(0, length))), String(length)).toEqual(texts(all.slice(0, expected)));
      // The same with the rest of the torn frame as zeroes, as file systems leave it.
      const zeroed = Buffer.concat([whole.subarray(0, length), Buffer.alloc((ends[expected] ?? length) - length)]);
      const replayed = await replay(zeroed);
      expect(replayed.length - expected).toBeLessThanOrEqual(1);
      expect(texts(replayed)).toEqual(texts(all.slice(0, replayed.length)));
    }
  });

  it("is CORRUPT, naming the log, when a damaged frame is followed by a good one", async () => {
    const pieces = await frames(6);
    const whole = Buffer.concat(pieces);
    const lastBegins = whole.length - pieces.at(-1)!.length;
    const random = randomFrom(seedOf(99));
    for (let damage = 0; damage < 150; damage++) {
      const damaged = Buffer.from(whole);
      damaged[Math.floor(random() * lastBegins)]! ^= 1 << Math.floor(random() * 8);
      const pieceLength = 1 + Math.floor(random() * 3000);
      await expect(replay(damaged, pieceLength)).rejects.toMatchObject({
        code: "CORRUPT",
        message: expect.stringMatching(/journal j\/1 is damaged.*remove/) as string,
      });
    }
    const without = Buffer.concat([...pieces.slice(1)]);
    await expect(replay(without)).rejects.toMatchObject({ code: "CORRUPT" });
    await expect(replay(Buffer.concat([pieces[0]!, pieces[0]!]))).rejects.toThrow("begins twice");
    await expect(replay(Buffer.concat([pieces[0]!, encodeFrame(Buffer.of(9))]))).rejects.toThrow("unknown kind");
  });

  it.each(seedsOf(20_261_122))(
    "gives lines or a ProviderError for any bytes, in bounded time, seed %i",
    { timeout: 120_000 },
    async (seed) => {
      const pieces = await frames(4);
      const outcomes = { replayed: 0, refused: 0 };
      await using bounds = new Bounds(`journals, seed ${seed}`);
      const anyBytes = fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom(...pieces),
        // Frames whose checksums are right and whose payload is anything.
        fc.uint8Array({ maxLength: 200 }).map((payload) => encodeFrame(payload)),
        fc
          .tuple(fc.integer({ min: 1, max: 4 }), fc.uint8Array({ maxLength: 60 }))
          .map(([kind, rest]) => encodeFrame(Uint8Array.from([kind, ...rest]))),
        fc.tuple(fc.constantFrom(...pieces), fc.nat(), fc.nat(255)).map(([piece, at, value]) => {
          const changed = piece.slice();
          changed[at % piece.length] = value;
          return changed;
        }),
      );
      await fc.assert(
        fc.asyncProperty(fc.array(anyBytes, { maxLength: 6 }), fc.boolean(), (parts, open) =>
          bounds.run(async () => {
            try {
              await replay(Buffer.concat(open ? [pieces[0]!, ...parts] : parts), 700);
              outcomes.replayed++;
            } catch (error) {
              expect(isProviderError(error) && error.code, String(error)).toBe("CORRUPT");
              outcomes.refused++;
            }
          }),
        ),
        { numRuns: 1500, seed },
      );
      console.log(
        `journal: ${outcomes.replayed} logs of random bytes replayed, ${outcomes.refused} refused; seed ${seed}`,
      );
      // A log made to be slow: beginnings of frames everywhere, each of which claims to be long.
      const begun = encodeFrame(new Uint8Array(3 * 1024 * 1024)).subarray(0, 16);
      const slow = Buffer.concat([pieces[0]!, Buffer.of(1), ...Array.from({ length: 300_000 }, () => begun)]);
      await expect(replay(slow, 65_536)).rejects.toMatchObject({ code: "CORRUPT" });
    },
  );
});

describe("a journal on a state directory that loses power", () => {
  it(
    "holds every line that was acknowledged, in order, through crashes and resumed epochs",
    { timeout: 120_000 },
    async () => {
      const seed = seedOf(Math.floor(Math.random() * 1e9));
      const losses = 240;
      let acknowledged = 0;
      let torn = 0;
      for (let loss = 0; loss < losses;) {
        const random = randomFrom(seed + loss);
        let files = new LosingFiles(random);
        let lines: JournalLine[] = [];
        for (let round = 0; round < 4; round++, loss++) {
          let underWay: JournalLine | undefined;
          files.cutAfter(40 + Math.floor(random() * 120));
          try {
            const store = await openDirectoryState("/s", { files, identity: files.identity });
            const lease = await store.acquire("job");
            const first: JournalLine = { kind: "open", ...header, generation: `${lease.epoch}` };
            underWay = first;
            const journal = await openJournal(store, `j/${lease.epoch}`, { ...header, generation: `${lease.epoch}` });
            lines.push(first);
            underWay = undefined;
            for (;;) {
              const line = randomLine(random);
              underWay = line;
              await write(journal, line);
              underWay = undefined;
              lines.push(line);
              acknowledged++;
            }
          } catch (error) {
            expect(files.isCut, `seed ${seed}, loss ${loss}: ${String(error)}`).toBe(true);
          }
          files = files.restart();
          const store = await openDirectoryState("/s", { files, identity: files.identity });
          const found = (await entries(store, "j/")).map(({ log: _, ...line }): JournalLine => line);
          expect(texts(found.slice(0, lines.length)), `seed ${seed}, loss ${loss}`).toEqual(texts(lines));
          if (found.length > lines.length) expect(texts(found.slice(lines.length))).toEqual(texts([underWay!]));
          else if (underWay !== undefined) torn++;
          lines = found;
        }
      }
      console.log(
        `journals: ${losses} power losses, ${acknowledged} lines, ${torn} last ones lost or torn; seed ${seed}`,
      );
      expect(torn).toBeGreaterThan(losses / 10);
    },
  );
});
