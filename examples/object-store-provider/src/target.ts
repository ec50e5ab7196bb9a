import { createHash, randomUUID } from "node:crypto";
import { ProviderError, type TargetProvider, type Volume, type Wait } from "@diskferry/core/provider";
import { call } from "./call.ts";
import { openReader } from "./source.ts";
import { type BlockStore, blockSize, type Layer } from "./store.ts";

const handle = ({ id, size }: Layer): Volume => ({ id, size });

/**
 * A volume is a layer that is never written; each run uploads into a layer of its own over its base, and its commit is a
 * snapshot: a new volume that stands on the base. Tags say who may write.
 */
export function openTarget(store: BlockStore): TargetProvider {
  async function openRun(id: string, run: string, base: Volume | undefined, job: string | undefined): Promise<Layer> {
    const volume = await store.layer(id);
    const upload = `upload-${createHash("sha256")
      .update(JSON.stringify([id, run]))
      .digest("hex")
      .slice(0, 32)}`;
    const known = await store.layer(upload).catch(() => undefined);
    if (known?.tags["generation"] !== undefined) return known;
    // It was abandoned: its blocks are not to come back.
    await store.remove(upload);
    const parent = base === undefined ? undefined : await store.layer(base.id);
    if (parent !== undefined && parent.tags["volume"] !== id)
      throw new ProviderError("UNSUPPORTED", `${parent.id} is no version of ${id}`);
    const tags = { volume: id, run, job: job ?? volume.tags["job"], generation: randomUUID() };
    return store.put({ id: upload, kind: "upload", size: volume.size, parent: parent?.id, tags });
  }

  return {
    create: ({ key, size, job, signal }) =>
      call("create", { signal }, async () => {
        const id = `volume-${encodeURIComponent(key)}`;
        const known = await store.layer(id).catch(() => undefined);
        const tags = known?.tags ?? { job, volume: id };
        return handle(await store.put({ id, kind: "upload", size: Math.max(size, known?.size ?? 0), tags }));
      }),
    open: ({ id }, { run, base, epoch, job, signal }) =>
      call("open", { signal }, async () => {
        const { tags: before } = await store.layer(id);
        if (epoch < Number(before["epoch"] ?? 0))
          throw new ProviderError("FENCED", `epoch ${before["epoch"]} writes ${id}`);
        const upload = await openRun(id, run, base, job);
        await store.tag(id, { epoch: String(epoch) });

        /** An older worker may still be alive: it must not touch what a newer one writes. */
        const mine = <Result>(operation: string, wait: Wait | undefined, act: () => Promise<Result>): Promise<Result> =>
          call(operation, wait, async () => {
            const { tags } = await store.layer(id);
            if (tags["epoch"] === String(epoch)) return act();
            throw new ProviderError("FENCED", `epoch ${tags["epoch"]} writes ${id} now`);
          });
        return {
          size: upload.size,
          blockSize,
          concurrency: 8,
          generation: upload.tags["generation"]!,
          // What no layer holds reads as zeroes.
          ...(upload.parent === undefined ? { blank: true } : {}),
          write: (offset, data, wait) =>
            mine("write", wait, () => store.write(upload.id, offset, data.byteLength, data)),
          zero: (offset, length, wait) => mine("zero", wait, () => store.write(upload.id, offset, length)),
          read: (offset, into, wait) => call("read", wait, () => store.read(upload.id, offset, into)),
          flush: (wait) => mine("flush", wait, async () => {}),
          commit: (wait) =>
            mine("commit", wait, async () => {
              const { tags } = await store.layer(upload.id);
              if (tags["committed"] !== undefined) return handle(await store.layer(tags["committed"]));
              const { volume, job: owner } = tags;
              const version = await store.freeze(upload.id, { volume, job: owner });
              await store.tag(upload.id, { committed: version.id });
              return handle(version);
            }),
          abandon: (wait) =>
            mine("abandon", wait, async () => {
              const { tags } = await store.layer(upload.id);
              if (tags["committed"] === undefined) await store.tag(upload.id, { generation: undefined });
            }),
          async [Symbol.asyncDispose]() {},
        };
      }),
    read: ({ id }, wait) => openReader(store, id, wait),
    remove: ({ id }, wait) =>
      call("remove", wait, async () => {
        for (const upload of await store.layers("upload"))
          if (upload.tags["volume"] === id && upload.id !== id) await store.remove(upload.id);
        await store.remove(id);
      }),
    async *owned(job, wait) {
      const layers = await call("list", wait, async () => [
        ...(await store.layers("snapshot")).filter(({ tags }) => tags["volume"] !== undefined),
        ...(await store.layers("upload")),
      ]);
      for (const layer of layers)
        if (layer.tags["job"] === job && layer.tags["committed"] === undefined)
          yield { kind: layer.kind, id: layer.id, description: `${layer.size} bytes`, volume: handle(layer) };
    },
    async [Symbol.asyncDispose]() {},
  };
}
