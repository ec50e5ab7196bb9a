import { readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import type { MemoryPlaceOptions } from "@diskferry/core";
import { conformance, formatConformance, runConformance } from "../src/index.ts";
import { memoryHarness } from "./memory-harness.ts";

const shapes: [string, MemoryPlaceOptions][] = [
  ["memory", { source: { digests: true } }],
  [
    "memory, in versions",
    {
      source: { tracker: { keepsBase: true, hints: true } },
      target: { style: "versioned", digest: "sha256", blockSize: 4096 },
    },
  ],
  ["memory, in versions that merge", { target: { style: "versioned", removal: "merge", cutover: "clone" } }],
  [
    "memory, coarse",
    {
      source: { blockSize: 4096, tracker: { granularity: 512 * 1024 } },
      target: { blockSize: 65536, sizeUnit: 1024 * 1024 },
    },
  ],
  ["memory, ascending", { source: { order: "ascending", tracker: { tileLength: 65536 } }, target: { growth: false } }],
  [
    "memory, with nothing that may be absent",
    {
      source: { tracker: false, power: false, quiesce: false, snapshots: false, concurrency: false },
      target: {
        adopt: false,
        read: false,
        launch: false,
        blank: false,
        zero: false,
        writerRead: false,
        concurrency: false,
      },
    },
  ],
];

it("holds every clause of the contract, in every shape it can take, and the judged clauses are those on record", async () => {
  const lists: string[] = [];
  for (const [name, options] of shapes)
    lists.push(formatConformance(await runConformance(memoryHarness(name, options).harness)));
  const found = lists.join("\n");
  expect(found).not.toContain("FAILED");
  await expect(found).toMatchFileSnapshot("memory.clauses.txt");
});

it("shows in its README a test that is run", async () => {
  const [readme, test] = await Promise.all(
    ["../README.md", "./readme.test.ts"].map((path) => readFile(new URL(path, import.meta.url), "utf8")),
  );
  expect(readme).toContain(`\`\`\`ts\n${test}\`\`\``);
});

it("judges the same when a test runner runs the cases one by one", async () => {
  const { harness } = memoryHarness("memory");
  const ids = new Set<string>();
  for (const { id, clause, title, run } of conformance(harness)) {
    expect(ids.has(id), `two clauses called ${id}`).toBe(false);
    ids.add(id);
    expect(title).toBe(`${id}: ${clause}`);
    expect(clause).toMatch(/\.$/);
    const skipped = new Error("skipped");
    await run({
      skip: () => {
        throw skipped;
      },
    }).catch((error: unknown) => expect(error, id).toBe(skipped));
  }
});

it("leaves every clause unjudged, by name, that a harness gives nothing for", async () => {
  const report = await runConformance({ name: "nothing" });
  expect(report.judged).toEqual([]);
  expect(report.failed).toEqual([]);
  expect(new Set(report.skipped.map(({ reason }) => reason))).toEqual(
    new Set(["absent: definition", "absent: source", "absent: target"]),
  );
});
