import type { ProgressReport } from "@diskferry/core";

/** Shows how far jobs have come. */
export interface ProgressDisplay {
  show(job: string, report: ProgressReport): void;
  /** Makes room for other text, which may be followed by more progress. */
  clear(): void;
  /** Ends the display. */
  close(): void;
}

/** Shows nothing. */
export const silentProgress: ProgressDisplay = { show() {}, clear() {}, close() {} };
