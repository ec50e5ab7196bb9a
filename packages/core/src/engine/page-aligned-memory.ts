/** Bytes of a page of memory on the machines this runs on, or a part of it. */
export const PAGE = 4096;

/** Bytes of a page of WebAssembly. */
const WASM_PAGE = 64 << 10;

/** Types for Node name no more of it. */
interface WithWebAssembly {
  WebAssembly?: {
    Memory: new (asked: { initial: number; maximum: number; shared: true }) => { buffer: SharedArrayBuffer };
  };
}

/**
 * Shared memory of at least so many bytes, zeroes at first, that begins at a page, as O_DIRECT wants it (open(2), NOTES).
 * Where a SharedArrayBuffer begins nobody can say, but the memory of WebAssembly begins at a page. Without WebAssembly
 * (`node --jitless`), or without address space for it, the memory begins anywhere.
 */
export function pageAlignedMemory(bytes: number): SharedArrayBuffer {
  const { WebAssembly } = globalThis as WithWebAssembly;
  if (WebAssembly === undefined) return new SharedArrayBuffer(bytes);
  const pages = Math.ceil(bytes / WASM_PAGE);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return new SharedArrayBuffer(bytes);
  }
}
