import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { copyInto } from "@diskferry/core/provider";
import { localError } from "../errors.ts";

/** How the compressed clusters of an image are compressed; one for the whole image. */
export type Qcow2Compression = "zlib" | "zstd";

/** Packs and unpacks single clusters. */
export interface ClusterCodec {
  compress(cluster: Uint8Array): Promise<Uint8Array>;
  /** Fills `into` from the start of `packed`, whose end may be followed by anything. Throws on damage. */
  decompress(packed: Uint8Array, into: Uint8Array): Promise<void>;
}

/** qcow2's deflate has a window of 2^12 bytes (qcow2 specification, "Compressed Clusters Descriptor"). */
const WINDOW_BITS = 12;
/** The levels qemu-img uses, so that images come out as large as its own. */
const DEFLATE_LEVEL = 6;
const ZSTD_LEVEL = 3;
const ZSTD_MAGIC = 0xfd2fb528;

const deflateRaw = promisify<Uint8Array, zlib.ZlibOptions, Buffer>(zlib.deflateRaw);
const inflateRaw = promisify<Uint8Array, zlib.ZlibOptions, Buffer>(zlib.inflateRaw);

/** Whether this Node has zstd: 22.15 and 23.8 were the first. */
export function hasZstd(): boolean {
  return typeof zlib.zstdCompressSync === "function";
}

/**
 * The codec of an image's compressed clusters. `immediate`: on the calling thread, right inside a worker; else on
 * libuv's threads. @throws ProviderError UNSUPPORTED for zstd on a Node without it.
 */
export function clusterCodec(
  type: Qcow2Compression,
  path: string,
  options: { immediate?: boolean; level?: number | undefined } = {},
): ClusterCodec {
  if (type === "zstd" && !hasZstd()) {
    throw localError(
      "UNSUPPORTED",
      `${path} is compressed with zstd, which Node ${process.version} lacks: use 22.15 or later`,
      {
        operation: "open",
      },
    );
  }
  return type === "zstd"
    ? zstdCodec(options.immediate === true, options.level)
    : zlibCodec(options.immediate === true, options.level);
}

function copyAll(from: Uint8Array, into: Uint8Array, at: number): number {
  if (from.byteLength > into.byteLength - at)
    throw new RangeError("more than one cluster came out of a compressed cluster");
  copyInto(into, from, at);
  return at + from.byteLength;
}

function zlibCodec(immediate: boolean, level: number = DEFLATE_LEVEL): ClusterCodec {
  return {
    async compress(cluster) {
      const options = { level, windowBits: WINDOW_BITS, chunkSize: cluster.byteLength };
      return immediate ? zlib.deflateRawSync(cluster, options) : deflateRaw(cluster, options);
    },
    async decompress(packed, into) {
      const options = {
        windowBits: WINDOW_BITS,
        chunkSize: Math.max(into.byteLength, 64),
        maxOutputLength: into.byteLength,
        finishFlush: zlib.constants.Z_SYNC_FLUSH,
      };
      const plain = immediate ? zlib.inflateRawSync(packed, options) : await inflateRaw(packed, options);
      if (copyAll(plain, into, 0) < into.byteLength) throw new RangeError("a compressed cluster ended early");
    },
  };
}

function zstdCodec(immediate: boolean, level: number = ZSTD_LEVEL): ClusterCodec {
  const compressAsync = promisify<Uint8Array, zlib.ZstdOptions, Buffer>(zlib.zstdCompress);
  const decompressAsync = promisify<Uint8Array, zlib.ZstdOptions, Buffer>(zlib.zstdDecompress);
  return {
    async compress(cluster) {
      const options = {
        params: { [zlib.constants.ZSTD_c_compressionLevel]: level },
        chunkSize: cluster.byteLength + 1024,
        pledgedSrcSize: cluster.byteLength,
      };
      return immediate ? zlib.zstdCompressSync(cluster, options) : compressAsync(cluster, options);
    },
    async decompress(packed, into) {
      let from = 0;
      let done = 0;
      while (done < into.byteLength) {
        const length = zstdFrameLength(packed.subarray(from));
        const frame = packed.subarray(from, from + length);
        const options = {
          chunkSize: Math.max(into.byteLength, 64),
          maxOutputLength: Math.max(into.byteLength - done, 1),
        };
        const plain = immediate ? zlib.zstdDecompressSync(frame, options) : await decompressAsync(frame, options);
        done = copyAll(plain, into, done);
        from += length;
      }
    },
  };
}

/**
 * How long the zstd frame is that `bytes` begin with (RFC 8878, section 3.1.1). Needed because a compressed cluster is
 * padded to a sector with anything, and Node's zstd takes what follows a frame for another one.
 */
export function zstdFrameLength(bytes: Uint8Array): number {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.byteLength < 6 || view.readUInt32LE(0) !== ZSTD_MAGIC) throw new RangeError("no zstd frame begins here");
  const descriptor = view[4]!;
  const single = (descriptor & 0x20) !== 0;
  const contentSize = [single ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
  const dictionary = [0, 1, 2, 4][descriptor & 3]!;
  let at = 5 + (single ? 0 : 1) + dictionary + contentSize;
  for (;;) {
    if (at + 3 > view.byteLength) throw new RangeError("a zstd frame is cut short");
    const block = view.readUIntLE(at, 3);
    const type = (block >>> 1) & 3;
    if (type === 3) throw new RangeError("a zstd block is of the reserved type");
    at += 3 + (type === 1 ? 1 : block >>> 3);
    if ((block & 1) !== 0) break;
  }
  at += (descriptor & 4) !== 0 ? 4 : 0;
  if (at > view.byteLength) throw new RangeError("a zstd frame is cut short");
  return at;
}
