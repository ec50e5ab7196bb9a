import type { JobOptions } from "@diskferry/core";
import type { Arena } from "../arena.ts";
import type { Aim, Row } from "../contest.ts";
import { type Copy, nbdcopies, nbdcopyThenDigest, ours } from "../contestants.ts";

const AIMS: readonly Aim[] = [
  {
    kind: "speed",
    peers: ["nbdcopy --flush", "nbdcopy --flush, tuned"],
    atLeast: 0.85,
    label: "≥ 0.85 of an unverified nbdcopy",
  },
  {
    kind: "speed",
    peers: ["nbdcopy --flush, then sha256sum of both"],
    atLeast: 5,
    label: "≥ 5 × nbdcopy then sha256sum",
  },
];

/** Copies that keep a BLAKE3 digest of every leaf, and that also read everything back. */
export function verifiedRows(arena: Arena): Row[] {
  const kinds: { name: string; title: string; options: JobOptions }[] = [
    {
      name: "digested",
      title: "NBD→raw on tmpfs, unix, BLAKE3 of every leaf",
      options: { digest: "blake3", verify: "none" },
    },
    {
      name: "verified",
      title: "the same, all read back from the target and compared",
      options: { digest: "blake3", verify: "written" },
    },
  ];
  const { size } = arena.options;
  return kinds.map(({ name, title, options }) => ({
    name,
    title,
    bytes: size,
    newBytes: 0,
    mostRounds: 3,
    aims: AIMS,
    async open() {
      const file = await arena.disk("dense", size);
      const ends = { source: "nbd", target: "raw", where: "memory", transport: "unix" } as const;
      const copy: Copy = { file, size, ...ends, kept: true };
      return {
        contestants: [ours(arena, copy, options), ...nbdcopies(arena, copy), nbdcopyThenDigest(arena, copy)],
        async [Symbol.asyncDispose]() {},
      };
    },
  }));
}
