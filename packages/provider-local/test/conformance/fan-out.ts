import type { BlockReader, OwnedResource, TargetProvider, Volume } from "@diskferry/core/provider";

/** Many targets of one disk each as one target, so that a suite may make volumes as it likes. */
export function fanOut(
  open: (key: string) => Promise<TargetProvider>,
  keyOf: (volume: Volume) => string,
): TargetProvider {
  const targets = new Map<string, Promise<TargetProvider>>();

  function of(key: string): Promise<TargetProvider> {
    let target = targets.get(key);
    if (target === undefined) {
      target = open(key);
      targets.set(key, target);
    }
    known.add(key);
    return target;
  }

  return {
    create: async (request) => {
      // One that was aborted before it began must not leave a target behind.
      request.signal?.throwIfAborted();
      return (await of(request.key)).create(request);
    },
    open: async (volume, request) => (await of(keyOf(volume))).open(volume, request),
    async read(volume, wait): Promise<BlockReader> {
      return (await of(keyOf(volume))).read!(volume, wait);
    },
    remove: async (volume, wait) => (await of(keyOf(volume))).remove(volume, wait),
    async *owned(job, wait): AsyncIterable<OwnedResource & { volume?: Volume }> {
      for (const key of known) yield* (await of(key)).owned(job, wait);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      for (const target of targets.values()) await (await target)[Symbol.asyncDispose]();
      targets.clear();
    },
  };
}

/** Every key that any of them was asked for: what a platform would list. */
const known = new Set<string>();
