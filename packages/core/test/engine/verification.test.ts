import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import { verify } from "../../src/engine/verify.ts";
import type { TargetProvider } from "../../src/provider/target.ts";
import { calm, expectBytes, failing, KIB, MIB, scene } from "./scene.ts";

/** A target that spoils the first write to a range, silently, as a storage that lies would. */
function spoiling(target: TargetProvider, offset: number, times = 1): TargetProvider {
  let left = times;
  return {
    ...target,
    async open(volume, request) {
      const writer = await target.open(volume, request);
      return {
        ...writer,
        write: (at, data, options) => {
          const hit = at <= offset && offset < at + data.length && left-- > 0;
          if (!hit) return writer.write(at, data, options);
          const spoiled = Uint8Array.from(data);
          spoiled[offset - at]! ^= 1;
          return writer.write(at, spoiled, options);
        },
      };
    },
  };
}

describe("a target that holds other bytes than it was sent", () => {
  for (const style of ["in-place", "versioned"] as const) {
    for (const writerRead of [undefined, false] as const) {
      const moment = writerRead === false ? "after its commit" : "before its commit";
      // Invariant 1: verify comes before the record.
      it(`fails the run ${moment}, ${style}, records nothing, and is mended by the next run`, async () => {
        const { place, job, expectEqual, store } = scene({ target: { style, writerRead } });
        place.write("vm", "root", 0, randomBytes(MIB, 1));
        const bad = { ...job(), target: spoiling(place.target, 300 * KIB) };
        await expect(replicate(bad)).rejects.toMatchObject({ code: "CORRUPT" });
        expect((await status(store, "job")).record).toBeUndefined();
        const report = await replicate(bad);
        expectEqual(report);
        expect(report.disks[0]!.verifiedBytes).toBeGreaterThanOrEqual(64 * KIB);
        expect((await verify(job())).equal).toBe(true);
      });

      it(`is found and mended by an incremental run ${moment}, ${style}`, async () => {
        const { place, job, expectEqual, store } = scene({ target: { style, writerRead } });
        place.write("vm", "root", 0, randomBytes(MIB, 1));
        const first = await replicate(job());
        place.write("vm", "root", 256 * KIB, randomBytes(128 * KIB, 2));
        const bad = { ...job(), target: spoiling(place.target, 300 * KIB) };
        await expect(replicate(bad)).rejects.toMatchObject({ code: "CORRUPT" });
        expect((await status(store, "job")).record!.run).toBe(first.run);
        expectEqual(await replicate(bad));
        if (style === "versioned") expect(place.volumeIds().filter((id) => id.startsWith("version")).length).toBe(2);
      });
    }
  }

  it("copies on with verification only after a lost session began the copy anew", async () => {
    const { place, job, expectEqual } = scene({ target: { style: "versioned" } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    failing(place, "writer.commit", () => new Error("killed"), { count: Infinity });
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    // The platform drops the half-written run, and spoils what it is sent again.
    const state = (await job().store.get("jobs/job/state"))!.value as unknown as State;
    const { volume } = state.run.disks.root;
    const writer = await place.target.open(volume, { run: state.run.id, epoch: 99 });
    await writer.abandon();
    await writer[Symbol.asyncDispose]();
    const again = { ...job(), target: spoiling(atEpoch(place.target, 100), 300 * KIB) };
    await expect(replicate(again)).rejects.toMatchObject({ code: "CORRUPT" });
    expectEqual(await replicate(again));
  });
});

interface State {
  run: { id: string; disks: { root: { volume: Parameters<TargetProvider["open"]>[0] } } };
}

function atEpoch(target: TargetProvider, epoch: number): TargetProvider {
  return { ...target, open: (volume, request) => target.open(volume, { ...request, epoch: request.epoch + epoch }) };
}

describe("more differences than are listed", () => {
  it("are all copied again by the next run", async () => {
    // 1100 leaves apart from each other, every one spoiled.
    const size = 2200 * 64 * KIB;
    const { place, job, expectEqual } = scene({}, { root: size });
    for (let leaf = 0; leaf < 2200; leaf += 2) place.write("vm", "root", leaf * 64 * KIB, randomBytes(512, leaf));
    await replicate(job());
    const writer = await place.target.open({ id: "volume-1", size }, { run: "behind", epoch: 50 });
    for (let leaf = 0; leaf < 2200; leaf += 2) await writer.write(leaf * 64 * KIB, randomBytes(512, leaf + 1));
    await writer.flush();
    await writer[Symbol.asyncDispose]();
    const later = { ...job({ verify: "full" }), target: atEpoch(place.target, 100) };
    await expect(replicate(later)).rejects.toMatchObject({ code: "CORRUPT" });
    expectEqual(await replicate(later));
  });
});

describe("verify", () => {
  it("finds one byte that was changed behind the engine's back, and says where", async () => {
    const { place, job } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const report = await replicate(job());
    const good = await verify(job());
    expect(good).toMatchObject({ equal: true, disks: [{ bytes: 2 * MIB, different: 0, root: report.disks[0]!.root }] });
    const writer = await place.target.open({ id: "volume-1", size: 2 * MIB }, { run: "behind", epoch: 50 });
    await writer.write(
      1536 * KIB,
      Uint8Array.from({ length: 512 }, () => 1),
    );
    await writer.flush();
    await writer[Symbol.asyncDispose]();
    const bad = await verify(job());
    expect(bad).toMatchObject({
      equal: false,
      disks: [{ different: 64 * KIB, differences: [{ offset: 1536 * KIB, length: 64 * KIB }] }],
    });
  });

  it("touches no source, and is refused while the replica is torn and where nothing can be read back", async () => {
    const { place, job } = scene();
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    await replicate(job());
    place.clearTraffic();
    await verify(job());
    for (const method of ["machine", "snapshot", "open"]) expect(place.traffic(method).calls, method).toBe(0);
    place.write("vm", "root", 0, randomBytes(64 * KIB, 2));
    failing(place, "writer.flush", () => new Error("killed"));
    await expect(replicate(job())).rejects.toThrow("killed");
    calm(place);
    await expect(verify(job())).rejects.toMatchObject({ code: "IN_USE" });
    const { read: _, ...blind } = place.target;
    await replicate(job());
    await expect(verify({ ...job(), target: blind })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  it("reports a target that cannot be read back at all as verified by digests only", async () => {
    const { place, job } = scene({ target: { read: false, writerRead: false } });
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const report = await replicate(job());
    expect(report.fallbacks).toMatchObject([{ from: "verify", to: "digests only" }]);
    expectBytes(place.volumeBytes("volume-1"), place.read("vm", "root"));
  });
});
