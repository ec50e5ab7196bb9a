import type { Call } from "../../src/layers/layer.ts";

/** A call for tests: a read of 1 MiB at offset 4096 unless told otherwise. */
export function makeCall(given: Partial<Call> = {}): Call {
  return {
    method: "read",
    side: "source",
    offset: 4096,
    length: 1048576,
    attempt: 1,
    signal: new AbortController().signal,
    ...given,
  };
}
