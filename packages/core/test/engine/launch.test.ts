import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { Layer } from "../../src/layers/layer.ts";
import type { LaunchedMachine } from "../../src/provider/target.ts";
import { launch, terminate } from "../../src/engine/launch.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import { calm, expectBytes, failing, KIB, MIB, scene } from "./scene.ts";

describe("launch", () => {
  // Invariant 10.
  it("boots a clone: what it writes never reaches the replica, and runs go on meanwhile", async () => {
    for (const style of ["in-place", "versioned"] as const) {
      const { place, job, expectEqual, store } = scene({ target: { style } });
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      await replicate(job());
      const machine = await launch(job());
      expect(machine).toMatchObject({ purpose: "test", consumed: false, name: "vm" });
      expectBytes(place.volumeBytes(`${machine.id}/root`), place.read("vm", "root"));
      place.writeLaunched(machine.id, "root", 0, randomBytes(64 * KIB, 9));
      expect(await launch(job())).toEqual(machine);
      place.write("vm", "root", MIB, randomBytes(512, 2));
      const report = await replicate(job());
      expect(report.disks[0]!.mode).toBe("incremental");
      expectEqual(report);
      const second = await launch(job());
      expect(second.id).not.toBe(machine.id);
      expect((await status(store, "job")).launches.map(({ id }) => id)).toEqual([machine.id, second.id]);
      await terminate(job(), machine.id);
      await terminate(job(), machine.id);
      expect(place.launchedIds()).toEqual([second.id]);
    }
  });

  it("goes on beside a run whose commits stand apart, and is refused while one writes in place", async () => {
    for (const style of ["in-place", "versioned"] as const) {
      const { place, job, expectEqual } = scene({ target: { style } });
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      await replicate(job());
      const recorded = place.read("vm", "root");
      place.write("vm", "root", 0, randomBytes(MIB, 2));
      let launched: Promise<LaunchedMachine> | undefined;
      const launchOnce: Layer = async (call, next) => {
        // In place the replica counts as torn from the beginning of the run: the launch is told so, and the run goes on.
        launched ??= launch(job());
        await launched.catch(() => {});
        await next(call);
      };
      const run = replicate({ ...job(), options: { ...job().options, layers: [launchOnce] } });
      expectEqual(await run);
      if (style === "in-place") await expect(launched).rejects.toMatchObject({ code: "IN_USE" });
      else expectBytes(place.volumeBytes(`${(await launched)!.id}/root`), recorded);
    }
  });

  it("gives the same machine after an answer that was lost", async () => {
    const { place, job } = scene();
    await replicate(job());
    failing(place, "launch", () => new Error("killed"), { on: "answer" });
    await expect(launch(job())).rejects.toThrow("killed");
    calm(place);
    const machine = await launch(job());
    expect(place.launchedIds()).toEqual([machine.id]);
  });

  // Invariant 7.
  it("refuses a replica in place that a run is half-way through; a version that was committed boots", async () => {
    for (const style of ["in-place", "versioned"] as const) {
      const { place, job } = scene({ target: { style } });
      await expect(launch(job())).rejects.toMatchObject({ code: "NOT_FOUND" });
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      await replicate(job());
      const recorded = place.read("vm", "root");
      place.write("vm", "root", 0, randomBytes(MIB, 2));
      failing(place, "writer.flush", () => new Error("killed"));
      await expect(replicate(job())).rejects.toThrow("killed");
      calm(place);
      // The engine's own word: the target is not even asked.
      if (style === "in-place") await expect(launch(job())).rejects.toThrow(/replica of root is torn/);
      else expectBytes(place.volumeBytes(`${(await launch(job())).id}/root`), recorded);
      await replicate(job());
      const machine = await launch(job());
      expectBytes(place.volumeBytes(`${machine.id}/root`), place.read("vm", "root"));
    }
  });

  it("refuses several disks that are no common point in time, unless told so; one disk boots", async () => {
    const two = scene({ source: { consistency: "disk" } }, { root: MIB, data: MIB });
    const source = {
      ...two.place.source,
      snapshot: async (...given: Parameters<typeof two.place.source.snapshot>) => ({
        ...(await two.place.source.snapshot(...given)),
        consistency: "disk" as const,
      }),
    };
    const report = await replicate({ ...two.job(), source });
    expect(report.snapshot.consistency).toBe("disk");
    await expect(launch({ ...two.job(), source })).rejects.toMatchObject({ code: "UNSUPPORTED" });
    expect((await launch({ ...two.job(), source }, { allowInconsistent: true })).purpose).toBe("test");
    await replicate({ ...two.job(), source, id: "one", disks: ["root"] });
    expect((await launch({ ...two.job(), source, id: "one" })).purpose).toBe("test");
  });

  it("is refused by targets that keep disks only", async () => {
    const { job } = scene({ target: { launch: false } });
    await replicate(job());
    await expect(launch(job())).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });
});
