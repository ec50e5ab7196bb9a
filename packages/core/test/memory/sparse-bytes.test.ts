import { expect, it } from "vitest";
import { ExtentSet } from "../../src/memory/extent-set.ts";
import { SparseBytes } from "../../src/memory/sparse-bytes.ts";
import { randomFrom, seedOf } from "../../../../test/seed.ts";

const size = 256 * 1024;

it("holds what a plain array holds, through random writes, zeroes, forks and resizes", () => {
  const seed = seedOf(71);
  const random = randomFrom(seed);
  const upTo = (most: number): number => Math.floor(random() * most);
  const pairs = [{ sparse: new SparseBytes(size), plain: new Uint8Array(size) }];
  for (let step = 0; step < 400; step++) {
    const pair = pairs[upTo(pairs.length)]!;
    const offset = upTo(pair.plain.byteLength);
    const length = upTo(Math.min(60_000, pair.plain.byteLength - offset) + 1);
    const action = random();
    if (action < 0.5) {
      const data = new Uint8Array(length).fill(1 + upTo(255));
      pair.sparse.write(offset, data);
      pair.plain.set(data, offset);
      data.fill(0xee);
    } else if (action < 0.8) {
      pair.sparse.zero(offset, length);
      pair.plain.fill(0, offset, offset + length);
    } else if (action < 0.9 && pairs.length < 6) {
      pairs.push({ sparse: pair.sparse.fork(), plain: pair.plain.slice() });
    } else {
      const resized = 1 + upTo(2 * size);
      pair.sparse.resize(resized);
      const plain = new Uint8Array(resized);
      plain.set(pair.plain.subarray(0, resized));
      pair.plain = plain;
    }
    for (const { sparse, plain } of pairs) {
      const bytes = new Uint8Array(plain.byteLength).fill(0xaa);
      sparse.read(0, bytes);
      expect(Buffer.compare(bytes, plain), `seed ${seed}, step ${step}`).toBe(0);
    }
  }
});

it("calls everything that holds a byte allocated, and nothing of an untouched disk of 1 TiB", () => {
  const sparse = new SparseBytes(1024 ** 4);
  expect([...sparse.allocated()]).toEqual([]);
  sparse.write(1024 ** 4 - 512, new Uint8Array(512).fill(1));
  sparse.write(12_345, new Uint8Array(40_000).fill(1));
  const held = new ExtentSet();
  held.add(1024 ** 4 - 512, 512);
  held.add(12_345, 40_000);
  expect(held.firstOutside(sparse.allocated())).toBeUndefined();
  sparse.zero(0, 1024 ** 4);
  expect(sparse.isEmpty).toBe(true);
});

it("keeps extents as a set of bytes would, through random additions and removals", () => {
  const seed = seedOf(72);
  const random = randomFrom(seed);
  const set = new ExtentSet();
  const plain = new Uint8Array(200);
  for (let step = 0; step < 2000; step++) {
    const offset = Math.floor(random() * 200);
    const length = Math.floor(random() * (200 - offset + 1) * random());
    if (random() < 0.55) {
      set.add(offset, length);
      plain.fill(1, offset, offset + length);
    } else {
      set.remove(offset, length);
      plain.fill(0, offset, offset + length);
    }
    const shown = new Uint8Array(200);
    let end = -1;
    for (const extent of set) {
      expect(extent.offset, `seed ${seed}, step ${step}: extents touch`).toBeGreaterThan(end);
      end = extent.offset + extent.length;
      shown.fill(1, extent.offset, end);
    }
    expect(shown, `seed ${seed}, step ${step}`).toEqual(plain);
    expect(set.bytes).toBe(plain.reduce((sum, bit) => sum + bit, 0));
  }
});
