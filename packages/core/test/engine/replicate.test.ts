import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import type { Job, JobOptions } from "../../src/engine/job.ts";
import { memoryPlace, type MemoryPlace, type MemoryPlaceOptions } from "../../src/memory/memory-place.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import type { StateStore } from "../../src/state/state-store.ts";

const MIB = 1 << 20;

interface Scene {
  place: MemoryPlace;
  store: StateStore;
  job(options?: JobOptions): Job;
  /** The committed volume of a disk, as the record names it. */
  volume(report: Awaited<ReturnType<typeof replicate>>, disk: string): Uint8Array;
}

function scene(
  options: MemoryPlaceOptions = {},
  disks: Record<string, number> = { root: 8 * MIB, data: 5 * MIB + 512 },
): Scene {
  const place = memoryPlace(options);
  const store = new MemoryStateStore();
  place.addMachine({ id: "vm", name: "vm", disks: Object.entries(disks).map(([key, size]) => ({ key, size })) });
  return {
    place,
    store,
    job: (jobOptions = {}) => ({
      id: "job",
      source: place.source,
      machine: "vm",
      target: place.target,
      store,
      options: { leaf: 64 << 10, ...jobOptions },
    }),
    volume: (report, disk) => {
      const found = report.disks.find((each) => each.disk === disk);
      return place.volumeBytes(found!.volume!.id, 0, found!.size);
    },
  };
}

/** Compares bytes at memory speed; a deep equality of megabytes takes seconds. */
function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  const at = actual.length === expected.length ? Buffer.compare(actual, expected) : -1;
  if (at === 0) return;
  const first = actual.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(`${actual.length} and ${expected.length} bytes differ, first at ${first}`);
}

describe("replicate", () => {
  it("copies every disk in full, then only what changed", async () => {
    const { place, job, volume } = scene();
    place.write("vm", "root", MIB, randomBytes(3 * MIB, 1));
    place.write("vm", "data", 5 * MIB, randomBytes(512, 2));
    const first = await replicate(job());
    expect(first.disks.map((disk) => disk.mode)).toEqual(["full", "full"]);
    expectBytes(volume(first, "root"), place.read("vm", "root"));
    expectBytes(volume(first, "data"), place.read("vm", "data"));
    expect(first.disks[0]!.moved).toBe(3 * MIB);

    place.write("vm", "root", 512 * 1000, randomBytes(1024, 3));
    place.trim("vm", "root", 2 * MIB, MIB);
    const second = await replicate(job());
    expect(second.disks.map((disk) => disk.mode)).toEqual(["incremental", "incremental"]);
    expectBytes(volume(second, "root"), place.read("vm", "root"));
    expect(second.disks[0]!.moved).toBeLessThanOrEqual(128 << 10);
    expect(second.disks[1]!.moved).toBe(0);
    expect(second.disks[0]!.checkpoint).toBe(true);
  });
});
