import type { ProgressReport } from "@diskferry/core";
import { progressText } from "./progress-lines.ts";
import type { ProgressDisplay } from "./progress-display.ts";

interface Last {
  at: number;
  phase: string;
}

/** A line every few seconds and whenever a job goes over to something else. */
export class LineProgress implements ProgressDisplay {
  readonly #write: (line: string) => void;
  readonly #pace: Pace;

  constructor(write: (line: string) => void, intervalMs = 5_000) {
    this.#write = write;
    this.#pace = new Pace(intervalMs);
  }

  show(job: string, report: ProgressReport): void {
    // The last report repeats what the result says.
    if (!report.final && this.#pace.isDue(job, report)) this.#write(progressText(job, report));
  }

  clear(): void {}

  close(): void {}
}

/** An object a second, and whenever a job goes over to something else, and the last. */
export class JsonProgress implements ProgressDisplay {
  readonly #write: (content: object) => void;
  readonly #pace: Pace;

  constructor(write: (content: object) => void, intervalMs = 1_000) {
    this.#write = write;
    this.#pace = new Pace(intervalMs);
  }

  show(job: string, report: ProgressReport): void {
    if (report.final || this.#pace.isDue(job, report)) this.#write({ type: "progress", ...report, job });
  }

  clear(): void {}

  close(): void {}
}

/** Says when a job is to be heard again. */
class Pace {
  readonly #intervalMs: number;
  readonly #last = new Map<string, Last>();

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  isDue(job: string, { phase }: ProgressReport): boolean {
    const now = performance.now();
    const last = this.#last.get(job);
    if (last !== undefined && last.phase === phase && now - last.at < this.#intervalMs) return false;
    this.#last.set(job, { at: now, phase });
    return true;
  }
}
