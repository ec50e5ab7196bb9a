import { memoryPlace, type MemoryPlace, type MemoryPlaceOptions } from "@diskferry/core";
import type { Preflight, SourceConnector, TargetProvider } from "@diskferry/core/provider";
import type { ConformanceHarness } from "../src/index.ts";

const size = 2 * 1024 * 1024 + 512;

/** What one end of a memory place says before a run; the place itself has no limits, prices or rights to tell of. */
export function saysBefore(): Preflight {
  return {
    calls: [{ operation: "GetBlock", count: { value: 16, kind: "bound" } }],
    costs: [
      { item: "GetBlock requests", amount: { value: 0.01, kind: "estimate" }, currency: "USD", pricesOf: "2026-01-31" },
    ],
    minutes: { value: 0.5, kind: "estimate" },
    privileges: { needed: ["read", "snapshot"], missing: ["snapshot"] },
    findings: [{ severity: "warning", subject: "snapshot", message: "the right to snapshot is missing" }],
  };
}

const preflight: {
  source: NonNullable<SourceConnector["preflight"]>;
  target: NonNullable<TargetProvider["preflight"]>;
} = {
  source: async (_, { signal }) => {
    signal?.throwIfAborted();
    return saysBefore();
  },
  target: async ({ signal }) => {
    signal?.throwIfAborted();
    return saysBefore();
  },
};

/** A memory place with everything the suite asks for, and the harness that judges it. */
export function memoryHarness(
  name: string,
  options: MemoryPlaceOptions = {},
): { place: MemoryPlace; harness: ConformanceHarness } {
  const place = memoryPlace(options);
  place.addMachine({
    id: "web",
    disks: [
      { key: "boot", size, boot: true },
      { key: "data", size: 1024 * 1024 },
      { key: "shared", size: 1024 * 1024, ineligible: "shared with another machine" },
    ],
  });
  place.addDisk("old-disk", size, new Uint8Array(4096).fill(7));
  let crashes = 0;
  return {
    place,
    harness: {
      name,
      secrets: ["hunter2"],
      patienceMs: 20_000,
      definition: {
        provider: place.provider,
        config: { place: "place" },
        badConfig: { place: 3, other: 1 },
        uri: "memory:place",
      },
      source: {
        open: async () => ({ ...place.openSource(), preflight: preflight.source }),
        machine: "web",
        disk: "boot",
        writeGuest: (offset, bytes) => place.write("web", "boot", offset, bytes),
        trimGuest: (offset, length) => place.trim("web", "boot", offset, length),
        second: { key: "data", write: (offset, bytes) => place.write("web", "data", offset, bytes) },
        grow: () => place.grow("web", "boot", place.read("web", "boot").byteLength + 1024 * 1024),
        revert: (snapshot) => place.revert(snapshot.id),
        breakTracking: () => place.breakTracking("lost"),
        foreignSnapshot: () => place.takeSnapshot("web", "by hand"),
        mayPower: true,
      },
      target: {
        open: async () => ({ ...place.openTarget(), preflight: preflight.target }),
        size,
        readVolume: (volume, offset, length) => place.volumeBytes(volume.id, offset, length),
        crash: () => place.crash({ seed: ++crashes }),
        existingDisk: "old-disk",
        readLaunched: (machine, disk, offset, length) => place.readLaunched(machine, disk, offset, length),
        writeLaunched: (machine, disk, offset, bytes) => place.writeLaunched(machine, disk, offset, bytes),
      },
    },
  };
}
