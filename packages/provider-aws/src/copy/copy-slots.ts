import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";

/** Copies into one Region of an account at once (EC2 user guide, CopySnapshot). */
const copiesAtOnce = 20;

interface Slots {
  free: number;
  waiting: (() => void)[];
}

const places = new Map<string, Slots>();

/** Runs a copy when fewer than 20 of this process go to the same account and Region. @throws the signal's reason */
export async function inCopySlot<Result>(
  to: AwsConnection,
  { signal }: Wait,
  run: () => Promise<Result>,
): Promise<Result> {
  const { endpoint } = to.options;
  const key = `${typeof endpoint === "object" ? endpoint.ec2 : endpoint} ${to.accountId} ${to.region}`;
  const slots = places.get(key) ?? { free: copiesAtOnce, waiting: [] };
  places.set(key, slots);
  await take(slots, signal);
  try {
    return await run();
  } finally {
    const next = slots.waiting.shift();
    if (next === undefined) slots.free++;
    else next();
  }
}

function take(slots: Slots, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  if (slots.free > 0) {
    slots.free--;
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => {
    const enter = (): void => {
      signal?.removeEventListener("abort", abort);
      resolve();
    };
    const abort = (): void => {
      slots.waiting.splice(slots.waiting.indexOf(enter), 1);
      reject(signal?.reason as Error);
    };
    signal?.addEventListener("abort", abort, { once: true });
    slots.waiting.push(enter);
  });
}
