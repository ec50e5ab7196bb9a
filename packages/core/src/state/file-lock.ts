import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isProviderError, ProviderError } from "../provider/error.ts";
import type { Wait } from "../provider/wait.ts";
import type { StateFiles } from "./files.ts";
import { isAlive, isProcessIdentity, type ProcessIdentity } from "./process-identity.ts";

/** How long a lock is waited for. Its holders do a few writes, so that more than this means one of them is stuck. */
const patienceMs = 30_000;
const longestPauseMs = 25;

interface LockHolder {
  token: string;
  owner: ProcessIdentity;
}

/**
 * Locks between processes that share a directory, as files.
 *
 * Why this is safe. A lock is held by whoever made its file by `link`, which succeeds for one process alone and shows
 * the whole content at once. A living holder's file is removed by that holder only. A file whose holder is proven dead
 * is removed by whoever holds the lock `break-<its token>`, after looking at the file again: while that lock is held
 * nobody else removes the file, its dead holder least of all, so that what is removed is the very file that was looked
 * at and never a successor's. Tokens are used once. The lock to break with is one of these locks too, hence it is itself
 * broken if its holder dies. A holder nobody can prove dead (on another machine, in another container) keeps its lock:
 * then waiting ends in an error that names the file.
 */
export class FileLocks {
  readonly #files: StateFiles;
  readonly #directory: string;
  readonly #scratch: string;
  readonly #self: ProcessIdentity;
  readonly #patienceMs: number;

  /** `directory` holds the locks, `scratch` files that are being made; both exist, on one file system. */
  constructor(
    files: StateFiles,
    directory: string,
    scratch: string,
    self: ProcessIdentity,
    patience: number = patienceMs,
  ) {
    this.#files = files;
    this.#directory = directory;
    this.#scratch = scratch;
    this.#self = self;
    this.#patienceMs = patience;
  }

  /** Does `step` while holding the lock `name`, a file name. @throws ProviderError UNAVAILABLE when it does not get it. */
  async hold<Result>(name: string, step: () => Promise<Result>, wait?: Wait): Promise<Result> {
    const path = join(this.#directory, name);
    await this.#take(path, Date.now() + this.#patienceMs, wait);
    try {
      return await step();
    } finally {
      await this.#files.remove(path);
    }
  }

  async #take(path: string, deadline: number, wait: Wait | undefined): Promise<void> {
    const token = randomUUID();
    const made = join(this.#scratch, `lock-${token}`);
    try {
      // Durable before it gets its name: a power loss must not leave a lock of which nobody can tell whose it was.
      await this.#files.create(made, Buffer.from(JSON.stringify({ token, owner: this.#self })));
      for (;;) {
        wait?.signal?.throwIfAborted();
        if (await this.#link(made, path)) return;
        const holder = await this.#holder(path);
        if (holder === undefined) continue;
        // A network file system may have lost the answer to a link that succeeded.
        if (holder !== "unreadable" && holder.token === token) return;
        if (holder !== "unreadable" && isAlive(holder.owner, this.#self) === false) {
          await this.#break(path, holder.token, deadline, wait);
          continue;
        }
        if (Date.now() >= deadline) throw stuck(path, holder);
        const pauseMs = 1 + Math.random() * longestPauseMs;
        // The loop begins with the signal's own reason.
        await sleep(pauseMs, undefined, { signal: wait?.signal }).catch(() => undefined);
      }
    } finally {
      // What failed before matters more than a file left behind, which a later opening removes.
      await this.#files.remove(made).catch(() => false);
    }
  }

  async #break(path: string, token: string, deadline: number, wait: Wait | undefined): Promise<void> {
    const guard = join(this.#directory, `break-${token}`);
    await this.#take(guard, deadline, wait);
    try {
      const holder = await this.#holder(path);
      if (holder !== undefined && holder !== "unreadable" && holder.token === token) await this.#files.remove(path);
    } finally {
      await this.#files.remove(guard);
    }
  }

  async #link(from: string, to: string): Promise<boolean> {
    try {
      await this.#files.link(from, to);
      return true;
    } catch (error) {
      if (isProviderError(error) && error.code === "EXISTS") return false;
      throw error;
    }
  }

  async #holder(path: string): Promise<LockHolder | "unreadable" | undefined> {
    const bytes = await this.#files.read(path);
    if (bytes === undefined) return undefined;
    try {
      const { token, owner } = JSON.parse(Buffer.from(bytes).toString()) as Partial<LockHolder>;
      // The token becomes part of a file's name.
      if (typeof token === "string" && /^[0-9a-f-]{36}$/.test(token) && isProcessIdentity(owner))
        return { token, owner };
    } catch {
      // Told by the answer: somebody wrote into it by hand, or the medium failed.
    }
    return "unreadable";
  }
}

function stuck(path: string, holder: LockHolder | "unreadable"): ProviderError {
  const who = holder === "unreadable" ? "somebody unknown" : `process ${holder.owner.pid} on ${holder.owner.host}`;
  return new ProviderError("UNAVAILABLE", `${who} keeps the lock ${path}; if it no longer runs, remove that file`, {
    operation: "lock state",
  });
}
