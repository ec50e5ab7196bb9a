import type { Layer } from "@diskferry/core";

/** Something that happens to a source while it is read, and how often it was read before and after. */
export interface Strike {
  readonly layer: Layer;
  /** Reads that were done when it came; undefined: it has not come. */
  before: number | undefined;
  /** Reads that were begun after it. */
  after: number;
}

/** Strikes once, before the read of this number; every other read goes through. */
export function striking(strike: () => void | Promise<void>, atRead = 2): Strike {
  let reads = 0;
  const struck: Strike = {
    before: undefined,
    after: 0,
    layer: async (call, run) => {
      const isRead = call.side === "source" && call.method === "read";
      if (isRead && struck.before !== undefined) struck.after++;
      else if (isRead && ++reads === atRead) {
        struck.before = reads - 1;
        struck.after++;
        await strike();
      }
      await run(call);
    },
  };
  return struck;
}
