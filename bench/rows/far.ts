import type { Arena } from "../arena.ts";
import type { Row } from "../contest.ts";
import { type Copy, nbdcopy, ours } from "../contestants.ts";

/** Flags of nbdcopy that suit a long round trip; the best of them counts. */
const TUNED: Readonly<Record<string, readonly string[]>> = {
  "nbdcopy 1M ×16 ×4": ["--request-size=1048576", "--requests=16", "--connections=4"],
  "nbdcopy 4M ×16 ×4": ["--request-size=4194304", "--requests=16", "--connections=4"],
  "nbdcopy 4M ×8 ×8": ["--request-size=4194304", "--requests=8", "--connections=8"],
};

/** Servers that answer late, by nbdkit's delay filter. */
export function farRows(arena: Arena): Row[] {
  const size = arena.options.quick ? 256 << 20 : 1 << 30;
  return [20, 80].map((delayMs): Row => ({
    name: `far-${delayMs}ms`,
    title: `NBD→null, TCP, ${delayMs} ms round trip, 1 GiB`,
    bytes: size,
    newBytes: 0,
    aims: [
      { kind: "speed", peers: ["nbdcopy"], atLeast: 2, label: "≥ 2 × nbdcopy's defaults" },
      { kind: "speed", peers: Object.keys(TUNED), atLeast: 0.95, label: "≥ 0.95 of nbdcopy tuned for the link" },
    ],
    async open() {
      const copy: Copy = {
        file: await arena.disk("dense", size),
        size,
        source: "nbd",
        target: "null",
        where: "memory",
        transport: "tcp",
        filters: ["--filter=delay"],
        parameters: [`rdelay=${delayMs}ms`],
      };
      return {
        contestants: [
          ours(arena, copy),
          nbdcopy(arena, copy, "nbdcopy", []),
          ...Object.entries(TUNED).map(([name, flags]) => nbdcopy(arena, copy, name, flags)),
        ],
        async [Symbol.asyncDispose]() {
          if (size !== arena.options.size) await arena.forget(`dense-${size}-0.raw`);
        },
      };
    },
  }));
}
