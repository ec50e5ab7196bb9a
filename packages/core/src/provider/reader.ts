import type { Geometry } from "./geometry.ts";
import type { Lane } from "./lane.ts";
import type { Wait } from "./wait.ts";

/** The algorithms of digests that core knows. */
export type DigestAlgorithm = "blake3" | "sha256";

export interface ReadOptions extends Wait {
  /** The hint of the tile this read lies in, when the tracker gave one. */
  hint?: unknown;
}

/** Reads one disk of a snapshot. */
export interface BlockReader extends Geometry {
  /** `ascending`: offsets of successive reads only grow, one read at a time (a stream). Default `any`. */
  readonly order?: "any" | "ascending";
  /**
   * Fills all of `into` from `offset`, or rejects. `offset` and `into.byteLength` are multiples of `blockSize`, except
   * where the disk ends. The caller owns `into` before and after the call.
   */
  read(offset: number, into: Uint8Array, options?: ReadOptions): Promise<void>;
  /**
   * Digests computed at the far side, one per leaf, concatenated in order. Absent: core reads and hashes.
   * @throws ProviderError UNSUPPORTED for an algorithm or leaf it does not compute; core then reads and hashes too.
   */
  digests?(
    offset: number,
    length: number,
    options: { algorithm: DigestAlgorithm; leaf: number } & Wait,
  ): Promise<Uint8Array>;
  /** How a worker thread opens a reader equal to this one. Absent: reads happen on the calling thread. */
  readonly lane?: Lane;
  [Symbol.asyncDispose](): Promise<void>;
}
