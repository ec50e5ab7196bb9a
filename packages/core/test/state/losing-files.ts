import { posix } from "node:path";
import type { AppendFile, DirectoryEntry, StateFiles } from "../../src/state/files.ts";
import { fileError } from "../../src/state/file-error.ts";
import type { ProcessIdentity } from "../../src/state/process-identity.ts";

/** Bytes that a medium writes at once; a write that the power loss tears loses whole ones. */
const sector = 512;

interface FileNode {
  kind: "file";
  data: Buffer;
  /** What is certainly there after a power loss. */
  durable: Buffer;
  /** What was done since: each of it survives or not, on its own, whole or in part. */
  pending: ({ at: number; bytes: Buffer } | { cutTo: number })[];
  modifiedAt: number;
}

interface DirectoryNode {
  kind: "directory";
  entries: Map<string, Node>;
  durable: Map<string, Node>;
  /** Per name, what it stood for since the directory was made durable. */
  pending: Map<string, (Node | undefined)[]>;
}

type Node = FileNode | DirectoryNode;

/**
 * A file system in memory whose power can be cut at any step. After `restart` any random subset of what was written and
 * of the names that were given since the last flush is lost: data in sectors, a name independently of its neighbours.
 * Every step after the cut rejects, also those of stores opened before.
 */
export class LosingFiles implements StateFiles {
  /** The identity of a process of this start of the machine; give it to `openDirectoryState`. */
  readonly identity: ProcessIdentity;
  /** Steps done so far: one per call, several for an append. */
  steps = 0;
  /** Bytes that still fit; the next write that does not fit rejects as a full file system does, half of it written. */
  room: number = Infinity;
  /** How many of the next flushes reject as on a failing medium. */
  failingFlushes = 0;
  readonly #random: () => number;
  readonly #root: DirectoryNode;
  readonly #starts: number;
  #cutAt = Infinity;

  constructor(random: () => number, root: DirectoryNode = emptyDirectory(), starts = 1) {
    this.#random = random;
    this.#root = root;
    this.#starts = starts;
    this.identity = { host: "losing", boot: `start ${starts}`, pid: process.pid };
  }

  /** Cuts the power at the step that many from now; 0: at once. */
  cutAfter(steps: number): void {
    this.#cutAt = this.steps + steps;
  }

  get isCut(): boolean {
    return this.steps >= this.#cutAt;
  }

  /** What a machine finds that starts again. Cuts the power if that did not happen yet. */
  restart(): LosingFiles {
    this.cutAfter(0);
    return new LosingFiles(this.#random, this.#survivorOf(this.#root, new Map()), this.#starts + 1);
  }

  async read(path: string): Promise<Uint8Array | undefined> {
    this.#step();
    const node = this.#find(path);
    if (node?.kind === "directory") throw this.#failure("EISDIR", "read", path);
    return node && Uint8Array.from(node.data);
  }

  async *pieces(path: string): AsyncIterable<Uint8Array> {
    const data = await this.read(path);
    for (let at = 0; data !== undefined && at < data.length;) {
      const length = 1 + Math.floor(this.#random() * 5000);
      yield data.slice(at, at + length);
      at += length;
    }
  }

  async create(path: string, bytes: Uint8Array): Promise<void> {
    this.#step();
    const [directory, name] = this.#place(path, "write");
    if (directory.entries.has(name)) throw this.#failure("EEXIST", "write", path);
    const node: FileNode = {
      kind: "file",
      data: Buffer.alloc(0),
      durable: Buffer.alloc(0),
      pending: [],
      modifiedAt: 0,
    };
    this.#name(directory, name, node);
    await this.#write(node, bytes, path);
    await this.#flush(node, path);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step();
    const [source, sourceName] = this.#place(from, "rename");
    const node = source.entries.get(sourceName);
    if (node === undefined) throw this.#failure("ENOENT", "rename", from);
    const [target, targetName] = this.#place(to, "rename");
    this.#name(target, targetName, node);
    this.#name(source, sourceName, undefined);
    this.#step();
  }

  async link(from: string, to: string): Promise<void> {
    this.#step();
    const node = this.#find(from);
    const [target, name] = this.#place(to, "link");
    if (node === undefined) throw this.#failure("ENOENT", "link", from);
    if (target.entries.has(name)) throw this.#failure("EEXIST", "link", to);
    this.#name(target, name, node);
    this.#step();
  }

  async remove(path: string): Promise<boolean> {
    this.#step();
    if (this.#find(posix.dirname(path)) === undefined) return false;
    const [directory, name] = this.#place(path, "remove");
    if (!directory.entries.has(name)) return false;
    this.#name(directory, name, undefined);
    this.#step();
    return true;
  }

  async open(path: string): Promise<AppendFile> {
    this.#step();
    const [directory, name] = this.#place(path, "append to");
    let node = directory.entries.get(name);
    if (node === undefined) {
      node = { kind: "file", data: Buffer.alloc(0), durable: Buffer.alloc(0), pending: [], modifiedAt: Date.now() };
      this.#name(directory, name, node);
    }
    if (node.kind === "directory") throw this.#failure("EISDIR", "append to", path);
    const file = node;
    return {
      get length() {
        return file.data.length;
      },
      append: async (bytes) => {
        this.#step();
        await this.#write(file, bytes, path);
        await this.#flush(file, path);
      },
      truncate: async (length) => {
        this.#step();
        file.data = file.data.subarray(0, length);
        file.pending.push({ cutTo: length });
        await this.#flush(file, path);
      },
      close: async () => {},
    };
  }

  async makeDirectory(path: string): Promise<boolean> {
    this.#step();
    const [parent, name] = this.#place(path, "make the directory");
    const found = parent.entries.get(name);
    if (found?.kind === "file") throw this.#failure("ENOTDIR", "make the directory", path);
    if (found !== undefined) return false;
    this.#name(parent, name, emptyDirectory());
    this.#step();
    return true;
  }

  async *list(path: string): AsyncIterable<DirectoryEntry> {
    this.#step();
    const node = this.#find(path);
    if (node?.kind !== "directory") return;
    for (const [name, { kind }] of [...node.entries]) yield { name, directory: kind === "directory" };
  }

  async syncDirectory(path: string): Promise<void> {
    this.#step();
    const node = path === "/" ? this.#root : this.#find(path);
    if (node?.kind !== "directory") throw this.#failure("ENOENT", "make durable", path);
    this.#mayFail(path);
    node.durable = new Map(node.entries);
    node.pending.clear();
    this.#step();
  }

  async touch(path: string): Promise<void> {
    this.#step();
    const node = this.#find(path);
    if (node?.kind !== "file") throw this.#failure("ENOENT", "touch", path);
    node.modifiedAt = Date.now();
  }

  async modifiedAt(path: string): Promise<number | undefined> {
    this.#step();
    const node = this.#find(path);
    return node?.kind === "file" ? node.modifiedAt : undefined;
  }

  /** Damages a file for good: `change` gets its content and gives another one. */
  damage(path: string, change: (content: Buffer) => Buffer): void {
    const node = this.#find(path);
    if (node?.kind !== "file") throw new Error(`no file ${path}`);
    node.data = node.durable = change(Buffer.from(node.data));
    node.pending = [];
  }

  /** Every file there is now. */
  paths(node: DirectoryNode = this.#root, path = ""): string[] {
    return [...node.entries].flatMap(([name, below]) =>
      below.kind === "file" ? [`${path}/${name}`] : this.paths(below, `${path}/${name}`),
    );
  }

  async #write(node: FileNode, bytes: Uint8Array, path: string): Promise<void> {
    // Two pieces, so that the cut may come between them.
    const half = Math.ceil(bytes.byteLength / 2);
    for (const piece of [bytes.subarray(0, half), bytes.subarray(half)]) {
      const fits = Buffer.from(piece.subarray(0, Math.min(piece.byteLength, this.room)));
      this.room -= fits.length;
      node.pending.push({ at: node.data.length, bytes: fits });
      node.data = Buffer.concat([node.data, fits]);
      node.modifiedAt = Date.now();
      if (fits.length < piece.byteLength) throw this.#failure("ENOSPC", "write", path);
      this.#step();
    }
  }

  async #flush(node: FileNode, path: string): Promise<void> {
    this.#step();
    this.#mayFail(path);
    node.durable = Buffer.from(node.data);
    node.pending = [];
    // Durable, and the one who asked for it may still not get to know.
    this.#step();
  }

  #mayFail(path: string): void {
    if (this.failingFlushes === 0) return;
    this.failingFlushes--;
    throw this.#failure("EIO", "make durable", path);
  }

