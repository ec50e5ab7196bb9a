import { createHash, randomUUID } from "node:crypto";
import { dirname, join, resolve } from "node:path";
import { crc32 } from "node:zlib";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { Json } from "../provider/extents.ts";
import type { Wait } from "../provider/wait.ts";
import { DurableLogs } from "./durable-logs.ts";
import { directoriesOfParts, type FileKind, fileOfKey, keyOfFile } from "./file-name.ts";
import { FileLocks } from "./file-lock.ts";
import type { StateFiles } from "./files.ts";
import { changedMeanwhile, givenBack, superseded } from "./memory-state-store.ts";
import { nodeFiles } from "./node-files.ts";
import { isAlive, isProcessIdentity, ownIdentity, type ProcessIdentity } from "./process-identity.ts";
import { checkKey, stateKey } from "./state-key.ts";
import { checkFormat } from "./state-format.ts";
import type { Lease, PreviousLease, SetOptions, StateRecord, StateStore } from "./state-store.ts";

/** Directories known to exist durably that are remembered, before all are forgotten. */
const directoriesRemembered = 10_000;
/** Files being made that are older than this were left by a crash. */
const leftOverMs = 24 * 60 * 60 * 1000;

export interface DirectoryStateOptions extends Wait {
  /** The file system below; tests give one that loses power. Default: this machine's. */
  files?: StateFiles | undefined;
  /** Who this process is; tests give one of a machine that was restarted. */
  identity?: ProcessIdentity | undefined;
}

/**
 * Opens a directory as state store, made where it does not exist. Many processes may share it.
 * @throws ProviderError CORRUPT or UNSUPPORTED for a state directory this version cannot read, CONFIG_INVALID for a
 * directory of something else, DENIED without the rights; nothing was touched then.
 */
export async function openDirectoryState(path: string, options: DirectoryStateOptions = {}): Promise<StateStore> {
  options.signal?.throwIfAborted();
  const root = resolve(path);
  const files = options.files ?? nodeFiles;
  const durable = new DurableDirectories(files, root);
  await durable.ensure(root);
  await checkFormat(files, root);
  for (const name of ["keys", "leases", "locks", "new"]) await durable.ensure(join(root, name));
  await removeLeftOvers(files, join(root, "new"));
  return new DirectoryStateStore(root, files, durable, options.identity ?? ownIdentity());
}

