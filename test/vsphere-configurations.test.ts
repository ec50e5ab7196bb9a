import { isProviderError, type Job, MemoryStateStore, replicate, type SourceConnector } from "@diskferry/core";
import type { ReaderName, VsphereOptions } from "@diskferry/provider-vmware";
import type { DiskSpec, MachineSpec, VcenterSimulatorOptions } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { standInKind, standInPeers } from "../packages/provider-vmware/test/stand-in/vddk-stand-in.ts";
import { World } from "../packages/provider-vmware/test/world.ts";
import { describeWithPeers } from "./peers.ts";
import { randomBytes, seedOf } from "./seed.ts";
import { ReplicatedMachine } from "./vsphere/replicated-machine.ts";
import { Stage } from "./vsphere/stage.ts";
import { striking } from "./vsphere/striking.ts";

// Machines of every kind that people have, each copied in full and once more after its guest has written: both replicas are
// their snapshots, byte for byte, and nothing is left at the source.

vi.setConfig({ testTimeout: 300_000, hookTimeout: 60_000 });
const mebi = 1 << 20;
const granularity = 65_536;
const seed = seedOf(190);
const size = 2 * mebi;

const stage = new Stage();

/** A machine, where it is, and what is right there. */
interface Configuration {
  what: string;
  machine?: Partial<MachineSpec>;
  simulated?: VcenterSimulatorOptions;
  options?: Partial<VsphereOptions>;
  /** What each reader does: it copies, or the run is refused with these words. */
  readers: Partial<Record<ReaderName, "copies" | RegExp>>;
  before?(world: World): void;
  /** What the inventory tells of it. */
  told?: { firmware?: string; secureBoot?: boolean; tpm?: boolean; controllers?: string[]; power?: string };
  /** Why the second run compares whole disks; absent: it is incremental. */
  compared?: RegExp;
  /** Disks that are left out, with the reason. */
  leftOut?: Record<string, RegExp>;
}

const everywhere = { nfc: "copies", folder: "copies", vddk: "copies" } as const;
const isDelta = /is a delta in this snapshot/;
const noFlatFile = /is no flat file on a datastore/;

const controllers = (names: NonNullable<DiskSpec["controller"]>[]): Partial<MachineSpec> => ({
  disks: names.map((controller, index) => ({ size: size + index * 512, controller })),
});

