import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { ManifestBuilder } from "../../src/manifest/manifest-builder.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";

const page = 4096;
const pages = 4096;
const mebibyte = 1024 * 1024;

/** A page as it is set: mostly equal digests, as hashing 32 Mi different nodes would take a minute; no less memory. */
function digestsOf(index: number, digests: Uint8Array = new Uint8Array(page * 32)): Uint8Array {
  digests.fill(7);
  digests.set(randomBytes(128 * 32, index));
  return digests;
}

/** Remembers which page a name stands for, and makes its content anew when it is asked for. */
class DroppingStore extends MemoryStateStore {
  puts = 0;
  readonly #pages = new Map<string, number>();
  #index: { key: string; bytes: Uint8Array } | undefined;

  override async put(key: string, bytes: Uint8Array): Promise<void> {
    if (key.includes("/index/")) this.#index = { key, bytes: bytes.slice() };
    else if (!this.#pages.has(key)) this.#pages.set(key, this.puts++);
  }

  override async bytes(key: string): Promise<Uint8Array | undefined> {
    if (key === this.#index?.key) return this.#index.bytes.slice();
    const index = this.#pages.get(key);
    return index === undefined ? undefined : digestsOf(index);
  }
}

describe("a manifest of 16 Mi leaves", () => {
  it("is built, and built upon, in less than 64 MiB", { timeout: 180_000 }, async () => {
    const store = new DroppingStore();
    const shape = { algorithm: "blake3", leaf: mebibyte, size: page * pages * mebibyte } as const;
    (globalThis as { gc?: () => void }).gc?.();
    const used = (): number => {
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    };
    const before = { used: used(), rss: process.memoryUsage.rss() };
    const peak = { used: 0, rss: 0 };
    const look = (): void => {
      peak.used = Math.max(peak.used, used() - before.used);
      peak.rss = Math.max(peak.rss, process.memoryUsage.rss() - before.rss);
    };
    const began = performance.now();
    const builder = new ManifestBuilder(store, "m", shape);
    const digests = new Uint8Array(page * 32);
    for (let index = 0; index < pages; index++) {
      await builder.setMany(index * page, digestsOf(index, digests));
      look();
    }
    const full = await builder.finish();
    const built = performance.now();
    expect(store.puts).toBe(pages);

    const next = new ManifestBuilder(store, "m", { ...shape, base: full });
    for (let index = 0; index < pages; index += 8) {
      await next.set(index * page + 1, randomBytes(32, index));
      look();
    }
    const incremental = await next.finish();
    look();
    expect(store.puts).toBe(pages + pages / 8);
    expect(incremental.leaves).toBe(16 * mebibyte);
    const inMebibytes = (bytes: number): string => `${Math.round(bytes / mebibyte)} MiB`;
    console.log(
      `16 Mi leaves: ${inMebibytes(peak.used)} of heap and buffers at most, ${inMebibytes(peak.rss)} resident, ` +
        `${Math.round(built - began)} ms for all, ${Math.round(performance.now() - built)} ms for 1 of 8 pages`,
    );
    expect(peak.used).toBeLessThan(64 * mebibyte);
    // What the native module leaves behind is in neither of them.
    expect(peak.rss).toBeLessThan(160 * mebibyte);
  });
});
