import { readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import type { MemoryPlaceOptions } from "@diskferry/core";
import { conformance, formatConformance, NotJudged, runConformance } from "../src/index.ts";
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

it("says NOT JUDGED, with the reason, of what the platform cannot do and of what a back door will not do", async () => {
  const { harness } = memoryHarness("memory");
  const source = {
    ...harness.source!,
    snapshotless: "nothing is made here",
    writeGuest: (): never => {
      throw new NotJudged("nobody may log in to the guest");
    },
  };
  const report = await runConformance({ name: "no guest", source });
  expect(report.failed).toEqual([]);
  const reasons = new Map(report.skipped.map(({ id, reason }) => [id, reason]));
  for (const id of ["source.owned.lists", "source.open.not-found", "source.snapshot.idempotent", "tracker.released"])
    expect(reasons.get(id), id).toBe("nothing is made here");
  for (const id of ["source.snapshot.one-moment", "reader.read.bytes", "tracker.never-too-few"])
    expect(reasons.get(id), id).toBe("nobody may log in to the guest");
  expect(report.judged).toContain("source.machine.not-found");
  expect(formatConformance(report)).toContain("NOT JUDGED reader.read.bytes: nobody may log in to the guest\n");
});

it("holds a source that keeps no moment to promising none", async () => {
  const { harness } = memoryHarness("memory");
  const source = { ...harness.source!, unfixed: "the disk itself is read" };
  const report = await runConformance({ name: "unfixed", source });
  // The memory place promises `application`, so the excuse gives it away.
  expect(report.failed.map(({ id }) => id)).toEqual(["source.snapshot.unfixed"]);
  expect(report.skipped.map(({ id }) => id)).toEqual(
    expect.arrayContaining(["source.snapshot.fixed", "source.release.others", "reader.read.repeatable"]),
  );
});
