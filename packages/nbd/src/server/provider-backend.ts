import type { BlockReader, BlockWriter } from "@diskferry/core/provider";
import { SlowZeroError, type BackendWait, type NbdBackend } from "./backend.ts";
import { cacheByReading } from "./cache-by-reading.ts";
import { Turnstile } from "./turnstile.ts";

/** The largest unit that the protocol lets a server demand, in bytes (NBD proto.md, "Size constraints"). */
const largestBlock = 65_536;

const zeroes: Buffer = Buffer.alloc(1024 * 1024);

/**
 * Serves a reader of the provider contract, read-only. Calls at once stay within its `concurrency`; it stays the
 * caller's to dispose. Where its blocks are larger than NBD allows, or the disk ends within one, reads are widened.
 * @throws TypeError for a reader that only reads ascending: NBD clients read anywhere.
 */
export function readerBackend(reader: BlockReader): NbdBackend {
  if (reader.order === "ascending") {
    throw new TypeError("an NBD export needs a reader that reads in any order; this one only reads ascending");
  }
  const turnstile = new Turnstile(reader.concurrency ?? 1);
  const { size, blockSize } = reader;
  const widen = blockSize > largestBlock || size % blockSize !== 0;
  const read = async (offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> => {
    if (!widen) return reader.read(offset, into, { signal });
    const start = offset - (offset % blockSize);
    const end = Math.min(Math.ceil((offset + into.byteLength) / blockSize) * blockSize, size);
    const wide = new Uint8Array(end - start);
    await reader.read(start, wide, { signal });
    into.set(wide.subarray(offset - start, offset - start + into.byteLength));
  };
  const get: NbdBackend["read"] = (offset, into, { signal }) =>
    turnstile.pass(() => read(offset, into, signal), signal);
  return {
    size,
    blockSize: widen ? 1 : blockSize,
    ...preferred(reader),
    readOnly: true,
    multiConnection: true,
    read: get,
    cache: cacheByReading(get, blockSize),
  };
}

/**
 * Serves a writer of the provider contract. Calls at once stay within its `concurrency`; `commit` and disposing stay
 * with the caller, after the server was closed or the epoch fenced. A writer without `read` refuses reads and caches
 * nothing; one with `zero` is trimmed by it, since that is what gives its space back.
 * @throws TypeError for a writer whose blocks are larger than NBD allows (64 KiB).
 */
export function writerBackend(writer: BlockWriter): NbdBackend {
  const { size, blockSize, read, zero } = writer;
  if (blockSize > largestBlock) {
    throw new TypeError(`an NBD export has blocks of at most ${largestBlock} bytes; this writer's are ${blockSize}`);
  }
  const turnstile = new Turnstile(writer.concurrency ?? 1);
  const settle = async (fua: boolean, signal: AbortSignal): Promise<void> => {
    if (fua) await writer.flush({ signal });
  };
  const write = (offset: number, data: Uint8Array, signal: AbortSignal): Promise<void> =>
    turnstile.pass(() => writer.write(offset, data, { signal }), signal);
  const get: NbdBackend["read"] = (offset, into, { signal }) => {
    if (read === undefined) throw Object.assign(new Error("this disk cannot be read"), { code: "ENOTSUP" });
    return turnstile.pass(() => read.call(writer, offset, into, { signal }), signal);
  };
  const clear = async (
    offset: number,
    length: number,
    { noHole, fua, signal }: { noHole: boolean; fua: boolean } & BackendWait,
  ): Promise<void> => {
    if (zero !== undefined && !noHole) {
      await turnstile.pass(() => zero.call(writer, offset, length, { signal }), signal);
    } else {
      for (let at = 0; at < length; at += zeroes.length) {
        await write(offset + at, zeroes.subarray(0, Math.min(zeroes.length, length - at)), signal);
      }
    }
    await settle(fua, signal);
  };
  return {
    size,
    blockSize,
    ...preferred(writer),
    multiConnection: true,
    read: get,
    async write(offset, data, { fua, signal }) {
      await write(offset, data, signal);
      await settle(fua, signal);
    },
    async zero(offset, length, { fast, ...options }) {
      // The contract does not say that zeroing is faster than writing, nor that it keeps space allocated.
      if (fast) throw new SlowZeroError();
      await clear(offset, length, options);
    },
    flush: ({ signal }) => writer.flush({ signal }),
    ...(read === undefined ? {} : { cache: cacheByReading(get) }),
    ...(zero === undefined
      ? {}
      : { trim: (offset, length, options) => clear(offset, length, { ...options, noHole: false }) }),
  };
}

/** NBD wants a power of two of at least 512 and of at least a block. */
function preferred(geometry: { preferredLength?: number; blockSize: number }): { preferredLength?: number } {
  const { preferredLength, blockSize } = geometry;
  if (preferredLength === undefined) return {};
  return {
    preferredLength: Math.max(512, Math.min(blockSize, largestBlock), 2 ** Math.floor(Math.log2(preferredLength))),
  };
}
