import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { Extent, JobOptions, RunReport } from "@diskferry/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type KillPoint, type Noted, type Step, notesOf, steps } from "./kill/kill-point.ts";
import type { KnownChanges } from "./kill/doomed-job.ts";
import type { Errand } from "./kill/replicate-once.ts";
import { describeWithPeers } from "./peers.ts";
import { randomBytes, randomFrom, seedOf } from "./seed.ts";
import { type RunningServer, startQemuNbd } from "./servers.ts";

// Real processes are killed at every step of a run and go on where they were. The bound on what is copied twice comes
// from the engine: at most GROUPS_UNDER_WAY (2) groups wait for their flush and journal while a third is handed over,
// and a group ends with the item that fills it, see packages/core/src/engine/copy-disk.ts.

const MIB = 1 << 20;
const diskSize = 24 * MIB;
const interval = MIB;
const longestItem = MIB;
const groupsUnderWay = 3;
/** What one kill may cost, and one attempt after any number of them: work goes up the disk, so that what is lost overlaps. */
const mostLost = groupsUnderWay * (interval + longestItem);
const leaf = 64 << 10;
const attemptMs = 60_000;

const targets = ["raw", "qcow2", "qcow2-chain", "nbd"] as const;
type TargetKind = (typeof targets)[number];
/** What the runs of one life of a replica are, one after another. */
const runs = ["full", "incremental", "rescan", "full again"] as const;
type RunKind = (typeof runs)[number];

/** Where between two steps a process dies. */
const arrows: { name: string; points: Omit<KillPoint, "nth">[] }[] = [
  { name: `begin→${steps[0]}`, points: [{ step: steps[0], side: "before" }] },
  ...steps.map((step, index) => {
    const next = steps[index + 1];
    const points: Omit<KillPoint, "nth">[] = [{ step, side: "after" }];
    if (next !== undefined) points.push({ step: next, side: "before" });
    return { name: `${step}→${next ?? "end"}`, points };
  }),
];
const atAnyTime = "any time";
/** Steps that a run comes to again and again. */
const repeated: readonly Step[] = ["intent", "read", "write", "flush"];

interface Count {
  arrow: string;
  target: TargetKind;
  run: RunKind;
}

const seed = seedOf(20_267);
/** Worker threads that copied. */
let lanes = 0;
/** Runs that were given up as their snapshot was gone. */
let vanished = 0;
const kills: Count[] = [];
const twice: {
  target: TargetKind;
  run: RunKind;
  what: string;
  kills: number;
  bytes: number;
  bound: number;
  most: number;
}[] = [];
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-kill-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const qemuImg = async (...args: string[]): Promise<void> => void (await promisify(execFile)("qemu-img", args));

/** Names a version to the tracker. */
function nameOf(version: number): string {
  return `content ${version}`;
}

/** One replica from its first full copy on, whose every run is killed many times. */
class Life implements AsyncDisposable {
  readonly #target: TargetKind;
  readonly #random: () => number;
  readonly #home: string;
  #server: RunningServer | undefined;
  #version = 0;
  /** The version that an interrupted run is of and can still read, while the guest has gone on. */
  #overtaken: number | undefined;
  /** What each version changed. */
  readonly #changes: Extent[][] = [[]];
  #attempts = 0;
  readonly #trace: string[] = [];

  constructor(target: TargetKind, random: () => number) {
    this.#target = target;
    this.#random = random;
    this.#home = join(folder, target);
  }

