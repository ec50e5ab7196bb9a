import type { Job, JobOptions } from "../../src/engine/job.ts";
import type { RunReport } from "../../src/engine/replicate.ts";
import type { MemoryCall } from "../../src/memory/memory-gate.ts";
import { memoryPlace, type MemoryPlace, type MemoryPlaceOptions } from "../../src/memory/memory-place.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import type { StateStore } from "../../src/state/state-store.ts";

export const MIB: number = 1 << 20;
export const KIB: number = 1 << 10;

/** A memory place with one machine `vm`, and a job that replicates it within the place. */
export interface Scene {
  place: MemoryPlace;
  store: StateStore;
  /** Lines that runs told people. */
  notices: string[];
  job(options?: JobOptions): Job;
  /** What the recorded volume of a disk holds, as far as the disk goes. */
  volume(report: RunReport, disk?: string): Uint8Array;
  /** Throws unless every disk of the report holds what its source holds now. */
  expectEqual(report: RunReport): void;
  /** The methods called from now on, in order; reads and writes included. */
  record(): string[];
}

/** Waits between attempts and reopenings that do not slow a test down. */
export const QUICK = { baseMs: 0, maxMs: 1, perAttemptMs: 5_000, attempts: 3, leaseMs: 20 };

export function scene(options: MemoryPlaceOptions = {}, disks: Record<string, number> = { root: 2 * MIB }): Scene {
  const place = memoryPlace(options);
  const store = new MemoryStateStore();
  const notices: string[] = [];
  place.addMachine({ id: "vm", name: "vm", disks: Object.entries(disks).map(([key, size]) => ({ key, size })) });
  const volume: Scene["volume"] = (report, disk = Object.keys(disks)[0]!) => {
    const found = report.disks.find((each) => each.disk === disk)!;
    return place.volumeBytes(found.volume!.id, 0, found.size);
  };
  return {
    place,
    store,
    notices,
    volume,
    job: (jobOptions = {}) => ({
      id: "job",
      source: place.source,
      machine: "vm",
      target: place.target,
      store,
      options: { leaf: 64 * KIB, attempts: QUICK, notice: (line) => notices.push(line), ...jobOptions },
    }),
    expectEqual(report) {
      for (const { disk } of report.disks) expectBytes(volume(report, disk), place.read("vm", disk), disk);
    },
    record() {
      const calls: string[] = [];
      place.fault = ({ method }: MemoryCall) => void calls.push(method);
      return calls;
    },
  };
}

/** Compares bytes at memory speed; a deep equality of megabytes takes seconds. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array, what = "the volume"): void {
  const same = actual.length === expected.length && Buffer.compare(actual, expected) === 0;
  if (same) return;
  const first = actual.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(`${what}: ${actual.length} and ${expected.length} bytes differ, first at ${first}`);
}

/** Fails the `count` calls of a method that come first, or from the `after`th on; resolves to how often it struck. */
export function failing(
  place: MemoryPlace,
  method: string,
  error: () => Error,
  { after = 0, count = 1, on = "fault" }: { after?: number; count?: number; on?: "fault" | "answer" } = {},
): { struck: number } {
  const state = { struck: 0 };
  let seen = 0;
  place[on] = (call) => {
    if (call.method !== method) return;
    if (seen++ < after || state.struck >= count) return;
    state.struck++;
    throw error();
  };
  return state;
}

/** Lets every call through again. */
export function calm(place: MemoryPlace): void {
  place.fault = place.answer = undefined;
}
