import type { DiskProgress, ProgressReport } from "@diskferry/core";
import { formatBytes, formatDuration } from "../quantities.ts";

export interface LineOptions {
  /** Characters in a line; none is longer. */
  columns: number;
  colour: boolean;
  /** Lines at most. */
  most: number;
}

type Row = Omit<DiskProgress, "disk"> & { name: string };

/** A line with a bar for each job, and for each disk of a job that has several. */
export function progressLines(
  reports: readonly (readonly [job: string, report: ProgressReport])[],
  options: LineOptions,
): string[] {
  const rows = reports.flatMap(([job, report]): Row[] => {
    const disks = report.disks.length < 2 ? [] : report.disks.map((disk) => ({ ...disk, name: `  ${disk.disk}` }));
    return [{ ...report, name: job }, ...disks];
  });
  const shown = rows.length > options.most ? rows.slice(0, options.most - 1) : rows;
  const nameWidth = Math.min(Math.max(0, ...shown.map(({ name }) => name.length)), Math.floor(options.columns / 4));
  const lines = shown.map((row) => lineOf(row, nameWidth, options));
  if (shown.length < rows.length) lines.push(fit(`  and ${rows.length - shown.length} more`, options.columns));
  return lines;
}

/** The same in plain words: `disk.raw: copying 45 %, 0.9 GiB of 2.0 GiB, 345.6 MiB/s, 0:03 to go`. */
export function progressText(job: string, report: ProgressReport): string {
  const { phase, doneBytes, totalBytes } = report;
  const speed = report.mibPerSecond > 0 ? `, ${report.mibPerSecond.toFixed(1)} MiB/s` : "";
  const toGo = report.etaMs !== undefined && report.etaMs > 0 ? `, ${formatDuration(report.etaMs)} to go` : "";
  return `${job}: ${phase} ${percentOf(report)} %, ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}${speed}${toGo}`;
}

const leastBar = 8;
const mostBar = 40;

function lineOf(row: Row, nameWidth: number, { columns, colour }: LineOptions): string {
  const name = fit(row.name, nameWidth).padEnd(nameWidth);
  const phase = row.phase.padEnd("committing".length);
  const percent = `${String(percentOf(row)).padStart(3)} %`;
  const bytes = `${formatBytes(row.doneBytes)} / ${formatBytes(row.totalBytes)}`;
  const speed = row.mibPerSecond > 0 ? `${row.mibPerSecond.toFixed(1)} MiB/s` : "";
  const eta = row.etaMs !== undefined && row.etaMs > 0 ? `ETA ${formatDuration(row.etaMs)}` : "";
  // What matters least is left out first where the line is short.
  for (const parts of [
    [name, phase, percent, bytes, speed, eta],
    [name, percent, bytes, speed, eta],
    [name, percent, speed, eta],
    [name, percent],
  ]) {
    const text = parts.filter((part) => part !== "");
    const taken = text.join("  ").length;
    const room = Math.min(mostBar, columns - taken - 2 - 2);
    if (room >= leastBar) {
      const at = text.indexOf(percent);
      return [...text.slice(0, at), bar(row, room, colour), ...text.slice(at)].join("  ");
    }
  }
  return fit(`${row.name} ${percent}`, columns);
}

function bar(row: Row, width: number, colour: boolean): string {
  const filled = Math.round((width * percentOf(row)) / 100);
  const done = "#".repeat(filled);
  const rest = "-".repeat(width - filled);
  return colour ? `[\u001b[36m${done}\u001b[39m${rest}]` : `[${done}${rest}]`;
}

function percentOf({ doneBytes, totalBytes }: Pick<DiskProgress, "doneBytes" | "totalBytes">): number {
  if (totalBytes <= 0) return 0;
  // 100 is said when nothing is left.
  return Math.max(0, Math.min(doneBytes >= totalBytes ? 100 : 99, Math.floor((100 * doneBytes) / totalBytes)));
}

function fit(text: string, width: number): string {
  return text.length <= width ? text : width < 2 ? text.slice(0, width) : `${text.slice(0, width - 1)}…`;
}
