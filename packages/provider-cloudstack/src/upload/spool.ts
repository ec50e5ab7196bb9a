import { type FileHandle, constants, copyFile, mkdir, open, readFile, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { cloudstackError } from "../errors.ts";
import { keyMark, ownName, readOwnName } from "../names.ts";
import { newGeneration, runMark } from "../target/write-state.ts";

/** What is known of a disk that is gathered for an upload. Kept beside its bytes. */
export interface SpoolState {
  /** The key's mark. */
  key: string;
  /** Name of the state's file without its ending: `df-JOB-KEY`. */
  base: string;
  /** For people. */
  label: string | undefined;
  /** Bytes. */
  size: number;
  /** Who writes: absent until it is opened. */
  write: { run: string; epoch: number; generation: string; based: boolean } | undefined;
  /** What was uploaded last, and the generation whose bytes it has. */
  uploaded: { id: string; size: number; generation: string } | undefined;
}

/** Disks that are gathered in a folder of this machine until they are uploaded, each in a sparse raw file. */
export class Spool {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Every disk in the folder. */
  async list(): Promise<SpoolState[]> {
    let names: string[];
    try {
      names = await readdir(this.#folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw spoolFailure(this.#folder, error);
    }
    const states: SpoolState[] = [];
    for (const name of names) {
      if (!name.endsWith(".json") || readOwnName(name.slice(0, -5)) === undefined) continue;
      states.push(JSON.parse(await readFile(join(this.#folder, name), "utf8")) as SpoolState);
    }
    return states;
  }

  /** The disk of a key's mark; undefined: there is none. */
  async find(mark: string): Promise<SpoolState | undefined> {
    return (await this.list()).find(({ key }) => key === mark);
  }

  /** Finds or begins the disk of a key; a larger size makes it grow. */
  async create(key: string, job: string | undefined, label: string | undefined, size: number): Promise<SpoolState> {
    const mark = keyMark("volume", key);
    const known = await this.find(mark);
    if (known !== undefined && known.size >= size) return known;
    const state: SpoolState =
      known === undefined
        ? { key: mark, base: ownName(job, mark), label, size, write: undefined, uploaded: undefined }
        : { ...known, size };
    if (known?.write !== undefined) {
      await using file = await open(this.#dataOf(state.base, known.write.generation), "r+");
      await file.truncate(size);
      await file.sync();
    }
    await this.save(state);
    return state;
  }

  /**
   * Opens the file of a run. Another run begins with one of its own, empty or with the bytes of the upload it starts from,
   * so that what an older worker still writes goes nowhere.
   * @throws ProviderError FENCED; NOT_FOUND when the base's bytes are gone
   */
  async open(
    mark: string,
    { run, epoch, base }: { run: string; epoch: number; base: string | undefined },
  ): Promise<{ state: SpoolState; file: FileHandle }> {
    const state = await this.known(mark);
    const { write } = state;
    refuseOlder(state, epoch);
    const path = write === undefined ? undefined : this.#dataOf(state.base, write.generation);
    if (write !== undefined && path !== undefined && write.run === runMark(run)) {
      const file = await openIfThere(path);
      if (file !== undefined) {
        const now = { ...state, write: { ...write, epoch } };
        await this.save(now);
        return { state: now, file };
      }
    }
    const next = { run: runMark(run), epoch, generation: newGeneration(), based: base !== undefined };
    if (base !== undefined && state.uploaded?.id !== base) {
      throw cloudstackError(
        "NOT_FOUND",
        `The bytes of volume ${base} are not in ${this.#folder}, so no run can start from it. Run a full copy.`,
        { operation: "open" },
      );
    }
    return await this.#begin(state, next);
  }

  /** The run's bytes are given up; its next opening has another generation. */
  async renew({ key, write }: SpoolState): Promise<void> {
    const now = await this.known(key);
    if (write === undefined || now.write?.generation !== write.generation) return;
    if (now.uploaded?.generation === write.generation) return;
    const { file } = await this.#begin(now, { ...write, generation: newGeneration() });
    await file.close();
  }

  async known(mark: string): Promise<SpoolState> {
    const state = await this.find(mark);
    if (state !== undefined) return state;
    throw cloudstackError(
      "NOT_FOUND",
      `There is no disk ${mark} in ${this.#folder}: it was removed, or is in the folder of another machine.`,
      { operation: "open" },
    );
  }

  /** What is known of a disk now, without looking for it. @throws ProviderError NOT_FOUND when it was removed */
  async reread({ base, key }: SpoolState): Promise<SpoolState> {
    try {
      return JSON.parse(await readFile(join(this.#folder, `${base}.json`), "utf8")) as SpoolState;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw spoolFailure(this.#folder, error);
      throw cloudstackError("NOT_FOUND", `Disk ${key} was removed from ${this.#folder}.`, { cause: error });
    }
  }

  /** Replaces what is known of a disk; durable when it resolves. */
  async save(state: SpoolState): Promise<void> {
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      const path = join(this.#folder, `${state.base}.json`);
      {
        await using file = await open(`${path}.new`, "w", 0o600);
        await file.writeFile(JSON.stringify(state));
        await file.sync();
      }
      await rename(`${path}.new`, path);
      await using folder = await open(this.#folder, "r");
      await folder.sync();
    } catch (error) {
      throw spoolFailure(this.#folder, error);
    }
  }

  /** Removes a disk. Idempotent. */
  async remove(mark: string): Promise<void> {
    const state = await this.find(mark);
    if (state === undefined) return;
    await this.#sweep(state.base, []);
    await rm(join(this.#folder, `${state.base}.json`), { force: true });
  }

  async #begin(
    state: SpoolState,
    write: NonNullable<SpoolState["write"]>,
  ): Promise<{ state: SpoolState; file: FileHandle }> {
    const path = this.#dataOf(state.base, write.generation);
    if (write.based && state.uploaded !== undefined)
      await copyFile(this.#dataOf(state.base, state.uploaded.generation), path, constants.COPYFILE_FICLONE);
    const file = await open(path, write.based ? "r+" : "wx+", 0o600);
    try {
      await file.truncate(state.size);
      await file.sync();
      const now = { ...state, write };
      await this.save(now);
      await this.#sweep(state.base, [write.generation, state.uploaded?.generation]);
      return { state: now, file };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Removes the files of generations that are over. */
  async #sweep(base: string, but: readonly (string | undefined)[]): Promise<void> {
    const kept = but.map((generation) => `${base}.${generation}.raw`);
    for (const name of await readdir(this.#folder)) {
      if (!name.startsWith(`${base}.`) || !name.endsWith(".raw") || kept.includes(name)) continue;
      await rm(join(this.#folder, name), { force: true });
    }
  }

  #dataOf(base: string, generation: string): string {
    return join(this.#folder, `${base}.${generation}.raw`);
  }
}

/** @throws ProviderError FENCED where a newer epoch was seen */
export function refuseOlder({ key, write }: SpoolState, epoch: number): void {
  if (write === undefined || write.epoch <= epoch) return;
  throw cloudstackError("FENCED", `Disk ${key} belongs to a newer run (epoch ${write.epoch}); this one must stop.`, {
    operation: "open",
  });
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r+");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function spoolFailure(folder: string, error: unknown): Error {
  const { code = "" } = error as NodeJS.ErrnoException;
  return cloudstackError("CONFIG_INVALID", `The folder ${folder} (spool) cannot be used: ${code}.`, { cause: error });
}
