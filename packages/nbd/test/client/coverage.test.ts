import fc from "fast-check";
import { expect, it } from "vitest";
import { seedOf } from "../../../../test/seed.ts";
import { Coverage } from "../../src/client/coverage.ts";

it("agrees with a byte by byte account for any pieces in any order", () => {
  const length = 64;
  const piece = fc.tuple(fc.nat(length - 1), fc.integer({ min: 1, max: 16 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
      const coverage = new Coverage();
      const bytes = new Set<number>();
      for (const [from, size] of pieces) {
        const to = Math.min(from + size, length);
        const range = Array.from({ length: to - from }, (_, index) => from + index);
        const fresh = !range.some((byte) => bytes.has(byte));
        expect(coverage.add(from, to)).toBe(fresh);
        if (!fresh) return;
        for (const byte of range) bytes.add(byte);
        expect(coverage.covers(length)).toBe(bytes.size === length);
      }
    }),
    { seed: seedOf(7), numRuns: 2000 },
  );
});

it("is complete once shuffled pieces fill the range", () => {
  const order = fc.shuffledSubarray(
    Array.from({ length: 64 }, (_, index) => index),
    { minLength: 64 },
  );
  fc.assert(
    fc.property(order, (blocks) => {
      const coverage = new Coverage();
      blocks.forEach((block, index) => {
        expect(coverage.covers(64)).toBe(false);
        expect(coverage.add(block, block + 1)).toBe(true);
        expect(coverage.covers(64)).toBe(index === 63);
      });
    }),
    { seed: seedOf(7), numRuns: 200 },
  );
});

it("refuses to remember pieces without end", () => {
  const coverage = new Coverage();
  let accepted = 0;
  while (accepted < 100_000 && coverage.add(2 * accepted + 1, 2 * accepted + 2)) accepted++;
  expect(accepted).toBe(4096);
});
