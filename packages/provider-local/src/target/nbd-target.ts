import type {
  BlockReader,
  BlockWriter,
  CreateRequest,
  OpenRequest,
  OwnedResource,
  TargetProvider,
  Volume,
  Wait,
} from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { forgetEpochs, takeFence } from "../fence/fence.ts";
import { gatedWriter } from "../fence/gated-writer.ts";
import { nbdAddress } from "../nbd/nbd-options.ts";
import { NbdPlace, checkExportSize } from "../nbd/nbd-place.ts";
import { openNbdReader } from "../nbd/nbd-reader.ts";
import { openNbdWriter } from "../nbd/nbd-writer.ts";
import { claimPlace } from "../open-places.ts";
import type { LocalOptions } from "../options.ts";
import { checkDiskSize, checkStillOurs, holdsOther, tooSmall } from "./in-place.ts";
import {
  type TargetState,
  beginRun,
  readTargetState,
  removeTargetState,
  stateFolderOfIdentity,
  writeTargetState,
} from "./target-state.ts";

/**
 * A target that is an NBD export, written in place. Which run's half-written state the export holds is remembered on this
 * host, by URI and size: it is taken that the server keeps what it flushed and that nobody else writes to the export
 * between two runs. A fence holds off other runs of this host alone; across hosts let the server serve one epoch.
 */
export function nbdTarget(options: LocalOptions & { uri: string }): TargetProvider {
  const place = new NbdPlace(nbdAddress(options));
  const { uri } = place;

  function stateOf(size: number): { folder: string; identity: string } {
    const identity = `nbd:${uri}:${size}`;
    return { folder: stateFolderOfIdentity(identity), identity };
  }

  async function known(size: number): Promise<TargetState> {
    const { folder, identity } = stateOf(size);
    return (await readTargetState(folder, identity)) ?? { size, created: false, identity };
  }

  async function sizeOf(wait: Wait): Promise<number> {
    const client = await place.client(wait);
    checkExportSize(client);
    return client.size;
  }

  function volumeOf(size: number, key: string | undefined): Volume {
    return { id: uri, size, data: { format: "nbd", uri, ...(key === undefined ? { adopted: true } : { key }) } };
  }

  async function create(request: CreateRequest): Promise<Volume> {
    checkDiskSize(request.size);
    const size = await sizeOf(request);
    const state = await known(size);
    if (size < request.size && state.key === request.key) {
      throw localError(
        "UNSUPPORTED",
        `${uri} has ${size} bytes and its disk ${request.size} now; enlarge what the server exports`,
      );
    }
    if (size < request.size) throw tooSmall(uri, size, request.size);
    if (state.key !== undefined && state.key !== request.key && options.overwrite !== true) {
      throw holdsOther(uri, state.key);
    }
    if (state.key !== request.key) {
      const { folder, identity } = stateOf(size);
      await forgetEpochs(folder);
      const job = request.job === undefined ? {} : { job: request.job };
      await writeTargetState(folder, { key: request.key, ...job, size, created: false, identity });
    }
    return volumeOf(size, request.key);
  }

  async function open(volume: Volume, request: OpenRequest): Promise<BlockWriter> {
    const size = await sizeOf(request);
    const { folder, identity } = stateOf(size);
    const release = claimPlace({ place: uri, label: uri }, "target");
    try {
      const fence = await takeFence(folder, uri, request.epoch, { signal: request.signal });
      try {
        const found = await known(size);
        checkStillOurs(uri, volume, found);
        const state = await beginRun(folder, found, request.run, false);
        const writer = await openNbdWriter(place, {
          generation: `${identity}:${state.generation ?? ""}`,
          size: volume.size,
          volume,
          signal: request.signal,
        });
        const remembering = Object.assign(writer, {
          abandon: async (): Promise<void> => {
            // What the export held before is gone; forgetting the run keeps anybody from resuming on it.
            const { run: _run, generation: _generation, ...rest } = await known(size);
            await writeTargetState(folder, rest);
          },
        });
        return gatedWriter(remembering, fence, uri, async () => {
          release();
          await fence.release();
        });
      } catch (error) {
        await fence.release();
        throw error;
      }
    } catch (error) {
      release();
      throw error;
    }
  }

  return {
    create,
    open,
    async adopt(disk: string, wait: Wait = {}): Promise<Volume> {
      if (disk !== uri && disk !== options.uri) {
        throw localError("NOT_FOUND", `this target is ${uri}; open the target ${disk} to adopt that disk`);
      }
      return volumeOf(await sizeOf(wait), undefined);
    },
    read: (volume: Volume, wait?: Wait): Promise<BlockReader> => openNbdReader(place, volume.size, wait),
    async remove(volume: Volume): Promise<void> {
      // An export cannot be removed from here: the replica in it is only no longer ours.
      const { folder } = stateOf(volume.size);
      const state = await known(volume.size);
      if (state.key !== undefined && state.key === volume.data?.["key"]) await removeTargetState(folder);
    },
    async *owned(job: string, wait: Wait = {}): AsyncIterable<OwnedResource & { volume?: Volume }> {
      const size = await sizeOf(wait);
      const { key, job: owner } = await known(size);
      if (owner !== job || key === undefined) return;
      yield { kind: "export", id: uri, description: `replica ${key} in ${uri}`, volume: volumeOf(size, key) };
    },
    [Symbol.asyncDispose]: () => place.close(),
  };
}
