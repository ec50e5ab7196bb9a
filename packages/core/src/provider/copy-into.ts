/**
 * Copies `bytes` into `into` from byte `at` on, where they fit. Blocks lie in shared memory, and there V8's
 * `TypedArray.prototype.set` copies byte by byte unless both sides lie alike: 7 instead of 0.4 µs for 16 KiB.
 */
export function copyInto(into: Uint8Array, bytes: Uint8Array, at = 0): void {
  const { byteLength } = bytes;
  if (at < 0 || at + byteLength > into.byteLength) {
    throw new RangeError(`${byteLength} bytes do not fit at byte ${at} of ${into.byteLength}`);
  }
  // With a value as long as the range, `fill` is one copy of memory; an empty one it refuses.
  if (byteLength > 0) Buffer.from(into.buffer, into.byteOffset + at, byteLength).fill(bytes);
}
