import { expect, it } from "vitest";
import { memoryPlace } from "@diskferry/core";
import { type ConformanceHarness, formatConformance, runConformance } from "@diskferry/provider-testkit";

const place = memoryPlace();
place.addMachine({ id: "web", disks: [{ key: "boot", size: 2 * 1024 * 1024 + 512 }] });

const harness: ConformanceHarness = {
  name: "my-provider",
  source: {
    open: async () => place.openSource(),
    machine: "web",
    disk: "boot",
    writeGuest: (offset, bytes) => place.write("web", "boot", offset, bytes),
    trimGuest: (offset, length) => place.trim("web", "boot", offset, length),
    breakTracking: () => place.breakTracking("lost"),
  },
  target: {
    open: async () => place.openTarget(),
    size: 2 * 1024 * 1024 + 512,
    readVolume: (volume, offset, length) => place.volumeBytes(volume.id, offset, length),
    crash: () => place.crash(),
  },
};

it("passes every clause of the contract", async () => {
  const report = await runConformance(harness);
  expect(report.failed).toEqual([]);
  await expect(formatConformance(report)).toMatchFileSnapshot("my-provider.clauses.txt");
});
