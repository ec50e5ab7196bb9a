import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { cloudstackError } from "../errors.ts";

/** Volumes that are remembered; the one that was opened longest ago is forgotten first. */
const MOST = 10_000;

/** The newest epoch of each volume, in a file: an appliance that was started again lets no older writer in. */
export class EpochFile {
  readonly #path: string;
  readonly #epochs: Map<string, number>;
  /** Writes take turns. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(path: string, epochs: Map<string, number>) {
    this.#path = path;
    this.#epochs = epochs;
  }

  /** @throws ProviderError CONFIG_INVALID for a file that something else wrote */
  static async open(path: string): Promise<EpochFile> {
    let text: string;
    try {
      text = await readFile(path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return new EpochFile(path, new Map());
      throw error;
    }
    const entries = parse(text);
    if (entries === undefined) {
      throw cloudstackError(
        "CONFIG_INVALID",
        `${path} does not hold the epochs of volumes. Without them an older writer could come back: restore the file, or ` +
          `remove it once no job is under way.`,
        { operation: "appliance" },
      );
    }
    return new EpochFile(path, new Map(entries));
  }

  /** Undefined: nobody has written to the volume here. */
  get(volumeId: string): number | undefined {
    return this.#epochs.get(volumeId);
  }

  /** Resolves when the epoch is durable. */
  async set(volumeId: string, epoch: number): Promise<void> {
    this.#epochs.delete(volumeId);
    this.#epochs.set(volumeId, epoch);
    for (const oldest of this.#epochs.keys()) {
      if (this.#epochs.size <= MOST) break;
      this.#epochs.delete(oldest);
    }
    const written = this.#last.then(() => this.#write());
    this.#last = written.catch(() => undefined);
    await written;
  }

  async #write(): Promise<void> {
    const next = `${this.#path}.new`;
    const file = await open(next, "w", 0o600);
    try {
      await file.writeFile(`${JSON.stringify(Object.fromEntries(this.#epochs))}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(next, this.#path);
    const folder = await open(dirname(this.#path), "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

function parse(text: string): [string, number][] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value as Record<string, unknown>);
  return entries.every((entry): entry is [string, number] => Number.isSafeInteger(entry[1])) ? entries : undefined;
}
