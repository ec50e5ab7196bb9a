import { execFileSync } from "node:child_process";
import { startQemuNbd } from "../../test/servers.ts";
import type { Arena } from "../arena.ts";
import type { Aim, Row } from "../contest.ts";
import { type Copy, ours } from "../contestants.ts";
import { measure } from "../measure.ts";

const GIB = 2 ** 30;
const DATA = 256 << 20;
const AIM: Aim = { kind: "peak", atMost: 200 << 20, label: "peak RSS ≤ 200 MiB" };

/** Peak memory over disks of all sizes, with everything on: digests, verification, journal. */
export function memoryRows(arena: Arena): Row[] {
  const sizes = arena.options.quick ? [1, 64] : [1, 32, 1024];
  const rows = sizes.map((gibibytes): Row => ({
    name: `memory-${gibibytes}g`,
    title: `${gibibytes} GiB sparse with 256 MiB of data, NBD→raw on tmpfs, digests and verification`,
    bytes: 0,
    mostRounds: 1,
    aims: [AIM],
    async open() {
      const size = gibibytes * GIB;
      const file = await arena.disk("sparse", size, DATA / size);
      const copy: Copy = { file, size, source: "nbd", target: "raw", where: "memory", transport: "unix" };
      const contestant = ours(arena, copy, {});
      // Comparing a terabyte of holes takes longer than all rows together, and ours has verified what it wrote.
      const unchecked = {
        ...contestant,
        prepare: async () => {
          const { check: _check, ...prepared } = await contestant.prepare();
          return prepared;
        },
      };
      return {
        contestants: [unchecked],
        [Symbol.asyncDispose]: () => arena.forget(`sparse-${size}-${DATA / size}.raw`),
      };
    },
  }));
  return [...rows, manifestRow(arena)];
}

/**
 * An incremental run over a manifest in which every leaf has a digest of its own. The digests are made up, since to
 * read a disk of that size takes an hour: what is judged is how the manifest is paged, and no unchanged leaf is read.
 */
function manifestRow(arena: Arena): Row {
  const leaves = arena.options.quick ? 256 << 10 : 16 << 20;
  const leaf = 64 << 10;
  return {
    name: "memory-manifest",
    title: `incremental over a manifest of ${leaves >> 10} Ki leaves, all different`,
    bytes: 0,
    mostRounds: 1,
    aims: [AIM],
    async open() {
      await using making = new AsyncDisposableStack();
      const image = making.use(arena.name("memory", ".qcow2"));
      execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", image.path, String(leaves * leaf)]);
      execFileSync("qemu-img", ["bitmap", "--add", "-g", String(leaf), image.path, "bench"]);
      const writes = Array.from(
        { length: 256 },
        (_, place) => `write -q -P 7 ${(place + 0.5) * Math.floor(leaves / 256) * leaf} 1M`,
      );
      execFileSync("qemu-io", ["-f", "qcow2", image.path], {
        input: writes.join("\n"),
        stdio: ["pipe", "ignore", "inherit"],
      });
      const server = making.use(await startQemuNbd(["-r", "-f", "qcow2", "-e", "32", "-B", "bench", image.path]));
      const target = making.use(arena.name("memory", ".raw"));
      const state = making.use(arena.name("memory", ".state"));
      const command = arena.ours({
        action: "transfer",
        job: "bench",
        state: state.path,
        source: { uri: server.uri, bitmap: "bench", frozen: true, machine: "bench", key: "disk" },
        target: { path: target.path, format: "raw" },
        options: { digest: "blake3", verify: "written", leaf },
      });
      await measure(command, arena.folder("memory"));
      await measure(arena.script("populate-manifest.ts", [state.path, "bench"], "source"), arena.folder("memory"));
      const stack = making.move();
      return {
        contestants: [
          { name: "diskferry", prepare: () => Promise.resolve({ command, async [Symbol.asyncDispose]() {} }) },
        ],
        [Symbol.asyncDispose]: () => stack.disposeAsync(),
      };
    },
  };
}
