import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConformanceHarness, formatConformance, runConformance } from "@diskferry/provider-testkit";
import { afterAll, expect, it } from "vitest";
import { provider } from "../src/index.ts";
import { BlockStore, blockSize } from "../src/store.ts";

const folder = mkdtempSync(join(tmpdir(), "block-store-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const store = new BlockStore(folder);
const size = 2 * 1024 * 1024 + 512;

/** Reads any range of a layer, past the provider. */
async function bytesOf(id: string, offset: number, length: number): Promise<Uint8Array> {
  const layer = await store.layer(id);
  const start = Math.floor(offset / blockSize) * blockSize;
  const end = Math.min(layer.size, Math.ceil((offset + length) / blockSize) * blockSize);
  const bytes = new Uint8Array(end - start);
  await store.read(id, start, bytes);
  return bytes.subarray(offset - start, offset - start + length);
}

/** The guest writes any range; the store takes whole blocks. */
const writing = (disk: string) => async (offset: number, bytes: Uint8Array) => {
  const layer = await store.layer(disk);
  const start = Math.floor(offset / blockSize) * blockSize;
  const end = Math.min(layer.size, Math.ceil((offset + bytes.byteLength) / blockSize) * blockSize);
  const whole = await bytesOf(disk, start, end - start);
  whole.set(bytes, offset - start);
  await store.write(disk, start, whole.byteLength, whole);
};

const harness: ConformanceHarness = {
  name: "block-store",
  definition: { provider, config: { folder }, badConfig: { directory: folder }, uri: `block-store:${folder}` },
  source: {
    open: () => provider.source!({ folder }),
    machine: "web",
    disk: "boot",
    writeGuest: writing("web/boot"),
    trimGuest: (offset, length) => writing("web/boot")(offset, new Uint8Array(length)),
    second: { key: "data", write: writing("web/data") },
    grow: async () => {
      const disk = await store.layer("web/boot");
      await store.put({ ...disk, size: disk.size + 1024 * 1024 });
    },
    revert: async ({ disks }) => {
      const disk = await store.layer("web/boot");
      await store.remove(disk.id);
      await store.put({ ...disk, parent: disks[0]!.id });
    },
    foreignSnapshot: async () => {
      const { id } = await store.freeze("web/boot", { by: "somebody else" });
      const disks = [{ id, machine: "web", disk: "boot", size }];
      return { id, key: "by hand", machine: "web", consistency: "disk", takenAt: new Date().toISOString(), disks };
    },
  },
  target: {
    open: () => provider.target!({ folder }),
    size,
    readVolume: ({ id }, offset, length) => bytesOf(id, offset, length),
  },
};

it("passes every clause of the contract, and those that were judged are on record", async () => {
  for (const id of ["web/boot", "web/data"]) await store.put({ id, kind: "disk", size, tags: {} });
  const report = await runConformance(harness);
  expect(report.failed.map(({ error }) => String(error))).toEqual([]);
  await expect(formatConformance(report)).toMatchFileSnapshot("clauses.txt");
}, 120_000);
