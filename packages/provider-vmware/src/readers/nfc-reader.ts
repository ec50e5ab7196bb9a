import type { BlockReader } from "@diskferry/core/provider";
import { isProviderError } from "@diskferry/core/provider";
import { translateTransport, vsphereError } from "../errors.ts";
import { describeDisk } from "../source/disk-point.ts";
import { endLease, type LeasedFile, type NfcLease, openLease, reportLeaseProgress } from "../vim/lease-calls.ts";
import type { VimClient } from "../vim/vim-client.ts";
import { type HttpStream, isLoopback, type VimHttp } from "../vim/vim-http.ts";
import type { VirtualDisk } from "../vim/virtual-disk.ts";
import { AscendingDisk } from "./ascending-disk.ts";
import { discardBody } from "./discard-body.ts";
import type { ReaderRequest } from "./disk-readers.ts";
import { readGrains } from "./stream-optimized.ts";

/** A lease is told of progress this many times within its time-out. */
const tellingsPerTimeout = 4;
const leastTellingMs = 250;
const sector = 512;

/**
 * Reads a disk of a snapshot as vSphere exports it: a compressed stream over HTTPS, forwards only, without VMware's library. Each
 * disk has a lease of its own, which is kept alive for as long as it is read.
 */
export async function openNfcReader(request: ReaderRequest): Promise<BlockReader> {
  const { connection, point, disk, host, budget, signal } = request;
  const free = await budget.take(host, { signal });
  try {
    const client = await connection.client.soap({ signal });
    const lease = await openLease(client, point.snapshot, { signal, about: describeDisk(point) });
    const opened = { client, lease, what: `the export of ${describeDisk(point)}` };
    try {
      return await NfcReader.open(opened, disk, free, signal);
    } catch (error) {
      await endLease(client, lease.ref, { whole: false, about: opened.what });
      throw error;
    }
  } catch (error) {
    free();
    throw error;
  }
}

interface OpenLease {
  readonly client: VimClient;
  readonly lease: NfcLease;
  /** Names the stream in messages. */
  readonly what: string;
}

class NfcReader implements BlockReader {
  readonly size: number;
  readonly blockSize = sector;
  readonly order = "ascending";
  readonly #lease: OpenLease;
  readonly #http: VimHttp;
  readonly #ownsHttp: boolean;
  readonly #stream: HttpStream;
  readonly #disk: AscendingDisk;
  readonly #free: () => void;
  readonly #teller: NodeJS.Timeout;
  #failure: Error | undefined;
  readonly #closing = new AbortController();
  #telling = false;

