import { mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { LaunchDisk, ProviderError, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { CloudstackClient, type CloudstackOptions, machineOf, optionsSchema, provider } from "../../src/index.ts";
import { type ImportCloud, startImportCloud } from "./import-cloud.ts";

// Machines that have much else to do take their time.
vi.setConfig({ testTimeout: 300_000 });

const size = 3 * 2 ** 20 + 512;
const length = 65_536;
let cloud: ImportCloud;
let notices: string[];
beforeEach(async () => {
  cloud = await startImportCloud({ settings: { allowUserExpunge: true } });
  notices = [];
});
afterEach(() => cloud[Symbol.asyncDispose]());

function openTarget(
  more: Partial<CloudstackOptions> = {},
  launch: CloudstackOptions["launch"] = {},
): Promise<TargetProvider> {
  const options = { ...cloud.options, ...more, launch: { ...cloud.options.launch, ...launch } };
  return Promise.resolve(provider.target!(options, { notice: (text) => notices.push(text) }));
}

async function write(target: TargetProvider, key: string, seed: number, epoch = 1): Promise<Volume> {
  const volume = await target.create({ key, size, name: `web ${key}`, job: "move" });
  await using writer = await target.open(volume, { run: `run ${epoch}`, epoch });
  await writer.write(length, randomBytes(length, seed));
  await writer.write(size - 512, randomBytes(512, seed));
  await writer.flush();
  return await writer.commit({ written: (async function* () {})() });
}

/** The volume that CloudStack has of a file. */
const adopted = (file: string): ReturnType<typeof cloud.simulator.volumes>[number] | undefined =>
  cloud.simulator.volumes().find(({ path }) => path === file);

async function demandBytes(id: string | undefined, seed: number): Promise<void> {
  const { simulator } = cloud;
  expect(Buffer.compare(await simulator.volumeBytes(id!, length, length), randomBytes(length, seed))).toBe(0);
  expect(Buffer.compare(await simulator.volumeBytes(id!, size - 512, 512), randomBytes(512, seed))).toBe(0);
  expect((await simulator.volumeBytes(id!, 0, length)).equals(Buffer.alloc(length))).toBe(true);
}

async function demandReplicasAlone(disks: readonly LaunchDisk[]): Promise<void> {
  const { simulator, folder } = cloud;
  const left = simulator.volumes().filter(({ machineId }) => machineId !== simulator.appliance.id);
  const files = disks.map(({ volume }) => volume.id).sort();
  expect(left.map(({ path = "" }) => path).sort()).toEqual(files);
  expect(left.filter(({ machineId }) => machineId !== undefined)).toEqual([]);
  expect((await readdir(folder)).sort()).toEqual(files);
  for (const [index, { volume }] of disks.entries()) await demandBytes(adopted(volume.id)?.id, 40 + index);
  expect(simulator.machineIds()).toEqual([simulator.appliance.id]);
  expect(simulator.snapshotIds()).toEqual([]);
  expect(simulator.templateNames()).toEqual([]);
}

async function replicas(target: TargetProvider): Promise<LaunchDisk[]> {
  const disks: LaunchDisk[] = [];
  for (const [index, disk] of ["boot", "data"].entries())
    disks.push({ disk, boot: index === 0, volume: await write(target, disk, 40 + index) });
  return disks;
}

const failed = (work: Promise<unknown>): Promise<ProviderError> =>
  work.then(
    () => expect.fail("it resolved"),
    (error: unknown) => error as ProviderError,
  );
const spec = { name: "web", guestFamily: "linux" } as const;

it("writes a disk to the pool at its commit and has it adopted, once", async () => {
  await using target = await openTarget();
  const volume = await write(target, "disk", 1);
  expect(volume.id).toMatch(/^df-[0-9a-f]{12}-[0-9a-f]{24}-[0-9a-f]{20}\.qcow2$/);
  expect(await readdir(cloud.folder)).toEqual([volume.id]);
  expect(adopted(volume.id)).toMatchObject({ state: "Ready", size, type: "DATADISK", machineId: undefined });
  expect(adopted(volume.id)!.name).toMatch(/^web disk df-/);
  await demandBytes(adopted(volume.id)!.id, 1);
  await using again = await openTarget();
  await using writer = await again.open(volume, { run: "run 1", epoch: 2 });
  expect(await writer.commit({ written: (async function* () {})() })).toEqual(volume);
  expect(cloud.simulator.calls.get("importVolume")).toBe(1);
  const owned: string[] = [];
  for await (const { kind, volume: each } of again.owned("move")) {
    owned.push(kind);
    await again.remove(each!);
  }
  expect(owned).toEqual(["spool", "volume"]);
  expect(adopted(volume.id)).toBeUndefined();
  expect(await readdir(cloud.folder)).toEqual([]);
  expect(await readdir(cloud.spool)).toEqual([]);
});

it("leaves a file alone whose volume was given to another account or project, and does not call it left over", async () => {
  cloud.simulator.addProject("production");
  await using inside = await openTarget({ project: "production" });
  const volume = await write(inside, "disk", 1);
  await using outside = await openTarget();
  const kinds: string[] = [];
  for await (const { kind } of outside.owned("move")) kinds.push(kind);
  expect(kinds).toEqual(["spool"]);
  const refusal = await failed(outside.remove(volume));
  expect([refusal.code, refusal.message]).toEqual(["IN_USE", expect.stringContaining("another account or project")]);
  expect(await readdir(cloud.folder)).toEqual([volume.id]);
  expect((await readdir(cloud.spool)).length).toBeGreaterThan(0);
  await demandBytes(adopted(volume.id)!.id, 1);
  await inside.remove(volume);
  expect(await readdir(cloud.folder)).toEqual([]);
});

it("never writes an image again that a volume has, not even where nobody remembers it", async () => {
  await using target = await openTarget();
  const volume = await write(target, "disk", 1);
  const before = await stat(join(cloud.folder, volume.id));
  const [name = ""] = (await readdir(cloud.spool)).filter((each) => each.endsWith(".json"));
  const state = JSON.parse(await readFile(join(cloud.spool, name), "utf8")) as { uploaded?: unknown };
  delete state.uploaded;
  await writeFile(join(cloud.spool, name), JSON.stringify(state));
  await using writer = await target.open(volume, { run: "run 1", epoch: 2 });
  expect(await writer.commit({ written: (async function* () {})() })).toEqual(volume);
  const after = await stat(join(cloud.folder, volume.id));
  expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
  expect(cloud.simulator.calls.get("importVolume")).toBe(1);
});

it("makes a volume of its own of every run, and keeps the last one's bytes for the next", async () => {
  await using target = await openTarget();
  const base = await write(target, "disk", 1);
  await using writer = await target.open(base, { run: "run 2", epoch: 2, base });
  expect(writer.blank).toBeUndefined();
  await writer.write(size - 512, randomBytes(512, 9));
  const next = await writer.commit({ written: (async function* () {})() });
  expect(next.id).not.toBe(base.id);
  await demandBytes(adopted(base.id)!.id, 1);
  const bytes = await cloud.simulator.volumeBytes(adopted(next.id)!.id, length, length);
  expect(Buffer.compare(bytes, randomBytes(length, 1))).toBe(0);
  await target.remove(base);
  expect(await readdir(cloud.folder)).toEqual([next.id]);
});

describe.each(["import", "swap", "template"] as const)("a launch by %s", (method) => {
  it("boots a test of copies, and the replicas stay", async () => {
    await using target = await openTarget({}, { method });
    const disks = await replicas(target);
    const machine = await target.launch!(spec, disks, { key: "t", purpose: "test", job: "move" });
    expect(machine.consumed).toBe(false);
    expect(cloud.simulator.machineState(machine.id)).toBe("Running");
    for (const [index, id] of cloud.simulator.volumesOf(machine.id).entries()) {
      await demandBytes(id, 40 + index);
      await cloud.simulator.writeVolume(id, 0, randomBytes(length, 99));
    }
    expect((await target.launch!(spec, disks, { key: "t", purpose: "test", job: "move" })).id).toBe(machine.id);
    const kinds: string[] = [];
    for await (const { kind } of target.owned("move")) kinds.push(kind);
    expect(kinds).toContain("machine");
    await target.terminate!(machine);
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("boots a cutover of the replicas themselves, and gives them back", async () => {
    await using target = await openTarget({}, { method });
    const disks = await replicas(target);
    const machine = await target.launch!(spec, disks, { key: "c", purpose: "cutover" });
    expect(machine.consumed).toBe(true);
    const found = cloud.simulator.volumesOf(machine.id);
    for (const [index, id] of found.entries()) await demandBytes(id, 40 + index);
    expect(found[1]).toBe(adopted(disks[1]!.volume.id)!.id);
    if (method !== "template") expect(found[0]).toBe(adopted(disks[0]!.volume.id)!.id);
    const error = await failed(target.remove(disks[1]!.volume));
    expect(error.code).toBe("IN_USE");
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });
});

describe("importVm", () => {
  it("gets the source's firmware, size and controllers, and adds the cards it takes none of", async () => {
    const networks = [
      { from: "lan", network: "shared", keepMac: true },
      { from: "dmz", network: "production" },
    ];
    const { accountId, account } = cloud.simulator.tenant;
    await using tenant = new CloudstackClient({ ...cloud.options, ...keysOf("tenant"), tls: undefined });
    let domainId = "";
    for await (const item of tenant.list("listAccounts", { id: accountId })) domainId = String(item["domainid"]);
    // For a tenant, in whose networks alone the second card can be.
    await using target = await openTarget({ owner: { account, domainId } }, { method: "import", networks });
    const disks = await replicas(target);
    const networkCards = [{ network: "lan", mac: "00:50:56:aa:bb:cc" }, { network: "dmz" }];
    const machine = await target.launch!(
      { ...spec, firmware: "uefi", secureBoot: true, cpus: 3, memoryBytes: 3 * 2 ** 30, networkCards },
      disks,
      { key: "c", purpose: "cutover" },
    );
    expect(machine.notes!.join()).toMatch(/other addresses than were asked for: importVm takes none before 4.22.1/);
    let seen = 0;
    for await (const item of tenant.list("listVirtualMachines", { id: machine.id })) {
      seen++;
      const found = machineOf(item);
      expect(found).toMatchObject({ bootType: "Uefi", bootMode: "secure", cpus: 8 });
      expect(found.details).toMatchObject({ rootDiskController: "virtio", UEFI: "SECURE" });
      expect(found.cards.map(({ network }) => network)).toEqual(["shared", "production"]);
    }
    expect(seen).toBe(1);
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("takes addresses from 4.22.1 on", async () => {
    await using newer = await startImportCloud({ version: "4.22.1.0" });
    const options = {
      ...newer.options,
      launch: { networks: [{ network: "shared", keepMac: true }], method: "import" as const },
    };
    await using target = await provider.target!(options);
    const disks = await replicas(target);
    const card = { network: "lan", mac: "00:50:56:aa:bb:cc" };
    const machine = await target.launch!({ ...spec, networkCards: [card] }, disks, { key: "c", purpose: "cutover" });
    expect(machine.notes!.join()).not.toMatch(/importVm takes none/);
    await using client = new CloudstackClient({ ...newer.options, tls: undefined });
    for await (const item of client.list("listVirtualMachines", { id: machine.id }))
      expect(machineOf(item).cards.map(({ mac }) => mac)).toEqual(["00:50:56:aa:bb:cc"]);
  });

  it("imports from a host's own storage where the host is named", async () => {
    await using local = await startImportCloud({}, "local-kvm1");
    const options = { ...local.options, launch: { ...local.options.launch, method: "import" as const } };
    await using target = await provider.target!(options);
    const disks = await replicas(target);
    const error = await failed(target.launch!(spec, disks, { key: "c", purpose: "cutover" }));
    expect(error).toMatchObject({ code: "CONFIG_INVALID" });
    expect(error.message).toMatch(/name that host in import.host/);
    // What was forgotten for it is a volume again.
    expect(local.simulator.volumes().filter(({ path }) => path === disks[0]!.volume.id)).toHaveLength(1);
    await using named = await provider.target!({ ...options, import: { ...local.options.import!, host: "kvm1" } });
    const machine = await named.launch!(spec, disks, { key: "c", purpose: "cutover" });
    expect(local.simulator.machineState(machine.id)).toBe("Running");
  });

  it("that is refused for good leaves the replicas as volumes, and no machine", async () => {
    await using target = await openTarget({}, { method: "import" });
    const disks = await replicas(target);
    cloud.simulator.faults.add({
      command: "importVm",
      action: { kind: "error", code: 431, text: "Please specify a valid zone." },
    });
    for (const purpose of ["test", "cutover"] as const) {
      expect((await failed(target.launch!(spec, disks, { key: purpose, purpose }))).code).toBe("CONFIG_INVALID");
      await demandReplicasAlone(disks);
    }
  });
});

describe("what is refused, with the remedy, and leaves nothing behind", () => {
  async function refusal(more: Partial<CloudstackOptions>): Promise<ProviderError> {
    await using target = await openTarget(more);
    const error = await failed(write(target, "disk", 1));
    expect(error.retryable).toBe(false);
    expect(await readdir(cloud.folder)).toEqual([]);
    expect(cloud.simulator.volumes().filter(({ path }) => path?.startsWith("df-"))).toEqual([]);
    return error;
  }

  it("a tenant", async () => {
    const error = await refusal(keysOf("tenant"));
    expect(error.code).toBe("DENIED");
    expect(error.message).toMatch(/listStoragePools.*use an account whose role has it/);
  });

  it("a role without importVolume", async () => {
    cloud.simulator.deny(cloud.simulator.admin.accountId, "importVolume");
    expect((await refusal({})).message).toMatch(/Allow importVolume/);
  });

  it("a release before 4.19.1", async () => {
    await using old = await startImportCloud({ version: "4.19.0.0" });
    await using target = await provider.target!(old.options);
    const error = await failed(write(target, "disk", 1));
    expect(error.code).toBe("UNSUPPORTED");
    expect(error.message).toMatch(/importVolume came with 4.19.1/);
    expect(await readdir(old.folder)).toEqual([]);
  });

  it.each(["powerflex", "primary-ceph", "iscsi"])("a pool that holds no files: %s", async (pool) => {
    const error = await refusal({ import: { pool, folder: cloud.folder } });
    expect(error.code).toBe("UNSUPPORTED");
    expect(error.message).toMatch(/files are adopted on NFS.*import.pool/);
  });

  it("a pool that is not there, or in maintenance", async () => {
    expect((await refusal({ import: { pool: "nowhere", folder: cloud.folder } })).message).toMatch(/primary-zone/);
    cloud.simulator.poolMaintenance("primary-zone", true);
    const error = await refusal({});
    expect(error.code).toBe("UNAVAILABLE");
    expect(error.message).toMatch(/Maintenance/);
  });

  it("a folder that is not the pool's", async () => {
    const folder = await mkdtemp(join(tmpdir(), "diskferry-elsewhere-"));
    const error = await refusal({ import: { pool: "primary-zone", folder } });
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toMatch(/import.folder has to be the mount of the very folder/);
    expect(await readdir(folder)).toEqual([]);
    await rm(folder, { recursive: true });
    const missing = await refusal({ import: { pool: "primary-zone", folder } });
    expect(missing.message).toMatch(/Is the pool mounted there/);
  });

  it("a file that somebody has open", async () => {
    cloud.simulator.faults.add({
      command: "importVolume",
      times: 1,
      action: {
        kind: "run",
        run: async () => {
          for (const name of await readdir(cloud.folder)) cloud.simulator.lockFile("primary-zone", name, true);
        },
      },
    });
    const error = await refusal({});
    expect(error.code).toBe("IN_USE");
    expect(error.message).toMatch(/Somebody has the file open/);
  });

  it("an offering of another pool, and a quota", async () => {
    const error = await refusal({ diskOffering: "Custom Ceph" });
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toMatch(/offering that belongs to this pool/);
    cloud.simulator.limit("volume", 0, cloud.simulator.admin.accountId);
    expect((await refusal({})).code).toBe("UNAVAILABLE");
  });

  it("options that do not fit together", () => {
    const { import: place, ...rest } = cloud.options;
    expect(optionsSchema.safeParse(cloud.options).success).toBe(true);
    expect(optionsSchema.safeParse(rest).success).toBe(false);
    expect(optionsSchema.safeParse({ ...rest, mode: "upload", import: place }).success).toBe(false);
    expect(optionsSchema.safeParse({ ...cloud.options, spool: undefined }).success).toBe(false);
    const launch = { method: "import" };
    expect(optionsSchema.safeParse({ ...cloud.options, launch }).success).toBe(true);
    expect(optionsSchema.safeParse({ endpoint: rest.endpoint, launch }).success).toBe(false);
  });
});

function keysOf(who: "tenant" | "admin"): { apiKey: string; secretKey: string } {
  const { apiKey, secretKey } = cloud.simulator[who];
  return { apiKey, secretKey };
}

it("never removes a file or volume of another job, nor one that is none of ours", async () => {
  await cloud.simulator.addStray("primary-zone", "somebody.qcow2", Buffer.from("theirs"), 2 ** 20);
  await using target = await openTarget();
  const mine = await write(target, "mine", 1);
  const theirs = await write(target, "theirs", 2);
  await target.remove(mine);
  expect((await readdir(cloud.folder)).sort()).toEqual([theirs.id, "somebody.qcow2"].sort());
  await expect(target.remove({ id: "somebody.qcow2", size, data: { key: "k" } })).resolves.toBeUndefined();
  expect(await readdir(cloud.folder)).toContain("somebody.qcow2");
});

it("says beforehand who may, which pool it is and whether its folder is there", async () => {
  const figure = { value: size, kind: "exact" } as const;
  const disks = [{ disk: "boot", size, mode: "full", read: figure, write: figure }] as const;
  const blockers = async (more: Partial<CloudstackOptions>, method?: "import"): Promise<string[]> => {
    await using target = await openTarget(more, { method });
    const { findings } = await target.preflight!({ disks, machine: spec });
    expect(findings.map(({ message }) => message).join()).toMatch(/a root administrator alone may/);
    return findings.filter(({ severity }) => severity === "blocker").map(({ subject }) => subject);
  };
  expect(await blockers({})).toEqual([]);
  expect(await blockers({}, "import")).toEqual([]);
  expect(await blockers(keysOf("tenant"))).toEqual(expect.arrayContaining(["importVolume", "import.pool"]));
  expect(await blockers({ import: { pool: "primary-ceph", folder: cloud.folder } })).toEqual(["import.pool"]);
  expect(await blockers({ import: { pool: "primary-zone", folder: "/nowhere" } })).toEqual(["import.folder"]);
  const local = { pool: "local-kvm1", folder: cloud.folder };
  expect(await blockers({ import: local }, "import")).toEqual(["import.host"]);
  expect(cloud.simulator.calls.get("importVolume")).toBeUndefined();
});
