import { type BlockReader, copyInto, isProviderError, type ReadOptions, type Wait } from "@diskferry/core/provider";
import { translateTransport, vsphereError } from "../errors.ts";
import { describeDisk, type DiskPoint } from "../source/disk-point.ts";
import { moRef, type MoRef } from "../vim/moref.ts";
import { readObject } from "../vim/property-collector.ts";
import type { VimClient } from "../vim/vim-client.ts";
import type { HttpStream } from "../vim/vim-http.ts";
import type { VirtualDisk } from "../vim/virtual-disk.ts";
import { discardBody } from "./discard-body.ts";
import type { ReaderRequest } from "./disk-readers.ts";

const operation = "read datastore";
/** Every answer costs a look whether the snapshot still stands, so they are large; a datastore serves few at a time. */
const preferredLength = 4 << 20;
const requestsAtOnce = 4;
const sector = 512;
const mostLevels = 64;

/**
 * Reads a flat file of a datastore in ranges over HTTPS. It is the disk of a snapshot only while that snapshot has no other
 * below it, and nothing merges into it: that is looked up after each answer, before its bytes are believed.
 */
export async function openFolderReader(request: ReaderRequest): Promise<BlockReader> {
  const { connection, point, disk, signal } = request;
  const place = flatFileOf(disk, point);
  const client = await connection.client.soap({ signal });
  const datacenter = await datacenterOf(client, point.machine, { signal });
  const path = folderPath(place, datacenter);
  const reader = new FolderReader(client, point, path, disk.capacity);
  await reader.probe(signal);
  return reader;
}

class FolderReader implements BlockReader {
  readonly size: number;
  readonly blockSize = sector;
  readonly concurrency = requestsAtOnce;
  readonly preferredLength = preferredLength;
  readonly #client: VimClient;
  readonly #point: DiskPoint;
  readonly #path: string;
  readonly #closing = new AbortController();

  constructor(client: VimClient, point: DiskPoint, path: string, size: number) {
    this.#client = client;
    this.#point = point;
    this.#path = path;
    this.size = size;
  }

  /** Reads a sector. @throws ProviderError UNSUPPORTED where the datastore does not give the file away */
  async probe(signal: AbortSignal | undefined): Promise<void> {
    await this.read(0, new Uint8Array(sector), { signal });
  }

  async read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    const end = offset + into.byteLength;
    if (!(offset >= 0 && end <= this.size && into.byteLength > 0)) {
      throw new RangeError(`${into.byteLength} bytes at ${offset} are not within a disk of ${this.size} bytes`);
    }
    const either = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    try {
      await this.#fill(offset, into, either);
      await this.#stillFrozen(either);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(vsphereError("UNAVAILABLE", `${describeDisk(this.#point)} was closed`, { operation }));
    return Promise.resolve();
  }

  async #fill(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    const what = describeDisk(this.#point);
    const last = offset + into.byteLength - 1;
    const stream = await this.#get(`bytes=${offset}-${last}`, signal);
    try {
      const wanted = `bytes ${offset}-${last}/${this.size}`;
      const got = stream.header("content-range");
      if (stream.status !== 206 || got !== wanted) {
        throw vsphereError(
          "UNSUPPORTED",
          `the datastore answered '${got ?? stream.status}' where '${wanted}' of ${what} was asked`,
          {
            operation,
          },
        );
      }
      let filled = 0;
      for await (const chunk of stream.body as AsyncIterable<Uint8Array>) {
        if (filled + chunk.byteLength > into.byteLength) {
          throw vsphereError("UNAVAILABLE", `the datastore sent more of ${what} than asked for`, { operation });
        }
        copyInto(into, chunk, filled);
        filled += chunk.byteLength;
      }
      if (filled < into.byteLength) {
        throw vsphereError(
          "UNAVAILABLE",
          `the datastore's answer about ${what} ended after ${filled} of ${into.byteLength} bytes`,
          {
            operation,
          },
        );
      }
    } catch (error) {
      signal.throwIfAborted();
      throw isProviderError(error) ? error : translateTransport(error, operation, this.#client.http.host);
    } finally {
      discardBody(stream);
    }
  }

