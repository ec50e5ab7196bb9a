import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { TrackingLostPolicy } from "../../src/engine/job.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { status } from "../../src/engine/status.ts";
import type { TrackingFault } from "../../src/memory/memory-guest.ts";
import type { MemoryPlaceOptions } from "../../src/memory/memory-place.ts";
import { ProviderError } from "../../src/provider/error.ts";
import { calm, failing, KIB, MIB, scene } from "./scene.ts";

const TRACKED: MemoryPlaceOptions = { source: { tracker: { granularity: 64 * KIB, tileLength: 128 * KIB } } };

/** A replica, and changes here and there since. */
async function changed(options: MemoryPlaceOptions = TRACKED): Promise<ReturnType<typeof scene>> {
  const it = scene(options);
  it.place.write("vm", "root", 0, randomBytes(MIB + 512 * KIB, 1));
  await replicate(it.job());
  for (let at = 0; at < 8; at++) it.place.write("vm", "root", at * 256 * KIB, randomBytes(512, 10 + at));
  it.place.trim("vm", "root", 640 * KIB, 256 * KIB);
  return it;
}

// Invariant 5: no fallback is silent.
describe("tracking that is lost", () => {
  for (const policy of ["rescan", "full", "fail"] as TrackingLostPolicy[]) {
    it(`at any tile is answered by "${policy}", reported with its reason, and the bytes are right`, async () => {
      for (let tiles = 0; tiles < 16; tiles++) {
        const { place, job, expectEqual, store, notices } = await changed();
        place.breakTracking("lost-midway", { tiles });
        if (policy === "fail") {
          const before = (await status(store, "job")).record!.run;
          await expect(replicate(job({ onTrackingLost: policy }))).rejects.toMatchObject({ code: "TRACKING_LOST" });
          expect((await status(store, "job")).record!.run).toBe(before);
          place.mendTracking();
          expectEqual(await replicate(job()));
          continue;
        }
        const report = await replicate(job({ onTrackingLost: policy }));
        expectEqual(report);
        expect(report.disks[0]!.mode).toBe(policy);
        expect(report.fallbacks).toMatchObject([{ disk: "root", from: "incremental", to: policy }]);
        expect(report.fallbacks[0]!.reason).toMatch(/not known from \d+ on/);
        expect(notices.some((line) => line.includes("not known"))).toBe(true);
        if (policy === "rescan") expect(report.disks[0]!.moved).toBeLessThan(MIB);
        place.mendTracking();
        place.write("vm", "root", 0, randomBytes(512, 99));
        const next = await replicate(job());
        expect(next.disks[0]!.mode).toBe("incremental");
        expectEqual(next);
      }
    });

    it(`before the run is answered by "${policy}", whatever made it so`, async () => {
      // Invariant 6.
      const losses: Record<string, (it: Awaited<ReturnType<typeof changed>>) => Promise<void> | void> = {
        "a tracker begun anew": ({ place }) => place.breakTracking("lost"),
        growth: ({ place }) => place.grow("vm", "root", 3 * MIB),
        shrinking: ({ place }) => place.shrink("vm", "root", MIB),
        revert: async ({ place }) => place.revert(place.takeSnapshot("vm", "before").id),
      };
      for (const [what, lose] of Object.entries(losses)) {
        const it = await changed();
        await lose(it);
        const run = replicate(it.job({ onTrackingLost: policy }));
        if (policy === "fail") {
          await expect(run, what).rejects.toMatchObject({ code: "TRACKING_LOST" });
          it.expectEqual(await replicate(it.job()));
          continue;
        }
        const report = await run;
        it.expectEqual(report);
        expect(report.fallbacks, what).toMatchObject([{ from: "incremental", to: policy }]);
        expect(report.disks[0]!.mode, what).toBe(policy);
      }
    });
  }

  it("after the record means a rescan next time, and status says so", async () => {
    const { place, job, expectEqual, store } = await changed();
    place.breakTracking("no-checkpoint");
    const report = await replicate(job());
    expect(report.disks[0]!.checkpoint).toBe(false);
    expect((await status(store, "job")).record!.disks[0]!.incrementalNext).toBe(false);
    place.mendTracking();
    place.write("vm", "root", 0, randomBytes(512, 3));
    const next = await replicate(job());
    expect(next.disks[0]).toMatchObject({ mode: "rescan", moved: 64 * KIB });
    expectEqual(next);
  });
});