  async begin(): Promise<void> {
    await mkdir(this.#home);
    if (this.#target !== "nbd") return;
    const backing = join(this.#home, "export.raw");
    // An export that holds something already: nothing in it may shine through.
    await writeFile(backing, randomBytes(diskSize, this.#number(1e9)));
    this.#server = await startQemuNbd(["-f", "raw", "-e", "8", backing]);
  }

  #number(below: number): number {
    return Math.floor(this.#random() * below);
  }

  /** What the source held at a version, as a raw file. */
  #content(version: number): string {
    return join(this.#home, `content-${version}.raw`);
  }

  get #sourceIsChain(): boolean {
    return this.#target === "qcow2-chain";
  }

  /** The guest writes: half of the disk and more, in many pieces, so that every run has many groups. */
  async #change(): Promise<void> {
    this.#version++;
    const disk =
      this.#version === 1
        ? Buffer.from(randomBytes(diskSize, this.#number(1e9)))
        : await readFile(this.#content(this.#version - 1));
    const changes: Extent[] = [];
    for (let offset = 512 * this.#number(64); offset < diskSize; offset += 512 * (1 + this.#number(600))) {
      const length = Math.min(diskSize - offset, 512 * (1 + this.#number(1600)));
      const isGivenBack = this.#random() < 0.2;
      disk.set(isGivenBack ? new Uint8Array(length) : randomBytes(length, this.#number(1e9)), offset);
      changes.push({ offset, length });
      offset += length;
    }
    this.#changes.push(changes);
    const content = this.#content(this.#version);
    await writeFile(content, disk);
    if (!this.#sourceIsChain) return copyFile(content, join(this.#home, "source.raw"));
    const layer = join(this.#home, `layer-${this.#version}.qcow2`);
    const below = join(this.#home, `layer-${this.#version - 1}.qcow2`);
    await qemuImg(
      "convert",
      "-O",
      "qcow2",
      ...(this.#version === 1 ? [] : ["-B", below, "-F", "qcow2"]),
      content,
      layer,
    );
    const link = join(this.#home, "source.qcow2");
    await symlink(layer, `${link}.new`);
    await rename(`${link}.new`, link);
  }

  #errand(run: RunKind, kill: KillPoint | undefined): Errand {
    const options: JobOptions = {
      leaf,
      mode: run === "full again" ? "full" : run === "rescan" ? "rescan" : "auto",
      verify: this.#random() < 0.3 ? "full" : "written",
      workers: this.#random() < 0.5 ? 2 : 0,
      journal: { bytes: interval },
      attempts: { perAttemptMs: 10_000, totalMs: 20_000 },
    };
    const place = { machine: "vm", key: "disk", frozen: true };
    const changes: KnownChanges = { version: nameOf(this.#version), since: {} };
    for (let since = 0; since < this.#version; since++) {
      const all = this.#changes.slice(since + 1).flat();
      changes.since[nameOf(since)] = all.toSorted((left, right) => left.offset - right.offset);
    }
    return {
      job: "job",
      machine: "vm",
      state: join(this.#home, "state"),
      source: { ...place, path: join(this.#home, this.#sourceIsChain ? "source.qcow2" : "source.raw") },
      target: this.#targetOptions(),
      options,
      ...(this.#sourceIsChain ? {} : { changes }),
      ...(kill === undefined ? {} : { kill }),
      log: join(this.#home, `log-${this.#attempts}`),
      report: join(this.#home, "report.json"),
    };
  }

  #targetOptions(): object {
    switch (this.#target) {
      case "raw":
        return { path: join(this.#home, "target.raw") };
      case "qcow2":
        return { path: join(this.#home, "target.qcow2") };
      case "qcow2-chain":
        return { directory: join(this.#home, "chain"), format: "qcow2-chain" };
      case "nbd":
        return { uri: this.#server!.uri };
    }
  }

  /** Runs one process to its death or end. Without a report it was killed. */
  async #attempt(errand: Errand, killAfterMs: number | undefined): Promise<{ report?: RunReport; notes: Noted[] }> {
    this.#attempts++;
    await rm(errand.report, { force: true });
    const script = join(import.meta.dirname, "kill", "replicate-once.ts");
    const child = spawn(
      process.execPath,
      ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning", script, JSON.stringify(errand)],
      {
        stdio: ["ignore", "ignore", "inherit"],
        env: {
          ...process.env,
          // What targets in place without a folder remember, kept apart from this machine's own.
          XDG_STATE_HOME: join(this.#home, "remembered"),
          NODE_COMPILE_CACHE: join(folder, "compiled"),
        },
      },
    );
    const timer = new AbortController();
    if (killAfterMs !== undefined) void this.#killAfter(child, errand.log, killAfterMs, timer.signal).catch(() => {});
    let tooLong = false;
    const deadline = setTimeout(() => {
      tooLong = true;
      child.kill("SIGKILL");
    }, attemptMs);
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (...how) => resolve(how));
    });
    clearTimeout(deadline);
    timer.abort();
    if (tooLong) throw new Error(`a run did not end within ${attemptMs} ms: ${this.#told()}`);
    const notes = notesOf(await readFile(errand.log).catch(() => Buffer.alloc(0)));
    await rm(errand.log, { force: true });
    if (signal === "SIGKILL") return { notes };
    const report = await readFile(errand.report, "utf8").catch(() => "{}");
    if (code === 0) return { report: JSON.parse(report) as RunReport, notes };
    throw new Error(`${(JSON.parse(report) as { failure?: string }).failure ?? `exit code ${code}`}\n${this.#told()}`);
  }

  /** Kills a process some time after it has come to its errand. */
  async #killAfter(child: ChildProcess, log: string, ms: number, signal: AbortSignal): Promise<void> {
    while (!existsSync(log)) await sleep(2, undefined, { signal });
    await sleep(ms, undefined, { signal });
    child.kill("SIGKILL");
  }

  #told(): string {
    return `seed ${seed}, ${this.#target}: ${this.#trace.slice(-30).join(", ")}`;
  }

  /** One run, killed at every arrow in turn, at some again, and now and then at any time. */
  async run(run: RunKind): Promise<void> {
    await this.#change();
    const plan: ((typeof arrows)[number] | undefined)[] = [...arrows];
    // Arrows that a run passes many times, again; and a kill by the clock.
    for (let extra = 0; extra < 2; extra++) {
      const at = 2 + this.#number(6);
      plan.splice(at, 0, arrows[at]);
    }
    plan.splice(8 + this.#number(2), 0, undefined);
    const copy = { attempts: [] as Noted[][], lost: 0 };
    const judge = (): void => {
      this.#judgeRepetition(run, copy.attempts.splice(0), copy.lost);
      copy.lost = 0;
    };
    let copied = false;
    this.#trace.push(`[${run}]`);
    const vanishesAt = 5 + this.#number(5);
    for (const [index, arrow] of plan.entries()) {
      const point = arrow === undefined ? undefined : this.#pointOf(arrow);
      this.#trace.push(arrow?.name ?? atAnyTime);
      const { report, notes } = await this.#attempt(
        this.#errand(run, point),
        point === undefined ? this.#number(120) : undefined,
      );
      if (!copied) this.#judgeMode(run, notes);
      copy.attempts.push(notes);
      if (report === undefined) {
        kills.push({ arrow: arrow?.name ?? atAnyTime, target: this.#target, run });
        if (notes.some(({ kind }) => kind === "read")) copy.lost++;
        // What comes after the record is another run, to which the bound does not apply.
        if (point?.step === "release" || (point?.step === "record" && point.side === "after")) {
          judge();
          copied = true;
          this.#overtaken = undefined;
        } else if (index === vanishesAt) {
          // The guest goes on, and with that the snapshot of the interrupted run is gone: another run takes over. In a
          // chain the layer is still there, below a new one, and the run ends with it.
          if (this.#sourceIsChain) this.#overtaken = this.#version;
          else vanished++;
          judge();
          this.#trace.push(this.#sourceIsChain ? "(overtaken)" : "(snapshot gone)");
          await this.#change();
        }
        continue;
      }
      // It came to its end before it could be killed; the arrows that are left want something to copy.
      this.#trace.push("(not killed)");
      judge();
      copied ||= run === "full";
      await this.#compare(report);
      await this.#change();
    }
    const { report, notes } = await this.#attempt(this.#errand(run, undefined), undefined);
    copy.attempts.push(notes);
    judge();
    if (report === undefined) throw new Error(`the last run was killed by somebody else: ${this.#told()}`);
    expect(report.status).toBe("done");
    await this.#compare(report);
  }

  #pointOf({ points }: (typeof arrows)[number]): KillPoint {
    const point = points[this.#number(points.length)]!;
    return { ...point, nth: repeated.includes(point.step) ? 1 + this.#number(2) : 1 };
  }

  /** A run is what it is meant to be, on the threads it is meant to use. */
  #judgeMode(run: RunKind, notes: readonly Noted[]): void {
    const mode = run === "full again" ? "full" : run;
    for (const { kind } of notes) {
      if (kind === "lane") lanes++;
      else if (["full", "incremental", "rescan"].includes(kind) && kind !== mode) {
        throw new Error(`a run that should be ${mode} is ${kind}: ${this.#told()}`);
      }
    }
  }

  /** What was read or written again lies within what may have been under way when a process died. */
  #judgeRepetition(run: RunKind, attempts: Noted[][], lost: number): void {
    const sector = 4096;
    for (const kinds of [["read"], ["write", "zero"]]) {
      const seen = new Uint8Array(diskSize / sector);
      let bytes = 0;
      let most = 0;
      for (const notes of attempts) {
        const now = new Uint8Array(seen.length);
        const before = bytes;
        for (const { kind, offset, length } of notes) {
          if (!kinds.includes(kind)) continue;
          for (let at = Math.floor(offset / sector); at * sector < offset + length; at++) now[at] = 1;
        }
        for (const [at, touched] of now.entries()) {
          if (touched === 0) continue;
          if (seen[at] === 1) bytes += sector;
          seen[at] = 1;
        }
        most = Math.max(most, bytes - before);
      }
      const bound = lost * mostLost;
      twice.push({ target: this.#target, run, what: kinds[0]!, kills: lost, bytes, bound, most });
      if (bytes > bound) throw new Error(`${bytes} bytes were ${kinds[0]} twice, more than ${bound}: ${this.#told()}`);
      if (most > mostLost) {
        throw new Error(`one attempt ${kinds[0]} ${most} bytes again, more than ${mostLost}: ${this.#told()}`);
      }
    }
  }

  async #compare(report: RunReport): Promise<void> {
    const { volume } = report.disks[0]!;
    const content = this.#content((report.resumed ? this.#overtaken : undefined) ?? this.#version);
    this.#overtaken = undefined;
    switch (this.#target) {
      case "raw":
        return this.#equal(content, join(this.#home, "target.raw"));
      case "nbd":
        return this.#equal(content, join(this.#home, "export.raw"));
      case "qcow2":
        return this.#equalImage(content, join(this.#home, "target.qcow2"));
      case "qcow2-chain": {
        const { folder: chain, file } = volume!.data as { folder: string; file: string };
        await this.#equalImage(content, join(chain, file));
      }
    }
  }

  async #equal(expected: string, actual: string): Promise<void> {
    const [left, right] = [await readFile(expected), await readFile(actual)];
    if (left.equals(right)) return;
    const at = left.findIndex((byte, index) => byte !== right[index]);
    throw new Error(`${actual} (${right.length} bytes) differs from its snapshot, first at ${at}: ${this.#told()}`);
  }

  async #equalImage(expected: string, image: string): Promise<void> {
    try {
      await qemuImg("compare", "-f", "raw", "-F", "qcow2", expected, image);
      await qemuImg("check", "-f", "qcow2", image);
    } catch (error) {
      throw new Error(`${image}: ${this.#told()}`, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }
}

describeWithPeers(["qemu-img", "qemu-nbd"], "a job whose process is killed", () => {
  test("ends with the bytes of its snapshot, wherever it was killed", { timeout: 600_000 }, async () => {
    const random = randomFrom(seed);
    const queue = targets.map((target) => ({ target, random: randomFrom(Math.floor(random() * 1e9)) }));
    const work = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        await using life = new Life(next.target, next.random);
        await life.begin();
        for (const run of runs) await life.run(run);
      }
    };
    const workers = await Promise.allSettled([work(), work()]);
    report();
    for (const worker of workers) if (worker.status === "rejected") throw worker.reason;
    expect(kills.length).toBeGreaterThanOrEqual(200);
    for (const { name } of arrows) expect(countOf({ arrow: name }), name).toBeGreaterThanOrEqual(5);
    for (const target of targets) for (const run of runs) expect(countOf({ target, run })).toBeGreaterThan(0);
    expect(lanes).toBeGreaterThan(0);
    expect(vanished).toBeGreaterThan(0);
  });
});

function countOf(wanted: Partial<Count>): number {
  return kills.filter((kill) => Object.entries(wanted).every(([key, value]) => kill[key as keyof Count] === value))
    .length;
}

function report(): void {
  const lines = [
    `${kills.length} processes killed (${lanes} worker threads in them, ${vanished} snapshots gone meanwhile), seed ${seed}; by arrow, target and run (${runs.join(" / ")}):`,
  ];
  for (const arrow of [...arrows.map(({ name }) => name), atAnyTime]) {
    const cells = targets.map((target) => `${target} ${runs.map((run) => countOf({ arrow, target, run })).join("/")}`);
    lines.push(`${arrow.padEnd(20)} ${String(countOf({ arrow })).padStart(3)}  ${cells.join("  ")}`);
  }
  const sum = (target: TargetKind, what: string, of: "bytes" | "bound" | "kills"): number =>
    twice.filter((row) => row.target === target && row.what === what).reduce((total, row) => total + row[of], 0);
  for (const target of targets) {
    const [read, written] = ["read", "write"].map((what) => (sum(target, what, "bytes") / MIB).toFixed(1));
    const bound = sum(target, "read", "bound") / MIB;
    const most = Math.max(...twice.filter((row) => row.target === target).map((row) => row.most)) / MIB;
    lines.push(
      `${target}: ${read} MiB read and ${written} MiB written twice, of ${bound} MiB that ` +
        `${sum(target, "read", "kills")} kills while copying allow; at most ${most.toFixed(1)} of ${mostLost / MIB} MiB by one attempt`,
    );
  }
  for (const line of lines) console.log(line);
}
