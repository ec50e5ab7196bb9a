import { ProviderError } from "../provider/error.ts";
import type { Wait } from "../provider/wait.ts";
import { describeCall } from "./layer.ts";
import type { Call, Layer } from "./layer.ts";

export interface VerifyOptions {
  /** Reads what was written: a writer's `read`. */
  read: (offset: number, into: Uint8Array, wait?: Wait) => Promise<void>;
}

/** A zeroed range is read back in pieces of this size. */
const pieceBytes = 1 << 20;

/**
 * Reads back every write and zero and compares all of its bytes, for runs that trust nothing; a target is then read as
 * much as it is written. One buffer of the written length per call under way.
 * @throws ProviderError CORRUPT naming the first byte that differs.
 * @throws TypeError when a write comes without its data: what cannot be compared must not pass as compared.
 */
export function verifyWrites(options: VerifyOptions): Layer {
  return async (call, run) => {
    if (call.method !== "write" && call.method !== "zero") return run(call);
    const { offset, length, data, method } = call;
    if (offset === undefined || length === undefined)
      throw new TypeError("verifyWrites needs the call's offset and length");
    if (method === "write" && data === undefined) throw new TypeError("verifyWrites needs the call's data");
    await run(call);
    const piece = new Uint8Array(method === "zero" ? Math.min(pieceBytes, length) : length);
    const zeroes = method === "zero" ? new Uint8Array(piece.length) : undefined;
    for (let done = 0; done < length; done += piece.length) {
      const found = piece.subarray(0, Math.min(piece.length, length - done));
      await options.read(offset + done, found, { signal: call.signal });
      const wanted = (zeroes ?? data)?.subarray(0, found.length);
      if (wanted === undefined || Buffer.compare(found, wanted) !== 0)
        throw mismatch(call, offset + done, found, wanted);
    }
  };
}

function mismatch(call: Call, offset: number, found: Uint8Array, wanted: Uint8Array | undefined): ProviderError {
  const at =
    offset +
    Math.max(
      0,
      found.findIndex((byte, index) => byte !== wanted?.[index]),
    );
  const message = `${describeCall(call)}: byte ${at} reads back different from what was written; the target is not to be trusted, check its storage`;
  return new ProviderError("CORRUPT", message, { operation: "verify" });
}