// Invariant 2.
describe("a listing that is broken", () => {
  for (const fault of ["truncated", "gap", "overlap", "disorder", "empty"] as TrackingFault[]) {
    it(`by ${fault} fails the run at any tile, and nothing is recorded`, async () => {
      for (let tiles = 0; tiles < 12; tiles++) {
        const { place, job, expectEqual, store } = await changed();
        const before = (await status(store, "job")).record!.run;
        place.breakTracking(fault, { tiles });
        await expect(replicate(job()), String(tiles)).rejects.toMatchObject({ code: "CORRUPT" });
        expect((await status(store, "job")).record!.run).toBe(before);
        place.mendTracking();
        expectEqual(await replicate(job()));
      }
    });
  }

  it("that claims unchanged what a first copy cannot know is not believed", async () => {
    const { place, job, expectEqual } = scene(TRACKED);
    place.write("vm", "root", 0, randomBytes(MIB, 1));
    const { tracker } = place.source;
    const lying = {
      ...place.source,
      tracker: {
        ...tracker!,
        async *changes(...given: Parameters<NonNullable<typeof tracker>["changes"]>) {
          for await (const tile of tracker!.changes(...given)) yield { ...tile, kind: "unchanged" as const };
        },
      },
    };
    expectEqual(await replicate({ ...job(), source: lying }));
  });

  it("that breaks off for a passing reason is taken up where it broke off", async () => {
    for (let after = 0; after < 12; after++) {
      const { place, job, expectEqual } = await changed();
      failing(place, "tracker.changes", () => new ProviderError("THROTTLED", "slow down"), { after, count: 2 });
      const report = await replicate(job());
      calm(place);
      expect(report.disks[0]!.mode).toBe("incremental");
      expectEqual(report);
    }
  });
});

describe("a rescan", () => {
  const sources: Record<string, MemoryPlaceOptions["source"]> = {
    plain: {},
    "without tracker": { tracker: false },
    ascending: { order: "ascending", tracker: { granularity: 4096 } },
    "with hints": { tracker: { hints: true, granularity: 512 } },
    "in blocks of 512 KiB": { blockSize: 512 * KIB, concurrency: false },
  };
  const targets: Record<string, MemoryPlaceOptions["target"]> = {
    "in place": {},
    "in versions": { style: "versioned" },
    "in versions of digested blocks": { style: "versioned", digest: "sha256", blockSize: 512 * KIB },
    "without zero, blank and reading": { zero: false, blank: false, writerRead: false, read: false },
    "in blocks of 256 KiB, rounded up to 5 MiB": { blockSize: 256 * KIB, sizeUnit: 5 * MIB, concurrency: false },
  };
  for (const [from, source] of Object.entries(sources)) {
    for (const [to, target] of Object.entries(targets)) {
      it(`sends only what differs, from a source ${from} to a target ${to}`, async () => {
        const { place, job, expectEqual } = scene({ source, target }, { root: 4 * MIB + 1536 });
        place.write("vm", "root", 0, randomBytes(3 * MIB, 1));
        expectEqual(await replicate(job()));
        place.breakTracking("lost");
        place.write("vm", "root", MIB, randomBytes(1024, 2));
        place.trim("vm", "root", 2 * MIB, 512 * KIB);
        place.write("vm", "root", 4 * MIB + 1024, randomBytes(512, 3));
        const report = await replicate(job());
        expect(report.disks[0]!.mode).toBe("rescan");
        expect(report.disks[0]!.moved + report.disks[0]!.zeroed).toBeLessThanOrEqual(2 * MIB);
        expectEqual(report);
        const forced = await replicate(job({ mode: "rescan" }));
        expect(forced.disks[0]).toMatchObject({ moved: 0, mode: "rescan" });
        expectEqual(forced);
      });
    }
  }
});
