import type { Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";

/**
 * Readers at once from one ESXi host. Its NFC server has 48 MiB of buffers for all clients ("NFC Session Limits", Virtual
 * Disk Development Kit), and a reader with tuned asynchronous buffers takes four of 1 MiB.
 */
export const defaultReadersPerHost = 12;

/** How long a reader waits for its turn, in milliseconds; in that time others come to their end or never will. */
const longestWaitMs = 45_000;

/** Shares the connections that the hosts' NFC servers take among the readers of this process. */
export class NfcBudget {
  readonly #limit: number;
  readonly #hosts = new Map<string, { used: number; waiting: (() => void)[] }>();

  constructor(limit: number = defaultReadersPerHost) {
    if (!(Number.isInteger(limit) && limit >= 1)) throw new RangeError(`a budget of ${limit} readers per host`);
    this.#limit = limit;
  }

  /** How many readers hold a share of this host. */
  used(host: string): number {
    return this.#hosts.get(host)?.used ?? 0;
  }

  /**
   * Takes a share of a host's connections; the function returned gives it back, once.
   * @throws ProviderError UNAVAILABLE when none came free in time
   */
  async take(host: string, wait: Wait = {}): Promise<() => void> {
    const { signal } = wait;
    signal?.throwIfAborted();
    let share = this.#hosts.get(host);
    if (share === undefined) this.#hosts.set(host, (share = { used: 0, waiting: [] }));
    if (share.used >= this.#limit) await this.#turn(host, share.waiting, signal);
    else share.used++;
    let given = false;
    const own = share;
    return () => {
      if (given) return;
      given = true;
      const next = own.waiting.shift();
      if (next === undefined) own.used--;
      else next();
    };
  }

  /** Waits until somebody hands a share on. */
  async #turn(host: string, waiting: (() => void)[], signal: AbortSignal | undefined): Promise<void> {
    const turn = Promise.withResolvers<void>();
    const giveUp = (reason: unknown): void => {
      // Out of the queue at once: a share handed to one who gave up would be lost.
      const index = waiting.indexOf(turn.resolve);
      if (index < 0) return;
      waiting.splice(index, 1);
      turn.reject(reason);
    };
    const late = setTimeout(
      () =>
        giveUp(
          vsphereError(
            "UNAVAILABLE",
            `All ${this.#limit} readers that host ${host} is given at once stayed in use for ${longestWaitMs / 1000} s. Copy ` +
              "fewer disks at once, or allow more readers per host.",
            { operation: "open" },
          ),
        ),
      longestWaitMs,
    );
    const onAbort = (): void => giveUp(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    waiting.push(turn.resolve);
    try {
      await turn.promise;
    } finally {
      clearTimeout(late);
      signal?.removeEventListener("abort", onAbort);
    }
  }
}
