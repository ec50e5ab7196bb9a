import type { BlockWriter, WriterLane } from "@diskferry/core/provider";
import type { Fence } from "./fence.ts";
import { checkGate, enterGate, leaveGate, shutGate } from "./write-gate.ts";
import type { WriteGate } from "./write-gate.ts";

/** What the lane of a gated writer is opened with. */
export interface GatedLaneData {
  gate: WriteGate;
  /** Name for people. */
  label: string;
  /** The writer's own lane. */
  inner: { module: string; data: unknown };
}

const laneModule = new URL(
  import.meta.url.endsWith(".ts") ? "./gated-writer-lane.ts" : "./gated-writer-lane.js",
  import.meta.url,
).href;

/**
 * A writer, which it takes over, whose every write in every lane asks the fence first and whose flushes count only while
 * no newer epoch has come. `closed` is called once after it was closed.
 */
export function gatedWriter(
  writer: BlockWriter,
  fence: Fence,
  label: string,
  closed: () => Promise<void>,
): BlockWriter {
  const { gate } = fence;
  const inner = writer.lane;
  let isClosed = false;

  async function guarded<T>(work: () => Promise<T>): Promise<T> {
    enterGate(gate, label);
    try {
      return await work();
    } finally {
      leaveGate(gate);
    }
  }

  const lane: WriterLane | undefined =
    inner === undefined
      ? undefined
      : {
          ...inner,
          module: laneModule,
          data: { gate, label, inner: { module: inner.module, data: inner.data } } satisfies GatedLaneData,
          ...(inner.merge === undefined ? {} : { merge: (note: unknown) => inner.merge?.(note) }),
        };
  const zero = writer.zero?.bind(writer);
  const read = writer.read?.bind(writer);
  return {
    size: writer.size,
    blockSize: writer.blockSize,
    concurrency: writer.concurrency ?? 1,
    ...(writer.preferredLength === undefined ? {} : { preferredLength: writer.preferredLength }),
    generation: writer.generation,
    ...(writer.blank === undefined ? {} : { blank: writer.blank }),
    ...(writer.digest === undefined ? {} : { digest: writer.digest }),
    ...(lane === undefined ? {} : { lane }),
    write: (offset, data, options) => guarded(() => writer.write(offset, data, options)),
    ...(zero === undefined ? {} : { zero: (offset, length, wait) => guarded(() => zero(offset, length, wait)) }),
    ...(read === undefined ? {} : { read: (offset, into, wait) => read(offset, into, wait) }),
    async flush(wait): Promise<void> {
      // Flushing writes tables, so it is a write as well.
      await guarded(() => writer.flush(wait));
      await fence.check();
      checkGate(gate, label);
    },
    async commit(request) {
      await fence.check();
      return guarded(() => writer.commit(request));
    },
    async abandon(wait): Promise<void> {
      await fence.check();
      await guarded(() => writer.abandon(wait));
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (isClosed) return;
      isClosed = true;
      await shutGate(gate, "closed");
      try {
        await writer[Symbol.asyncDispose]();
      } finally {
        await closed();
      }
    },
  };
}
