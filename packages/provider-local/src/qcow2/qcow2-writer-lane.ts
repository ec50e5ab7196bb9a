import type { LaneWriter, Wait } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { ClusterAllocator } from "./cluster-allocator.ts";
import { ClusterWriter, ZEROES } from "./cluster-writer.ts";
import { type Qcow2Compression, clusterCodec } from "./compression.ts";
import { type ImageFile, type ImageFiles, localFiles } from "./image-file.ts";

/** What a worker thread needs to write clusters of an image that another thread keeps the tables of. */
export interface WriterLaneData {
  path: string;
  identity: string;
  size: number;
  clusterSize: number;
  preferredLength: number;
  /** Of the {@link ClusterAllocator} that all threads share. */
  allocation: SharedArrayBuffer;
  compress: { type: Qcow2Compression; level?: number | undefined } | undefined;
}

/** Four numbers for each run that was written since the last settling: guest cluster, count, host, packed. */
export interface WriterLaneNote {
  runs: number[];
}

/** A lane that was never settled has seen no flush for this many runs: whoever drives it has lost its way. */
const RUN_LIMIT = 4 * 1024 * 1024;

/** Opens, in a worker thread, a writer of whole clusters beside the main writer of the same image. */
export async function open(data: unknown, wait: Wait & { files?: ImageFiles } = {}): Promise<LaneWriter> {
  wait.signal?.throwIfAborted();
  const facts = data as WriterLaneData;
  const file = await (wait.files ?? localFiles({ immediate: true })).open(facts.path, "write");
  if ((await file.identity()) !== facts.identity) {
    await file.close();
    throw localError("IN_USE", `${facts.path} was exchanged while it was written: begin the copy anew`, {
      operation: "open",
    });
  }
  return new ClusterLane(facts, file);
}

class ClusterLane implements LaneWriter {
  readonly size: number;
  readonly blockSize: number;
  readonly preferredLength: number;
  readonly #file: ImageFile;
  readonly #writer: ClusterWriter;
  #runs: number[] = [];
  #closed = false;

  constructor(data: WriterLaneData, file: ImageFile) {
    this.size = data.size;
    this.blockSize = data.clusterSize;
    this.preferredLength = data.preferredLength;
    this.#file = file;
    const { compress } = data;
    const codec =
      compress === undefined
        ? undefined
        : clusterCodec(compress.type, data.path, { immediate: true, level: compress.level });
    this.#writer = new ClusterWriter(file, data.clusterSize, new ClusterAllocator(data.allocation), codec);
  }

  #check(offset: number, length: number): void {
    const end = offset + length;
    if (
      offset % this.blockSize !== 0 ||
      offset < 0 ||
      end > this.size ||
      (end % this.blockSize !== 0 && end !== this.size)
    ) {
      throw new RangeError(`a lane writes whole clusters of ${this.blockSize} bytes, not ${length} bytes at ${offset}`);
    }
    if (this.#runs.length >= RUN_LIMIT * 4) throw new RangeError("a lane must be settled before it can write on");
  }

  #record(guest: number, count: number, host: number, packed: number): void {
    const runs = this.#runs;
    const last = runs.length - 4;
    if (last >= 0 && packed === 0 && runs[last + 3] === 0 && runs[last]! + runs[last + 1]! === guest) {
      const before = runs[last + 2]!;
      if (
        host === ZEROES ? before === ZEROES : before !== ZEROES && before + runs[last + 1]! * this.blockSize === host
      ) {
        runs[last + 1]! += count;
        return;
      }
    }
    runs.push(guest, count, host, packed);
  }

  async write(offset: number, data: Uint8Array, wait: Wait = {}): Promise<void> {
    wait.signal?.throwIfAborted();
    this.#check(offset, data.byteLength);
    const record = this.#record.bind(this);
    const guest = offset / this.blockSize;
    const rest = data.byteLength % this.blockSize;
    if (data.byteLength > rest) await this.#writer.write(guest, data.subarray(0, data.byteLength - rest), record);
    if (rest === 0) return;
    // The disk ends inside its last cluster.
    const last = new Uint8Array(this.blockSize);
    last.set(data.subarray(data.byteLength - rest));
    await this.#writer.write(guest + (data.byteLength - rest) / this.blockSize, last, record);
  }

  async zero(offset: number, length: number, wait: Wait = {}): Promise<void> {
    wait.signal?.throwIfAborted();
    this.#check(offset, length);
    if (length > 0) this.#record(offset / this.blockSize, Math.ceil(length / this.blockSize), ZEROES, 0);
  }

  async settle(): Promise<unknown> {
    const note: WriterLaneNote = { runs: this.#runs };
    this.#runs = [];
    this.#writer.giveBack();
    return note;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }
}
