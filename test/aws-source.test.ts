import { spawn } from "node:child_process";
import { mkdir, mkdtemp, open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Job,
  type JobOptions,
  type Layer,
  MemoryStateStore,
  type RunReport,
  type Snapshot,
  type SourceConnector,
  replicate,
  status,
} from "@diskferry/core";
import { type AwsOptions, type CopiedSnapshot, copySnapshot, provider as aws } from "@diskferry/provider-aws";
import { provider as local } from "@diskferry/provider-local";
import type { AwsSimulator } from "@diskferry/simulators";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { ChainErrand } from "./aws/replicate-to-chain.ts";
import { AwsGuest, block, differences, differencesOf, optionsTo, quickSimulator } from "./aws/aws-guest.ts";
import { seedOf } from "./seed.ts";

vi.setConfig({ testTimeout: 180_000 });

const seed = seedOf(4711);
const mebi = 1 << 20;
let folder = "";
let names = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-aws-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const fresh = (): string => join(folder, String(++names));

/** What each disk's last record holds, compared with the guest's volumes. */
async function demandEqual(job: Job, guest: AwsGuest, report: RunReport): Promise<void> {
  for (const { disk, volume } of report.disks)
    expect(await differencesOf(job.target, volume!, guest.content(disk)), `${disk}, seed ${seed}`).toEqual([]);
}

