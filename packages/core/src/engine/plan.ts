import type { Cost, Figure, Finding, PlannedDisk, Preflight } from "../provider/preflight.ts";
import type { Wait } from "../provider/wait.ts";
import { decide } from "./decide.ts";
import type { Fallback, Job } from "./job.ts";
import { JobDocument } from "./job-state.ts";
import { chosenDisks } from "./replicate.ts";
import { settingsOf, type Settings } from "./settings.ts";
import { longestTakeover } from "./take-over.ts";

export interface DiskPlan extends PlannedDisk {
  /** Why this mode. */
  reason: string;
  fallbacks: Fallback[];
}

/** What a run would do. Plain JSON. */
export interface Plan {
  job: string;
  machine: string;
  /** A run under way that the next one goes on with. */
  resumes?: string;
  disks: DiskPlan[];
  /** Calls of both platforms' APIs, as far as they can tell. */
  calls: { side: "source" | "target"; operation: string; count: Figure }[];
  costs: Cost[];
  /** How long it takes: at the bandwidth limit and at the platforms' quotas, whichever is longest. Absent: nobody knows. */
  minutes?: Figure;
  /** By the platforms' names; `missing` absent: could not be asked. */
  privileges: { source?: Preflight["privileges"]; target?: Preflight["privileges"] };
  /** What stands in the way or should be known before; blockers first. */
  findings: Finding[];
}

/** Says what a run would do, before anything is touched: no snapshot is taken and no volume made. */
export async function plan(job: Job, wait: Wait = {}): Promise<Plan> {
  const settings = settingsOf(job.options);
  const { source, target } = job;
  const { state } = await JobDocument.read(job.store, job.id, undefined, wait);
  const machine = await source.machine(job.machine, wait);
  const disks = chosenDisks(machine, job.disks).map((disk): DiskPlan => {
    const record = state.record?.disks.find((found) => found.disk === disk.key);
    const { mode, since, reason, fallbacks } = decide(disk, record, source.tracker, settings);
    // What changed is known once there is a snapshot, and the plan takes none.
    const all: Figure = { value: disk.size, kind: "bound" };
    const read: Figure = mode === "rescan" ? { value: disk.size, kind: "exact" } : all;
    const planned: DiskPlan = { disk: disk.key, size: disk.size, mode, read, write: all, reason, fallbacks };
    if (since !== undefined) planned.since = since;
    if (record !== undefined) planned.base = record.volume;
    return planned;
  });
  const findings: Finding[] = machine.disks
    .filter(({ ineligible }) => ineligible !== undefined)
    .map(({ key, ineligible }) => warning(`disk ${key}`, `It is left out: ${ineligible}`));
  findings.push(...whatIsMissing(job, settings));
  const request = { disks, job: job.id, signal: wait.signal };
  const spec = { name: machine.name, ...machine.spec };
  const [ofSource, ofTarget] = await Promise.all([
    source.preflight?.(machine, request),
    target.preflight?.({ ...request, machine: spec }),
  ]);
  findings.push(...(ofSource?.findings ?? []), ...(ofTarget?.findings ?? []));
  const weight = { blocker: 0, warning: 1, info: 2 };
  const planned: Plan = {
    job: job.id,
    machine: machine.id,
    ...(state.run === undefined ? {} : { resumes: state.run.id }),
    disks,
    calls: [
      ...(ofSource?.calls ?? []).map((call) => ({ side: "source" as const, ...call })),
      ...(ofTarget?.calls ?? []).map((call) => ({ side: "target" as const, ...call })),
    ],
    costs: [...(ofSource?.costs ?? []), ...(ofTarget?.costs ?? [])],
    privileges: {
      ...(ofSource?.privileges === undefined ? {} : { source: ofSource.privileges }),
      ...(ofTarget?.privileges === undefined ? {} : { target: ofTarget.privileges }),
    },
    findings: findings.toSorted((one, other) => weight[one.severity] - weight[other.severity]),
  };
  const longest = [atBandwidth(disks, settings), ofSource?.minutes, ofTarget?.minutes]
    .filter((minutes) => minutes !== undefined)
    .toSorted((one, other) => other.value - one.value)[0];
  if (longest !== undefined) planned.minutes = longest;
  return planned;
}

function warning(subject: string, message: string): Finding {
  return { severity: "warning", subject, message };
}

/** What the ends cannot do, and what follows from it. */
function whatIsMissing({ source, target }: Job, settings: Settings): Finding[] {
  const findings: Finding[] = [];
  if (source.tracker === undefined) {
    findings.push(
      warning("change tracking", "This source has none: every run after the first reads all and sends what differs."),
    );
  }
  if (target.read === undefined && settings.verify !== "none") {
    findings.push(
      warning(
        "verification",
        "This target cannot be read back: replicas are not verified beyond the digests of what was sent.",
      ),
    );
  }
  if (target.fences === undefined) {
    const seconds = longestTakeover(settings) / 1000;
    findings.push({
      severity: "info",
      subject: "fencing",
      message: `This target cannot cut a lost worker off: taking over from one that may still live waits ${seconds} s.`,
    });
  }
  return findings;
}

function atBandwidth(disks: readonly DiskPlan[], settings: Settings): Figure | undefined {
  const rate = settings.limits?.rates.rates.bytesPerSecond;
  if (rate === undefined) return undefined;
  const bytes = disks.reduce((sum, disk) => sum + disk.read.value, 0);
  return { value: Math.ceil(bytes / rate / 60), kind: "bound" };
}