  private constructor(
    lease: OpenLease,
    server: { http: VimHttp; owned: boolean },
    stream: HttpStream,
    size: number,
    free: () => void,
  ) {
    this.size = size;
    this.#lease = lease;
    this.#http = server.http;
    this.#ownsHttp = server.owned;
    this.#stream = stream;
    this.#free = free;
    const { what } = lease;
    const chunks = translated(stream, what, server.http.host, () => this.#failure);
    this.#disk = new AscendingDisk(readGrains(chunks, { size, what }), size);
    const everyMs = Math.max(leastTellingMs, (lease.lease.timeoutSeconds * 1000) / tellingsPerTimeout);
    this.#teller = setInterval(() => void this.#tell(), everyMs);
    this.#teller.unref();
  }

  static async open(
    lease: OpenLease,
    disk: VirtualDisk,
    free: () => void,
    signal: AbortSignal | undefined,
  ): Promise<NfcReader> {
    const file = fileOf(lease, disk);
    const server = serverOf(lease.client, file);
    try {
      const cookie = lease.client.cookie ?? "";
      const operation = "read export";
      const stream = await server.http.stream(`${file.url.pathname}${file.url.search}`, {
        method: "GET",
        headers: { cookie },
        operation,
        signal,
      });
      if (stream.status === 200) return new NfcReader(lease, server, stream, disk.capacity, free);
      discardBody(stream);
      throw vsphereError(
        "UNAVAILABLE",
        `${lease.what} was answered with status ${stream.status}; it is asked for again`,
        {
          operation,
        },
      );
    } catch (error) {
      if (server.owned) await server.http[Symbol.asyncDispose]();
      throw error;
    }
  }

  async read(offset: number, into: Uint8Array, options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    // The bytes of `into` are the caller's again when this settles, so the stream is stopped first.
    const stop = (): void => discardBody(this.#stream);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await this.#disk.read(offset, into);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#failure ?? error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearInterval(this.#teller);
    discardBody(this.#stream);
    const { client, lease, what } = this.#lease;
    await endLease(client, lease.ref, { whole: this.#disk.finished, about: what });
    if (this.#ownsHttp) await this.#http[Symbol.asyncDispose]();
    this.#free();
  }

  /** Keeps the lease alive. When that fails for good, what is still to come of the stream is not worth waiting for. */
  async #tell(): Promise<void> {
    // One at a time: what a server leaves unanswered must not take the places of other calls.
    if (this.#telling) return;
    this.#telling = true;
    const { client, lease, what } = this.#lease;
    const at = Number.isFinite(this.#disk.position) ? this.#disk.position : 0;
    const wait = { about: what, signal: this.#closing.signal, timeoutMs: (lease.timeoutSeconds * 1000) / 2 };
    try {
      await reportLeaseProgress(client, lease.ref, (at / this.size) * 100, wait);
    } catch (cause) {
      if (this.#closing.signal.aborted) return;
      this.#failure ??= vsphereError(
        "UNAVAILABLE",
        `${what} has lost its lease (${(cause as Error).message}); it is opened again`,
        { operation: "read export", cause },
      );
      discardBody(this.#stream);
    } finally {
      this.#telling = false;
    }
  }
}

/** The body's pieces, with its errors in our words. */
async function* translated(
  stream: HttpStream,
  what: string,
  host: string,
  failure: () => Error | undefined,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of stream.body as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    const known = failure();
    if (known !== undefined) throw known;
    throw isProviderError(error) ? error : translateTransport(error, what, host);
  } finally {
    discardBody(stream);
  }
}

/**
 * The file of a lease that is this disk, by the controller and unit in its key (`/vm-42/ParaVirtualSCSIController0:1`): two
 * disks of one size would go unnoticed if they were told apart by their order.
 */
function fileOf({ lease, what }: OpenLease, disk: VirtualDisk): LeasedFile {
  const { controller, unitNumber } = disk;
  const slot = `${controller?.type ?? ""}${controller?.busNumber ?? ""}:${unitNumber ?? ""}`;
  const files = lease.files.filter((file) => file.disk);
  const found = files.filter(({ key }) => key.slice(key.lastIndexOf("/") + 1) === slot);
  if (found.length === 1 && found[0] !== undefined) return found[0];
  const keys = files.map(({ key }) => key).join(", ");
  throw vsphereError("UNSUPPORTED", `${what} has no file for ${slot}; the lease has ${keys}`, {
    operation: "ExportSnapshot",
  });
}

/** Where a lease's link leads: the server itself, or a host whose certificate the server vouches for. */
function serverOf(client: VimClient, { url, sslThumbprint }: LeasedFile): { http: VimHttp; owned: boolean } {
  if (url.host === client.http.host) return { http: client.http, owned: false };
  if (sslThumbprint === undefined || sslThumbprint === "") {
    if (url.protocol === "http:" && isLoopback(url.hostname))
      return { http: client.http.forServer(url, undefined), owned: true };
    throw vsphereError("UNSUPPORTED", `the lease leads to ${url.host} and does not tell its certificate`, {
      operation: "ExportSnapshot",
    });
  }
  return { http: client.http.forServer(new URL(url.origin), { thumbprint: sslThumbprint }), owned: true };
}
