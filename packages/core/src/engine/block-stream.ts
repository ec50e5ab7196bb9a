import type { Extent, Tile } from "../provider/extents.ts";
import type { BlockReader } from "../provider/reader.ts";
import { ProviderError } from "../provider/error.ts";
import type { Call, Layer } from "../layers/layer.ts";
import { BlockPool, type PooledBlock } from "./block-pool.ts";
import { workOf, type ReadPiece, type WorkItem } from "./grid.ts";

/** A piece of a disk on its way. Dispose it when done: that recycles the buffer and lets the next block be read. */
export interface StreamBlock<Item extends Extent = WorkItem> extends Extent, Disposable {
  /** The bytes, valid until the block is disposed; null where the range reads as zeroes. */
  data: Uint8Array | null;
  item: Item;
}

const direct: Layer = (call, run) => run(call);

/**
 * Reads items of work through a reader, as many at once as there are `next()` calls under way: those calls are the
 * concurrency, the back-pressure and the memory bound. Blocks may come out of order, but every item comes once.
 */
export class BlockStream<Item extends WorkItem = WorkItem> implements AsyncIterableIterator<StreamBlock<Item>, void> {
  readonly #reader: BlockReader;
  readonly #items: AsyncIterator<Item, void>;
  readonly #pool: BlockPool;
  readonly #layer: Layer;
  readonly #signal: AbortSignal | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    reader: BlockReader,
    items: AsyncIterable<Item>,
    options: { pool: BlockPool; layer?: Layer; signal?: AbortSignal | undefined },
  ) {
    this.#reader = reader;
    this.#items = items[Symbol.asyncIterator]() as AsyncIterator<Item, void>;
    this.#pool = options.pool;
    this.#layer = options.layer ?? direct;
    this.#signal = options.signal;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next block. @throws ProviderError what the reader says, after the layer gave up. */
  next(): Promise<IteratorResult<StreamBlock<Item>, void>> {
    if (this.#reader.order !== "ascending") return this.#take();
    // One at a time and in the order of the items: a stream cannot go back.
    const mine = this.#turn.then(() => this.#take());
    this.#turn = mine.catch(() => {});
    return mine;
  }

  async return(): Promise<IteratorResult<StreamBlock<Item>, void>> {
    await this.#items.return?.();
    return { done: true, value: undefined };
  }

  async #take(): Promise<IteratorResult<StreamBlock<Item>, void>> {
    const next = await this.#items.next();
    if (next.done === true) return { done: true, value: undefined };
    const item = next.value;
    const { offset, length } = item;
    if (item.kind === "zero")
      return { done: false, value: { offset, length, data: null, item, [Symbol.dispose]() {} } };
    const block = await this.#pool.take(length, this.#signal);
    try {
      await this.#readAll(item, item.pieces ?? [{ offset, length }], block);
    } catch (error) {
      block[Symbol.dispose]();
      throw error;
    }
    return {
      done: false,
      value: { offset, length, data: block.data, item, [Symbol.dispose]: () => block[Symbol.dispose]() },
    };
  }

  /** Reads the pieces of an item, together where the reader serves any order and no two of them touch one of its blocks. */
  async #readAll(item: Item, pieces: readonly ReadPiece[], block: PooledBlock): Promise<void> {
    const { blockSize, order } = this.#reader;
    const isApart = pieces.every((piece, at) => at === pieces.length - 1 || isMultiple(piece, blockSize));
    if (pieces.length === 1 || order === "ascending" || !isApart) {
      for (const piece of pieces) await this.#read(item, piece, block);
      return;
    }
    // All of them, also when one failed: the block goes back to its pool afterwards.
    const outcomes = await Promise.allSettled(pieces.map((piece) => this.#read(item, piece, block)));
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  /** Reads one piece into the block. A read that does not let go of the block takes it out of use. */
  async #read(item: Item, piece: ReadPiece, block: PooledBlock): Promise<void> {
    const { offset } = piece;
    const { blockSize, size } = this.#reader;
    // Where the item ends inside one of the reader's blocks and its disk goes on, the rest of the block is read along:
    // the buffer has room for it, as an item never crosses a multiple of its pool's length.
    const end = Math.min(
      Math.ceil((offset + piece.length) / blockSize) * blockSize,
      Math.max(size, offset + piece.length),
    );
    const length = end - offset;
    const into = new Uint8Array(block.data.buffer, block.data.byteOffset + offset - item.offset, length);
    const call: Call = {
      method: "read",
      side: "source",
      offset,
      length,
      data: into,
      attempt: 1,
      signal: this.#signal ?? NEVER,
    };
    try {
      await this.#layer(call, ({ signal }) =>
        this.#reader.read(offset, into, piece.hint === undefined ? { signal } : { signal, hint: piece.hint }),
      );
    } catch (error) {
      if (call.unsettled !== undefined) block.forsake();
      throw error;
    }
  }
}

function isMultiple({ offset, length }: Extent, unit: number): boolean {
  return (offset + length) % unit === 0;
}

const NEVER = new AbortController().signal;

export interface BlockStreamOptions {
  /** Bytes of a block; a power of two and a multiple of the reader's block size. Default 1 MiB. */
  blockLength?: number;
  /** How many blocks may be out at once. Default 4. */
  blocks?: number;
  signal?: AbortSignal;
}

/**
 * The changed blocks of a disk as a stream, for tools that have a target of their own: tiles come from a tracker's
 * `changes` or from anything that tiles the disk; `unchanged` tiles give no block.
 */
export function blockStream(
  reader: BlockReader,
  tiles: AsyncIterable<Tile>,
  options: BlockStreamOptions = {},
): BlockStream {
  const itemLength = options.blockLength ?? 1 << 20;
  if (itemLength % reader.blockSize !== 0) {
    throw new ProviderError(
      "CONFIG_INVALID",
      `blockLength ${itemLength} is no multiple of the block size ${reader.blockSize}`,
    );
  }
  const items = workOf(tiles, { leaf: reader.blockSize, size: reader.size, itemLength, zeroLength: itemLength });
  return new BlockStream(reader, items, {
    pool: new BlockPool(options.blocks ?? 4, itemLength),
    signal: options.signal,
  });
}
