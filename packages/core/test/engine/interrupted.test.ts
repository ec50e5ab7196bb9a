import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import type { Snapshot } from "../../src/provider/source.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, failing, KIB, MIB, QUICK, scene, type Scene } from "./scene.ts";

interface State {
  run: { id: string; snapshot: Snapshot };
}

/** Kills the run at the commit, when everything is written and durable, and loses its snapshot. */
async function copyAndLoseSnapshot({ place, job, store }: Scene): Promise<void> {
  failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
  await expect(replicate(job())).rejects.toThrow("killed");
  calm(place);
  const state = (await store.get("jobs/job/state"))!.value as unknown as State;
  await place.source.release(state.run.snapshot);
}

describe("a run after one whose snapshot is gone", () => {
  for (const style of ["in-place", "versioned"] as const) {
    for (const tracker of [{ granularity: 512 }, false] as const) {
      const tracked = tracker === false ? "without a tracker" : "with a tracker";
      // Invariant 8, and the journal's promise: changes ∪ intents are sent.
      it(`sends what the first one wrote and the guest took back since, ${style}, ${tracked}`, async () => {
        const it = scene({ source: { tracker }, target: { style } });
        const { place, job, expectEqual } = it;
        const before = randomBytes(MIB, 1);
        place.write("vm", "root", 0, before);
        await replicate(job());
        // Written to the target by a run that never ends …
        place.write("vm", "root", 128 * KIB, randomBytes(64 * KIB, 2));
        place.write("vm", "root", MIB + 128 * KIB, randomBytes(64 * KIB, 3));
        await copyAndLoseSnapshot(it);
        // … and at the source again what the record says.
        place.write("vm", "root", 128 * KIB, before.subarray(128 * KIB, 192 * KIB));
        place.trim("vm", "root", MIB + 128 * KIB, 64 * KIB);
        const report = await replicate(job());
        expect(report.resumed).toBe(false);
        expectEqual(report);
      });

      it(`sends what the first one wrote and the guest left alone, ${style}, ${tracked}`, async () => {
        const it = scene({ source: { tracker }, target: { style } });
        const { place, job, expectEqual } = it;
        place.write("vm", "root", 0, randomBytes(MIB, 1));
        await replicate(job());
        place.write("vm", "root", 128 * KIB, randomBytes(64 * KIB, 2));
        await copyAndLoseSnapshot(it);
        expectEqual(await replicate(job()));
      });

      it(`clears what the first one wrote and the guest trimmed since, on a first copy ${style}, ${tracked}`, async () => {
        const it = scene({ source: { tracker }, target: { style } });
        const { place, job, expectEqual } = it;
        place.write("vm", "root", 0, randomBytes(MIB, 1));
        await copyAndLoseSnapshot(it);
        place.trim("vm", "root", 0, 512 * KIB);
        expectEqual(await replicate(job()));
      });
    }
  }

  it("begins anew when the snapshot of any of its disks is gone, not of the first alone", async () => {
    const it = scene({}, { root: MIB, data: MIB });
    const { place, job, expectEqual } = it;
    place.write("vm", "data", 0, randomBytes(MIB, 1));
    failing(place, "writer.commit", () => new Error("killed"));
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    place.write("vm", "root", 0, randomBytes(MIB, 2));
    const open = place.source.open.bind(place.source);
    const { id: first, snapshot } = ((await it.store.get("jobs/job/state"))!.value as unknown as State).run;
    const half = {
      ...job(),
      source: {
        ...place.source,
        open: (disk: Parameters<typeof open>[0], wait: Parameters<typeof open>[1]) =>
          disk.id === `${snapshot.id}/data`
            ? Promise.reject(new ProviderError("NOT_FOUND", "this half of the snapshot is gone"))
            : open(disk, wait),
      },
    };
    const report = await replicate(half);
    expect(report.run).not.toBe(first);
    expectEqual(report);
  });
});

describe("a snapshot that is worse than asked for", () => {
  it("is refused the second time as it was the first, and is not left behind", async () => {
    const { place, job } = scene({ source: { consistency: "crash" } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const asked = job({ consistency: "application" });
    for (let time = 0; time < 2; time++) {
      await expect(replicate(asked)).rejects.toMatchObject({ code: "UNSUPPORTED" });
    }
    const left = [];
    for await (const owned of place.source.owned("job")) left.push(owned.id);
    expect(left).toEqual([]);
  });
});

describe("a run whose snapshot this source cannot open", () => {
  it("gives way to a new one, and what is wrong with the source is told by that one", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    const spoiled = (count: number): void => {
      failing(place, "open", () => new ProviderError("CORRUPT", "this is a snapshot of another kind"), { count });
    };
    spoiled(Infinity);
    await expect(replicate(job())).rejects.toMatchObject({ code: "CORRUPT" });
    calm(place);
    spoiled(1);
    const report = await replicate(job());
    expect(report.resumed).toBe(false);
    expectEqual(report);
  });
});

describe("a call that hangs", () => {
  const never = new Promise<void>(() => {});

  it("is given up where it is a flush: the session is opened again and nothing is lost", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    let hung = 0;
    place.fault = ({ method }) => (method === "writer.flush" && hung++ === 0 ? never : undefined);
    const report = await replicate(job({ attempts: { ...QUICK, flushMs: 50 } }));
    expect(hung).toBeGreaterThan(1);
    expectEqual(report);
  });

  it("is given up where it is a commit or a snapshot, and the run goes on when called again", async () => {
    for (const method of ["writer.commit", "snapshot"]) {
      const { place, job, expectEqual } = scene();
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      place.fault = (call) => (call.method === method ? never : undefined);
      await expect(replicate(job({ attempts: { ...QUICK, controlMs: 50 } }))).rejects.toMatchObject({
        code: "UNAVAILABLE",
      });
      calm(place);
      expectEqual(await replicate(job()));
    }
  });

  it("may take longer than a transfer where it is a snapshot", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    place.fault = ({ method }) =>
      method === "snapshot" ? new Promise<void>((resolve) => setTimeout(resolve, 300)) : undefined;
    expectEqual(await replicate(job({ attempts: { ...QUICK, perAttemptMs: 100, totalMs: 100 } })));
  });
});
