import { type Wait, isProviderError } from "@diskferry/core/provider";
import { cloudstackError } from "../errors.ts";
import type { OpenDevice } from "./find-device.ts";

const zeroes = Buffer.alloc(1024 * 1024);

/**
 * Reads and writes an open device; rejects once it was closed, and waits in `close` for what is under way. A device that
 * goes away under it is a lost session: UNAVAILABLE, not retryable.
 */
export class DeviceIo {
  readonly path: string;
  readonly size: number;
  readonly blockSize: number;
  readonly #device: OpenDevice;
  readonly #underWay = new Set<Promise<void>>();
  #shut: (() => Error) | undefined;
  #closing: Promise<void> | undefined;

  constructor(device: OpenDevice) {
    this.#device = device;
    this.path = device.path;
    this.size = device.size;
    this.blockSize = device.blockSize;
  }

  read(offset: number, into: Uint8Array, wait: Wait = {}): Promise<void> {
    return this.#guarded(offset, into.byteLength, wait, async () => {
      for (let done = 0; done < into.byteLength;) {
        wait.signal?.throwIfAborted();
        const { bytesRead } = await this.#device.file.read(into, done, into.byteLength - done, offset + done);
        if (bytesRead === 0) throw this.#lost(`ended at ${offset + done}`);
        done += bytesRead;
      }
    });
  }

  write(offset: number, data: Uint8Array, wait: Wait = {}): Promise<void> {
    return this.#guarded(offset, data.byteLength, wait, () => this.#write(offset, data));
  }

  /** Clears a range. What reads as zeroes already is left as it is, so that a thin volume stays thin. */
  zero(offset: number, length: number, wait: Wait = {}): Promise<void> {
    return this.#guarded(offset, length, wait, async () => {
      const piece = Buffer.allocUnsafe(Math.min(length, zeroes.byteLength));
      for (let done = 0; done < length;) {
        wait.signal?.throwIfAborted();
        const part = piece.subarray(0, Math.min(piece.byteLength, length - done));
        const { bytesRead } = await this.#device.file.read(part, 0, part.byteLength, offset + done);
        if (bytesRead === 0) throw this.#lost(`ended at ${offset + done}`);
        const clear = zeroes.subarray(0, bytesRead);
        if (!part.subarray(0, bytesRead).equals(clear)) await this.#write(offset + done, clear);
        done += bytesRead;
      }
    });
  }

  /** A barrier over every write that settled before. Once it failed nothing more is believed of this device. */
  async flush(wait: Wait = {}): Promise<void> {
    await this.#guarded(0, 0, wait, async () => {
      try {
        await this.#device.file.datasync();
      } catch (error) {
        // Linux tells of a failed write-back once and then forgets the pages.
        this.#shut ??= () => this.#lost("failed to flush before");
        throw error;
      }
    });
  }

  /** Lets nothing more begin, for this reason, and resolves when nothing is under way. */
  async shut(reason: () => Error): Promise<void> {
    this.#shut ??= reason;
    await Promise.all([...this.#underWay].map((work) => work.catch(() => undefined)));
  }

  async close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.shut(() => new TypeError(`${this.path} was used after it had been closed: open it again`));
      await this.#device.file.close();
    })();
    await this.#closing;
  }

  async #write(offset: number, data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.byteLength;) {
      const { bytesWritten } = await this.#device.file.write(data, done, data.byteLength - done, offset + done);
      if (bytesWritten === 0) throw this.#lost(`took no more bytes at ${offset + done}`);
      done += bytesWritten;
    }
  }

  async #guarded(offset: number, length: number, { signal }: Wait, work: () => Promise<void>): Promise<void> {
    signal?.throwIfAborted();
    if (this.#shut !== undefined) throw this.#shut();
    if (offset < 0 || offset + length > this.size || offset % this.blockSize !== 0 || length % this.blockSize !== 0) {
      throw new RangeError(
        `${offset}+${length} is no range of whole blocks within the ${this.size} bytes of ${this.path}`,
      );
    }
    const running = work();
    this.#underWay.add(running);
    try {
      await running;
    } catch (error) {
      throw signal?.aborted === true || isProviderError(error) ? error : this.#lost("failed", error);
    } finally {
      this.#underWay.delete(running);
    }
  }

  #lost(what: string, cause?: unknown): Error {
    const code = (cause as NodeJS.ErrnoException | undefined)?.code;
    return cloudstackError(
      "UNAVAILABLE",
      `${this.path} ${what}${code === undefined ? "" : ` (${code})`}: was its volume detached, or its storage lost? It has to ` +
        `be opened anew.`,
      { operation: "device", cause, retryable: false },
    );
  }
}
