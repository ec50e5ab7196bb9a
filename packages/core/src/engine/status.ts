import type { Consistency } from "../provider/source.ts";
import type { LaunchedMachine, Volume } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { StateStore } from "../state/state-store.ts";
import { JobDocument, type CutoverState } from "./job-state.ts";
import { launchedMachines } from "./launch-book.ts";
import type { RunMode } from "./job.ts";
import { tornDisks } from "./recorded.ts";

/** What is known of a job, for people. Plain JSON. */
export interface JobStatus {
  job: string;
  /** Absent before the first run has ended. */
  record?: {
    run: string;
    at: string;
    machine: string;
    snapshot: { id: string; takenAt: string; consistency: Consistency };
    disks: { disk: string; size: number; volume: Volume; mode: RunMode; root?: string; incrementalNext: boolean }[];
  };
  /** A run that has begun and not ended. */
  run?: { id: string; startedAt: string; phase: string; disks: string[] };
  torn: string[];
  launches: LaunchedMachine[];
  cutover?: CutoverState;
}

/** Reads a job's state; touches neither source nor target. */
export async function status(store: StateStore, job: string, wait: Wait = {}): Promise<JobStatus> {
  const { state } = await JobDocument.read(store, job, undefined, wait);
  const found: JobStatus = { job, torn: tornDisks(state), launches: [...(await launchedMachines(store, job, wait))] };
  const { record, run, cutover } = state;
  if (record !== undefined) {
    const { id, takenAt, consistency } = record.snapshot;
    found.record = {
      run: record.run,
      at: record.at,
      machine: record.machine.id,
      snapshot: { id, takenAt, consistency },
      disks: record.disks.map((disk) => ({
        disk: disk.disk,
        size: disk.size,
        volume: disk.volume,
        mode: disk.mode,
        incrementalNext: disk.checkpoint !== undefined,
        ...(disk.manifest === undefined ? {} : { root: disk.manifest.root }),
      })),
    };
  }
  if (run !== undefined) {
    found.run = { id: run.id, startedAt: run.startedAt, phase: run.phase, disks: Object.keys(run.disks) };
  }
  if (cutover !== undefined) found.cutover = cutover;
  return found;
}
