import type { NbdBackend } from "./backend.ts";

/** A disk in memory: `size` bytes of zeroes, or the given bytes, which are used and not copied. Never durable. */
export function memoryBackend(content: number | Uint8Array): NbdBackend {
  const bytes = typeof content === "number" ? new Uint8Array(content) : content;
  return {
    size: bytes.byteLength,
    multiConnection: true,
    description: "memory",
    read(offset, into) {
      into.set(bytes.subarray(offset, offset + into.byteLength));
    },
    write(offset, data) {
      bytes.set(data, offset);
    },
    zero(offset, length) {
      bytes.fill(0, offset, offset + length);
    },
    trim(offset, length) {
      bytes.fill(0, offset, offset + length);
    },
    flush() {
      // Memory has nothing that a flush could make more durable.
    },
    cache() {
      // It is in memory already.
    },
  };
}
