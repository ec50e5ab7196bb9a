import { memoryPlace, type MemoryPlace } from "@diskferry/core";
import type { Machine, Preflight, PreflightRequest } from "@diskferry/core/provider";

/** A place in memory, for the tests of commands; others reach it by the global symbol. */
export const place: MemoryPlace = memoryPlace({ target: { style: "versioned" } });
place.addMachine({ id: "web", disks: [{ key: "boot", size: (4 << 20) + 512 }] });
place.write("web", "boot", 0, new Uint8Array(4096).fill(1));
Object.assign(globalThis, { [Symbol.for("diskferry.test.place")]: place });

const prices = async (_: Machine | undefined, { signal }: PreflightRequest): Promise<Preflight> => {
  signal?.throwIfAborted();
  return told;
};
const told: Preflight = {
  costs: [{ item: "copies", amount: { value: 0.5, kind: "bound" }, currency: "USD", pricesOf: "2026-01-31" }],
  findings: [{ severity: "warning", subject: "clock", message: "runs late", remedy: "set it" }],
};

export const provider: typeof place.provider = {
  ...place.provider,
  source: async (...given) => ({ ...(await place.provider.source!(...given)), preflight: prices }),
};
