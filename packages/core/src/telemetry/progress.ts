import { systemClock } from "../layers/clock.ts";
import type { Clock } from "../layers/clock.ts";
import type { SourceLoad } from "../provider/source.ts";
import { hasListeners, publish } from "./channels.ts";
import { Speed } from "./speed.ts";

/** What a disk or run is busy with. `waiting`: for its backup window. `paused`: because somebody said so. */
export type ProgressPhase = "snapshot" | "copying" | "verifying" | "committing" | "releasing" | "paused" | "waiting";

/** How far one disk has come. Plain JSON. */
export interface DiskProgress {
  disk: string;
  phase: ProgressPhase;
  /** Bytes of the work that are done, those of an earlier, interrupted run included. */
  doneBytes: number;
  /** Bytes of work, as far as known by now; may grow while changes are listed. */
  totalBytes: number;
  /** Bytes really sent by this run. */
  movedBytes: number;
  /** Speed of the last seconds. */
  mibPerSecond: number;
  /** Milliseconds to go at that speed; absent when that cannot be said. */
  etaMs?: number | undefined;
}

/** How far a run has come, over all of its disks. Plain JSON. */
export interface ProgressReport extends Omit<DiskProgress, "disk"> {
  job?: string | undefined;
  run?: string | undefined;
  machine?: string | undefined;
  disks: DiskProgress[];
  elapsedMs: number;
  /** How busy the source's host was when it was last asked; absent: it does not tell. */
  load?: SourceLoad | undefined;
  /** True once, in the last report. */
  final: boolean;
}

export interface ProgressOptions {
  onProgress?: ((report: ProgressReport) => void) | undefined;
  job?: string | undefined;
  run?: string | undefined;
  machine?: string | undefined;
  /** Reports per second at most. Default 4. */
  perSecond?: number | undefined;
  /** Over how long the speed is measured. Default 10 000. */
  windowMs?: number | undefined;
  clock?: Clock | undefined;
}

/** One disk's part in a {@link ProgressMeter}. */
export interface DiskMeter {
  setPhase(phase: ProgressPhase): void;
  /** Bytes of work, all in all. */
  setTotal(totalBytes: number): void;
  /** `doneBytes` more are done, of which `movedBytes` (default all) were sent. */
  advance(doneBytes: number, movedBytes?: number): void;
}

/** The order in which phases follow each other; the run is where its hindmost disk is. */
const order: readonly ProgressPhase[] = [
  "snapshot",
  "waiting",
  "paused",
  "copying",
  "verifying",
  "committing",
  "releasing",
];

/**
 * Adds up what is done and tells a callback and the channel `diskferry:progress-report`, at most so many times a second
 * and always at the end. An error thrown by the callback becomes a process warning, once: a copy does not fail because
 * its progress bar does.
 */
export class ProgressMeter implements Disposable {
  readonly #options: ProgressOptions;
  readonly #clock: Clock;
  readonly #startedAt: number;
  readonly #intervalMs: number;
  readonly #windowMs: number;
  readonly #speed: Speed;
  readonly #disks = new Map<string, Tally>();
  #phase: ProgressPhase | undefined;
  #load: SourceLoad | undefined;
  #held: "paused" | "waiting" | undefined;
  #reportedAt = Number.NEGATIVE_INFINITY;
  #cancelTimer: (() => void) | undefined;
  #over = false;
  #warned = false;

  constructor(options: ProgressOptions = {}) {
    const { perSecond = 4, windowMs = 10_000, clock = systemClock } = options;
    if (!(perSecond > 0)) throw new RangeError(`perSecond is ${perSecond}; more than 0 is needed`);
    this.#options = options;
    this.#clock = clock;
    this.#startedAt = clock.now();
    this.#intervalMs = 1000 / perSecond;
    this.#windowMs = windowMs;
    this.#speed = new Speed(windowMs, this.#startedAt);
  }

