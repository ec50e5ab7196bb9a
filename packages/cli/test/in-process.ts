import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { type Interrupts, main } from "../src/index.ts";
import { randomBytes } from "../../../test/seed.ts";

/** What a command said and ended with. */
export interface Said {
  code: number;
  out: string;
  err: string;
}

/** A folder of its own, with a state directory of its own, for one test. */
export interface Workplace {
  folder: string;
  path(name: string): string;
  /** Writes a file; folders above it are made. */
  write(name: string, content: string | Uint8Array): Promise<string>;
  env: Record<string, string>;
  /** Runs a command in this process. */
  run(args: readonly string[], options?: RunOptions): Promise<Said>;
  /** Runs a command as a process of its own. */
  spawn(args: readonly string[]): Spawned;
}

export interface RunOptions {
  env?: Record<string, string>;
  interrupts?: Interrupts;
  /** Characters in a line of the terminal; absent: none is there. */
  columns?: number;
  /** Called whenever something was said. */
  watch?: (said: Said) => unknown;
}

/** A process and what it says. */
export interface Spawned {
  child: ChildProcess;
  said: Said;
  ended: Promise<Said>;
  /** Resolves once standard output and error together match. */
  until(pattern: RegExp): Promise<void>;
}

/** The program, to be run by this Node from source. */
export const program: readonly string[] = [
  "--conditions=diskferry-source",
  "--disable-warning=ExperimentalWarning",
  fileURLToPath(new URL("../src/diskferry.ts", import.meta.url)),
];

export async function workplace(): Promise<Workplace> {
  const folder = await mkdtemp(join(tmpdir(), "diskferry-cli-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const env = { HOME: folder, XDG_STATE_HOME: join(folder, "state-home"), PATH: process.env["PATH"] ?? "" };
  const path = (name: string): string => join(folder, name);
  return {
    folder,
    path,
    env,
    async write(name, content) {
      await mkdir(dirname(path(name)), { recursive: true });
      await writeFile(path(name), content);
      return path(name);
    },
    async run(args, options = {}) {
      const said: Said = { code: -1, out: "", err: "" };
      const { columns } = options;
      const hear = (stream: "out" | "err") => (text: string) => {
        said[stream] += text;
        options.watch?.(said);
      };
      said.code = await main(args, {
        stdout: { write: hear("out") },
        stderr: { write: hear("err"), isTTY: columns !== undefined, columns },
        env: { ...env, ...options.env },
        cwd: folder,
        interrupts: options.interrupts,
      });
      return said;
    },
    spawn(args) {
      const child = spawn(process.execPath, [...program, ...args], {
        cwd: folder,
        env,
        stdio: ["ignore", "pipe", "pipe"],
      });
      onTestFinished(() => void child.kill("SIGKILL"));
      return listen(child);
    },
  };
}

/** Collects what a process says. */
export function listen(child: ChildProcess): Spawned {
  const said: Said = { code: -1, out: "", err: "" };
  const waiting = new Set<() => void>();
  const look = (): void => waiting.forEach((each) => each());
  child.stdout?.on("data", (bytes: Buffer) => {
    said.out += bytes.toString();
    look();
  });
  child.stderr?.on("data", (bytes: Buffer) => {
    said.err += bytes.toString();
    look();
  });
  const ended = new Promise<Said>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      said.code = code ?? -1;
      resolve(said);
      look();
    });
  });
  const until = (pattern: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        if (pattern.test(said.out + said.err)) resolve();
        else if (child.exitCode !== null && said.code !== -1)
          reject(new Error(`ended without ${String(pattern)}: ${JSON.stringify(said)}`));
        else return;
        waiting.delete(check);
      };
      waiting.add(check);
      check();
    });
  return { child, said, ended, until };
}

/** The objects of JSON lines. */
export function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

const mib = 1 << 20;

/** A disk of some MiB that is neither zero nor compressible. */
export function diskBytes(length: number = 3 * mib, seed: number = 1): Uint8Array {
  return randomBytes(length, seed);
}