const configurations: readonly Configuration[] = [
  {
    what: "thick disks zeroed lazily, LSI Logic, BIOS",
    machine: { disks: [{ size, thin: false, controller: "lsilogic" }], firmware: "bios" },
    readers: everywhere,
    told: { firmware: "bios", controllers: ["scsi"] },
  },
  {
    what: "thick disks zeroed eagerly, LSI Logic SAS",
    machine: { disks: [{ size, thin: false, eager: true, controller: "lsilogic-sas" }] },
    readers: { nfc: "copies", folder: "copies" },
    told: { controllers: ["scsi"] },
  },
  {
    what: "thin disks, PVSCSI, EFI",
    machine: { ...controllers(["pvscsi", "pvscsi"]), firmware: "efi" },
    readers: { nfc: "copies", folder: "copies" },
    told: { firmware: "uefi", secureBoot: false, controllers: ["scsi", "scsi"] },
  },
  {
    what: "NVMe, EFI with secure boot, a TPM",
    machine: { ...controllers(["nvme", "nvme"]), firmware: "efi", secureBoot: true, tpm: true },
    readers: everywhere,
    told: { firmware: "uefi", secureBoot: true, tpm: true, controllers: ["nvme", "nvme"] },
  },
  {
    what: "SATA",
    machine: controllers(["sata", "sata"]),
    readers: { nfc: "copies", folder: "copies" },
    told: { controllers: ["sata", "sata"] },
  },
  {
    what: "IDE, on both channels",
    machine: controllers(["ide", "ide", "ide"]),
    readers: { nfc: "copies", folder: "copies" },
    told: { controllers: ["ide", "ide", "ide"] },
  },
  {
    what: "BusLogic on virtual hardware 7, the oldest that tracks",
    machine: { ...controllers(["buslogic"]), hardware: 7 },
    readers: { nfc: "copies" },
    told: { controllers: ["scsi"] },
  },
  {
    what: "five disks of equal size on five controllers of four kinds",
    machine: {
      disks: [
        { size, controller: "pvscsi", bus: 0 },
        { size, controller: "lsilogic", bus: 1 },
        { size, controller: "sata" },
        { size, controller: "nvme" },
        { size, controller: "ide" },
      ],
    },
    readers: everywhere,
    told: { controllers: ["scsi", "scsi", "ide", "sata", "nvme"] },
  },
  {
    what: "seventeen disks on two controllers",
    machine: { disks: Array.from({ length: 17 }, (_, index) => ({ size: granularity + index * 512 })) },
    readers: { nfc: "copies" },
  },
  {
    what: "disks of a sector, of a block less a sector, and of no whole MiB",
    machine: { disks: [{ size: 512 }, { size: granularity - 512 }, { size: 3 * mebi - 1536 }] },
    readers: everywhere,
  },
  {
    what: "a raw device in virtual mode beside a file",
    machine: { disks: [{ size }, { size, backing: "rdm-virtual" }] },
    readers: { nfc: "copies", vddk: "copies", folder: noFlatFile },
  },
  {
    what: "disks that no snapshot holds beside one that it does",
    machine: {
      disks: [{ size }, { size, mode: "independent_persistent" }, { size, backing: "rdm-physical" }],
    },
    readers: { nfc: "copies" },
    leftOut: { "2001": /independent/, "2002": /physical mode/ },
  },
  {
    what: "an encrypted disk",
    machine: { disks: [{ size, encrypted: true }] },
    readers: { vddk: "copies", nfc: /only vddk decrypts|only the vddk reader/, folder: /only the vddk reader/ },
  },
  { what: "powered off", machine: { power: "poweredOff" }, readers: everywhere, told: { power: "off" } },
  {
    what: "suspended",
    machine: { power: "suspended" },
    readers: { nfc: "copies", vddk: "copies" },
    told: { power: "suspended" },
  },
  {
    what: "without VMware Tools, in a folder, with a name that is no path",
    machine: { name: "wéb/1 & <2>", folder: "Köln/prod", tools: "not-installed" },
    readers: everywhere,
  },
  {
    what: "a snapshot that is there already, tracked from below it",
    machine: { tracking: true },
    before: (world) => void world.simulator.takeSnapshot(nameOf(world), "before the upgrade"),
    readers: { nfc: "copies", vddk: "copies", folder: isDelta },
  },
  {
    what: "a snapshot that is there already, and no tracking",
    before: (world) => void world.simulator.takeSnapshot(nameOf(world), "before the upgrade"),
    readers: { nfc: "copies", folder: isDelta },
    compared: /change tracking is off|no checkpoint|not tracked|has no change id/,
  },
  {
    what: "tracking off for single disks, each on a controller of its own kind",
    machine: {
      tracking: true,
      disks: [
        { size },
        { size, controller: "nvme", tracked: false },
        { size, controller: "sata", tracked: false },
        { size, controller: "ide", tracked: false },
      ],
    },
    readers: { nfc: "copies" },
  },
  {
    what: "virtual hardware 4, which does not track",
    machine: { ...controllers(["lsilogic"]), hardware: 4 },
    readers: { nfc: "copies", folder: "copies" },
    compared: /hardware|no checkpoint|not tracked|has no change id/,
  },
  {
    what: "a host by itself (ESXi 7.0)",
    simulated: { kind: "esxi", version: "7.0" },
    readers: everywhere,
  },
  {
    what: "disks on three datastores of three kinds",
    machine: {
      disks: [{ size }, { size, datastore: "nas" }, { size, datastore: "vsanDatastore" }],
    },
    simulated: {
      moreDatastores: [
        { name: "nas", type: "NFS" },
        { name: "vsanDatastore", type: "vsan" },
      ],
    },
    readers: { nfc: "copies", vddk: "copies", folder: /can be read by none of the readers, so nothing was changed/ },
  },
  ...(["6.5", "6.7", "7.0", "8.0", "8.0.1", "8.0.2", "8.0.3", "9.0"] as const).map((version): Configuration => ({
    what: `vCenter ${version}`,
    simulated: { version },
    readers: { nfc: "copies" },
  })),
];

