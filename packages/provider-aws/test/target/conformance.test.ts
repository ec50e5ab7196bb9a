import { expect, test } from "vitest";
import { type ConformanceHarness, formatConformance, runConformance } from "@diskferry/provider-testkit";
import { startAwsSimulator } from "@diskferry/simulators";
import { provider } from "../../src/index.ts";
import { optionsFor } from "./target-place.ts";

const mebi = 1024 * 1024;

/** The place of a launched machine's volumes: the root first, then in the order of the device names. */
const volumeAt: Record<string, number> = { boot: 0, data: 1 };

test("every clause of the contract for targets holds that can be judged, and those are the ones on record", async () => {
  await using simulator = await startAwsSimulator({ quotaScale: 100, delays: { completeMs: 5, changeMs: 5 } });
  const config = optionsFor(simulator);
  const volumeOf = (machine: string, disk: string): string => simulator.volumesOf(machine)[volumeAt[disk]!]!;
  const harness: ConformanceHarness = {
    name: "EBS snapshots",
    secrets: simulator.credentials.map(({ secretAccessKey }) => secretAccessKey),
    target: {
      open: () => provider.target!(config),
      // Rounded up to whole GiB by EBS; the disk itself ends within a block.
      size: 16 * mebi + 512,
      readVolume: ({ id }, offset, length) => simulator.snapshotBytes(id, offset, length),
      writeLaunched: (machine, disk, offset, bytes) => simulator.writeVolume(volumeOf(machine, disk), offset, bytes),
      readLaunched: (machine, disk, offset, length) => simulator.volumeBytes(volumeOf(machine, disk), offset, length),
      unfenced:
        "EBS cuts no writer off: each run writes a snapshot of its own, and a stale worker of the same run can only repeat identical blocks",
    },
  };
  const text = formatConformance(await runConformance(harness));
  expect(text).not.toContain("FAILED");
  await expect(text).toMatchFileSnapshot("clauses/ebs-target.txt");
}, 240_000);
