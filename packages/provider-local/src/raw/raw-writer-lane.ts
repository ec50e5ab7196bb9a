import { closeSync } from "node:fs";
import type { LaneWriter } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { DirectWrites } from "./direct-writes.ts";
import { openRaw } from "./raw-file.ts";
import { type RawWriterLaneData, checkRange, clearRange, writeFullySync } from "./raw-writer.ts";
import { enterGate, leaveGate } from "../fence/write-gate.ts";

/** Opens, in a worker thread, a writer to the same file; what it wrote becomes durable by the main writer's flush. */
export async function open(data: unknown): Promise<LaneWriter> {
  const { path, place, size, blockSize, gate } = data as RawWriterLaneData;
  const file = openRaw(path, { write: true, place, shared: true });
  const direct = DirectWrites.open(file);
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
      await guarded(async () => {
        const done = direct?.takes(offset, bytes) === true ? await direct.write(offset, bytes) : 0;
        if (done === bytes.byteLength) return;
        wait?.signal?.throwIfAborted();
        if (closed)
          throw localError("UNEXPECTED", `${path} was written to after it had been closed`, { operation: "write" });
        writeFullySync(file.fd, path, offset + done, bytes.subarray(done));
      });
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
      direct?.close();
      closeSync(file.fd);
    },
  };
}
