import { memoryPlace } from "@diskferry/core";
import { type ConformanceHarness, NotJudged, runConformance } from "@diskferry/provider-testkit";

/** How often the suite asks a place for what costs time, room or money. Counted, each an upper limit. */
export interface Rehearsed {
  snapshots: number;
  volumes: number;
  commits: number;
  launches: number;
}

const size = 2 * 1024 * 1024 + 512;

/** Runs the suite against a place in memory that has every member, and counts what it makes there. */
export async function rehearse(sides: { source: boolean; target: boolean; guestWrites: boolean }): Promise<Rehearsed> {
  const place = memoryPlace({ target: { style: "versioned" } });
  place.addMachine({ id: "machine", disks: [{ key: "disk", size }] });
  const harness: ConformanceHarness = { name: "rehearsal" };
  if (sides.source) {
    harness.source = {
      open: async () => place.openSource(),
      machine: "machine",
      disk: "disk",
      writeGuest: (offset, bytes) => {
        if (!sides.guestWrites) throw new NotJudged("no guest");
        place.write("machine", "disk", offset, bytes);
      },
    };
  }
  if (sides.target) {
    harness.target = {
      open: async () => place.openTarget(),
      size,
      readVolume: (volume, offset, length) => place.volumeBytes(volume.id, offset, length),
    };
  }
  await runConformance(harness);
  const calls = (method: string): number => place.traffic(method).calls;
  return {
    snapshots: calls("snapshot"),
    volumes: calls("create"),
    commits: calls("writer.commit"),
    launches: calls("launch"),
  };
}
