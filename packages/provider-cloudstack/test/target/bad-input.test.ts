import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ProviderError, TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { CloudstackClient, type CloudstackOptions, optionsSchema, provider } from "../../src/index.ts";
import { type SimulatorOptions, type TestCloud, startCloud } from "../cloud.ts";

// What people get wrong, and what platforms do: each has to be said clearly with what to do about it, and the replica that
// is there already has to stay as it is.

const bytes = randomBytes(65_536, 3);
const size = 2 ** 20;
let cloud: TestCloud;
let replica: Volume;

async function begin(given: SimulatorOptions = {}): Promise<void> {
  cloud = await startCloud(given);
  await using target = await provider.target!(cloud.options);
  replica = await target.create({ key: "replica", size });
  await write(target, replica, 1);
}
beforeEach(() => begin());
afterEach(async () => {
  cloud.simulator.faults.clear();
  expect(Buffer.compare(await cloud.simulator.volumeBytes(replica.id, 0, bytes.length), bytes)).toBe(0);
  await cloud[Symbol.asyncDispose]();
});

async function write(target: TargetProvider, volume: Volume, epoch: number): Promise<void> {
  await using writer = await target.open(volume, { run: `run ${epoch}`, epoch });
  await writer.write(0, bytes);
  await writer.commit({ written: (async function* () {})() });
}

/** Opens the target with other options, does something that has to fail, and gives back how it failed. */
async function failure(
  work: (target: TargetProvider) => Promise<unknown>,
  options: Partial<CloudstackOptions> = {},
): Promise<ProviderError> {
  await using target = await provider.target!({ ...cloud.options, retryBudgetMs: 20, ...options });
  return await work(target).then(
    () => expect.fail("it resolved"),
    (error: unknown) => error as ProviderError,
  );
}

const open = (target: TargetProvider): Promise<unknown> => target.open(replica, { run: "next", epoch: 5 });

