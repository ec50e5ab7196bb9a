import { createHash, randomUUID } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { request } from "undici";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import { objectIn, textIn } from "../client/decode.ts";
import type { CloudVolume } from "../client/entities.ts";
import { pause } from "../client/pause.ts";
import { transportFailure } from "../client/transport.ts";
import type { Cloud } from "../cloud.ts";
import { storageAgent } from "../download/snapshot-download.ts";
import { cloudstackError, isLostAnswer } from "../errors.ts";
import { readOwnName } from "../names.ts";
import { deleteVolume } from "../target/attachment.ts";
import { diskOffering } from "../target/replica-volumes.ts";
import { type Qcow2Stream, qcow2Stream } from "./qcow2-stream.ts";

/** States of a volume whose upload came to its end. */
const THERE = new Set(["Uploaded", "Copying", "Ready"]);
/** States of one whose upload did not come to its end, or has not begun. */
const UNFINISHED = new Set(["NotUploaded", "UploadInProgress", "UploadError", "UploadAbandoned"]);
/** How often the same link is tried while nothing has arrived by it: another link would be another volume. */
const POSTS = 3;
/** `upload.operation.timeout`: so long the platform waits for an upload. */
const UPLOAD_MS = 3_600_000;
const CLEAN_UP_MS = 60_000;

/**
 * Uploads a raw file as a volume of this name (`getUploadParamsForVolume`, then one POST of a qcow2 image with its MD5). A
 * volume of the name whose upload ended is taken as it is; what other uploads of this disk (`mark`) left unfinished is removed,
 * since nothing of an upload can be taken up again. A failure leaves no volume behind that holds anything.
 */
export async function uploadVolume(
  cloud: Cloud,
  { name, mark }: { name: string; mark: string },
  { file, size }: { file: FileHandle; size: number },
  wait: Wait,
): Promise<CloudVolume> {
  for await (const volume of cloud.volumes({ keyword: name }, wait))
    if (volume.name === name && THERE.has(volume.state)) return volume;
  await removeUnfinished(cloud, mark, "an earlier upload ended", wait);
  try {
    return await send(cloud, name, { file, size }, wait);
  } catch (error) {
    // Also where the caller has no patience any more.
    await removeUnfinished(cloud, mark, error, { signal: AbortSignal.timeout(CLEAN_UP_MS) });
    throw error;
  }
}

async function send(
  cloud: Cloud,
  name: string,
  { file, size }: { file: FileHandle; size: number },
  wait: Wait,
): Promise<CloudVolume> {
  const image = await qcow2Stream(file, size, wait);
  const hash = createHash("md5");
  for await (const part of image.content(wait)) hash.update(part);
  const parameters = {
    name,
    zoneid: await cloud.zoneId(wait),
    format: "QCOW2",
    checksum: hash.digest("hex"),
    diskofferingid: (await diskOffering(cloud, size, wait)).id,
    ...(await cloud.scope(wait)),
  };
  const object = `volume ${name}`;
  const answer = await cloud.client.call("getUploadParamsForVolume", parameters, { ...wait, object });
  const found = objectIn(answer["getuploadparams"]);
  const [id = "", postUrl = "", signature = "", metadata = "", expires = ""] = [
    found["id"],
    found["postURL"],
    found["signature"],
    found["metadata"],
    found["expires"],
  ].map(textIn);
  if (!URL.canParse(postUrl))
    throw cloudstackError("UNEXPECTED", `CloudStack told no place to upload ${object} to.`, { operation: "upload" });
  const url = new URL(postUrl);
  const mayBePlain = cloud.options.plainStorage === true || cloud.options.endpoint.startsWith("http:");
  if (url.protocol !== "https:" && !(url.protocol === "http:" && mayBePlain)) {
    throw cloudstackError(
      "UNSUPPORTED",
      `The secondary storage machine ${url.host} takes uploads without TLS. Have it given a certificate ` +
        `(secstorage.encrypt.copy), or allow it with plainStorage.`,
      { operation: "upload" },
    );
  }
  const link: UploadLink = {
    id,
    url,
    headers: { "x-signature": signature, "x-metadata": metadata, "x-expires": expires },
    fileName: `${name.replace(/[^\w.-]/g, "_")}.qcow2`,
    object,
  };
  for (let attempt = 1; ; attempt++) {
    try {
      return await uploaded(cloud, id, await post(cloud, link, image, wait), wait);
    } catch (error) {
      wait.signal?.throwIfAborted();
      const mayBeBegun = isProviderError(error) && error.code === "UNAVAILABLE" && attempt < POSTS;
      if (!mayBeBegun || (await cloud.volume(id, wait))?.state !== "NotUploaded") throw error;
      cloud.notice(
        `Nothing of the upload of ${object} has arrived; it is sent again by the same link. ${error.message}`,
      );
      await pause(Math.min((cloud.options.timeouts?.pollMs ?? 1000) * 2 ** attempt, 10_000), wait);
    }
  }
}