test("an instance of three volumes goes into a qcow2 chain: in full, then what changed and was freed, then a grown disk", async () => {
  await using simulator = await quickSimulator({ emptyPageEvery: 2, overReportEvery: 7 });
  const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
  const [root, data, more] = guest.volumes as [string, string, string];
  await guest.write(root, 0, 1, 2, 3, 700, 2047);
  await guest.write(data, 5, 6, 7, 8);
  await guest.write(more, 100);
  await using source = await aws.source!(optionsTo(simulator));
  const machine = simulator.instances.linux;
  await using target = await local.target!({ directory: fresh(), format: "qcow2-chain" });
  const job: Job = { id: "exit", source, machine, target, store: new MemoryStateStore() };
  const gets = (): number => simulator.faults.counters()["GetSnapshotBlock"] ?? 0;

  const full = await replicate(job);
  expect(full.snapshot.consistency).toBe("crash");
  expect(full.disks.map(({ mode }) => mode)).toEqual(["full", "full", "full"]);
  expect(gets()).toBe(11);
  await demandEqual(job, guest, full);
  const points = new Map(
    full.disks.map(({ disk, volume }) => [disk, { volume: volume!, content: guest.content(disk) }]),
  );

  await guest.write(root, 1, 900);
  await guest.trim(root, 2, 3);
  await guest.trim(data, 5, 6, 7, 8);
  const before = gets();
  const second = await replicate(job);
  expect(second.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental", "incremental"]);
  expect(second.fallbacks).toEqual([]);
  // Two blocks changed, and of those that are reported without need 0, 7 and 700 divide by seven and exist.
  expect(gets() - before).toBeLessThanOrEqual(6);
  await demandEqual(job, guest, second);
  // The base of the run before is given up, and the base of the next one stays, tagged as held.
  const owned = [];
  for await (const each of source.owned("exit")) owned.push(each);
  expect(owned.map(({ description }) => description.includes("held"))).toEqual([true]);

  simulator.growVolume(data, 2);
  await guest.write(data, 6, 2048, 4095);
  const third = await replicate(job);
  expect(third.disks.find(({ disk }) => disk === data)?.volume?.size).toBe(2 * 2 ** 30);
  await demandEqual(job, guest, third);
  expect((await status(job.store, "exit"))?.torn ?? []).toEqual([]);

  // The first recovery point still reads as it was.
  for (const [, { volume, content }] of points) expect(await differencesOf(target, volume, content)).toEqual([]);
});

for (const format of ["qcow2-chain", "raw"] as const) {
  test(`two machines are downloaded into one directory at once, as ${format} (coldsnap #353 hangs on two)`, async () => {
    await using simulator = await quickSimulator();
    const { linux, windows } = simulator.instances;
    const directory = fresh();
    await mkdir(directory);
    const downloads = [linux, windows].map((machine, at) => {
      const guest = new AwsGuest(simulator, machine, seed + 1000 * at);
      return { machine, guest, disk: guest.volumes[0]! };
    });
    for (const { guest, disk } of downloads)
      await guest.write(disk, ...Array.from({ length: 40 }, (_, index) => index * 2));
    // Until both have begun to read, neither is given a block.
    const begun = new Set<string>();
    const both = Promise.withResolvers<void>();
    const together = (machine: string): Layer => {
      return async (call, run) => {
        if (call.side === "source" && call.method === "read") {
          if (begun.add(machine).size === downloads.length) both.resolve();
          await both.promise;
        }
        return run(call);
      };
    };
    const stores = new Map(downloads.map(({ machine }) => [machine, new MemoryStateStore()]));
    const all = (options: (machine: string) => JobOptions): Promise<void[]> =>
      Promise.all(
        downloads.map(async ({ machine, guest, disk }) => {
          await using source = await aws.source!(optionsTo(simulator));
          const to = format === "raw" ? { path: join(directory, `${machine}.raw`), format } : { directory, format };
          await using target = await local.target!(to);
          const store = stores.get(machine)!;
          const job: Job = { id: machine, source, machine, disks: [disk], target, store, options: options(machine) };
          await demandEqual(job, guest, await replicate(job));
        }),
      );
    await all((machine) => ({ layers: [together(machine)] }));
    expect(begun.size).toBe(2);
    for (const { guest, disk } of downloads)
      await guest.write(disk, ...Array.from({ length: 40 }, (_, index) => index * 3));
    // And as it is by default, on threads.
    await all(() => ({}));
  });
}

test("a raw file full of old bytes holds zeroes afterwards where the snapshot holds nothing", async () => {
  await using simulator = await quickSimulator();
  const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
  const [root] = guest.volumes as [string];
  await guest.write(root, 1, 40);
  const path = fresh();
  // The rest of the file is a hole, which the copy is not to be told of.
  await writeFile(path, Buffer.alloc(32 * mebi, 0xee));
  await truncate(path, 2 ** 30);
  await using source = await aws.source!(optionsTo(simulator));
  await using target = await local.target!({ path, format: "raw", overwrite: true });
  const machine = simulator.instances.linux;
  const job: Job = { id: "stale", source, machine, disks: [root], target, store: new MemoryStateStore() };
  await replicate(job);
  const held = Buffer.alloc(32 * mebi);
  await using file = await open(path);
  await file.read(held);
  for (let index = 0; index < (32 * mebi) / block; index++) {
    const here = held.subarray(index * block, (index + 1) * block);
    expect(Buffer.compare(here, guest.content(root).get(index) ?? Buffer.alloc(block)), `block ${index}`).toBe(0);
  }
});

/** A short copy under faults, which has to end well and with the right bytes. */
async function underFaults(
  simulator: AwsSimulator,
  more: Parameters<typeof optionsTo>[1],
  trouble: (simulator: AwsSimulator) => void,
): Promise<void> {
  const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
  const [root, data] = guest.volumes as [string, string];
  await guest.write(root, ...Array.from({ length: 24 }, (_, index) => index * 3));
  await guest.write(data, 9);
  await using source = await aws.source!(optionsTo(simulator, more));
  await using target = await local.target!({ directory: fresh(), format: "qcow2-chain" });
  const machine = simulator.instances.linux;
  const options = { attempts: { baseMs: 20, attempts: 30 } };
  const job: Job = {
    id: "trouble",
    source,
    machine,
    disks: [root, data],
    target,
    store: new MemoryStateStore(),
    options,
  };
  trouble(simulator);
  const report = await replicate(job);
  simulator.faults.clear();
  await demandEqual(job, guest, report);
}

test("a storm of throttling ends in success", async () => {
  await using simulator = await quickSimulator({ seed });
  await underFaults(simulator, {}, ({ faults }) => {
    faults.add({ fault: "throttle", operation: "GetSnapshotBlock", times: 12 });
    faults.add({ fault: "throttle", operation: "ListSnapshotBlocks", times: 3 });
    faults.add({ fault: "resource-throttle", operation: "GetSnapshotBlock", probability: 0.2 });
    faults.add({ fault: "throttle", operation: "DescribeSnapshots", times: 3 });
  });
});

test("hanging, torn, flipped, empty and failed answers end in success", async () => {
  await using simulator = await quickSimulator({ seed });
  await underFaults(simulator, { timeouts: { blockMs: 1500, requestMs: 1500 } }, ({ faults }) => {
    for (const fault of ["hang", "truncate", "flip", "empty", "read-failed", "internal-error", "reset"] as const)
      faults.add({ fault, operation: "GetSnapshotBlock", times: 2 });
    faults.add({ fault: "hang", operation: "ListSnapshotBlocks", times: 1 });
    faults.add({ fault: "hang", operation: "DescribeSnapshots", times: 1 });
    faults.add({ fault: "expired-block-token", operation: "GetSnapshotBlock", probability: 0.2, times: 8 });
    faults.add({ fault: "unavailable", probability: 0.05, times: 10 });
  });
});

test("keys that run out in the middle of a run are exchanged once, and the run goes on", async () => {
  await using simulator = await quickSimulator();
  let given = 0;
  const temporary = () => ({
    accessKeyId: `ASIATEMPORARY${given}`,
    secretAccessKey: `secret ${given}`,
    sessionToken: `token ${given}`,
  });
  const credentials = async () => {
    given++;
    const keys = temporary();
    simulator.addCredentials({ ...keys, accountId: "111111111111", expiresAt: Date.now() + 3_600_000 });
    return keys;
  };
  let asked = 0;
  const watch = setInterval(() => {
    // In the middle of the blocks the keys become worthless, long before their time as the client knows it.
    if (asked > 0 || (simulator.faults.counters()["GetSnapshotBlock"] ?? 0) < 4) return;
    asked++;
    simulator.addCredentials({ ...temporary(), accountId: "111111111111", expiresAt: Date.now() - 1 });
  }, 1);
  try {
    await underFaults(simulator, { credentials }, () => {});
  } finally {
    clearInterval(watch);
  }
  expect(asked).toBe(1);
  expect(given).toBe(2);
});

test("a download that was killed goes on in a new process: the same snapshot, and no block twice without need", async () => {
  await using simulator = await quickSimulator({ latencyMs: 3 });
  const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
  const [root, data] = guest.volumes as [string, string];
  await guest.write(root, ...Array.from({ length: 450 }, (_, index) => index));
  await guest.write(data, ...Array.from({ length: 150 }, (_, index) => index * 7));
  const [state, chains, report] = [fresh(), fresh(), fresh()];
  const errand: ChainErrand = {
    machine: simulator.instances.linux,
    source: optionsTo(simulator, { concurrency: 4 }),
    state,
    chains,
    report,
  };
  const gets = (): number => simulator.faults.counters()["GetSnapshotBlock"] ?? 0;
  const kills = [150, 150, 150];
  let killed = 0;
  for (const after of [...kills, Number.POSITIVE_INFINITY]) {
    const start = gets();
    const script = join(import.meta.dirname, "aws", "replicate-to-chain.ts");
    const child = spawn(
      process.execPath,
      ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning", script, JSON.stringify(errand)],
      { stdio: ["ignore", "inherit", "inherit"] },
    );
    const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("exit", (_, signal) => resolve(signal)));
    const watch = setInterval(() => {
      if (gets() - start >= after) child.kill("SIGKILL");
    }, 1);
    const signal = await ended;
    clearInterval(watch);
    if (signal === null) break;
    killed++;
  }
  expect(killed).toBe(kills.length);
  const told = JSON.parse(await readFile(report, "utf8")) as RunReport & { failure?: string };
  expect(told.failure).toBeUndefined();
  expect(told).toMatchObject({ status: "done", resumed: true });
  // One point in time for all of it, whatever was killed.
  expect(simulator.faults.counters()["CreateSnapshots"]).toBe(1);
  // What was under way and not yet durable is read again: at most two groups of 4 MiB and what was in flight, per disk and
  // kill. Who begins anew after each kill reads the 450 blocks of three attempts and then all 600.
  expect(gets()).toBeLessThanOrEqual(600 + kills.length * 2 * (3 * 8 + 16));
  await using target = await local.target!({ directory: chains, format: "qcow2-chain" });
  for (const { disk, volume } of told.disks)
    expect(await differencesOf(target, volume!, guest.content(disk)), `${disk}, seed ${seed}`).toEqual([]);
});

