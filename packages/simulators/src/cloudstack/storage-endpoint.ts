import { createHash, createHmac, randomBytes, randomUUID, timingSafeEqual } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { open, rm, stat } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import type { Volume } from "./entities.ts";
import type { FaultPlan } from "./fault-plan.ts";
import { inspectQcow2, readQcow2, writeQcow2 } from "./qcow2-image.ts";
import type { SparseDisk } from "./sparse-disk.ts";
import { gib, type World } from "./world.ts";

interface Download {
  readonly path: string;
  readonly until: number;
}

/** What an upload was promised to be; gone once it was tried. */
interface Upload {
  readonly volume: Volume;
  readonly format: "QCOW2" | "RAW";
  readonly checksum: string | undefined;
  readonly metadata: string;
  readonly until: number;
  readonly since: number;
}

/** `upload.operation.timeout`: then the monitor gives up what was never begun. */
const uploadPatienceMs = 3_600_000;
/** `max.upload.volume.size`, in GiB. */
const largestUploadGib = 500;

/** The secondary storage machine: serves what was extracted, takes what is uploaded. */
export class StorageEndpoint {
  readonly #world: World;
  readonly #faults: FaultPlan;
  readonly #downloads = new Map<string, Download>();
  readonly #uploads = new Map<string, Upload>();
  readonly #used = new Set<string>();
  /** Shared with the management server; signs the metadata of uploads. */
  readonly #secret = randomBytes(32);
  /** `http://host:port`, known once the server listens. */
  origin = "";

  constructor(world: World, faults: FaultPlan) {
    this.#world = world;
    this.#faults = faults;
  }

  /** Puts a disk's bytes up for download: raw for a pool that keeps raw, else qcow2. The URL is a secret that expires. */
  async publish(disk: SparseDisk, name: string, format: "qcow2" | "raw"): Promise<string> {
    const key = randomUUID();
    const path = this.#world.pathOf(`extract-${key}.${format}`);
    if (format === "qcow2") await writeQcow2(disk, path);
    else await this.#world.copyInto(disk, path);
    const place = `/userdata/${key}/${encodeURIComponent(name)}.${format}`;
    this.#downloads.set(place, { path, until: this.#world.now() + this.#world.settings.urlLifetimeMs });
    return `${this.origin}${place}`;
  }

  /** Whether a URL given out earlier can still be used. */
  isLive(url: string): boolean {
    const download = this.#downloads.get(url.slice(this.origin.length));
    return download !== undefined && download.until > this.#world.now();
  }

