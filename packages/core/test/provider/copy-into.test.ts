import { expect, test } from "vitest";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { copyInto } from "../../src/provider/copy-into.ts";

const seed = seedOf(61);

test("bytes land where they are told to, whatever memory they come from and however it lies, and nowhere else", () => {
  const bytes = randomBytes(256, seed);
  for (const memory of [new ArrayBuffer(128), new SharedArrayBuffer(128)]) {
    for (let skip = 0; skip < 9; skip++) {
      for (const length of [0, 1, 2, 7, 8, 9, 63, 64]) {
        for (const at of [0, 1, 5, 100 - length]) {
          const all = new Uint8Array(memory).fill(0xee);
          const expected = new Uint8Array(128).fill(0xee);
          expected.set(bytes.subarray(skip, skip + length), 9 + at);
          copyInto(new Uint8Array(memory, 9, 100), bytes.subarray(skip, skip + length), at);
          expect(Buffer.compare(all, expected), `${length} from ${skip} to ${at}, seed ${seed}`).toBe(0);
        }
      }
    }
  }
});

test("what does not fit is refused, and nothing is written", () => {
  const into = new Uint8Array(8);
  for (const [length, at] of [
    [9, 0],
    [1, 8],
    [4, 5],
    [1, -1],
  ] as const) {
    expect(() => copyInto(into, new Uint8Array(length).fill(1), at)).toThrow(RangeError);
  }
  expect(into).toEqual(new Uint8Array(8));
});