  /**
   * The meter of a disk, made at the first call. `doneBytes`: what an earlier run has done already, which counts as done
   * but not for the speed.
   */
  disk(disk: string, start: { totalBytes?: number; doneBytes?: number; phase?: ProgressPhase } = {}): DiskMeter {
    let tally = this.#disks.get(disk);
    if (tally === undefined) {
      tally = new Tally(disk, this.#windowMs, this.#clock.now());
      tally.totalBytes = start.totalBytes ?? 0;
      tally.doneBytes = start.doneBytes ?? 0;
      tally.phase = start.phase ?? "snapshot";
      this.#disks.set(disk, tally);
      this.#changed();
    }
    const found = tally;
    return {
      setPhase: (phase) => {
        if (found.phase === phase) return;
        found.phase = phase;
        this.#changed();
      },
      setTotal: (totalBytes) => {
        found.totalBytes = totalBytes;
        this.#changed();
      },
      advance: (doneBytes, movedBytes = doneBytes) => {
        const now = this.#clock.now();
        found.doneBytes += doneBytes;
        found.movedBytes += movedBytes;
        found.speed.add(doneBytes, now);
        this.#speed.add(doneBytes, now);
        this.#changed();
      },
    };
  }

  /** What the run as a whole is busy with; undefined: where its hindmost disk is. */
  setPhase(phase: ProgressPhase | undefined): void {
    this.#phase = phase;
    this.#changed();
  }

  /** How busy the source's host is. */
  setLoad(load: SourceLoad): void {
    this.#load = load;
    this.#changed();
  }

  /** Shows every disk as held, until called with undefined: for gates. */
  setHeld(held: "paused" | "waiting" | undefined): void {
    if (this.#held === held) return;
    this.#held = held;
    if (held === undefined) {
      // Time in which nothing was allowed to happen says nothing about the speed.
      const now = this.#clock.now();
      this.#speed.restart(now);
      for (const tally of this.#disks.values()) tally.speed.restart(now);
    }
    this.#changed();
  }

  /** How far things are now. */
  report(final = false): ProgressReport {
    const now = this.#clock.now();
    const disks = [...this.#disks.values()].map((tally) => tally.toProgress(now, this.#held));
    const sum = (key: "doneBytes" | "totalBytes" | "movedBytes"): number =>
      disks.reduce((total, disk) => total + disk[key], 0);
    const doneBytes = sum("doneBytes");
    const totalBytes = sum("totalBytes");
    const bytesPerMs = this.#held === undefined ? this.#speed.bytesPerMs(now) : 0;
    const hindmost = Math.min(...disks.map(({ phase }) => order.indexOf(phase)));
    const { job, run, machine } = this.#options;
    return {
      job,
      run,
      machine,
      phase: this.#held ?? this.#phase ?? order[hindmost] ?? "snapshot",
      doneBytes,
      totalBytes,
      movedBytes: sum("movedBytes"),
      mibPerSecond: (bytesPerMs * 1000) / 1048576,
      etaMs: etaMs(totalBytes - doneBytes, bytesPerMs),
      disks,
      elapsedMs: now - this.#startedAt,
      ...(this.#load === undefined ? {} : { load: this.#load }),
      final,
    };
  }

  /** Sends the last report, at once; what comes after it is ignored. Idempotent. */
  finish(): void {
    if (this.#over) return;
    this.#send(true);
    this.#over = true;
  }

  [Symbol.dispose](): void {
    this.finish();
  }

  #changed(): void {
    if (this.#over || (this.#options.onProgress === undefined && !hasListeners("diskferry:progress-report"))) return;
    const sinceMs = this.#clock.now() - this.#reportedAt;
    if (sinceMs >= this.#intervalMs) this.#send(false);
    // What came too soon is seen even if nothing follows. The timer does not keep the process alive.
    else this.#cancelTimer ??= this.#clock.after(this.#intervalMs - sinceMs, () => this.#send(false), false);
  }

  #send(final: boolean): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#reportedAt = this.#clock.now();
    const report = this.report(final);
    publish("diskferry:progress-report", () => report);
    try {
      this.#options.onProgress?.(report);
    } catch (error) {
      if (!this.#warned) process.emitWarning(`onProgress threw and is called on: ${String(error)}`, "DiskferryWarning");
      this.#warned = true;
    }
  }
}

class Tally {
  readonly disk: string;
  readonly speed: Speed;
  phase: ProgressPhase = "snapshot";
  doneBytes = 0;
  totalBytes = 0;
  movedBytes = 0;

  constructor(disk: string, windowMs: number, now: number) {
    this.disk = disk;
    this.speed = new Speed(windowMs, now);
  }

  toProgress(now: number, held: "paused" | "waiting" | undefined): DiskProgress {
    const { disk, doneBytes, totalBytes, movedBytes } = this;
    const bytesPerMs = held === undefined ? this.speed.bytesPerMs(now) : 0;
    return {
      disk,
      phase: held ?? this.phase,
      doneBytes,
      totalBytes,
      movedBytes,
      mibPerSecond: (bytesPerMs * 1000) / 1048576,
      etaMs: etaMs(totalBytes - doneBytes, bytesPerMs),
    };
  }
}

function etaMs(leftBytes: number, bytesPerMs: number): number | undefined {
  if (leftBytes <= 0) return 0;
  return bytesPerMs > 0 ? leftBytes / bytesPerMs : undefined;
}
