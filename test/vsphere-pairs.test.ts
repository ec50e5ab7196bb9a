import { join } from "node:path";
import {
  type Job,
  type JobOptions,
  MemoryStateStore,
  replicate,
  type RunReport,
  type TargetProvider,
} from "@diskferry/core";
import { memoryBackend, serveNbd } from "@diskferry/nbd";
import { provider as aws } from "@diskferry/provider-aws";
import { provider as local } from "@diskferry/provider-local";
import { startAwsSimulator } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { fanOut } from "../packages/provider-local/test/conformance/fan-out.ts";
import { textOf } from "../packages/provider-local/test/shapes.ts";
import { standInKind, standInPeers } from "../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";
import { World } from "../packages/provider-vmware/test/world.ts";
import type { ReaderName } from "@diskferry/provider-vmware";
import { describeWithPeers } from "./peers.ts";
import { randomBytes, seedOf } from "./seed.ts";
import { ReplicatedMachine } from "./vsphere/replicated-machine.ts";
import { Stage } from "./vsphere/stage.ts";

// A vSphere machine of several disks, written to all along, copied to three kinds of target: in full, then three times what
// changed. Every replica has to be its snapshot, byte for byte.

const mebi = 1 << 20;
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const granularity = 65_536;
const leaf = 65_536;
/** Larger than a tracked block: what is read is widened to it, what is written is not. */
const coarseLeaf = 4 * granularity;
const seed = seedOf(4);
const sizes = [6 * mebi + 512, 3 * mebi, mebi];

const stage = new Stage();

interface Pair {
  world: World;
  machine: ReplicatedMachine;
  job: Job;
}

async function start(reader: ReaderName, target: TargetProvider, options: JobOptions = {}): Promise<Pair> {
  const spec = { name: "web", disks: sizes.map((size) => ({ size })), tracking: false };
  const world = stage.keep(await World.start({ machines: [spec], granularity, areaLimit: 8, overReport: 0.02 }));
  for (const [index, size] of sizes.entries()) {
    world.simulator.populate("web", 2000 + index, 0, randomBytes(Math.floor(size / 2 / 512) * 512, seed + index));
    world.simulator.populate("web", 2000 + index, size - 512, randomBytes(512, seed + 9));
  }
  const machine = new ReplicatedMachine(world);
  const source = machine.watched(await world.source(await stage.readBy(world, [reader])));
  const job: Job = {
    id: "pair",
    source,
    machine: "web",
    target,
    store: new MemoryStateStore(),
    options: { leaf, workers: 0, ...options },
  };
  return { world, machine, job };
}

/** The full copy and three incremental ones, under a guest that does not rest. */
async function fourRuns({ machine, job }: Pair): Promise<RunReport[]> {
  const reports: RunReport[] = [];
  machine.work(seed);
  try {
    for (let run = 0; run < 4; run++) {
      const report = await replicate(job);
      reports.push(report);
      expect(report.fallbacks).toEqual([]);
      expect(report.snapshot.consistency).toBe("crash");
      await machine.demandEqual(report, job.target);
      machine.demandClean();
    }
  } finally {
    await machine.rest();
  }
  const modes = reports.map(({ disks }) => disks.map(({ mode }) => mode).join());
  expect(modes).toEqual(["full,full,full", ...Array<string>(3).fill("incremental,incremental,incremental")]);
  return reports;
}