  #step(): void {
    if (this.isCut) throw new Error("the power is off");
    this.steps++;
    if (this.isCut) throw new Error("the power went off");
  }

  #name(directory: DirectoryNode, name: string, node: Node | undefined): void {
    if (node === undefined) directory.entries.delete(name);
    else directory.entries.set(name, node);
    const pending = directory.pending.get(name) ?? [];
    pending.push(node);
    directory.pending.set(name, pending);
  }

  /** `known`: survivors by what they survive of, as one file may have several names. */
  #survivorOf(node: DirectoryNode, known: Map<Node, Node>): DirectoryNode {
    const survivor = emptyDirectory();
    for (const name of new Set([...node.durable.keys(), ...node.pending.keys()])) {
      const candidates = [node.durable.get(name), ...(node.pending.get(name) ?? [])];
      const chosen = candidates[Math.floor(this.#random() * candidates.length)];
      if (chosen === undefined) continue;
      const kept =
        known.get(chosen) ?? (chosen.kind === "file" ? this.#fileSurvivor(chosen) : this.#survivorOf(chosen, known));
      known.set(chosen, kept);
      survivor.entries.set(name, kept);
      survivor.durable.set(name, kept);
    }
    return survivor;
  }

  #fileSurvivor(node: FileNode): FileNode {
    let data = Buffer.from(node.durable);
    for (const change of node.pending) {
      if (this.#random() < 0.4) continue;
      if ("cutTo" in change) {
        data = data.subarray(0, change.cutTo);
        continue;
      }
      const grown = Buffer.alloc(Math.max(data.length, change.at + change.bytes.length));
      data.copy(grown);
      const whole = this.#random() < 0.5;
      for (let at = 0; at < change.bytes.length; at += sector) {
        if (whole || this.#random() < 0.5) change.bytes.copy(grown, change.at + at, at, at + sector);
      }
      const length = data.length + Math.floor(this.#random() * (grown.length - data.length));
      data = this.#random() < 0.2 ? grown.subarray(0, length) : grown;
    }
    return { kind: "file", data, durable: Buffer.from(data), pending: [], modifiedAt: node.modifiedAt };
  }

  #find(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const name of path.split("/").slice(1)) {
      if (node?.kind !== "directory") return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  #place(path: string, operation: string): [DirectoryNode, string] {
    const parent = posix.dirname(path) === "/" ? this.#root : this.#find(posix.dirname(path));
    if (parent?.kind !== "directory") throw this.#failure(parent ? "ENOTDIR" : "ENOENT", operation, path);
    return [parent, posix.basename(path)];
  }

  #failure(code: string, operation: string, path: string): unknown {
    return fileError(Object.assign(new Error(`${code}, simulated`), { code }), operation, path);
  }
}

function emptyDirectory(): DirectoryNode {
  return { kind: "directory", entries: new Map(), durable: new Map(), pending: new Map() };
}
