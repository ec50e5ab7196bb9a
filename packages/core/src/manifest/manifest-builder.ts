import type { Wait } from "../provider/wait.ts";
import type { StateStore } from "../state/state-store.ts";
import { digestLength, unknownDigest } from "./digest.ts";
import { checkLeaves, type Manifest, StoredManifest } from "./manifest.ts";
import { hex, type ManifestShape, pageLeaves, PageStore } from "./page.ts";

/** Pages held in memory at once: 8 MiB. */
const heldPages = 64;

export interface ManifestBuilderOptions extends ManifestShape {
  /**
   * The manifest to start from, of the same store, prefix, algorithm and leaf; its size may differ. A leaf whose length
   * differs (the last of a disk that grew or shrank) is unknown. Absent: every leaf is unknown.
   */
  base?: Manifest | undefined;
}

interface HeldPage {
  content: Uint8Array;
  changed: boolean;
}

/**
 * Builds a manifest from another one or from nothing. Calls may overlap; they take effect in the order they were made.
 * Memory stays around 10 MiB whatever the number of leaves: the pages used longest ago are stored under their final
 * names. What a builder stored and never finished is removed by `collect`, which must not run meanwhile.
 */
export class ManifestBuilder {
  readonly #pages: PageStore;
  readonly #base: StoredManifest | undefined;
  /** How many leaves from the first on hold in the new manifest what they hold in the base. */
  readonly #inherited: number;
  /** The page that is neither wholly the base's nor wholly unknown. */
  readonly #seam: number | undefined;
  readonly #roots: Uint8Array;
  readonly #held = new Map<number, HeldPage>();
  #spare: Uint8Array | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(store: StateStore, prefix: string, options: ManifestBuilderOptions) {
    this.#pages = new PageStore(store, prefix, options);
    const { leaves, pages } = this.#pages;
    this.#base = this.#checkBase(options.base);
    const whole = Math.floor(Math.min(options.size, this.#base?.size ?? 0) / options.leaf);
    this.#inherited = this.#base?.size === options.size ? leaves : whole;
    this.#roots = new Uint8Array(pages * digestLength);
    for (let page = 0; page < pages; page++) {
      if (this.#inherits(page)) this.#roots.set(this.#base!.pageRoot(page), page * digestLength);
    }
    this.#fillUnknown();
    const seam = Math.floor(this.#inherited / pageLeaves);
    this.#seam = this.#inherited % pageLeaves !== 0 && !this.#inherits(seam) ? seam : undefined;
  }

  /** The digest that leaf `leaf` has now; 32 bytes, the caller's. */
  get(leaf: number, wait?: Wait): Promise<Uint8Array> {
    checkLeaves(leaf, 1, this.#pages.leaves);
    return this.#inTurn(async () => {
      const { content } = await this.#hold(Math.floor(leaf / pageLeaves), wait);
      const at = (leaf % pageLeaves) * digestLength;
      return content.slice(at, at + digestLength);
    });
  }

  /** The digests that `count` leaves from `leaf` on have now, concatenated; the caller's. */
  digests(leaf: number, count: number, wait?: Wait): Promise<Uint8Array> {
    checkLeaves(leaf, count, this.#pages.leaves);
    return this.#inTurn(async () => {
      const digests = new Uint8Array(count * digestLength);
      for (const { page, skipped, taken, done } of this.#pages.parts(leaf, count)) {
        const { content } = await this.#hold(page, wait);
        digests.set(content.subarray(skipped * digestLength, (skipped + taken) * digestLength), done * digestLength);
      }
      return digests;
    });
  }

  /** Sets the digest of one leaf. */
  set(leaf: number, digest: Uint8Array, wait?: Wait): Promise<void> {
    if (digest.byteLength !== digestLength) throw new RangeError(`no digest: ${digest.byteLength} bytes`);
    return this.setMany(leaf, digest, wait);
  }

  /** Whether the leaves from `leaf` on have exactly these digests now, 32 bytes each. */
  holds(leaf: number, digests: Uint8Array, wait?: Wait): Promise<boolean> {
    const count = countOf(digests);
    checkLeaves(leaf, count, this.#pages.leaves);
    return this.#inTurn(async () => {
      for (const { page, skipped, taken, done } of this.#pages.parts(leaf, count)) {
        const { content } = await this.#hold(page, wait);
        const here = content.subarray(skipped * digestLength, (skipped + taken) * digestLength);
        if (Buffer.compare(here, digests.subarray(done * digestLength, (done + taken) * digestLength)) !== 0)
          return false;
      }
      return true;
    });
  }

