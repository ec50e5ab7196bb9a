import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { cleanup, type Job, launch, openDirectoryState, plan, replicate, terminate } from "@diskferry/core";
import { type AwsOptions, createVolume, provider as aws, removeCreatedVolume } from "@diskferry/provider-aws";
import { type LocalOptions, provider as local } from "@diskferry/provider-local";
import { type AwsSimulator, type AwsSimulatorOptions, startAwsSimulator } from "@diskferry/simulators";
import type { Errand } from "./aws/replicate-to-aws.ts";
import { describeWithPeers } from "./peers.ts";
import { randomBytes, seedOf } from "./seed.ts";

// From files of a machine to a launched instance: what the instance finds on its disks is what the files hold.

const block = 512 * 1024;
const seed = seedOf(3003);
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "diskferry-aws-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A sparse raw file with random blocks at some indices; it ends inside a block. */
function rawFile(name: string, blocks: number, filled: readonly number[], salt: number): string {
  const path = join(folder, name);
  writeFileSync(path, "");
  truncateSync(path, blocks * block + 512);
  for (const index of filled) overwrite(path, index, salt);
  return path;
}

function overwrite(path: string, index: number, salt: number): void {
  const fd = openSync(path, "r+");
  try {
    writeSync(fd, randomBytes(block, seed + 1000 * salt + index), 0, block, index * block);
  } finally {
    closeSync(fd);
  }
}

async function simulate(options: AwsSimulatorOptions = {}): Promise<{ simulator: AwsSimulator; target: AwsOptions }> {
  const delays = { completeMs: 5, changeMs: 5, startVisibleMs: 0, listableMs: 5, ...options.delays };
  const simulator = await startAwsSimulator({ quotaScale: 100, ...options, delays });
  onTestFinished(() => simulator.close());
  const { accessKeyId, secretAccessKey } = simulator.credentials[0]!;
  const target: AwsOptions = {
    region: "us-east-1",
    endpoint: simulator.endpoint,
    credentials: { accessKeyId, secretAccessKey },
    concurrency: 16,
    timeouts: { pollMs: 5, visibleMs: 10_000, powerMs: 30_000, snapshotMs: 30_000 },
  };
  return { simulator, target };
}

