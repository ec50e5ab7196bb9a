import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { JobOptions } from "@diskferry/core";
import type { Arena, Transport, Where } from "./arena.ts";
import type { Contestant, Prepared } from "./contest.ts";
import type { Command } from "./measure.ts";

/** What a copy is from and to. */
export interface Copy {
  /** The raw file that is read: by path, or as nbdkit's export. */
  file: string;
  size: number;
  source: "raw" | "nbd";
  target: "null" | "raw" | "nbd";
  where: Where;
  transport: Transport;
  /** The target's file has its memory already, see {@link Arena.kept}. Absent: every run makes a new one. */
  kept?: true;
  /** Of the source's server. */
  filters?: readonly string[];
  parameters?: readonly string[];
}

/** The two ends of a copy, ready. */
interface Ends {
  /** A path or URI. */
  source: string;
  target: string;
  /** The file that the target's bytes lie in. */
  written: string | undefined;
  stack: AsyncDisposableStack;
}

/** Neither digests nor verification: what nbdcopy does, and a journal. */
export const PLAIN: JobOptions = { digest: "none", verify: "none" };

const NBDCOPY_TUNED = ["--request-size=1048576", "--requests=8", "--connections=2"];

/** Ours: the public `transfer` with its journal, its state on the same kind of disk as the target. */
export function ours(arena: Arena, copy: Copy, options: JobOptions = PLAIN, name = "diskferry"): Contestant {
  return contestant(arena, copy, name, (ends) => {
    const state = arena.name(copy.where, ".state");
    ends.stack.use(state);
    return arena.ours({
      action: "transfer",
      job: "bench",
      state: state.path,
      source: copy.source === "raw" ? { path: ends.source, format: "raw" } : { uri: ends.source },
      target:
        copy.target === "null"
          ? "null"
          : copy.target === "raw"
            ? { path: ends.target, format: "raw", ...(copy.kept === true ? { overwrite: true } : {}) }
            : { uri: ends.target },
      options,
    });
  });
}

/** nbdcopy with some flags. */
export function nbdcopy(arena: Arena, copy: Copy, name: string, flags: readonly string[]): Contestant {
  return contestant(arena, copy, name, (ends) => ({ command: "nbdcopy", args: [...flags, ends.source, ends.target] }));
}

/** nbdcopy with defaults and with its best flags here, each with the final flush that ours has, and once without. */
export function nbdcopies(arena: Arena, copy: Copy): Contestant[] {
  if (copy.target === "null") {
    return [nbdcopy(arena, copy, "nbdcopy", []), nbdcopy(arena, copy, "nbdcopy, tuned", NBDCOPY_TUNED)];
  }
  return [
    nbdcopy(arena, copy, "nbdcopy --flush", ["--flush"]),
    nbdcopy(arena, copy, "nbdcopy --flush, tuned", ["--flush", ...NBDCOPY_TUNED]),
    nbdcopy(arena, copy, "nbdcopy, no flush", []),
  ];
}

/** The names of the peers of `nbdcopies` that do the same work as ours. */
export const NBDCOPY_PEERS: readonly string[] = [
  "nbdcopy",
  "nbdcopy, tuned",
  "nbdcopy --flush",
  "nbdcopy --flush, tuned",
];

/** Those of {@link qemuImgs} that end with a flush, as ours does. */
export const QEMU_PEERS: readonly string[] = ["qemu-img convert", "qemu-img convert, past the page cache"];

/**
 * qemu-img convert with its best flags, which are writes out of order, no search for zeroes and a flush at the end, onto
 * disks also past the page cache; and with its defaults, which flush nothing.
 */
export function qemuImgs(arena: Arena, copy: Copy): Contestant[] {
  const best = ["-W", "-S", "0", "-m", "16"];
  return [
    qemuImg(arena, copy, "qemu-img convert", [...best, "-t", "writeback"]),
    ...(copy.where === "disk"
      ? [qemuImg(arena, copy, "qemu-img convert, past the page cache", [...best, "-t", "none"])]
      : []),
    qemuImg(arena, copy, "qemu-img convert, defaults, no flush", []),
  ];
}

function qemuImg(arena: Arena, copy: Copy, name: string, flags: readonly string[]): Contestant {
  return contestant(arena, copy, name, (ends) => {
    const args = ["convert", "-f", "raw", ...flags];
    if (copy.target === "null") {
      args.push("-n", "--target-image-opts", ends.source, `driver=null-co,size=${copy.size}`);
    } else {
      args.push(...(copy.target === "nbd" || copy.kept === true ? ["-n"] : []), "-O", "raw", ends.source, ends.target);
    }
    return { command: "qemu-img", args };
  });
}

