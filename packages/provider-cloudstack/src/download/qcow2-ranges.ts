import { promisify } from "node:util";
import { constants, inflateRaw } from "node:zlib";
import type { Wait } from "@diskferry/core/provider";
import { unlessAborted } from "../client/unless-aborted.ts";
import { cloudstackError } from "../errors.ts";
import type { ByteRanges } from "./ranged-file.ts";

const MAGIC = 0x514649fb;
const HEADER = 112;
/** Incompatible features (qcow2 specification, "Header"). Dirty reference counts are nothing to a reader. */
const FEATURE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n } as const;
const COMPRESSED = 1n << 62n;
const OFFSET = 0x00fffffffffffe00n;
/** qemu's limit of a first-level table, in bytes. */
const LARGEST_L1 = 32 * 2 ** 20;
/** Bytes of second-level tables that are kept. */
const KEPT_TABLES = 16 * 2 ** 20;
/** Bytes that one request asks for at most. */
const LONGEST_RUN = 16 * 2 ** 20;

const inflate = promisify<Uint8Array, { finishFlush: number; maxOutputLength: number }, Buffer>(inflateRaw);

/** A stretch of the disk: where its bytes lie in the file, or what stands for them. */
type Piece =
  | { kind: "zero"; length: number }
  | { kind: "plain"; at: number; length: number }
  | { kind: "packed"; at: number; packed: number; skip: number; length: number };

/**
 * Opens a qcow2 image of version 2 or 3 that stands alone. What it does not know is refused: a backing file, encryption, an
 * external data file, extended second-level entries, compression other than zlib.
 * @returns the disk in it @throws ProviderError CORRUPT, UNSUPPORTED
 */
