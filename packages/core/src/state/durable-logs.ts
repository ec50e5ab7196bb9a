import { dirname } from "node:path";
import { ProviderError } from "../provider/error.ts";
import type { AppendFile, StateFiles } from "./files.ts";

/** Logs kept open between appends. */
const openLogs = 16;

/** Logs by path, each appended to by one call at a time and kept open between them, the most recent ones. */
export class DurableLogs {
  readonly #files: StateFiles;
  readonly #open = new Map<string, AppendFile>();
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Logs whose end is not known after a failure: what is appended behind it would be taken for damage. */
  readonly #broken = new Set<string>();

  readonly #ensureDirectory: (path: string) => Promise<void>;

  /** `ensureDirectory` makes the directory of a new log durably. */
  constructor(files: StateFiles, ensureDirectory: (path: string) => Promise<void>) {
    this.#files = files;
    this.#ensureDirectory = ensureDirectory;
  }

  append(path: string, bytes: Uint8Array): Promise<void> {
    return this.#inTurn(path, async () => {
      if (this.#broken.has(path)) {
        throw new ProviderError("UNAVAILABLE", `an earlier append to ${path} failed half-way; start the run again`, {
          operation: "state append to",
          retryable: false,
        });
      }
      const file = await this.#opened(path);
      const length = file.length;
      try {
        await file.append(bytes);
      } catch (error) {
        // What was written of it must not stay in front of later frames.
        await file.truncate(length).catch(() => this.#broken.add(path));
        throw error;
      }
    });
  }

  /** Removes a log; resolves with whether there was one. */
  remove(path: string): Promise<boolean> {
    return this.#inTurn(path, async () => {
      await this.#close(path);
      this.#broken.delete(path);
      return await this.#files.remove(path);
    });
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#turns.values()]);
    for (const path of [...this.#open.keys()]) await this.#close(path);
  }

  async #opened(path: string): Promise<AppendFile> {
    let file = this.#open.get(path);
    if (file === undefined) {
      await this.#ensureDirectory(dirname(path));
      file = await this.#files.open(path);
      // Its name may be new: an append is durable only where its file can be found again.
      await this.#files.syncDirectory(dirname(path));
    }
    this.#open.delete(path);
    this.#open.set(path, file);
    for (const other of [...this.#open.keys()]) {
      if (this.#open.size <= openLogs) break;
      if (other !== path && !this.#turns.has(other)) await this.#close(other);
    }
    return file;
  }

  async #close(path: string): Promise<void> {
    const file = this.#open.get(path);
    this.#open.delete(path);
    await file?.close();
  }

  #inTurn<Result>(path: string, step: () => Promise<Result>): Promise<Result> {
    const result = (this.#turns.get(path) ?? Promise.resolve()).then(step);
    const settled = result
      .catch(() => undefined)
      .then(() => {
        if (this.#turns.get(path) === settled) this.#turns.delete(path);
      });
    this.#turns.set(path, settled);
    return result;
  }
}
