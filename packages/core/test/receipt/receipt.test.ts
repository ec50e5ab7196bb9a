import { generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { randomBytes, seedOf } from "../../../../test/seed.ts";
import { isProviderError } from "../../src/provider/error.ts";
import type { Json } from "../../src/provider/extents.ts";
import type { BlockReader } from "../../src/provider/reader.ts";
import { digester } from "../../src/manifest/digest.ts";
import { ManifestBuilder } from "../../src/manifest/manifest-builder.ts";
import { canonicalJson } from "../../src/receipt/canonical-json.ts";
import { issueReceipt, type Receipt, type ReceiptFacts, verifyReceipt } from "../../src/receipt/receipt.ts";
import { MemoryStateStore } from "../../src/state/memory-state-store.ts";

const leaf = 65_536;
const disk = randomBytes(3 * 1024 * 1024 + 4608, 12);

function pemPair(): { privateKey: string; publicKey: string } {
  return generateKeyPairSync("ed25519", {
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
}

async function rootOf(bytes: Uint8Array, algorithm: "blake3" | "sha256"): Promise<string> {
  const digest = digester(algorithm);
  const builder = new ManifestBuilder(new MemoryStateStore(), "m", { algorithm, leaf, size: bytes.length });
  for (let at = 0; at * leaf < bytes.length; at++) {
    await builder.set(at, digest(bytes.subarray(at * leaf, (at + 1) * leaf)));
  }
  return (await builder.finish()).root;
}

async function facts(algorithm: "blake3" | "sha256" = "blake3"): Promise<ReceiptFacts> {
  return {
    job: "nightly",
    machine: "vm-7",
    disk: "2000",
    size: disk.length,
    source: { snapshot: "snap-1", takenAt: "2025-03-04T05:06:07.000Z", consistency: "crash" },
    manifest: { algorithm, leaf, root: await rootOf(disk, algorithm) },
    volume: "vol-9",
    run: "run-3",
    verified: { mode: "full", bytes: disk.length },
    issuedAt: "2025-03-04T06:00:00.000Z",
  };
}

interface Traced {
  reader: BlockReader;
  /** How many reads were under way at once at most, and whether they ascended. */
  most: number;
  ascending: boolean;
  /** Whether every read kept to the reader's unit. */
  aligned: boolean;
}

function readerOf(bytes: Uint8Array, geometry: Partial<BlockReader> = {}): Traced {
  let underWay = 0;
  let end = 0;
  const traced: Traced = {
    most: 0,
    ascending: true,
    aligned: true,
    reader: {
      size: bytes.length,
      blockSize: 512,
      ...geometry,
      async read(offset, into) {
        traced.most = Math.max(traced.most, ++underWay);
        if (offset !== end) traced.ascending = false;
        const { blockSize } = traced.reader;
        if (offset % blockSize !== 0 || into.byteLength % blockSize !== 0)
          traced.aligned &&= offset + into.byteLength === bytes.length;
        end = offset + into.byteLength;
        await new Promise((resolve) => setImmediate(resolve));
        into.set(bytes.subarray(offset, offset + into.byteLength));
        underWay--;
      },
      async [Symbol.asyncDispose]() {},
    },
  };
  return traced;
}

describe("a receipt", () => {
  it("that was signed is valid for the key's owner, after a trip through any JSON", async () => {
    const keys = pemPair();
    const given = await facts();
    const receipt = issueReceipt(given, keys);
    const shuffled = Object.fromEntries(Object.entries(receipt).reverse());
    const verdict = await verifyReceipt(JSON.parse(JSON.stringify(shuffled, null, 4)), {
      publicKey: keys.publicKey,
      root: given.manifest.root,
      machine: "vm-7",
      disk: "2000",
    });
    expect(verdict).toEqual({ receipt, signature: "valid", root: "equal", content: "unchecked" });
    expect(await verifyReceipt(receipt)).toMatchObject({ signature: "unchecked", root: "unchecked" });
    expect(await verifyReceipt(issueReceipt(given))).toMatchObject({ signature: "absent" });
    expect(Object.keys(issueReceipt(given))).not.toContain("privateKey");
  });

  it("that was altered anywhere after it was signed is CORRUPT", async () => {
    const keys = pemPair();
    const receipt = issueReceipt(await facts(), keys);
    const altered: object[] = [
      { job: "other" },
      { machine: "vm-8" },
      { disk: "2001" },
      { size: 512 },
      { source: { ...receipt.source, snapshot: "snap-2" } },
      { source: { ...receipt.source, takenAt: "2026-03-04T05:06:07.000Z" } },
      { source: { ...receipt.source, consistency: "application" } },
      { manifest: { ...receipt.manifest, root: "0".repeat(64) } },
      { manifest: { ...receipt.manifest, algorithm: "sha256" } },
      { manifest: { ...receipt.manifest, leaf: 512 } },
      { volume: "vol-1" },
      { run: "run-4" },
      { verified: { mode: "full", bytes: 1 } },
      { issuedAt: "2025-03-04T06:00:01.000Z" },
      { signature: { ...receipt.signature, value: `${"A".repeat(86)}==` } },
      { note: "one more member" },
      { source: { ...receipt.source, more: 1 } },
      { signature: { ...receipt.signature, more: 1 } },
      { version: 0 },
    ];
    for (const change of altered) {
      const result = verifyReceipt({ ...receipt, ...change }, { publicKey: keys.publicKey });
      await expect(result, JSON.stringify(change)).rejects.toMatchObject({ code: "CORRUPT" });
    }
    await expect(verifyReceipt({ ...receipt, version: 2 })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  it("that is not signed, or by another key, is DENIED to whoever demands a signature", async () => {
    const [mine, another] = [pemPair(), pemPair()];
    const given = await facts();
    const { publicKey } = mine;
    await expect(verifyReceipt(issueReceipt(given), { publicKey })).rejects.toMatchObject({ code: "DENIED" });
    const signed = issueReceipt(given, another);
    await expect(verifyReceipt(signed, { publicKey })).rejects.toMatchObject({ code: "DENIED" });
    const { signature: _, ...stripped } = signed;
    await expect(verifyReceipt(stripped, { publicKey })).rejects.toThrow("is not signed");
    // Naming another key does not make its signature right.
    const claimed = { ...signed, signature: { ...signed.signature, key: issueReceipt(given, mine).signature!.key } };
    await expect(verifyReceipt(claimed, { publicKey })).rejects.toMatchObject({ code: "CORRUPT" });
  });

  it("of another disk, machine or root is told by name", async () => {
    const receipt = issueReceipt(await facts());
    await expect(verifyReceipt(receipt, { disk: "2001" })).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringMatching(/vm-7 disk 2000.*another disk than vm-7 disk 2001/) as string,
    });
    await expect(verifyReceipt(receipt, { machine: "vm-8" })).rejects.toThrow("another disk");
    await expect(verifyReceipt(receipt, { root: "0".repeat(64) })).rejects.toMatchObject({ code: "CORRUPT" });
    const { reader } = readerOf(disk.subarray(0, 1024 * 1024));
    await expect(verifyReceipt(receipt, { reader })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it.each(["blake3", "sha256"] as const)(
    "is checked against the content with %s, within what the reader takes",
    async (algorithm) => {
      const receipt = issueReceipt(await facts(algorithm));
      let progress = 0;
      const plain = readerOf(disk);
      const verdict = await verifyReceipt(receipt, { reader: plain.reader, progress: (bytes) => (progress = bytes) });
      expect(verdict.content).toBe("equal");
      expect(progress).toBe(disk.length);
      expect(plain).toMatchObject({ most: 1, ascending: true });
      const wide = readerOf(disk, { concurrency: 3 });
      expect((await verifyReceipt(receipt, { reader: wide.reader })).content).toBe("equal");
      expect(wide.most).toBe(3);
      const stream = readerOf(disk, { concurrency: 3, order: "ascending" });
      await verifyReceipt(receipt, { reader: stream.reader });
      expect(stream).toMatchObject({ most: 1, ascending: true });
      // A volume may be larger than the disk.
      const larger = new Uint8Array(disk.length + 8192 - (disk.length % 4096)).fill(9);
      larger.set(disk);
      const inUnits = readerOf(larger, { blockSize: 4096 });
      expect((await verifyReceipt(receipt, { reader: inUnits.reader })).content).toBe("equal");
      expect(inUnits.aligned).toBe(true);
      for (const at of [0, 1024 * 1024, disk.length - 1]) {
        const changed = disk.slice();
        changed[at]! ^= 1;
        await expect(verifyReceipt(receipt, { reader: readerOf(changed).reader })).rejects.toMatchObject({
          code: "CORRUPT",
        });
      }
    },
  );

  it("gives the reader's own failure, and stops when it is aborted", async () => {
    const receipt = issueReceipt(await facts());
    const failing = readerOf(disk, { concurrency: 2 });
    const read = failing.reader.read.bind(failing.reader);
    failing.reader.read = async (offset, into) => {
      if (offset > 0) throw new Error("the medium failed");
      await read(offset, into);
    };
    await expect(verifyReceipt(receipt, { reader: failing.reader })).rejects.toThrow("the medium failed");
    const stop = new AbortController();
    const reading = verifyReceipt(receipt, {
      reader: readerOf(disk).reader,
      signal: stop.signal,
      progress: () => stop.abort(new Error("enough")),
    });
    await expect(reading).rejects.toThrow("enough");
  });

  it("refuses keys that are none without a word of them", async () => {
    const given = await facts();
    const rsa = generateKeyPairSync("rsa", {
      modulusLength: 2048,
      publicKeyEncoding: { type: "spki", format: "pem" },
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
    });
    for (const privateKey of ["secret-words", rsa.privateKey, ""]) {
      try {
        issueReceipt(given, { privateKey });
        expect.unreachable();
      } catch (error) {
        expect(isProviderError(error) && error.code).toBe("CONFIG_INVALID");
        expect(JSON.stringify([String(error), (error as Error).cause])).not.toMatch(/secret|MII/);
      }
    }
    for (const publicKey of ["x", rsa.publicKey]) {
      await expect(verifyReceipt(issueReceipt(given), { publicKey })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    }
    expect(() => issueReceipt({ ...given, size: 100 })).toThrow("size");
  });

  it("that is no receipt is refused whatever it is, naming what is wrong", async () => {
    const receipt = issueReceipt(await facts(), pemPair());
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.anything(),
          fc.jsonValue(),
          fc
            .tuple(fc.constantFrom(...Object.keys(receipt)), fc.jsonValue())
            .map(([member, value]) => ({ ...receipt, [member]: value })),
        ),
        async (given) => {
          try {
            await verifyReceipt(given);
          } catch (error) {
            expect(isProviderError(error), String(error)).toBe(true);
          }
        },
      ),
      { numRuns: 500, seed: seedOf(Math.floor(Math.random() * 1e9)) },
    );
    const wrong = { ...receipt, size: 1, source: { ...receipt.source, takenAt: "soon" }, manifest: null };
    await expect(verifyReceipt(wrong)).rejects.toThrow(/size, source\.takenAt, manifest/);
    await expect(verifyReceipt(null)).rejects.toThrow("no JSON object");
  });
});

describe("canonical JSON", () => {
  it("is the same for equal values, and reads back as the value", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = canonicalJson(value);
        expect(canonicalJson(JSON.parse(text) as Json)).toBe(text);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
      { numRuns: 300, seed: seedOf(4) },
    );
    expect(canonicalJson({ b: [1, { d: null, c: "é\n" }], a: undefined, A: true })).toBe(
      '{"A":true,"b":[1,{"c":"é\\n","d":null}]}',
    );
    expect(() => canonicalJson({ a: NaN })).toThrow(TypeError);
    const signed: Receipt["signature"] = undefined;
    expect(canonicalJson({ signature: signed })).toBe("{}");
  });
});