/** nbdcopy, then the digest that proves what it wrote: what people do by hand. */
export function nbdcopyThenDigest(arena: Arena, copy: Copy): Contestant {
  return contestant(arena, copy, "nbdcopy --flush, then sha256sum of both", (ends) => ({
    command: "sh",
    args: ["-c", 'nbdcopy --flush "$0" "$1" && sha256sum "$1" "$2"', ends.source, ends.target, copy.file],
  }));
}

/** A contestant whose ends are made anew for every run. */
export function contestant(
  arena: Arena,
  copy: Copy,
  name: string,
  command: (ends: Ends) => Command | Promise<Command>,
): Contestant {
  return {
    name,
    async prepare(): Promise<Prepared> {
      await using making = new AsyncDisposableStack();
      const ends = await makeEnds(arena, copy, making);
      const prepared: Prepared = {
        command: await command(ends),
        check: async () => {
          if (ends.written !== undefined) execFileSync("cmp", [copy.file, ends.written]);
        },
        [Symbol.asyncDispose]: () => stack.disposeAsync(),
      };
      const stack = making.move();
      // What earlier runs left in the page cache is written out on nobody's time.
      if (copy.where === "disk") execFileSync("sync", ["-f", arena.folder("disk")]);
      return prepared;
    },
  };
}

async function makeEnds(arena: Arena, copy: Copy, stack: AsyncDisposableStack): Promise<Ends> {
  const { file, size, filters = [], parameters = [] } = copy;
  const source =
    copy.source === "raw"
      ? file
      : stack.use(await arena.serve(file, copy.transport, { readOnly: true, filters, parameters })).clientUri;
  if (copy.target === "null") return { source, target: "null:", written: undefined, stack };
  const written = copy.kept === true ? await arena.kept(size) : stack.use(arena.name(copy.where, ".target")).path;
  if (copy.target === "raw") return { source, target: written, written, stack };
  if (copy.kept !== true) await arena.blank(written, size);
  const server = stack.use(await arena.serve(written, copy.transport));
  return { source, target: server.clientUri, written, stack };
}

/** @vates/nbd-client, which reads over TCP alone; undefined, and said so, where it cannot be installed. */
export async function vates(arena: Arena, copy: Copy): Promise<Contestant[]> {
  const folder = await installVates(arena);
  if (folder === undefined) return [];
  return [
    {
      name: "@vates/nbd-client",
      async prepare(): Promise<Prepared> {
        const server = await arena.serve(copy.file, "tcp", { readOnly: true });
        return {
          command: arena.script("vates.ts", [folder, String(server.port), "2"]),
          [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
        };
      },
    },
  ];
}

/**
 * Installs the client outside of the workspace. Its own dependency list cannot always be satisfied (3.6.0 asks for
 * versions that were never published), but its reading needs three small packages alone: then these are installed and
 * the client's files are put beside them.
 */
async function installVates(arena: Arena): Promise<string | undefined> {
  try {
    return await arena.once("vates", async (path) => {
      const npm = (...args: string[]): string =>
        execFileSync(
          "npm",
          [...args, "--prefix", path, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
          {
            cwd: path,
            encoding: "utf8",
            stdio: ["ignore", "pipe", "pipe"],
            // The workspace's own npm run must not tell this one what its root is.
            env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("npm_"))),
          },
        );
      execFileSync("mkdir", ["-p", path]);
      execFileSync("sh", ["-c", 'echo "{\\"private\\":true}" >"$0/package.json"', path]);
      try {
        npm("install", "@vates/nbd-client");
      } catch {
        npm("install", "promise-toolbox@0.21", "@vates/read-chunk@1", "@vates/async-each@1", "@xen-orchestra/log@0.7");
        const archive = npm("pack", "@vates/nbd-client").trim().split("\n").at(-1)!;
        const into = join(path, "node_modules/@vates/nbd-client");
        execFileSync("mkdir", ["-p", into]);
        execFileSync("tar", ["-xzf", join(path, archive), "-C", into, "--strip-components=1"]);
      }
    });
  } catch (error) {
    console.error(
      `SKIPPED: @vates/nbd-client could not be installed, so it is not compared with: ${(error as Error).message}`,
    );
    return undefined;
  }
}
