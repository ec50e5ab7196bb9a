import { describe, expect, it } from "vitest";
import type { CopyItem } from "../../src/engine/copier.ts";
import { keyOf } from "../../src/engine/job-state.ts";
import { Knowledge } from "../../src/engine/knowledge.ts";
import { planWork } from "../../src/engine/work-plan.ts";
import type { Tile } from "../../src/provider/extents.ts";
import { openJournal } from "../../src/state/journal.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import { KIB, MIB } from "./scene.ts";

const leaf = 64 * KIB;
const size = MIB;
const generation = "first";

/** What is known after a run intended the leaf at 256 KiB and left nothing durable. */
async function knowledge(): Promise<Knowledge> {
  const store = new MemoryStateStore();
  const header = { run: "run", snapshot: "snapshot", generation, size, leaf, algorithm: "sha256" as const };
  const journal = await openJournal(store, `${keyOf.journals("job", "run", "root")}/0`, header);
  await journal.intent([{ offset: 256 * KIB, length: leaf }]);
  return await Knowledge.gather({
    store,
    job: "job",
    disk: "root",
    size,
    leaf,
    algorithm: "none",
    journalAlgorithm: "sha256",
    generation,
    base: undefined,
    run: "run",
    torn: [],
  });
}

async function* listing(tiles: readonly Tile[]): AsyncGenerator<Tile, void> {
  yield* tiles;
}

async function itemsOf(tiles: readonly Tile[], blank: boolean): Promise<CopyItem[]> {
  const items: CopyItem[] = [];
  const options = {
    from: 0,
    to: size,
    knowledge: await knowledge(),
    algorithm: "none" as const,
    itemLength: leaf,
    zeroLength: MIB,
    blank,
    compare: () => false,
    parts: true,
    groupBytes: () => MIB,
    groupMs: 60_000,
    farDigests: undefined,
    same: () => {},
    settled: () => {},
  };
  for await (const { batches } of planWork(listing(tiles), options))
    items.push(...batches.flatMap((each) => each.items));
  return items;
}

describe("a leaf that a run intended and left without proof", () => {
  it("is copied whole, where its neighbours are copied in parts or not at all", async () => {
    const items = await itemsOf(
      [
        { kind: "changed", offset: 0, length: 512 },
        { kind: "unchanged", offset: 512, length: 256 * KIB },
        { kind: "changed", offset: 256 * KIB + 512, length: 512 },
        { kind: "unchanged", offset: 256 * KIB + KIB, length: size - 256 * KIB - KIB },
      ],
      false,
    );
    expect(items.map(({ offset }) => offset)).toEqual([0, 256 * KIB]);
    expect(items[0]!.parts).toEqual([{ offset: 0, length: 512 }]);
    expect(items[1]!.parts).toBeUndefined();
  });

  it("is cleared where it reads as zeroes, even on a target that is blank elsewhere", async () => {
    const items = await itemsOf([{ kind: "zero", offset: 0, length: size }], true);
    expect(items.map(({ kind, blank }) => ({ kind, blank }))).toContainEqual({ kind: "zero", blank: false });
    const suspect = items.find(({ offset, length }) => offset <= 256 * KIB && offset + length >= 320 * KIB);
    expect(suspect?.blank).toBe(false);
  });
});
