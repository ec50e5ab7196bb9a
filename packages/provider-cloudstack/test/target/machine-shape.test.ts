import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { LaunchRequest, LaunchedMachine, MachineSpec, TargetProvider, Volume } from "@diskferry/core/provider";
import { CloudstackClient, type CloudMachine, type CloudstackOptions, machineOf, provider } from "../../src/index.ts";
import { type TestCloud, startCloud } from "../cloud.ts";

// What a launched machine has of its source: processors, memory, cards, addresses, firmware, controllers.

// Machines that have much else to do take their time.
vi.setConfig({ testTimeout: 300_000 });

const gib = 2 ** 30;
let cloud: TestCloud;
let volume: Volume;
let launches = 0;
beforeEach(async () => {
  cloud = await startCloud({ jobMs: 0, settings: { allowUserExpunge: true } });
  await using target = await provider.target!(cloud.options);
  volume = await target.create({ key: "boot", size: 2 ** 20 });
  await using writer = await target.open(volume, { run: "run", epoch: 1 });
  await writer.commit({ written: (async function* () {})() });
});
afterEach(() => cloud[Symbol.asyncDispose]());

/** Launches, looks at the machine as CloudStack tells of it, and ends it. */
async function launched(
  spec: MachineSpec,
  launch: CloudstackOptions["launch"] = {},
  purpose: LaunchRequest["purpose"] = "cutover",
): Promise<{ machine: CloudMachine; offering: string; notes: string }> {
  await using target: TargetProvider = await provider.target!({
    ...cloud.options,
    launch: { ...cloud.options.launch, ...launch },
  });
  const disks = [{ disk: "d", boot: true, volume }];
  const result: LaunchedMachine = await target.launch!({ name: "web", ...spec }, disks, {
    key: `${launches++}`,
    purpose,
  });
  await using client = new CloudstackClient({ ...cloud.options, tls: undefined });
  for await (const item of client.list("listVirtualMachines", { id: result.id })) {
    await target.terminate!(result);
    return { machine: machineOf(item), offering: String(item["serviceofferingname"]), notes: result.notes!.join() };
  }
  return expect.fail("the machine is not listed");
}

it.each([
  [1, 0.5, "Small Instance", 1, 512],
  [2, 1, "Medium Instance", 2, 2048],
  [3, 2, "Large Instance", 8, 16_384],
  [1, 3, "Large Instance", 8, 16_384],
  [12, 24, "Custom Instance", 12, 24_576],
] as const)(
  "%i processors and %f GiB become the smallest offering that holds them",
  async (cpus, memory, name, cpu, mib) => {
    const { machine, offering } = await launched({ cpus, memoryBytes: memory * gib, guestFamily: "linux" });
    expect([offering, machine.cpus, machine.memory]).toEqual([name, cpu, mib]);
  },
);

it("the offering that is named is taken, and the machine's size too where it leaves it open", async () => {
  const { machine, offering } = await launched(
    { cpus: 3, memoryBytes: 3 * gib },
    { serviceOffering: "Custom Instance", cpuSpeed: 2100 },
  );
  expect([offering, machine.cpus, machine.memory]).toEqual(["Custom Instance", 3, 3072]);
});

const networkCards = [
  { network: "VM Network", mac: "00:50:56:01:02:03", addresses: ["fe80::1", "10.1.1.77"] },
  { network: "Backup", mac: "00:50:56:01:02:04", addresses: ["192.168.7.50"] },
  { network: "Somewhere", mac: "00:50:56:01:02:05" },
];

it("cards go where their networks are mapped to, with the addresses that are to be kept, and no others", async () => {
  const networks = [
    { from: "Backup", network: "shared", keepAddress: true },
    { from: "VM Network", network: "production", keepMac: true, keepAddress: true },
  ];
  const { machine, notes } = await launched({ networkCards }, { networks });
  expect(machine.cards.map(({ network, mac, address }) => ({ network, mac, address }))).toEqual([
    { network: "production", mac: "00:50:56:01:02:03", address: "10.1.1.77" },
    { network: "shared", mac: expect.not.stringContaining("00:50:56"), address: "192.168.7.50" },
  ]);
  expect(notes).toContain("production: 10.1.1.77 (00:50:56:01:02:03)");
});

it("a card that nothing is said of goes to the network without `from`, once", async () => {
  const { machine } = await launched({ networkCards }, { networks: [{ network: "production" }] });
  expect(machine.cards.map(({ network }) => network)).toEqual(["production"]);
});

it("a test is in the isolated network alone, with none of the source's addresses", async () => {
  const networks = [{ network: "production", keepMac: true, keepAddress: true }];
  const { machine } = await launched({ networkCards }, { networks, testNetwork: "isolated-test" }, "test");
  expect(machine.cards.map(({ network }) => network)).toEqual(["isolated-test"]);
  expect(networkCards.map(({ mac }) => mac)).not.toContain(machine.cards[0]!.mac);
  expect(machine.cards[0]!.address).not.toBe("10.1.1.77");
});

it.each([
  [{ guestFamily: "linux", firmware: "bios" }, undefined, "virtio", "virtio"],
  [{ guestFamily: "linux", firmware: "uefi", secureBoot: true }, "secure", "virtio", "virtio"],
  [{ guestFamily: "windows", firmware: "uefi" }, "legacy", "sata", "E1000"],
  [{ guestFamily: "windows", firmware: "bios" }, undefined, "ide", "E1000"],
] as const)("%j gets its firmware, and buses that it has drivers for", async (spec, mode, disk, card) => {
  const { machine } = await launched(spec);
  expect(machine.details).toMatchObject({ rootDiskController: disk, nicAdapter: card });
  expect(machine.bootMode?.toLowerCase()).toBe(mode);
  expect(machine.bootType?.toUpperCase() === "UEFI").toBe(spec.firmware === "uefi");
});

it("what the options say of buses and of the operating system counts", async () => {
  const { machine } = await launched(
    { guestFamily: "windows" },
    { rootDiskController: "virtio", nicAdapter: "virtio", osType: "Windows Server 2019 (64-bit)" },
  );
  expect(machine.details).toMatchObject({ rootDiskController: "virtio", nicAdapter: "virtio" });
  expect(machine.osName).toBe("Windows Server 2019 (64-bit)");
});
