import { randomBytes } from "node:crypto";
import { collect, openManifest } from "../manifest/manifest.ts";
import { preferredAlgorithm } from "../manifest/digest.ts";
import { isProviderError, ProviderError, type ProviderErrorCode } from "../provider/error.ts";
import type { Consistency, Disk, Machine, Snapshot } from "../provider/source.ts";
import type { BlockWriter } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import { issueReceipt, type Receipt } from "../receipt/receipt.ts";
import { stateKey } from "../state/state-key.ts";
import type { Lease } from "../state/state-store.ts";
import { publish } from "../telemetry/channels.ts";
import { ProgressMeter, type ProgressReport } from "../telemetry/progress.ts";
import { measureRun, type RunMetrics } from "../telemetry/run-metrics.ts";
import { decide } from "./decide.ts";
import { DiskRunner, type DiskReport } from "./disk-run.ts";
import { chooseLeaf, SMALLEST_LEAF } from "./grid.ts";
import type { Fallback, Job } from "./job.ts";
import { JobDocument, keyOf, type DiskRecord, type DiskRun, type RunState } from "./job-state.ts";
import { LoadWatch, type LoadSummary } from "./load-watch.ts";
import { patient } from "./patient.ts";
import { CONSISTENCIES, settingsOf, type Settings } from "./settings.ts";
import { Slots } from "./slots.ts";
import { acquire, toldAsFenced, watchLease, type LeaseWatch } from "./take-over.ts";

export interface RunOptions extends Wait {
  /** Aborting this stops at the next durable point; the same job goes on from there later. */
  pause?: AbortSignal | undefined;
  onProgress?: ((report: ProgressReport) => void) | undefined;
}

/** What a run came to. Plain JSON. */
export interface RunReport {
  job: string;
  run: string;
  machine: string;
  status: "done" | "paused";
  /** Whether this run went on with one that had been interrupted. */
  resumed: boolean;
  snapshot: { id: string; takenAt: string; consistency: Consistency };
  disks: DiskReport[];
  fallbacks: Fallback[];
  startedAt: string;
  endedAt: string;
  metrics?: RunMetrics;
  /** How busy the source's host was meanwhile; absent: it does not tell. */
  load?: LoadSummary;
  receipts: Receipt[];
}

/**
 * Replicates a machine: one snapshot, its disks in parallel, verified, committed and written down as one record; then
 * what is no longer needed is released. A run that was interrupted goes on where it was durable.
 * @throws ProviderError with the code of whatever failed; what was durable stays and the next call goes on from there.
 */
export async function replicate(job: Job, options: RunOptions = {}): Promise<RunReport> {
  const settings = settingsOf(job.options);
  await using lease = await acquire(job, settings, options);
  await using run = new Replication(job, settings, lease, options);
  return await run.go().catch((error: unknown) => toldAsFenced(error, () => lease.check()));
}

/** One run of a job, from its snapshot to its record. */
export class Replication implements AsyncDisposable {
  /** As the caller gave it, for runners, whose copies open things again in a way of their own. */
  readonly #given: Job;
  readonly #job: Job;
  readonly #settings: Settings;
  readonly #lease: Lease;
  readonly #options: RunOptions;
  readonly #signal: AbortSignal;
  readonly #stop = new AbortController();
  readonly #watch: LeaseWatch;
  readonly #runners: DiskRunner[] = [];
  /** Writers of the disks that are copied first, opened to look at them and not yet given to their runners. */
  readonly #opened = new Map<string, BlockWriter>();
  readonly #startedAt = new Date().toISOString();
  #document!: JobDocument;
  #meter!: ProgressMeter;
  #load: LoadWatch | undefined;
  #resumed = false;

