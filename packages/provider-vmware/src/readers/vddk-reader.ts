import { type BlockReader, isProviderError, type ReadOptions } from "@diskferry/core/provider";
import { connectNbd, type NbdClient, NbdServerError } from "@diskferry/nbd";
import { vsphereError } from "../errors.ts";
import { describeDisk } from "../source/disk-point.ts";
import type { ReaderRequest } from "./disk-readers.ts";
import { nbdkitCommand, readShape } from "./nbdkit-command.ts";
import { NbdkitError, NbdkitProcess } from "./nbdkit-process.ts";
import { serverThumbprint } from "./server-thumbprint.ts";
import { vddkFailure } from "./vddk-failure.ts";

/** Logging in and opening a disk through vCenter and host takes VMware's library this long at worst. */
const openTimeoutMs = 120_000;
const sector = 512;

/**
 * Reads a disk of a snapshot through nbdkit and VMware's library, over one connection with many requests under way. The
 * process lives as long as the reader.
 */
export async function openVddkReader(request: ReaderRequest): Promise<BlockReader> {
  const { connection, point, disk, host, budget, signal } = request;
  const what = describeDisk(point);
  const { client, options, login } = connection;
  const vddk = options.vddk ?? {};
  if (login === undefined) {
    throw vsphereError("UNSUPPORTED", "VMware's library logs in by itself and needs user and password, not a ticket", {
      operation: "open",
    });
  }
  const { fileName } = disk.backing;
  if (fileName === undefined)
    throw vsphereError("UNSUPPORTED", `${what} is no file on a datastore`, { operation: "open" });
  const throughVcenter = client.about.kind === "vcenter";
  const { origin } = client.http;
  const thumbprint =
    origin.protocol === "https:" ? await serverThumbprint(origin, client.http.trust, { signal }) : undefined;
  const free = await budget.take(host, { signal });
  let nbdkit: NbdkitProcess | undefined;
  try {
    const asked = {
      server: origin.hostname,
      port: origin.port === "" ? 443 : Number(origin.port),
      user: login.userName,
      thumbprint,
      machine: point.machine.value,
      snapshot: point.snapshot.value,
      file: fileName,
      throughVcenter,
    };
    nbdkit = await start((place) => nbdkitCommand(vddk, asked, place), login.password, what, signal);
    const nbd = await reach(nbdkit, what, signal);
    const shape = readShape(vddk, throughVcenter);
    return new VddkReader(what, nbdkit, nbd, { size: disk.capacity, ...shape }, free);
  } catch (error) {
    await nbdkit?.[Symbol.asyncDispose]();
    free();
    throw error;
  }
}

async function start(
  command: Parameters<typeof NbdkitProcess.start>[0],
  password: string,
  what: string,
  signal: AbortSignal | undefined,
): Promise<NbdkitProcess> {
  try {
    return await NbdkitProcess.start(command, password, { signal });
  } catch (error) {
    if (!(error instanceof NbdkitError)) throw error;
    const { output, message, missing } = error;
    throw vddkFailure(what, { output, message, missing, cause: error, operation: "open" });
  }
}

/** Connects, which is when VMware's library logs in and opens the disk. */
async function reach(nbdkit: NbdkitProcess, what: string, signal: AbortSignal | undefined): Promise<NbdClient> {
  try {
    return await connectNbd({ socketPath: nbdkit.socket }, { connectTimeoutMs: openTimeoutMs, signal });
  } catch (error) {
    signal?.throwIfAborted();
    const { output } = nbdkit;
    throw vddkFailure(what, { output, message: (error as Error).message, cause: error, operation: "open" });
  }
}

class VddkReader implements BlockReader {
  readonly size: number;
  readonly blockSize: number;
  readonly concurrency: number;
  readonly preferredLength: number;
  readonly #what: string;
  readonly #nbdkit: NbdkitProcess;
  readonly #nbd: NbdClient;
  readonly #free: () => void;
  #closing: Promise<void> | undefined;

  constructor(
    what: string,
    nbdkit: NbdkitProcess,
    nbd: NbdClient,
    shape: { size: number; length: number; requests: number },
    free: () => void,
  ) {
    if (nbd.size !== shape.size) {
      throw vsphereError(
        "CORRUPT",
        `${what} has ${shape.size} bytes in its snapshot and ${nbd.size} through nbdkit: it is another disk. Nothing is read.`,
        { operation: "open" },
      );
    }
    this.size = shape.size;
    this.blockSize = Math.max(sector, nbd.minimumBlock);
    this.concurrency = shape.requests;
    this.preferredLength = shape.length;
    this.#what = what;
    this.#nbdkit = nbdkit;
    this.#nbd = nbd;
    this.#free = free;
  }

  async read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const { signal } = options;
    const before = this.#nbdkit.printed;
    try {
      await this.#nbd.read(offset, into, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      if (!isProviderError(error)) throw error;
      const answered = error.cause instanceof NbdServerError;
      // nbdkit says why on its standard error, which may come a moment after its answer.
      if (answered) await new Promise((resolve) => setImmediate(resolve));
      const output = this.#nbdkit.outputSince(before);
      const message = this.#nbdkit.running ? error.message : "nbdkit has ended";
      throw vddkFailure(this.#what, { output, message, cause: error, operation: "read" });
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#nbd.close();
      await this.#nbdkit[Symbol.asyncDispose]();
    } finally {
      this.#free();
    }
  }
}
