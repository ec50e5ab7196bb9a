import { beforeEach, describe, expect, it } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { digester, unknownDigest, zeroDigest } from "../../src/manifest/digest.ts";
import { verifyInclusion } from "../../src/manifest/inclusion.ts";
import { collect, type Manifest, openManifest } from "../../src/manifest/manifest.ts";
import { ManifestBuilder } from "../../src/manifest/manifest-builder.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";
import { naiveRoot } from "./naive-tree.ts";

const leaf = 1024;
const page = 4096;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

let store: MemoryStateStore;
beforeEach(() => {
  store = new MemoryStateStore();
});

async function keys(prefix = "m/"): Promise<string[]> {
  const found: string[] = [];
  for await (const key of store.list(prefix)) found.push(key);
  return found.sort();
}

async function expectDigests(manifest: Manifest, expected: Uint8Array, why: string): Promise<void> {
  expect(manifest.leaves, why).toBe(expected.length / 32);
  expect(Buffer.compare(await manifest.digests(0, manifest.leaves), expected), why).toBe(0);
}

/** A store whose reads take turns of the event loop, more or fewer, so that they overtake each other. */
class SlowStore extends MemoryStateStore {
  readonly #random: () => number;
  constructor(random: () => number) {
    super();
    this.#random = random;
  }
  override async bytes(...call: Parameters<MemoryStateStore["bytes"]>): Promise<Uint8Array | undefined> {
    for (let turns = Math.floor(this.#random() * 4); turns > 0; turns--) await new Promise(setImmediate);
    return super.bytes(...call);
  }
}

describe("a manifest", () => {
  it("tells each of many readers at once what it asked for, over more pages than it keeps", async () => {
    const seed = seedOf(29);
    const random = randomFrom(seed);
    const pages = 70;
    const slow = new SlowStore(random);
    const expected = randomBytes(pages * page * 32, seed);
    // One page of zeroes alone, which is a constant, and one of leaves of which nothing is known.
    const zero = zeroDigest("sha256", leaf);
    for (let at = 3 * page; at < 4 * page; at++) expected.set(zero, at * 32);
    expected.fill(0, 7 * page * 32, 8 * page * 32);
    const builder = new ManifestBuilder(slow, "m", { algorithm: "sha256", leaf, size: pages * page * leaf });
    const part = (first: number, count: number): Uint8Array => expected.subarray(first * 32, (first + count) * 32);
    const asked = Array.from({ length: 200 }, () => {
      const first = Math.floor(random() * pages * page);
      return { first, count: 1 + Math.floor(random() * Math.min(2 * page, pages * page - first)) };
    });
    // Half pages, so that each is read again before the other half of it is set.
    for (const half of [0, 1]) {
      for (let at = 0; at < pages; at++) {
        const first = at * page + (half * page) / 2;
        await builder.setMany(first, part(first, page / 2));
      }
    }
    await Promise.all(
      asked.map(async ({ first, count }) => {
        const why = `builder, seed ${seed}, ${count} leaves from ${first}`;
        const held = builder.holds(first, part(first, count));
        expect(Buffer.compare(await builder.digests(first, count), part(first, count)), why).toBe(0);
        expect(await held, why).toBe(true);
        const other = part(first, count).slice();
        other[Math.floor(random() * other.length)]! ^= 1;
        expect(await builder.holds(first, other), why).toBe(false);
      }),
    );
    const manifest = await builder.finish();
    await Promise.all(
      asked.map(async ({ first, count }) => {
        const why = `manifest, seed ${seed}, ${count} leaves from ${first}`;
        expect(Buffer.compare(await manifest.digests(first, count), part(first, count)), why).toBe(0);
      }),
    );
    expect(manifest.root).toBe(hex(naiveRoot(expected)));
  });

  it(
    "agrees with a plain list of digests over generations that grow, shrink and change",
    { timeout: 120_000 },
    async () => {
      const seed = seedOf(23);
      const random = randomFrom(seed);
      // Sizes around the ends of pages and of leaves.
      const sizes = [
        512,
        leaf,
        leaf * page - 512,
        leaf * page,
        leaf * page + 512,
        leaf * (page + 1),
        leaf * page * 2.5 + 512,
      ];
      let base: Manifest | undefined;
      let before = new Uint8Array(0);
      for (let generation = 0; generation < 40; generation++) {
        const size = random() < 0.4 && base !== undefined ? base.size : sizes[Math.floor(random() * sizes.length)]!;
        const why = `seed ${seed}, generation ${generation}, ${base?.size} to ${size} bytes`;
        const leaves = Math.ceil(size / leaf);
        const model = new Uint8Array(leaves * 32);
        const kept = base?.size === size ? leaves : Math.floor(Math.min(size, base?.size ?? 0) / leaf);
        model.set(before.subarray(0, kept * 32));
        const builder = new ManifestBuilder(store, "m", { algorithm: "sha256", leaf, size, base });
        const pending: Promise<unknown>[] = [];
        for (let steps = Math.floor(random() * 8); steps > 0; steps--) {
          const first = Math.floor(random() * leaves);
          const count = 1 + Math.floor(random() * Math.min(leaves - first, random() < 0.5 ? 3 : leaves));
          if (random() < 0.6) {
            const digests =
              random() < 0.2 ? repeated(zeroDigest("sha256", leaf), count) : randomBytes(count * 32, steps);
            pending.push(count === 1 ? builder.set(first, digests) : builder.setMany(first, digests));
            model.set(digests, first * 32);
          } else if (random() < 0.5) {
            pending.push(builder.forget(first, count));
            model.fill(0, first * 32, (first + count) * 32);
          } else {
            const expected = hex(model.subarray(first * 32, (first + 1) * 32));
            pending.push(builder.get(first).then((digest) => expect(hex(digest), why).toBe(expected)));
          }
        }
        await Promise.all(pending);
        const built = await builder.finish();
        await expectDigests(built, model, why);
        expect(built.root, why).toBe(hex(naiveRoot(model)));
        const opened = await openManifest(store, "m", JSON.parse(JSON.stringify(built.toJson())));
        await expectDigests(opened, model, why);
        // What the generation before holds stays what it was.
        if (base !== undefined) await expectDigests(base, before, why);
        for (let proofs = 0; proofs < 3; proofs++) {
          const index = Math.floor(random() * leaves);
          const proof = await opened.proof(index);
          expect(proof.digest).toBe(hex(model.subarray(index * 32, index * 32 + 32)));
          expect(verifyInclusion(JSON.parse(JSON.stringify(proof)), opened.root), why).toBe(true);
        }
        base = opened;
        before = model;
        if (random() < 0.3) {
          await collect(store, "m", [opened]);
          await expectDigests(await openManifest(store, "m", opened.toJson()), model, `${why}, collected`);
        }
      }
    },
  );

  it("stores the pages that changed and no others", async () => {
    const size = leaf * page * 5;
    const builder = new ManifestBuilder(store, "m", { algorithm: "blake3", leaf, size });
    for (let at = 0; at < 5; at++) await builder.setMany(at * page, randomBytes(page * 32, at));
    const first = await builder.finish();
    expect((await keys()).length).toBe(5 + 1);
    const next = new ManifestBuilder(store, "m", { algorithm: "blake3", leaf, size: size + leaf, base: first });
    await next.set(3 * page + 7, randomBytes(32, 9));
    await next.set(0, await first.digests(0, 1));
    const second = await next.finish();
    // One changed page and its index; the page that was set to what it held is not stored again, nor is a page of
    // which nothing is known.
    expect((await keys()).length).toBe(6 + 2);
    expect(hex(await second.digests(5 * page, 1))).toBe(hex(unknownDigest));
    expect(await collect(store, "m", [second])).toBe(2);
    expect(await collect(store, "m", [second])).toBe(0);
    expect(hex(await second.digests(0, 5 * page))).toHaveLength(5 * page * 64);
    await expect(first.digests(3 * page, 1)).rejects.toMatchObject({ code: "CORRUPT" });
    expect(await collect(store, "m", [])).toBe(6);
  });

  it("stops collecting when the one who collects was superseded", async () => {
    const builder = new ManifestBuilder(store, "m", { algorithm: "sha256", leaf, size: leaf * page * 3 });
    await builder.setMany(0, randomBytes(page * 3 * 32, 1));
    await builder.finish();
    const lease = await store.acquire("job");
    const before = await keys();
    expect(before.length).toBe(4);
    let checks = 0;
    const collecting = collect(store, "m", [], {
      check: async (wait) => {
        if (++checks === 2) await store.acquire("job");
        await lease.check(wait);
      },
    });
    await expect(collecting).rejects.toMatchObject({ code: "FENCED" });
    expect((await keys()).length).toBe(3);
  });

  it("stores nothing but an index for a disk of zeroes, and for one of which nothing is known", async () => {
    const size = leaf * page * 3 + 512;
    const builder = new ManifestBuilder(store, "m", { algorithm: "sha256", leaf, size });
    const unknown = await builder.finish();
    expect(hex(await unknown.digests(page * 3, 1))).toBe(hex(unknownDigest));
    await builder.setMany(0, repeated(zeroDigest("sha256", leaf), page * 3));
    await builder.set(page * 3, zeroDigest("sha256", 512));
    const zeroes = await builder.finish();
    expect((await keys()).map((key) => key.slice(0, 8))).toEqual(["m/index/", "m/index/"]);
    expect(hex(await zeroes.digests(page * 3, 1))).toBe(hex(zeroDigest("sha256", 512)));
    expect(zeroes.root).not.toBe(unknown.root);
  });

  it("proves a leaf to whoever has the root, and nothing else", async () => {
    const random = randomFrom(3);
    for (const leaves of [1, 2, 3, 7, 8, page, page + 1, page * 2 + 5]) {
      const builder = new ManifestBuilder(store, "m", { algorithm: "sha256", leaf, size: leaves * leaf });
      await builder.setMany(0, randomBytes(leaves * 32, leaves));
      const manifest = await builder.finish();
      for (const index of new Set([0, leaves - 1, Math.floor(random() * leaves)])) {
        const proof = await manifest.proof(index);
        expect(verifyInclusion(proof, manifest.root), `${index} of ${leaves}`).toBe(true);
        const flip = (text: string): string => (text.startsWith("0") ? "1" : "0") + text.slice(1);
        expect(verifyInclusion(proof, flip(manifest.root))).toBe(false);
        expect(verifyInclusion({ ...proof, digest: flip(proof.digest) }, manifest.root)).toBe(false);
        expect(verifyInclusion({ ...proof, path: [...proof.path, proof.digest] }, manifest.root)).toBe(false);
        expect(verifyInclusion({ ...proof, leaves: proof.leaves * 2 + 1 }, manifest.root)).toBe(false);
        if (leaves === 1) continue;
        expect(verifyInclusion({ ...proof, path: proof.path.slice(1) }, manifest.root)).toBe(false);
        expect(verifyInclusion({ ...proof, path: [flip(proof.path[0]!), ...proof.path.slice(1)] }, manifest.root)).toBe(
          false,
        );
        expect(verifyInclusion({ ...proof, index: (index + 1) % leaves }, manifest.root)).toBe(false);
      }
    }
    const garbage = [
      { index: -1 },
      { index: 0.5 },
      { leaves: 2 ** 60 },
      { digest: "x" },
      { path: ["zz"] },
      { algorithm: "md5" },
    ];
    const builder = new ManifestBuilder(store, "m", { algorithm: "sha256", leaf, size: leaf * 2 });
    const manifest = await builder.finish();
    const proof = await manifest.proof(0);
    for (const wrong of garbage)
      expect(verifyInclusion({ ...proof, ...wrong } as typeof proof, manifest.root)).toBe(false);
  });

  it("refuses callers' mistakes", async () => {
    const options = { algorithm: "sha256", leaf, size: leaf * 10 } as const;
    for (const wrong of [
      { leaf: 1000 },
      { leaf: 0 },
      { leaf: 2 ** 40 },
      { size: 0 },
      { size: 513 },
      { algorithm: "md5" as "sha256" },
    ]) {
      expect(() => new ManifestBuilder(store, "m", { ...options, ...wrong })).toThrow(RangeError);
    }
    const builder = new ManifestBuilder(store, "m", options);
    expect(() => builder.set(10, new Uint8Array(32))).toThrow(RangeError);
    expect(() => builder.set(0, new Uint8Array(31))).toThrow(RangeError);
    expect(() => builder.setMany(9, new Uint8Array(64))).toThrow(RangeError);
    expect(() => builder.forget(-1)).toThrow(RangeError);
    const manifest = await builder.finish();
    await expect(manifest.digests(5, 6)).rejects.toThrow(RangeError);
    const base = { ...options, base: manifest };
    expect(() => new ManifestBuilder(store, "m", { ...base, leaf: 2048 })).toThrow(RangeError);
    expect(() => new ManifestBuilder(store, "m", { ...base, algorithm: "blake3" })).toThrow(RangeError);
    expect(() => new ManifestBuilder(store, "other", base)).toThrow(TypeError);
  });

  it("goes on after a page could not be stored", async () => {
    class FullOnce extends MemoryStateStore {
      full = false;
      override async put(key: string, bytes: Uint8Array): Promise<void> {
        if (this.full) throw new Error("full");
        await super.put(key, bytes);
      }
    }
    const full = new FullOnce();
    const builder = new ManifestBuilder(full, "m", { algorithm: "sha256", leaf, size: leaf * page * 2 });
    const digests = randomBytes(page * 2 * 32, 4);
    await builder.setMany(0, digests);
    full.full = true;
    await expect(builder.finish()).rejects.toThrow("full");
    full.full = false;
    await expectDigests(await builder.finish(), digests, "after the failure");

    // The same when a page is stored to make room for another, which must not be taken for set then.
    const pages = 70;
    const many = new ManifestBuilder(full, "many", { algorithm: "sha256", leaf, size: leaf * page * pages });
    const digest = randomBytes(32, 5);
    for (let at = 0; at < pages; at++) {
      full.full = at >= 64;
      const set = many.setMany(at * page, repeated(digest, page).fill(at, 0, 32));
      if (at < 64) await set;
      else await expect(set).rejects.toThrow("full");
    }
    full.full = false;
    const expected = new Uint8Array(page * pages * 32);
    for (let at = 0; at < 64; at++) expected.set(repeated(digest, page).fill(at, 0, 32), at * page * 32);
    expect(hex(await many.get(64 * page))).toBe(hex(unknownDigest));
    await expectDigests(await many.finish(), expected, "after the failures");
  });

  it("hashes leaves the way the digests of a disk are made", async () => {
    const disk = randomBytes(leaf * 3 + 512, 77);
    const digest = digester("blake3");
    const builder = new ManifestBuilder(store, "m", { algorithm: "blake3", leaf, size: disk.length });
    for (let at = 0; at < 4; at++) await builder.set(at, digest(disk.subarray(at * leaf, (at + 1) * leaf)));
    expect((await builder.finish()).toJson()).toEqual({
      version: 1,
      algorithm: "blake3",
      leaf,
      size: disk.length,
      leaves: 4,
      root: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
    });
  });
});

function repeated(digest: Uint8Array, count: number): Uint8Array {
  const digests = new Uint8Array(count * 32);
  for (let at = 0; at < count; at++) digests.set(digest, at * 32);
  return digests;
}
