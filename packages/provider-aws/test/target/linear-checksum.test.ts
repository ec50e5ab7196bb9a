import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { clientToken } from "../../src/target/client-token.ts";
import { LinearChecksum } from "../../src/target/linear-checksum.ts";
import { readsAsZeroes } from "../../src/target/zero-policy.ts";

const block = 512 * 1024;
const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

describe("LINEAR", () => {
  test("is SHA-256 over the digest bytes of the blocks in ascending order, however they come in extents", () => {
    const digests = ["a", "b", "c"].map(digest);
    const expected = createHash("sha256").update(Buffer.concat(digests)).digest("base64");
    const apart = new LinearChecksum(2 ** 30);
    for (const [at, one] of digests.entries()) apart.add({ offset: 2 * at * block, length: block, digests: one });
    expect([apart.count, apart.end()]).toEqual([3, expected]);
    const together = new LinearChecksum(2 ** 30);
    together.add({ offset: 7 * block, length: 3 * block, digests: Buffer.concat(digests) });
    expect([together.count, together.end()]).toEqual([3, expected]);
  });

  test("refuses extents out of order, overlapping, beyond the end, of parts of blocks or without digests", () => {
    const sum = new LinearChecksum(4 * block);
    sum.add({ offset: block, length: 2 * block, digests: Buffer.concat([digest("a"), digest("b")]) });
    for (const [offset, length, blocks] of [
      [0, block, 1],
      [2 * block, block, 1],
      [3 * block, 2 * block, 2],
      [3 * block + 512, block, 1],
      [3 * block, 512, 1],
      [3 * block, 0, 0],
      [3 * block, block, 0],
      [3 * block, block, 2],
    ] as const)
      expect(() => sum.add({ offset, length, digests: new Uint8Array(32 * blocks) })).toThrow(RangeError);
    expect(() => sum.add({ offset: 3 * block, length: block })).toThrow(RangeError);
    expect(sum.count).toBe(2);
  });
});

describe("client tokens", () => {
  test("have at most 64 ASCII characters, whatever they are about", () => {
    const token = clientToken(["jöb ".repeat(400), "disk/7", 3]);
    expect(token).toMatch(/^[ -~]{1,64}$/);
    expect(clientToken(["jöb ".repeat(400), "disk/7", 3])).toBe(token);
  });

  test("differ wherever one part differs, and parts do not run together", () => {
    const tokens = [["a", "b"], ["ab"], ["a", "b", 0], ["a", "b", 1], ["a,b"], ["a", ""], ["", "a"]].map(clientToken);
    expect(new Set(tokens).size).toBe(tokens.length);
  });
});

test("blocks that were not put read as zeroes only without a parent and without encryption", () => {
  expect(readsAsZeroes({ parent: undefined, encrypted: false })).toBe(true);
  expect(readsAsZeroes({ parent: "snap-0", encrypted: false })).toBe(false);
  expect(readsAsZeroes({ parent: undefined, encrypted: true })).toBe(false);
  expect(readsAsZeroes({ parent: "snap-0", encrypted: true })).toBe(false);
});
