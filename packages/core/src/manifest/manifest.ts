import { isProviderError } from "../provider/error.ts";
import type { Json, JsonObject } from "../provider/extents.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import type { StateStore } from "../state/state-store.ts";
import { digestLength } from "./digest.ts";
import { damaged, type ManifestShape, pageLeaves, PageStore } from "./page.ts";
import { proveInclusion, type InclusionProof } from "./inclusion.ts";

/** How many pages of a manifest are kept in memory once read: 2 MiB. */
const cachedPages = 16;

/** What a record keeps of a manifest: enough to open it again, and the root that everything in it hangs from. */
export interface ManifestJson extends JsonObject {
  version: 1;
  algorithm: DigestAlgorithm;
  leaf: number;
  size: number;
  leaves: number;
  /** 64 hexadecimal digits. */
  root: string;
}

/**
 * The digest of every leaf that a target durably holds, and the root over them. It is read page by page; the digest of
 * a leaf whose content is not known is 32 zero bytes (`unknownDigest`).
 */
export interface Manifest extends ManifestShape {
  /** How many leaves: the size over the leaf, rounded up. */
  readonly leaves: number;
  /** The RFC 6962 tree hash over all leaf digests, with the manifest's own algorithm: 64 hexadecimal digits. */
  readonly root: string;
  /** The digests of `count` leaves from `leaf` on, concatenated; the caller's. @throws ProviderError CORRUPT */
  digests(leaf: number, count: number, wait?: Wait): Promise<Uint8Array>;
  /** What shows that a leaf's digest is under the root: check it with `verifyInclusion`. */
  proof(leaf: number, wait?: Wait): Promise<InclusionProof>;
  toJson(): ManifestJson;
}

/** A manifest in a state store, and what a builder and a collection need of it. */
export class StoredManifest implements Manifest {
  readonly algorithm: DigestAlgorithm;
  readonly leaf: number;
  readonly size: number;
  readonly leaves: number;
  readonly root: string;
  /** Where its pages are. */
  readonly store: PageStore;
  /** The roots of its pages, 32 bytes each; not to be written to. */
  readonly pageRoots: Uint8Array;
  readonly #cache = new Map<number, Uint8Array>();

  constructor(store: PageStore, root: string, pageRoots: Uint8Array) {
    ({ algorithm: this.algorithm, leaf: this.leaf, size: this.size } = store.shape);
    this.leaves = store.leaves;
    this.root = root;
    this.store = store;
    this.pageRoots = pageRoots;
  }

  async digests(leaf: number, count: number, wait?: Wait): Promise<Uint8Array> {
    checkLeaves(leaf, count, this.leaves);
    const digests = new Uint8Array(count * digestLength);
    for (const { page, skipped, taken, done } of this.store.parts(leaf, count)) {
      const at = done * digestLength;
      await this.#withPage(page, wait, (content) =>
        digests.set(content.subarray(skipped * digestLength, (skipped + taken) * digestLength), at),
      );
    }
    return digests;
  }

  async proof(leaf: number, wait?: Wait): Promise<InclusionProof> {
    checkLeaves(leaf, 1, this.leaves);
    return await this.#withPage(Math.floor(leaf / pageLeaves), wait, (page) =>
      proveInclusion(this.store, page, this.pageRoots, leaf),
    );
  }

  toJson(): ManifestJson {
    const { algorithm, leaf, size, leaves, root } = this;
    return { version: 1, algorithm, leaf, size, leaves, root };
  }

  /** The root of one page. */
  pageRoot(page: number): Uint8Array {
    return this.pageRoots.subarray(page * digestLength, (page + 1) * digestLength);
  }

  /** Calls `use` with the digests of a page, which are good for that call only: their memory is used again. */
  async #withPage<T>(page: number, wait: Wait | undefined, use: (content: Uint8Array) => T): Promise<T> {
    const cached = this.#cache.get(page);
    // Nothing may come between here and `use`: another call would take the memory.
    const content = cached ?? this.#inOldest(await this.store.read(page, this.pageRoot(page), wait));
    this.#cache.delete(page);
    this.#cache.set(page, content);
    return use(content);
  }

  /** Makes room for a page, in the memory of the one used longest ago: what is read then dies in the young heap. */
  #inOldest(read: Uint8Array): Uint8Array {
    const [oldest] = this.#cache;
    if (oldest === undefined || this.#cache.size < cachedPages) return read;
    const [page, room] = oldest;
    this.#cache.delete(page);
    if (room.byteLength !== read.byteLength) return read;
    room.set(read);
    return room;
  }
}

