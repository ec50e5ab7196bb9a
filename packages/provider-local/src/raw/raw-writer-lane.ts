import { closeSync } from "node:fs";
import type { LaneWriter } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import { DirectFile, isAllZero } from "./direct-file.ts";
import { openRaw } from "./raw-file.ts";
import { type RawWriterLaneData, checkRange, clearRange, readFullySync, writeFullySync } from "./raw-writer.ts";
import { enterGate, leaveGate } from "../fence/write-gate.ts";

/** Opens, in a worker thread, a writer to the same file; what it wrote becomes durable by the main writer's flush. */
export async function open(data: unknown): Promise<LaneWriter> {
  const { path, place, size, blockSize, gate } = data as RawWriterLaneData;
  const file = openRaw(path, { write: true, place, shared: true });
  const direct = DirectFile.open(file);
  let closed = false;

  /** Each write asks the gate that all threads share, so that a superseded run cannot write one byte more. */
  async function guarded(operation: string, work: () => Promise<void>): Promise<void> {
    enterGate(gate, path);
    try {
      await work();
    } catch (error) {
      throw translate(error, operation, path);
    } finally {
      leaveGate(gate);
    }
  }

  /** Something else may have been opened under the number of a closed descriptor. */
  function checkOpen(): void {
    if (!closed) return;
    throw localError("UNEXPECTED", `${path} was written to after it had been closed`, { operation: "write" });
  }

  async function put(offset: number, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const done = direct?.takes(offset, bytes) === true ? await direct.write(offset, bytes) : 0;
    if (done === bytes.byteLength) return;
    signal?.throwIfAborted();
    checkOpen();
    writeFullySync(file.fd, offset + done, bytes.subarray(done));
  }

  async function isZero(offset: number, length: number): Promise<boolean> {
    const seen = await direct?.isZero(offset, length);
    if (seen !== undefined) return seen;
    checkOpen();
    const bytes = new Uint8Array(length);
    readFullySync(file.fd, path, offset, bytes);
    return isAllZero(bytes);
  }

  return {
    size,
    blockSize,
    async write(offset, bytes, wait): Promise<void> {
      wait?.signal?.throwIfAborted();
      checkRange(path, size, offset, bytes.byteLength);
      await guarded("writing", () => put(offset, bytes, wait?.signal));
    },
    async zero(offset, length, wait): Promise<void> {
      checkRange(path, size, offset, length);
      const signal = wait?.signal;
      await guarded("clearing", () =>
        clearRange({ isZero, write: (at, bytes) => put(at, bytes, signal) }, offset, length, signal),
      );
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
