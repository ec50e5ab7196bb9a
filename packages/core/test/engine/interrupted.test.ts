import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import type { Snapshot } from "../../src/provider/source.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, expectBytes, failing, KIB, MIB, QUICK, scene, type Scene } from "./scene.ts";

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
  for (const code of ["CORRUPT", "UNSUPPORTED", "CONFIG_INVALID"] as const) {
    it(`is kept where the source says ${code}, and goes on once that has passed`, async () => {
      const { place, job, expectEqual } = scene();
      place.write("vm", "root", 0, randomBytes(MIB, 1));
      failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
      await expect(replicate(job())).rejects.toThrow("killed");
      failing(place, "open", () => new ProviderError(code, "the reader's library is missing"), { count: Infinity });
      for (let time = 0; time < 3; time++) {
        await expect(replicate(job())).rejects.toMatchObject({ code, message: expect.stringContaining("is kept") });
      }
      calm(place);
      place.clearTraffic();
      const report = await replicate(job());
      expect(report.resumed).toBe(true);
      expect(place.traffic("writer.write").calls).toBe(0);
      expectEqual(report);
    });
  }

  it("is given up where a full copy is asked for", async () => {
    const { place, job, expectEqual } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
    await expect(replicate(job())).rejects.toThrow("killed");
    failing(place, "open", () => new ProviderError("CORRUPT", "the snapshot is damaged"));
    const report = await replicate(job({ mode: "full" }));
    expect(report.resumed).toBe(false);
    expectEqual(report);
  });
});

describe("a run whose target knows nothing of it any more", () => {
  for (const style of ["in-place", "versioned"] as const) {
    it(`gives way to a new one that distrusts what it wrote, ${style}`, async () => {
      const it = scene({ target: { style } });
      const { place, job, expectEqual } = it;
      const before = randomBytes(MIB, 1);
      place.write("vm", "root", 0, before);
      await replicate(job());
      place.write("vm", "root", 128 * KIB, randomBytes(64 * KIB, 2));
      failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
      await expect(replicate(job())).rejects.toThrow("killed");
      calm(place);
      place.write("vm", "root", 128 * KIB, before.subarray(128 * KIB, 192 * KIB));
      let opened = 0;
      place.fault = ({ side, method }) => {
        if (side === "target" && method === "open" && opened++ === 0)
          throw new ProviderError("NOT_FOUND", "this target's memory is on another host");
      };
      const report = await replicate(job());
      expect(report.resumed).toBe(false);
      expect(it.notices.some((line) => line.includes("lost what it had written"))).toBe(true);
      expectEqual(report);
    });
  }
});

describe("a run that goes on in another state of its target", () => {
  it("distrusts what it wrote there, though its source, which nobody fixes, holds again what the record says", async () => {
    const { place, job, store } = scene({ target: { style: "in-place" } });
    const before = randomBytes(MIB, 1);
    place.write("vm", "root", 0, before);
    await replicate(job());
    place.write("vm", "root", 0, randomBytes(64 * KIB, 2));
    failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    const { run } = (await store.get("jobs/job/state"))!.value as unknown as {
      run: { id: string; disks: { root: { volume: { id: string; size: number } } } };
    };
    // The claim to know what was written is given up; the bytes stay.
    const writer = await place.target.open(run.disks.root.volume, { run: run.id, epoch: 1000 });
    await writer.abandon();
    await writer[Symbol.asyncDispose]();
    // A disk that is copied while its guest writes reads otherwise the second time.
    const source: typeof place.source = Object.create(place.source, {
      open: {
        value: async (...given: Parameters<typeof place.source.open>) => {
          const reader = await place.source.open(...given);
          return Object.assign(Object.create(reader) as typeof reader, {
            read: async (offset: number, into: Uint8Array) => {
              into.fill(0);
              into.set(before.subarray(offset, offset + into.length));
            },
          });
        },
      },
    }) as typeof place.source;
    const next = { ...job({ verify: "none" }), source };
    let epoch = 0;
    while (epoch < 1000) {
      const lease = await store.acquire("job");
      ({ epoch } = lease);
      await lease.release();
    }
    const report = await replicate(next);
    expect(report.resumed).toBe(true);
    expectBytes(place.volumeBytes(report.disks[0]!.volume!.id, 0, MIB), before);
  });
});

describe("a run that was interrupted", () => {
  it("is not gone on with for another machine than it began with", async () => {
    const { place, job } = scene();
    place.addMachine({ id: "other", name: "other", disks: [{ key: "root", size: MIB }] });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    await expect(replicate({ ...job(), machine: "other" })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("asked to continue with other"),
    });
    expect((await replicate(job())).resumed).toBe(true);
  });

  it("leaves nothing behind the end of a disk that was larger while it wrote", async () => {
    const it = scene({ target: { style: "in-place", sizeUnit: 4 * MIB } });
    const { place, job } = it;
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    place.grow("vm", "root", 4 * MIB);
    place.write("vm", "root", 3 * MIB, randomBytes(64 * KIB, 2));
    await copyAndLoseSnapshot(it);
    place.shrink("vm", "root", 2 * MIB);
    const report = await replicate(job());
    it.expectEqual(report);
    expectBytes(place.volumeBytes(report.disks[0]!.volume!.id, 2 * MIB, 2 * MIB), new Uint8Array(2 * MIB));
  });
});

describe("a place that keeps the base of its checkpoints", () => {
  it("keeps it though the next snapshot of an unchanged machine is the same one", async () => {
    const { place, job } = scene({ source: { tracker: { keepsBase: true } } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    let taken: Snapshot | undefined;
    const source: typeof place.source = Object.create(place.source, {
      snapshot: {
        value: async (...given: Parameters<typeof place.source.snapshot>) =>
          (taken = taken ?? (await place.source.snapshot(...given))),
      },
    }) as typeof place.source;
    await replicate({ ...job(), source });
    await replicate({ ...job(), source });
    place.write("vm", "root", 0, randomBytes(512, 2));
    expect((await replicate(job())).disks[0]!.mode).toBe("incremental");
    expect((await replicate(job())).fallbacks).toEqual([]);
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
