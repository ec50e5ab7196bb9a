import type { ClusterAllocator } from "./cluster-allocator.ts";
import type { ClusterCodec } from "./compression.ts";
import type { ImageFile } from "./image-file.ts";

/**
 * What guest clusters map to from now on: `count` of them from `guest` on, side by side from byte `host` of the file;
 * `packed` bytes at `host` for one compressed cluster (else 0); `host` ZEROES for clusters that read as zeroes.
 */
export type MappingRecorder = (guest: number, count: number, host: number, packed: number) => void;

/** In place of a host offset. */
export const ZEROES = -1;

/** Space for packed clusters is taken in batches that grow up to this, lest threads tear each other's apart. */
const BATCH_BYTES = 2 * 1024 * 1024;
/** Packed clusters that may share one cluster of the file, below what a 16-bit refcount counts. */
const SHARERS = 16384;

/**
 * Puts whole guest clusters into newly allocated clusters of the file; never over anything that is in use. One per
 * thread; calls do not overlap.
 */
export class ClusterWriter {
  readonly #file: ImageFile;
  readonly #clusterSize: number;
  readonly #allocator: ClusterAllocator;
  readonly #codec: ClusterCodec | undefined;
  #position = 0;
  #end = 0;
  #era = -1;
  #batch = 4;
  #sharers = 0;

  /** `codec`: compress, and store plainly what does not become smaller. */
  constructor(file: ImageFile, clusterSize: number, allocator: ClusterAllocator, codec: ClusterCodec | undefined) {
    this.#file = file;
    this.#clusterSize = clusterSize;
    this.#allocator = allocator;
    this.#codec = codec;
  }

  /** Writes `data`, whole clusters, and records where; nothing is recorded that was not written. */
  async write(guest: number, data: Uint8Array, record: MappingRecorder): Promise<void> {
    if (this.#codec === undefined) await this.#writePlain(guest, data, record);
    else await this.#writePacked(guest, data, record, this.#codec);
  }

  /** Gives back what was taken in advance, where that makes the file shorter. */
  giveBack(): void {
    if (this.#era !== this.#allocator.era) return;
    const first = Math.ceil(this.#position / this.#clusterSize);
    const count = this.#end / this.#clusterSize - first;
    if (count > 0 && this.#allocator.shrink(first, count)) this.#end = first * this.#clusterSize;
  }

  async #writePlain(guest: number, data: Uint8Array, record: MappingRecorder): Promise<void> {
    const size = this.#clusterSize;
    let done = 0;
    for (const { first, count } of this.#allocator.allocate(data.byteLength / size)) {
      await this.#file.write(data.subarray(done * size, (done + count) * size), first * size);
      record(guest + done, count, first * size, 0);
      done += count;
    }
  }

  async #writePacked(guest: number, data: Uint8Array, record: MappingRecorder, codec: ClusterCodec): Promise<void> {
    const size = this.#clusterSize;
    const clusters: Uint8Array[] = [];
    for (let at = 0; at < data.byteLength; at += size) clusters.push(data.subarray(at, at + size));
    const packed = await Promise.all(clusters.map((cluster) => codec.compress(cluster)));
    let pieces: { guest: number; host: number; bytes: Uint8Array }[] = [];
    const flush = async (): Promise<void> => {
      if (pieces.length === 0) return;
      await this.#file.write(Buffer.concat(pieces.map(({ bytes }) => bytes)), pieces[0]!.host);
      for (const piece of pieces) record(piece.guest, 1, piece.host, piece.bytes.byteLength);
      pieces = [];
    };
    for (const [index, bytes] of packed.entries()) {
      if (bytes.byteLength >= size) {
        await this.#writePlain(guest + index, clusters[index]!, record);
        continue;
      }
      const host = this.#place(bytes.byteLength);
      const last = pieces.at(-1);
      if (last !== undefined && last.host + last.bytes.byteLength !== host) await flush();
      pieces.push({ guest: guest + index, host, bytes });
    }
    await flush();
  }

  #place(length: number): number {
    const size = this.#clusterSize;
    const era = this.#allocator.era;
    if (era !== this.#era) {
      this.#era = era;
      this.#position = 0;
      this.#end = 0;
    }
    if (this.#sharers >= SHARERS) this.#position = Math.ceil(this.#position / size) * size;
    if (this.#position + length > this.#end) {
      const count = Math.max(2, Math.min(this.#batch, Math.ceil(BATCH_BYTES / size)));
      this.#batch = count * 2;
      const first = this.#allocator.contiguous(count) * size;
      if (first !== this.#end) this.#position = first;
      this.#end = first + count * size;
    }
    const host = this.#position;
    this.#position += length;
    this.#sharers = Math.floor(host / size) === Math.floor(this.#position / size) ? this.#sharers + 1 : 1;
    return host;
  }
}