/**
 * Opens the manifest that a record names. Only its index is read; pages are read, and checked against the root, when
 * they are needed. @throws ProviderError CORRUPT naming what is damaged.
 */
export async function openManifest(store: StateStore, prefix: string, json: Json, wait?: Wait): Promise<Manifest> {
  const { algorithm, leaf, size, leaves, root } = checkManifestJson(json);
  const pages = pageStore(store, prefix, { algorithm, leaf, size });
  if (pages.leaves !== leaves) throw damaged(`its record counts ${leaves} leaves where its size gives ${pages.leaves}`);
  return new StoredManifest(pages, root, await pages.readIndex(root, wait));
}

export interface CollectOptions extends Wait {
  /**
   * Called before each deletion; give `Lease.check`, so that a worker that was superseded meanwhile stops before it
   * deletes pages of a manifest it does not know.
   */
  check?: ((wait?: Wait) => Promise<void>) | undefined;
}

/**
 * Deletes every page under `prefix` that no manifest in `keep` refers to, and resolves with how many keys went. Not to
 * be run while a manifest under that prefix is being built, or is built and not yet recorded.
 */
export async function collect(
  store: StateStore,
  prefix: string,
  keep: readonly Manifest[],
  options: CollectOptions = {},
): Promise<number> {
  const wait: Wait = { signal: options.signal };
  const kept = new Set<string>();
  for (const manifest of keep) {
    if (!(manifest instanceof StoredManifest)) throw new TypeError("a collection keeps manifests of a state store");
    kept.add(manifest.store.indexKey(manifest.root));
    for (let page = 0; page < manifest.store.pages; page++) {
      const key = manifest.store.storedKey(manifest.pageRoot(page));
      if (key !== undefined) kept.add(key);
    }
  }
  let deleted = 0;
  for await (const key of store.list(`${prefix}/`, wait)) {
    if (kept.has(key)) continue;
    await options.check?.(wait);
    await store.delete(key, wait);
    deleted++;
  }
  return deleted;
}

/** @throws RangeError for leaves that a disk does not have. */
export function checkLeaves(leaf: number, count: number, leaves: number): void {
  if (!(Number.isInteger(leaf) && Number.isInteger(count) && leaf >= 0 && count >= 0 && leaf + count <= leaves)) {
    throw new RangeError(`leaves ${leaf} to ${leaf + count} are not within the manifest's ${leaves}`);
  }
}

function pageStore(store: StateStore, prefix: string, shape: ManifestShape): PageStore {
  try {
    return new PageStore(store, prefix, shape);
  } catch (error) {
    if (isProviderError(error)) throw error;
    throw damaged(`its record has ${error instanceof Error ? error.message : String(error)}`);
  }
}

function checkManifestJson(json: Json): ManifestJson {
  const given = (
    typeof json === "object" && json !== null && !Array.isArray(json) ? json : {}
  ) as Partial<ManifestJson>;
  const { version, algorithm, leaf, size, leaves, root } = given;
  if (version !== 1) throw damaged(`its record has version ${JSON.stringify(version)} where 1 is known`);
  if (algorithm !== "blake3" && algorithm !== "sha256") {
    throw damaged(`its record has the digest algorithm ${JSON.stringify(algorithm)}`);
  }
  if (typeof leaf !== "number" || typeof size !== "number" || typeof leaves !== "number") {
    throw damaged("its record lacks leaf, size or leaves");
  }
  if (typeof root !== "string" || !/^[0-9a-f]{64}$/.test(root)) throw damaged("its record has no root");
  return { version, algorithm, leaf, size, leaves, root };
}
