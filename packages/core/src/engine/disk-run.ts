import { randomUUID } from "node:crypto";
import { digester } from "../manifest/digest.ts";
import { openManifest, type Manifest } from "../manifest/manifest.ts";
import { ProviderError } from "../provider/error.ts";
import type { Extent } from "../provider/extents.ts";
import type { BlockReader, DigestAlgorithm } from "../provider/reader.ts";
import type { DiskSnapshot } from "../provider/source.ts";
import type { BlockWriter, Volume, WrittenExtent } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { LeafBitmap } from "../manifest/bitmap.ts";
import type { Call, Layer } from "../layers/layer.ts";
import { openJournal } from "../state/journal.ts";
import type { Lease } from "../state/state-store.ts";
import { publish } from "../telemetry/channels.ts";
import type { DiskMeter } from "../telemetry/progress.ts";
import { attemptLayer, controlLayer } from "./attempts.ts";
import { letCanaryOut, type CanaryReport } from "./canary.ts";
import { compareDisk, readerOfWriter } from "./compare-disk.ts";
import { copyDisk, type CopyCounts } from "./copy-disk.ts";
import type { Fallback, Job, RunMode } from "./job.ts";
import { keyOf, type DiskRecord, type DiskRun, type JobDocument } from "./job-state.ts";
import { Knowledge } from "./knowledge.ts";
import { UnchangedLeaves } from "./leaf-sample.ts";
import { patient } from "./patient.ts";
import { ReopeningReader } from "./reopening-reader.ts";
import type { Settings } from "./settings.ts";
import { begun, tilesOf } from "./tile-source.ts";
import { zeroDigests } from "./work-plan.ts";

export interface DiskRunOptions {
  job: Job;
  settings: Settings;
  document: JobDocument;
  lease: Pick<Lease, "epoch" | "check">;
  run: string;
  snapshot: DiskSnapshot;
  record: DiskRecord | undefined;
  /** The writer of this run, where it is open already; the runner closes it. */
  opened?: BlockWriter | undefined;
  meter: DiskMeter;
  pause: AbortSignal | undefined;
  signal: AbortSignal;
}

/** What one disk's part of a run came to. Plain JSON. */
export interface DiskReport {
  disk: string;
  mode: RunMode;
  size: number;
  read: number;
  /** Bytes of data sent. */
  moved: number;
  /** Bytes made zero at the target. */
  zeroed: number;
  /** Bytes that the source's tracker called changed; the whole disk where it could not tell. */
  changed: number;
  /** Bytes read whose digest the target held already. */
  same: number;
  /** Bytes that the tracker, or an earlier attempt of this run, left nothing to do for. */
  settled: number;
  verifiedBytes: number;
  reopened: number;
  threads: number;
  fallbacks: Fallback[];
  volume?: Volume;
  root?: string;
  leaf: number;
  digest: DigestAlgorithm | "none";
  /** Whether the next run can be incremental. */
  checkpoint: boolean;
  /** What was found of the tracker's word, where the job asks for that and it was taken. */
  canary?: CanaryReport;
}

/** One disk of a run: copied, verified and committed, in that order and each once or again after a restart. */
export class DiskRunner {
  readonly #options: DiskRunOptions;
  readonly #report: DiskReport;
  #writer: BlockWriter | undefined;
  /** The writer that the run was begun with, until it is first needed. */
  #opened: BlockWriter | undefined;
  #began = false;
  #knowledge: Knowledge | undefined;
  #manifest: Manifest | undefined;

