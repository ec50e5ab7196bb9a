import { hash } from "node:crypto";

const node = (...parts: readonly Uint8Array[]): Uint8Array => hash("sha256", Buffer.concat(parts), "buffer");

/** RFC 6962, section 2.1, word for word, with SHA-256: the root over digests of 32 bytes each. */
export function naiveRoot(digests: Uint8Array): Uint8Array {
  const count = digests.byteLength / 32;
  if (count === 1) return node(Uint8Array.of(0), digests);
  let split = 1;
  while (split * 2 < count) split *= 2;
  return node(Uint8Array.of(1), naiveRoot(digests.subarray(0, split * 32)), naiveRoot(digests.subarray(split * 32)));
}
