import type { LaneWriter, Wait, WriterLaneModule } from "@diskferry/core/provider";
import type { GatedLaneData } from "./gated-writer.ts";
import { enterGate, leaveGate } from "./write-gate.ts";

/** Opens, in a worker thread, a writer whose every write asks the gate that all lanes share. */
export async function open(data: unknown, wait?: Wait): Promise<LaneWriter> {
  const { gate, label, inner } = data as GatedLaneData;
  const module = (await import(inner.module)) as WriterLaneModule;
  const writer = await module.open(inner.data, wait);
  const zero = writer.zero?.bind(writer);

  async function guarded<T>(work: () => Promise<T>): Promise<T> {
    enterGate(gate, label);
    try {
      return await work();
    } finally {
      leaveGate(gate);
    }
  }

  return {
    size: writer.size,
    blockSize: writer.blockSize,
    ...(writer.concurrency === undefined ? {} : { concurrency: writer.concurrency }),
    ...(writer.preferredLength === undefined ? {} : { preferredLength: writer.preferredLength }),
    write: (offset, bytes, options) => guarded(() => writer.write(offset, bytes, options)),
    ...(zero === undefined
      ? {}
      : { zero: (offset: number, length: number, options?: Wait) => guarded(() => zero(offset, length, options)) }),
    settle: (options) => guarded(() => writer.settle(options)),
    [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
  };
}
