import { type NbdAddress, type NbdClient, connectNbd } from "@diskferry/nbd";
import type { BlockReader, Wait } from "@diskferry/core/provider";
import { localError } from "../errors.ts";
import { type NbdPlace, blockSizeOf, checkExportSize, endsSession, laneCost, linkShape } from "./nbd-place.ts";

/** What an NBD reader's lane is opened with. */
export interface NbdReaderLaneData {
  address: NbdAddress;
  size: number;
}

const laneModule = new URL(
  import.meta.url.endsWith(".ts") ? "./nbd-reader-lane.ts" : "./nbd-reader-lane.js",
  import.meta.url,
).href;

/** Reads an export over its place's shared connections; its lanes open one of their own each. */
export async function openNbdReader(place: NbdPlace, size: number | undefined, wait: Wait = {}): Promise<BlockReader> {
  const client = await place.client(wait);
  checkSize(client, size);
  const { shape, limit, use } = await place.join(client, wait);
  const reader = readerOver(client, use, size, async (error) => {
    if (error !== undefined) await place.retire(client);
  });
  const data: NbdReaderLaneData = { address: place.address, size: reader.size };
  return Object.assign(
    reader,
    shape,
    limit === 0 ? {} : { lane: { module: laneModule, limit, data, ...laneCost(client) } },
  );
}

/** The same over a connection of its own, for a worker thread. */
export async function openNbdReaderLane(data: NbdReaderLaneData, wait: Wait = {}): Promise<BlockReader> {
  const client = await connectNbd(data.address, { signal: wait.signal });
  try {
    const reader = readerOver(
      client,
      () => [client],
      data.size,
      () => client.close(),
    );
    return Object.assign(reader, await linkShape(client, wait));
  } catch (error) {
    await client.close();
    throw error;
  }
}

/** @throws ProviderError NOT_FOUND for an export of another size than the copy began with. */
function checkSize(client: NbdClient, expected: number | undefined): number {
  checkExportSize(client);
  if (expected === undefined || client.size === expected) return client.size;
  throw localError(
    "NOT_FOUND",
    `${client.uri} has ${client.size} bytes now and had ${expected} when the copy began; start a new run`,
    { operation: "nbd connect" },
  );
}

/** Reads over all that `use` tells of in turn; they live and die together. */
function readerOver(
  client: NbdClient,
  use: () => readonly NbdClient[],
  expected: number | undefined,
  done: (error: unknown) => Promise<void>,
): BlockReader {
  const size = checkSize(client, expected);
  let turn = 0;
  let failure: unknown;
  let closed = false;
  return {
    size,
    blockSize: blockSizeOf(client),
    async read(offset, into, options): Promise<void> {
      try {
        const clients = use();
        const next = clients[turn++ % clients.length] ?? client;
        await next.read(offset, into, { signal: options?.signal });
      } catch (error) {
        if (endsSession(error)) failure ??= error;
        throw error;
      }
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (closed) return;
      closed = true;
      await done(failure);
    },
  };
}
