import { execFileSync } from "node:child_process";
import type { JobOptions } from "@diskferry/core";
import { startQemuNbd } from "../../test/servers.ts";
import type { Arena } from "../arena.ts";
import type { Contestant, Row } from "../contest.ts";
import { PLAIN } from "../contestants.ts";
import { spread } from "../disks.ts";
import { measure } from "../measure.ts";
import { open } from "node:fs/promises";

const LEAF = 64 << 10;
const BITMAP = "bench";

/** What a tracker spares, what comparing everything costs, and what an audit costs. */
export function incrementalRows(arena: Arena): Row[] {
  const size = arena.options.quick ? 1 << 30 : 8 * 2 ** 30;
  const samples = arena.options.quick ? 1024 : 16_384;
  return [
    {
      name: "incremental",
      title: "5 % of 8 GiB changed, told by a dirty bitmap, to raw on tmpfs, unix",
      bytes: size * 0.05,
      aims: [
        {
          kind: "extra",
          peers: ["libnbd script", "nbdcopy --flush of all"],
          atMost: 0.2,
          label: "best peer + 0.2 s at most",
        },
      ],
      open: () => openTracked(arena, size, PLAIN, false, samples),
    },
    {
      name: "audit",
      title: `audit of ${samples} leaves of 64 KiB of the same disk (no peer)`,
      bytes: samples * LEAF,
      mostRounds: 3,
      aims: [],
      open: () => openTracked(arena, size, { digest: "blake3", verify: "none", leaf: LEAF }, true, samples),
    },
    {
      name: "rescan",
      title: "rescan of a dense disk, NBD→raw on tmpfs, unix, nothing changed (no peer)",
      bytes: arena.options.size,
      mostRounds: 3,
      aims: [],
      open: () => openRescan(arena),
    },
  ];
}

type Opened = Awaited<ReturnType<Row["open"]>>;

async function openTracked(
  arena: Arena,
  size: number,
  options: JobOptions,
  audits: boolean,
  samples: number,
): Promise<Opened> {
  await using making = new AsyncDisposableStack();
  const image = making.use(await trackedImage(arena, size));
  const server = making.use(await startQemuNbd(["-r", "-f", "qcow2", "-e", "32", "-B", BITMAP, image.path]));
  const target = making.use(arena.name("memory", ".raw"));
  const byHand = making.use(arena.name("memory", ".raw"));
  const state = making.use(arena.name("memory", ".state"));
  const order = {
    job: "bench",
    state: state.path,
    source: { uri: server.uri, bitmap: BITMAP, frozen: true, machine: "bench", key: "disk" },
    target: { path: target.path, format: "raw" },
    options,
  };
  await measure(arena.ours({ ...order, action: "transfer" }), arena.folder("memory"));
  await arena.blank(byHand.path, size);
  const plain = (name: string, command: Awaited<ReturnType<Contestant["prepare"]>>["command"]): Contestant => ({
    name,
    prepare: () =>
      Promise.resolve({
        command,
        check: async () => {
          if (name === "diskferry" && !audits) {
            execFileSync("qemu-img", ["compare", "-U", "-f", "qcow2", "-F", "raw", image.path, target.path], {
              stdio: "pipe",
            });
          }
        },
        async [Symbol.asyncDispose]() {},
      }),
  });
  const contestants = audits
    ? [plain("diskferry", arena.ours({ ...order, action: "audit", samples }))]
    : [
        plain("diskferry", arena.ours({ ...order, action: "transfer" })),
        plain("libnbd script", {
          command: "/usr/bin/python3",
          args: [arena.child("bitmap-copy.py"), server.uri, BITMAP, byHand.path],
        }),
        plain("nbdcopy --flush of all", { command: "nbdcopy", args: ["--flush", server.uri, byHand.path] }),
      ];
  const stack = making.move();
  return { contestants, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** A qcow2 image with a tenth of it written, then half of that written anew under a dirty bitmap. */
async function trackedImage(arena: Arena, size: number): Promise<{ path: string } & AsyncDisposable> {
  const image = arena.name("memory", ".qcow2");
  const { path } = image;
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", path, String(size)]);
  const fill = async (share: number): Promise<void> => {
    const raw = arena.name("memory", ".fill");
    const file = await open(raw.path, "w");
    const commands: string[] = [];
    let at = 0;
    await spread(size, share, async (offset, block) => {
      await file.write(block, 0, block.length, at);
      commands.push(`write -q -s ${raw.path} ${offset} ${block.length}`);
      at += block.length;
    });
    await file.close();
    execFileSync("qemu-io", ["-f", "qcow2", path], {
      input: commands.join("\n"),
      stdio: ["pipe", "ignore", "inherit"],
    });
    await raw[Symbol.asyncDispose]();
  };
  await fill(0.1);
  execFileSync("qemu-img", ["bitmap", "--add", path, BITMAP]);
  await fill(0.05);
  return image;
}

async function openRescan(arena: Arena): Promise<Opened> {
  const { size } = arena.options;
  await using making = new AsyncDisposableStack();
  const server = making.use(await arena.serve(await arena.disk("dense", size), "unix", { readOnly: true }));
  const target = making.use(arena.name("memory", ".raw"));
  const state = making.use(arena.name("memory", ".state"));
  const order = (mode: "full" | "rescan"): Parameters<Arena["ours"]>[0] => ({
    action: "transfer",
    job: "bench",
    state: state.path,
    source: { uri: server.uri },
    target: { path: target.path, format: "raw" },
    options: { digest: "blake3", verify: "none", mode },
  });
  await measure(arena.ours(order("full")), arena.folder("memory"));
  const contestants: Contestant[] = [
    {
      name: "diskferry",
      prepare: () => Promise.resolve({ command: arena.ours(order("rescan")), async [Symbol.asyncDispose]() {} }),
    },
  ];
  const stack = making.move();
  return { contestants, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
