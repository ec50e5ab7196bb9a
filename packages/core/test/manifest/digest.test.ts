import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import {
  digester,
  isUnknownDigest,
  loadBlake3,
  preferredAlgorithm,
  unknownDigest,
  zeroDigest,
} from "../../src/manifest/digest.ts";

const text = (digest: Uint8Array): string => Buffer.from(digest).toString("hex");

describe("a digester", () => {
  it("computes what the specifications' test vectors say", () => {
    expect(text(digester("sha256")(Buffer.from("abc")))).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
    // BLAKE3 test_vectors.json, input_len 0 and 1025 (bytes 0, 1, … 250, 0, 1 …).
    expect(text(digester("blake3")(new Uint8Array(0)))).toBe(
      "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    );
    expect(text(digester("blake3")(Uint8Array.from({ length: 1025 }, (_, index) => index % 251)))).toBe(
      "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    );
  });

  it.each(["blake3", "sha256"] as const)("hashes shared memory and views with %s as any other bytes", (algorithm) => {
    const bytes = randomBytes(100_000, 3);
    const shared = new Uint8Array(new SharedArrayBuffer(100_100));
    shared.set(bytes, 33);
    const digest = digester(algorithm);
    expect(text(digest(shared.subarray(33, 100_033)))).toBe(text(digest(bytes)));
    expect(digest(bytes)).toHaveLength(32);
    if (algorithm === "sha256") expect(text(digest(bytes))).toBe(createHash("sha256").update(bytes).digest("hex"));
  });

  it("prefers BLAKE3 where its native module loads, and counts one that computes wrongly as missing", () => {
    expect(preferredAlgorithm()).toBe("blake3");
    const missing = loadBlake3(() => {
      throw new Error("Cannot find native binding");
    });
    expect(missing).toBeInstanceOf(Error);
    expect(loadBlake3(() => ({ blake3UrlSafeBase64: () => "A".repeat(43) }))).toBeInstanceOf(Error);
  });

  it("knows the digest of zeroes of any length, and the one that stands for an unknown leaf", () => {
    for (const length of [512, 65_536, 1024 * 1024]) {
      expect(text(zeroDigest("sha256", length))).toBe(createHash("sha256").update(Buffer.alloc(length)).digest("hex"));
      expect(isUnknownDigest(zeroDigest("blake3", length))).toBe(false);
    }
    expect(zeroDigest("blake3", 512)).toBe(zeroDigest("blake3", 512));
    expect(isUnknownDigest(unknownDigest)).toBe(true);
  });
});