export async function openQcow2(file: ByteRanges, object: string, wait: Wait = {}): Promise<ByteRanges> {
  const damaged = (what: string): Error =>
    cloudstackError("CORRUPT", `The image of ${object} is no qcow2 image that can be read: ${what}.`, {
      operation: "download",
    });
  const refused = (what: string): Error =>
    cloudstackError("UNSUPPORTED", `The image of ${object} ${what}. Set source.read to "appliance".`, {
      operation: "download",
    });
  const inside = (at: number, length: number, what: string): void => {
    if (!Number.isSafeInteger(at) || at + length > file.length)
      throw damaged(`it ends at byte ${file.length}, before the end of ${what} at ${at}+${length}`);
  };

  const head = Buffer.alloc(HEADER);
  await file.read(0, head.subarray(0, Math.min(HEADER, file.length)), wait);
  if (file.length < 72 || head.readUInt32BE(0) !== MAGIC) throw damaged("it has not the header of one");
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw refused(`has version ${version}`);
  if (head.readBigUInt64BE(8) !== 0n) throw refused("stands on another file, which is never opened");
  const bits = head.readUInt32BE(20);
  if (bits < 9 || bits > 21) throw damaged(`its clusters have 2^${bits} bytes`);
  if (head.readUInt32BE(32) !== 0) throw refused("is encrypted");
  const cluster = 2 ** bits;
  const size = Number(head.readBigUInt64BE(24));
  if (!Number.isSafeInteger(size)) throw damaged(`its disk has ${size} bytes`);
  if (version === 3) {
    const features = head.readBigUInt64BE(72);
    if ((features & FEATURE.corrupt) !== 0n) throw damaged("it is marked as corrupt");
    if ((features & FEATURE.dataFile) !== 0n) throw refused("keeps its data in another file");
    if ((features & FEATURE.extendedL2) !== 0n) throw refused("has subclusters");
    if ((features & FEATURE.compression) !== 0n && head.readUInt32BE(100) > 104 && head[104] !== 0)
      throw refused("is compressed otherwise than with zlib");
    if (features >= 32n) throw refused(`has features that are not known (0x${features.toString(16)})`);
  }
  const perTable = cluster / 8;
  const entries = head.readUInt32BE(36);
  const needed = Math.ceil(Math.ceil(size / cluster) / perTable);
  if (entries < needed) throw damaged(`its first table has ${entries} entries and ${needed} are needed`);
  if (needed * 8 > LARGEST_L1) throw damaged(`its first table has ${needed} entries`);
  const l1 = Buffer.alloc(needed * 8);
  const l1At = Number(head.readBigUInt64BE(40));
  inside(l1At, l1.byteLength, "its first table");
  await file.read(l1At, l1, wait);

  const tables = new Map<number, Promise<Buffer>>();
  const most = Math.max(2, Math.floor(KEPT_TABLES / cluster));
  const table = (at: number): Promise<Buffer> => {
    const known = tables.get(at);
    if (known !== undefined) {
      tables.delete(at);
      tables.set(at, known);
      return known;
    }
    inside(at, cluster, "a table");
    const bytes = Buffer.alloc(cluster);
    // Without the caller's signal: others wait for the same table.
    const reading = file.read(at, bytes).then(() => bytes);
    tables.set(at, reading);
    reading.catch(() => tables.delete(at));
    for (const oldest of tables.keys()) {
      if (tables.size <= most) break;
      tables.delete(oldest);
    }
    return reading;
  };

  const aligned = (word: bigint, what: string): number => {
    const at = Number(word & OFFSET);
    if (at % cluster !== 0) throw damaged(`${what} at ${at} begins inside a cluster`);
    return at;
  };

  const pieceAt = async (offset: number, length: number, { signal }: Wait): Promise<Piece> => {
    const index = Math.floor(offset / cluster);
    const tableAt = aligned(l1.readBigUInt64BE(Math.floor(index / perTable) * 8), "a table");
    if (tableAt === 0) return { kind: "zero", length };
    const word = (await unlessAborted(table(tableAt), signal)).readBigUInt64BE((index % perTable) * 8);
    const skip = offset % cluster;
    if ((word & COMPRESSED) !== 0n) {
      // "Compressed Clusters Descriptor": the offset's low bits, then how many more sectors are touched.
      const shift = BigInt(62 - (bits - 8));
      const at = Number(word & ((1n << shift) - 1n));
      const sectors = Number((word & (COMPRESSED - 1n)) >> shift) + 1;
      if (at >= file.length) throw damaged(`a compressed cluster lies at ${at}, beyond its end`);
      return { kind: "packed", at, packed: Math.min(sectors * 512 - (at % 512), file.length - at), skip, length };
    }
    if (version === 3 && (word & 1n) === 1n) return { kind: "zero", length };
    const at = aligned(word, "a cluster");
    if (at === 0) return { kind: "zero", length };
    inside(at, skip + length, "a cluster");
    return { kind: "plain", at: at + skip, length };
  };

  const unpack = async (piece: Piece & { kind: "packed" }, into: Uint8Array, signal: Wait): Promise<void> => {
    const packed = Buffer.alloc(piece.packed);
    await file.read(piece.at, packed, signal);
    let whole: Buffer;
    try {
      whole = await inflate(packed, { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: cluster });
    } catch (error) {
      throw cloudstackError("CORRUPT", `A compressed cluster of the image of ${object} cannot be unpacked.`, {
        operation: "download",
        cause: error,
      });
    }
    if (whole.byteLength !== cluster) throw damaged(`a compressed cluster holds ${whole.byteLength} bytes`);
    into.set(whole.subarray(piece.skip, piece.skip + piece.length));
  };

  return {
    length: size,
    async read(offset, into, { signal } = {}) {
      if (offset + into.byteLength > size)
        throw new RangeError(`${offset}+${into.byteLength} is outside of the ${size} bytes of ${object}`);
      let run: { at: number; from: number; length: number } | undefined;
      const flush = async (): Promise<void> => {
        if (run !== undefined) await file.read(run.at, into.subarray(run.from, run.from + run.length), { signal });
        run = undefined;
      };
      for (let done = 0; done < into.byteLength;) {
        signal?.throwIfAborted();
        const position = offset + done;
        const piece = await pieceAt(position, Math.min(cluster - (position % cluster), into.byteLength - done), {
          signal,
        });
        const follows = piece.kind === "plain" && run !== undefined && run.at + run.length === piece.at;
        if (piece.kind === "plain" && run !== undefined && follows && run.length + piece.length <= LONGEST_RUN) {
          run.length += piece.length;
        } else {
          await flush();
          if (piece.kind === "zero") into.fill(0, done, done + piece.length);
          if (piece.kind === "packed") await unpack(piece, into.subarray(done), { signal });
          if (piece.kind === "plain") run = { at: piece.at, from: done, length: piece.length };
        }
        done += piece.length;
      }
      await flush();
    },
  };
}
