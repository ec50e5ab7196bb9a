import { ProviderError } from "../provider/error.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { runUntilGivenUp } from "./give-up.ts";
import { describeCall } from "./layer.ts";
import type { Call, Layer } from "./layer.ts";

export interface WatchdogOptions {
  /** How long nothing may come to an end while something is under way. */
  idleMs: number;
  /** How long an aborted call may take to let go of its buffer. Default 5000. */
  graceMs?: number | undefined;
  /** Told once per stall, before the calls reject: a run's place to abort what passes through no layer. */
  onStall?: ((error: ProviderError) => void) | undefined;
  clock?: Clock | undefined;
}

/** How many calls a stall's message names. */
const namedCalls = 3;

interface UnderWay {
  readonly call: Call;
  readonly startedAt: number;
  readonly giveUp: (error: ProviderError) => void;
  /** Its index among those that are. */
  place: number;
}

/**
 * Ends a run that stands still: when no call came to a good end for `idleMs` although one is under way for that long,
 * not counting the time gates and limits held it, all calls under way reject with UNAVAILABLE, not retryable. The
 * outermost layer, so that it also catches what the others let hang. Nothing runs while nothing is under way.
 */
export function watchdog(options: WatchdogOptions): Layer {
  const { idleMs, graceMs = 5000, onStall, clock = systemClock } = options;
  if (!(idleMs > 0)) throw new RangeError(`idleMs is ${idleMs}; more than 0 is needed`);
  // No map: its table is replaced every few dozen calls, and the old ones, each linked to the next, keep calls that ended
  // alive until the next full collection.
  const underWay: UnderWay[] = [];
  const leave = (one: UnderWay): void => {
    const last = underWay.pop();
    if (last === undefined || last === one) return;
    last.place = one.place;
    underWay[one.place] = last;
  };
  let progressAt = clock.now();
  let cancelTimer: (() => void) | undefined;

  const look = (): void => {
    cancelTimer = undefined;
    const now = clock.now();
    const working = underWay.filter(({ call }) => call.heldSince === undefined);
    const ages = working.map(({ call, startedAt }) => now - startedAt - (call.heldMs ?? 0));
    const idleFor = Math.min(now - progressAt, Math.max(0, ...ages));
    if (idleFor < idleMs) {
      cancelTimer = clock.after(Math.max(1, idleMs - idleFor), look);
      return;
    }
    const oldest = working.toSorted((left, right) => left.startedAt - right.startedAt);
    const named = oldest.slice(0, namedCalls).map(({ call }) => describeCall(call));
    if (working.length > namedCalls) named.push(`${working.length - namedCalls} more`);
    const message = `no progress for ${idleMs} ms with ${working.length} under way: ${named.join(", ")}`;
    const error = new ProviderError("UNAVAILABLE", message, { operation: "watchdog", retryable: false });
    progressAt = now;
    cancelTimer = clock.after(idleMs, look);
    onStall?.(error);
    for (const { giveUp } of [...underWay]) giveUp(error);
  };

  return async (call, run) => {
    const startedAt = clock.now();
    if (underWay.length === 0) {
      progressAt = startedAt;
      cancelTimer ??= clock.after(idleMs, look);
    }
    try {
      await runUntilGivenUp(
        call,
        run,
        (giveUp) => {
          const one = { call, startedAt, giveUp, place: underWay.length };
          underWay.push(one);
          return () => leave(one);
        },
        graceMs,
        clock,
      );
      progressAt = clock.now();
    } finally {
      if (underWay.length === 0) {
        cancelTimer?.();
        cancelTimer = undefined;
      }
    }
  };
}