interface Site {
  world: World;
  machine: ReplicatedMachine;
  source: SourceConnector;
  job: Job;
}

function nameOf({ simulator }: World): string {
  return [...simulator.machines.values()][0]!.id;
}

async function start(configuration: Omit<Configuration, "what" | "readers">, readers: ReaderName[]): Promise<Site> {
  const spec: MachineSpec = { name: "web", disks: [{ size }, { size: size / 2 }], ...configuration.machine };
  const simulated = { machines: [spec], granularity, areaLimit: 4, ...configuration.simulated };
  const world = stage.keep(await World.start(simulated));
  const { simulator } = world;
  const id = nameOf(world);
  for (const [key, { capacity }] of simulator.machine(id).disks) {
    const half = Math.max(512, Math.floor(capacity / 1024) * 512);
    simulator.populate(id, key, 0, randomBytes(half, seed + key));
    simulator.populate(id, key, capacity - 512, randomBytes(512, seed - key));
  }
  configuration.before?.(world);
  const machine = new ReplicatedMachine(world, id);
  const read = await stage.readBy(world, readers);
  const source = machine.watched(await world.source({ ...read, ...configuration.options }));
  const target = await stage.chain();
  const notice = (message: string): void => void world.notices.push(message);
  const options: Job["options"] = { leaf: granularity, workers: 0, notice };
  return {
    world,
    machine,
    source,
    job: { id: "kinds", source, machine: id, target, store: new MemoryStateStore(), options },
  };
}

/** The guest writes on every disk, in two places and at the end; a machine that is not on is started for it. */
function work(world: World): void {
  const { simulator } = world;
  const id = nameOf(world);
  const machine = simulator.machine(id);
  const { power } = machine;
  if (power !== "poweredOn") machine.powerOn();
  for (const [key, { capacity }] of machine.disks) {
    for (const at of [0, Math.floor(capacity / 1024) * 512 - 512, capacity - 512]) {
      if (at >= 0) simulator.write(id, key, at, randomBytes(512, seed + key + at));
    }
  }
  if (power === "poweredOff") machine.shutDown();
  if (power === "suspended") machine.suspend();
}

async function copiesTwice(configuration: Configuration, reader: ReaderName): Promise<void> {
  const { world, machine, source, job } = await start(configuration, [reader]);
  const { told = {}, leftOut = {}, compared } = configuration;
  const listed = await source.machine(job.machine);
  const { firmware, secureBoot, tpm } = listed.spec ?? {};
  const kinds = listed.disks.map(({ controller }) => controller);
  expect({ firmware, secureBoot, tpm, controllers: kinds, power: listed.power }).toMatchObject(told);
  const reasons = listed.disks.filter(({ ineligible }) => ineligible !== undefined);
  expect(reasons.map(({ key }) => key)).toEqual(Object.keys(leftOut));
  for (const { key, ineligible } of reasons) {
    expect(ineligible).toMatch(leftOut[key]!);
    const named = replicate({ ...job, id: `only ${key}`, disks: [key] });
    await expect(named, `disk ${key} asked for by name`).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: expect.stringMatching(leftOut[key]!) as string,
    });
  }
  const eligible = listed.disks.length - reasons.length;
  const full = await replicate(job);
  await machine.demandEqual(full, job.target);
  machine.demandClean();
  expect(full.disks.map(({ mode }) => mode)).toEqual(Array<string>(eligible).fill("full"));
  work(world);
  const next = await replicate(job);
  await machine.demandEqual(next, job.target);
  machine.demandClean();
  const told2 = next.fallbacks.map(({ reason }) => reason).concat(world.notices);
  const modes = next.disks.map(({ mode }) => mode);
  if (compared === undefined) {
    expect([modes, next.fallbacks]).toEqual([Array<string>(eligible).fill("incremental"), []]);
  } else {
    expect(modes.every((mode) => mode !== "incremental")).toBe(true);
    expect(told2.join("\n")).toMatch(compared);
  }
  const ways = world.notices.filter((line) => line.includes(" is read by "));
  expect(ways.length).toBeGreaterThanOrEqual(2 * eligible);
  expect(ways.every((line) => line.includes(` is read by ${reader} `))).toBe(true);
}

