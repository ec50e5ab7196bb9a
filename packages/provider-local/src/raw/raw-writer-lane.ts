import { closeSync } from "node:fs";
import type { LaneWriter } from "@diskferry/core/provider";
import { openRaw } from "./raw-file.ts";
import { type RawWriterLaneData, checkRange, clearRange, writeFullySync } from "./raw-writer.ts";
import { enterGate, leaveGate } from "../fence/write-gate.ts";

/** Opens, in a worker thread, a writer to the same file; what it wrote becomes durable by the main writer's flush. */
export async function open(data: unknown): Promise<LaneWriter> {
  const { path, place, size, blockSize, gate } = data as RawWriterLaneData;
  const file = openRaw(path, { write: true, place, shared: true });
  let closed = false;

  /** Each write asks the gate that all threads share, so that a superseded run cannot write one byte more. */
  async function guarded(work: () => Promise<void> | void): Promise<void> {
    enterGate(gate, path);
    try {
      await work();
    } finally {
      leaveGate(gate);
    }
  }

  return {
    size,
    blockSize,
    async write(offset, bytes, wait): Promise<void> {
      wait?.signal?.throwIfAborted();
      checkRange(path, size, offset, bytes.byteLength);
      await guarded(() => writeFullySync(file.fd, path, offset, bytes));
    },
    async zero(offset, length, wait): Promise<void> {
      checkRange(path, size, offset, length);
      await guarded(() => clearRange(file.fd, path, offset, length, wait?.signal));
    },
    async settle(): Promise<undefined> {
      return undefined;
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      closeSync(file.fd);
    },
  };
}