  constructor(job: Job, settings: Settings, lease: Lease, options: RunOptions) {
    this.#given = job;
    this.#job = patient(job, settings.attempts);
    this.#settings = settings;
    this.#lease = lease;
    this.#options = options;
    this.#watch = watchLease(() => lease.check(), settings.attempts.leaseMs);
    const { signal = this.#stop.signal } = options;
    this.#signal = AbortSignal.any([signal, this.#stop.signal, this.#watch.signal]);
  }

  async go(): Promise<RunReport> {
    const { id } = this.#job;
    const run = await this.prepare();
    this.#meter = new ProgressMeter({
      onProgress: this.#options.onProgress,
      job: id,
      run: run.id,
      machine: run.machine.id,
    });
    using _meter = this.#meter;
    publish("diskferry:replication-start", () => ({ job: id, run: run.id, disks: Object.keys(run.disks).length }));
    let ended: RunReport | undefined;
    try {
      ended = await this.#goOn();
      return ended;
    } finally {
      const { status: outcome = "failed", metrics } = ended ?? {};
      publish("diskferry:replication-end", () => ({ job: id, run: run.id, outcome, metrics }));
    }
  }

  async #goOn(): Promise<RunReport> {
    const previousTakenAt = this.#document.state.record?.snapshot.takenAt;
    await using load = this.#watchLoad();
    this.#load = load;
    if (!(await this.#copyDisks())) return this.#report("paused", []);
    await this.#commit();
    const receipts = this.#receipts();
    await this.#record();
    const durableAt = new Date().toISOString();
    await this.#release();
    return this.#report("done", receipts, { durableAt, previousTakenAt });
  }

  #watchLoad(): LoadWatch {
    const { id, machine } = this.#run;
    return new LoadWatch({
      source: this.#given.source,
      machine,
      intervalMs: this.#settings.loadIntervalMs,
      onLoad: (load) => {
        this.#meter.setLoad(load);
        publish("diskferry:load-report", () => ({ job: this.#job.id, run: id, machine: machine.id, ...load }));
      },
      notice: this.#settings.notice,
    });
  }

  /** Finds the run under way or begins one: snapshot, volumes, modes. Nothing is copied. */
  async prepare(): Promise<RunState> {
    this.#document = await JobDocument.read(this.#job.store, this.#job.id, this.#lease, { signal: this.#signal });
    this.#refuseAfterCutover();
    await this.#release();
    await this.#begin();
    // So that slices, which read the document and never write it, find the epoch they work under.
    await this.#document.update(() => {});
    return this.#run;
  }

  /** The run as it is, kept after its record was written. */
  #lastRun: RunState | undefined;
  get #run(): RunState {
    this.#lastRun = this.#document.state.run ?? this.#lastRun;
    if (this.#lastRun === undefined) throw new TypeError("no run has begun");
    return this.#lastRun;
  }

  #refuseAfterCutover(): void {
    const step = this.#document.state.cutover?.step;
    if (step === undefined || step === "begun" || step === "stopped" || step === "reverted") return;
    throw new ProviderError(
      "IN_USE",
      `Job ${this.#job.id} is cut over (${step}): a new run would overwrite what the launched machine wrote. Revert the ` +
        `cutover first, or begin a new job.`,
      { operation: "replicate" },
    );
  }

  /** Goes on with the run that is written down, if its snapshot still exists; else begins a new one. */
  async #begin(): Promise<void> {
    const { run } = this.#document.state;
    if (run !== undefined) await this.#refuseOther(run.machine);
    const obstacle = run === undefined ? undefined : await this.#obstacleToResuming(run);
    if (run?.snapshot !== undefined && obstacle === undefined) {
      this.#resumed = true;
    } else if (run !== undefined && obstacle === undefined) {
      await this.#takeSnapshot();
    } else {
      if (run !== undefined) await this.#giveUp(run, obstacle!);
      await this.#newRun();
      await this.#takeSnapshot();
    }
    await this.#decideDisks();
    for (const snapshot of this.#run.snapshot!.disks) {
      if (this.#run.disks[snapshot.disk] === undefined) continue;
      const record = this.#recordOf(snapshot.disk);
      this.#runners.push(this.#runner(snapshot, record, this.#opened.get(snapshot.disk)));
      this.#opened.delete(snapshot.disk);
    }
  }

  #runner(
    snapshot: DiskRecord["snapshot"],
    record: DiskRecord | undefined,
    opened: BlockWriter | undefined,
  ): DiskRunner {
    const { size } = this.#run.disks[snapshot.disk]!;
    const meter = {
      setPhase: (phase: Parameters<ReturnType<ProgressMeter["disk"]>["setPhase"]>[0]) =>
        this.#meter.disk(snapshot.disk, { totalBytes: size }).setPhase(phase),
      setTotal: (bytes: number) => this.#meter.disk(snapshot.disk, { totalBytes: size }).setTotal(bytes),
      advance: (done: number, moved?: number) =>
        this.#meter.disk(snapshot.disk, { totalBytes: size }).advance(done, moved),
    };
    return new DiskRunner({
      job: this.#given,
      settings: this.#settings,
      document: this.#document,
      lease: this.#lease,
      run: this.#run.id,
      snapshot,
      record,
      opened,
      meter,
      pause: this.#options.pause,
      signal: this.#signal,
    });
  }

  #recordOf(disk: string): DiskRecord | undefined {
    return this.#document.state.record?.disks.find((record) => record.disk === disk);
  }

  /** Why the run that is written down cannot go on; undefined: it can. @throws whatever may pass */
  async #obstacleToResuming(run: RunState): Promise<string | undefined> {
    if (run.snapshot === undefined) return undefined;
    if (run.spent === true) return "failed its verification after the commit";
    if (!(await this.#canBeRead(run.snapshot))) return "lost its snapshot";
    return (await this.#canBeWritten(run)) ? undefined : "lost what it had written";
  }

  /** Each disk's point in time may be a thing of its own that can be removed alone. */
  async #canBeRead(snapshot: Snapshot): Promise<boolean> {
    try {
      for (const disk of snapshot.disks) {
        const reader = await this.#job.source.open(disk, { signal: this.#signal });
        await reader[Symbol.asyncDispose]();
      }
      return snapshot.disks.length > 0;
    } catch (error) {
      if (!isProviderError(error)) throw error;
      if (error.code === "NOT_FOUND") return false;
      // Anything else may pass: giving the run up would copy again, for hours, what is there.
      if (!UNOPENABLE.has(error.code)) throw error;
      if (this.#settings.mode === "full") return false;
      throw new ProviderError(
        error.code,
        `${error.message} The interrupted run ${this.#run.id} is kept and goes on once its snapshot can be opened; to give ` +
          `it up and begin anew, ask for a full copy.`,
        { provider: error.provider, operation: error.operation, cause: error },
      );
    }
  }

  /** A target that knows nothing of the run any more, as where its memory stayed on another host, cannot go on with it. */
  async #canBeWritten(run: RunState): Promise<boolean> {
    const { target, id } = this.#job;
    try {
      for (const [disk, { volume, mode, committed }] of Object.entries(run.disks)) {
        if (committed !== undefined) continue;
        const record = this.#recordOf(disk);
        const base = record === undefined || mode === "full" ? {} : { base: record.volume };
        const request = { run: run.id, epoch: this.#lease.epoch, job: id, ...base, signal: this.#signal };
        await this.#keep(disk, await target.open(volume, request));
      }
      return true;
    } catch (error) {
      if (!isProviderError(error) || error.code !== "NOT_FOUND") throw error;
      return false;
    }
  }

  /**
   * Keeps a writer that was opened to look at it until its disk is copied: opening asks a platform for much, and says the same
   * again. Those of disks that wait for others to be copied are closed, as they would idle for hours.
   */
  async #keep(disk: string, writer: BlockWriter): Promise<void> {
    if (this.#opened.size < this.#settings.parallelDisks) this.#opened.set(disk, writer);
    else await writer[Symbol.asyncDispose]();
  }

  async #closeOpened(): Promise<void> {
    const writers = [...this.#opened.values()];
    this.#opened.clear();
    for (const writer of writers) await writer[Symbol.asyncDispose]();
  }

  /** Ends a run that cannot go on: its journals tell the next one which places of the target to distrust. */
  async #giveUp(run: RunState, why: string): Promise<void> {
    await this.#closeOpened();
    this.#settings.notice(
      `The interrupted run ${run.id} ${why}; a new run begins. What it may have written is copied again.`,
    );
    await this.#document.update((state) => {
      for (const [disk, { volume }] of Object.entries(run.disks)) {
        state.torn.push({ run: run.id, disk, volume: volume.id });
      }
      if (run.snapshot !== undefined) state.toRelease.push(run.snapshot);
      delete state.run;
    });
    await this.#release();
  }

  /** A job goes on with the machine it began with. @throws ProviderError CONFIG_INVALID when another one is named now */
  async #refuseOther(before: Machine): Promise<void> {
    const { source, machine, id } = this.#job;
    if (machine === before.id || machine === before.name) return;
    refuseAnother(id, before, await source.machine(machine, { signal: this.#signal }));
  }

  async #newRun(): Promise<void> {
    const { source, disks, id } = this.#job;
    const machine = await source.machine(this.#job.machine, { signal: this.#signal });
    const before = this.#document.state.record?.machine;
    if (before !== undefined) refuseAnother(id, before, machine);
    const chosen = chosenDisks(machine, disks);
    await this.#mendTracking(machine, chosen);
    // Of the disks that are copied alone: what the others lack must not stop this run, nor be changed by it.
    await source.tracker?.enable?.({ ...machine, disks: chosen }, { signal: this.#signal });
    await this.#document.update((state) => {
      state.runs++;
      const run = `${String(state.runs).padStart(6, "0")}-${randomBytes(4).toString("hex")}`;
      state.run = {
        id: run,
        startedAt: this.#startedAt,
        snapshotKey: `${id}/${run}`,
        machine: { ...machine, disks: chosen },
        disks: {},
        phase: "copying",
      };
    });
  }

  /** Begins tracking anew where the last run found that it missed writes; no snapshot of ours is in its way now. */
  async #mendTracking(machine: Machine, chosen: Disk[]): Promise<void> {
    const distrusted = chosen.filter(({ key }) => this.#recordOf(key)?.distrusted === true).map(({ key }) => key);
    if (distrusted.length === 0) return;
    const { tracker } = this.#job.source;
    const which = `Tracking of disk ${distrusted.join(", ")} of ${machine.name}, which missed writes,`;
    const stays = `; see that it is mended, since only a sample of what it says is checked`;
    if (tracker?.reset === undefined) {
      this.#settings.notice(`${which} cannot be begun anew from here${stays}.`);
      return;
    }
    try {
      await tracker.reset({ ...machine, disks: chosen }, { signal: this.#signal });
      this.#settings.notice(`${which} was begun anew.`);
    } catch (error) {
      if (!isProviderError(error) || !UNMENDABLE.has(error.code)) throw error;
      this.#settings.notice(`${which} could not be begun anew (${error.message})${stays}.`);
    }
  }

  async #takeSnapshot(): Promise<void> {
    const run = this.#run;
    const { source, id } = this.#job;
    const snapshot = await source.snapshot(run.machine, {
      key: run.snapshotKey,
      disks: run.machine.disks.map(({ key }) => key),
      consistency: this.#settings.consistency,
      job: id,
      signal: this.#signal,
    });
    await this.#document.update((state) => (state.run!.snapshot = snapshot));
    publish("diskferry:snapshot-take", () => ({
      job: id,
      run: run.id,
      machine: run.machine.id,
      snapshot: snapshot.id,
      consistency: snapshot.consistency,
      takenAt: snapshot.takenAt,
    }));
    const { consistency } = this.#settings;
    const missing = run.machine.disks.find(({ key }) => !snapshot.disks.some(({ disk }) => disk === key));
    if (missing !== undefined) {
      await this.#refuseSnapshot(snapshot);
      throw new ProviderError(
        "UNEXPECTED",
        `The snapshot of ${run.machine.name} lacks disk ${missing.key}, which was asked for: its disks would be no one ` +
          `point in time. Report it to the provider's author.`,
        { operation: "snapshot" },
      );
    }
    if (CONSISTENCIES.indexOf(snapshot.consistency) >= CONSISTENCIES.indexOf(consistency)) return;
    await this.#refuseSnapshot(snapshot);
    throw new ProviderError(
      "UNSUPPORTED",
      `Machine ${run.machine.name} gave a snapshot of consistency "${snapshot.consistency}" where "${consistency}" was ` +
        `asked for. Mend the guest's quiescing, or ask for less.`,
      { operation: "snapshot" },
    );
  }

  /** Ends a run that was given a snapshot it must not copy; the next one asks for another. */
  async #refuseSnapshot(snapshot: Snapshot): Promise<void> {
    await this.#document.update((state) => {
      state.toRelease.push(snapshot);
      delete state.run;
    });
    await this.#release();
  }

  /** Creates the volumes and settles how each disk is copied; written down before anything is written to them. */
  async #decideDisks(): Promise<void> {
    const { target, source, id } = this.#job;
    for (const snapshot of this.#run.snapshot!.disks) {
      if (this.#run.disks[snapshot.disk] !== undefined) continue;
      const disk = this.#run.machine.disks.find(({ key }) => key === snapshot.disk);
      if (disk === undefined) continue;
      const record = this.#recordOf(disk.key);
      const sized = { key: disk.key, size: snapshot.size };
      if (snapshot.size % 512 !== 0 || snapshot.size === 0) {
        throw new ProviderError(
          "CONFIG_INVALID",
          `Disk ${disk.key} of ${this.#run.machine.name} has ${snapshot.size} bytes: a disk's size is a multiple of 512, ` +
            `and not zero. Pad the file to a whole number of sectors.`,
          { operation: "replicate" },
        );
      }
      const decision = decide(sized, record, source.tracker, this.#settings);
      for (const fallback of decision.fallbacks) {
        this.#settings.notice(`Disk ${disk.key}: ${fallback.from} → ${fallback.to}: ${fallback.reason}`);
      }
      if (
        decision.fallbacks.length > 0 &&
        this.#settings.onTrackingLost === "fail" &&
        decision.mode !== "incremental"
      ) {
        const lost = decision.fallbacks[0]!;
        if (source.tracker !== undefined && lost.from === "incremental") {
          throw new ProviderError("TRACKING_LOST", `Disk ${disk.key}: ${lost.reason}; this job is told to stop then.`);
        }
      }
      const volume = await target.create({
        key: stateKey(id, this.#run.machine.id, disk.key),
        size: snapshot.size,
        name: `${this.#run.machine.name} ${disk.name ?? disk.key}`,
        job: id,
        signal: this.#signal,
      });
      let { mode } = decision;
      const shape = await this.#shapeOf(snapshot, record, mode, volume).catch((error: unknown) => {
        const gone = isProviderError(error) && error.code === "NOT_FOUND" && record !== undefined && mode !== "full";
        if (!gone || this.#settings.onTrackingLost === "fail") throw error;
        decision.fallbacks.push({ disk: disk.key, from: mode, to: "full", reason: error.message });
        this.#settings.notice(`Disk ${disk.key}: ${mode} → full: ${error.message}`);
        mode = "full";
        return this.#shapeOf(snapshot, record, mode, volume);
      });
      await this.#document.update((state) => {
        state.run!.disks[disk.key] = {
          size: snapshot.size,
          volume,
          mode,
          ...(decision.since === undefined || mode === "full" ? {} : { since: decision.since }),
          ...shape,
          fallbacks: decision.fallbacks,
        };
      });
    }
  }

  /** Leaf, digest, generation: those of the record while it is carried on, else the wanted and what the ends demand. */
  async #shapeOf(
    snapshot: DiskRecord["snapshot"],
    record: DiskRecord | undefined,
    mode: string,
    volume: DiskRecord["volume"],
  ): Promise<Pick<DiskRun, "leaf" | "digest" | "generation">> {
    const { digest, leaf } = this.#settings;
    const wait = { signal: this.#signal };
    const base = record === undefined || mode === "full" ? {} : { base: record.volume };
    const request = { run: this.#run.id, epoch: this.#lease.epoch, job: this.#job.id, ...base, ...wait };
    // Open while the target is opened: a provider sees then that both are the same disk, before it changes anything.
    // Closed by hand, since `await using` of Node 24 takes no bound function, which a provider may well give.
    const reader = await this.#job.source.open(snapshot, wait);
    const readerBlock = reader.blockSize;
    let writer: BlockWriter;
    try {
      writer = await this.#job.target.open(volume, request);
    } finally {
      await reader[Symbol.asyncDispose]();
    }
    const { blockSize, digest: demanded, generation } = writer;
    await this.#keep(snapshot.disk, writer);
    if (record !== undefined && mode !== "full") {
      return { leaf: record.leaf, digest: record.manifest?.algorithm ?? "none", generation };
    }
    if (demanded !== undefined && readerBlock > blockSize) {
      throw new ProviderError(
        "UNSUPPORTED",
        `Disk ${snapshot.disk} is read in blocks of ${readerBlock} bytes and volume ${volume.id} wants digests of blocks ` +
          `of ${blockSize}: this pair does not fit together.`,
        { operation: "open" },
      );
    }
    // A source with blocks of a leaf's size may read by the hints of its tiles alone, so no leaf holds two of them.
    const chosen = readerBlock >= SMALLEST_LEAF ? readerBlock : chooseLeaf(snapshot.size);
    const smallest = leaf ?? chosen;
    return {
      // A target that is told digests is told those of its own blocks.
      leaf: Math.max(demanded === undefined ? smallest : 0, readerBlock, blockSize),
      digest: demanded ?? digest ?? preferredAlgorithm(),
      generation,
    };
  }

  async #copyDisks(): Promise<boolean> {
    const slots = new Slots(this.#settings.parallelDisks);
    const outcomes = await Promise.allSettled(
      this.#runners.map((runner) =>
        slots
          .use(async () => {
            this.#signal.throwIfAborted();
            if (!(await runner.copy())) return false;
            await runner.verify("before-commit");
            return true;
          })
          .catch((error: unknown) => {
            // The other disks stop at once: without this one there will be no record.
            this.#stop.abort(error);
            throw error;
          }),
      ),
    );
    const { signal } = this.#options;
    if (signal?.aborted === true) throw signal.reason;
    if (this.#watch.signal.aborted) throw this.#watch.signal.reason;
    if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
    return outcomes.every((outcome) => outcome.status === "fulfilled" && outcome.value);
  }

  async #commit(): Promise<void> {
    if (this.#run.phase !== "committing") {
      await this.#document.update((state) => (state.run!.phase = "committing"));
    }
    for (const runner of this.#runners) {
      await runner.commit();
      await runner.verify("after-commit");
    }
  }

  #receipts(): Receipt[] {
    const { receiptKey, verify } = this.#settings;
    const { machine, snapshot, id } = this.#run;
    const receipts: Receipt[] = [];
    for (const { report } of this.#runners) {
      if (report.root === undefined || report.digest === "none") continue;
      const disk = snapshot!.disks.find((found) => found.disk === report.disk)!;
      const facts = {
        job: this.#job.id,
        machine: machine.id,
        disk: report.disk,
        size: report.size,
        source: { snapshot: disk.id, takenAt: snapshot!.takenAt, consistency: snapshot!.consistency },
        manifest: { algorithm: report.digest, leaf: report.leaf, root: report.root },
        volume: report.volume!.id,
        run: id,
        verified: { mode: verify, bytes: report.verifiedBytes },
        issuedAt: new Date().toISOString(),
      };
      receipts.push(issueReceipt(facts, receiptKey === undefined ? {} : { privateKey: receiptKey }));
    }
    return receipts;
  }

  /** The one write that makes the run count. */
  async #record(): Promise<void> {
    const { source, store, id } = this.#job;
    const run = this.#run;
    const snapshot = run.snapshot!;
    const disks: DiskRecord[] = [];
    for (const runner of this.#runners) {
      const state = run.disks[runner.disk]!;
      const diskSnapshot = snapshot.disks.find((found) => found.disk === runner.disk)!;
      const { distrusted } = this.#document.state.run!.disks[runner.disk]!;
      const checkpoint =
        distrusted === true ? undefined : await source.tracker?.checkpoint(diskSnapshot, { signal: this.#signal });
      if (checkpoint !== undefined && checkpoint.length > MOST_CHECKPOINT) {
        throw new ProviderError(
          "UNEXPECTED",
          `the checkpoint of disk ${runner.disk} is longer than ${MOST_CHECKPOINT} characters`,
        );
      }
      runner.report.checkpoint = checkpoint !== undefined;
      const volume = this.#document.state.run!.disks[runner.disk]!.committed!;
      const record: DiskRecord = {
        disk: runner.disk,
        size: state.size,
        volume,
        ...(volume.id === state.volume.id ? {} : { apart: true }),
        snapshot: diskSnapshot,
        mode: runner.report.mode,
        leaf: state.leaf,
      };
      const manifest = this.#document.state.run!.disks[runner.disk]!.copied?.manifest;
      if (manifest !== undefined) record.manifest = manifest;
      if (checkpoint !== undefined) record.checkpoint = checkpoint;
      if (distrusted === true) record.distrusted = true;
      disks.push(record);
    }
    const keepsBase = source.tracker?.keepsBase === true && disks.some((disk) => disk.checkpoint !== undefined);
    await this.#document.update((state) => {
      const before = state.record;
      // The last snapshot was kept as the base of this run, if it was kept at all; releasing twice does no harm.
      // A place that tells contents apart, not requests, may give an unchanged machine the same snapshot again.
      const isSame = before?.snapshot.id === snapshot.id;
      if (source.tracker?.keepsBase === true && before !== undefined && !isSame) state.toRelease.push(before.snapshot);
      if (!keepsBase) state.toRelease.push(snapshot);
      const points = before?.disks.map(({ volume }) => volume.id) ?? [];
      const stays = points.filter((id) => disks.some(({ volume }) => volume.id === id) === false);
      if (stays.length > 0) state.earlier = [...(state.earlier ?? []), ...stays].slice(-MOST_EARLIER);
      state.record = { run: run.id, at: new Date().toISOString(), machine: run.machine, snapshot, disks };
      state.torn = [];
      delete state.run;
    });
    publish("diskferry:record-write", () => ({ job: id, run: run.id }));
    await this.#sweep(store, disks);
  }

  /** Removes journals and pages that nothing refers to any more. What is missed now goes the next time. */
  async #sweep(store: Job["store"], disks: readonly DiskRecord[]): Promise<void> {
    const wait = { signal: this.#signal };
    for await (const key of store.list(`${stateKey("jobs", this.#job.id, "journals")}/`, wait))
      await store.delete(key, wait);
    for (const disk of disks) {
      if (disk.manifest === undefined) continue;
      const pages = keyOf.pages(this.#job.id, disk.disk);
      const kept = [await openManifest(store, pages, disk.manifest, wait)];
      await collect(store, pages, kept, { ...wait, check: (checkWait) => this.#lease.check(checkWait) });
    }
  }

  /** Releases what no checkpoint needs; this has to succeed before another snapshot is taken. */
  async #release(): Promise<void> {
    for (const snapshot of this.#document.state.toRelease) {
      await this.#job.source.release(snapshot, { signal: this.#signal });
      await this.#document.update((state) => {
        state.toRelease = state.toRelease.filter((kept) => kept.id !== snapshot.id);
      });
      publish("diskferry:snapshot-release", () => ({ job: this.#job.id, snapshot: snapshot.id }));
    }
  }

  #report(
    status: "done" | "paused",
    receipts: Receipt[],
    times?: { durableAt: string; previousTakenAt: string | undefined },
  ): RunReport {
    const run = this.#run;
    const snapshot = run.snapshot!;
    const disks = this.#runners.map((runner) => runner.report);
    const sum = (of: (disk: DiskReport) => number): number => disks.reduce((total, disk) => total + of(disk), 0);
    const endedAt = new Date().toISOString();
    const report: RunReport = {
      job: this.#job.id,
      run: run.id,
      machine: run.machine.id,
      status,
      resumed: this.#resumed,
      snapshot: { id: snapshot.id, takenAt: snapshot.takenAt, consistency: snapshot.consistency },
      disks,
      fallbacks: disks.flatMap((disk) => disk.fallbacks),
      startedAt: this.#startedAt,
      endedAt,
      receipts,
    };
    const load = this.#load?.summary;
    if (load !== undefined) report.load = load;
    if (times !== undefined) {
      report.metrics = measureRun({
        startedAt: this.#startedAt,
        endedAt,
        takenAt: snapshot.takenAt,
        ...times,
        readBytes: sum((disk) => disk.read),
        movedBytes: sum((disk) => disk.moved),
        changedBytes: sum((disk) => disk.changed),
        fullBytes: sum((disk) => disk.size),
      });
    }
    return report;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watch[Symbol.dispose]();
    this.#stop.abort(new DOMException("the run has ended", "AbortError"));
    await this.#closeOpened();
    for (const runner of this.#runners) await runner[Symbol.asyncDispose]();
  }
}

const UNOPENABLE: ReadonlySet<ProviderErrorCode> = new Set(["CORRUPT", "CONFIG_INVALID", "UNSUPPORTED"]);
/** What says that tracking stays as it is; a run without it is whole and says so. */
const UNMENDABLE: ReadonlySet<ProviderErrorCode> = new Set(["UNSUPPORTED", "DENIED"]);
const MOST_CHECKPOINT = 4096;
/** So many recovery points are remembered; providers that retain by count and age keep fewer. */
const MOST_EARLIER = 10_000;

function refuseAnother(job: string, before: Machine, now: Machine): void {
  if (before.id === now.id) return;
  throw new ProviderError(
    "CONFIG_INVALID",
    `Job ${job} replicates machine ${before.id} (${before.name}) and was asked to continue with ${now.id} (${now.name}). ` +
      `Use another job id for another machine; the target was not touched.`,
    { operation: "replicate" },
  );
}

/** The disks a job is about. @throws ProviderError naming a disk that is missing or cannot be copied. */
export function chosenDisks(machine: Machine, keys: readonly string[] | undefined): Disk[] {
  if (keys === undefined) {
    const eligible = machine.disks.filter((disk) => disk.ineligible === undefined);
    if (eligible.length > 0) return eligible;
    const why = machine.disks.map((disk) => `${disk.key}: ${disk.ineligible}`).join("; ");
    throw new ProviderError("UNSUPPORTED", `Machine ${machine.name} has no disk that can be copied. ${why}`);
  }
  return keys.map((key) => {
    const disk = machine.disks.find((found) => found.key === key);
    if (disk === undefined) {
      const known = machine.disks.map((found) => found.key).join(", ");
      throw new ProviderError("NOT_FOUND", `Machine ${machine.name} has no disk ${key}; it has ${known}.`);
    }
    if (disk.ineligible !== undefined) {
      throw new ProviderError("UNSUPPORTED", `Disk ${key} of ${machine.name} cannot be copied: ${disk.ineligible}`);
    }
    return disk;
  });
}
