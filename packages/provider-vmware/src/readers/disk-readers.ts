import {
  type BlockReader,
  type DiskSnapshot,
  isProviderError,
  type ProviderErrorCode,
  type Wait,
} from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { ReaderName } from "../options.ts";
import { describeDisk, type DiskPoint } from "../source/disk-point.ts";
import { type HostFacts, readHost } from "../preflight/place-facts.ts";
import { readObject } from "../vim/property-collector.ts";
import type { MoRef } from "../vim/moref.ts";
import type { VirtualDisk } from "../vim/virtual-disk.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { openFolderReader } from "./folder-reader.ts";
import { NfcBudget } from "./nfc-budget.ts";
import { transportsOf } from "./nbdkit-command.ts";
import { openNfcReader } from "./nfc-reader.ts";
import { heedPower } from "./power-heeding-reader.ts";
import { decrypts, lookAtLibrary, readersOf } from "./reader-fitness.ts";
import { openVddkReader } from "./vddk-reader.ts";

/** What a reader is opened with. */
export interface ReaderRequest extends Wait {
  readonly connection: VsphereConnection;
  readonly point: DiskPoint;
  /** The disk as the snapshot froze it. */
  readonly disk: VirtualDisk;
  /** The host that the machine is on, for what its NFC server bears. */
  readonly host: string;
  readonly budget: NfcBudget;
}

/**
 * A way to read a disk of a snapshot.
 *
 * @throws ProviderError UNSUPPORTED, CONFIG_INVALID, DENIED, or UNAVAILABLE that is not retryable, where this way does not
 * lead there and another may
 */
export type OpenReader = (request: ReaderRequest) => Promise<BlockReader>;

const ways: Readonly<Record<ReaderName, OpenReader>> = {
  vddk: openVddkReader,
  nfc: openNfcReader,
  folder: openFolderReader,
};

const anotherMayWork: ReadonlySet<ProviderErrorCode> = new Set(["UNSUPPORTED", "CONFIG_INVALID", "DENIED"]);
const mostRemembered = 10_000;

/** Opens disks by the first way of the preference that leads there, and says which. */
export class DiskReaders {
  readonly #connection: VsphereConnection;
  readonly #budget: NfcBudget;
  readonly #order: readonly ReaderName[];
  /** By disk snapshot: a disk that was begun to be read one way goes on so, since an export cannot go back. */
  readonly #chosen = new Map<string, ReaderName>();

  constructor(connection: VsphereConnection) {
    this.#connection = connection;
    this.#budget = new NfcBudget(connection.options.readersPerHost);
    this.#order = readersOf(connection);
  }

  /**
   * Opens a disk of a snapshot.
   *
   * @throws ProviderError UNSUPPORTED where no way leads there, with the reason of each
   */
  async open(snapshot: DiskSnapshot, point: DiskPoint, disk: VirtualDisk, wait: Wait): Promise<BlockReader> {
    const ref = await this.#hostOf(point, wait);
    const host = ref?.value ?? "unknown";
    const request = { connection: this.#connection, point, disk, host, budget: this.#budget, ...wait };
    const known = this.#chosen.get(snapshot.id);
    if (known !== undefined) return heedPower(await this.#again(known, request), this.#connection, point);
    const reasons: string[] = [];
    for (const name of this.#order) {
      const unfit = name === "vddk" ? await this.#unfit(ref, wait) : undefined;
      if (unfit !== undefined) {
        reasons.push(`${name}: ${unfit}`);
        continue;
      }
      try {
        const reader = await openBy(name, request);
        this.#remember(snapshot.id, name);
        const passed = reasons.length === 0 ? "" : `, after ${reasons.join("; ")}`;
        this.#connection.notice(
          `${describeDisk(point)} is read by ${name} (${transportOf(name, this.#connection)})${passed}`,
        );
        return heedPower(reader, this.#connection, point);
      } catch (error) {
        wait.signal?.throwIfAborted();
        const permanent = isProviderError(error) && (anotherMayWork.has(error.code) || isBlocked(error));
        if (!permanent) throw error;
        reasons.push(`${name}: ${error.message}`);
      }
    }
    throw vsphereError(
      "UNSUPPORTED",
      `${describeDisk(point)} can be read by none of the readers. ${reasons.join("; ")}`,
      {
        operation: "open",
      },
    );
  }

  /** Opens a disk once more; what worked before is worth another try, whatever stands in its way now. */
  async #again(name: ReaderName, request: ReaderRequest): Promise<BlockReader> {
    try {
      return await openBy(name, request);
    } catch (error) {
      if (!isProviderError(error) || !isBlocked(error)) throw error;
      throw vsphereError("UNAVAILABLE", error.message, { operation: "open", retryable: true, cause: error });
    }
  }

  async #hostOf({ machine, machineName }: DiskPoint, wait: Wait): Promise<MoRef | undefined> {
    const about = { ...wait, about: machineName };
    const properties = await readObject(this.#connection.client, machine, ["runtime.host"], about);
    return properties.reference("runtime.host");
  }

  /** Why VMware's library is not to be begun with: one that does not fit the hosts may open a disk and then not read it. */
  async #unfit(host: MoRef | undefined, wait: Wait): Promise<string | undefined> {
    const { means = {}, client } = this.#connection;
    const hosts: HostFacts[] = host === undefined ? [] : [await readHost(client, host, wait)];
    const { obstacles } = await lookAtLibrary(this.#connection, hosts, means, wait);
    if (obstacles.length === 0) return undefined;
    return obstacles.map(({ message, remedy }) => `${message}; ${remedy}`).join("; ");
  }

  #remember(id: string, name: ReaderName): void {
    const [oldest] = this.#chosen.keys();
    if (this.#chosen.size >= mostRemembered && oldest !== undefined) this.#chosen.delete(oldest);
    this.#chosen.set(id, name);
  }
}

/**
 * Opens a disk one way. Files on a datastore hold an encrypted disk as it lies there, and an export is not promised to decrypt
 * either: such bytes would pass for the disk's.
 */
async function openBy(name: ReaderName, request: ReaderRequest): Promise<BlockReader> {
  if (decrypts(name) || !request.disk.backing.encrypted) return ways[name](request);
  throw vsphereError("UNSUPPORTED", `${describeDisk(request.point)} is encrypted, and only vddk decrypts`, {
    operation: "open",
  });
}

/** How a reader's bytes travel, for people. Which of several transports VMware's library took it does not tell. */
function transportOf(name: ReaderName, { client, options }: VsphereConnection): string {
  if (name !== "vddk") return client.http.origin.protocol === "https:" ? "HTTPS" : "HTTP";
  const transports = transportsOf(options.vddk ?? {});
  return transports.includes(":") ? `the first of the transports ${transports} that works` : `transport ${transports}`;
}

/** A port that is closed stays closed, however often it is tried. */
function isBlocked(error: { code: ProviderErrorCode; retryable: boolean }): boolean {
  return error.code === "UNAVAILABLE" && !error.retryable;
}