/** State in a directory: one file per key, written anew and renamed into place, or appended to for a log. */
class DirectoryStateStore implements StateStore {
  readonly #root: string;
  readonly #files: StateFiles;
  readonly #directories: DurableDirectories;
  readonly #self: ProcessIdentity;
  readonly #locks: FileLocks;
  readonly #logs: DurableLogs;
  /** By lock: the last of this process's calls that wait for it, so that they queue here instead of polling a file. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(root: string, files: StateFiles, directories: DurableDirectories, self: ProcessIdentity) {
    this.#root = root;
    this.#files = files;
    this.#directories = directories;
    this.#self = self;
    this.#locks = new FileLocks(files, join(root, "locks"), join(root, "new"), self);
    this.#logs = new DurableLogs(files, (path) => directories.ensure(path));
  }

  async get(key: string, wait?: Wait): Promise<StateRecord | undefined> {
    wait?.signal?.throwIfAborted();
    return await this.#readRecord(this.#path(key, "json"));
  }

  async set(key: string, value: Json, options: SetOptions): Promise<string> {
    const path = this.#path(key, "json");
    return await this.#locked(path, options, async () => {
      const found = await this.#readRecord(path);
      if ((found?.revision ?? null) !== options.revision) throw changedMeanwhile(key);
      return await this.#writeRecord(path, value);
    });
  }

  async delete(key: string, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    const [record, log] = [this.#path(key, "json"), this.#path(key, "log")];
    await this.#files.remove(this.#path(key, "blob"));
    if ((await this.#files.modifiedAt(record)) !== undefined) {
      await this.#locked(record, wait, async () => {
        if (await this.#files.remove(record)) await this.#files.syncDirectory(dirname(record));
      });
    }
    if (await this.#logs.remove(log)) await this.#files.syncDirectory(dirname(log));
  }

  async *list(prefix: string, wait?: Wait): AsyncIterable<string> {
    const parts = prefix.split("/").slice(0, -1);
    if (parts.length > 0) checkKey(parts.join("/"));
    const names = directoriesOfParts(parts);
    for await (const key of this.#keysBelow(names, wait)) if (key.startsWith(prefix)) yield key;
  }

  async put(key: string, bytes: Uint8Array, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    await this.#replace(this.#path(key, "blob"), bytes);
  }

  async bytes(key: string, wait?: Wait): Promise<Uint8Array | undefined> {
    wait?.signal?.throwIfAborted();
    return await this.#files.read(this.#path(key, "blob"));
  }

  async append(key: string, bytes: Uint8Array, wait?: Wait): Promise<void> {
    wait?.signal?.throwIfAborted();
    await this.#logs.append(this.#path(key, "log"), bytes);
  }

  async *log(key: string, wait?: Wait): AsyncIterable<Uint8Array> {
    for await (const piece of this.#files.pieces(this.#path(key, "log"))) {
      wait?.signal?.throwIfAborted();
      yield piece;
    }
  }

  async acquire(job: string, wait?: Wait): Promise<Lease> {
    const path = join(this.#root, "leases", ...fileOfKey(stateKey(job), "json"));
    return await this.#locked(path, wait, async () => {
      const before = await this.#readLease(path);
      const previous: PreviousLease | undefined = before && {
        epoch: before.epoch,
        released: before.released,
        alive: isAlive(before.owner, this.#self),
        seenAt: new Date((await this.#files.modifiedAt(path)) ?? 0).toISOString(),
      };
      const epoch = (before?.epoch ?? 0) + 1;
      await this.#writeRecord(path, { epoch, owner: this.#self, released: false });
      return this.#lease(job, path, epoch, previous);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#logs.close();
  }

  #lease(job: string, path: string, epoch: number, previous: PreviousLease | undefined): Lease {
    const release = async (): Promise<void> => {
      await this.#locked(path, undefined, async () => {
        const now = await this.#readLease(path);
        if (now?.epoch !== epoch || now.released) return;
        await this.#writeRecord(path, { epoch, owner: now.owner, released: true });
      });
    };
    const check = async (wait?: Wait): Promise<void> => {
      wait?.signal?.throwIfAborted();
      const now = await this.#readLease(path);
      if (now === undefined || now.epoch !== epoch) throw superseded(job, epoch, now?.epoch);
      if (now.released) throw givenBack(job, epoch);
      await this.#files.touch(path);
    };
    return { job, epoch, ...(previous && { previous }), check, release, [Symbol.asyncDispose]: release };
  }

  #path(key: string, kind: FileKind): string {
    return join(this.#root, "keys", ...fileOfKey(checkKey(key), kind));
  }

  async *#keysBelow(names: string[], wait: Wait | undefined): AsyncGenerator<string, void, undefined> {
    for await (const entry of this.#files.list(join(this.#root, "keys", ...names))) {
      wait?.signal?.throwIfAborted();
      const below = [...names, entry.name];
      const key = entry.directory ? undefined : keyOfFile(below);
      if (entry.directory) yield* this.#keysBelow(below, wait);
      else if (key !== undefined) yield key;
    }
  }

  async #readLease(path: string): Promise<{ epoch: number; owner: ProcessIdentity; released: boolean } | undefined> {
    const record = await this.#readRecord(path);
    if (record === undefined) return undefined;
    const { epoch, owner, released } = record.value as { epoch?: unknown; owner?: unknown; released?: unknown };
    if (!Number.isSafeInteger(epoch) || !isProcessIdentity(owner)) throw unreadable(path);
    return { epoch: Number(epoch), owner, released: released === true };
  }

  async #readRecord(path: string): Promise<StateRecord | undefined> {
    const bytes = await this.#files.read(path);
    if (bytes === undefined) return undefined;
    try {
      const { revision, check, value } = JSON.parse(Buffer.from(bytes).toString()) as { [member: string]: unknown };
      if (typeof revision === "string" && value !== undefined && check === crc32(JSON.stringify(value))) {
        return { value: value as Json, revision };
      }
    } catch (error) {
      throw unreadable(path, error);
    }
    throw unreadable(path);
  }

  async #writeRecord(path: string, value: Json): Promise<string> {
    const revision = randomUUID();
    const text = JSON.stringify(value);
    await this.#replace(path, Buffer.from(`{"revision":"${revision}","check":${crc32(text)},"value":${text}}\n`));
    return revision;
  }

  /** Puts a file in place: after a power loss there is the one before or this one, and this one once it resolved. */
  async #replace(path: string, bytes: Uint8Array): Promise<void> {
    await this.#directories.ensure(dirname(path));
    const made = join(this.#root, "new", randomUUID());
    try {
      await this.#files.create(made, bytes);
      await this.#files.rename(made, path);
    } catch (error) {
      // What failed matters more than a file left behind, which the next opening removes.
      await this.#files.remove(made).catch(() => false);
      throw error;
    }
    await this.#files.syncDirectory(dirname(path));
  }

