import type { Arena } from "../arena.ts";
import type { Row } from "../contest.ts";
import { contestant, type Copy, nbdcopies, ours } from "../contestants.ts";

/** A sparse disk, of which only the data should cost anything. */
export function sparseRows(arena: Arena): Row[] {
  const size = arena.options.quick ? 1 << 30 : 8 * 2 ** 30;
  return [
    {
      name: "sparse",
      title: "8 GiB sparse with 5 % data, NBD→raw on tmpfs, unix",
      bytes: size * 0.05,
      aims: [
        {
          kind: "extra",
          peers: ["nbdcopy --flush", "nbdcopy --flush, tuned", "qemu-img convert"],
          atMost: 0.2,
          label: "best peer + 0.2 s at most",
        },
      ],
      async open() {
        const file = await arena.disk("sparse", size, 0.05);
        const copy: Copy = { file, size, source: "nbd", target: "raw", where: "memory", transport: "unix" };
        return {
          contestants: [
            ours(arena, copy),
            ...nbdcopies(arena, copy),
            contestant(arena, copy, "qemu-img convert", ({ source, target }) => ({
              command: "qemu-img",
              args: ["convert", "-f", "raw", "-O", "raw", "-W", "-m", "16", "-t", "writeback", source, target],
            })),
          ],
          [Symbol.asyncDispose]: () => arena.forget(`sparse-${size}-0.05.raw`),
        };
      },
    },
  ];
}
