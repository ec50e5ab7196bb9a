import { describe, expect, it } from "vitest";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { LeafBitmap } from "../../src/manifest/bitmap.ts";

describe("a bitmap of leaves", () => {
  it("agrees with a set of numbers through random changes", () => {
    const random = randomFrom(seedOf(17));
    for (const leaves of [1, 31, 32, 33, 32_768, 100_001]) {
      const bitmap = new LeafBitmap(leaves);
      const model = new Uint8Array(leaves);
      for (let step = 0; step < 60; step++) {
        const leaf = Math.floor(random() * leaves);
        const longest = random() < 0.5 ? 40 : leaves;
        const count = Math.floor(random() * Math.min(leaves - leaf + 1, longest));
        const value = random() < 0.6;
        if (value) bitmap.set(leaf, count);
        else bitmap.clear(leaf, count);
        model.fill(value ? 1 : 0, leaf, leaf + count);
        const at = Math.floor(random() * leaves);
        expect(bitmap.has(at)).toBe(model[at] === 1);
      }
      const seen = new Uint8Array(leaves);
      let end = -1;
      for (const run of bitmap.runs()) {
        expect(run.leaf, "runs ascend and do not touch").toBeGreaterThan(end);
        expect(run.count).toBeGreaterThan(0);
        end = run.leaf + run.count;
        seen.fill(1, run.leaf, end);
      }
      expect(Buffer.compare(seen, model)).toBe(0);
      expect(bitmap.count).toBe(model.reduce((sum, bit) => sum + bit, 0));
      const [from, to] = [Math.floor(leaves / 3), Math.floor((leaves * 2) / 3)];
      const within = [...bitmap.runs(from, to)].reduce((sum, { count }) => sum + count, 0);
      expect(within).toBe(model.subarray(from, to).reduce((sum, bit) => sum + bit, 0));
    }
  });

  it("gives its runs as extents, the last cut where the disk ends", () => {
    const bitmap = new LeafBitmap(4);
    bitmap.set(0);
    bitmap.set(2, 2);
    expect([...bitmap.extents(4096, 3 * 4096 + 512)]).toEqual([
      { offset: 0, length: 4096 },
      { offset: 8192, length: 4096 + 512 },
    ]);
    expect([...new LeafBitmap(2 ** 31).extents(65_536, 2 ** 47)]).toEqual([]);
  });

  it("takes no memory for what it does not hold, and refuses leaves there are not", () => {
    const bitmap = new LeafBitmap(2 ** 33);
    bitmap.set(2 ** 33 - 1);
    expect([...bitmap.runs(2 ** 33 - 40_000)]).toEqual([{ leaf: 2 ** 33 - 1, count: 1 }]);
    for (const [leaf, count] of [
      [-1, 1],
      [2 ** 33, 1],
      [0, 2 ** 33 + 1],
      [0.5, 1],
      [0, -1],
    ] as const) {
      expect(() => bitmap.set(leaf, count)).toThrow(RangeError);
    }
    expect(() => new LeafBitmap(-1)).toThrow(RangeError);
  });
});
