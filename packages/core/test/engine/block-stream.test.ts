import { describe, expect, it } from "vitest";
import type { Tile } from "../../src/provider/extents.ts";
import type { BlockReader } from "../../src/provider/reader.ts";
import { blockStream } from "../../src/engine/block-stream.ts";

const KIB = 1024;
const BLOCK = 512 * KIB;

/** A reader that holds every call until `letGo`, and remembers how many were under way at once. */
function heldReader(order: "any" | "ascending", size: number) {
  const held: (() => void)[] = [];
  let most = 0;
  const hints: unknown[] = [];
  const reader: BlockReader = {
    size,
    blockSize: BLOCK,
    concurrency: 16,
    order,
    async read(offset, into, { hint } = {}) {
      hints.push(hint);
      await new Promise<void>((resolve) => {
        held.push(resolve);
        most = Math.max(most, held.length);
      });
      if (hint === "broken") throw new Error("broken");
      into.fill(1 + offset / BLOCK);
    },
    async [Symbol.asyncDispose]() {},
  };
  const letGo = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      held.splice(0).forEach((resolve) => resolve());
    }
  };
  return { reader, letGo, hints, most: () => most };
}

async function* listed(hints: readonly string[]): AsyncGenerator<Tile> {
  for (const [index, hint] of hints.entries()) yield { offset: index * BLOCK, length: BLOCK, kind: "changed", hint };
}

describe("a stream of blocks", () => {
  it("reads the hinted tiles that one block holds together, each by its own hint", async () => {
    const { reader, letGo, hints, most } = heldReader("any", 4 * BLOCK);
    const stream = blockStream(reader, listed(["a", "b", "c", "d"]), { blockLength: 2 * BLOCK });
    const first = stream.next();
    await letGo();
    const { value } = await first;
    expect(value).toMatchObject({ offset: 0, length: 2 * BLOCK });
    expect([...value!.data!].filter((_, at) => at % BLOCK === 7)).toEqual([1, 2]);
    expect(hints).toEqual(["a", "b"]);
    expect(most()).toBe(2);
  });

  it("reads them one after the other where the reader goes forward only", async () => {
    const { reader, letGo, hints, most } = heldReader("ascending", 2 * BLOCK);
    const stream = blockStream(reader, listed(["a", "b"]), { blockLength: 2 * BLOCK });
    const first = stream.next();
    await letGo();
    expect((await first).value).toMatchObject({ offset: 0, length: 2 * BLOCK });
    expect(hints).toEqual(["a", "b"]);
    expect(most()).toBe(1);
  });

  it("reads one after the other the tiles that share a block of the reader", async () => {
    const { reader, letGo, most } = heldReader("any", 2 * BLOCK);
    async function* cut(): AsyncGenerator<Tile> {
      yield { offset: 0, length: BLOCK / 2, kind: "changed", hint: "a" };
      yield { offset: BLOCK / 2, length: BLOCK / 2, kind: "changed", hint: "b" };
    }
    const first = blockStream(reader, cut(), { blockLength: 2 * BLOCK }).next();
    await letGo();
    expect((await first).value).toMatchObject({ offset: 0, length: BLOCK });
    expect(most()).toBe(1);
  });

  it("gives a buffer back only when none of its reads goes on", async () => {
    const { reader, letGo } = heldReader("any", 4 * BLOCK);
    let settled = 0;
    const watched: BlockReader = {
      ...reader,
      async read(offset, into, options) {
        await reader.read(offset, into, options).finally(() => (offset === 0 ? settled++ : undefined));
        // The other one takes longer.
        for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
        settled++;
      },
    };
    const stream = blockStream(watched, listed(["broken", "b", "c", "d"]), { blockLength: 2 * BLOCK, blocks: 1 });
    const first = stream.next().catch((error: unknown) => ({ error, settled }));
    await letGo();
    expect(await first).toMatchObject({ error: { message: "broken" }, settled: 2 });
    const next = stream.next();
    await letGo();
    expect((await next).value).toMatchObject({ offset: 2 * BLOCK, length: 2 * BLOCK });
  });
});
