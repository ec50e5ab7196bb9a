import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, connect } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A server program under test's eye: one process, known by its pid, and a folder of its own that goes with it. */
export interface RunningServer extends AsyncDisposable {
  /** An NBD URI of its default export (or of `exportName`). */
  readonly uri: string;
  /** Path of its unix socket; empty for a TCP server. */
  readonly socket: string;
  /** TCP port on 127.0.0.1; 0 for a unix server. */
  readonly port: number;
  readonly pid: number;
  /** A private folder, removed at the end. */
  readonly directory: string;
  /** What it printed to stderr so far (the last 64 KiB). */
  stderr(): string;
  /** Resolves when the process is gone. */
  readonly exited: Promise<void>;
  /** Sends a signal to this very process. */
  kill(signal: NodeJS.Signals): void;
}

export interface ServerOptions {
  /** `unix` (default): a socket in a private folder; `tcp`: a free port of 127.0.0.1. */
  transport?: "unix" | "tcp" | undefined;
  /** Put into the URI; the program must be told of it by its own arguments. */
  exportName?: string | undefined;
  /** Makes the URI's scheme `nbds`; the program must be told of TLS by its own arguments. */
  tls?: boolean | undefined;
  env?: Record<string, string> | undefined;
}

const readyTimeoutMs = 15_000;
const stopTimeoutMs = 5_000;
const running = new Set<Program>();
process.on("exit", () => {
  for (const program of running) program.kill("SIGKILL");
});

/** Starts `nbdkit <args>` in the foreground; arguments are filters, plugin and its parameters. */
export function startNbdkit(args: readonly string[], options: ServerOptions = {}): Promise<RunningServer> {
  return start("nbdkit", options, (place) => [
    "-f",
    "--exit-with-parent",
    "-P",
    place.pidFile,
    ...(place.socket === "" ? ["-i", "127.0.0.1", "-p", String(place.port)] : ["-U", place.socket]),
    ...args,
  ]);
}

/** Starts `qemu-nbd -t <args>`; arguments are format, bitmaps, `-r`, `-e N` … and the image last. */
export function startQemuNbd(args: readonly string[], options: ServerOptions = {}): Promise<RunningServer> {
  return start("qemu-nbd", options, (place) => [
    "-t",
    `--pid-file=${place.pidFile}`,
    ...(place.socket === "" ? ["-b", "127.0.0.1", "-p", String(place.port)] : ["-k", place.socket]),
    ...args,
  ]);
}

/** Serves a qcow2 image by qemu-storage-daemon with these dirty bitmaps, of which qemu-nbd shows one alone. */
export function startQemuStorageDaemon(image: string, bitmaps: readonly string[]): Promise<RunningServer> {
  return start("qemu-storage-daemon", { exportName: "disk" }, (place) => [
    `--pidfile=${place.pidFile}`,
    `--blockdev=driver=qcow2,node-name=disk,file.driver=file,file.filename=${image}`,
    `--nbd-server=addr.type=unix,addr.path=${place.socket}`,
    `--export=type=nbd,id=disk,node-name=disk,writable=on${bitmaps.map((name, at) => `,bitmaps.${at}=${name}`).join("")}`,
  ]);
}

/** One export of nbd-server: further lines are settings of its config file, such as `readonly = true`. */
export interface NbdServerExport {
  name: string;
  file: string;
  settings?: readonly string[];
}

/** Starts `nbd-server` with a config file made of `exports`. */
export function startNbdServer(
  exports: readonly NbdServerExport[],
  options: ServerOptions & { generic?: readonly string[] } = {},
): Promise<RunningServer> {
  return start(
    "nbd-server",
    { exportName: exports[0]?.name, ...options },
    async (place) => {
      const lines = ["[generic]", "allowlist = true", ...(options.generic ?? [])];
      if (place.socket === "") lines.push("listenaddr = 127.0.0.1", `port = ${place.port}`);
      else lines.push(`unixsock = ${place.socket}`);
      for (const each of exports) lines.push(`[${each.name}]`, `exportname = ${each.file}`, ...(each.settings ?? []));
      const config = join(place.directory, "config");
      await writeFile(config, `${lines.join("\n")}\n`);
      return ["-C", config, "-p", place.pidFile];
    },
    { ready: connects, daemon: true },
  );
}

interface Place {
  directory: string;
  socket: string;
  port: number;
  pidFile: string;
}

