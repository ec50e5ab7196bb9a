import type { NbdBackend } from "./backend.ts";
import { Turnstile } from "./turnstile.ts";

/** Bytes read at a time. */
const pieceLength = 1024 * 1024;

/**
 * The `cache` of a backend whose storage keeps what was read: it reads the range and throws it away. One call reads at
 * a time, all into one buffer. Pieces end at multiples of a MiB, or of `blockSize` where that is larger: no block is read twice.
 */
export function cacheByReading(read: NbdBackend["read"], blockSize = 1): NonNullable<NbdBackend["cache"]> {
  const turnstile = new Turnstile(1);
  const piece = Math.max(pieceLength, blockSize);
  let scratch: Buffer | undefined;
  return (offset, length, { signal }) =>
    turnstile.pass(async () => {
      scratch ??= Buffer.allocUnsafeSlow(piece);
      const end = offset + length;
      for (let at = offset; at < end;) {
        signal.throwIfAborted();
        const next = Math.min(at - (at % piece) + piece, end);
        await read(at, scratch.subarray(0, next - at), { signal });
        at = next;
      }
    }, signal);
}
