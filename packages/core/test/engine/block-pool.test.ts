import { expect, test } from "vitest";
import { BlockPool, HEADROOM, PAGE } from "../../src/engine/block-pool.ts";

test.for([1 << 20, 64 << 10, 512, 4097])(
  "blocks of %i bytes begin at pages, and headroom and what is read behind them are no other's",
  async (length) => {
    const pool = new BlockPool(3, length);
    const blocks = [await pool.take(length), await pool.take(length), await pool.take(length)];
    for (const [index, { data }] of blocks.entries()) {
      expect([data.byteOffset % PAGE, data.byteLength]).toEqual([0, length]);
      new Uint8Array(data.buffer, data.byteOffset - HEADROOM, HEADROOM + length + HEADROOM).fill(index + 1);
    }
    for (const [index, { data }] of blocks.entries()) {
      const around = new Uint8Array(data.buffer, data.byteOffset - HEADROOM, HEADROOM + length + HEADROOM);
      expect(around.every((byte) => byte === index + 1)).toBe(true);
    }
  },
);

test("a forsaken block's memory is lent to nobody again, and the pool keeps its count", async () => {
  const pool = new BlockPool(1, 4096);
  const first = await pool.take(4096);
  first.forsake();
  first[Symbol.dispose]();
  const second = await pool.take(4096);
  expect(second.data.buffer).not.toBe(first.data.buffer);
  expect(second.data.byteOffset % PAGE).toBe(0);
  const stop = new AbortController();
  const third = pool.take(4096, stop.signal);
  stop.abort(new Error("nothing came free"));
  await expect(third).rejects.toThrow("nothing came free");
});
