import type { Agent } from "undici";
import type { BlockReader, DiskSnapshot, Wait } from "@diskferry/core/provider";
import { httpAgent } from "../client/transport.ts";
import { unlessAborted } from "../client/unless-aborted.ts";
import { type Cloud, authorityIn } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { extractLink } from "./download-link.ts";
import { openQcow2 } from "./qcow2-ranges.ts";
import { type ByteRanges, isExpired, openRanges } from "./ranged-file.ts";

/** Reads at once: the secondary storage machine is a small one. */
const CONCURRENCY = 4;
const PREFERRED = 4 * 2 ** 20;
const SECTOR = 512;

/**
 * Opens one disk of a snapshot by download from the secondary storage machine, by ranges. A link that runs out is asked for
 * anew and the file's map read anew with it, since the platform may have made the file anew.
 * @throws ProviderError NOT_FOUND when the snapshot is gone
 */
export async function openDownload(cloud: Cloud, disk: DiskSnapshot, wait: Wait): Promise<BlockReader> {
  const object = `snapshot ${disk.id}`;
  const agent = await storageAgent(cloud);
  const closing = new AbortController();
  let image: Promise<ByteRanges> | undefined;
  const openImage = async (signal: AbortSignal): Promise<ByteRanges> => {
    const wait = { signal };
    const { url, format } = await extractLink(cloud, disk.id, wait);
    const file = await openRanges(url, agent, object, wait);
    const content = format === "raw" ? file : await openQcow2(file, object, wait);
    if (content.length >= disk.size) return content;
    throw cloudstackError(
      "CORRUPT",
      `The download of ${object} holds a disk of ${content.length} bytes; disk ${disk.disk} had ${disk.size}.`,
      { operation: "open" },
    );
  };
  const current = (): Promise<ByteRanges> => {
    // What several readers wait for ends with the reader, not with one of its calls.
    image ??= openImage(closing.signal);
    const opening = image;
    opening.catch(() => {
      if (image === opening) image = undefined;
    });
    return opening;
  };
  const forget = (gone: Promise<ByteRanges>): void => {
    if (image === gone) image = undefined;
  };
  try {
    await unlessAborted(current(), wait.signal);
  } catch (error) {
    closing.abort(error);
    await agent.destroy();
    throw error;
  }
  let closed = false;
  return {
    size: disk.size,
    blockSize: SECTOR,
    concurrency: CONCURRENCY,
    preferredLength: PREFERRED,
    async read(offset, into, { signal } = {}) {
      signal?.throwIfAborted();
      if (offset < 0 || offset + into.byteLength > disk.size)
        throw new RangeError(`${offset}+${into.byteLength} is outside of the ${disk.size} bytes of disk ${disk.disk}`);
      const opening = current();
      try {
        await (await unlessAborted(opening, signal)).read(offset, into, { signal });
      } catch (error) {
        if (!isExpired(error)) throw error;
        forget(opening);
        cloud.notice(`The link to ${object} has run out; it is asked for anew.`);
        await (await unlessAborted(current(), signal)).read(offset, into, { signal });
      }
    },
    async [Symbol.asyncDispose]() {
      if (closed) return;
      closed = true;
      closing.abort(cloudstackError("UNAVAILABLE", `The download of ${object} was closed.`, { retryable: false }));
      await agent.destroy();
    },
  };
}

/** Connections to the secondary storage machine, whose certificate is another one than the API's. */
export async function storageAgent(cloud: Cloud, answerMs?: number): Promise<Agent> {
  const { tls, storageTls, timeouts = {} } = cloud.options;
  const ca =
    storageTls?.pin === undefined
      ? ((await authorityIn(storageTls, "storageTls")) ?? (await authorityIn(tls, "tls")))
      : undefined;
  return httpAgent(
    { pin: storageTls?.pin, ca },
    { connectMs: timeouts.connectMs ?? 10_000, requestMs: answerMs ?? timeouts.requestMs ?? 60_000 },
  );
}
