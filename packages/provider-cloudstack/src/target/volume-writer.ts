import type { BlockWriter, Volume, Wait } from "@diskferry/core/provider";
import type { Share } from "./holdings.ts";

/**
 * Writes an attached volume in place. It is never blank: what new volumes hold depends on the pool (thick LVM shows what
 * was there before), so core clears every gap, and what reads as zeroes already is left unwritten.
 */
export function volumeWriter(share: Share, volume: Volume, generation: string): BlockWriter {
  const { volume: open } = share;
  let committed: Volume | undefined;
  return {
    size: open.size,
    blockSize: open.blockSize,
    concurrency: open.concurrency,
    preferredLength: open.preferredLength,
    generation,
    write: (offset, data, options = {}) => open.write(offset, data, options),
    zero: (offset, length, wait = {}) => open.zero(offset, length, wait),
    read: (offset, into, wait = {}) => open.read(offset, into, wait),
    async flush(wait: Wait = {}) {
      wait.signal?.throwIfAborted();
      await open.flush(wait);
      // Durable, and of a writer that was not cut off meanwhile by somebody on another machine.
      await share.check(wait);
    },
    async commit({ written, signal }) {
      signal?.throwIfAborted();
      // In place every byte is where it belongs already; the listing is read to its end all the same, for its errors.
      for await (const { offset, length } of written) {
        if (offset < 0 || offset + length > open.size)
          throw new RangeError(`${offset}+${length} was written outside of volume ${volume.id}`);
      }
      await open.flush({ signal });
      await share.check({ signal });
      committed = { ...volume, size: open.size };
      return committed;
    },
    async abandon(wait: Wait = {}) {
      wait.signal?.throwIfAborted();
      // In place nothing can be given back: the next run writes over it, under another generation.
      if (committed === undefined) await share.renew(wait);
    },
    [Symbol.asyncDispose]: () => share.leave(),
  };
}
