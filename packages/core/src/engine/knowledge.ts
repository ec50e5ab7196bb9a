import type { Extent, Json } from "../provider/extents.ts";
import type { DigestAlgorithm } from "../provider/reader.ts";
import type { Wait } from "../provider/wait.ts";
import { digestLength } from "../manifest/digest.ts";
import { LeafBitmap } from "../manifest/bitmap.ts";
import { ManifestBuilder } from "../manifest/manifest-builder.ts";
import type { Manifest } from "../manifest/manifest.ts";
import { replayJournals } from "../state/journal.ts";
import type { StateStore } from "../state/state-store.ts";
import { keyOf, type TornJournal } from "./job-state.ts";

export interface KnowledgeRequest extends Wait {
  store: StateStore;
  job: string;
  disk: string;
  size: number;
  leaf: number;
  algorithm: DigestAlgorithm | "none";
  /** What this run's journals name as their algorithm. */
  journalAlgorithm: DigestAlgorithm;
  /** The state of the target that journals must belong to. */
  generation: string;
  /** The manifest of the record the run starts from; absent: nothing is known of the target's content. */
  base: Manifest | undefined;
  run: string;
  torn: readonly TornJournal[];
}

/**
 * What is known of a half-written target, leaf by leaf: the record's manifest, corrected by the journals of runs that
 * ended without a record, and by this run's own. `done` leaves hold this run's snapshot; `suspect` ones may hold
 * anything, or at best something else than the record says.
 */
export class Knowledge {
  readonly leaf: number;
  readonly size: number;
  readonly done: LeafBitmap;
  readonly suspect: LeafBitmap;
  /** What this generation wrote, for targets that want to be told at the commit. */
  readonly written: LeafBitmap;
  /** What runs without a record wrote: nobody has read it back yet. */
  readonly #inherited: LeafBitmap;
  /** The manifest in the making; absent where no digest is kept. */
  readonly builder: ManifestBuilder | undefined;

  private constructor(request: KnowledgeRequest) {
    const { leaf, size, algorithm, base } = request;
    this.leaf = leaf;
    this.size = size;
    const leaves = Math.ceil(size / leaf);
    this.done = new LeafBitmap(leaves);
    this.suspect = new LeafBitmap(leaves);
    this.written = new LeafBitmap(leaves);
    this.#inherited = new LeafBitmap(leaves);
    if (algorithm !== "none") {
      const pages = keyOf.pages(request.job, request.disk);
      this.builder = new ManifestBuilder(request.store, pages, { algorithm, leaf, size, base });
    }
  }

  /** Reads the journals. @throws ProviderError CORRUPT when one is damaged: then nothing in it can be relied on. */
  static async gather(request: KnowledgeRequest): Promise<Knowledge> {
    const known = new Knowledge(request);
    for (const { run } of request.torn.filter((torn) => torn.disk === request.disk)) {
      await known.#replay(request, run, false);
    }
    await known.#replay(request, request.run, true);
    return known;
  }

  async #replay(request: KnowledgeRequest, run: string, own: boolean): Promise<void> {
    const { store, job, disk, generation, leaf } = request;
    let belongs = false;
    let unsent: [first: number, count: number][] = [];
    for await (const entry of replayJournals(store, keyOf.journals(job, run, disk), request)) {
      if (entry.kind === "open") {
        // Without digests it does not matter which algorithm a journal names.
        const isOurKind = request.algorithm === "none" || entry.algorithm === request.journalAlgorithm;
        belongs = entry.generation === generation && entry.leaf === leaf && isOurKind;
        unsent = [];
      } else if (entry.kind === "intent") {
        // Whatever was written in place may be there still, though its generation is over.
        for (const extent of entry.extents) await this.#distrust(extent, own);
      } else if (belongs && entry.kind === "durable") {
        for (const extent of entry.extents) await this.#trust(extent, extent.digests, own, unsent);
      } else if (belongs && entry.kind === "note") {
        unsent = unsentOf(entry.note);
      }
    }
  }

  async #distrust(extent: Extent, own: boolean): Promise<void> {
    const [first, count] = this.leavesOf(extent);
    if (count === 0) return;
    this.suspect.set(first, count);
    if (own) this.done.clear(first, count);
    else this.#inherited.set(first, count);
    await this.builder?.forget(first, count);
  }

  async #trust(
    extent: Extent,
    digests: Uint8Array | undefined,
    own: boolean,
    unsent: readonly [first: number, count: number][],
  ): Promise<void> {
    const [first, count] = this.leavesOf(extent);
    if (count === 0) return;
    if (digests !== undefined) await this.builder?.setMany(first, digests.subarray(0, count * digestLength));
    if (!own) return;
    this.suspect.clear(first, count);
    this.done.set(first, count);
    // What an earlier part of the journal says was sent stays so.
    const before = [...this.written.runs(first, first + count)];
    this.written.set(first, count);
    for (const [leaf, leaves] of unsent) {
      const start = Math.max(leaf, first);
      const end = Math.min(leaf + leaves, first + count);
      if (start < end) this.written.clear(start, end - start);
    }
    for (const run of before) this.written.set(run.leaf, run.count);
  }

  /**
   * Notes which leaves of what became durable were sent. Resolves with the runs that were not, as first and count one
   * after the other: the target held them already.
   */
  learnSent(durable: readonly Extent[], sent: readonly Extent[]): number[] {
    for (const extent of sent) this.written.set(...this.leavesOf(extent));
    const unsent: number[] = [];
    for (const extent of durable) {
      const [first, count] = this.leavesOf(extent);
      let position = first;
      for (const run of this.written.runs(first, first + count)) {
        if (run.leaf > position) unsent.push(position, run.leaf - position);
        position = run.leaf + run.count;
      }
      if (position < first + count) unsent.push(position, first + count - position);
    }
    return unsent;
  }

  /** What stands at the target because of this run, or of runs that ended without a record: to be read back. */
  unproven(): LeafBitmap {
    const unproven = new LeafBitmap(this.done.leaves);
    for (const runs of [this.written.runs(), this.#inherited.runs()])
      for (const run of runs) unproven.set(run.leaf, run.count);
    return unproven;
  }

  /** The leaves of an extent, as first and count, within this disk. */
  leavesOf(extent: Extent): [first: number, count: number] {
    const first = Math.floor(extent.offset / this.leaf);
    const end = Math.min(Math.ceil((extent.offset + extent.length) / this.leaf), this.done.leaves);
    return [first, Math.max(0, end - first)];
  }

  /** The next range within [offset, end) that the record does not describe. */
  nextSuspect(offset: number, end: number): Extent | undefined {
    const to = Math.min(Math.ceil(end / this.leaf), this.suspect.leaves);
    for (const run of this.suspect.runs(Math.floor(offset / this.leaf), to)) {
      return { offset: run.leaf * this.leaf, length: run.count * this.leaf };
    }
    return undefined;
  }

  /** Whether any leaf of a range is suspect. */
  isSuspect(extent: Extent): boolean {
    const [first, count] = this.leavesOf(extent);
    return this.suspect.touches(first, first + count);
  }
}

function unsentOf(note: Json): [first: number, count: number][] {
  const runs: [number, number][] = [];
  const { unsent } = note as { unsent?: unknown };
  if (!Array.isArray(unsent)) return runs;
  for (let at = 0; at + 1 < unsent.length; at += 2) runs.push([Number(unsent[at]), Number(unsent[at + 1])]);
  return runs;
}
