import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { Limits } from "../../src/engine/limits.ts";
import { beginRun, transferSlice, type RunTicket } from "../../src/engine/transfer.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { plan } from "../../src/engine/plan.ts";
import type { StateStore } from "../../src/state/state-store.ts";
import { calm, expectBytes, failing, KIB, MIB, QUICK, scene } from "./scene.ts";

describe("two workers on one job", () => {
  // Invariant 8.
  for (const style of ["in-place", "versioned"] as const) {
    for (const fences of [undefined, false] as const) {
      const how = fences === false ? "does not fence" : "fences";
      it(`the older one stops with FENCED and harms nothing, on a target ${style} that ${how}`, async () => {
        for (const at of ["writer.write", "writer.flush", "writer.commit", "tracker.changes", "writer.read"]) {
          const { place, job, expectEqual } = scene({ target: { style, fences } }, { root: 2 * MIB });
          place.write("vm", "root", 0, randomBytes(MIB, 1));
          await replicate(job());
          place.write("vm", "root", 512 * KIB, randomBytes(MIB, 2));
          const young = Promise.withResolvers<Awaited<ReturnType<typeof replicate>>>();
          let begun = false;
          place.fault = async ({ method }) => {
            if (method !== at || begun) return;
            begun = true;
            place.fault = undefined;
            // The older worker stands still at this call while the younger does all the work, from a newer snapshot too.
            await replicate(job({ attempts: { ...QUICK, perAttemptMs: 50 } }));
            place.write("vm", "root", 512 * KIB, randomBytes(MIB, 3));
            young.resolve(await replicate(job({ attempts: { ...QUICK, perAttemptMs: 50 } })));
          };
          const old = await replicate(job()).catch((error: unknown) => error);
          expect(old, at).toMatchObject({ code: "FENCED" });
          calm(place);
          expectEqual(await young.promise);
          expectEqual(await replicate(job()));
        }
      });
    }
  }

  // What the younger one waited out must have been the last of it.
  it("the older one begins nothing once it was superseded, however long something held it back", async () => {
    const it = scene({ target: { style: "in-place", fences: false } });
    const { place, job } = it;
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const limits = new Limits();
    limits.pause.pause();
    const held = Promise.withResolvers<void>();
    const old = replicate(job({ limits }), {
      onProgress: ({ disks }) => {
        if (disks.some(({ phase }) => phase === "paused")) held.resolve();
      },
    }).catch((error: unknown) => error);
    await held.promise;
    const quick = { ...QUICK, perAttemptMs: 50 };
    // Not at its end yet, so that the snapshot both copy from is there still.
    failing(place, "writer.commit", () => new Error("busy"));
    await expect(replicate(job({ attempts: quick }))).rejects.toThrow("busy");
    const calls = it.record();
    limits.pause.resume();
    expect(await old).toMatchObject({ code: "FENCED" });
    expect(calls.filter((method) => method.startsWith("writer."))).toEqual([]);
    calm(place);
    it.expectEqual(await replicate(job({ attempts: quick })));
  });

  it("the younger one waits out the longest request only where the older may live and the target does not fence", async () => {
    const shapes = [
      { fences: false, alive: true, waits: true },
      { fences: false, alive: undefined, waits: true },
      { fences: false, alive: false, waits: false },
      { fences: undefined, alive: true, waits: false },
    ] as const;
    for (const { fences, alive, waits } of shapes) {
      const { place, job, notices, store } = scene({ target: { fences } });
      const previous = { epoch: 7, released: false, alive, seenAt: new Date().toISOString() };
      const leased: StateStore = Object.assign(Object.create(store) as StateStore, {
        acquire: async (name: string) => ({ ...(await store.acquire(name)), previous }),
      });
      for (const method of ["get", "set", "delete", "list", "put", "bytes", "append", "log"] as const) {
        Object.assign(leased, { [method]: (store[method] as () => unknown).bind(store) });
      }
      const controller = new AbortController();
      const run = replicate(
        { ...job({ attempts: { ...QUICK, perAttemptMs: 60_000 } }), store: leased },
        { signal: controller.signal },
      );
      setTimeout(() => controller.abort(new Error("long enough")), waits ? 100 : 30_000).unref();
      if (waits) await expect(run).rejects.toThrow("long enough");
      else await run;
      expect(place.traffic("create").calls, JSON.stringify({ fences, alive })).toBe(waits ? 0 : 1);
      expect(notices.some((line) => line.includes("epoch 7"))).toBe(waits);
      expect((await plan(job())).findings.some(({ message }) => message.includes("waits"))).toBe(fences === false);
    }
  });
});

