import type { FileHandle } from "node:fs/promises";
import type { BlockWriter, Volume, Wait } from "@diskferry/core/provider";
import {
  type AttachedVolume,
  deviceError,
  type DeviceRoots,
  findAttachedDevice,
  openFoundDevice,
} from "./attached-device.ts";

/** Writes at once: more do not make an EBS volume faster from one process. */
const CONCURRENCY = 8;
/** What EBS serves best in one operation (EBS, "I/O characteristics": SSD volumes merge up to 256 KiB). */
const PREFERRED = 1024 * 1024;

/** A run that writes a volume in place. */
export interface DeviceRun extends AttachedVolume, Wait {
  run: string;
}

/**
 * Opens a volume that is attached to the instance this runs on, to be written in place through its block device. What is
 * written is durable at the next flush. The volume is never blank: core clears every gap.
 * @throws ProviderError NOT_FOUND, CONFIG_INVALID, IN_USE, DENIED, UNSUPPORTED; nothing was written then
 */
export async function openAttachedVolume(request: DeviceRun, roots?: DeviceRoots): Promise<BlockWriter> {
  const { signal, volumeId, run } = request;
  signal?.throwIfAborted();
  const found = await findAttachedDevice(request, roots);
  const file = await openFoundDevice(found, roots);
  const volume: Volume = { id: volumeId, size: found.size };
  let open: FileHandle | undefined = file;

  const within = (offset: number, length: number): FileHandle => {
    if (open === undefined) throw new TypeError(`the writer of ${volumeId} was disposed: open the run again`);
    if (offset % found.blockSize !== 0 || length % found.blockSize !== 0 || offset < 0 || offset + length > found.size)
      throw new RangeError(
        `${offset}+${length} is no range of whole blocks within the ${found.size} bytes of ${volumeId}`,
      );
    return open;
  };

  return {
    size: found.size,
    blockSize: found.blockSize,
    concurrency: CONCURRENCY,
    preferredLength: PREFERRED,
    generation: `${volumeId}/${run}`,
    async write(offset, data, options = {}) {
      options.signal?.throwIfAborted();
      const device = within(offset, data.byteLength);
      for (let done = 0; done < data.byteLength;) {
        const { bytesWritten } = await device.write(data, done, data.byteLength - done, offset + done);
        if (bytesWritten === 0)
          throw deviceError("UNAVAILABLE", `${found.path} took no more bytes at ${offset + done}.`);
        done += bytesWritten;
      }
      options.signal?.throwIfAborted();
    },
    async read(offset, into, wait = {}) {
      wait.signal?.throwIfAborted();
      const device = within(offset, into.byteLength);
      for (let done = 0; done < into.byteLength;) {
        const { bytesRead } = await device.read(into, done, into.byteLength - done, offset + done);
        if (bytesRead === 0) throw deviceError("UNAVAILABLE", `${found.path} ended at ${offset + done}.`);
        done += bytesRead;
      }
      wait.signal?.throwIfAborted();
    },
    async flush(wait = {}) {
      wait.signal?.throwIfAborted();
      await within(0, 0).datasync();
    },
    async commit({ written, signal: stop }) {
      stop?.throwIfAborted();
      // In place every byte is where it belongs already; the listing is read to its end all the same, for its errors.
      for await (const { offset, length } of written) within(offset, length);
      await within(0, 0).datasync();
      return volume;
    },
    // In place there is nothing to give back: the next run writes over it.
    abandon: (wait = {}) => (wait.signal?.aborted === true ? Promise.reject(wait.signal.reason) : Promise.resolve()),
    async [Symbol.asyncDispose]() {
      const device = open;
      open = undefined;
      await device?.close();
    },
  };
}
