import { type Digester, digestLength } from "./digest.ts";

/** The digests of every leaf of `block`, concatenated in order; the last leaf may be short. */
export function leafDigests(digest: Digester, block: Uint8Array, leaf: number): Uint8Array {
  const digests = new Uint8Array(Math.ceil(block.byteLength / leaf) * digestLength);
  for (let offset = 0, at = 0; offset < block.byteLength; offset += leaf, at += digestLength) {
    digests.set(digest(block.subarray(offset, offset + leaf)), at);
  }
  return digests;
}
