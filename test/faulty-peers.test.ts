import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type JobOptions,
  type Layer,
  type RunReport,
  beginRun,
  isProviderError,
  openDirectoryState,
  openTarget,
  replicate,
  status,
} from "@diskferry/core";
import { provider } from "@diskferry/provider-local";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { startCuttingProxy } from "./faults/cutting-proxy.ts";
import type { SliceErrand } from "./faults/slice-once.ts";
import { notesOf } from "./kill/kill-point.ts";
import type { Errand } from "./kill/replicate-once.ts";
import { describeWithPeers, hasPeer } from "./peers.ts";
import { replaced } from "./replaced.ts";
import { randomBytes, randomFrom, seedOf } from "./seed.ts";
import { startNbdkit, startQemuNbd } from "./servers.ts";

// What goes wrong around a job: each run ends in success after it opened its ends again, or with a ProviderError within
// its deadlines; the next one goes on from there, and the target is equal in the end.

const MIB = 1 << 20;
const size = 8 * MIB;
let folder = "";
const at = (name: string): string => join(folder, name);

const attempts = { attempts: 3, baseMs: 5, maxMs: 50, totalMs: 3_000, perAttemptMs: 1_000, controlMs: 3_000 };
const options: JobOptions = { leaf: 64 << 10, journal: { bytes: MIB }, attempts };
/** Far above every deadline of `attempts`: whoever takes longer hangs. */
const hangMs = 30_000;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-faulty-"));
  vi.stubEnv("XDG_STATE_HOME", at("remembered"));
  writeFileSync(at("source.raw"), randomBytes(size, 1));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

interface Ends {
  source?: object;
  target?: object;
  options?: JobOptions;
}

/** One run of the one job of a test. */
async function run(ends: Ends = {}): Promise<RunReport> {
  await using store = await openDirectoryState(at("state"));
  await using source = await provider.source!({ path: at("source.raw"), ...named, ...ends.source });
  await using target = await provider.target!(ends.target ?? { path: at("target.raw") });
  const job = { id: "job", source, machine: "vm", target, store, options: { ...options, ...ends.options } };
  return await replicate(job, { signal: AbortSignal.timeout(hangMs) });
}

/** The name of the disk, wherever it is read from. */
const named = { machine: "vm", key: "disk", frozen: true };

/** A run that has to fail with a ProviderError in its own time. */
async function failure(ends: Ends): Promise<{ code: string; message: string }> {
  const error = await run(ends).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isProviderError(error)) throw new Error("this run did not fail with a ProviderError", { cause: error });
  return error;
}

function expectEqual(target = at("target.raw"), source = at("source.raw")): void {
  const [left, right] = [readFileSync(source), readFileSync(target)];
  if (left.equals(right.subarray(0, left.length))) return;
  throw new Error(`${target} differs, first at ${left.findIndex((byte, index) => byte !== right[index])}`);
}

const overNbd = (uri: string): object => ({ uri, path: undefined, frozen: true });