  async #locked<Result>(path: string, wait: Wait | undefined, step: () => Promise<Result>): Promise<Result> {
    wait?.signal?.throwIfAborted();
    const name = createHash("sha256").update(path.slice(this.#root.length)).digest("hex").slice(0, 32);
    const before = this.#turns.get(name);
    const turn = (async () => {
      await before?.catch(() => undefined);
      return await this.#locks.hold(name, step, wait);
    })();
    this.#turns.set(name, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(name) === turn) this.#turns.delete(name);
    }
  }
}

/** Makes directories below a state directory so that they survive a power loss, whoever made them first. */
class DurableDirectories {
  readonly #files: StateFiles;
  readonly #root: string;
  readonly #known = new Set<string>();

  constructor(files: StateFiles, root: string) {
    this.#files = files;
    this.#root = root;
  }

  async ensure(path: string): Promise<void> {
    if (this.#known.has(path)) return;
    if (path === this.#root) await this.#makeRoot(path);
    else {
      await this.ensure(dirname(path));
      await this.#files.makeDirectory(path);
      // Even if it existed: another process may have made it just now and not have come to this yet.
      await this.#files.syncDirectory(dirname(path));
    }
    if (this.#known.size >= directoriesRemembered) this.#known.clear();
    this.#known.add(path);
  }

  /** The state directory and what is missing above it; what exists there is none of ours and may not be readable. */
  async #makeRoot(path: string): Promise<void> {
    let made: boolean;
    try {
      made = await this.#files.makeDirectory(path);
    } catch (error) {
      if (!isProviderError(error) || error.code !== "NOT_FOUND" || dirname(path) === path) throw error;
      await this.#makeRoot(dirname(path));
      made = await this.#files.makeDirectory(path);
    }
    if (made) await this.#files.syncDirectory(dirname(path));
  }
}

async function removeLeftOvers(files: StateFiles, directory: string): Promise<void> {
  for await (const { name } of files.list(directory)) {
    const path = join(directory, name);
    const modifiedAt = await files.modifiedAt(path);
    if (modifiedAt !== undefined && Date.now() - modifiedAt > leftOverMs) await files.remove(path);
  }
}

function unreadable(path: string, cause?: unknown): ProviderError {
  return new ProviderError(
    "CORRUPT",
    `the state file ${path} is damaged; restore the state directory from a backup, or begin the job anew in another one`,
    { operation: "read state", cause },
  );
}