function copies(reader: ReaderName): void {
  test("vSphere → a chain of qcow2: every point in time stays what its snapshot was", async () => {
    if (reader === "vddk") console.info(`vddk: ${standInKind}`);
    const target = await stage.chain();
    const pair = await start(reader, target);
    const reports = await fourRuns(pair);
    // The earlier points are restored too, after everything that came later.
    for (const report of reports) await pair.machine.demandEqual(report, target);
  });

  test("vSphere → NBD", async () => {
    const server = await serveNbd({
      listen: { path: join(stage.folder, "socket") },
      exports: (name) => ({ backend: exportOf(name) }),
      limits: { connections: 100 },
    });
    stage.keep({ [Symbol.asyncDispose]: () => server.close() });
    const disks = new Map<string, Uint8Array>();
    const exportOf = (name: string): ReturnType<typeof memoryBackend> => {
      const size = sizes[Number(decodeURIComponent(name).slice(-1))]!;
      // Somebody else's bytes were there before.
      if (!disks.has(name)) disks.set(name, randomBytes(size, 77));
      return memoryBackend(disks.get(name)!);
    };
    const uri = (key: string): string =>
      `nbd+unix:///${encodeURIComponent(key)}?socket=${join(stage.folder, "socket")}`;
    const target = fanOut(
      (key) => local.target!({ uri: uri(key) }),
      (volume) => textOf(volume, "key"),
    );
    stage.keep(target);
    await fourRuns(await start(reader, target));
  });
}

describe("read by nfc", () => copies("nfc"));
describeWithPeers(standInPeers, "read by vddk", () => copies("vddk"));

test("vSphere → EBS snapshots", async () => {
  const simulator = await startAwsSimulator({ quotaScale: 100, delays: { completeMs: 2, changeMs: 2 } });
  stage.keep({ [Symbol.asyncDispose]: () => simulator.close() });
  const { accessKeyId, secretAccessKey } = simulator.credentials[0]!;
  const target = await aws.target!({
    region: "us-east-1",
    endpoint: simulator.endpoint,
    credentials: { accessKeyId, secretAccessKey },
    timeouts: { pollMs: 5 },
  });
  stage.keep(target);
  await fourRuns(await start("nfc", target, { leaf: 512 * 1024 }));
});

describe("an incremental run reads and writes what changed, rounded to blocks", () => {
  test.for<[string, (world: World) => number[]]>([
    [
      "clustered",
      ({ simulator }) => {
        simulator.write("web", 2000, 3 * mebi + 1000, randomBytes(700_000, 1));
        return blocksOf(3 * mebi + 1000, 700_000);
      },
    ],
    [
      "scattered",
      ({ simulator }) =>
        Array.from({ length: 24 }, (_, index) => {
          const at = index * 4 * granularity + 512 * index;
          simulator.write("web", 2000, at, randomBytes(512, index + 2));
          return blocksOf(at, 512);
        }).flat(),
    ],
  ])("%s changes", async ([shape, change]) => {
    const target = await stage.chain();
    const spec = { name: "web", disks: sizes.map((size) => ({ size })), tracking: true };
    const world = stage.keep(await World.start({ machines: [spec], granularity, areaLimit: 8 }));
    world.simulator.populate("web", 2000, 0, randomBytes(sizes[0]!, seed));
    const machine = new ReplicatedMachine(world);
    const source = machine.watched(await world.source({ readers: ["folder"] }));
    const job: Job = {
      id: "bytes",
      source,
      machine: "web",
      target,
      store: new MemoryStateStore(),
      options: { leaf: coarseLeaf, workers: 0 },
    };
    await replicate(job);
    const blocks = new Set(change(world));
    const report = await replicate(job);
    await machine.demandEqual(report, target);
    const sum = (of: (disk: RunReport["disks"][number]) => number): number =>
      report.disks.reduce((all, disk) => all + of(disk), 0);
    const [written, read, changed] = [
      sum(({ moved, zeroed }) => moved + zeroed),
      sum((disk) => disk.read),
      blocks.size * granularity,
    ];
    const leaves =
      new Set([...blocks].map((block) => Math.floor((block * granularity) / coarseLeaf))).size * coarseLeaf;
    console.info(
      `${shape} changes: ${blocks.size} tracked blocks of ${granularity} bytes: written ${written} ≤ ${changed}, read ${read} ≤ ${leaves}`,
    );
    expect(written).toBeGreaterThan(0);
    expect(written).toBeLessThanOrEqual(changed);
    expect(read).toBeLessThanOrEqual(leaves);
    expect(report.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental", "incremental"]);
  });
});

/** The tracker's blocks that a write touches. */
function blocksOf(offset: number, length: number): number[] {
  const first = Math.floor(offset / granularity);
  const last = Math.floor((offset + length - 1) / granularity);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
