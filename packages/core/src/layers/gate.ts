import type { Wait } from "../provider/wait.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { hold } from "./layer.ts";
import type { Layer } from "./layer.ts";
import { Waiters } from "./waiters.ts";

/** Something that lets calls pass or holds them: a pause, a backup window. Calls under way are never interrupted. */
export interface Gate {
  readonly open: boolean;
  /** What a held run says of itself. */
  readonly phase: "paused" | "waiting";
  /** Resolves when the gate is open, at once when it is. */
  wait(wait?: Wait): Promise<void>;
  /** Calls `listener` at every change; the result takes it off again. */
  listen(listener: (open: boolean) => void): () => void;
}

/** A gate that its owner opens and closes. */
export class PauseGate implements Gate {
  readonly phase = "paused";
  readonly #waiters = new Waiters();
  readonly #listeners = new Set<(open: boolean) => void>();
  #open = true;

  get open(): boolean {
    return this.#open;
  }

  /** Holds what comes from now on. */
  pause(): void {
    this.#set(false);
  }

  /** Lets go what was held. */
  resume(): void {
    this.#set(true);
  }

  wait(wait?: Wait): Promise<void> {
    return this.#open ? Promise.resolve() : this.#waiters.join(0, wait, () => undefined);
  }

  listen(listener: (open: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #set(open: boolean): void {
    if (this.#open === open) return;
    this.#open = open;
    if (open) while (this.#waiters.count > 0) this.#waiters.release();
    for (const listener of this.#listeners) listener(open);
  }
}

/** Holds every call while any of `gates` is closed. */
export function gate(gates: readonly Gate[], options: { clock?: Clock | undefined } = {}): Layer {
  const clock = options.clock ?? systemClock;
  return (call, run) => {
    for (const each of gates) {
      if (!each.open) return hold(call, clock, allOpen(gates, call)).then(() => run(call));
    }
    return run(call);
  };
}

/** Resolves when all of `gates` are open at once. */
export async function allOpen(gates: readonly Gate[], wait?: Wait): Promise<void> {
  // While one was waited for, another may have closed.
  for (let closed = gates.find((each) => !each.open); closed; closed = gates.find((each) => !each.open)) {
    await closed.wait(wait);
  }
}
