import { ProviderError } from "../provider/error.ts";
import type { ProviderErrorCode } from "../provider/error.ts";
import { sleep, systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { describeCall } from "./layer.ts";
import type { Call, CallMethod, Layer, Run } from "./layer.ts";

/**
 * What goes wrong. `error` instead of the call, or after it was done (an answer that was lost); `hang` never answers,
 * and does not stop when aborted where it is `deaf`; `corrupt` turns one bit over in what is read or written and
 * reports success.
 */
export type Fault =
  | { kind: "error"; code?: ProviderErrorCode; when?: "before" | "after"; retryAfterMs?: number; error?: Error }
  | { kind: "delay"; delayMs: number }
  | { kind: "hang"; deaf?: boolean }
  | { kind: "corrupt" };

/** When a fault strikes. Every condition that is given must hold. */
export interface FaultRule {
  fault: Fault;
  method?: CallMethod | undefined;
  side?: Call["side"] | undefined;
  /** The numbers of the attempts it strikes, among those that the rule's method and side admit; the first is 1. */
  at?: readonly number[] | undefined;
  /** Chance per attempt. */
  probability?: number | undefined;
  /** How often it strikes at most. */
  times?: number | undefined;
}

export interface FaultsOptions {
  /** The first that strikes counts. */
  rules: readonly FaultRule[];
  /** Numbers in [0, 1), from the test's seed. */
  random?: (() => number) | undefined;
  clock?: Clock | undefined;
  /** Told of every fault that struck. */
  onFault?: ((call: Call, fault: Fault) => void) | undefined;
}

/** Makes calls fail, hang, wait or lie by plan, for tests; innermost, in the place of a bad network or disk. */
export function faults(options: FaultsOptions): Layer {
  const { clock = systemClock, random = Math.random, onFault } = options;
  const rules = options.rules.map((rule) => ({ rule, seen: 0, struck: 0 }));
  return (call, run) => {
    let fault: Fault | undefined;
    for (const state of rules) {
      const { rule } = state;
      if (rule.method !== undefined && rule.method !== call.method) continue;
      if (rule.side !== undefined && rule.side !== call.side) continue;
      state.seen++;
      if (fault !== undefined || state.struck >= (rule.times ?? Number.POSITIVE_INFINITY)) continue;
      if (rule.at !== undefined && !rule.at.includes(state.seen)) continue;
      if (rule.probability !== undefined && random() >= rule.probability) continue;
      state.struck++;
      fault = rule.fault;
    }
    if (fault === undefined) return run(call);
    onFault?.(call, fault);
    return strike(fault, call, run, random, clock);
  };
}

async function strike(fault: Fault, call: Call, run: Run, random: () => number, clock: Clock): Promise<void> {
  switch (fault.kind) {
    case "delay":
      await sleep(fault.delayMs, call, clock);
      return run(call);
    case "hang":
      return hang(call.signal, fault.deaf ?? false);
    case "corrupt":
      return corrupt(call, run, random);
    case "error":
      if (fault.when === "after") await run(call);
      throw (
        fault.error ??
        new ProviderError(fault.code ?? "UNAVAILABLE", `${describeCall(call)} failed by plan`, {
          operation: "fault",
          retryAfterMs: fault.retryAfterMs,
        })
      );
  }
}

function hang(signal: AbortSignal, deaf: boolean): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (deaf) return;
    if (signal.aborted) reject(signal.reason as Error);
    else signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

async function corrupt(call: Call, run: Run, random: () => number): Promise<void> {
  const { data } = call;
  if (data === undefined || data.length === 0) throw new TypeError("a corrupting fault needs the call's data");
  const index = Math.floor(random() * data.length);
  const bit = 1 << Math.floor(random() * 8);
  if (call.method === "read") {
    await run(call);
    data[index]! ^= bit;
    return;
  }
  // A copy: the caller's own bytes, of which it computes digests, stay right.
  const wrong = data.slice();
  wrong[index]! ^= bit;
  await run({ ...call, data: wrong });
}
