import type { LaneWriter } from "@diskferry/core/provider";

/** The writer of a target that throws everything away, in a worker thread. */
export function open(data: unknown): Promise<LaneWriter> {
  const { size } = data as { size: number };
  return Promise.resolve({
    size,
    blockSize: 512,
    concurrency: 1,
    write: () => Promise.resolve(),
    zero: () => Promise.resolve(),
    settle: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
}
