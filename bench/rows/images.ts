import { execFileSync } from "node:child_process";
import type { JobOptions } from "@diskferry/core";
import type { Arena } from "../arena.ts";
import type { Contestant, Prepared, Row } from "../contest.ts";
import { PLAIN } from "../contestants.ts";

const QEMU = ["qemu-img convert"];

interface ImageCopy {
  from: string;
  fromFormat: "raw" | "qcow2";
  toFormat: "raw" | "qcow2";
  /** Options of our target. */
  target?: Record<string, unknown>;
  /** Flags of qemu-img besides those it is always given. */
  flags: readonly string[];
}

/** qcow2 images against qemu-img convert, all in memory. */
export function imageRows(arena: Arena): Row[] {
  const { size } = arena.options;
  const packedSize = Math.min(size, 1 << 30);
  const dense = (): Promise<string> => arena.disk("dense", size);
  const image = (): Promise<string> =>
    arena.once(`dense-${size}.qcow2`, async (path) => {
      execFileSync("qemu-img", ["convert", "-O", "qcow2", "-S", "0", await dense(), path]);
    });
  const faster: Row["aims"] = [{ kind: "speed", peers: QEMU, atLeast: 0.95, label: "≥ 0.95 of qemu-img convert" }];
  return [
    {
      name: "qcow2-to-raw",
      title: "qcow2→raw, tmpfs",
      bytes: size,
      aims: faster,
      async open() {
        const contestants = both(arena, {
          from: await image(),
          fromFormat: "qcow2",
          toFormat: "raw",
          flags: ["-S", "0"],
        });
        return { contestants, [Symbol.asyncDispose]: () => arena.forget(`dense-${size}.qcow2`) };
      },
    },
    {
      name: "raw-to-qcow2",
      title: "raw→qcow2, tmpfs",
      bytes: size,
      aims: faster,
      async open() {
        const contestants = both(arena, {
          from: await dense(),
          fromFormat: "raw",
          toFormat: "qcow2",
          flags: ["-S", "0"],
        });
        return { contestants, async [Symbol.asyncDispose]() {} };
      },
    },
    {
      name: "raw-to-zstd",
      title: "raw→qcow2 with zstd, tmpfs, files of this machine",
      bytes: packedSize,
      mostRounds: 3,
      aims: [
        { kind: "speed", peers: QEMU, atLeast: 1, label: "≥ 1.0 of qemu-img -c with zstd" },
        { kind: "size", peers: QEMU, atMost: 1.03, label: "size ≤ 1.03 of qemu-img's" },
      ],
      async open() {
        const contestants = both(arena, {
          from: await arena.disk("compressible", packedSize),
          fromFormat: "raw",
          toFormat: "qcow2",
          target: { compression: "zstd" },
          flags: ["-c", "-o", "compression_type=zstd"],
        });
        return { contestants, [Symbol.asyncDispose]: () => arena.forget(`compressible-${packedSize}-0.raw`) };
      },
    },
  ];
}

function both(arena: Arena, copy: ImageCopy): Contestant[] {
  const options: JobOptions = PLAIN;
  return [
    imageContestant(arena, copy, "diskferry", (target, state) =>
      arena.ours({
        action: "transfer",
        job: "bench",
        state,
        source: { path: copy.from, format: copy.fromFormat },
        target: { path: target, format: copy.toFormat, ...copy.target },
        options,
        sized: target,
      }),
    ),
    imageContestant(arena, copy, QEMU[0]!, (target) => ({
      command: "sh",
      args: [
        "-c",
        'target=$0; qemu-img convert "$@" "$target" && echo "{\\"bytes\\": $(stat -c %s "$target")}"',
        target,
        ...["-f", copy.fromFormat, "-O", copy.toFormat, "-W", "-m", "16", "-t", "writeback", ...copy.flags, copy.from],
      ],
    })),
  ];
}

function imageContestant(
  arena: Arena,
  copy: ImageCopy,
  name: string,
  command: (target: string, state: string) => Prepared["command"],
): Contestant {
  return {
    name,
    async prepare(): Promise<Prepared> {
      const target = arena.name("memory", `.${copy.toFormat}`);
      const state = arena.name("memory", ".state");
      return {
        command: command(target.path, state.path),
        check: async () => {
          execFileSync("qemu-img", ["compare", "-f", copy.fromFormat, "-F", copy.toFormat, copy.from, target.path], {
            stdio: "pipe",
          });
        },
        async [Symbol.asyncDispose]() {
          await target[Symbol.asyncDispose]();
          await state[Symbol.asyncDispose]();
        },
      };
    },
  };
}