async function jobOf(id: string, from: LocalOptions, to: AwsOptions, options: Job["options"] = {}): Promise<Job> {
  const store = await openDirectoryState(join(folder, `state of ${id}`));
  const source = await local.source!(from);
  const target = await aws.target!(to);
  onTestFinished(async () => {
    await target[Symbol.asyncDispose]();
    await source[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
  });
  return { id, machine: from.machine!, source, target, store, options };
}

const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Demands that a launched instance finds the disks' bytes, and zeroes behind their ends. */
async function holds(simulator: AwsSimulator, instance: string, raws: readonly string[]): Promise<void> {
  await volumesHold(simulator, simulator.volumesOf(instance), raws);
}

/** Demands of volumes that they hold the files' bytes, and zeroes behind their ends. */
async function volumesHold(
  simulator: AwsSimulator,
  volumes: readonly string[],
  raws: readonly string[],
): Promise<void> {
  expect(volumes).toHaveLength(raws.length);
  for (const [at, raw] of raws.entries()) {
    const bytes = execFileSync("cat", [raw], { maxBuffer: 2 ** 30 });
    const found = await simulator.volumeBytes(volumes[at]!, 0, bytes.length + block);
    expect(digest(found.subarray(0, bytes.length)), `${raw}, seed ${seed}`).toBe(digest(bytes));
    expect(
      found.subarray(bytes.length).every((byte) => byte === 0),
      `${raw}, behind its end`,
    ).toBe(true);
  }
}

const puts = (simulator: AwsSimulator): number => simulator.faults.counters()["PutSnapshotBlock"] ?? 0;

test("what a disk's first run and an increment ask of the control plane, and no call more", async () => {
  const delays = { completeMs: 0, listableMs: 0 };
  const { simulator, target } = await simulate({ delays });
  const path = rawFile("counted.raw", 40, [0, 1, 17], 4);
  const asked = async (): Promise<Record<string, number>> => {
    const before = simulator.faults.counters();
    const job = await jobOf("counted", { machine: "counted", disks: [{ key: "root", path, frozen: true }] }, target);
    await replicate({ ...job, options: { verify: "none" } });
    const { PutSnapshotBlock: _, ...after } = simulator.faults.counters();
    const calls = Object.entries(after).map(([name, count]) => [name, count - (before[name] ?? 0)] as const);
    return Object.fromEntries(calls.filter(([, count]) => count > 0));
  };
  expect(await asked()).toEqual({
    GetCallerIdentity: 1,
    // What there is of the key, and of the run; what was begun; whether it is completed; what is no longer needed.
    DescribeSnapshots: 5,
    // Of the volume, and of the run.
    StartSnapshot: 2,
    CompleteSnapshot: 2,
    ListSnapshotBlocks: 1,
  });
  overwrite(path, 17, 5);
  expect(await asked()).toEqual({
    GetCallerIdentity: 1,
    // The volume and the last commit besides.
    DescribeSnapshots: 7,
    StartSnapshot: 1,
    CompleteSnapshot: 1,
    ListSnapshotBlocks: 1,
  });
});

describeWithPeers(["qemu-img"], "files to AWS", () => {
  test("raw and qcow2 disks become snapshots, volumes, an image and an instance with equal bytes; an increment moves what changed", async () => {
    const { simulator, target } = await simulate();
    const root = rawFile("root.raw", 12, [0, 1, 2, 9], 1);
    const data = rawFile("data.raw", 20, [0, 7, 19], 2);
    const image = join(folder, "data.qcow2");
    const convert = (): void => void execFileSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", data, image]);
    convert();
    const from: LocalOptions = {
      machine: "web-1",
      disks: [
        { key: "root", path: root, boot: true, frozen: true },
        { key: "data", path: image, frozen: true },
      ],
    };
    const job = await jobOf("several", from, target, { verify: "full" });

    const planned = await plan(job);
    expect(planned.calls.find(({ operation }) => operation === "PutSnapshotBlock")?.count.value).toBe(13 + 21);
    expect(planned.privileges.target?.missing).toEqual([]);
    expect(planned.findings.filter(({ severity }) => severity === "blocker")).toEqual([]);

    const first = await replicate(job);
    expect(first.disks.map(({ mode }) => mode)).toEqual(["full", "full"]);
    expect(puts(simulator)).toBe(4 + 3);
    const standAlone = first.disks.map(({ disk, volume }) => ({
      in: target,
      snapshotId: volume!.id,
      zone: "us-east-1b",
      key: `volume of ${disk}`,
      job: "several",
    }));
    const made = await Promise.all(standAlone.map((request) => createVolume(request)));
    expect(made.map(({ zone, size }) => [zone, size])).toEqual([
      ["us-east-1b", 2 ** 30],
      ["us-east-1b", 2 ** 30],
    ]);
    const machine = await launch(job);
    await holds(simulator, machine.id, [root, data]);
    await terminate(job, machine.id);
    // The volumes are nobody's but the caller's: a launched instance that went took none of them along.
    await volumesHold(
      simulator,
      made.map(({ volumeId }) => volumeId),
      [root, data],
    );
    for (const { key } of standAlone) await removeCreatedVolume({ in: target, key });

    overwrite(root, 2, 3);
    overwrite(root, 5, 3);
    overwrite(data, 19, 3);
    convert();
    const before = puts(simulator);
    const second = await replicate(job);
    expect(second.disks.map(({ mode }) => mode)).toEqual(["rescan", "rescan"]);
    expect(puts(simulator) - before).toBe(3);
    const again = await launch(job);
    await holds(simulator, again.id, [root, data]);
    await terminate(job, again.id);

    // The last record and the recovery point before it stay; what only stood for the volumes goes.
    const swept = await cleanup(job);
    expect(swept.removed.every(({ kind }) => kind === "volume")).toBe(true);
    expect(swept.kept.filter(({ kind }) => kind === "commit")).toHaveLength(4);
    const third = await replicate(job);
    expect(third.disks.map(({ moved }) => moved)).toEqual([0, 0]);
    await cleanup(job, { includeReplicas: true });
    const left = [];
    for await (const owned of job.target.owned("several")) left.push(owned);
    expect(left).toEqual([]);
  }, 120_000);
});

/** Demands of every byte of a launched disk that it is the file's, and behind the file's end zero. */
async function holdsWhole(simulator: AwsSimulator, instance: string, raw: string, size: number): Promise<void> {
  const [volume] = simulator.volumesOf(instance);
  const file = readFileSync(raw);
  const [step, zeroes] = [32 * 2 ** 20, Buffer.alloc(32 * 2 ** 20)];
  for (let at = 0; at < size; at += step) {
    const wanted = at < file.length ? Buffer.concat([file.subarray(at, at + step), zeroes], step) : zeroes;
    const found = await simulator.volumeBytes(volume!, at, step);
    if (Buffer.compare(found, wanted) === 0) continue;
    const first = found.findIndex((byte, index) => byte !== wanted[index]);
    expect.fail(`${raw} and the launched disk differ at byte ${at + first}, seed ${seed}`);
  }
}

test("a full copy into an account that encrypts by default writes every block, so that no random byte is left; then what changed", async () => {
  const { simulator, target } = await simulate();
  // Nobody asks for encryption: only AWS's answer tells of it.
  simulator.encryptByDefault("111111111111", "us-east-1", true);
  const whole = 2 ** 30;
  const root = rawFile("encrypted.raw", 12, [0, 3, 11], 7);
  const from: LocalOptions = { machine: "m", disks: [{ key: "root", path: root, boot: true, frozen: true }] };
  const job = await jobOf("encrypted", from, target);
  const first = await replicate(job);
  expect(puts(simulator)).toBe(whole / block);
  const machine = await launch(job);
  await holdsWhole(simulator, machine.id, root, whole);
  await terminate(job, machine.id);

  overwrite(root, 3, 8);
  const fd = openSync(root, "r+");
  writeSync(fd, Buffer.alloc(block), 0, block, 11 * block);
  closeSync(fd);
  const second = await replicate(job);
  expect(first.disks[0]!.volume!.id).not.toBe(second.disks[0]!.volume!.id);
  // One block of new bytes, and one of zeroes where the parent's bytes would show.
  expect(puts(simulator)).toBe(whole / block + 2);
  const again = await launch(job);
  await holdsWhole(simulator, again.id, root, whole);
}, 300_000);

test("an upload whose process is killed goes on in the same pending snapshot, and puts no block twice without need", async () => {
  const { simulator, target } = await simulate({ latencyMs: 5 });
  const count = 160;
  const all = Array.from({ length: count }, (_, index) => index);
  const root = rawFile("killed.raw", count, all, 5);
  const from: LocalOptions = { machine: "m", disks: [{ key: "root", path: root, boot: true, frozen: true }] };
  const errand: Errand = {
    job: "killed",
    state: join(folder, "state of killed"),
    machine: "m",
    source: from,
    target: { ...target, concurrency: 4 },
    options: { leaseMs: 1000, journal: { bytes: 4 << 20 }, memory: 8 << 20 },
  } as Errand;
  const script = new URL("./aws/replicate-to-aws.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, ["--conditions=diskferry-source", script, JSON.stringify(errand)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  await expect.poll(() => puts(simulator), { timeout: 20_000, interval: 2 }).toBeGreaterThan(100);
  child.kill("SIGKILL");
  expect(await ended).toBe("SIGKILL");
  const started = simulator.faults.counters()["StartSnapshot"];
  const job = await jobOf("killed", from, target, errand.options);
  const pending: string[] = [];
  for await (const { kind, id } of job.target.owned("killed")) if (kind === "upload") pending.push(id);
  expect(pending).toHaveLength(1);
  const report = await replicate(job);
  expect(report.resumed).toBe(true);
  expect(report.disks[0]!.volume!.id).toBe(pending[0]);
  expect(simulator.faults.counters()["StartSnapshot"]).toBe(started);
  // What was under way and not yet durable is put again: two groups of 4 MiB and what was in flight. Putting all of it
  // again would be more than a hundred.
  expect(puts(simulator)).toBeLessThanOrEqual(count + 3 * 8 + 16);
  const machine = await launch(job);
  await holds(simulator, machine.id, [root]);
}, 120_000);