  /** Sets the digests of neighbouring leaves from `leaf` on, 32 bytes each, which are left alone until this settled. */
  setMany(leaf: number, digests: Uint8Array, wait?: Wait): Promise<void> {
    const count = countOf(digests);
    checkLeaves(leaf, count, this.#pages.leaves);
    return this.#inTurn(async () => {
      for (const { page, skipped, taken, done } of this.#pages.parts(leaf, count)) {
        const held = await this.#hold(page, wait, taken === this.#pages.count(page));
        held.content.set(digests.subarray(done * digestLength, (done + taken) * digestLength), skipped * digestLength);
        held.changed = true;
      }
    });
  }

  /** Makes `count` leaves from `leaf` on unknown: they were written, or are about to be, with content not recorded. */
  forget(leaf: number, count = 1, wait?: Wait): Promise<void> {
    checkLeaves(leaf, count, this.#pages.leaves);
    return this.#inTurn(async () => {
      for (const { page, skipped, taken } of this.#pages.parts(leaf, count)) {
        const held = await this.#hold(page, wait, taken === this.#pages.count(page));
        held.content.fill(0, skipped * digestLength, (skipped + taken) * digestLength);
        held.changed = true;
      }
    });
  }

  /** Stores what is left and resolves, once all of it is durable, with the manifest. The builder may go on. */
  finish(wait?: Wait): Promise<Manifest> {
    return this.#inTurn(async () => {
      if (this.#seam !== undefined) (await this.#hold(this.#seam, wait)).changed ||= this.#rootIsUnset(this.#seam);
      for (const [page, held] of this.#held) await this.#write(page, held, wait);
      const root = this.#pages.top(this.#roots);
      await this.#pages.writeIndex(root, this.#roots, wait);
      return new StoredManifest(this.#pages, hex(root), this.#roots.slice());
    });
  }

  #checkBase(base: Manifest | undefined): StoredManifest | undefined {
    if (base === undefined) return undefined;
    if (!(base instanceof StoredManifest) || !base.store.shares(this.#pages)) {
      throw new TypeError("a manifest's base is a manifest of the same state store and prefix");
    }
    const { algorithm, leaf } = this.#pages.shape;
    if (base.algorithm !== algorithm || base.leaf !== leaf) {
      throw new RangeError(
        `a manifest of ${algorithm} digests of ${leaf} bytes has no base of ${base.algorithm} and ${base.leaf} bytes`,
      );
    }
    return base;
  }

  /** Whether a page is the base's as it stands. */
  #inherits(page: number): boolean {
    if (this.#base === undefined || page >= this.#base.store.pages) return false;
    const count = this.#pages.count(page);
    return this.#base.store.count(page) === count && page * pageLeaves + count <= this.#inherited;
  }

  #fillUnknown(): void {
    const { pages } = this.#pages;
    const full = this.#pages.root(this.#pages.unknown(0));
    for (let page = Math.floor(this.#inherited / pageLeaves); page < pages; page++) {
      if (this.#inherits(page) || page * pageLeaves < this.#inherited) continue;
      const root = page === pages - 1 ? this.#pages.root(this.#pages.unknown(page)) : full;
      this.#roots.set(root, page * digestLength);
    }
  }

  #root(page: number): Uint8Array {
    return this.#roots.subarray(page * digestLength, (page + 1) * digestLength);
  }

  #rootIsUnset(page: number): boolean {
    return Buffer.compare(this.#root(page), unknownDigest) === 0;
  }

  /** The page in memory; `overwritten`: the caller sets all of it before anything else happens, so nothing is read. */
  async #hold(page: number, wait: Wait | undefined, overwritten = false): Promise<HeldPage> {
    let held = this.#held.get(page);
    if (held === undefined) {
      // Room first: were the page here already and this failed, it would stand for content it does not have.
      await this.#makeRoom(wait);
      held = { content: overwritten ? this.#blank(page) : await this.#read(page, wait), changed: false };
    }
    this.#held.delete(page);
    this.#held.set(page, held);
    return held;
  }

  async #makeRoom(wait: Wait | undefined): Promise<void> {
    for (const [page, held] of this.#held) {
      if (this.#held.size < heldPages) break;
      await this.#write(page, held, wait);
      this.#held.delete(page);
      this.#spare = held.content;
    }
  }

  /** A page of any content that is about to be set. */
  #blank(page: number): Uint8Array {
    return this.#room(page) ?? this.#pages.unknown(page);
  }

  /** Memory of a page's length that was used before, if there is some: garbage would outgrow what is held. */
  #room(page: number): Uint8Array | undefined {
    const spare = this.#spare;
    this.#spare = undefined;
    return spare?.byteLength === this.#pages.count(page) * digestLength ? spare : undefined;
  }

  async #read(page: number, wait: Wait | undefined): Promise<Uint8Array> {
    if (!this.#rootIsUnset(page)) return await this.#pages.read(page, this.#root(page), wait, this.#room(page));
    const content = this.#pages.unknown(page);
    const count = this.#inherited - page * pageLeaves;
    content.set(await this.#base!.digests(page * pageLeaves, count, wait));
    return content;
  }

  async #write(page: number, held: HeldPage, wait: Wait | undefined): Promise<void> {
    if (!held.changed) return;
    const root = this.#pages.root(held.content);
    if (Buffer.compare(root, this.#root(page)) !== 0) {
      await this.#pages.write(root, held.content, wait);
      this.#roots.set(root, page * digestLength);
    }
    held.changed = false;
  }

  #inTurn<Result>(step: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(step);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function countOf(digests: Uint8Array): number {
  if (digests.byteLength % digestLength !== 0) throw new RangeError(`no digests: ${digests.byteLength} bytes`);
  return digests.byteLength / digestLength;
}
