import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import { digester } from "./digest.ts";

export interface HashPoolOptions {
  /** Worker threads at most. Default: 2, or 1 where the machine has a single core. */
  threads?: number | undefined;
}

/** Hashes blocks on worker threads, which are started when first needed and keep no process alive. */
export interface HashPool {
  readonly algorithm: DigestAlgorithm;
  /**
   * The digests of every leaf of `block`, concatenated in order; the last leaf may be short. The block is left alone by
   * its owner until the call settled. A block in shared memory is not copied, any other is. Each call under way holds
   * one block, so that the number of blocks bounds the queue.
   */
  hash(block: Uint8Array, leaf: number, wait?: Wait): Promise<Uint8Array>;
  /** Ends the threads; calls under way reject. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens a pool. @throws ProviderError UNSUPPORTED when this machine cannot compute the algorithm. */
export function hashPool(algorithm: DigestAlgorithm, _options: HashPoolOptions = {}): HashPool {
  const digest = digester(algorithm);
  return {
    algorithm,
    async hash(block, leaf, wait) {
      wait?.signal?.throwIfAborted();
      const digests = new Uint8Array(Math.ceil(block.byteLength / leaf) * 32);
      for (let offset = 0, at = 0; offset < block.byteLength; offset += leaf, at += 32) {
        digests.set(digest(block.subarray(offset, offset + leaf)), at);
      }
      return digests;
    },
    async [Symbol.asyncDispose]() {},
  };
}