describeWithPeers(["nbdkit"], "a source behind nbdkit", () => {
  test("that fails one read in ten is read all the same", { timeout: hangMs * 2 }, async () => {
    for (const workers of [0, 2]) {
      rmSync(at("state"), { recursive: true, force: true });
      rmSync(at("target.raw"), { force: true });
      rmSync(at(".diskferry"), { recursive: true, force: true });
      await using server = await startNbdkit([
        "-r",
        "--filter=error",
        "file",
        at("source.raw"),
        "error-pread-rate=10%",
      ]);
      const patient = { ...attempts, attempts: 8 };
      await run({ source: overNbd(server.uri), options: { workers, attempts: patient } });
      expectEqual();
    }
  });

  test("that fails every read ends the run in time, and the next one goes on", { timeout: hangMs * 2 }, async () => {
    const trigger = at("fail-now");
    await using server = await startNbdkit([
      "-r",
      "--filter=delay",
      "--filter=error",
      "file",
      at("source.raw"),
      "delay-read=5ms",
      "error-pread-rate=100%",
      `error-file=${trigger}`,
    ]);
    const ends = { source: overNbd(server.uri), options: { workers: 0, memory: MIB } };
    const failing = failure(ends);
    await sleep(60);
    writeFileSync(trigger, "");
    const error = await failing;
    expect(error.code).toMatch(/UNAVAILABLE|UNEXPECTED/);
    expect(error.message).toContain(server.socket);
    rmSync(trigger);
    const report = await run(ends);
    expect(report.resumed).toBe(true);
    expectEqual();
  });

  test("that does not answer ends the run in time, and the next one goes on", { timeout: hangMs * 2 }, async () => {
    const start = (delay: string): ReturnType<typeof startNbdkit> =>
      startNbdkit(["-r", "--filter=delay", "file", at("source.raw"), `delay-read=${delay}`], { transport: "tcp" });
    await using silent = await start("60");
    await using proxy = await startCuttingProxy(silent.port);
    const source = overNbd(`nbd://127.0.0.1:${proxy.port}/`);
    const error = await failure({ source, options: { attempts: { ...attempts, perAttemptMs: 200 } } });
    expect(error.code).toBe("UNAVAILABLE");
    expect(error.message).toMatch(/no answer for \d+ ms/);
    await using answering = await start("1ms");
    proxy.upstream = answering.port;
    await run({ source });
    expectEqual();
  });

  test("that is slow is only slow", { timeout: hangMs * 2 }, async () => {
    await using server = await startNbdkit(["-r", "--filter=delay", "file", at("source.raw"), "delay-read=20ms"]);
    await run({ source: overNbd(server.uri) });
    expectEqual();
  });

  test("that allows one connection is read by that one", { timeout: hangMs * 2 }, async () => {
    await using server = await startNbdkit(["-r", "--filter=limit", "file", at("source.raw"), "limit=1"]);
    const ended = await run({ source: overNbd(server.uri) }).catch((error: unknown) => error);
    if (isProviderError(ended)) await run({ source: overNbd(server.uri), options: { workers: 0 } });
    expectEqual();
  });

  test("that is cut to no whole number of sectors is refused by name", async () => {
    await using server = await startNbdkit(["-r", "--filter=truncate", "file", at("source.raw"), "truncate=8388000"]);
    const error = await failure({ source: overNbd(server.uri) });
    expect(error).toMatchObject({ code: "CONFIG_INVALID", message: expect.stringMatching(/512/) });
    expect(existsSync(at("target.raw"))).toBe(false);
  });

  test.for([
    { retries: 5, ours: "nothing" },
    { retries: 1, ours: "what it gives up" },
  ])(
    "that opens its disk again by itself (retries=$retries) leaves us $ours to read again",
    { timeout: hangMs * 2 },
    async ({ retries }) => {
      const trigger = at("fail-now");
      // The outer filter comes first: for a read that the inner one fails it opens the disk again, a second later.
      await using server = await startNbdkit([
        "-r",
        "--filter=retry",
        "--filter=error",
        "file",
        at("source.raw"),
        `retries=${retries}`,
        "retry-delay=1",
        "retry-exponential=no",
        "error-pread-rate=100%",
        `error-pread-file=${trigger}`,
      ]);
      const failed = (): number => server.stderr().split("injecting EIO error into pread").length - 1;
      let reads = 0;
      let readAgain = 0;
      const counting: Layer = async (call, next) => {
        if (call.side === "source" && call.method === "read") {
          if (++reads === 3) writeFileSync(trigger, "");
          if (call.attempt > 1) readAgain++;
        }
        await next(call);
      };
      // The server answers the requests of a connection one after the other, each seconds late where it fails.
      const patient = { ...attempts, attempts: 8, perAttemptMs: 20_000, totalMs: 25_000 };
      const running = run({
        source: overNbd(server.uri),
        options: { workers: 0, memory: MIB, attempts: patient, layers: [counting] },
      });
      const deadline = AbortSignal.timeout(hangMs);
      // Of one that gives up after its second try both levels are needed: its fault lasts until we read again.
      while (retries === 1 ? readAgain === 0 : failed() < 3) await sleep(2, undefined, { signal: deadline });
      rmSync(trigger);
      const report = await running;
      // A read that failed is no lost connection: nothing is opened again.
      expect(report.disks[0]).toMatchObject({ read: size, reopened: 0 });
      if (retries > 1) expect(readAgain).toBe(0);
      expectEqual();
    },
  );

  test.for([
    { next: "whole again", later: size, resumed: true },
    { next: "still short", later: size - MIB, resumed: false },
  ])(
    "that is shorter when it comes back ends the run by name; $next, it is copied",
    { timeout: hangMs * 2 },
    async ({ later, resumed }) => {
      const start = (bytes: number): ReturnType<typeof startNbdkit> =>
        startNbdkit(["-r", "--filter=truncate", "file", at("source.raw"), `truncate=${bytes}`], { transport: "tcp" });
      await using whole = await start(size);
      await using shorter = await start(size - MIB);
      await using proxy = await startCuttingProxy(whole.port);
      const uri = `nbd://127.0.0.1:${proxy.port}/`;
      let writes = 0;
      // In the middle of the copy: the first that was read is about to be written, and most was not read yet.
      const swapping: Layer = async (call, next) => {
        if (call.side === "target" && call.method === "write" && ++writes === 1) {
          proxy.upstream = shorter.port;
          proxy.cutAll();
        }
        await next(call);
      };
      const ends = { source: overNbd(uri), options: { workers: 0, memory: MIB } };
      const error = await failure({ ...ends, options: { ...ends.options, layers: [swapping] } });
      expect(writes).toBeGreaterThan(0);
      expect(error.code).toBe("NOT_FOUND");
      expect(error.message).toContain(
        `${uri} has ${size - MIB} bytes now and had ${size} when the copy began; start a new run`,
      );
      await using store = await openDirectoryState(at("state"));
      const { record, run: left } = await status(store, "job");
      expect(record).toBeUndefined();
      expect(left?.phase).toBe("copying");
      if (later === size) proxy.upstream = whole.port;
      else truncateSync(at("source.raw"), later);
      // The interrupted run goes on with the disk that it began with, and with no other.
      expect(await run(ends)).toMatchObject({ resumed, disks: [{ size: later }] });
      expectEqual();
    },
  );
});

