import { randomInt } from "node:crypto";
import { stat } from "node:fs/promises";
import type { Wait } from "@diskferry/core/provider";
import { SlowZeroError, type NbdBackend, type NbdConnectionRequest, type NbdExport } from "@diskferry/nbd";
import { DeviceIo } from "../device/device-io.ts";
import { openDevice, type DevicePlaces, type OpenDevice } from "../device/find-device.ts";
import { cloudstackError } from "../errors.ts";
import type { EpochFile } from "./epoch-file.ts";
import type { OpenReply, OpenRequest } from "./protocol.ts";

/** The unit that a device is served in best, in bytes. */
const PREFERRED = 1024 * 1024;

/** What an NBD server does for the sessions: it ends the connections of older ones. */
export interface Fences {
  /** Resolves when no older connection's write can reach the device any more. */
  fence(exportName: string, epoch: number, wait?: Wait): Promise<void>;
}

interface VolumeSession {
  readonly number: number;
  /** The lease's; undefined for reading. */
  readonly epoch: number | undefined;
  /** SHA-256 of the certificate that asked. */
  readonly holder: string;
  readonly device: OpenDevice;
  readonly io: DeviceIo;
  readonly entry: NbdExport;
}

/**
 * Volumes that are open on this machine, one session of writing and one of reading each. Sessions are numbered; NBD's epoch
 * of an export is the session's number, so that each new session cuts off the one before, whoever had it.
 */
export class VolumeSessions {
  readonly #places: DevicePlaces;
  readonly #epochs: EpochFile;
  readonly #sessions = new Map<string, VolumeSession>();
  readonly #turns = new Map<string, Promise<unknown>>();
  #fences: Fences | undefined;
  /** Begins anywhere, so that a name given out before a restart opens nothing after it. */
  #numbers = randomInt(2 ** 40, 2 ** 47);

  constructor(places: DevicePlaces, epochs: EpochFile) {
    this.#places = places;
    this.#epochs = epochs;
  }

  /** The NBD server is made with the sessions and they with it: it is told here. */
  useFences(fences: Fences): void {
    this.#fences = fences;
  }

  /**
   * Opens the device of an attached volume and ends every older session of it. The same client with the same epoch shares
   * the session as long as its device is still the one.
   * @throws ProviderError FENCED (a newer epoch has begun), IN_USE (another client has this epoch), and what opening a
   * device throws: NOT_FOUND, CONFIG_INVALID (size), UNSUPPORTED (no block device), DENIED
   */
  open(volumeId: string, request: OpenRequest, holder: string, wait: Wait = {}): Promise<OpenReply> {
    const name = nameOf(volumeId, request.mode);
    return this.#inTurn(name, async () => {
      const before = this.#sessions.get(name);
      if (request.mode === "write") await this.#claim(volumeId, request.epoch ?? 0, holder, before);
      if (before !== undefined && before.holder === holder && before.epoch === request.epoch) {
        if (before.io.size === request.size && (await isCurrent(before))) return replyOf(name, before);
      }
      await this.#end(name, wait);
      const device = await openDevice({ id: volumeId, size: request.size }, request.mode, this.#places, wait);
      const io = new DeviceIo(device);
      const entry = { backend: backendOf(io, request.mode), readOnly: request.mode === "read" };
      const session = { number: this.#numbers, epoch: request.epoch, holder, device, io, entry };
      this.#sessions.set(name, session);
      return replyOf(name, session);
    });
  }

