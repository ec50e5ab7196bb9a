import { randomUUID } from "node:crypto";
import { ProviderError, type TargetProvider, type Wait } from "@diskferry/core/provider";
import { call } from "./call.ts";
import type { Platform, PlatformVolume } from "./platform.ts";
import { openReader } from "./source.ts";

const handle = ({ id, size }: PlatformVolume) => ({ id, size });

/** Volumes are written in place. Their tags say who may write: the run, and the epoch of whoever gave out the work. */
export function openTarget(platform: Platform): TargetProvider {
  return {
    create: ({ key, size, job, signal }) =>
      call("create", { signal }, async () => handle(await platform.createVolume(key, size, { job }))),
    open: ({ id }, { run, base, epoch, signal }) =>
      call("open", { signal }, async () => {
        const { size, tags } = await platform.volume(id);
        if (epoch < Number(tags["epoch"] ?? 0))
          throw new ProviderError("FENCED", `epoch ${tags["epoch"]} writes ${id}`);
        if (base !== undefined && base.id !== id) throw new ProviderError("UNSUPPORTED", `${id} is written in place`);
        const generation = (tags["run"] === run ? tags["generation"] : undefined) ?? randomUUID();
        await platform.tagVolume(id, { run, generation, epoch: String(epoch) });
        const session = await platform.open("volumes", id);

        /** An older worker may still be alive: it must not touch what a newer one writes. */
        const mine = (operation: string, wait: Wait | undefined, act: (now: typeof tags) => Promise<void>) =>
          call(operation, wait, async () => {
            const { tags: now } = await platform.volume(id);
            if (now["epoch"] === String(epoch) && now["run"] === run) return act(now);
            throw new ProviderError("FENCED", `run ${now["run"]} of epoch ${now["epoch"]} writes ${id} now`);
          });
        return {
          size,
          blockSize: 512,
          generation,
          write: (offset, data, wait) => mine("write", wait, () => session.write(offset, data)),
          flush: (wait) => mine("flush", wait, () => session.flush()),
          async commit(wait) {
            await mine("commit", wait, () => platform.tagVolume(id, { committed: run }));
            return { id, size };
          },
          abandon: (wait) =>
            mine("abandon", wait, async ({ committed }) => {
              if (committed !== run) await platform.tagVolume(id, { generation: undefined });
            }),
          [Symbol.asyncDispose]: () => session.close(),
        };
      }),
    read: ({ id }, wait) => openReader(platform, "volumes", id, wait),
    remove: ({ id }, wait) => call("remove", wait, () => platform.deleteVolume(id)),
    async *owned(job, wait) {
      for (const volume of await call("list volumes", wait, () => platform.volumes()))
        if (volume.tags["job"] === job)
          yield { kind: "volume", id: volume.id, description: `${volume.size} bytes`, volume: handle(volume) };
    },
    async [Symbol.asyncDispose]() {},
  };
}