describeWithPeers(["nbdkit", "qemu-nbd"], "a target behind a server", () => {
  test("that fails one write in ten is written all the same", { timeout: hangMs * 2 }, async () => {
    writeFileSync(at("export.raw"), randomBytes(size, 2));
    await using server = await startNbdkit([
      "--filter=error",
      "file",
      at("export.raw"),
      "error-pwrite-rate=10%",
      "error-zero-rate=10%",
    ]);
    const patient = { ...attempts, attempts: 8 };
    for (const workers of [0, 2]) {
      await run({ target: { uri: server.uri }, options: { workers, attempts: patient, mode: "full" } });
      expectEqual(at("export.raw"));
    }
  });

  test("that is full ends the run by name, and the next one goes on", { timeout: hangMs * 2 }, async () => {
    const trigger = at("full-now");
    writeFileSync(at("export.raw"), randomBytes(size, 2));
    await using server = await startNbdkit([
      "--filter=delay",
      "--filter=error",
      "file",
      at("export.raw"),
      "delay-write=5ms",
      "error-pwrite=ENOSPC",
      "error-pwrite-rate=100%",
      `error-file=${trigger}`,
    ]);
    const ends = { target: { uri: server.uri }, options: { workers: 0 } };
    writeFileSync(trigger, "");
    const error = await failure(ends);
    expect(error.message).toMatch(/space/i);
    rmSync(trigger);
    expect((await run(ends)).resumed).toBe(true);
    expectEqual(at("export.raw"));
  });

  test("that is read-only is refused before anything is sent", async () => {
    writeFileSync(at("export.raw"), randomBytes(size, 2));
    const before = readFileSync(at("export.raw"));
    await using nbdkit = await startNbdkit(["-r", "file", at("export.raw")]);
    await using qemu = await startQemuNbd(["-r", "-f", "raw", at("export.raw")]);
    for (const { uri } of [nbdkit, qemu]) {
      expect(await failure({ target: { uri } })).toMatchObject({
        code: "DENIED",
        message: expect.stringMatching(/read-only; export it writable, or name another target/),
      });
    }
    expect(readFileSync(at("export.raw")).equals(before)).toBe(true);
  });

  test("that is one sector too small is refused before anything is sent", async () => {
    writeFileSync(at("export.raw"), randomBytes(size - 512, 2));
    const before = readFileSync(at("export.raw"));
    await using server = await startQemuNbd(["-f", "raw", at("export.raw")]);
    expect(await failure({ target: { uri: server.uri } })).toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(/512 too few.*nothing was written/),
    });
    expect(readFileSync(at("export.raw")).equals(before)).toBe(true);
  });
});

