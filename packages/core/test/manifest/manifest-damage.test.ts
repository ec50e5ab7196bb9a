import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Bounds } from "../../../../test/bounds.ts";
import { randomBytes, randomFrom, seedOf, seedsOf } from "../../../../test/seed.ts";
import { isProviderError } from "../../src/provider/error.ts";
import type { Json } from "../../src/provider/extents.ts";
import { collect, type Manifest, openManifest } from "../../src/manifest/manifest.ts";
import { ManifestBuilder } from "../../src/manifest/manifest-builder.ts";
import { openDirectoryState } from "../../src/state/directory-state-store.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import type { StateStore } from "../../src/state/state-store.ts";
import { LosingFiles } from "../state/losing-files.ts";

const leaf = 512;
const page = 4096;
const shape = { algorithm: "sha256", leaf, size: leaf * (page * 2 + 100) } as const;

async function build(store: StateStore): Promise<{ manifest: Manifest; digests: Uint8Array }> {
  const builder = new ManifestBuilder(store, "m", shape);
  const digests = randomBytes((page * 2 + 100) * 32, 8);
  await builder.setMany(0, digests);
  return { manifest: await builder.finish(), digests };
}

/** What a reader of a damaged manifest may meet: what was there, or an error that names what is damaged. */
async function expectWholeOrCorrupt(store: StateStore, json: Json, digests: Uint8Array): Promise<void> {
  try {
    const manifest = await openManifest(store, "m", json);
    const read = await manifest.digests(0, manifest.leaves);
    expect(Buffer.compare(read, digests)).toBe(0);
    await manifest.proof(manifest.leaves - 1);
  } catch (error) {
    expect(isProviderError(error) && error.code, String(error)).toBe("CORRUPT");
    expect(String(error)).toMatch(/manifest/);
  }
}

describe("a damaged manifest", () => {
  it.each(seedsOf(20_261_122))("is CORRUPT, naming the page, whatever was done to its files, seed %i", async (seed) => {
    const store = new MemoryStateStore();
    const { manifest, digests } = await build(store);
    const keys: string[] = [];
    for await (const key of store.list("m/")) keys.push(key);
    const good = new Map<string, Uint8Array>();
    for (const key of keys) good.set(key, (await store.bytes(key))!);
    let damages = 0;
    await using bounds = new Bounds(`manifests, seed ${seed}`);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...keys),
        fc.oneof(
          fc.record({ kind: fc.constant("flip" as const), at: fc.nat(200_000), bit: fc.nat(7) }),
          fc.record({ kind: fc.constant("cut" as const), at: fc.nat(200_000) }),
          fc.record({ kind: fc.constant("bytes" as const), bytes: fc.uint8Array({ maxLength: 5000 }) }),
          fc.record({ kind: fc.constant("other" as const), other: fc.constantFrom(...keys) }),
          fc.record({ kind: fc.constant("none" as const) }),
        ),
        (key, damage) =>
          bounds.run(async () => {
            damages++;
            const bytes = Uint8Array.from(good.get(key)!);
            if (damage.kind === "flip") bytes[damage.at % bytes.length]! ^= 1 << damage.bit;
            if (damage.kind === "none") await store.delete(key);
            else if (damage.kind === "cut") await store.put(key, bytes.subarray(0, damage.at % bytes.length));
            else if (damage.kind === "bytes") await store.put(key, damage.bytes);
            else await store.put(key, damage.kind === "other" ? good.get(damage.other)! : bytes);
            await expectWholeOrCorrupt(store, manifest.toJson(), digests);
            await store.put(key, good.get(key)!);
          }),
      ),
      { numRuns: 60, seed },
    );
    await expectWholeOrCorrupt(store, manifest.toJson(), digests);
    console.log(`manifest: ${damages} damaged files`);
  });

  it("is CORRUPT when its index lists the right pages in another order", async () => {
    const store = new MemoryStateStore();
    const { manifest } = await build(store);
    const key = `m/index/${manifest.root}`;
    const roots = (await store.bytes(key))!;
    await store.put(key, Buffer.concat([roots.subarray(32, 64), roots.subarray(0, 32), roots.subarray(64)]));
    await expect(openManifest(store, "m", manifest.toJson())).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining(key) as string,
    });
  });

  it.each(seedsOf(20_261_122))("is CORRUPT when its record is not what it was, seed %i", async (seed) => {
    const store = new MemoryStateStore();
    const { manifest, digests } = await build(store);
    const json = manifest.toJson();
    await using bounds = new Bounds(`records of manifests, seed ${seed}`);
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.jsonValue(),
          fc
            .tuple(fc.constantFrom(...Object.keys(json)), fc.oneof(fc.jsonValue(), fc.integer(), fc.maxSafeNat()))
            .map(([member, value]) => ({ ...json, [member]: value })),
        ),
        (damaged) => bounds.run(() => expectWholeOrCorrupt(store, damaged, digests)),
      ),
      { numRuns: 300, seed },
    );
    await expect(openManifest(store, "m", { ...json, version: 2 })).rejects.toThrow("version 2");
    const roots = (await store.bytes(`m/index/${json.root}`))!;
    const page0 = `m/page/${Buffer.from(roots).toString("hex", 0, 32)}`;
    await store.delete(page0);
    await expect((await openManifest(store, "m", json)).digests(0, 1)).rejects.toThrow(page0);
  });
});

