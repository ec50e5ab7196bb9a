import { type Job, memoryPlace, MemoryStateStore, replicate } from "@diskferry/core";
import { afterEach, expect, test, vi } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { World } from "../world.ts";

vi.setConfig({ testTimeout: 240_000 });
const mib = 1 << 20;
const granularity = 65_536;
const size = 6 * mib;
const open: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]();
});

// KB 2136854 (317933): what is written while a snapshot is consolidated is lost to change tracking.
test.for(["nfc", "folder"] as const)(
  "writes that change tracking forgot are found by a canary in the same run, and tracking is begun anew (read by %s)",
  async (reader) => {
    const world = await World.start({
      machines: [{ name: "web", disks: [{ size }], tracking: true }],
      granularity,
      bugs: ["changes-lost-in-consolidation"],
      version: "6.5",
    });
    open.push(world);
    const { simulator } = world;
    simulator.populate("web", 2000, 0, randomBytes(size, 1));
    const source = await world.source({ readers: [reader] });
    const place = memoryPlace();
    const store = new MemoryStateStore();
    const notice = (line: string): void => void world.notices.push(line);
    const job = (canary: number, layers: NonNullable<Job["options"]>["layers"] = []): Job => ({
      id: "job",
      source,
      machine: "web",
      target: place.target,
      store,
      options: { leaf: granularity, workers: 0, canary, layers, notice },
    });
    const held = (): Buffer => Buffer.from(place.volumeBytes(place.volumeIds()[0]!, 0, size));
    const live = (): Buffer => Buffer.from(simulator.readDisk("web", 2000, {}));
    let written = false;
    await replicate(
      job(0, [
        async (call, run) => {
          // Written while the run's snapshot is there: half of the marks go with its consolidation.
          if (!written)
            for (let at = 0; at < 60; at++) simulator.write("web", 2000, at * granularity, randomBytes(512, at));
          written = true;
          await run(call);
        },
      ]),
    );

    const report = await replicate(job(1000));
    const [disk] = report.disks;
    expect(disk!.canary!.missed).toBeGreaterThan(0);
    expect(disk).toMatchObject({ mode: "rescan", checkpoint: false });
    expect(report.fallbacks).toMatchObject([{ disk: "2000", from: "incremental", to: "rescan" }]);
    expect(world.notices.join("\n")).toMatch(/Disk 2000: incremental → rescan: the tracker called unchanged/);
    expect(held().equals(live())).toBe(true);
    expect(world.snapshots()).toEqual([]);

    const reconfigured = simulator.calls.get("ReconfigVM_Task") ?? 0;
    simulator.write("web", 2000, 3 * mib, randomBytes(512, 99));
    const next = await replicate(job(1000));
    // Off and on again, each with a stun.
    expect(simulator.calls.get("ReconfigVM_Task")).toBe(reconfigured + 2);
    expect(world.notices.join("\n")).toMatch(/Tracking of disk 2000 of web, which missed writes, was begun anew/);
    expect(next.disks[0]).toMatchObject({ mode: "rescan", checkpoint: true });
    expect(held().equals(live())).toBe(true);

    simulator.write("web", 2000, 5 * mib, randomBytes(512, 98));
    const last = await replicate(job(1000));
    expect(last.disks[0]).toMatchObject({ mode: "incremental", canary: { missed: 0, bound: 0 } });
    expect(last.fallbacks).toEqual([]);
    expect(held().equals(live())).toBe(true);
  },
);
