import { setTimeout as delay } from "node:timers/promises";
import type { Wait } from "@diskferry/core/provider";

/** Waits, give or take a quarter, so that many workers do not ask at the same moments. */
export async function pause(milliseconds: number, { signal }: Wait = {}): Promise<void> {
  try {
    await delay(milliseconds * (0.75 + Math.random() / 2), undefined, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