describeWithPeers(["qemu-nbd"], "a connection that is cut at any byte", () => {
  const rounds = 8;

  test.for(["source", "target"] as const)("to the %s does not harm the copy", { timeout: 180_000 }, async (side) => {
    const seed = seedOf(31);
    const random = randomFrom(seed);
    let cuts = 0;
    let mended = 0;
    let failed = 0;
    for (let round = 0; round < rounds; round++) {
      for (const name of ["state", "target.raw", ".diskferry", "remembered"]) {
        rmSync(at(name), { recursive: true, force: true });
      }
      writeFileSync(at("export.raw"), side === "source" ? readFileSync(at("source.raw")) : randomBytes(size, round));
      await using server = await startQemuNbd(
        ["-f", "raw", "-e", "0", ...(side === "source" ? ["-r"] : []), at("export.raw")],
        {
          transport: "tcp",
        },
      );
      await using proxy = await startCuttingProxy(server.port);
      // A side tries seven more connections than its first, and copies over four.
      let connections = 1 + Math.floor(random() * 24);
      // Cuts within the handshake, within requests and within data alike.
      proxy.bytesLeft = () => (connections-- > 0 ? Math.floor(random() ** 4 * 3 * MIB) : Infinity);
      const uri = `nbd://127.0.0.1:${proxy.port}/`;
      const ends: Ends = {
        ...(side === "source" ? { source: overNbd(uri) } : { target: { uri } }),
        options: { workers: round % 2 === 0 ? 0 : 2 },
      };
      for (let attempt = 0; ; attempt++) {
        const before = proxy.cuts;
        const ended = await run(ends).catch((error: unknown) => error);
        if (!isProviderError(ended) && ended instanceof Error)
          throw new Error(`seed ${seed}, round ${round}`, { cause: ended });
        if (!isProviderError(ended)) {
          if (proxy.cuts > before) mended++;
          break;
        }
        failed++;
        expect(attempt).toBeLessThan(10);
      }
      cuts += proxy.cuts;
      expectEqual(side === "source" ? at("target.raw") : at("export.raw"));
    }
    console.log(
      `connections to the ${side} cut: ${cuts} in ${rounds} jobs, ${mended} runs mended it by themselves, ${failed} failed and went on; seed ${seed}`,
    );
    expect(cuts).toBeGreaterThan(rounds / 2);
    expect(mended).toBeGreaterThan(0);
  });

  test("and a server that is restarted meanwhile are survived in one run", { timeout: 60_000 }, async () => {
    writeFileSync(at("export.raw"), randomBytes(size, 3));
    const start = (): ReturnType<typeof startQemuNbd> =>
      startQemuNbd(["-f", "raw", "-e", "0", at("export.raw")], { transport: "tcp" });
    const first = await start();
    await using proxy = await startCuttingProxy(first.port);
    let bytes = 3 * MIB;
    proxy.bytesLeft = () => {
      const left = bytes;
      bytes = Infinity;
      return left;
    };
    // Whatever is under way when the server goes, a read that verifies included, is patient enough for its return.
    const patient = { ...attempts, attempts: 100, maxMs: 200, totalMs: 20_000, reopens: 100 };
    const ends = { target: { uri: `nbd://127.0.0.1:${proxy.port}/` }, options: { workers: 0, attempts: patient } };
    const running = run(ends);
    while (proxy.cuts === 0) await sleep(2);
    first.kill("SIGKILL");
    await first[Symbol.asyncDispose]();
    await using second = await start();
    proxy.upstream = second.port;
    await running;
    expectEqual(at("export.raw"));
  });
});

