import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import type { JsonObject } from "../provider/extents.ts";

/** Which process this is, told apart from every other that ever ran. Plain JSON. */
export interface ProcessIdentity extends JsonObject {
  /** The machine: its name and, where it has one, its machine id. */
  host: string;
  /** This start of the machine; absent where the system does not tell. */
  boot?: string;
  /** The namespace of process ids (containers); absent where there are none. */
  space?: string;
  pid: number;
  /** When the process began, in the system's own unit, which tells a reused id; absent where it does not tell. */
  started?: string;
}

/** The identity of this process. */
export function ownIdentity(): ProcessIdentity {
  const machine = textOf("/etc/machine-id");
  const boot = textOf("/proc/sys/kernel/random/boot_id");
  const space = linkOf("/proc/self/ns/pid");
  const started = statOf(process.pid)?.started;
  return {
    host: machine ? `${hostname()}/${machine}` : hostname(),
    ...(boot && { boot }),
    ...(space && { space }),
    pid: process.pid,
    ...(started && { started }),
  };
}

/**
 * Whether a process still lives, as `self` can tell: false when it is proven dead (the machine was restarted since, the
 * process id is gone, reused or a zombie's), true when it is proven alive, undefined when nobody here can tell (another
 * machine, another container).
 */
export function isAlive(other: ProcessIdentity, self: ProcessIdentity): boolean | undefined {
  if (other.host !== self.host) return undefined;
  if (other.boot !== undefined && self.boot !== undefined && other.boot !== self.boot) return false;
  if (other.space !== self.space || other.boot !== self.boot) return undefined;
  // A signal, not /proc, tells that a process is gone: /proc may hide those of other users (hidepid).
  if (!Number.isSafeInteger(other.pid) || other.pid <= 0) return undefined;
  try {
    process.kill(other.pid, 0);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ESRCH") return false;
  }
  const now = statOf(other.pid);
  if (now === undefined) return true;
  if (now.state === "Z" || now.state === "X") return false;
  return other.started === undefined || other.started === now.started;
}

/** Checks what was read from a file. */
export function isProcessIdentity(value: unknown): value is ProcessIdentity {
  if (typeof value !== "object" || value === null) return false;
  const { host, boot, space, pid, started } = value as { [member: string]: unknown };
  const optional = (member: unknown): boolean => member === undefined || typeof member === "string";
  return typeof host === "string" && typeof pid === "number" && [boot, space, started].every(optional);
}

/** State and start time, proc(5), /proc/[pid]/stat, fields 3 and 22; the name before them may hold spaces. */
function statOf(pid: number): { state: string; started: string } | undefined {
  const text = textOf(`/proc/${pid}/stat`);
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, started] = [fields?.[0], fields?.[19]];
  return state !== undefined && started !== undefined ? { state, started } : undefined;
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