describe("slices in several workers", () => {
  it("are copied at once, one is abandoned, and replicate merges all with one commit", async () => {
    for (const style of ["in-place", "versioned"] as const) {
      const size = 8 * MIB + 512;
      const { place, job, expectEqual } = scene({ target: { style } }, { root: size });
      place.write("vm", "root", 0, randomBytes(size, 1));
      const ticket = await beginRun(job());
      const { leaf } = ticket.disks[0]!;
      const half = 4 * MIB;
      const report = (offset: number, end: number, signal?: AbortSignal) =>
        transferSlice(job(), ticket, { disk: "root", range: { offset, length: end - offset }, signal });
      const abandoned = new AbortController();
      let writes = 0;
      place.fault = ({ method, offset }) => {
        if (method === "writer.write" && offset! >= half && offset! < 6 * MIB && ++writes === 2)
          abandoned.abort(new Error("gone"));
      };
      const [first, gone, last] = await Promise.allSettled([
        report(0, half),
        report(half, 6 * MIB, abandoned.signal),
        report(6 * MIB, size),
      ]);
      calm(place);
      expect([first.status, gone.status, last.status]).toEqual(["fulfilled", "rejected", "fulfilled"]);
      place.clearTraffic();
      const merged = await replicate(job());
      expect(merged).toMatchObject({ run: ticket.run, resumed: true });
      expect(merged.disks[0]!.moved).toBe(2 * MIB);
      expect(place.traffic("writer.commit").calls).toBe(1);
      expectEqual(merged);
      expect(leaf).toBe(64 * KIB);
      await expect(report(0, half)).rejects.toMatchObject({ code: "FENCED" });
    }
  });

  it("stop with FENCED once somebody took the job over, wherever they are", async () => {
    const { place, job, expectEqual } = scene({}, { root: 4 * MIB });
    place.write("vm", "root", 0, randomBytes(4 * MIB, 1));
    const ticket: RunTicket = JSON.parse(JSON.stringify(await beginRun(job()))) as RunTicket;
    let taken = false;
    place.fault = async ({ method }) => {
      if (method !== "writer.write" || taken) return;
      taken = true;
      await beginRun(job());
    };
    await expect(
      transferSlice(job(), ticket, { disk: "root", range: { offset: 0, length: 4 * MIB } }),
    ).rejects.toMatchObject({
      code: "FENCED",
    });
    calm(place);
    expectEqual(await replicate(job()));
  });

  it("refuse ranges that are not on leaves or beyond the disk, and disks that are not in the run", async () => {
    const { place, job } = scene({}, { root: 4 * MIB });
    const ticket = await beginRun(job());
    for (const range of [
      { offset: 512, length: 64 * KIB },
      { offset: 0, length: 512 },
      { offset: 0, length: 8 * MIB },
    ]) {
      await expect(transferSlice(job(), ticket, { disk: "root", range })).rejects.toThrow(RangeError);
    }
    const range = { offset: 0, length: 64 * KIB };
    await expect(transferSlice(job(), ticket, { disk: "data", range })).rejects.toMatchObject({ code: "NOT_FOUND" });
    expectBytes(place.volumeBytes("volume-1"), new Uint8Array(4 * MIB));
  });
});
