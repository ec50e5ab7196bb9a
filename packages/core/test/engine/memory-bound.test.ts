import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { replicate } from "../../src/engine/replicate.ts";
import { expectBytes, KIB, MIB, scene } from "./scene.ts";

const TIB = 2 ** 40;

/** Watches the heap and the buffers outside of it while something runs; bytes above what there was before. */
async function peakOf(work: () => Promise<unknown>): Promise<number> {
  global.gc?.();
  const used = (): number => {
    const { heapUsed, external, arrayBuffers } = process.memoryUsage();
    return heapUsed + Math.max(external, arrayBuffers);
  };
  const before = used();
  let most = before;
  const timer = setInterval(() => (most = Math.max(most, used())), 5);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return Math.max(most, used()) - before;
}

describe("memory", () => {
  // Invariant 11.
  it("does not grow with the disk: 1 TiB with a few changes costs about what 1 GiB does", async () => {
    const peaks: Record<string, number> = {};
    for (const [name, size] of [
      ["1 GiB", 2 ** 30],
      ["1 TiB", TIB],
    ] as const) {
      const { place, job } = scene({ source: { tracker: { granularity: 64 * KIB } } }, { root: size });
      for (let at = 0; at < 8; at++) place.write("vm", "root", at * (size / 8) + MIB, randomBytes(MIB, at));
      peaks[`${name}, full`] = await peakOf(() => replicate(job({ leaf: MIB })));
      for (let at = 0; at < 8; at++) place.write("vm", "root", at * (size / 8) + 512 * KIB, randomBytes(MIB, 20 + at));
      let report: Awaited<ReturnType<typeof replicate>> | undefined;
      peaks[`${name}, incremental`] = await peakOf(async () => (report = await replicate(job())));
      expect(report!.disks[0]!.mode).toBe("incremental");
      for (let at = 0; at < 8; at++) {
        const offset = at * (size / 8);
        const { id } = report!.disks[0]!.volume!;
        expectBytes(place.volumeBytes(id, offset, 3 * MIB), place.read("vm", "root", offset, 3 * MIB));
      }
    }
    const told = Object.entries(peaks).map(([name, peak]) => `${name}: ${(peak / MIB).toFixed(0)} MiB`);
    console.log(`peak above the beginning: ${told.join("; ")}`);
    // Blocks of 32 MiB at most for each side, pages of the manifest, and what waits for the collector.
    for (const [name, peak] of Object.entries(peaks)) expect(peak, name).toBeLessThan(200 * MIB);
  });

  it("leaves no listeners behind on the caller's signal, however many blocks pass", async () => {
    const warnings: string[] = [];
    const note = (warning: Error): void => void warnings.push(warning.message);
    process.on("warning", note);
    const { place, job } = scene({ source: { concurrency: 32 }, target: { concurrency: 32 } }, { root: 48 * MIB });
    place.write("vm", "root", 0, randomBytes(48 * MIB, 1));
    const controller = new AbortController();
    let listeners = 0;
    const { signal } = controller;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...given: Parameters<typeof add>) => (listeners++, add(...given));
    signal.removeEventListener = (...given: Parameters<typeof remove>) => (listeners--, remove(...given));
    const first = await replicate(job({ leaf: 64 * KIB }), { signal });
    const after = listeners;
    place.write("vm", "root", 0, randomBytes(48 * MIB, 2));
    const second = await replicate(job({ leaf: 64 * KIB, mode: "full" }), { signal });
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off("warning", note);
    expect([first.status, second.status]).toEqual(["done", "done"]);
    expect(listeners - after).toBeLessThanOrEqual(4);
    expect(warnings.filter((text) => text.includes("listener"))).toEqual([]);
  });
});