describe("a target without room", () => {
  test("ends the run by name, and the next one goes on once there is some", { timeout: 60_000 }, async (context) => {
    const mount = at("small");
    mkdirSync(mount);
    const limited = mounted(mount, "4m");
    try {
      const target = { path: join(limited ? mount : folder, "target.raw") };
      if (limited) {
        expect(await failure({ target })).toMatchObject({
          code: "UNAVAILABLE",
          message: expect.stringMatching(/no space left; free some and run again/),
        });
        execFileSync("mount", ["-o", "remount,size=32m", mount]);
      } else if (hasPeer("prlimit")) {
        const { child, errand } = start(errandFor({ target }), "replicate-once.ts", ["prlimit", `--fsize=${3 * MIB}`]);
        await ended(child);
        expect(readFileSync(errand.report, "utf8")).toMatch(/target\.raw/);
      } else context.skip();
      await run({ target });
      expectEqual(target.path);
    } finally {
      if (limited) execFileSync("umount", [mount]);
    }
  });
});

function mounted(place: string, bytes: string): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", place], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

describe("a source that changes its size", () => {
  test("is read whole when it has grown, and so is the target", async () => {
    await run();
    writeFileSync(at("source.raw"), randomBytes(size + 3 * MIB, 4));
    const report = await run();
    expect(report.disks[0]).toMatchObject({ mode: "rescan", size: size + 3 * MIB });
    expect(report.fallbacks.length).toBeGreaterThan(0);
    expectEqual();
  });

  test("is read whole when it has shrunk, and nothing of it is left behind its end", async () => {
    await run();
    truncateSync(at("source.raw"), size - 3 * MIB);
    const report = await run();
    expect(report.disks[0]).toMatchObject({ size: size - 3 * MIB });
    expectEqual();
    expect(
      readFileSync(at("target.raw"))
        .subarray(size - 3 * MIB)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test("is refused where a target in place cannot grow", async () => {
    writeFileSync(at("target.raw"), new Uint8Array(size));
    await run();
    const before = readFileSync(at("target.raw"));
    writeFileSync(at("source.raw"), randomBytes(size + 512, 4));
    expect(await failure({})).toMatchObject({ code: "CONFIG_INVALID", message: expect.stringMatching(/512 too few/) });
    expect(readFileSync(at("target.raw")).equals(before)).toBe(true);
  });
});

let errands = 0;

function errandFor(ends: Ends): Errand {
  const number = ++errands;
  return {
    job: "job",
    machine: "vm",
    state: at("state"),
    source: { path: at("source.raw"), ...named, ...ends.source },
    target: ends.target ?? { path: at("target.raw") },
    options: { ...options, ...ends.options },
    log: at(`log-${number}`),
    report: at(`report-${number}`),
  };
}

/** Starts an errand in a process of its own. */
function start<Some extends Errand>(
  errand: Some,
  script: string,
  before: string[] = [],
): { child: ChildProcess; errand: Some } {
  const place = script === "slice-once.ts" ? "faults" : "kill";
  const file = join(import.meta.dirname, place, script);
  const [command, ...args] = [
    ...before,
    process.execPath,
    "--conditions=diskferry-source",
    "--disable-warning=ExperimentalWarning",
    file,
    JSON.stringify(errand),
  ];
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"], env: process.env });
  return { child, errand };
}

function ended(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(signal ?? code));
  });
}

const writesIn = (log: string): number =>
  existsSync(log) ? notesOf(readFileSync(log)).filter(({ kind }) => kind === "wrote").length : 0;

