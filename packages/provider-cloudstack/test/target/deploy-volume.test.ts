import { afterEach, describe, expect, it, vi } from "vitest";
import type { ProviderError, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { CloudstackClient, type CloudstackOptions, provider } from "../../src/index.ts";
import { cloudstackTarget } from "../../src/target/cloudstack-target.ts";
import { type SimulatorOptions, type TestCloud, startCloud } from "../cloud.ts";
import { killedAtEveryCall } from "../killed-at-every-call.ts";

// Machines that have much else to do take their time.
vi.setConfig({ testTimeout: 300_000 });

// From 4.21 on KVM, a volume that goes back to a template and lies on a zone-wide pool is deployed as it is, or by its snapshot.

let cloud: TestCloud;
let notices: string[];
afterEach(() => cloud[Symbol.asyncDispose]());

const spec = { name: "web", guestFamily: "linux" } as const;
const bytes = randomBytes(65_536, 5);

function openTarget(launch: CloudstackOptions["launch"] = {}): Promise<TargetProvider> {
  const options = { ...cloud.options, launch: { ...cloud.options.launch, ...launch } };
  return Promise.resolve(provider.target!(options, { notice: (text) => notices.push(text) }));
}

/** What was a machine's root: taken out and adopted, as after a failback. */
async function formerRoot(target: TargetProvider, serviceOffering = "Small Instance"): Promise<Volume> {
  const { simulator } = cloud;
  await using client = new CloudstackClient({ ...cloud.options, tls: undefined, pollMs: 1 });
  const { id = "", jobId = "" } = await client.submit("deployVirtualMachine", {
    name: "old",
    zoneid: simulator.zoneId,
    serviceofferingid: simulator.serviceOfferings[serviceOffering],
    templateid: simulator.templates["tiny Linux"],
    startvm: false,
  });
  await client.finish(jobId);
  const [root = ""] = simulator.volumesOf(id);
  await client.run("detachVolume", { id: root });
  await client.run("destroyVirtualMachine", { id, expunge: true });
  const volume = await target.adopt!(root);
  await using writer = await target.open(volume, { run: "one", epoch: 1 });
  await writer.write(0, bytes);
  return await writer.commit({ written: (async function* () {})() });
}

async function begin(given: SimulatorOptions = {}): Promise<void> {
  cloud = await startCloud({ jobMs: 0, ...given, settings: { allowUserExpunge: true } });
  notices = [];
}

const holds = async (id: string | undefined): Promise<boolean> =>
  Buffer.compare(await cloud.simulator.volumeBytes(id!, 0, bytes.length), bytes) === 0;

async function demandReplicaAlone(volume: Volume): Promise<void> {
  const { simulator } = cloud;
  expect(simulator.machineIds()).toEqual([simulator.appliance.id]);
  expect(simulator.snapshotIds()).toEqual([]);
  expect(simulator.volumes()).toHaveLength(2);
  expect(simulator.volumes().find(({ id }) => id === volume.id)?.machineId).toBeUndefined();
  expect(await holds(volume.id)).toBe(true);
}

describe.each(["auto", "volume"] as const)("by %s", (method) => {
  it("a cutover is deployed from the volume itself: no stand-in is made", async () => {
    await begin();
    await using target = await openTarget({ method });
    const volume = await formerRoot(target);
    const before = cloud.simulator.calls.get("listTemplates") ?? 0;
    const disks = [{ disk: "d", boot: true, volume }];
    const machine = await target.launch!(spec, disks, { key: "c", purpose: "cutover" });
    expect(cloud.simulator.volumesOf(machine.id)).toEqual([volume.id]);
    expect(machine.consumed).toBe(true);
    expect(cloud.simulator.machineState(machine.id)).toBe("Running");
    expect(cloud.simulator.calls.get("createVolume")).toBeUndefined();
    expect(before).toBe(0);
    expect(notices.filter((text) => /done by/.test(text))).toEqual([]);
    await target.terminate!(machine);
    await demandReplicaAlone(volume);
  });

  it("a test is deployed from a snapshot: no clone of the boot disk is made", async () => {
    await begin();
    await using target = await openTarget({ method });
    const volume = await formerRoot(target);
    const disks = [{ disk: "d", boot: true, volume }];
    const machine = await target.launch!(spec, disks, { key: "t", purpose: "test" });
    const [root, ...more] = cloud.simulator.volumesOf(machine.id);
    expect(more).toEqual([]);
    expect(root).not.toBe(volume.id);
    expect(await holds(root)).toBe(true);
    expect(cloud.simulator.calls.get("createVolume")).toBeUndefined();
    expect(cloud.simulator.snapshotIds()).toEqual([]);
    expect((await target.launch!(spec, disks, { key: "t", purpose: "test" })).id).toBe(machine.id);
    await cloud.simulator.writeVolume(root!, 0, randomBytes(4096, 9));
    await target.terminate!(machine);
    await demandReplicaAlone(volume);
  });
});

it("on a release before 4.21 the root is swapped", async () => {
  await begin({ version: "4.20.0.0" });
  await using target = await openTarget();
  const volume = await formerRoot(target);
  const machine = await target.launch!(spec, [{ disk: "d", boot: true, volume }], { key: "c", purpose: "cutover" });
  expect(cloud.simulator.volumesOf(machine.id)).toEqual([volume.id]);
  await target.terminate!(machine);
  await demandReplicaAlone(volume);
});

it("on a pool of one cluster the refusal is told and the root is swapped; asked for by name it is an error", async () => {
  await begin();
  await using target = await openTarget();
  const volume = await formerRoot(target, "Small Cluster Instance");
  const disks = [{ disk: "d", boot: true, volume }];
  for (const purpose of ["test", "cutover"] as const) {
    const machine = await target.launch!(spec, disks, { key: purpose, purpose });
    expect(await holds(cloud.simulator.volumesOf(machine.id)[0])).toBe(true);
    await target.terminate!(machine);
    await demandReplicaAlone(volume);
  }
  expect(notices.join()).toMatch(/does not launch by volume; it is done by swap.*Zone-wide/);
  await using strict = await openTarget({ method: "volume" });
  const error = await strict.launch!(spec, disks, { key: "s", purpose: "cutover" }).then(
    () => expect.fail("it resolved"),
    (failure: unknown) => failure as ProviderError,
  );
  expect(error.message).toMatch(/only for Zone-wide storage pools/);
  await demandReplicaAlone(volume);
});

it.each(["test", "cutover"] as const)(
  "a %s killed after any call goes on: one machine, nothing left over",
  async (purpose) => {
    await begin();
    await using setUp = await openTarget();
    const volume = await formerRoot(setUp);
    const calls = await killedAtEveryCall(
      cloud,
      (own) => cloudstackTarget(own),
      async (target, round, attempt) => {
        const disks = [{ disk: "d", boot: true, volume }];
        const machine = await target.launch!({ ...spec, name: `web-${round}` }, disks, {
          key: `${purpose} ${round}`,
          purpose,
        });
        if (attempt === 1) return;
        const found = cloud.simulator.volumesOf(machine.id);
        expect(found).toHaveLength(1);
        expect(await holds(found[0])).toBe(true);
        if (purpose === "cutover") expect(found).toEqual([volume.id]);
        await target.terminate!(machine);
      },
      () => demandReplicaAlone(volume),
    );
    expect(calls).toBeGreaterThan(15);
  },
  900_000,
);
