import { setTimeout as delay } from "node:timers/promises";
import { localError } from "../errors.ts";

const statePlace = 0;
const underWayPlace = 1;
const open = 0;

/** Why a gate was shut: a newer epoch took the target over, or the writer was closed. */
export type ShutReason = "fenced" | "closed" | "failed";

const reasons: readonly ShutReason[] = ["fenced", "closed", "failed"];

/**
 * What a writer shares with its lanes in other threads: whether writing is still allowed, and how many writes are
 * under way. Two 32-bit words of shared memory; it travels by `postMessage`.
 */
export type WriteGate = Int32Array;

/** A new gate, open. */
export function createGate(): WriteGate {
  return new Int32Array(new SharedArrayBuffer(8));
}

/**
 * Announces one write; {@link leaveGate} must follow when it settled. The write is announced before the state is
 * looked at, so that whoever shuts the gate either is seen here or sees this write and waits for it.
 * @throws ProviderError FENCED or UNAVAILABLE when the gate is shut.
 */
export function enterGate(gate: WriteGate, object: string): void {
  Atomics.add(gate, underWayPlace, 1);
  const state = Atomics.load(gate, statePlace);
  if (state === open) return;
  Atomics.sub(gate, underWayPlace, 1);
  throw shutError(state, object);
}

/** The end of a write that {@link enterGate} announced. */
export function leaveGate(gate: WriteGate): void {
  Atomics.sub(gate, underWayPlace, 1);
}

/** @throws ProviderError when the gate is shut. */
export function checkGate(gate: WriteGate, object: string): void {
  const state = Atomics.load(gate, statePlace);
  if (state !== open) throw shutError(state, object);
}

/** A worker that was ended in the middle of a write never reports its end: closing waits no longer than this. */
const closePatienceMs = 30_000;

/**
 * Shuts the gate for good and resolves when no write is under way in any thread. The first reason stays. For `fenced`
 * it waits without end, since somebody else will write next; a writer that only closes gives up after a while.
 */
export async function shutGate(gate: WriteGate, reason: ShutReason): Promise<void> {
  Atomics.compareExchange(gate, statePlace, open, reasons.indexOf(reason) + 1);
  const end = reason === "fenced" ? Infinity : performance.now() + closePatienceMs;
  while (Atomics.load(gate, underWayPlace) > 0 && performance.now() < end) await delay(2);
}

function shutError(state: number, object: string): unknown {
  switch (reasons[state - 1]) {
    case "fenced":
      return localError("FENCED", `${object} was taken over by a newer run; this one must stop`, {
        operation: "write",
      });
    case "failed":
      return localError("UNAVAILABLE", `${object} failed to flush before; open it anew and write again what it held`, {
        operation: "write",
      });
    default:
      return localError("UNEXPECTED", `${object} was written to after it had been closed`, { operation: "write" });
  }
}
