import type { BlockReader } from "./reader.ts";
import type { Wait } from "./wait.ts";
import type { Geometry } from "./geometry.ts";
import type { WriteOptions } from "./target.ts";

/**
 * How a worker thread opens its own reader or writer: it imports `module` and calls its export `open` with `data`.
 * A lane's reader or writer is equal to the one that named it and lives no longer than that one.
 */
export interface Lane {
  /** A `file:` URL of a module, normally `new URL("./….js", import.meta.url).href`. */
  readonly module: string;
  /** How many lanes may be open at once. Absent: as many as core likes. */
  readonly limit?: number;
  /**
   * What passes through costs more than its way: compression, encryption. Threads are worth their start then, even where
   * cores are few. Absent: bytes are only passed on.
   */
  readonly demanding?: true;
  /** Given to the module's `open`; anything `postMessage` can carry, shared memory included. */
  readonly data: unknown;
}

/** What a reader's lane module exports. */
export interface ReaderLaneModule {
  open(data: unknown, wait?: Wait): Promise<BlockReader>;
}

/**
 * A writer inside a worker thread. It has no `flush`: `settle` hands over what the main writer must know to flush
 * (an allocation, a list of written clusters), and its `flush` then covers the writes of every lane that settled.
 */
export interface LaneWriter extends Geometry {
  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void>;
  zero?(offset: number, length: number, wait?: Wait): Promise<void>;
  /**
   * Covers every write that settled before; others may be under way. Resolves with a note for `WriterLane.merge`, of
   * anything `postMessage` can carry. A writer whose sessions are flushed one by one flushes its own here.
   */
  settle(wait?: Wait): Promise<unknown>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a writer's lane module exports. */
export interface WriterLaneModule {
  open(data: unknown, wait?: Wait): Promise<LaneWriter>;
}

/** A writer's lanes: `merge` takes each lane's note before the main writer's `flush`. */
export interface WriterLane extends Lane {
  merge?(note: unknown): void;
}
