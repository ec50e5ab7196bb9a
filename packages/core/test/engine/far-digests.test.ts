import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { Job, JobOptions } from "../../src/engine/job.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { Metrics } from "../../src/layers/metrics.ts";
import { verifyWrites } from "../../src/layers/verify.ts";
import { memoryPlace, type MemoryPlace } from "../../src/memory/memory-place.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";

const MIB = 1 << 20;

function jobOn(place: MemoryPlace, options: JobOptions): Job {
  place.addMachine({ id: "vm", name: "vm", disks: [{ key: "root", size: 16 * MIB }] });
  place.write("vm", "root", 0, randomBytes(16 * MIB, 5));
  const { source, target } = place;
  return { id: "job", source, machine: "vm", target, store: new MemoryStateStore(), options };
}

describe("a source that hashes where its bytes are", () => {
  it("is read only where its digests differ from the replica's", async () => {
    const place = memoryPlace({ source: { tracker: false, digests: true } });
    const job = jobOn(place, { leaf: 64 << 10, digest: "sha256", verify: "none" });
    await replicate(job);
    place.write("vm", "root", 5 * MIB + 512, randomBytes(1024, 6));
    place.clearTraffic();
    const { disks } = await replicate(job);
    expect(disks[0]).toMatchObject({ mode: "rescan", read: 64 << 10, moved: 64 << 10, same: 16 * MIB - (64 << 10) });
    expect(place.traffic("reader.read").bytes).toBe(64 << 10);
    expect(Buffer.compare(place.volumeBytes(disks[0]!.volume!.id), place.read("vm", "root"))).toBe(0);
  });
});

describe("layers of the caller's own", () => {
  it("see every read and write, and keep the copy on their thread", async () => {
    const place = memoryPlace();
    const metrics = new Metrics();
    const { disks } = await replicate(jobOn(place, { layers: [metrics.layer], verify: "none" }));
    const { read, write } = byMethod(metrics);
    expect(disks[0]!.threads).toBe(0);
    expect([read, write]).toEqual([16 * MIB, 16 * MIB]);
  });

  it("can refuse a write that does not read back", async () => {
    const place = memoryPlace();
    const job = jobOn(place, {
      verify: "none",
      attempts: { attempts: 1, reopens: 0 },
      layers: [verifyWrites({ read: async (_offset, into) => void into.fill(1) })],
    });
    await expect(replicate({ ...job })).rejects.toMatchObject({ code: "CORRUPT" });
  });
});

function byMethod(metrics: Metrics): Record<string, number> {
  return Object.fromEntries(metrics.snapshot().calls.map(({ method, bytes }) => [method, bytes]));
}
