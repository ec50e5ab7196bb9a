import type { BlockWriter, OwnedResource, TargetProvider, Volume } from "@diskferry/core/provider";

const laneFile = import.meta.url.endsWith(".ts") ? "./null-target-lane.ts" : "./null-target-lane.js";
const lane = { module: new URL(laneFile, import.meta.url).href };

/** A target that throws everything away, like nbdcopy's `null:`. For measuring how fast a source is read. */
export function nullTarget(): TargetProvider {
  return {
    fences: true,
    create: ({ key, size }) => Promise.resolve({ id: key, size }),
    open: (volume) => Promise.resolve(nullWriter(volume)),
    remove: () => Promise.resolve(),
    async *owned(): AsyncGenerator<OwnedResource, void> {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function nullWriter(volume: Volume): BlockWriter {
  const { size } = volume;
  return {
    size,
    blockSize: 512,
    concurrency: 1,
    generation: "null",
    blank: true,
    lane: { ...lane, data: { size } },
    write: () => Promise.resolve(),
    zero: () => Promise.resolve(),
    flush: () => Promise.resolve(),
    async commit({ written }): Promise<Volume> {
      for await (const _ of written);
      return volume;
    },
    abandon: () => Promise.resolve(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
