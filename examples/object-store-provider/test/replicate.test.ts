import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Job, MemoryStateStore, openSource, openTarget, replicate, verify } from "@diskferry/core";
import { afterAll, expect, it } from "vitest";
import { provider } from "../src/index.ts";
import { BlockStore, blockSize } from "../src/store.ts";

const folder = mkdtempSync(join(tmpdir(), "block-store-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("copies in full, and then the blocks of the change list alone, each run a version that reads as the disk did", async () => {
  const [here, there] = [join(folder, "here"), join(folder, "there")];
  const store = new BlockStore(here);
  await store.put({ id: "web/boot", kind: "disk", size: 32 * blockSize, tags: {} });
  const write = (block: number, value: number): Promise<void> =>
    store.write("web/boot", block * blockSize, blockSize, new Uint8Array(blockSize).fill(value));
  for (let block = 0; block < 8; block++) await write(block, block + 1);

  const source = await openSource(provider, { folder: here });
  const target = await openTarget(provider, { folder: there });
  const job: Job = { id: "web", source, machine: "web", target, store: new MemoryStateStore() };
  const first = await replicate(job);
  expect(first.disks[0]).toMatchObject({ mode: "full", moved: 8 * blockSize });
  await write(3, 99);
  await write(20, 7);
  const second = await replicate(job);
  expect(second.disks[0]).toMatchObject({ mode: "incremental", moved: 2 * blockSize });
  expect((await verify(job)).equal).toBe(true);

  const blockOf = async (volume: string, block: number): Promise<number> => {
    const bytes = new Uint8Array(blockSize);
    await new BlockStore(there).read(volume, block * blockSize, bytes);
    return bytes[17]!;
  };
  const [before, after] = [first.disks[0]!.volume!.id, second.disks[0]!.volume!.id];
  expect([
    await blockOf(before, 3),
    await blockOf(after, 3),
    await blockOf(after, 20),
    await blockOf(after, 7),
  ]).toEqual([4, 99, 7, 8]);
});