async function isRefused(configuration: Configuration, reader: ReaderName, words: RegExp): Promise<void> {
  const { machine, job } = await start(configuration, [reader]);
  const error: unknown = await replicate(job).catch((thrown: unknown) => thrown);
  expect(isProviderError(error) && error.code).toBe("UNSUPPORTED");
  expect((error as Error).message).toMatch(words);
  // The run waits for somebody to name another reader; what it froze is its own, and goes when the job is done by that.
  const other = machine.watched(await machine.world.source({ readers: ["nfc"] }));
  if (configuration.machine?.disks?.some(({ encrypted }) => encrypted) === true) return;
  await machine.demandEqual(await replicate({ ...job, source: other }), job.target);
  machine.demandClean();
}

function each(reader: ReaderName): void {
  const here = configurations.filter(({ readers }) => readers[reader] !== undefined);
  test.for(here.map((configuration): [string, Configuration] => [configuration.what, configuration]))(
    "%s",
    async ([, configuration]) => {
      const wanted = configuration.readers[reader]!;
      if (wanted === "copies") await copiesTwice(configuration, reader);
      else await isRefused(configuration, reader, wanted);
    },
  );
}

test("more than ten configurations are copied, and each by one reader at least", () => {
  const copied = configurations.filter(({ readers }) => Object.values(readers).includes("copies"));
  console.info(`${copied.length} configurations of machines are copied`);
  expect(copied.length).toBe(configurations.length);
  expect(copied.length).toBeGreaterThan(20);
});

describe("read by nfc", () => each("nfc"));
describe("read by folder", () => each("folder"));
describeWithPeers(standInPeers, `read by vddk: ${standInKind}`, () => each("vddk"));

describe("on shared storage of several hosts", () => {
  const stored = (datastoreType: "VMFS" | "NFS" | "vsan"): VcenterSimulatorOptions => ({
    datastoreType,
    hosts: 3,
    // Whoever asks `*` where it is no list of what is allocated is told so.
    wildcardElsewhere: "fault",
    bytesPerSecond: 20 * mebi,
  });

  test.for(["VMFS", "NFS", "vsan"] as const)("%s: a machine that migrates in the middle of its copy", async (type) => {
    const allocated = { tracking: { allocated: true } };
    const { world, machine, job } = await start(
      { machine: { tracking: true }, simulated: stored(type), options: allocated },
      ["nfc"],
    );
    const strike = striking(() => world.simulator.migrate("web", 2));
    const moving = { ...job, options: { ...job.options, memory: mebi, layers: [strike.layer] } };
    await machine.demandEqual(await replicate(moving), job.target);
    expect([strike.before, strike.after > 1]).toEqual([1, true]);
    expect((await job.source.machine("web")).data?.["host"]).toBe("host-14");
    work(world);
    const next = await replicate(job);
    await machine.demandEqual(next, job.target);
    expect(next.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental"]);
    machine.demandClean();
    expect(world.notices.filter((line) => /TRACKING_LOST|rescan/.test(line))).toEqual([]);
  });

  test("vsan: where files are preferred, the export is read instead, and a notice says why", async () => {
    const { world, machine, job } = await start({ simulated: stored("vsan") }, ["folder", "nfc"]);
    await machine.demandEqual(await replicate(job), job.target);
    const ways = world.notices.filter((line) => line.includes(" is read by "));
    expect(ways).toHaveLength(2);
    for (const line of ways) expect(line).toMatch(/ is read by nfc .*, after folder: .*lies on vSAN/);
    machine.demandClean();
  });
});
