import { afterEach, beforeEach, expect, test } from "vitest";
import type { LaunchDisk, LaunchRequest, LaunchedMachine, TargetProvider } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { Cloud } from "../../src/cloud.ts";
import { launchScope } from "../../src/launch/launch-scope.ts";
import { cloudstackTarget } from "../../src/target/cloudstack-target.ts";
import { type TestCloud, startCloud } from "../cloud.ts";
import { killedAtEveryCall, patient, writeBeginning } from "../killed-at-every-call.ts";

// A process is killed after every single call of the API: the call was done, its answer never read. Whoever comes next has
// to find what is there. No step is sampled: the scenario is repeated with one more call each time until none is left.

const size = 2 ** 20;

let cloud: TestCloud;
beforeEach(async () => {
  cloud = await startCloud({ jobMs: 0, settings: { allowUserExpunge: true } });
});
afterEach(() => cloud[Symbol.asyncDispose]());

const connect = (own: Cloud): TargetProvider => cloudstackTarget(own);
const living = async (): Promise<TargetProvider> => connect(await Cloud.open(patient(cloud.options)));

const named = (prefix: string) => cloud.simulator.volumes().filter(({ tags }) => tags["diskferry.key"] === prefix);

async function bytesOf(id: string): Promise<Uint8Array> {
  return cloud.simulator.volumeBytes(id, 0, 65_536);
}

test("a copy killed after any call goes on: one volume, its bytes, attached to nothing", async () => {
  const before = cloud.simulator.volumes().length;
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      const volume = await target.create({ key: `copy ${round}`, size, name: "web01 disk 0", job: "copy" });
      await writeBeginning(target, volume, { seed: round, epoch: attempt });
    },
    async (round) => {
      const [volume, ...twins] = named(`copy ${round}`);
      expect(twins).toEqual([]);
      expect(volume?.machineId).toBeUndefined();
      expect(Buffer.compare(await bytesOf(volume!.id), randomBytes(65_536, round))).toBe(0);
      expect(cloud.simulator.volumes()).toHaveLength(before + round);
    },
  );
  expect(calls).toBeGreaterThan(15);
}, 900_000);

test("a removal killed after any call is finished by the next", async () => {
  const before = cloud.simulator.volumes().length;
  await using setUp = await living();
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      const key = `removal ${round}`;
      const known = attempt === 1 ? await setUp.create({ key, size }) : { id: ids.get(round) ?? "", size };
      ids.set(round, known.id);
      if (attempt === 1) await writeBeginning(setUp, known, { seed: round, epoch: 1 });
      await target.remove(known);
    },
    async () => expect(cloud.simulator.volumes()).toHaveLength(before),
  );
  expect(calls).toBeGreaterThan(2);
}, 900_000);
const ids = new Map<number, string>();

interface Replicas {
  disks: LaunchDisk[];
  contents: [string, Uint8Array][];
}

async function replicas(target: TargetProvider, key: string): Promise<Replicas> {
  const disks: LaunchDisk[] = [];
  const contents: [string, Uint8Array][] = [];
  for (const [index, disk] of ["boot", "data"].entries()) {
    const seed = 70 + index;
    const volume = await target.create({ key: `${key} ${disk}`, size });
    disks.push({ disk, boot: disk === "boot", volume: await writeBeginning(target, volume, { seed, epoch: 1 }) });
    contents.push([volume.id, randomBytes(65_536, seed)]);
  }
  return { disks, contents };
}