  /** Ends a session if it is the client's and the newest. */
  close(volumeId: string, exportName: string, holder: string, wait: Wait = {}): Promise<void> {
    const mode = exportName.startsWith(nameOf(volumeId, "read")) ? "read" : "write";
    const name = nameOf(volumeId, mode);
    return this.#inTurn(name, async () => {
      const session = this.#sessions.get(name);
      if (session === undefined || session.holder !== holder || replyOf(name, session).export !== exportName) return;
      await this.#end(name, wait);
    });
  }

  /** For the NBD server: what stands behind a name. */
  find(exportName: string): NbdExport | undefined {
    return this.#sessions.get(exportName)?.entry;
  }

  /** For the NBD server: only who asked for a session may open it. @throws ProviderError DENIED FENCED */
  authorize({ exportName, epoch, peerCertificate }: NbdConnectionRequest): void {
    const session = this.#sessions.get(exportName);
    if (session !== undefined && epoch !== undefined && epoch < session.number) {
      throw cloudstackError("FENCED", `Session ${epoch} of ${exportName} is over: another one began.`);
    }
    if (
      session === undefined ||
      epoch !== session.number ||
      peerCertificate === undefined ||
      peerCertificate.fingerprint256 !== session.holder
    ) {
      throw cloudstackError(
        "DENIED",
        `This certificate has no session ${String(epoch)} of ${exportName}: ask for it at the control door first.`,
      );
    }
  }

  /** Closes every device, after the NBD server was closed. */
  async dispose(): Promise<void> {
    await Promise.all(this.#turns.values());
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const { io } of sessions) await io.close();
  }

  /** The epoch is durable before anything of the new session begins. */
  async #claim(volumeId: string, epoch: number, holder: string, before: VolumeSession | undefined): Promise<void> {
    const newest = this.#epochs.get(volumeId);
    if (newest !== undefined && epoch < newest) {
      throw cloudstackError(
        "FENCED",
        `Volume ${volumeId} belongs to a newer run (epoch ${newest}); epoch ${epoch} must stop.`,
        { operation: "open" },
      );
    }
    if (before !== undefined && before.epoch === epoch && before.holder !== holder) {
      throw cloudstackError(
        "IN_USE",
        `Volume ${volumeId} is open for epoch ${epoch} with another client's certificate: end that job first.`,
        { operation: "open" },
      );
    }
    if (newest !== epoch) await this.#epochs.set(volumeId, epoch);
  }

  /** Ends a session: its connections after what they have under way, then its device. */
  async #end(name: string, wait: Wait): Promise<void> {
    this.#numbers++;
    const before = this.#sessions.get(name);
    if (before === undefined) return;
    await this.#fences?.fence(name, this.#numbers, wait);
    this.#sessions.delete(name);
    await before.io.close();
  }

  #inTurn<T>(name: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#turns.get(name) ?? Promise.resolve()).then(work);
    const ended = result
      .catch(() => undefined)
      .finally(() => {
        if (this.#turns.get(name) === ended) this.#turns.delete(name);
      });
    this.#turns.set(name, ended);
    return result;
  }
}

function nameOf(volumeId: string, mode: "read" | "write"): string {
  return `${mode}/${volumeId}`;
}

function replyOf(name: string, { number, io }: VolumeSession): OpenReply {
  return { export: `${name}@${number}`, size: io.size, blockSize: io.blockSize };
}

/** Whether the open device still is what the machine shows under its name, and answers. */
async function isCurrent({ device, io }: VolumeSession): Promise<boolean> {
  try {
    const [now, opened] = [await stat(device.path), await device.file.stat()];
    if (now.ino !== opened.ino || now.dev !== opened.dev || now.rdev !== opened.rdev) return false;
    await io.read(0, new Uint8Array(io.blockSize));
    return true;
  } catch {
    // A device that cannot be looked at is none: it is opened anew, and that tells what is wrong.
    return false;
  }
}

function backendOf(io: DeviceIo, mode: "read" | "write"): NbdBackend {
  const served = { size: io.size, blockSize: io.blockSize, preferredLength: PREFERRED, multiConnection: true };
  const read: NbdBackend["read"] = (offset, into, { signal }) => io.read(offset, into, { signal });
  if (mode === "read") return { ...served, readOnly: true, read };
  const settle = async (fua: boolean, signal: AbortSignal): Promise<void> => {
    if (fua) await io.flush({ signal });
  };
  return {
    ...served,
    read,
    async write(offset, data, { fua, signal }) {
      await io.write(offset, data, { signal });
      await settle(fua, signal);
    },
    async zero(offset, length, { fast, noHole, fua, signal }) {
      if (fast) throw new SlowZeroError();
      if (noHole) await io.write(offset, new Uint8Array(length), { signal });
      else await io.zero(offset, length, { signal });
      await settle(fua, signal);
    },
    flush: ({ signal }) => io.flush({ signal }),
  };
}