interface Manner {
  ready: (place: Place) => Promise<boolean>;
  /** The program knows no foreground: it forks, and its real pid is the one in its pid file. */
  daemon: boolean;
}

async function start(
  command: string,
  options: ServerOptions,
  argumentsFor: (place: Place) => string[] | Promise<string[]>,
  manner: Manner = { ready: pidFileWritten, daemon: false },
): Promise<RunningServer> {
  const tcp = options.transport === "tcp";
  // A free port may be taken by another process before the server binds it; then it exits and another port is tried.
  for (let attempt = 1; ; attempt++) {
    const directory = await mkdtemp(join(tmpdir(), "diskferry-"));
    const place: Place = {
      directory,
      socket: tcp ? "" : join(directory, "socket"),
      port: tcp ? await freePort() : 0,
      pidFile: join(directory, "pid"),
    };
    const child = spawn(command, await argumentsFor(place), {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...options.env },
    });
    let printed = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (printed = (printed + text).slice(-65536)));
    const program = manner.daemon ? await daemonOf(child, place) : foreground(child);
    running.add(program);
    const stop = async (): Promise<void> => {
      program.kill("SIGTERM");
      const force = setTimeout(() => program.kill("SIGKILL"), stopTimeoutMs);
      await program.exited;
      clearTimeout(force);
      running.delete(program);
      await rm(directory, { recursive: true, force: true });
    };
    if (await becomesReady(() => manner.ready(place), program)) {
      return {
        uri: uriOf(place, options),
        socket: place.socket,
        port: place.port,
        pid: program.pid,
        directory,
        stderr: () => printed,
        exited: program.exited,
        kill: program.kill,
        [Symbol.asyncDispose]: stop,
      };
    }
    await stop();
    if (!tcp || attempt === 5) throw new Error(`${command} did not become ready: ${printed.trim() || "no message"}`);
  }
}

interface Program {
  pid: number;
  alive(): boolean;
  exited: Promise<void>;
  kill(signal: NodeJS.Signals): void;
}

function foreground(child: ChildProcess): Program {
  let alive = true;
  const exited = new Promise<void>((resolve) => {
    const gone = (): void => {
      alive = false;
      resolve();
    };
    child.once("exit", gone).once("error", gone);
  });
  return { pid: child.pid ?? 0, alive: () => alive, exited, kill: (signal) => void child.kill(signal) };
}

async function daemonOf(child: ChildProcess, place: Place): Promise<Program> {
  const starter = foreground(child);
  if (!(await becomesReady(() => pidFileWritten(place), { alive: () => (child.exitCode ?? 0) === 0 }))) return starter;
  const pid = Number.parseInt(await readFile(place.pidFile, "utf8"), 10);
  if (!(pid > 1)) return starter;
  const kill = (signal: NodeJS.Signals | 0): boolean => {
    try {
      return process.kill(pid, signal);
    } catch {
      return false;
    }
  };
  const { promise: exited, resolve } = Promise.withResolvers<void>();
  const watch = setInterval(() => {
    if (kill(0)) return;
    clearInterval(watch);
    resolve();
  }, 10);
  watch.unref();
  return { pid, alive: () => kill(0), exited, kill: (signal) => void kill(signal) };
}

async function becomesReady(ready: () => Promise<boolean>, program: Pick<Program, "alive">): Promise<boolean> {
  const until = Date.now() + readyTimeoutMs;
  while (program.alive() && Date.now() < until) {
    if (await ready()) return program.alive();
    await sleep(5);
  }
  return false;
}

/** nbdkit and qemu-nbd write their pid file once they listen; connecting instead would use up a connection. */
async function pidFileWritten(place: Place): Promise<boolean> {
  return stat(place.pidFile).then(
    (found) => found.size > 0,
    () => false,
  );
}

function connects(place: Place): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = place.socket === "" ? connect(place.port, "127.0.0.1") : connect(place.socket);
    const settle = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => settle(true)).once("error", () => settle(false));
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

function uriOf(place: Place, options: ServerOptions): string {
  const scheme = options.tls === true ? "nbds" : "nbd";
  const name = encodeURIComponent(options.exportName ?? "");
  return place.socket === ""
    ? `${scheme}://127.0.0.1:${place.port}/${name}`
    : `${scheme}+unix:///${name}?socket=${encodeURIComponent(place.socket)}`;
}
