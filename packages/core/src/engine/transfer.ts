import { ProviderError } from "../provider/error.ts";
import type { Extent } from "../provider/extents.ts";
import type { Wait } from "../provider/wait.ts";
import { ProgressMeter } from "../telemetry/progress.ts";
import { DiskRunner, type DiskReport } from "./disk-run.ts";
import type { Job } from "./job.ts";
import { JobDocument } from "./job-state.ts";
import { replicate, Replication, type RunOptions, type RunReport } from "./replicate.ts";
import { settingsOf } from "./settings.ts";
import { acquire, toldAsFenced, watchLease } from "./take-over.ts";

export interface TransferOptions extends RunOptions {
  /** Stops at the next durable point after so many milliseconds; the report then says `paused`. */
  deadlineMs?: number | undefined;
}

/**
 * Replicates one disk: the machine's only one, or the only one the job names.
 * @throws ProviderError CONFIG_INVALID when the job names several.
 */
export async function transfer(job: Job, options: TransferOptions = {}): Promise<RunReport> {
  if (job.disks === undefined || job.disks.length !== 1) {
    const machine = await job.source.machine(job.machine, options);
    const keys = job.disks ?? machine.disks.map((disk) => disk.key);
    if (keys.length !== 1) {
      throw new ProviderError(
        "CONFIG_INVALID",
        `A transfer moves one disk, and job ${job.id} is about ${keys.length} (${keys.join(", ")}): name one in "disks", ` +
          `or use replicate for all of them at one point in time.`,
        { operation: "transfer" },
      );
    }
  }
  using deadline = pauseAfter(options.deadlineMs, options.pause);
  return await replicate(job, { ...options, pause: deadline.signal });
}

/** What independent processes need to copy slices of one run. Plain JSON. */
export interface RunTicket {
  job: string;
  run: string;
  epoch: number;
  disks: { disk: string; size: number; leaf: number }[];
}

/**
 * Begins a run, or finds the one under way, for {@link transferSlice} to work on in any number of processes. Nothing is
 * copied. `replicate` then copies what is missing, verifies, commits and records; until then no other run may begin.
 */
export async function beginRun(job: Job, wait: Wait = {}): Promise<RunTicket> {
  const settings = settingsOf(job.options);
  await using lease = await acquire(job, settings, wait);
  await using run = new Replication(job, settings, lease, wait);
  const state = await run.prepare();
  return {
    job: job.id,
    run: state.id,
    epoch: lease.epoch,
    disks: Object.entries(state.disks).map(([disk, { size, leaf }]) => ({ disk, size, leaf })),
  };
}

export interface SliceOptions extends TransferOptions {
  disk: string;
  /** What to copy; on multiples of the leaf, but where the disk ends. Slices of one run do not overlap. */
  range: Extent;
}

/** What a slice came to. Plain JSON. */
export interface SliceReport {
  status: "done" | "paused";
  disk: DiskReport;
}

/**
 * Copies a slice of a disk for a run that {@link beginRun} began, journaled and flushed but neither verified nor
 * committed. @throws ProviderError FENCED when the run has ended or another worker took the job over.
 */
export async function transferSlice(job: Job, ticket: RunTicket, options: SliceOptions): Promise<SliceReport> {
  const settings = settingsOf(job.options);
  const { disk, range, onProgress } = options;
  const known = ticket.disks.find((found) => found.disk === disk);
  if (known === undefined) throw new ProviderError("NOT_FOUND", `Run ${ticket.run} has no disk ${disk}.`);
  const to = range.offset + range.length;
  if (range.offset % known.leaf !== 0 || (to % known.leaf !== 0 && to !== known.size) || to > known.size) {
    throw new RangeError(
      `slice ${range.offset}+${range.length} is not on leaves of ${known.leaf} within ${known.size} bytes`,
    );
  }
  const document = await JobDocument.read(job.store, job.id, undefined, options);
  await checkTicket(job, ticket, options);
  const check = (wait: Wait = {}): Promise<void> => checkTicket(job, ticket, wait);
  using watch = watchLease(check, settings.attempts.leaseMs);
  using meter = new ProgressMeter({ onProgress, job: job.id, run: ticket.run });
  using deadline = pauseAfter(options.deadlineMs, options.pause);
  await using runner = new DiskRunner({
    job,
    settings,
    document,
    lease: { epoch: ticket.epoch, check },
    run: ticket.run,
    snapshot: document.state.run!.snapshot!.disks.find((found) => found.disk === disk)!,
    record: document.state.record?.disks.find((record) => record.disk === disk),
    meter: meter.disk(disk, { totalBytes: range.length }),
    pause: deadline.signal,
    signal: options.signal === undefined ? watch.signal : AbortSignal.any([options.signal, watch.signal]),
  });
  const done = await runner.copy({ from: range.offset, to }).catch((error: unknown) => toldAsFenced(error, check));
  return { status: done ? "done" : "paused", disk: runner.report };
}

async function checkTicket(job: Job, ticket: RunTicket, wait: Wait): Promise<void> {
  const { state } = await JobDocument.read(job.store, job.id, undefined, wait);
  if (state.run?.id === ticket.run && state.epoch === ticket.epoch) return;
  throw new ProviderError(
    "FENCED",
    `Run ${ticket.run} of job ${job.id} has ended or was taken over; this slice stops.`,
    {
      operation: "transfer",
    },
  );
}

/** A signal that aborts after a time, or with another one. */
function pauseAfter(
  ms: number | undefined,
  other: AbortSignal | undefined,
): { signal: AbortSignal | undefined } & Disposable {
  if (ms === undefined) return { signal: other, [Symbol.dispose]() {} };
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), ms);
  const signal = other === undefined ? controller.signal : AbortSignal.any([other, controller.signal]);
  return { signal, [Symbol.dispose]: () => clearTimeout(timer) };
}