describe("keys and roles", () => {
  it("bad keys", async () => {
    const error = await failure(open, { secretKey: "not this one" });
    expect(error.code).toBe("AUTH");
    expect(error.message).toMatch(/Check apiKey and secretKey/);
    expect(error.message).not.toContain("not this one");
    expect(error.message).not.toContain(cloud.options.apiKey);
  });

  it("a clock that is wrong, which is what an expired signature comes from", async () => {
    cloud.simulator.advance(3_600_000);
    const error = await failure(open);
    expect(error.code).toBe("AUTH");
    expect(error.message).toMatch(/clock is 60\.\d minutes ahead of this machine's/);
    expect(error.message).toMatch(/NTP/);
    cloud.simulator.advance(-3_600_000);
  });

  it("a role without a command: named by the call, and before a run by the preflight", async () => {
    const { simulator } = cloud;
    simulator.deny(simulator.tenant.accountId, "attachVolume");
    const error = await failure(open);
    expect(error.code).toBe("DENIED");
    expect(error.message).toMatch(/Allow attachVolume in the role/);
    await using target = await provider.target!(cloud.options);
    const { privileges, findings } = await target.preflight!({ disks: [] });
    expect(privileges?.missing).toEqual(["attachVolume"]);
    expect(findings).toContainEqual(expect.objectContaining({ severity: "blocker", subject: "attachVolume" }));
  });

  it("somebody else's volume", async () => {
    const { other } = cloud.simulator;
    const options = { apiKey: other.apiKey, secretKey: other.secretKey };
    expect((await failure(open, options)).code).toBe("NOT_FOUND");
  });

  it("half a pair of keys, keys and a user, a pin and an authority", () => {
    const base = { endpoint: "https://cloud.example.org/client/api" };
    for (const wrong of [
      { apiKey: "a" },
      { apiKey: "a", secretKey: "b", username: "c", password: "d" },
      { tls: { pin: "00".repeat(32), caFile: "/ca.pem" } },
      { endpoint: "ftp://cloud.example.org" },
      { zones: "zone1" },
    ]) {
      expect(optionsSchema.safeParse({ ...base, ...wrong }).success, JSON.stringify(wrong)).toBe(false);
    }
  });
});

describe("what the zone does not have", () => {
  const create = (target: TargetProvider): Promise<unknown> => target.create({ key: "new", size });

  it("an offering or a zone that is not there, with what there is", async () => {
    const offering = await failure(create, { diskOffering: "Gold" });
    expect(offering.code).toBe("CONFIG_INVALID");
    expect(offering.message).toMatch(/no disk offering Gold.*Custom, Small/);
    const zone = await failure(create, { zone: "zone9" });
    expect(zone.code).toBe("CONFIG_INVALID");
    expect(zone.message).toMatch(/no zone zone9.*zone1/);
  });

  it("an offering of a fixed size that is too small", async () => {
    const error = await failure((target) => target.create({ key: "new", size: 6 * 2 ** 30 }), {
      diskOffering: "Small",
    });
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toMatch(/custom size/);
  });

  it("a volume larger than the zone allows, said by the preflight before anything is made", async () => {
    cloud.simulator.settings.largestDiskGib = 4;
    const large = 5 * 2 ** 30;
    const error = await failure((target) => target.create({ key: "new", size: large }));
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toMatch(/custom\.diskoffering\.size\.max/);
    await using target = await provider.target!(cloud.options);
    const figure = { value: large, kind: "exact" } as const;
    const disks = [{ disk: "big", size: large, mode: "full", read: figure, write: figure } as const];
    const { findings } = await target.preflight!({ disks });
    expect(findings).toContainEqual(expect.objectContaining({ severity: "blocker", subject: "big" }));
  });

  it("a quota that is used up, said by the preflight too", async () => {
    cloud.simulator.limit("volume", 3);
    cloud.simulator.limit("primaryStorage", 2);
    await using target = await provider.target!(cloud.options);
    const figure = { value: size, kind: "exact" } as const;
    const disks = ["a", "b"].map(
      (disk) => ({ disk, size: 2 ** 31, mode: "full", read: figure, write: figure }) as const,
    );
    const { findings } = await target.preflight!({ disks });
    expect(findings.filter(({ subject }) => subject === "quota")).toHaveLength(2);
    const error = await failure((other) => other.create({ key: "new", size: 2 ** 31 }));
    expect(error).toMatchObject({ code: "UNAVAILABLE", retryable: false });
    expect(error.message).toMatch(/limit .* is reached/);
  });

  it("a pool without room, masked from a tenant in the call's answer and told by its job", async () => {
    cloud.simulator.poolCapacity("primary-zone", 2 ** 30);
    await using target = await provider.target!(cloud.options);
    const volume = await target.create({ key: "new", size });
    const error = await failure((other) => other.open(volume, { run: "r", epoch: 1 }));
    expect(error).toMatchObject({ code: "UNAVAILABLE", retryable: false });
    expect(error.message).toMatch(/no room/);
    expect((await failure((other) => other.open({ ...volume, id: "gone" }, { run: "r", epoch: 1 }))).code).toBe(
      "NOT_FOUND",
    );
  });

  it("texts that the server masks", async () => {
    cloud.simulator.faults.add({ command: "createVolume", action: { kind: "error", code: 533, text: "no pool left" } });
    const error = await failure(create);
    expect(error.message).not.toContain("no pool left");
    expect(error.message).toMatch(/hides the cause from everyone but root administrators/);
  });

  it("an appliance that is not there, stopped, or not named", async () => {
    const missing = await failure(open, { appliance: { machine: "nobody" } });
    expect(missing.code).toBe("NOT_FOUND");
    expect((await failure(open, { appliance: undefined })).code).toBe("CONFIG_INVALID");
  });
});

describe("devices", () => {
  it("a device that does not appear: the volume does not stay attached", async () => {
    cloud.simulator.appliance.withhold(replica.id);
    const error = await failure(open, { timeouts: { ...cloud.options.timeouts, deviceMs: 30 } });
    expect(error.code).toBe("NOT_FOUND");
    expect(error.message).toMatch(/lsblk -o NAME,SERIAL/);
    expect(cloud.simulator.volumesOf(cloud.simulator.appliance.id)).not.toContain(replica.id);
  });

  it("a device of another size: nothing is written", async () => {
    cloud.simulator.appliance.misreport(replica.id, 2 ** 20);
    const error = await failure(open, { timeouts: { ...cloud.options.timeouts, deviceMs: 30 } });
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toMatch(/has 1048576 bytes and the volume has 1073741824/);
    expect(cloud.simulator.volumesOf(cloud.simulator.appliance.id)).not.toContain(replica.id);
  });

  it("a volume that another machine has", async () => {
    await using client = new CloudstackClient({ ...cloud.options, tls: undefined, pollMs: 1 });
    const machine = await cloud.simulator.addMachine({ name: "somebody", disks: [size] });
    await client.run("attachVolume", { id: replica.id, virtualmachineid: machine });
    const error = await failure(open);
    expect(error.code).toBe("IN_USE");
    expect(error.message).toMatch(/somebody.*Detach it there/);
    expect((await failure((target) => target.remove(replica))).code).toBe("IN_USE");
    expect(cloud.simulator.volumesOf(machine)).toContain(replica.id);
  });

  for (const bus of ["virtio", "scsi"] as const) {
    it(`are found on ${bus} after a rescan`, async () => {
      await using other = await startCloud({ devices: { bus, needsRescan: true } });
      await using target = await provider.target!(other.options);
      const volume = await target.create({ key: "k", size });
      await write(target, volume, 1);
      expect(other.simulator.appliance.rescans).toBeGreaterThan(0);
      expect(Buffer.compare(await other.simulator.volumeBytes(volume.id, 0, bytes.length), bytes)).toBe(0);
    });
  }
});

describe("launches", () => {
  const launch = (target: TargetProvider, purpose: "test" | "cutover"): Promise<unknown> =>
    target.launch!({ name: "web" }, [{ disk: "d", boot: true, volume: replica }], { key: "k", purpose });

  it("a test without an isolated network, a cutover without networks", async () => {
    for (const purpose of ["test", "cutover"] as const) {
      const error = await failure((target) => launch(target, purpose), { launch: {} });
      expect(error.code).toBe("CONFIG_INVALID");
    }
    expect(cloud.simulator.machineIds()).toHaveLength(1);
  });

  it("a machine larger than any offering, an operating system that nobody knows", async () => {
    const huge = (target: TargetProvider): Promise<unknown> =>
      target.launch!({ cpus: 4096 }, [{ disk: "d", volume: replica }], { key: "k", purpose: "test" });
    const wish = { ...cloud.options.launch, serviceOffering: "Gigantic" };
    expect((await failure(huge, { launch: wish })).message).toMatch(/no service offering Gigantic/);
    const os = { ...cloud.options.launch, osType: "Plan 9" };
    expect((await failure((target) => launch(target, "test"), { launch: os })).message).toMatch(/Plan 9/);
    expect(cloud.simulator.machineIds()).toHaveLength(1);
  });

  it("a managed pool: the machine that was begun is undone, the replica stays", async () => {
    const options = { diskOffering: "Custom Managed", launch: { ...cloud.options.launch, method: "swap" as const } };
    await using target = await provider.target!({ ...cloud.options, ...options });
    const volume = await target.create({ key: "managed", size });
    await write(target, volume, 1);
    const error = await failure(
      (other) => other.launch!({ name: "web" }, [{ disk: "d", boot: true, volume }], { key: "k", purpose: "cutover" }),
      options,
    );
    expect(error.code).toBe("UNSUPPORTED");
    expect(error.message).toMatch(/managed.*launch with method "template", or use a disk offering of another pool/);
    expect(cloud.simulator.machineIds().filter((id) => cloud.simulator.machineState(id) !== "Destroyed")).toHaveLength(
      1,
    );
    expect(Buffer.compare(await cloud.simulator.volumeBytes(volume.id, 0, bytes.length), bytes)).toBe(0);
    expect(cloud.simulator.volumes().find(({ id }) => id === volume.id)?.machineId).toBeUndefined();
  });
});