/** Where an upload goes, once. A secret. */
interface UploadLink {
  id: string;
  url: URL;
  headers: Readonly<Record<string, string>>;
  fileName: string;
  object: string;
}

/** Sends an image. @returns the failure after which nobody knows whether it arrived; undefined: it did */
async function post(
  cloud: Cloud,
  { url, headers, fileName, object }: UploadLink,
  image: Qcow2Stream,
  wait: Wait,
): Promise<Error | undefined> {
  const boundary = `diskferry-${randomUUID()}`;
  const start = Buffer.from(
    `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="${fileName}"\r\n` +
      "content-type: application/octet-stream\r\n\r\n",
  );
  const end = Buffer.from(`\r\n--${boundary}--\r\n`);
  const agent = await storageAgent(cloud, UPLOAD_MS);
  try {
    const { statusCode, body } = await request(url, {
      dispatcher: agent,
      method: "POST",
      headers: {
        ...headers,
        "content-type": `multipart/form-data; boundary=${boundary}`,
        // Without a length CloudStack refuses the upload, so it is never sent in pieces of unknown number.
        "content-length": String(start.byteLength + image.length + end.byteLength),
      },
      body: Readable.from(framed(start, image.content(wait), end), { objectMode: false }),
      ...(wait.signal === undefined ? {} : { signal: wait.signal }),
    });
    const text = (await body.text()).slice(0, 200);
    // What was sent by the link before has arrived after all; its volume tells what became of it.
    if (statusCode === 200 || /one time post url is already used/i.test(text)) return undefined;
    throw cloudstackError(
      statusCode >= 500 ? "UNAVAILABLE" : "UNEXPECTED",
      `The secondary storage machine refused the upload of ${object} (${statusCode}): ${sentence(text)} ` +
        `Nothing of it is kept; run again.`,
      { operation: "upload", retryable: false },
    );
  } catch (error) {
    wait.signal?.throwIfAborted();
    if (isProviderError(error)) throw error;
    const lost = transportFailure(error, `Upload of ${object}`, url.host, undefined);
    // What was never sent, or to nobody who is believed, needs no look at what became of it.
    if (!isLostAnswer(lost)) throw lost;
    return lost;
  } finally {
    await agent.destroy();
  }
}

async function* framed(
  start: Uint8Array,
  content: AsyncIterable<Uint8Array>,
  end: Uint8Array,
): AsyncGenerator<Uint8Array> {
  yield start;
  yield* content;
  yield end;
}

/** Waits until the platform has noticed what became of an upload. */
async function uploaded(cloud: Cloud, id: string, lost: Error | undefined, wait: Wait): Promise<CloudVolume> {
  const { pollMs = 1000, pollMostMs = 10_000, jobMs = UPLOAD_MS } = cloud.options.timeouts ?? {};
  const until = Date.now() + jobMs;
  for (let look = 1; ; look++) {
    const volume = await cloud.volume(id, wait);
    if (volume !== undefined && THERE.has(volume.state)) return volume;
    const state = volume?.state ?? "gone";
    const isOver = state !== "UploadInProgress" && (state !== "NotUploaded" || lost !== undefined);
    if (isOver || Date.now() >= until) {
      throw cloudstackError(
        "UNAVAILABLE",
        `The upload of volume ${id} ended in state ${state}${lost === undefined ? "" : ` (${lost.message})`}. An upload cannot ` +
          `be taken up where it ended: it is begun anew.`,
        { operation: "upload", cause: lost, retryable: false },
      );
    }
    await pause(Math.min(pollMs * look, pollMostMs), wait);
  }
}

/** What the storage machine says, which stands before another sentence; nothing that looks like an address is repeated. */
function sentence(text: string): string {
  const clean = text.replace(/https?:\S+/g, "…").trim();
  return /[.!?]$/.test(clean) ? clean : `${clean}.`;
}

/**
 * Removes what failed uploads of a disk left, of whichever run. As long as the platform waits for the bytes
 * (`upload.operation.timeout`) it refuses; that row holds none, and is told of, and removed by a later try, by the removal of
 * the disk, or by the job's clean-up.
 */
export async function removeUnfinished(cloud: Cloud, mark: string, why: unknown, wait: Wait): Promise<void> {
  for await (const { id, name, state } of cloud.volumes({ keyword: mark }, wait)) {
    const own = readOwnName(name);
    if (own?.key !== mark || own.note === undefined || !UNFINISHED.has(state)) continue;
    try {
      await deleteVolume(cloud, id, wait);
    } catch (error) {
      wait.signal?.throwIfAborted();
      cloud.notice(`Volume ${name} holds no whole disk (${String(why)}) and could not be removed. ${String(error)}`);
    }
  }
}
