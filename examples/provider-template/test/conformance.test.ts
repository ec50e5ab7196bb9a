import { mkdtempSync, rmSync } from "node:fs";
import { appendFile, copyFile, mkdir, open, readFile, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConformanceHarness, formatConformance, runConformance } from "@diskferry/provider-testkit";
import { afterAll, expect, it } from "vitest";
import { provider } from "../src/index.ts";
import { Platform } from "../src/platform.ts";

const folder = mkdtempSync(join(tmpdir(), "template-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const disk = (name: string): string => join(folder, "machines", "web", name);
const size = 2 * 1024 * 1024 + 512;

/** The guest writes its disk, behind the provider's back. */
const writing = (name: string) => async (offset: number, bytes: Uint8Array) => {
  const file = await open(disk(name), "r+");
  await file.write(bytes, 0, bytes.byteLength, offset);
  await file.close();
};

const harness: ConformanceHarness = {
  name: "template",
  definition: { provider, config: { folder }, badConfig: { directory: folder }, uri: `template:${folder}` },
  source: {
    open: () => provider.source!({ folder }),
    machine: "web",
    disk: "boot",
    writeGuest: writing("boot"),
    trimGuest: (offset, length) => writing("boot")(offset, new Uint8Array(length)),
    second: { key: "data", write: writing("data") },
    grow: () => appendFile(disk("boot"), new Uint8Array(1024 * 1024)),
    revert: ({ disks }) => copyFile(new Platform(folder).pathOf("snapshots", disks[0]!.id), disk(disks[0]!.disk)),
  },
  target: {
    open: () => provider.target!({ folder }),
    size,
    // Not through the provider: what it says it wrote is what is judged.
    readVolume: async ({ id }, offset, length) =>
      (await readFile(new Platform(folder).pathOf("volumes", id))).subarray(offset, offset + length),
  },
};

it("passes every clause of the contract, and those that were judged are on record", async () => {
  await mkdir(join(folder, "machines", "web"), { recursive: true });
  for (const name of ["boot", "data"]) {
    await writeFile(disk(name), "");
    await truncate(disk(name), size);
  }
  const report = await runConformance(harness);
  expect(report.failed.map(({ error }) => String(error))).toEqual([]);
  await expect(formatConformance(report)).toMatchFileSnapshot("clauses.txt");
}, 60_000);
