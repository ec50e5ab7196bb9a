import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

/** Tells one process from every other: on this machine, since this start of it, and of this start of the process. */
export interface ProcessMark {
  pid: number;
  /** Clock ticks after boot at which the process started (proc(5), `stat` field 22); with the pid it is unique. */
  started: string;
  boot: string;
  machine: string;
  /** Process numbers mean something inside their namespace alone (pid_namespaces(7)). */
  namespace: string;
}

/** The mark of the process that calls. */
export function ownMark(): ProcessMark {
  return {
    pid: process.pid,
    started: startOf(process.pid) ?? "",
    boot: textOf("/proc/sys/kernel/random/boot_id"),
    machine: textOf("/etc/machine-id") || hostname(),
    namespace: namespaceOf(),
  };
}

/** Whether the process still runs; `unknown` where that cannot be seen from here (another host or container). */
export function livenessOf(mark: ProcessMark): "alive" | "dead" | "unknown" {
  const own = ownMark();
  if (mark.machine !== own.machine) return "unknown";
  if (mark.boot !== own.boot) return "dead";
  if (mark.namespace !== own.namespace) return "unknown";
  return startOf(mark.pid) === mark.started ? "alive" : "dead";
}

function startOf(pid: number): string | undefined {
  const stat = textOf(`/proc/${pid}/stat`);
  // The second field is the program's name in brackets and may hold anything, brackets and blanks included.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A process that only waits for its parent to take note (Z) or is being removed (X) writes no more.
  if (stat === "" || fields[0] === "Z" || fields[0] === "X") return undefined;
  return fields[19];
}

function namespaceOf(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
