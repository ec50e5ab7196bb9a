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
import { deleteVolume } from "../target/attachment.ts";
import { diskOffering } from "../target/replica-volumes.ts";
import { qcow2Stream } from "./qcow2-stream.ts";

/** States of a volume whose upload came to its end. */
const THERE = new Set(["Uploaded", "Copying", "Ready"]);
/** `upload.operation.timeout`: so long the platform waits for an upload. */
const UPLOAD_MS = 3_600_000;
const CLEAN_UP_MS = 60_000;

/**
 * Uploads a raw file as a volume of this name (`getUploadParamsForVolume`, then one POST of a qcow2 image with its MD5). A
 * volume of the name whose upload ended is taken as it is; one whose upload did not is removed and uploaded anew, since
 * nothing of an upload can be taken up again. A failure leaves no volume behind.
 */
export async function uploadVolume(
  cloud: Cloud,
  name: string,
  { file, size }: { file: FileHandle; size: number },
  wait: Wait,
): Promise<CloudVolume> {
  const known = await volumesNamed(cloud, name, wait);
  const there = known.find(({ state }) => THERE.has(state));
  if (there !== undefined) return there;
  await removeUnfinished(cloud, name, "an earlier upload ended");
  try {
    return await send(cloud, name, { file, size }, wait);
  } catch (error) {
    await removeUnfinished(cloud, name, error);
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
  const boundary = `diskferry-${randomUUID()}`;
  const start = Buffer.from(
    `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="${name.replace(/[^\w.-]/g, "_")}.qcow2"\r\n` +
      "content-type: application/octet-stream\r\n\r\n",
  );
  const end = Buffer.from(`\r\n--${boundary}--\r\n`);
  const agent = await storageAgent(cloud, UPLOAD_MS);
  let lost: Error | undefined;
  try {
    const { statusCode, body } = await request(url, {
      dispatcher: agent,
      method: "POST",
      headers: {
        "x-signature": signature,
        "x-metadata": metadata,
        "x-expires": expires,
        "content-type": `multipart/form-data; boundary=${boundary}`,
        // Without a length CloudStack refuses the upload, so it is never sent in pieces of unknown number.
        "content-length": String(start.byteLength + image.length + end.byteLength),
      },
      body: Readable.from(framed(start, image.content(wait), end), { objectMode: false }),
      ...(wait.signal === undefined ? {} : { signal: wait.signal }),
    });
    const text = (await body.text()).slice(0, 200);
    if (statusCode !== 200) {
      throw cloudstackError(
        statusCode >= 500 ? "UNAVAILABLE" : "UNEXPECTED",
        `The secondary storage machine refused the upload of ${object} (${statusCode}): ${sentence(text)} ` +
          `Nothing of it is kept; run again.`,
        { operation: "upload", retryable: false },
      );
    }
  } catch (error) {
    wait.signal?.throwIfAborted();
    if (isProviderError(error)) throw error;
    lost = transportFailure(error, `Upload of ${object}`, url.host, undefined);
    // What was never sent, or to nobody who is believed, needs no look at what became of it.
    if (!isLostAnswer(lost)) throw lost;
  } finally {
    await agent.destroy();
  }
  return await uploaded(cloud, id, lost, wait);
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

async function volumesNamed(cloud: Cloud, name: string, wait: Wait): Promise<CloudVolume[]> {
  const found: CloudVolume[] = [];
  for await (const volume of cloud.volumes({ keyword: name }, wait)) if (volume.name === name) found.push(volume);
  return found;
}

/**
 * Removes what a failed upload left, also when the caller has no patience any more. While the platform still waits for the
 * bytes it may refuse; that volume is then told of, and removed by a later try or by the job's clean-up.
 */
async function removeUnfinished(cloud: Cloud, name: string, why: unknown): Promise<void> {
  const wait = { signal: AbortSignal.timeout(CLEAN_UP_MS) };
  try {
    for (const left of await volumesNamed(cloud, name, wait))
      if (!THERE.has(left.state)) await deleteVolume(cloud, left.id, wait);
  } catch (error) {
    cloud.notice(`Volume ${name} holds no whole disk (${String(why)}) and could not be removed. ${String(error)}`);
  }
}