describeWithPeers(["nbdkit"], "two workers on one job", () => {
  test.for([0, 2])(
    "the older is fenced and writes nothing more (workers: %i)",
    { timeout: 120_000 },
    async (workers) => {
      writeFileSync(at("source.raw"), randomBytes(2 * size, 5));
      // 2 MiB/s for each connection: slow enough for the older to be met on its way.
      await using server = await startNbdkit(["-r", "--filter=rate", "file", at("source.raw"), "rate=16M"]);
      // Both read from the one slow server for a while, which is no fault of it.
      const attempts = { ...options.attempts, perAttemptMs: 10_000, totalMs: 20_000 };
      const ends: Ends = { source: overNbd(server.uri), options: { workers, memory: MIB, attempts } };
      const older = start(errandFor(ends), "replicate-once.ts");
      const olderEnd = ended(older.child);
      // Two processes start on a machine that may be busy.
      const deadline = AbortSignal.timeout(90_000);
      while (writesIn(older.errand.log) === 0) await sleep(5, undefined, { signal: deadline });
      const newer = start(errandFor(ends), "replicate-once.ts");
      const newerEnd = ended(newer.child);
      while (writesIn(newer.errand.log) === 0) await sleep(2, undefined, { signal: deadline });
      const written = writesIn(older.errand.log);
      const endOfNewer = await newerEnd;
      expect(endOfNewer, readFileSync(newer.errand.report, "utf8")).toBe(0);
      expect(await olderEnd).toBe(1);
      expect(readFileSync(older.errand.report, "utf8")).toContain('"failure":"FENCED ');
      // What was begun had ended before the newer one could begin; what was tried since was refused.
      expect(writesIn(older.errand.log)).toBe(written);
      expectEqual();
    },
  );
});

describe("slices of one run", () => {
  test("by four processes, of which one is killed, become one commit", { timeout: 120_000 }, async () => {
    await using store = await openDirectoryState(at("state"));
    await using source = await provider.source!({ path: at("source.raw"), ...named });
    await using target = await provider.target!({ path: at("target.raw") });
    const job = { id: "job", source, machine: "vm", target, store, options };
    const ticket = await beginRun(job);
    const length = size / 4;
    const codes = await Promise.all(
      [0, 1, 2, 3].map((index) => {
        const errand: SliceErrand = { ...errandFor({}), ticket, range: { offset: index * length, length } };
        if (index === 2) errand.kill = { step: "write", side: "after", nth: 2 };
        return ended(start(errand, "slice-once.ts").child);
      }),
    );
    expect(codes).toEqual([0, 0, "SIGKILL", 0]);
    expect((await status(store, "job")).record).toBeUndefined();
    let commits = 0;
    const counting = replaced(target, {
      open: async (volume, request) => {
        const writer = await target.open(volume, request);
        return replaced(writer, {
          commit(written) {
            commits++;
            return writer.commit(written);
          },
        });
      },
    });
    const report = await replicate({ ...job, target: counting });
    expect(report).toMatchObject({ run: ticket.run, resumed: true, status: "done" });
    expect(commits).toBe(1);
    expect(report.disks[0]!.read).toBeLessThanOrEqual(length);
    expect(report.disks[0]!.settled).toBeGreaterThanOrEqual(3 * length);
    expectEqual();
  });

  test("a slice of a run that has ended is fenced", async () => {
    await using store = await openDirectoryState(at("state"));
    await using source = await provider.source!({ path: at("source.raw"), ...named });
    await using target = await openTarget(provider, { path: at("target.raw") });
    const job = { id: "job", source, machine: "vm", target, store, options };
    const ticket = await beginRun(job);
    await replicate(job);
    const slice: SliceErrand = { ...errandFor({}), ticket, range: { offset: 0, length: MIB } };
    const { child, errand } = start(slice, "slice-once.ts");
    expect(await ended(child)).toBe(1);
    expect(readFileSync(errand.report, "utf8")).toContain('"failure":"FENCED ');
    expect(writesIn(errand.log)).toBe(0);
  });
});