  /** What the client of an upload has to send, and where. */
  expect(
    volume: Volume,
    format: "QCOW2" | "RAW",
    checksum: string | undefined,
  ): { postURL: string; metadata: string; expires: string; signature: string } {
    const key = randomUUID();
    const until = this.#world.now() + this.#world.settings.urlLifetimeMs;
    const metadata = randomBytes(96).toString("base64");
    this.#uploads.set(key, { volume, format, checksum, metadata, until, since: this.#world.now() });
    const postURL = `${this.origin}/upload/${key}`;
    const expires = new Date(until).toISOString();
    return { postURL, metadata, expires, signature: this.#sign(metadata, postURL, expires) };
  }

  /** `ImageStoreUploadMonitorImpl`: a volume that nobody began to upload in time is abandoned, and can be deleted then. */
  giveUp(): void {
    for (const { volume, since } of this.#uploads.values())
      if (volume.state === "NotUploaded" && since + uploadPatienceMs < this.#world.now())
        volume.state = "UploadAbandoned";
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? "/", "http://storage").pathname;
    const upload = path.startsWith("/upload/");
    const faults = this.#faults.take(upload ? "upload" : "download");
    for (const fault of faults) {
      if (fault.kind === "delay") await new Promise((done) => setTimeout(done, fault.ms));
      if (fault.kind === "run") await fault.run();
      if (fault.kind === "hang") return;
      if (fault.kind === "drop") return void request.socket.destroy();
      if (fault.kind === "status") return answer(response, fault.status, fault.body ?? "");
    }
    if (!upload)
      return this.#download(
        request,
        response,
        path,
        faults.some((each) => each.kind === "lose-answer"),
      );
    const outcome = await this.#upload(request, path.slice("/upload/".length));
    if (faults.some((each) => each.kind === "lose-answer")) return void request.socket.destroy();
    answer(response, outcome.status, outcome.text);
  }

  async #download(request: IncomingMessage, response: ServerResponse, place: string, cut: boolean): Promise<void> {
    const download = this.#downloads.get(place);
    if (download === undefined || download.until <= this.#world.now()) return answer(response, 404, "Not Found");
    if (request.method !== "GET" && request.method !== "HEAD") return answer(response, 405, "Method Not Allowed");
    const { size } = await stat(download.path);
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const first = range === null ? 0 : Number(range[1]);
    const last = range === null || range[2] === "" ? size - 1 : Math.min(size - 1, Number(range[2]));
    if (first > last) {
      response.writeHead(416, { "content-range": `bytes */${size}` }).end();
      return;
    }
    response.writeHead(range === null ? 200 : 206, {
      "accept-ranges": "bytes",
      "content-length": last - first + 1,
      "content-type": "application/octet-stream",
      ...(range === null ? {} : { "content-range": `bytes ${first}-${last}/${size}` }),
    });
    if (request.method === "HEAD") return void response.end();
    // A download that is cut ends in the middle, as if the machine went away.
    const end = cut ? first + Math.floor((last - first) / 2) : last;
    await pipeline(createReadStream(download.path, { start: first, end }), response, { end: !cut });
    if (cut) response.destroy();
  }

  /** `HttpUploadServerHandler`: texts and codes as there. */
  async #upload(request: IncomingMessage, key: string): Promise<{ status: number; text: string }> {
    const refuse = (text: string, status = 400): { status: number; text: string } => {
      request.resume();
      return { status, text };
    };
    const [signature, metadata, expires] = ["x-signature", "x-metadata", "x-expires"].map((name) => {
      const value = request.headers[name];
      return typeof value === "string" ? value : "";
    });
    if (request.method !== "POST") return refuse("Not a post request", 405);
    if (!signature || !metadata || !expires) return refuse("signature or expires or metadata is missing");
    const length = Number(request.headers["content-length"] ?? "0");
    if (!(length > 0)) return refuse("content length is not set in the request or has invalid value.");
    const expected = Buffer.from(
      this.#sign(metadata, `${new URL(this.origin).protocol}//${request.headers.host ?? ""}/upload/${key}`, expires),
    );
    const given = Buffer.from(signature);
    if (given.length !== expected.length || !timingSafeEqual(given, expected))
      return refuse("signature validation failed.");
    if (Date.parse(expires) < this.#world.now()) return refuse("request not valid anymore");
    const upload = this.#uploads.get(key);
    if (this.#used.has(key)) return refuse("The one time post url is already used");
    if (upload === undefined || upload.metadata !== metadata) return refuse("unable to decrypt metadata");
    if (length > largestUploadGib * gib) return refuse("Maximum file upload size exceeded");
    this.#used.add(key);
    upload.volume.state = "UploadInProgress";
    const path = this.#world.pathOf(`upload-${key}`);
    try {
      await pipeline(request, createWriteStream(path));
      return await this.#take(upload, path, request.headers["content-type"] ?? "");
    } catch (error) {
      upload.volume.state = "UploadError";
      return { status: 500, text: String(error) };
    } finally {
      await rm(path, { force: true });
    }
  }

  async #take(upload: Upload, path: string, contentType: string): Promise<{ status: number; text: string }> {
    const { volume } = upload;
    const fail = (text: string, status = 400): { status: number; text: string } => {
      volume.state = "UploadError";
      return { status, text };
    };
    const boundary = /^multipart\/form-data;.*boundary="?([^";]+)"?/i.exec(contentType)?.[1];
    if (boundary === undefined) return fail("received entity is not a file", 422);
    const image = `${path}.image`;
    try {
      if (!(await cutFile(path, image, boundary))) return fail("received entity is not a file", 422);
      if (upload.checksum !== undefined && (await digestOf(image)) !== upload.checksum.replace(/^\{.*\}/, ""))
        return fail("checksum validation failed");
      const { size } = await stat(image);
      const about = await inspectQcow2(image);
      if (upload.format === "QCOW2") {
        if (about === undefined) return fail("File type mismatch with the sent file. Expected File: qcow2");
        if (about.backed || about.externalData) return fail("the image refers to other files");
        volume.disk = await this.#world.newDisk(about.size);
        await readQcow2(image, volume.disk);
      } else {
        if (about !== undefined) return fail("File type mismatch with the sent file. Expected File: raw");
        volume.disk = await this.#world.newDisk(Math.ceil(size / 512) * 512);
        await this.#world.fill(volume.disk, image);
      }
      volume.size = volume.disk.size;
      volume.state = "Uploaded";
      return { status: 200, text: "upload successful." };
    } finally {
      await rm(image, { force: true });
    }
  }

  #sign(metadata: string, url: string, expires: string): string {
    return createHmac("sha1", this.#secret)
      .update(metadata + url + expires)
      .digest("base64");
  }
}

function answer(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { "content-type": "text/plain", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

/** Copies the one file of a multipart body; false where there is none. */
async function cutFile(from: string, to: string, boundary: string): Promise<boolean> {
  await using source = await open(from, "r");
  const { size } = await source.stat();
  const start = Buffer.alloc(Math.min(size, 65_536));
  await source.read(start, 0, start.length, 0);
  const headEnd = start.indexOf("\r\n\r\n");
  if (headEnd < 0 || !start.subarray(0, headEnd).toString("latin1").includes("filename=")) return false;
  const tail = Buffer.alloc(Math.min(size, 1024));
  await source.read(tail, 0, tail.length, size - tail.length);
  const close = tail.lastIndexOf(`\r\n--${boundary}--`);
  if (close < 0) return false;
  const first = headEnd + 4;
  const end = size - tail.length + close;
  if (end <= first) return false;
  await pipeline(createReadStream(from, { start: first, end: end - 1 }), createWriteStream(to));
  return true;
}

/** MD5, the algorithm of a checksum without a prefix. */
async function digestOf(path: string): Promise<string> {
  const hash = createHash("md5");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