describe("a manifest on a state directory that loses power", () => {
  it("is whole wherever a record names it, through builds, records and collections", { timeout: 120_000 }, async () => {
    const seed = seedOf(Math.floor(Math.random() * 1e9));
    const losses = 160;
    let recorded = 0;
    for (let loss = 0; loss < losses;) {
      const random = randomFrom(seed + loss);
      let files = new LosingFiles(random);
      const size = leaf * (page + 50);
      /** By generation, what the record of that generation names. */
      const built = new Map<number, Uint8Array>([[0, new Uint8Array((page + 50) * 32)]]);
      let generation = 0;
      for (let round = 0; round < 4; round++, loss++) {
        files.cutAfter(1 + Math.floor(random() * 160));
        try {
          const store = await openDirectoryState("/s", { files, identity: files.identity });
          for (;;) {
            const found = await store.get("record");
            const record = found?.value as { generation: number; manifest: Json } | undefined;
            const base = record && (await openManifest(store, "m", record.manifest));
            const digests = Uint8Array.from(built.get(record?.generation ?? 0)!);
            const builder = new ManifestBuilder(store, "m", { algorithm: "sha256", leaf, size, base });
            for (const at of [Math.floor(random() * page), page + Math.floor(random() * 50)]) {
              const digest = randomBytes(32, Math.floor(random() * 1e9));
              await builder.set(at, digest);
              digests.set(digest, at * 32);
            }
            const manifest = await builder.finish();
            built.set(++generation, digests);
            const value = { generation, manifest: manifest.toJson() };
            await store.set("record", value, { revision: found?.revision ?? null });
            recorded++;
            if (random() < 0.5) await collect(store, "m", [manifest]);
          }
        } catch (error) {
          expect(files.isCut, `seed ${seed}, loss ${loss}: ${String(error)}`).toBe(true);
        }
        files = files.restart();
        const store = await openDirectoryState("/s", { files, identity: files.identity });
        const record = (await store.get("record"))?.value as { generation: number; manifest: Json } | undefined;
        if (record === undefined) continue;
        const manifest = await openManifest(store, "m", record.manifest);
        const digests = await manifest.digests(0, manifest.leaves);
        expect(Buffer.compare(digests, built.get(record.generation)!), `seed ${seed}, loss ${loss}`).toBe(0);
      }
    }
    console.log(`manifests: ${losses} power losses, ${recorded} records; seed ${seed}`);
    expect(recorded).toBeGreaterThan(20);
  });
});
