import { isProviderError } from "../provider/error.ts";
import type { Clock } from "./clock.ts";

/** What is asked of a source or target. */
export type CallMethod =
  | "open"
  | "snapshot"
  | "changes"
  | "checkpoint"
  | "read"
  | "digests"
  | "create"
  | "write"
  | "zero"
  | "flush"
  | "commit"
  | "abandon"
  | "release"
  | "remove";

/**
 * One call to a source or target on its way through the layers. The same object passes through all of them and through
 * all attempts; what is not `readonly` is theirs to update.
 */
export interface Call {
  readonly method: CallMethod;
  readonly side: "source" | "target";
  /** Key of the disk, for messages and telemetry. */
  readonly disk?: string | undefined;
  /** Bytes. */
  readonly offset?: number | undefined;
  /** Bytes. */
  readonly length?: number | undefined;
  /** What a read fills or a write takes: the innermost `run` uses these bytes. Absent where they are in another thread. */
  readonly data?: Uint8Array | undefined;
  /** 1 for the first attempt. */
  attempt: number;
  /** Aborted when the caller gives up, or a layer outside of the one that looks. */
  signal: AbortSignal;
  /** When the retry layer gives up, on the clock's `now`; holding a call back moves it. */
  deadlineAt?: number | undefined;
  /** Milliseconds for which our own gates and limits held the call back so far. */
  heldMs?: number | undefined;
  /** Since when, on the clock's `now`, a gate or limit holds the call back. */
  heldSince?: number | undefined;
  /**
   * Set when the call was given up although the far side did not let go of it: its buffer must not be used again
   * before this resolves, and the reader or writer counts as dead. Never rejects.
   */
  unsettled?: Promise<void> | undefined;
}

/** What a layer wraps: the call itself, or the layers further in. */
export type Run = (call: Call) => Promise<void>;

/**
 * Something around every call: it may wait, refuse, repeat `run`, measure it or check what it did. A layer that is
 * composed once serves any number of calls at once.
 */
export type Layer = (call: Call, run: Run) => Promise<void>;

/**
 * One layer out of many, the first outermost. The order in which core's own belong: watchdog, retry, gate, throttle,
 * metrics, tracing, timeout, verify, faults. So a call that waits for a gate or limit is never taken for one that
 * hangs, every attempt is charged and measured, and a timed-out attempt is repeated.
 */
export function compose(layers: readonly Layer[]): Layer {
  const [first, ...rest] = layers;
  if (first === undefined) return (call, run) => run(call);
  if (rest.length === 0) return first;
  const inner = compose(rest);
  return (call, run) => first(call, (next) => inner(next, run));
}

/** Waits for something of our own making, and does not charge the call for the time. */
export async function hold(call: Call, clock: Clock, waiting: Promise<void>): Promise<void> {
  const since = clock.now();
  call.heldSince = since;
  try {
    await waiting;
  } finally {
    const held = clock.now() - since;
    call.heldSince = undefined;
    call.heldMs = (call.heldMs ?? 0) + held;
    if (call.deadlineAt !== undefined) call.deadlineAt += held;
  }
}

const doing: Record<CallMethod, string> = {
  open: "opening",
  snapshot: "taking a snapshot",
  changes: "listing changes",
  checkpoint: "asking for a checkpoint",
  read: "reading",
  digests: "asking for digests of",
  create: "creating a volume",
  write: "writing",
  zero: "zeroing",
  flush: "flushing",
  commit: "committing",
  abandon: "abandoning",
  release: "releasing",
  remove: "removing",
};

/** A call in words: `reading 1 MiB at offset 4096 of disk sda`. */
export function describeCall(call: Call): string {
  const what = call.length === undefined ? "" : ` ${describeBytes(call.length)}`;
  const where = call.offset === undefined ? "" : ` at offset ${call.offset}`;
  const disk = call.disk === undefined ? ` (${call.side})` : ` of ${call.side} disk ${call.disk}`;
  return `${doing[call.method]}${what}${where}${disk}`;
}

/** Bytes in words, in the largest unit that divides them: `1 MiB`, `1536 bytes`. */
export function describeBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let count = bytes;
  while (count >= 1024 && count % 1024 === 0 && unit < units.length - 1) {
    count /= 1024;
    unit++;
  }
  return `${count} ${units[unit]}`;
}

/** The code of a provider's error, or what stands for any other failure in counts and events. */
export function codeOf(error: unknown): string {
  if (isProviderError(error)) return error.code;
  return error instanceof Error && error.name === "AbortError" ? "ABORTED" : "UNEXPECTED";
}
