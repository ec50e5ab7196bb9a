import { createRequire } from "node:module";
import { hash } from "node:crypto";
import { ProviderError } from "../provider/error.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";

/** The length of every digest, in bytes. */
export const digestLength = 32;

/**
 * The digest of a leaf whose content at the target is not known: 32 zero bytes, which no content is known to hash to.
 * It equals no leaf's digest, so a rescan sends that leaf. Never written to: callers copy it.
 */
export const unknownDigest: Uint8Array = new Uint8Array(digestLength);

/** Hashes bytes, shared memory included, into a new array of 32 bytes. */
export type Digester = (bytes: Uint8Array) => Uint8Array;

/**
 * What the native BLAKE3 module exports, as far as it is used; it reads shared memory without copying. Its digests are
 * asked for as text: as Buffers they would each be memory outside the heap that is freed in a later turn of the event
 * loop only, hundreds of MiB while a large tree is hashed, at three times the cost (1.4 against 0.5 µs for a node).
 */
export interface Blake3Module {
  blake3UrlSafeBase64(input: Uint8Array): string;
}

let native: Blake3Module | Error | undefined;

/** The native BLAKE3 module, loaded once, or the reason why it cannot be loaded. */
function blake3Module(): Blake3Module | Error {
  native ??= loadBlake3(() => createRequire(import.meta.url)("@napi-rs/blake-hash") as Blake3Module);
  return native;
}

/**
 * Loads a BLAKE3 module and tries it on a known answer, so that a binary that loads but does not work on this machine
 * counts as missing. Resolves to the error instead of throwing it.
 */
export function loadBlake3(load: () => Blake3Module): Blake3Module | Error {
  try {
    const loaded = load();
    // The BLAKE3 specification's test vector for the empty input, first eight bytes.
    const known = Buffer.from(fromText(loaded.blake3UrlSafeBase64(new Uint8Array(0)), "base64url")).toString(
      "hex",
      0,
      8,
    );
    return known === "af1349b9f5f9a1a6" ? loaded : new Error(`its digest of nothing begins with ${known}`);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/**
 * The function that computes digests of an algorithm, on the calling thread.
 * @throws ProviderError UNSUPPORTED where native BLAKE3 is not installed.
 */
export function digester(algorithm: DigestAlgorithm): Digester {
  if (algorithm === "sha256") return (bytes) => fromText(hash("sha256", bytes, "binary"), "binary");
  const loaded = blake3Module();
  if (loaded instanceof Error) {
    throw new ProviderError(
      "UNSUPPORTED",
      "BLAKE3 digests need the optional package @napi-rs/blake-hash, which does not load on this machine; " +
        "install it, or begin anew with sha256",
      { operation: "digest", cause: loaded },
    );
  }
  return (bytes) => fromText(loaded.blake3UrlSafeBase64(bytes), "base64url");
}

const scratch = Buffer.alloc(digestLength);

/** The digest that a text stands for. */
function fromText(text: string, encoding: "binary" | "base64url"): Uint8Array {
  scratch.write(text, encoding);
  return new Uint8Array(scratch);
}

/** The algorithm new manifests use: BLAKE3 where its native module loads, else SHA-256. */
export function preferredAlgorithm(): DigestAlgorithm {
  return blake3Module() instanceof Error ? "sha256" : "blake3";
}

const zeroDigests = new Map<string, Uint8Array>();
const zeroDigestsKept = 64;

/** The digest of `length` zero bytes; kept, so do not write to it. */
export function zeroDigest(algorithm: DigestAlgorithm, length: number): Uint8Array {
  const name = `${algorithm}:${length}`;
  let digest = zeroDigests.get(name);
  if (digest === undefined) {
    digest = digester(algorithm)(new Uint8Array(length));
    if (zeroDigests.size >= zeroDigestsKept) zeroDigests.clear();
    zeroDigests.set(name, digest);
  }
  return digest;
}

/** Whether a digest of 32 bytes is {@link unknownDigest}. */
export function isUnknownDigest(digest: Uint8Array): boolean {
  return Buffer.compare(digest, unknownDigest) === 0;
}
