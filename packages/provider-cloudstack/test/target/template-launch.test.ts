import { afterEach, describe, expect, it, vi } from "vitest";
import type { LaunchDisk, ProviderError, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { CloudstackClient, type CloudstackOptions, provider } from "../../src/index.ts";
import { type SimulatorOptions, type TestCloud, startCloud } from "../cloud.ts";

// Machines that have much else to do take their time.
vi.setConfig({ testTimeout: 300_000 });

// Where the platform makes no root volume of a replica, the machine comes from a template that is made of it.

const size = 2 ** 20;
const names = ["boot", "data"];
let cloud: TestCloud;
let notices: string[];
afterEach(() => cloud[Symbol.asyncDispose]());

async function begin(given: SimulatorOptions = {}): Promise<void> {
  cloud = await startCloud({ settings: { allowUserExpunge: true }, ...given });
  notices = [];
}

function openTarget(
  more: Partial<CloudstackOptions>,
  launch: CloudstackOptions["launch"] = {},
): Promise<TargetProvider> {
  const options = { ...cloud.options, ...more, launch: { ...cloud.options.launch, ...launch } };
  return Promise.resolve(provider.target!(options, { notice: (text) => notices.push(text) }));
}

async function write(target: TargetProvider, volume: Volume, epoch: number, seed: number): Promise<void> {
  await using writer = await target.open(volume, { run: `run ${epoch}`, epoch });
  await writer.write(0, randomBytes(65_536, seed));
  await writer.commit({ written: (async function* () {})() });
}

async function replicas(target: TargetProvider, count = 2): Promise<LaunchDisk[]> {
  const disks: LaunchDisk[] = [];
  for (const [index, disk] of names.slice(0, count).entries()) {
    const volume = await target.create({ key: disk, size, job: "move" });
    await write(target, volume, 1, 40 + index);
    disks.push({ disk, boot: index === 0, volume });
  }
  return disks;
}

async function demandBytes(id: string | undefined, seed: number): Promise<void> {
  expect(Buffer.compare(await cloud.simulator.volumeBytes(id!, 0, 65_536), randomBytes(65_536, seed))).toBe(0);
}

/** Nothing but the appliance's volume and the replicas is left, attached to nothing. */
async function demandReplicasAlone(disks: readonly LaunchDisk[]): Promise<void> {
  const { simulator } = cloud;
  const left = simulator.volumes().filter(({ machineId }) => machineId !== simulator.appliance.id);
  expect(left.map(({ id }) => id).sort()).toEqual(disks.map(({ volume }) => volume.id).sort());
  expect(left.filter(({ machineId }) => machineId !== undefined)).toEqual([]);
  for (const [index, { volume }] of disks.entries()) await demandBytes(volume.id, 40 + index);
  expect(simulator.machineIds()).toEqual([simulator.appliance.id]);
  expect(simulator.snapshotIds()).toEqual([]);
  expect(simulator.templateNames()).toEqual([]);
}

const failed = (work: Promise<unknown>): Promise<ProviderError> =>
  work.then(
    () => expect.fail("it resolved"),
    (error: unknown) => error as ProviderError,
  );
const spec = { name: "web", guestFamily: "linux" } as const;
const iscsi = { diskOffering: "Custom iSCSI" };
const powerflex = { diskOffering: "Custom Managed" };

describe("a managed pool, where no root volume is swapped", () => {
  it("a cutover boots a copy of the boot disk with the other replicas, and says so", async () => {
    await begin();
    await using target = await openTarget(iscsi);
    const disks = await replicas(target);
    const machine = await target.launch!(spec, disks, { key: "k", purpose: "cutover", job: "move" });
    expect(notices.join()).toMatch(/does not launch by swap; it is done by template/);
    expect(machine.notes!.join()).toMatch(/replica of the boot disk stays as it is/);
    expect(machine.consumed).toBe(true);
    const [root, data, ...more] = cloud.simulator.volumesOf(machine.id);
    expect(more).toEqual([]);
    expect(root).not.toBe(disks[0]!.volume.id);
    expect(data).toBe(disks[1]!.volume.id);
    await demandBytes(root, 40);
    // What the machine writes to its root never reaches the replica.
    await cloud.simulator.writeVolume(root!, 0, randomBytes(65_536, 99));
    expect(cloud.simulator.machineState(machine.id)).toBe("Running");
    expect(cloud.simulator.templateNames()).toEqual([]);
    expect(await target.launch!(spec, disks, { key: "k", purpose: "cutover", job: "move" })).toMatchObject({
      id: machine.id,
      consumed: true,
    });
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("a cutover of one disk takes no replica at all", async () => {
    await begin();
    await using target = await openTarget(iscsi);
    const disks = await replicas(target, 1);
    const machine = await target.launch!(spec, disks, { key: "k", purpose: "cutover" });
    expect(machine.consumed).toBe(false);
    expect(await target.launch!(spec, disks, { key: "k", purpose: "cutover" })).toMatchObject({ consumed: false });
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("a test boots from snapshots, and replication goes on", async () => {
    await begin();
    await using target = await openTarget(iscsi);
    const disks = await replicas(target);
    const machine = await target.launch!(spec, disks, { key: "k", purpose: "test", job: "move" });
    expect(machine.consumed).toBe(false);
    expect(cloud.simulator.snapshotIds()).toEqual([]);
    const found = cloud.simulator.volumesOf(machine.id);
    for (const [index, id] of found.entries()) {
      await demandBytes(id, 40 + index);
      await cloud.simulator.writeVolume(id, 0, randomBytes(65_536, 90));
      await write(target, disks[index]!.volume, 2, 60 + index);
      await demandBytes(disks[index]!.volume.id, 60 + index);
    }
    await target.terminate!(machine);
    for (const [index, { volume }] of disks.entries()) await write(target, volume, 3, 40 + index);
    await demandReplicasAlone(disks);
  });

  it("without snapshots (PowerFlex) a test is refused by name with the remedy, and a cutover works", async () => {
    await begin();
    await using target = await openTarget(powerflex);
    const disks = await replicas(target);
    const error = await failed(target.launch!(spec, disks, { key: "t", purpose: "test" }));
    expect(error).toMatchObject({ code: "UNSUPPORTED", retryable: false });
    expect(error.message).toMatch(/PowerFlex.*takes no snapshots.*use a disk offering of another pool/);
    await demandReplicasAlone(disks);
    const machine = await target.launch!(spec, disks, { key: "k", purpose: "cutover" });
    await demandBytes(cloud.simulator.volumesOf(machine.id)[0], 40);
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("is said beforehand to need createTemplate, where that is missing", async () => {
    await begin();
    cloud.simulator.deny(cloud.simulator.tenant.accountId, "createTemplate");
    const figure = { value: size, kind: "exact" } as const;
    const disks = [{ disk: "boot", size, mode: "full", read: figure, write: figure }] as const;
    await using auto = await openTarget(iscsi);
    const { privileges, findings } = await auto.preflight!({ disks, machine: spec });
    expect(privileges!.missing).toEqual([]);
    expect(findings.find(({ subject }) => subject === "createTemplate")).toMatchObject({ severity: "info" });
    await using explicit = await openTarget(iscsi, { method: "template" });
    expect((await explicit.preflight!({ disks, machine: spec })).privileges!.missing).toEqual(["createTemplate"]);
  });

  it("where the role has no createTemplate, the refusal names the way and nothing is left", async () => {
    await begin();
    cloud.simulator.deny(cloud.simulator.tenant.accountId, "createTemplate");
    await using target = await openTarget(iscsi);
    const disks = await replicas(target);
    for (const purpose of ["cutover", "test"] as const) {
      const error = await failed(target.launch!(spec, disks, { key: purpose, purpose }));
      expect(error.code).toBe("UNSUPPORTED");
      expect(error.message).toMatch(/launch with method "template"/);
      await demandReplicasAlone(disks);
    }
    await using explicit = await openTarget(iscsi, { method: "template" });
    const error = await failed(explicit.launch!(spec, disks, { key: "e", purpose: "cutover" }));
    expect(error).toMatchObject({ code: "DENIED" });
    expect(error.message).toMatch(/Allow createTemplate/);
    await demandReplicasAlone(disks);
  });
});

it("a tenant who may not expunge: what is destroyed gives up its host name, and the launch goes on", async () => {
  await begin({ settings: { allowUserExpunge: false } });
  await using target = await openTarget(iscsi);
  const disks = await replicas(target);
  const request = { key: "k", purpose: "cutover" } as const;
  const machine = await target.launch!(spec, disks, request);
  await target.terminate!(machine);
  // The same launch once more, while the platform still keeps the machines that were destroyed.
  const again = await target.launch!(spec, disks, request);
  expect(again.id).not.toBe(machine.id);
  await demandBytes(cloud.simulator.volumesOf(again.id)[0], 40);
  await target.terminate!(again);
  expect(cloud.simulator.machineIds().map((id) => cloud.simulator.machineState(id))).toEqual([
    "Running",
    "Destroyed",
    "Destroyed",
    "Destroyed",
    "Destroyed",
  ]);
});

describe("elsewhere", () => {
  it("a hypervisor that swaps no root volume", async () => {
    await begin();
    await using target = await openTarget({});
    const disks = await replicas(target);
    cloud.simulator.faults.add({
      command: "detachVolume",
      action: { kind: "error", code: 431, text: "Root volume detach is not supported for hypervisor type LXC" },
    });
    const work = target.launch!(spec, disks, { key: "k", purpose: "test" });
    const machine = await work;
    cloud.simulator.faults.clear();
    expect(notices.join()).toMatch(/done by template/);
    await demandBytes(cloud.simulator.volumesOf(machine.id)[0], 40);
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("a zone without any template to stand in", async () => {
    await begin();
    await using admin = new CloudstackClient({ ...cloud.options, tls: undefined, ...keysOf(), pollMs: 1 });
    await admin.run("deleteTemplate", { id: cloud.simulator.templates["tiny Linux"] });
    await using target = await openTarget({});
    const disks = await replicas(target);
    const machine = await target.launch!(spec, disks, { key: "k", purpose: "cutover" });
    await demandBytes(cloud.simulator.volumesOf(machine.id)[0], 40);
    await target.terminate!(machine);
    await demandReplicasAlone(disks);
    await using swap = await openTarget({}, { method: "swap" });
    expect((await failed(swap.launch!(spec, disks, { key: "s", purpose: "cutover" }))).message).toMatch(
      /name a small one in launch.template/,
    );
  });

  it.each(["4.19.0.0", "4.20.0.0"] as const)("an old release, %s, which takes short names alone", async (version) => {
    await begin({ version });
    await using target = await openTarget({}, { method: "template" });
    const disks = await replicas(target);
    for (const purpose of ["test", "cutover"] as const) {
      const machine = await target.launch!(spec, disks, { key: purpose, purpose });
      await demandBytes(cloud.simulator.volumesOf(machine.id)[0], 40);
      await target.terminate!(machine);
      await demandReplicasAlone(disks);
    }
  });

  it("the template stays where that is asked for, and is listed as the job's whether it was kept or left", async () => {
    await begin();
    await using target = await openTarget({}, { method: "template", keepTemplate: true });
    const disks = await replicas(target);
    const machine = await target.launch!(spec, disks, { key: "k", purpose: "test", job: "move" });
    expect(cloud.simulator.templateNames()).toHaveLength(1);
    await target.terminate!(machine);
    const owned: string[] = [];
    for await (const { kind, description } of target.owned("move"))
      if (kind === "template") owned.push(description.split(",")[0]!);
    expect(owned).toEqual(cloud.simulator.templateNames());
    for await (const { kind } of target.owned("another")) expect(kind).not.toBe("template");
    await using next = await openTarget({}, { method: "template" });
    await next.terminate!(machine);
    await demandReplicasAlone(disks);
  });

  it("a machine that is not started is left alone when it is asked for again", async () => {
    await begin();
    await using target = await openTarget(iscsi, { start: false });
    const disks = await replicas(target);
    const request = { key: "k", purpose: "cutover" } as const;
    const machine = await target.launch!(spec, disks, request);
    const before = cloud.simulator.volumesOf(machine.id);
    expect(cloud.simulator.machineState(machine.id)).toBe("Stopped");
    expect((await target.launch!(spec, disks, request)).id).toBe(machine.id);
    expect(cloud.simulator.volumesOf(machine.id)).toEqual(before);
    expect(cloud.simulator.templateNames()).toEqual([]);
  });

  it("a machine that another method began is never taken for the template's: its root is a stranger's", async () => {
    await begin();
    await using swap = await openTarget({}, { method: "swap" });
    const disks = await replicas(swap);
    const abort = new AbortController();
    const given = { key: "k", purpose: "cutover", signal: abort.signal } as const;
    const stop = (): void => abort.abort(new Error("enough"));
    cloud.simulator.faults.add({ command: "detachVolume", times: 1, action: { kind: "run", run: stop } });
    await failed(swap.launch!(spec, disks, given));
    expect(cloud.simulator.machineIds()).toHaveLength(2);
    await using target = await openTarget({}, { method: "template" });
    const error = await failed(target.launch!(spec, disks, { key: "k", purpose: "cutover" }));
    expect(error.code).toBe("IN_USE");
    expect(error.message).toMatch(/begun by another method/);
    const machine = await swap.launch!(spec, disks, { key: "k", purpose: "cutover" });
    expect(cloud.simulator.volumesOf(machine.id)).toEqual(disks.map(({ volume }) => volume.id));
  });
});

function keysOf(): { apiKey: string; secretKey: string } {
  const { apiKey, secretKey } = cloud.simulator.admin;
  return { apiKey, secretKey };
}
