import * as path from "node:path";
import { ProviderError } from "@diskferry/core/provider";
import type { ImageFile, ImageFiles } from "../../src/qcow2/image-file.ts";

const SECTOR = 512;

type Change = { write: Uint8Array; at: number } | { length: number };

/** One file: what the disk has for certain, what a reader sees, and the changes between the two. */
class LossyInode {
  readonly number: number;
  durable: Uint8Array = new Uint8Array(0);
  seen: Uint8Array = new Uint8Array(0);
  changes: Change[] = [];

  constructor(number: number) {
    this.number = number;
  }
}

function applied(bytes: Uint8Array, change: Change): Uint8Array {
  const end = "length" in change ? change.length : change.at + change.write.byteLength;
  const length = "length" in change ? end : Math.max(bytes.byteLength, end);
  let result = bytes;
  if (length !== bytes.byteLength) {
    result = new Uint8Array(length);
    result.set(bytes.subarray(0, Math.min(length, bytes.byteLength)));
  }
  if (!("length" in change)) result.set(change.write, change.at);
  return result;
}

/**
 * Files in memory that lose things: after a power loss any random subset of the sectors written since a file's last
 * sync is gone, in any order, and so are renames since the folder's. Sectors themselves do not tear.
 */
export class LossyFiles implements ImageFiles {
  /** Bytes that all files together may hold before a write fails with ENOSPC. */
  space: number = Infinity;
  /** How many of the next syncs fail. */
  failingSyncs = 0;
  /** How many more changes the process makes before it dies in the middle of one. */
  changesLeft: number = Infinity;
  #names = new Map<string, LossyInode>();
  #durableNames = new Map<string, LossyInode>();
  #nameChanges: ((names: Map<string, LossyInode>) => void)[] = [];
  #generation = 0;
  #count = 0;

  #inode(file: string): LossyInode {
    const inode = this.#names.get(path.resolve(file));
    if (inode === undefined) throw new ProviderError("NOT_FOUND", `${file} does not exist`);
    return inode;
  }

  #rename(change: (names: Map<string, LossyInode>) => void): void {
    change(this.#names);
    this.#nameChanges.push(change);
  }

  #spend(): void {
    if (--this.changesLeft >= 0) return;
    this.kill();
    throw new Error("the process died");
  }

  /** What a reader of the file sees now. */
  bytes(file: string): Uint8Array {
    return this.#inode(file).seen.slice();
  }

  has(file: string): boolean {
    return this.#names.has(path.resolve(file));
  }

  /** Puts a file there, durable. */
  put(file: string, bytes: Uint8Array): void {
    const inode = new LossyInode(++this.#count);
    inode.durable = bytes.slice();
    inode.seen = bytes.slice();
    this.#names.set(path.resolve(file), inode);
    this.#durableNames.set(path.resolve(file), inode);
  }

  /** The process ends; what it wrote stays, open files are dead. */
  kill(): void {
    this.#generation++;
  }

  /** The power goes: every file keeps a random part of what was not synced. */
  lose(random: () => number): void {
    this.#generation++;
    // Some losses take nearly all, some nearly nothing.
    const kept = random();
    for (const inode of new Set([...this.#names.values(), ...this.#durableNames.values()])) {
      let bytes = inode.durable;
      for (const change of inode.changes) {
        if ("length" in change) {
          if (random() < kept) bytes = applied(bytes, change);
          continue;
        }
        for (let at = 0; at < change.write.byteLength;) {
          const length = Math.min(SECTOR - ((change.at + at) % SECTOR), change.write.byteLength - at);
          const part = { write: change.write.subarray(at, at + length), at: change.at + at };
          if (random() < kept) bytes = applied(bytes, part);
          at += length;
        }
      }
      inode.durable = bytes.slice();
      inode.seen = bytes.slice();
      inode.changes = [];
    }
    // Nothing but a folder's sync orders renames and removals.
    for (const change of this.#nameChanges) if (random() < 0.5) change(this.#durableNames);
    this.#names = new Map(this.#durableNames);
    this.#nameChanges = [];
  }

  async open(file: string, mode: "read" | "write" | "create"): Promise<ImageFile> {
    const at = path.resolve(file);
    if (mode === "create") {
      this.#spend();
      if (this.#names.has(at)) throw new ProviderError("EXISTS", `${file} exists already`);
      const inode = new LossyInode(++this.#count);
      this.#rename((names) => names.set(at, inode));
    }
    return this.#file(file, this.#inode(file));
  }

  #file(file: string, inode: LossyInode): ImageFile {
    const generation = this.#generation;
    const alive = (): void => {
      if (generation !== this.#generation) throw new Error("the process that opened this file is dead");
    };
    const change = (what: Change): void => {
      alive();
      this.#spend();
      const grown = "length" in what ? what.length : what.at + what.write.byteLength;
      let total = Math.max(0, grown - inode.seen.byteLength);
      for (const other of this.#names.values()) total += other.seen.byteLength;
      if (total > this.space) throw new ProviderError("UNAVAILABLE", `${file}: no space left`, { retryable: false });
      inode.seen = applied(inode.seen, what);
      inode.changes.push(what);
    };
    return {
      path: file,
      size: async () => inode.seen.byteLength,
      identity: async () => `lossy:${inode.number}`,
      read: async (into, position) => {
        alive();
        const part = inode.seen.subarray(position, position + into.byteLength);
        into.set(part);
        return part.byteLength;
      },
      write: async (data, position) => change({ write: data.slice(), at: position }),
      truncate: async (length) => change({ length }),
      sync: async () => {
        alive();
        this.#spend();
        if (this.failingSyncs > 0) {
          this.failingSyncs--;
          throw new ProviderError("UNAVAILABLE", `${file}: input/output error`, { retryable: false });
        }
        inode.durable = inode.seen.slice();
        inode.changes = [];
      },
      close: async () => undefined,
    };
  }

  async rename(from: string, to: string): Promise<void> {
    this.#spend();
    const inode = this.#inode(from);
    this.#rename((names) => {
      if (names.get(path.resolve(from)) === inode) names.delete(path.resolve(from));
      names.set(path.resolve(to), inode);
    });
  }

  async remove(file: string): Promise<void> {
    this.#spend();
    const inode = this.#names.get(path.resolve(file));
    this.#rename((names) => {
      if (names.get(path.resolve(file)) === inode) names.delete(path.resolve(file));
    });
  }

  async list(folder: string): Promise<string[]> {
    const at = path.resolve(folder);
    return [...this.#names.keys()].filter((name) => path.dirname(name) === at).map((name) => path.basename(name));
  }

  async syncFolder(): Promise<void> {
    this.#spend();
    this.#durableNames = new Map(this.#names);
    this.#nameChanges = [];
  }
}
