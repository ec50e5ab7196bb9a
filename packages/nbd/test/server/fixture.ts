import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterEach } from "vitest";
import { serveNbd, type NbdServer, type NbdServerOptions } from "../../src/server/serve-nbd.ts";

const open: (() => PromiseLike<unknown>)[] = [];

/** Runs when the test is over, the last one first. */
export function onEnd(work: () => PromiseLike<unknown>): void {
  open.push(work);
}

/** Call once in each test file: closes what a test opened. */
export function closeAfterEach(): void {
  afterEach(async () => {
    for (let work = open.pop(); work !== undefined; work = open.pop()) await work();
  });
}

/** A folder that is gone after the test. */
export async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "nbd-server-"));
  onEnd(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A server on a unix socket, unless told otherwise, closed after the test. */
export async function serve(
  options: Omit<NbdServerOptions, "listen"> & Partial<Pick<NbdServerOptions, "listen">>,
): Promise<NbdServer> {
  const listen = options.listen ?? { path: join(await folder(), "socket") };
  const server = await serveNbd({ ...options, listen });
  onEnd(() => server.close({ deadlineMs: 1000 }));
  return server;
}

/** What a program printed. @throws with its stderr when it fails. */
export async function run(command: string, args: string[], environment?: NodeJS.ProcessEnv): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, {
    env: { ...process.env, ...environment },
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout;
}

/** Waits for something that must come, and says what if it does not. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1000; turn++) {
    if (holds()) return;
    await sleep(10);
  }
  throw new Error(`waited in vain for: ${what}`);
}

/** A promise to be settled by hand. */
export function gate(): { opened: Promise<void>; open: () => void } {
  let resolveGate: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    resolveGate = resolve;
  });
  return { opened, open: () => resolveGate() };
}