  async #get(range: string, signal: AbortSignal): Promise<HttpStream> {
    const what = describeDisk(this.#point);
    const cookie = this.#client.cookie ?? "";
    const stream = await this.#client.http.stream(this.#path, {
      method: "GET",
      headers: { cookie, range },
      operation,
      signal,
    });
    if (stream.status === 200 || stream.status === 206) return stream;
    discardBody(stream);
    // Where the snapshot is gone, that is why. Any call also finds out that a session has ended, and begins another.
    await this.#stillFrozen(signal);
    if (stream.status === 401) {
      throw vsphereError("UNAVAILABLE", `the session ended while ${what} was read; it was begun anew`, { operation });
    }
    if (stream.status === 429 || stream.status === 503) {
      throw vsphereError("UNAVAILABLE", `the datastore of ${what} answered with status ${stream.status}`, {
        operation,
      });
    }
    const remedy =
      stream.status === 403
        ? "give the account's role Datastore.Browse and Datastore.FileManagement on the datastore"
        : "the file is locked, is no flat file, or lies on vSAN or a virtual volume; use another reader";
    throw vsphereError(
      stream.status === 403 ? "DENIED" : "UNSUPPORTED",
      `the datastore does not give the file of ${what} away (status ${stream.status}): ${remedy}`,
      { operation },
    );
  }

  /** @throws ProviderError NOT_FOUND where the snapshot is gone: then the file is being changed */
  async #stillFrozen(signal: AbortSignal): Promise<void> {
    const { snapshot, machineName } = this.#point;
    const about = `${snapshot.value} of ${machineName}`;
    await readObject(this.#client, snapshot, ["vm"], { signal, about });
  }
}

/** Datastore and path of a snapshot's flat file. @throws ProviderError UNSUPPORTED for a delta and for what is no file */
function flatFileOf(disk: VirtualDisk, point: DiskPoint): { datastore: string; path: string } {
  const { fileName, type, parent } = disk.backing;
  const match = /^\[([^\]]+)\] (.+)\.vmdk$/.exec(fileName ?? "");
  if (type !== "VirtualDiskFlatVer2BackingInfo" || match === null) {
    throw vsphereError("UNSUPPORTED", `${describeDisk(point)} is no flat file on a datastore (${type})`, { operation });
  }
  if (parent !== undefined) {
    throw vsphereError(
      "UNSUPPORTED",
      `${describeDisk(point)} is a delta in this snapshot, since there is another below it`,
      {
        operation,
      },
    );
  }
  return { datastore: match[1] ?? "", path: `${match[2]}-flat.vmdk` };
}

/** The path of a datastore's file at the server. */
function folderPath({ datastore, path }: { datastore: string; path: string }, datacenter: string): string {
  const query = new URLSearchParams({ dcPath: datacenter, dsName: datastore });
  return `/folder/${path.split("/").map(encodeURIComponent).join("/")}?${query.toString().replaceAll("+", "%20")}`;
}

/** The inventory path of a machine's datacenter: `DC0`, or `folder/DC0`. */
async function datacenterOf(client: VimClient, machine: MoRef, wait: Wait): Promise<string> {
  const names: string[] = [];
  const root = client.references.rootFolder.value;
  let inside = false;
  let at: MoRef | undefined = machine;
  for (let level = 0; at !== undefined && at.value !== root && level < mostLevels; level++) {
    const properties = await readObject(client, moRef(at.type, at.value), ["name", "parent"], wait);
    inside ||= at.type === "Datacenter";
    if (inside) names.unshift(properties.string("name") ?? "");
    at = properties.reference("parent");
  }
  if (names.length > 0) return names.join("/");
  throw vsphereError("UNSUPPORTED", `the datacenter of ${machine.value} may not be seen, and files are found by it`, {
    operation,
  });
}
