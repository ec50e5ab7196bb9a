import type { RunReport } from "@diskferry/core";
import { formatBytes, formatDuration } from "../quantities.ts";
import { table } from "../table.ts";

/** What a sample of what the tracker called unchanged came to. */
function canaryText({ disk, canary }: RunReport["disks"][number]): string {
  if (canary === undefined) return "";
  const { sampled, unchanged, missed, bound, seed } = canary;
  const found =
    bound === undefined ? `${missed} had changed` : `none had changed (less than ${(100 * bound).toFixed(2)} %)`;
  return `canary of disk ${disk}: ${sampled} of ${unchanged} unchanged leaves read, ${found}; seed ${seed}\n`;
}

/** What a run came to, for people. */
export function runText(report: RunReport): string {
  const { job, run, status, resumed, snapshot, metrics } = report;
  const elapsedMs = Date.parse(report.endedAt) - Date.parse(report.startedAt);
  const what = status === "done" ? "done" : "paused";
  const moved = report.disks.reduce((sum, disk) => sum + disk.moved, 0);
  const read = report.disks.reduce((sum, disk) => sum + disk.read, 0);
  const speed = elapsedMs > 0 ? `, ${(read / 2 ** 20 / (elapsedMs / 1000)).toFixed(1)} MiB/s read` : "";
  const of =
    metrics === undefined || metrics.efficiency.full === 0
      ? ""
      : ` (${(100 * metrics.efficiency.ratio).toFixed(1)} % of a full copy)`;
  return [
    `job ${job}: run ${run} ${what} in ${formatDuration(elapsedMs)}${resumed ? ", going on with an interrupted one" : ""}\n`,
    `point in time: ${snapshot.takenAt}, consistency ${snapshot.consistency}\n`,
    `sent ${formatBytes(moved)}${of}${speed}\n`,
    ...report.disks.map(canaryText),
    table(
      ["disk", "mode", "size", "read", "sent", "zeroed", "same", "verified", "next run", "root"],
      report.disks.map((disk) => [
        disk.disk,
        disk.mode,
        formatBytes(disk.size),
        formatBytes(disk.read),
        formatBytes(disk.moved),
        formatBytes(disk.zeroed),
        formatBytes(disk.same),
        formatBytes(disk.verifiedBytes),
        status === "paused" ? "goes on" : disk.checkpoint ? "incremental" : disk.root === undefined ? "full" : "rescan",
        disk.root?.slice(0, 16) ?? "-",
      ]),
    ),
  ].join("");
}
