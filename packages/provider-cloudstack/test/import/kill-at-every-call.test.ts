import { readdir } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { LaunchDisk, LaunchRequest, LaunchedMachine, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { Cloud } from "../../src/cloud.ts";
import { importTarget } from "../../src/import/import-target.ts";
import { launchScope } from "../../src/launch/launch-scope.ts";
import { killedAtEveryCall, patient, writeBeginning } from "../killed-at-every-call.ts";
import { type ImportCloud, startImportCloud } from "./import-cloud.ts";

const size = 2 ** 20 + 512;
let cloud: ImportCloud;
beforeEach(async () => {
  cloud = await startImportCloud({ jobMs: 0 });
});
afterEach(() => cloud[Symbol.asyncDispose]());

const connect = (own: Cloud): TargetProvider => importTarget(own, cloud.spool, cloud.options.import!);
const living = async (): Promise<TargetProvider> => connect(await Cloud.open(patient(cloud.options)));
/** The volumes that CloudStack has of our files. */
const adopted = () => cloud.simulator.volumes().filter(({ path }) => path?.startsWith("df-") === true);

async function write(target: TargetProvider, key: string, seed: number, epoch: number): Promise<Volume> {
  return writeBeginning(target, await target.create({ key, size, job: "move" }), { seed, epoch });
}

async function demandBytes(id: string, seed: number): Promise<void> {
  expect(Buffer.compare(await cloud.simulator.volumeBytes(id, 0, 65_536), randomBytes(65_536, seed))).toBe(0);
}

test("a disk that is adopted, killed after any call: one file, one volume, its bytes", async () => {
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => void (await write(target, `disk ${round}`, round, attempt)),
    async (round) => {
      const [volume, ...twins] = adopted();
      expect(twins).toEqual([]);
      expect(volume).toMatchObject({ state: "Ready", size, machineId: undefined });
      expect(await readdir(cloud.folder)).toEqual([volume!.path]);
      await demandBytes(volume!.id, round);
      await using target = await living();
      for await (const { volume: each } of target.owned("move")) await target.remove(each!);
      expect(adopted()).toEqual([]);
      expect([await readdir(cloud.folder), await readdir(cloud.spool)]).toEqual([[], []]);
    },
  );
  expect(calls).toBeGreaterThan(5);
}, 900_000);

test("a removal killed after any call is finished by the next", async () => {
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      if (attempt === 1) {
        await using set = await living();
        await write(set, `disk ${round}`, round, 1);
      }
      for await (const { volume } of target.owned("move")) await target.remove(volume!);
    },
    async () => {
      expect(adopted()).toEqual([]);
      expect([await readdir(cloud.folder), await readdir(cloud.spool)]).toEqual([[], []]);
    },
  );
  expect(calls).toBeGreaterThan(3);
}, 900_000);

async function replicas(target: TargetProvider): Promise<LaunchDisk[]> {
  const disks: LaunchDisk[] = [];
  for (const [index, disk] of ["boot", "data"].entries())
    disks.push({ disk, boot: index === 0, volume: await write(target, disk, 70 + index, 1) });
  return disks;
}

/** Each replica is one volume of its own file, with its bytes, attached to nothing; nothing else is left. */
async function demandReplicasAlone(disks: readonly LaunchDisk[]): Promise<void> {
  const { simulator, folder } = cloud;
  const files = disks.map(({ volume }) => volume.id).sort();
  const left = simulator.volumes().filter(({ machineId }) => machineId !== simulator.appliance.id);
  expect(left.map(({ path = "" }) => path).sort()).toEqual(files);
  expect(left.filter(({ machineId }) => machineId !== undefined)).toEqual([]);
  for (const [index, { volume }] of disks.entries())
    await demandBytes(left.find(({ path }) => path === volume.id)!.id, 70 + index);
  expect((await readdir(folder)).sort()).toEqual(files);
  expect(simulator.snapshotIds()).toEqual([]);
  expect(simulator.templateNames()).toEqual([]);
  expect(simulator.machineIds()).toEqual([simulator.appliance.id]);
}

for (const purpose of ["test", "cutover"] as const) {
  test(`a ${purpose} launch by import killed after any call goes on: one machine, both disks, nothing left over`, async () => {
    cloud.options = { ...cloud.options, launch: { ...cloud.options.launch, method: "import" } };
    await using setUp = await living();
    const disks = await replicas(setUp);
    const calls = await killedAtEveryCall(
      cloud,
      connect,
      async (target, round, attempt) => {
        const request: LaunchRequest = { key: `${purpose} ${round}`, purpose, job: "move" };
        const machine = await target.launch!({ name: `web-${round}`, guestFamily: "linux" }, disks, request);
        if (attempt === 1) return;
        expect(cloud.simulator.machineState(machine.id)).toBe("Running");
        const found = cloud.simulator.volumesOf(machine.id);
        expect(found).toHaveLength(2);
        for (const [index, id] of found.entries()) await demandBytes(id, 70 + index);
        await target.terminate!(machine);
      },
      () => demandReplicasAlone(disks),
    );
    expect(calls).toBeGreaterThan(30);
  }, 900_000);
}

test("a launch killed after any call and given up loses no disk, whatever of it was there", async () => {
  cloud.options = { ...cloud.options, launch: { ...cloud.options.launch, method: "import" } };
  await using setUp = await living();
  const disks = await replicas(setUp);
  const replicaIds = disks.map(({ volume }) => volume.id);
  await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      const request: LaunchRequest = { key: `given up ${round}`, purpose: "cutover", job: "move" };
      if (attempt === 1) return void (await target.launch!({ name: `web-${round}` }, disks, request));
      const [id = ""] = cloud.simulator.machineIds().filter((each) => each !== cloud.simulator.appliance.id);
      const data = { ...launchScope("move", request.key), replicas: replicaIds };
      await target.terminate!({ id, name: "", purpose: "cutover", consumed: true, data });
      // What CloudStack was made to forget is a volume again as soon as somebody asks for it.
      const next = await target.launch!({ name: `again-${round}` }, disks, { ...request, key: `again ${round}` });
      await target.terminate!(next);
    },
    () => demandReplicasAlone(disks),
  );
}, 900_000);

test("a termination killed after any call is finished by the next, and no replica goes with it", async () => {
  cloud.options = { ...cloud.options, launch: { ...cloud.options.launch, method: "import" } };
  await using setUp = await living();
  const disks = await replicas(setUp);
  let machine: LaunchedMachine | undefined;
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      const request: LaunchRequest = { key: `ended ${round}`, purpose: "cutover", job: "move" };
      if (attempt === 1) machine = await setUp.launch!({ name: `db-${round}` }, disks, request);
      await target.terminate!(machine!);
    },
    () => demandReplicasAlone(disks),
  );
  expect(calls).toBeGreaterThan(10);
}, 900_000);