for (const [purpose, method, diskOffering, expunges = true] of [
  ["test", "auto", "Custom"],
  ["cutover", "auto", "Custom"],
  ["test", "template", "Custom"],
  // Begun by a swap, which a managed pool refuses, and done by a template; what is destroyed is not expunged.
  ["cutover", "auto", "Custom iSCSI", false],
] as const) {
  const how =
    diskOffering === "Custom" ? `by ${method}` : `on a managed pool${expunges ? "" : " by who may not expunge"}`;
  test(`a ${purpose} launch ${how} killed after any call goes on: one machine, both disks, nothing left over`, async () => {
    cloud.simulator.settings.allowUserExpunge = expunges;
    const copies = method === "template" || diskOffering !== "Custom";
    cloud.options = { ...cloud.options, diskOffering, launch: { ...cloud.options.launch, method } };
    await using setUp = await living();
    const own = await replicas(setUp, purpose);
    const calls = await killedAtEveryCall(
      cloud,
      connect,
      async (target, round, attempt) => {
        const request: LaunchRequest = { key: `${purpose} ${round}`, purpose, job: "launch" };
        const machine = await target.launch!({ name: `web-${round}`, guestFamily: "linux" }, own.disks, request);
        if (attempt === 1) return;
        const found = cloud.simulator.volumesOf(machine.id);
        expect(cloud.simulator.machineState(machine.id)).toBe("Running");
        expect(found).toHaveLength(2);
        for (const [index, [id, bytes]] of own.contents.entries()) {
          if (purpose === "cutover" && !(copies && index === 0)) expect(found[index]).toBe(id);
          expect(Buffer.compare(await bytesOf(found[index]!), bytes)).toBe(0);
          expect(Buffer.compare(await bytesOf(id), bytes)).toBe(0);
        }
        await target.terminate!(machine);
      },
      async () => {
        for (const [id, bytes] of own.contents) expect(Buffer.compare(await bytesOf(id), bytes)).toBe(0);
        // Nothing but replicas and the appliance is left: no clone, no stand-in root, no snapshot, no machine.
        const strange = cloud.simulator.volumes().filter(({ tags }) => tags["diskferry.key"] === undefined);
        const alive = cloud.simulator.machineIds().filter((id) => cloud.simulator.machineState(id) !== "Destroyed");
        const kept = (id: string | undefined): boolean => cloud.simulator.machineState(id ?? "") === "Destroyed";
        expect(
          strange.filter(({ machineId }) => machineId !== cloud.simulator.appliance.id && !kept(machineId)),
        ).toEqual([]);
        expect(cloud.simulator.snapshotIds()).toEqual([]);
        expect(cloud.simulator.templateNames()).toEqual([]);
        expect(alive).toEqual([cloud.simulator.appliance.id]);
      },
    );
    for (const { volume } of own.disks) await setUp.remove(volume);
    expect(calls).toBeGreaterThan(40);
  }, 900_000);
}

test("a cutover launch killed after any call and given up loses no disk, whatever of it was there", async () => {
  await using setUp = await living();
  const own = await replicas(setUp, "given up");
  await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      const request: LaunchRequest = { key: `given up ${round}`, purpose: "cutover", job: "launch" };
      if (attempt === 1) return void (await target.launch!({ name: `web-${round}` }, own.disks, request));
      const [id = ""] = cloud.simulator.machineIds().filter((each) => each !== cloud.simulator.appliance.id);
      const data = { ...launchScope("launch", request.key), replicas: own.contents.map(([each]) => each) };
      await target.terminate!({ id, name: "", purpose: "cutover", consumed: true, data });
    },
    async () => {
      for (const [id, bytes] of own.contents) {
        expect(cloud.simulator.volumes().find((volume) => volume.id === id)?.machineId).toBeUndefined();
        expect(Buffer.compare(await bytesOf(id), bytes)).toBe(0);
      }
      expect(cloud.simulator.machineIds()).toEqual([cloud.simulator.appliance.id]);
      expect(cloud.simulator.volumes()).toHaveLength(1 + own.contents.length);
    },
  );
  for (const { volume } of own.disks) await setUp.remove(volume);
}, 900_000);

test.each(["auto", "template"] as const)(
  "a termination (%s) killed after any call is finished by the next, and no replica goes with it",
  async (method) => {
    cloud.options = { ...cloud.options, launch: { ...cloud.options.launch, method } };
    await using setUp = await living();
    const own = await replicas(setUp, "ended");
    let machine: LaunchedMachine | undefined;
    const calls = await killedAtEveryCall(
      cloud,
      connect,
      async (target, round, attempt) => {
        const request: LaunchRequest = { key: `ended ${round}`, purpose: "cutover", job: "launch" };
        if (attempt === 1) machine = await setUp.launch!({ name: `db-${round}` }, own.disks, request);
        await target.terminate!(machine!);
      },
      async () => {
        for (const [id, bytes] of own.contents) {
          expect(cloud.simulator.volumes().find((volume) => volume.id === id)?.machineId).toBeUndefined();
          expect(Buffer.compare(await bytesOf(id), bytes)).toBe(0);
        }
        expect(cloud.simulator.machineIds()).toEqual([cloud.simulator.appliance.id]);
      },
    );
    for (const { volume } of own.disks) await setUp.remove(volume);
    expect(calls).toBeGreaterThan(10);
  },
  900_000,
);
