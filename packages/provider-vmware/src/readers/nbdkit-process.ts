import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Wait } from "@diskferry/core/provider";
import type { NbdkitPlace } from "./nbdkit-command.ts";

/** Loading VMware's library takes seconds; its log-in comes later, with the first connection. */
const readyTimeoutMs = 60_000;
const pollMs = 10;
/** Time to close its sessions at the host, which a process that is killed leaves there until they lapse. */
const stopTimeoutMs = 10_000;
const keptOutput = 65_536;
const passwordDescriptor = 3;

/** What became of an nbdkit that could not be used. */
export class NbdkitError extends Error {
  /** The end of what it printed. */
  readonly output: string;
  /** The program does not exist. */
  readonly missing: boolean;

  constructor(message: string, output: string, missing = false) {
    super(message);
    this.name = "NbdkitError";
    this.output = output;
    this.missing = missing;
  }
}

/** One nbdkit, which ends with this process whatever happens to it. */
export class NbdkitProcess implements AsyncDisposable {
  readonly socket: string;
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #exited: Promise<void>;
  #output = "";
  #printed = 0;
  #running = true;
  #missing = false;
  #stopping: Promise<void> | undefined;

  private constructor(child: ChildProcess, directory: string, socket: string) {
    this.#child = child;
    this.#directory = directory;
    this.socket = socket;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exited = promise;
    const gone = (): void => {
      this.#running = false;
      resolve();
    };
    child.once("exit", gone);
    child.once("error", (error: NodeJS.ErrnoException) => {
      this.#missing = error.code === "ENOENT";
      this.#keep(error.message);
      gone();
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#keep(text));
  }

  /**
   * Starts nbdkit with a command line made for the place it is given, and waits until it listens.
   *
   * @throws NbdkitError where it does not come to that
   */
  static async start(
    command: (place: NbdkitPlace) => readonly string[],
    password: string,
    wait: Wait = {},
  ): Promise<NbdkitProcess> {
    const { signal } = wait;
    signal?.throwIfAborted();
    const directory = await mkdtemp(join(tmpdir(), "diskferry-nbdkit-"));
    const place = { socket: join(directory, "socket"), pidFile: join(directory, "pid"), passwordDescriptor };
    const [program = "nbdkit", ...args] = command(place);
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe", "pipe"] });
    const started = new NbdkitProcess(child, directory, place.socket);
    try {
      handOver(child.stdio[passwordDescriptor] as Writable | null | undefined, password);
      await started.#listens(place.pidFile, signal);
      return started;
    } catch (error) {
      await started[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** 0 where it never ran. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return this.#running;
  }

  /** The end of what it printed. */
  get output(): string {
    return this.#output;
  }

  /** How much it has printed so far. */
  get printed(): number {
    return this.#printed;
  }

  /** What it printed since `printed` was so much, as far as it was kept. */
  outputSince(printed: number): string {
    const fresh = Math.min(this.#printed - printed, this.#output.length);
    return this.#output.slice(this.#output.length - fresh);
  }

  /** Ends it, and waits until it is gone. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  #keep(text: string): void {
    this.#printed += text.length;
    this.#output = (this.#output + text).slice(-keptOutput);
  }

  async #stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    const force = setTimeout(() => this.#child.kill("SIGKILL"), stopTimeoutMs);
    await this.#exited;
    clearTimeout(force);
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** It writes its pid file once it listens. */
  async #listens(pidFile: string, signal: AbortSignal | undefined): Promise<void> {
    const deadline = performance.now() + readyTimeoutMs;
    while (this.#running) {
      signal?.throwIfAborted();
      const written = await stat(pidFile).catch(() => undefined);
      if (written !== undefined && written.size > 0) return;
      if (performance.now() > deadline) {
        throw new NbdkitError(`it did not listen within ${readyTimeoutMs / 1000} s`, this.#output);
      }
      await sleep(pollMs);
    }
    const code = this.#child.exitCode;
    throw new NbdkitError(`it ended${code === null ? "" : ` with status ${code}`}`, this.#output, this.#missing);
  }
}

/** Writes the password into the pipe that nbdkit reads it from, and closes it. */
function handOver(pipe: Writable | null | undefined, password: string): void {
  if (pipe === null || pipe === undefined) return;
  // A process that ended, or never ran, does not read it; what became of it is told by its exit.
  pipe.on("error", () => undefined);
  pipe.end(`${password}\n`);
}
