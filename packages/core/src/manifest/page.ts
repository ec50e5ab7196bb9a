import { ProviderError } from "../provider/error.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import type { StateStore } from "../state/state-store.ts";
import { digester, digestLength, unknownDigest, zeroDigest } from "./digest.ts";
import { GrowingTree, TreeHasher } from "./tree.ts";

/** Leaves per page: a power of two, so that a page is an exact subtree. A full page is 128 KiB. */
export const pageLeaves = 4096;

/** The largest leaf, in bytes: far beyond what is of use, and small enough to hash one of zeroes. */
const largestLeaf = 64 * 1024 * 1024;

/** What a manifest is about. */
export interface ManifestShape {
  readonly algorithm: DigestAlgorithm;
  /** Bytes per leaf, a multiple of 512 of at most 64 MiB; the disk's last leaf may be shorter. */
  readonly leaf: number;
  /** Bytes of the disk. */
  readonly size: number;
}

/** The pages of manifests of one shape, each named by its root in a state store. */
export class PageStore {
  readonly shape: ManifestShape;
  readonly leaves: number;
  readonly pages: number;
  readonly tree: TreeHasher;
  readonly #store: StateStore;
  readonly #prefix: string;
  /** By root: pages that are never stored because their content is known. */
  readonly #constants = new Map<string, Uint8Array>();

  constructor(store: StateStore, prefix: string, shape: ManifestShape) {
    checkShape(shape);
    this.shape = { algorithm: shape.algorithm, leaf: shape.leaf, size: shape.size };
    this.leaves = Math.ceil(shape.size / shape.leaf);
    this.pages = Math.ceil(this.leaves / pageLeaves);
    this.tree = new TreeHasher(digester(shape.algorithm));
    this.#store = store;
    this.#prefix = prefix;
    for (const page of new Set([0, this.pages - 1])) {
      for (const content of [this.zeroes(page), this.unknown(page)])
        this.#constants.set(hex(this.root(content)), content);
    }
  }

  /** Whether pages of `other` can be referred to from manifests of this one. */
  shares(other: PageStore): boolean {
    return this.#store === other.#store && this.#prefix === other.#prefix;
  }

  /** How many leaves page `page` has. */
  count(page: number): number {
    return Math.min(pageLeaves, this.leaves - page * pageLeaves);
  }

  /** The root over a page's digests. */
  root(content: Uint8Array): Uint8Array {
    return this.tree.root(content);
  }

  /** The root over the roots of all pages. */
  top(roots: Uint8Array): Uint8Array {
    const tree = new GrowingTree(this.tree);
    for (let at = 0; at < roots.byteLength; at += digestLength) tree.addNode(roots.subarray(at, at + digestLength));
    return tree.root();
  }

  /** The parts of pages that a range of leaves is: each begins behind `skipped` leaves of its page and `done` of the range. */
  *parts(leaf: number, count: number): Generator<{ page: number; skipped: number; taken: number; done: number }> {
    for (let done = 0; done < count;) {
      const page = Math.floor((leaf + done) / pageLeaves);
      const skipped = (leaf + done) % pageLeaves;
      const taken = Math.min(count - done, this.count(page) - skipped);
      yield { page, skipped, taken, done };
      done += taken;
    }
  }

  /** A page of which nothing is known. */
  unknown(page: number): Uint8Array {
    return filled(this.count(page), unknownDigest);
  }

  /** A page of a part of the disk that reads as zeroes. */
  zeroes(page: number): Uint8Array {
    const { algorithm, leaf, size } = this.shape;
    const content = filled(this.count(page), zeroDigest(algorithm, Math.min(leaf, size)));
    const last = size % leaf;
    if (page === this.pages - 1 && last !== 0) content.set(zeroDigest(algorithm, last), content.length - digestLength);
    return content;
  }

  /** Stores a page durably, unless its content is a constant. */
  async write(root: Uint8Array, content: Uint8Array, wait?: Wait): Promise<void> {
    if (!this.#constants.has(hex(root))) await this.#store.put(this.#pageKey(hex(root)), content, wait);
  }

  /**
   * The digests of page `page`, the caller's to keep. `room`: memory to put them in, which keeps what was read from
   * outliving the young heap. @throws ProviderError CORRUPT naming the page.
   */
  async read(page: number, root: Uint8Array, wait?: Wait, room?: Uint8Array): Promise<Uint8Array> {
    const name = hex(root);
    const constant = this.#constants.get(name);
    const content = constant ?? (await this.#store.bytes(this.#pageKey(name), wait));
    if (content === undefined) throw damaged(`page ${page} (${this.#pageKey(name)}) is missing`);
    if (content.byteLength !== this.count(page) * digestLength) {
      throw damaged(`page ${page} (${this.#pageKey(name)}) has ${content.byteLength} bytes`);
    }
    if (constant === undefined && Buffer.compare(this.root(content), root) !== 0) {
      throw damaged(`page ${page} (${this.#pageKey(name)}) does not hold what its name says`);
    }
    if (room?.byteLength === content.byteLength) {
      room.set(content);
      return room;
    }
    // A plain array: `slice` of the Buffer that a store may give would share memory.
    return constant?.slice() ?? new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  }

  /** Stores the list of page roots durably under the root of them all. */
  async writeIndex(root: Uint8Array, roots: Uint8Array, wait?: Wait): Promise<void> {
    await this.#store.put(this.#indexKey(hex(root)), roots, wait);
  }

  /** The page roots below a root. @throws ProviderError CORRUPT naming the index. */
  async readIndex(root: string, wait?: Wait): Promise<Uint8Array> {
    const key = this.#indexKey(root);
    const roots = await this.#store.bytes(key, wait);
    if (roots === undefined) throw damaged(`its index (${key}) is missing`);
    if (roots.byteLength !== this.pages * digestLength || hex(this.top(roots)) !== root) {
      throw damaged(`its index (${key}) does not hold what its name says`);
    }
    return roots;
  }

  /** The key of a page, or undefined for a page that is not stored. */
  storedKey(root: Uint8Array): string | undefined {
    return this.#constants.has(hex(root)) ? undefined : this.#pageKey(hex(root));
  }

  /** The key of an index. */
  indexKey(root: string): string {
    return this.#indexKey(root);
  }

  #pageKey(name: string): string {
    return `${this.#prefix}/page/${name}`;
  }

  #indexKey(name: string): string {
    return `${this.#prefix}/index/${name}`;
  }
}

/** 32 bytes as 64 lower-case hexadecimal digits. */
export function hex(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString("hex");
}

/** The failure of a manifest that does not hold what it says. */
export function damaged(what: string): ProviderError {
  return new ProviderError(
    "CORRUPT",
    `the manifest is damaged: ${what}; run with a full copy or a verification of the target to build a new one`,
    { operation: "read manifest" },
  );
}

/** @throws RangeError for a shape that no disk has. */
export function checkShape({ leaf, size, algorithm }: ManifestShape): void {
  if (algorithm !== "blake3" && algorithm !== "sha256")
    throw new RangeError(`no digest algorithm: ${String(algorithm)}`);
  if (!Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0) throw new RangeError(`no size of a disk: ${size}`);
  if (!Number.isSafeInteger(leaf) || leaf <= 0 || leaf > largestLeaf || leaf % 512 !== 0) {
    throw new RangeError(`no size of a leaf: ${leaf}`);
  }
}

function filled(count: number, digest: Uint8Array): Uint8Array {
  const content = new Uint8Array(count * digestLength);
  for (let at = 0; at < content.byteLength; at += digestLength) content.set(digest, at);
  return content;
}
