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

/** Where a stream's items come from. */
export interface ItemSource<Item> {
  /** The next item, at once where there is one; undefined: there are no more. */
  next(): Item | undefined | Promise<Item | undefined>;
  /** Nobody asks for more. */
  end?(): Promise<unknown>;
}

/**
 * Reads items of work through a reader, as many at once as there are `next()` calls under way: those calls are the
 * concurrency, the back-pressure and the memory bound. Blocks may come out of order, but every item comes once.
 */
export class BlockStream<Item extends WorkItem = WorkItem> implements AsyncIterableIterator<StreamBlock<Item>, void> {
  readonly #reader: BlockReader;
  readonly #items: ItemSource<Item>;
  readonly #pool: BlockPool;
  readonly #layer: Layer;
  readonly #signal: AbortSignal | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    reader: BlockReader,
    items: ItemSource<Item>,
    options: { pool: BlockPool; layer?: Layer; signal?: AbortSignal | undefined },
  ) {
    this.#reader = reader;
    this.#items = items;
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
    await this.#items.end?.();
    return { done: true, value: undefined };
  }

  // Waits only for what is not there yet: this runs for every MiB.
  async #take(): Promise<IteratorResult<StreamBlock<Item>, void>> {
    const next = this.#items.next();
    const item = next instanceof Promise ? await next : next;
    if (item === undefined) return { done: true, value: undefined };
    if (item.kind === "zero") return { done: false, value: new ItemBlock(item, undefined) };
    const lent = this.#pool.take(item.length, this.#signal);
    const block = lent instanceof Promise ? await lent : lent;
    try {
      if (item.pieces === undefined) await this.#read(item, item, block);
      else await this.#readAll(item, item.pieces, block);
    } catch (error) {
      block[Symbol.dispose]();
      throw error;
    }
    return { done: false, value: new ItemBlock(item, block) };
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

class ItemBlock<Item extends Extent> implements StreamBlock<Item> {
  readonly offset: number;
  readonly length: number;
  readonly data: Uint8Array | null;
  readonly item: Item;
  readonly #block: PooledBlock | undefined;

  constructor(item: Item, block: PooledBlock | undefined) {
    this.offset = item.offset;
    this.length = item.length;
    this.data = block?.data ?? null;
    this.item = item;
    this.#block = block;
  }

  [Symbol.dispose](): void {
    this.#block?.[Symbol.dispose]();
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
  const source: ItemSource<WorkItem> = {
    async next() {
      const next = await items.next();
      return next.done === true ? undefined : next.value;
    },
    end: () => items.return(),
  };
  return new BlockStream(reader, source, {
    pool: new BlockPool(options.blocks ?? 4, itemLength),
    signal: options.signal,
  });
}