  constructor(options: DiskRunOptions) {
    this.#options = options;
    this.#opened = options.opened;
    const { size, mode, leaf, digest, fallbacks, verified, verifiedBytes } = this.#state;
    this.#report = {
      disk: options.snapshot.disk,
      mode,
      size,
      read: 0,
      moved: 0,
      zeroed: 0,
      changed: 0,
      same: 0,
      settled: 0,
      verifiedBytes: verified === true ? (verifiedBytes ?? 0) : 0,
      reopened: 0,
      threads: 0,
      fallbacks: [...fallbacks],
      leaf,
      digest,
      checkpoint: false,
    };
  }

  get disk(): string {
    return this.#options.snapshot.disk;
  }

  get report(): DiskReport {
    return this.#report;
  }

  get #state(): DiskRun {
    const found = this.#options.document.state.run?.disks[this.disk];
    if (found === undefined) throw new TypeError(`disk ${this.disk} has no part in this run`);
    return found;
  }

  async #change(change: (disk: DiskRun) => void): Promise<void> {
    await this.#options.document.update((state) => change(state.run!.disks[this.disk]!));
  }

  #openReader = (wait: Wait): Promise<BlockReader> => this.#options.job.source.open(this.#options.snapshot, wait);

  #openWriter = async (wait: Wait, job = this.#options.job): Promise<BlockWriter> => {
    const { run, record, lease } = this.#options;
    const { volume, mode } = this.#state;
    // A full copy starts from nothing that is known, so it does not need the last record's volume to exist either.
    const base = record === undefined || mode === "full" ? {} : { base: record.volume };
    const request = { run, epoch: lease.epoch, job: job.id, ...base, signal: wait.signal };
    return this.#largeEnough(await job.target.open(volume, request));
  };

  async #largeEnough(writer: BlockWriter): Promise<BlockWriter> {
    const { volume, size } = this.#state;
    if (writer.size >= size) return writer;
    await writer[Symbol.asyncDispose]();
    throw new ProviderError(
      "CONFIG_INVALID",
      `Volume ${volume.id} holds ${writer.size} bytes and disk ${this.disk} has ${size}: use a target at least as ` +
        `large as the disk. The target was not touched.`,
      { operation: "open" },
    );
  }

  /** The writer that the run was begun with, the first time; then one that is opened. */
  #firstWriter(): Promise<BlockWriter> {
    const opened = this.#opened;
    this.#opened = undefined;
    if (opened !== undefined) return this.#largeEnough(opened);
    const { job, settings, signal } = this.#options;
    return this.#openWriter({ signal }, patient(job, settings.attempts));
  }

  /** The writer of this run, opened when first needed, with the knowledge of what it holds. */
  async #live(): Promise<{ writer: BlockWriter; knowledge: Knowledge }> {
    const { job, document, run, record, signal } = this.#options;
    this.#writer ??= await this.#firstWriter();
    const writer = this.#writer;
    const state = this.#state;
    if (writer.blockSize > state.leaf) {
      throw new ProviderError(
        "UNSUPPORTED",
        `Volume ${state.volume.id} is written in blocks of ${writer.blockSize} bytes, more than the replica's leaf of ` +
          `${state.leaf}: begin a new job for this target, or copy in full with a larger leaf.`,
        { operation: "open" },
      );
    }
    if (state.generation !== writer.generation) {
      if (!document.writable) {
        throw new ProviderError("FENCED", `The write of run ${run} that this slice belongs to is gone; it stops.`);
      }
      await this.#change((disk) => {
        disk.generation = writer.generation;
        delete disk.copied;
        delete disk.verified;
      });
    }
    this.#knowledge ??= await Knowledge.gather({
      store: job.store,
      job: job.id,
      disk: this.disk,
      size: state.size,
      leaf: state.leaf,
      algorithm: state.digest,
      journalAlgorithm: journalAlgorithm(state.digest),
      generation: writer.generation,
      base: await this.#baseManifest(record),
      run,
      torn: document.state.torn,
      signal,
    });
    return { writer, knowledge: this.#knowledge };
  }

  async #baseManifest(record: DiskRecord | undefined): Promise<Manifest | undefined> {
    const { job, signal } = this.#options;
    const { mode, leaf, digest } = this.#state;
    if (record?.manifest === undefined || mode === "full" || digest !== record.manifest.algorithm) return undefined;
    if (record.leaf !== leaf) return undefined;
    return openManifest(job.store, keyOf.pages(job.id, this.disk), record.manifest, { signal });
  }

  /** Copies the disk, or [from, to) of it. False: it was paused and all that was copied is durable. */
  async copy(range?: { from: number; to: number }): Promise<boolean> {
    let outcome: "done" | "paused" | "failed" = "failed";
    try {
      const done = await this.#copy(range);
      outcome = done ? "done" : "paused";
      return done;
    } finally {
      if (this.#began) {
        const { job, run } = this.#options;
        const scope = { job: job.id, run, disk: this.disk };
        publish("diskferry:transfer-end", () => ({ ...scope, outcome, movedBytes: this.#report.moved }));
      }
    }
  }

  async #copy(range?: { from: number; to: number }): Promise<boolean> {
    const { job, settings, lease, run, snapshot, record, meter, pause, signal } = this.#options;
    let state = this.#state;
    if (state.copied !== undefined && range === undefined) {
      const manifest = state.copied.manifest;
      if (this.#writer === undefined && state.committed === undefined) await this.#live();
      state = this.#state;
      if (state.copied !== undefined) {
        if (manifest !== undefined) {
          this.#manifest = await openManifest(job.store, keyOf.pages(job.id, this.disk), manifest, { signal });
          this.#report.root = manifest.root;
        }
        this.#report.changed = state.copied.changed ?? state.size;
        meter.advance(state.size, 0);
        return true;
      }
    }
    // An attempt that ended before it could do anything about what its canary found. A slice leaves that to the run's end.
    if (state.distrusted === true && state.mode === "incremental" && range === undefined) {
      await this.#distrust("an earlier attempt of this run found that the tracker missed writes");
      state = this.#state;
    }
    const from = range?.from ?? 0;
    const to = range?.to ?? state.size;
    let sendAll =
      (state.mode === "full" && settings.mode === "full") ||
      (state.distrusted === true && settings.onTrackingLost === "full");
    let changed = 0;
    // Some sources look at their whole disk first: meanwhile the target is opened.
    const tiles = begun(
      tilesOf({
        tracker: job.source.tracker,
        snapshot,
        mode: state.mode,
        since: state.since,
        from,
        to,
        onTrackingLost: settings.onTrackingLost,
        attempts: settings.attempts,
        onTile: ({ kind, length }) => {
          if (kind !== "unchanged") changed += length;
        },
        onFallback: (lost, position) => {
          // Without digests there is nothing to compare with: all is sent, and it is called what it is.
          const fallback = lost.to === "rescan" && state.digest === "none" ? { ...lost, to: "full" } : lost;
          this.#fall({ ...fallback, reason: `${fallback.reason} (from offset ${position} on)` });
          if (fallback.to === "full") sendAll = true;
          if (fallback.from === "incremental") this.#report.mode = sendAll ? "full" : "rescan";
        },
        signal,
      }),
    );
    const giveUp = (error: unknown): never => {
      tiles.return().catch(() => {});
      throw error;
    };
    const { writer, knowledge } = await this.#live().catch(giveUp);
    meter.setPhase("copying");
    if (!this.#began) this.#tellBegin(knowledge);
    const canary = settings.canary > 0 && state.mode === "incremental" && range === undefined;
    const unchanged = canary ? new UnchangedLeaves(state.size, state.leaf) : undefined;
    const outcome = await copyDisk({
      store: job.store,
      journalKey: journalKey(job.id, run, this.disk, lease.epoch),
      header: {
        run,
        snapshot: snapshot.id,
        generation: writer.generation,
        size: state.size,
        leaf: state.leaf,
        algorithm: journalAlgorithm(state.digest),
      },
      algorithm: state.digest,
      openReader: this.#openReader,
      openWriter: (wait) => this.#openWriter(wait),
      writer,
      knowledge,
      from,
      to,
      tiles: unchanged?.watch(tiles) ?? tiles,
      blank: writer.blank === true,
      compare: () => !sendAll,
      parts: state.mode === "incremental" && record !== undefined && writer.digest === undefined,
      workers: settings.workers,
      memory: settings.memory,
      attempts: settings.attempts,
      limits: settings.limits,
      layers: settings.layers,
      groupBytes: settings.groupBytes,
      groupMs: settings.groupMs,
      check: () => lease.check({ signal }),
      pause,
      signal,
      onProgress: ({ settled, result, bytes }) => {
        if (settled !== undefined) meter.advance(settled, 0);
        if (result !== undefined) meter.advance(bytes ?? 0, result.written + result.zeroed);
      },
      onHeld: (phase) => meter.setPhase(phase ?? "copying"),
      notice: settings.notice,
    }).catch((error: unknown) => {
      this.#writer = undefined;
      return giveUp(error);
    });
    this.#writer = outcome.writer;
    this.#count(outcome.counts);
    this.#report.changed = changed;
    if (!outcome.done || range !== undefined) return outcome.done;
    if (unchanged !== undefined && !(await this.#believes(unchanged.leaves, knowledge))) return this.#copy();
    await this.#finish(knowledge);
    return true;
  }

  #tellBegin(knowledge: Knowledge): void {
    const { job, run, snapshot } = this.#options;
    const { mode, size: totalBytes, leaf } = this.#state;
    const scope = { job: job.id, run, disk: this.disk };
    const doneBytes = knowledge.done.count * leaf;
    this.#began = true;
    publish("diskferry:transfer-start", () => ({ ...scope, machine: snapshot.machine, mode, totalBytes }));
    if (doneBytes > 0) publish("diskferry:transfer-resume", () => ({ ...scope, doneBytes, totalBytes }));
  }

  /** Whether a sample of what the tracker called unchanged is so. False: its word was taken away, and all is compared. */
  async #believes(unchanged: LeafBitmap, knowledge: Knowledge): Promise<boolean> {
    const { record, run, settings, meter, signal } = this.#options;
    const manifest = await this.#baseManifest(record);
    if (manifest === undefined) return true;
    // What this run wrote it read from the snapshot itself.
    for (const { leaf, count } of knowledge.done.runs()) unchanged.clear(leaf, count);
    meter.setPhase("verifying");
    const seed = `${run}/${this.disk}`;
    const openReader = this.#openReader;
    const canary = await letCanaryOut({ openReader, manifest, unchanged, seed, settings, signal });
    this.#report.canary = canary;
    if (canary.missed === 0) return true;
    const { size } = this.#state;
    meter.setTotal(2 * size);
    await this.#distrust(
      `the tracker called unchanged what had changed: ${canary.missed} of ${canary.sampled} leaves that were looked at, first ` +
        `at offset ${canary.missedAt[0]?.offset}. It missed writes, as known bugs of change tracking do`,
    );
    return false;
  }

  /** Takes a tracker's word for this disk away, durably. @throws ProviderError TRACKING_LOST where the job is told to stop then */
  async #distrust(reason: string): Promise<void> {
    const { onTrackingLost } = this.#options.settings;
    if (onTrackingLost === "fail") {
      await this.#change((disk) => (disk.distrusted = true));
      throw new ProviderError(
        "TRACKING_LOST",
        `Disk ${this.disk}: ${reason}. This job is told to stop then; nothing of this run is recorded. Run it again with ` +
          `onTrackingLost rescan, which compares the whole disk.`,
        { operation: "canary" },
      );
    }
    this.#fall({ disk: this.disk, from: "incremental", to: onTrackingLost, reason });
    this.#report.mode = onTrackingLost;
    await this.#change((disk) => {
      disk.distrusted = true;
      disk.mode = "rescan";
      delete disk.since;
      disk.fallbacks = this.#report.fallbacks;
    });
  }

  #fall(fallback: Fallback): void {
    this.#report.fallbacks.push(fallback);
    const { job, run } = this.#options;
    publish("diskferry:fallback-take", () => ({ job: job.id, run, ...fallback }));
    this.#options.settings.notice(`Disk ${fallback.disk}: ${fallback.from} → ${fallback.to}: ${fallback.reason}`);
  }

  #count(counts: CopyCounts): void {
    const report = this.#report;
    report.read += counts.read;
    report.moved += counts.written;
    report.zeroed += counts.zeroed;
    report.same += counts.same;
    report.settled += counts.settled;
    report.reopened += counts.reopened;
    report.threads = Math.max(report.threads, counts.threads);
  }

  /** What lies behind the disk's end, from its next block on, where bytes of another disk could show. */
  #gap(writer: BlockWriter): Extent | undefined {
    const { record, document } = this.#options;
    const { size, mode } = this.#state;
    // The rest of the block in which the disk ends was filled with zeroes when that block was copied.
    const blockEnd = (end: number): number => Math.ceil(end / writer.blockSize) * writer.blockSize;
    const offset = blockEnd(size);
    // An earlier run cleared the volume behind its own disk, as far as the volume went then.
    // A run that never ended may have written there, when its disk was larger.
    const torn = document.state.torn.some(({ disk }) => disk === this.disk);
    const cleared = record !== undefined && mode !== "full" && record.volume.size >= writer.size && !torn;
    const end = cleared ? Math.min(writer.size, blockEnd(record.size)) : writer.size;
    return writer.blank === true || end <= offset ? undefined : { offset, length: end - offset };
  }

  /** Clears what lies behind the disk's end, and makes the manifest final. */
  async #finish(knowledge: Knowledge): Promise<void> {
    const { signal } = this.#options;
    const writer = this.#writer!;
    const gap = this.#gap(writer);
    if (gap !== undefined) {
      await clearGap(writer, gap, attemptLayer(this.#options.settings.attempts), signal);
      await writer.flush({ signal });
    }
    const manifest = await knowledge.builder?.finish({ signal });
    this.#manifest = manifest;
    if (manifest !== undefined) this.#report.root = manifest.root;
    await this.#change((disk) => {
      const { changed } = this.#report;
      disk.copied = manifest === undefined ? { changed } : { changed, manifest: manifest.toJson() };
      disk.fallbacks = this.#report.fallbacks;
    });
  }

  /**
   * Reads back and compares, where the mode asks for it and this is the moment: before the commit through the writer
   * where that can read, else after it through the target.
   * @throws ProviderError CORRUPT: the volume differs; what differs will be copied again by the next attempt.
   */
  async verify(moment: "before-commit" | "after-commit"): Promise<void> {
    const { job, settings, meter, signal } = this.#options;
    const state = this.#state;
    const manifest = this.#manifest;
    if (settings.verify === "none" || manifest === undefined || state.verified === true) return;
    const writer = state.committed === undefined ? (await this.#live()).writer : undefined;
    const through = writer === undefined ? undefined : readerOfWriter(writer);
    if (moment === "before-commit" && through === undefined) return;
    const { read } = job.target;
    if (through === undefined && read === undefined) {
      this.#fall({ disk: this.disk, from: "verify", to: "digests only", reason: "this target cannot be read back" });
      return;
    }
    meter.setPhase("verifying");
    const { knowledge } = through === undefined ? { knowledge: this.#knowledge } : await this.#live();
    const ranges =
      settings.verify === "full" || knowledge === undefined
        ? [{ offset: 0, length: state.size }]
        : knowledge.unproven().extents(state.leaf, state.size);
    let lost = false;
    const back = async (): Promise<BlockReader> => {
      // Asked for again: the session with the target was lost. What is flushed is read over another one.
      const again = lost ? await this.#reopened() : through!;
      lost = true;
      return again;
    };
    const comparison = await compareDisk({
      openReader: (wait) => (through === undefined ? read!.call(job.target, state.committed!, wait) : back()),
      manifest,
      ranges,
      workers: settings.workers,
      memory: settings.memory,
      attempts: settings.attempts,
      limits: settings.limits,
      signal,
    });
    this.#report.verifiedBytes += comparison.bytes;
    if (comparison.different > 0) await this.#refuse(comparison.differences, comparison.different);
    await this.#change((disk) => {
      disk.verified = true;
      disk.verifiedBytes = comparison.bytes;
    });
  }

  /** Opens the same write again, to read back what it holds. @throws ProviderError UNAVAILABLE when it holds it no more */
  async #reopened(): Promise<BlockReader> {
    const before = this.#writer;
    this.#writer = undefined;
    await before?.[Symbol.asyncDispose]();
    const { writer } = await this.#live();
    const reader = this.#state.copied === undefined ? undefined : readerOfWriter(writer);
    if (reader !== undefined) return reader;
    throw new ProviderError(
      "UNAVAILABLE",
      `The target lost what run ${this.#options.run} wrote of disk ${this.disk} before it could be verified: run it again.`,
      { operation: "verify", retryable: false },
    );
  }

  /** Writes down what must be copied again, takes back a commit where that is possible, and fails. */
  async #refuse(differences: readonly Extent[], bytes: number): Promise<never> {
    const { job, run, snapshot, lease, record, document, signal } = this.#options;
    const state = this.#state;
    const key = journalKey(job.id, run, this.disk, lease.epoch);
    const journal = await openJournal(job.store, key, {
      run,
      snapshot: snapshot.id,
      generation: state.generation,
      size: state.size,
      leaf: state.leaf,
      algorithm: journalAlgorithm(state.digest),
    });
    const listed = differences.reduce((sum, { length }) => sum + length, 0);
    // Only so many differences are listed; beyond them nothing is trusted.
    await journal.intent(listed < bytes ? [{ offset: 0, length: state.size }] : differences, { signal });
    const { committed } = state;
    const isVersion = committed !== undefined && committed.id !== state.volume.id && committed.id !== record?.volume.id;
    if (isVersion) await patient(job, this.#options.settings.attempts).target.remove(committed, { signal });
    await document.update((changed) => {
      const disk = changed.run!.disks[this.disk]!;
      delete disk.copied;
      delete disk.verified;
      // In place a run that was committed takes no further writes.
      if (committed !== undefined && !isVersion) changed.run!.spent = true;
      else delete disk.committed;
    });
    throw new ProviderError(
      "CORRUPT",
      `Verification of disk ${this.disk} on volume ${state.volume.id} failed: ${bytes} bytes differ from what was sent, ` +
        `first at offset ${differences[0]?.offset}. Nothing is recorded. Check the target's storage; the next run ` +
        `copies these places again.`,
      { operation: "verify" },
    );
  }

  async commit(): Promise<Volume> {
    const { meter, signal } = this.#options;
    const state = this.#state;
    if (state.committed !== undefined) return (this.#report.volume = state.committed);
    meter.setPhase("committing");
    const { writer, knowledge } = await this.#live();
    let volume!: Volume;
    const call: Call = { method: "commit", side: "target", disk: this.disk, attempt: 1, signal };
    await controlLayer(this.#options.settings.attempts)(call, async (bounded) => {
      volume = await writer.commit({ written: this.#written(knowledge, writer), signal: bounded.signal });
    });
    await this.#change((disk) => (disk.committed = volume));
    return (this.#report.volume = volume);
  }

  async *#written(knowledge: Knowledge, writer: BlockWriter): AsyncGenerator<WrittenExtent, void> {
    const { leaf, size } = knowledge;
    for (const run of knowledge.written.runs()) {
      for (let first = run.leaf, count: number; first < run.leaf + run.count; first += count) {
        count = Math.min(WRITTEN_LEAVES, run.leaf + run.count - first);
        if (count > 1 && (first + count) * leaf > size) count--;
        const offset = first * leaf;
        const end = Math.min(size, offset + count * leaf);
        const filledUp = Math.min(Math.ceil(end / writer.blockSize) * writer.blockSize, writer.size);
        const extent: WrittenExtent = { offset, length: filledUp - offset };
        if (this.#manifest !== undefined) {
          extent.digests =
            filledUp > end
              ? await this.#digestOfLastBlock({ offset, length: end - offset }, filledUp - offset)
              : await this.#manifest.digests(first, count);
        }
        yield extent;
      }
    }
    const gap = this.#gap(writer);
    if (gap !== undefined) yield* writtenZeroes(gap, this.#state);
  }

  /** The digest of the block in which the disk ends, as it was filled up with zeroes: the manifest has that of its bytes. */
  async #digestOfLastBlock(extent: Extent, length: number): Promise<Uint8Array> {
    const { signal } = this.#options;
    const block = new Uint8Array(length);
    const reader = new ReopeningReader(await this.#openReader({ signal }), this.#openReader);
    try {
      await attemptLayer(this.#options.settings.attempts)(
        { method: "read", side: "source", ...extent, attempt: 1, signal },
        (call) => reader.read(extent.offset, block.subarray(0, extent.length), { signal: call.signal }),
      );
    } finally {
      await reader[Symbol.asyncDispose]();
    }
    return digester(this.#manifest!.algorithm)(block);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const writers = [this.#writer, this.#opened];
    this.#writer = this.#opened = undefined;
    for (const writer of writers) await writer?.[Symbol.asyncDispose]();
  }
}

const WRITTEN_LEAVES = 4096;
const GAP_WRITE = 1 << 20;
const GAP_ZERO = 256 << 20;

let journals = 0;

/**
 * The key of a new journal. Journals are replayed in the order of their keys, so a later one of the same epoch, which may
 * take back what an earlier one said, has a later key.
 */
function journalKey(job: string, run: string, disk: string, epoch: number): string {
  // Counted, not timed: a clock that is set back must not put a verification's finding before what it takes back.
  const part = `${epoch}-${++journals}-${randomUUID()}`;
  return `${keyOf.journals(job, run, disk)}/${part}`;
}

/** A journal names an algorithm also where it holds no digests; SHA-256 needs nothing to be loaded. */
function journalAlgorithm(digest: DigestAlgorithm | "none"): DigestAlgorithm {
  return digest === "none" ? "sha256" : digest;
}

/** Makes a range of a volume zero, in pieces that each are tried again on their own. */
async function clearGap(writer: BlockWriter, gap: Extent, layer: Layer, signal: AbortSignal): Promise<void> {
  const step = Math.max(writer.zero === undefined ? GAP_WRITE : GAP_ZERO, writer.blockSize);
  const zeroes = writer.zero === undefined ? new Uint8Array(Math.min(step, gap.length)) : undefined;
  for (let done = 0; done < gap.length; done += step) {
    const offset = gap.offset + done;
    const length = Math.min(step, gap.length - done);
    const method = zeroes === undefined ? "zero" : "write";
    await layer({ method, side: "target", offset, length, attempt: 1, signal }, (call) => {
      if (zeroes === undefined) return writer.zero!(offset, length, { signal: call.signal });
      const digest =
        writer.digest &&
        zeroDigests(writer.digest, { leaf: writer.blockSize, size: length }, 0, Math.ceil(length / writer.blockSize));
      return writer.write(offset, zeroes.subarray(0, length), { digest, signal: call.signal });
    });
  }
}

/** A cleared range as it is told to a target, with the digests of zero blocks where digests are kept. */
function* writtenZeroes(gap: Extent, { leaf, digest }: Pick<DiskRun, "leaf" | "digest">): Generator<WrittenExtent> {
  const step = WRITTEN_LEAVES * leaf;
  for (let done = 0; done < gap.length; done += step) {
    const extent: WrittenExtent = { offset: gap.offset + done, length: Math.min(step, gap.length - done) };
    if (digest !== "none")
      extent.digests = zeroDigests(digest, { leaf, size: extent.length }, 0, Math.ceil(extent.length / leaf));
    yield extent;
  }
}
