import * as path from "node:path";
import type { BlockReader, Lane, ReadOptions, Tile, TileKind, Wait } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { type ChainLayer, ChainContent, type OpenLayer, chainRun, closeLayers, openChain } from "./backing-chain.ts";
import { type ImageFiles, localFiles } from "./image-file.ts";
import { SECTOR } from "./qcow2-header.ts";

/** Part of a disk to list; bytes. Absent: all of it. */
export interface TileRange extends Wait {
  from?: number | undefined;
  to?: number | undefined;
}

/** Reads a qcow2 image and everything it stands on. */
export interface Qcow2Reader extends BlockReader {
  /** The files of the chain, the image itself first. */
  readonly chain: readonly ChainLayer[];
  /** What may be non-zero, over the whole chain: `changed` and `zero` tiles alone. */
  tiles(range?: TileRange): AsyncIterable<Tile>;
  /**
   * What the layers above `base` (a path of the chain, or how many layers lie above it) hold: `changed` or `zero` where
   * one of them says so, `unchanged` where the base shows through. Where the base has ended there are zeroes.
   * @throws RangeError when `base` is no layer of this chain.
   */
  tilesAbove(base: string | number, range?: TileRange): AsyncIterable<Tile>;
}

export interface Qcow2ReaderOptions extends Wait {
  /** Where files are opened. Default: this machine's; tests give their own. */
  files?: ImageFiles | undefined;
}

interface ReaderLaneData {
  path: string;
  identities: string[];
}

const LANE_MODULE: string = new URL(
  import.meta.url.endsWith(".ts") ? "./qcow2-reader-lane.ts" : "./qcow2-reader-lane.js",
  import.meta.url,
).href;
const PREFERRED_LENGTH = 1024 * 1024;
/** Tiles of one kind are joined up to this length, so that a listing is bounded work between two of them. */
const TILE_LIMIT = 2 ** 40;

/**
 * Opens a qcow2 image (version 2 or 3) with its backing chain for reading. Internal snapshots are ignored, dirty
 * refcounts are no obstacle.
 * @throws ProviderError NOT_FOUND, DENIED, CORRUPT, UNSUPPORTED (encryption, external data file, unknown features by
 * name, zstd where Node lacks it), each with the remedy.
 */
export async function openQcow2Reader(file: string, options: Qcow2ReaderOptions = {}): Promise<Qcow2Reader> {
  const layers = await openChain(file, { files: options.files ?? localFiles(), signal: options.signal });
  return new ChainReader(layers);
}

/** Opens the reader of a worker thread; `data` is what {@link Qcow2Reader}'s lane carries. */
export async function openReaderLane(data: unknown, wait: Wait = {}): Promise<BlockReader> {
  const { path: file, identities } = data as ReaderLaneData;
  const layers = await openChain(file, {
    files: localFiles({ immediate: true }),
    immediate: true,
    signal: wait.signal,
  });
  if (layers.map(({ layer }) => layer.identity).join() !== identities.join()) {
    await closeLayers(layers);
    throw localError("IN_USE", `the backing chain of ${file} was exchanged while it was read: begin the copy anew`, {
      operation: "open",
    });
  }
  return new ChainReader(layers);
}

class ChainReader implements Qcow2Reader {
  readonly size: number;
  readonly blockSize: number = SECTOR;
  readonly concurrency: number = 8;
  readonly preferredLength: number;
  readonly chain: readonly ChainLayer[];
  readonly lane: Lane;
  readonly #layers: OpenLayer[];
  readonly #content: ChainContent;
  #closed = false;

  constructor(layers: OpenLayer[]) {
    this.#layers = layers;
    this.#content = new ChainContent(layers);
    this.chain = layers.map(({ layer }) => layer);
    const top = this.chain[0]!;
    this.size = top.size;
    this.preferredLength = Math.max(PREFERRED_LENGTH, top.clusterSize ?? 0);
    const data: ReaderLaneData = { path: top.path, identities: this.chain.map(({ identity }) => identity) };
    this.lane = { module: LANE_MODULE, data };
  }

  async read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    if (offset < 0 || offset % SECTOR !== 0 || into.byteLength % SECTOR !== 0 || offset + into.byteLength > this.size) {
      throw new RangeError(`a read of ${into.byteLength} bytes at ${offset} does not fit a disk of ${this.size} bytes`);
    }
    await this.#content.read(0, offset, into, options.signal);
  }

  tiles(range: TileRange = {}): AsyncIterable<Tile> {
    return this.#tiles(this.#layers.length, range, "zero");
  }

  tilesAbove(base: string | number, range: TileRange = {}): AsyncIterable<Tile> {
    const depth = typeof base === "number" ? base : this.chain.findIndex((layer) => layer.path === path.resolve(base));
    if (!Number.isInteger(depth) || depth < 0 || depth >= this.chain.length) {
      throw new RangeError(`${base} is no layer of the chain of ${this.chain[0]!.path}`);
    }
    return this.#tiles(depth, range, "unchanged");
  }

  async *#tiles(depth: number, range: TileRange, hole: TileKind): AsyncGenerator<Tile> {
    const to = Math.min(range.to ?? this.size, this.size);
    const base = this.chain[depth];
    let offset = range.from ?? 0;
    let tile: Tile | undefined;
    while (offset < to) {
      range.signal?.throwIfAborted();
      // Holes end where the base does: beyond it the layers above read as zeroes, which is a change.
      const ended = base !== undefined && offset >= base.size;
      const limit = base !== undefined && !ended ? Math.min(to, roundUp(base.size)) - offset : to - offset;
      const run = await chainRun(this.#layers, 0, offset, limit, depth);
      const kind = run.kind === "hole" ? (ended ? "zero" : hole) : run.kind === "zero" ? "zero" : "changed";
      // A raw file may end inside a sector; tiles may not.
      const length = Math.min(roundUp(offset + run.length) - offset, to - offset);
      if (tile !== undefined && tile.kind === kind && tile.length + length <= TILE_LIMIT) {
        tile.length += length;
      } else {
        if (tile !== undefined) yield tile;
        tile = { offset, length, kind };
      }
      offset += length;
    }
    if (tile !== undefined) yield tile;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await closeLayers(this.#layers);
  }
}

function roundUp(value: number): number {
  return Math.ceil(value / SECTOR) * SECTOR;
}
