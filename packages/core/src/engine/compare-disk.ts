import type { Extent, Tile } from "../provider/extents.ts";
import type { BlockReader } from "../provider/reader.ts";
import type { BlockWriter } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { Manifest } from "../manifest/manifest.ts";
import { attemptLayer, type AttemptPolicy } from "./attempts.ts";
import type { Batch } from "./copier.ts";
import { workOf } from "./grid.ts";
import type { Limits } from "./limits.ts";
import { Session } from "./session.ts";

export interface CompareRequest {
  openReader: (wait: Wait) => Promise<BlockReader>;
  manifest: Manifest;
  /** What to read, ascending and disjoint, on multiples of the leaf. */
  ranges: AsyncIterable<Extent> | Iterable<Extent>;
  workers: number | undefined;
  memory: number;
  attempts: AttemptPolicy;
  limits?: Limits | undefined;
  signal: AbortSignal;
  onProgress?: (bytes: number) => void;
}

export interface Comparison {
  /** Bytes read and compared. */
  bytes: number;
  /** Bytes that differ from the manifest. */
  different: number;
  /** Where, as far as {@link MOST_DIFFERENCES} go. */
  differences: Extent[];
}

export const MOST_DIFFERENCES = 1000;
const ITEM = 1 << 20;
const BATCH_BYTES = 8 << 20;
const BATCHES_UNDER_WAY = 16;

/** Reads ranges of a disk and compares their digests with a manifest's. */
export async function compareDisk(request: CompareRequest): Promise<Comparison> {
  const { manifest, signal } = request;
  const comparison: Comparison = { bytes: 0, different: 0, differences: [] };
  let opened: BlockReader | undefined;
  await attemptLayer(request.attempts)({ method: "open", side: "target", attempt: 1, signal }, async (call) => {
    opened = await request.openReader({ signal: call.signal });
  });
  const reader = opened!;
  const { leaf, size } = manifest;
  const itemLength = Math.max(leaf, Math.min(Math.max(reader.preferredLength ?? ITEM, ITEM), 4 * ITEM));
  await using session = new Session(
    {
      reader,
      reopen: request.openReader,
      writer: undefined,
      leaf,
      itemLength,
      algorithm: manifest.algorithm,
      workers: request.workers,
      memory: request.memory,
      attempts: request.attempts,
    },
    signal,
  );
  const underWay = new Set<Promise<void>>();
  let batch: Batch = { id: 1, items: [] };
  let bytes = 0;
  const send = async (): Promise<void> => {
    const mine = bytes;
    await request.limits?.pass(mine, { signal });
    const { result } = await session.dispatch(batch);
    const taking = result.then((done) => {
      comparison.bytes += done.read;
      comparison.different += done.different;
      for (let at = 0; at < done.differing.length && comparison.differences.length < MOST_DIFFERENCES; at += 2) {
        comparison.differences.push({ offset: done.differing[at]!, length: done.differing[at + 1]! });
      }
      underWay.delete(taking);
      request.onProgress?.(mine);
    });
    taking.catch(() => {});
    underWay.add(taking);
    batch = { id: batch.id + 1, items: [] };
    bytes = 0;
    if (underWay.size >= BATCHES_UNDER_WAY) await Promise.race(underWay);
  };
  for await (const item of workOf(changed(request.ranges), { leaf, size, itemLength, zeroLength: itemLength })) {
    const base = await manifest.digests(item.offset / leaf, Math.ceil(item.length / leaf), { signal });
    batch.items.push({ ...item, base, blank: false });
    bytes += item.length;
    if (bytes >= BATCH_BYTES) await send();
  }
  if (batch.items.length > 0) await send();
  await Promise.all(underWay);
  comparison.differences.sort((left, right) => left.offset - right.offset);
  return comparison;
}

/** Tiles for ranges that need not be contiguous: the work's grid takes any that ascend. */
async function* changed(ranges: AsyncIterable<Extent> | Iterable<Extent>): AsyncGenerator<Tile, void> {
  for await (const { offset, length } of ranges) yield { offset, length, kind: "changed" };
}

/** A writer that reads back, as a reader. It does not close the writer. */
export function readerOfWriter(writer: BlockWriter): BlockReader | undefined {
  const { read } = writer;
  if (read === undefined) return undefined;
  const reader: BlockReader = {
    size: writer.size,
    blockSize: writer.blockSize,
    read: (offset, into, options) => read.call(writer, offset, into, options),
    async [Symbol.asyncDispose]() {},
  };
  return writer.concurrency === undefined ? reader : Object.assign(reader, { concurrency: writer.concurrency });
}