for (const [name, place] of [
  ["from Region to Region", { region: "eu-west-1" }],
  ["from account to account", { account: 1 }],
] as const) {
  test(`${name} by data: in full and then what changed, with the same bytes`, async () => {
    await using simulator = await quickSimulator();
    const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
    const [root, data] = guest.volumes as [string, string];
    await guest.write(root, 0, 1, 2, 2047);
    await guest.write(data, 3);
    await using source = await aws.source!(optionsTo(simulator));
    await using target = await aws.target!(optionsTo(simulator, place));
    const machine = simulator.instances.linux;
    const job: Job = { id: "across", source, machine, target, store: new MemoryStateStore() };
    await demandEqual(job, guest, await replicate(job));
    const puts = simulator.faults.counters()["PutSnapshotBlock"] ?? 0;
    await guest.write(root, 1);
    await guest.trim(root, 2);
    const second = await replicate(job);
    expect(second.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental", "incremental"]);
    expect((simulator.faults.counters()["PutSnapshotBlock"] ?? 0) - puts).toBe(2);
    await demandEqual(job, guest, second);
  });
}

test("from Region to Region and account inside AWS: a copy reads as the volume did, and replicates like any source", async () => {
  await using simulator = await quickSimulator();
  const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
  const [root] = guest.volumes as [string];
  await guest.write(root, 0, 9, 2047);
  const from = optionsTo(simulator);
  const to = optionsTo(simulator, { region: "eu-west-1", account: 1 });
  await using source = await aws.source!(from);
  const machine = await source.machine(simulator.instances.linux);
  const { disks } = await source.snapshot(machine, { key: "k", disks: [root] });
  const copy = await copySnapshot({ from, to, snapshotId: disks[0]!.id, key: "k" });
  await using there = await aws.source!(to);
  await using reader = await there.open(copy.snapshot.disks[0]!);
  expect(await differences(reader, guest.content(root))).toEqual([]);
  await using target = await local.target!({ directory: fresh(), format: "qcow2-chain" });
  const job: Job = { id: "copied", source: there, machine: copy.snapshotId, target, store: new MemoryStateStore() };
  const report = await replicate(job);
  expect(await differencesOf(target, report.disks[0]!.volume!, guest.content(root))).toEqual([]);
});

for (const what of ["archived", "removed"] as const) {
  test(`after the base was ${what} digests decide: every block is read, what differs is moved, and the target is equal`, async () => {
    await using simulator = await quickSimulator();
    const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
    const [root, data] = guest.volumes as [string, string];
    await guest.write(root, ...Array.from({ length: 40 }, (_, index) => index));
    await guest.write(data, 3);
    await using source = await aws.source!(optionsTo(simulator));
    await using target = await local.target!({ directory: fresh(), format: "qcow2-chain" });
    const machine = simulator.instances.linux;
    const disks = [root, data];
    const job: Job = { id: "lost", source, machine, disks, target, store: new MemoryStateStore() };
    await demandEqual(job, guest, await replicate(job));

    await guest.write(root, 7, 900);
    await guest.trim(root, 8);
    const bases: Snapshot[] = [];
    for await (const { snapshot } of source.owned("lost")) bases.push(snapshot!);
    expect(bases).toHaveLength(1);
    const [base] = bases as [Snapshot];
    // Archived is the base of one disk, and what is removed goes for both.
    if (what === "archived") simulator.archiveSnapshot(base.disks.find(({ disk }) => disk === root)!.id);
    else await source.release(base);
    const gets = simulator.faults.counters()["GetSnapshotBlock"] ?? 0;
    const second = await replicate(job);
    const modes = Object.fromEntries(second.disks.map(({ disk, mode }) => [disk, mode]));
    expect(modes).toEqual({ [root]: "rescan", [data]: what === "archived" ? "incremental" : "rescan" });
    expect(new Set(second.fallbacks.map(({ disk }) => disk))).toEqual(new Set(what === "archived" ? [root] : disks));
    // The root's snapshot holds forty blocks and the other's one; two of them and the freed one differ from the last record.
    expect((simulator.faults.counters()["GetSnapshotBlock"] ?? 0) - gets).toBe(what === "archived" ? 40 : 41);
    expect(second.disks.find(({ disk }) => disk === root)!.moved).toBe(2 * block);
    expect(second.disks.find(({ disk }) => disk === data)!.moved).toBe(0);
    await demandEqual(job, guest, second);

    // The next run stands on the snapshot that was compared.
    await guest.write(root, 7);
    const third = await replicate(job);
    expect(third.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental"]);
    await demandEqual(job, guest, third);
  });
}

/** Copies every snapshot of a machine by CopySnapshot and hands the copies on: no byte is read where the machine is. */
function byCopies(
  { from, to }: { from: AwsOptions; to: AwsOptions },
  { here, there }: { here: SourceConnector; there: SourceConnector },
  copies: CopiedSnapshot[][],
): SourceConnector {
  const handles = new Map<string, Snapshot[]>();
  return {
    machines: (wait) => here.machines(wait),
    machine: (id, wait) => here.machine(id, wait),
    tracker: there.tracker!,
    open: (disk, wait) => there.open(disk, wait),
    owned: (job, wait) => there.owned(job, wait),
    async snapshot(machine, request) {
      const original = await here.snapshot(machine, request);
      const { key, job } = request;
      const made = await Promise.all(
        original.disks.map(({ id }) => copySnapshot({ from, to, snapshotId: id, key, job })),
      );
      copies.push(made);
      const parts = made.map(({ snapshot }) => snapshot);
      handles.set(original.id, parts);
      return { ...original, disks: parts.flatMap(({ disks }) => disks) };
    },
    async release({ id }, wait) {
      for (const part of handles.get(id) ?? []) await there.release(part, wait);
    },
    async [Symbol.asyncDispose]() {},
  };
}

for (const [name, place, account] of [
  ["to another Region", { region: "eu-west-1" }, "111111111111"],
  ["to another account", { account: 1 }, "222222222222"],
  ["to another Region of another account", { account: 1, region: "eu-west-1" }, "222222222222"],
] as const) {
  test(`three volumes copied ${name} by CopySnapshot are replicated there: in full, then what changed and was freed`, async () => {
    await using simulator = await quickSimulator();
    const guest = new AwsGuest(simulator, simulator.instances.linux, seed);
    const [root, data, more] = guest.volumes as [string, string, string];
    await guest.write(root, 0, 1, 2, 9, 2047);
    await guest.write(data, 5, 6);
    await guest.write(more, 100);
    const ends = { from: optionsTo(simulator), to: optionsTo(simulator, place) };
    await using here = await aws.source!(ends.from);
    await using there = await aws.source!(ends.to);
    const copies: CopiedSnapshot[][] = [];
    const source = byCopies(ends, { here, there }, copies);
    await using target = await local.target!({ directory: fresh(), format: "qcow2-chain" });
    const machine = simulator.instances.linux;
    const job: Job = { id: "copies", source, machine, target, store: new MemoryStateStore() };
    const gets = (): number => simulator.faults.counters()["GetSnapshotBlock"] ?? 0;

    const full = await replicate(job);
    expect(full.disks.map(({ mode }) => mode)).toEqual(["full", "full", "full"]);
    expect(gets()).toBe(8);
    await demandEqual(job, guest, full);

    await guest.write(root, 1, 700);
    await guest.trim(root, 2);
    await guest.write(more, 100);
    const second = await replicate(job);
    expect(second.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental", "incremental"]);
    expect(second.fallbacks).toEqual([]);
    // What was freed is told by the listing, and not read.
    expect(gets()).toBe(8 + 3);
    await demandEqual(job, guest, second);

    const [first, later] = copies as [CopiedSnapshot[], CopiedSnapshot[]];
    expect(later.map(({ builtOn }) => builtOn)).toEqual(first.map(({ snapshotId }) => snapshotId));
    for (const each of [...first, ...later])
      expect(each).toMatchObject({ accountId: account, region: ends.to.region! });
  });
}
