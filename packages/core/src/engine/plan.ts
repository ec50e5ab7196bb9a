import type { Figure } from "../provider/preflight.ts";
import type { Wait } from "../provider/wait.ts";
import { decide } from "./decide.ts";
import type { Fallback, Job, RunMode } from "./job.ts";
import { JobDocument } from "./job-state.ts";
import { chosenDisks } from "./replicate.ts";
import { settingsOf } from "./settings.ts";

export interface DiskPlan {
  disk: string;
  size: number;
  mode: RunMode;
  reason: string;
  /** Bytes read from the source. */
  read: Figure;
  /** Bytes sent to the target. */
  write: Figure;
  fallbacks: Fallback[];
}

/** What a run would do. Plain JSON. */
export interface Plan {
  job: string;
  machine: string;
  /** A run under way that the next one goes on with. */
  resumes?: string;
  disks: DiskPlan[];
  /** At the bandwidth limit, where there is one. */
  minutes?: Figure;
  /** What stands in the way or should be known before, for people. */
  findings: string[];
}

/** Says what a run would do, before anything is touched: no snapshot is taken and no volume made. */
export async function plan(job: Job, wait: Wait = {}): Promise<Plan> {
  const settings = settingsOf(job.options);
  const { state } = await JobDocument.read(job.store, job.id, undefined, wait);
  const machine = await job.source.machine(job.machine, wait);
  const planned: Plan = { job: job.id, machine: machine.id, disks: [], findings: [] };
  if (state.run !== undefined) planned.resumes = state.run.id;
  for (const disk of chosenDisks(machine, job.disks)) {
    const record = state.record?.disks.find((found) => found.disk === disk.key);
    const { mode, reason, fallbacks } = decide(disk, record, job.source.tracker, settings);
    // What changed is known once there is a snapshot, and the plan takes none.
    const all: Figure = { value: disk.size, kind: "bound" };
    const read: Figure = mode === "rescan" ? { value: disk.size, kind: "exact" } : all;
    planned.disks.push({ disk: disk.key, size: disk.size, mode, reason, read, write: all, fallbacks });
  }
  for (const disk of machine.disks) {
    if (disk.ineligible !== undefined) planned.findings.push(`Disk ${disk.key} is left out: ${disk.ineligible}`);
  }
  if (job.source.tracker === undefined) {
    planned.findings.push("This source tracks no changes: every run after the first reads all and sends what differs.");
  }
  if (job.target.read === undefined && settings.verify !== "none") {
    planned.findings.push(
      "This target cannot be read back: replicas are not verified beyond the digests of what was sent.",
    );
  }
  if (job.target.fences === undefined) {
    planned.findings.push(
      `This target cannot cut a lost worker off: taking over from one that may still live waits ${settings.attempts.perAttemptMs / 1000} s.`,
    );
  }
  const rate = settings.limits?.rates.rates.bytesPerSecond;
  if (rate !== undefined) {
    const bytes = planned.disks.reduce((sum, disk) => sum + disk.read.value, 0);
    planned.minutes = { value: Math.ceil(bytes / rate / 60), kind: "bound" };
  }
  return planned;
}
