import { generateMachines, startVcenterSimulator, type VcenterSimulatorOptions } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { openQuickInventory, type QuickInventory } from "../../src/inventory/quick-inventory.ts";
import type { VsphereOptions } from "../../src/options.ts";

vi.setConfig({ testTimeout: 120_000 });
const mib = 1 << 20;
const machines: NonNullable<VcenterSimulatorOptions["machines"]> = [
  {
    name: "web & co",
    cpus: 4,
    memoryMiB: 4096,
    firmware: "efi",
    disks: [{ size: mib }, { size: 2 * mib }],
    nics: [{ mac: "00:50:56:aa:bb:01" }],
  },
  { name: "a/b", power: "poweredOff", disks: [{ size: mib }] },
  { name: "golden", template: true, disks: [] },
];

async function start(simulated: VcenterSimulatorOptions = {}, more: Partial<VsphereOptions> = {}) {
  const simulator = await startVcenterSimulator({ tls: false, machines, ...simulated });
  const { url, userName: username, password } = simulator;
  const notices: string[] = [];
  const options = { url, username, password, retrySeconds: 0, ...more };
  const inventory = await openQuickInventory(options, { notice: (line) => notices.push(line) });
  const dispose = async (): Promise<void> => {
    await inventory[Symbol.asyncDispose]();
    expect(simulator.alive.sessions).toBe(0);
    await simulator.stop();
  };
  return { simulator, inventory, notices, [Symbol.asyncDispose]: dispose };
}

async function gathered<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function told(inventory: QuickInventory, ids: readonly string[]): Promise<unknown> {
  const listed = await gathered(inventory.list());
  const named = await gathered(inventory.list({ names: ["a/b", "nobody"] }));
  const details = await Promise.all(ids.map((id) => inventory.detail(id)));
  const power = await Promise.all(ids.map((id) => inventory.power(id)));
  return { listed, named, details, power };
}

const expected = {
  listed: [
    { name: "web & co", power: "on", cpus: 4, memoryBytes: 4 * 2 ** 30 },
    { name: "a/b", power: "off" },
  ],
  named: [{ name: "a/b", power: "off" }],
  details: [
    {
      name: "web & co",
      power: "on",
      cpus: 4,
      memoryBytes: 4 * 2 ** 30,
      firmware: "uefi",
      disks: [
        { key: "2000", size: mib, label: "Hard disk 1" },
        { key: "2001", size: 2 * mib, label: "Hard disk 2" },
      ],
      macs: ["00:50:56:aa:bb:01"],
    },
    { name: "a/b", power: "off", firmware: "bios", disks: [{ key: "2000", size: mib, label: "Hard disk 1" }] },
  ],
  power: ["on", "off"],
};

describe("the quick inventory", () => {
  const ways: Record<string, { simulated: VcenterSimulatorOptions; automation: string | undefined }> = {
    "by /api": { simulated: {}, automation: "/api" },
    "by /rest": { simulated: { version: "6.7" }, automation: "/rest" },
    "of a host, by vim25": { simulated: { kind: "esxi" }, automation: undefined },
  };

  test.for(Object.entries(ways))(
    "%s: lists, details and tells the power alike",
    async ([, { simulated, automation }]) => {
      await using place = await start(simulated);
      const { simulator, inventory, notices } = place;
      const ids = ["web & co", "a/b"].map((name) => simulator.machine(name).id);
      const answer = await told(inventory, ids);
      expect(answer).toMatchObject(expected);
      const details = (answer as { details: { instanceUuid: string }[] }).details;
      expect(details[0]!.instanceUuid).toBe(simulator.machine("web & co").instanceUuid);
      expect(notices).toEqual([]);
      const listings = [...simulator.calls.keys()].filter((call) => call.startsWith(`GET ${automation}/vcenter/vm`));
      expect(listings.length > 0).toBe(automation !== undefined);
      await expect(inventory.power("vm-999")).rejects.toMatchObject({ code: "NOT_FOUND" });
      await expect(inventory.detail("vm-999")).rejects.toMatchObject({ code: "NOT_FOUND" });
    },
  );

  test("is asked of vim25 where the Automation API fails, which is told each time", async () => {
    await using place = await start();
    const { simulator, inventory, notices } = place;
    const ids = ["web & co", "a/b"].map((name) => simulator.machine(name).id);
    for (const path of ["", "/{id}", "/{id}/power"].map((each) => `GET /api/vcenter/vm${each}`)) {
      simulator.inject({ method: path, times: 100, action: { kind: "status", status: 500 } });
    }
    simulator.inject({ method: "POST /api/session", times: 100, action: { kind: "status", status: 503 } });
    expect(await told(inventory, ids)).toMatchObject(expected);
    expect(notices).toHaveLength(6);
    for (const line of notices) expect(line).toMatch(/the Automation API did not answer .*vim25 is asked instead/);
  });

  test("of more machines than one answer of the Automation API holds is complete all the same", async () => {
    await using place = await start({ machines: generateMachines(4_001) });
    const names = new Set<string>();
    for await (const { name } of place.inventory.list()) names.add(name);
    expect(names.size).toBe(4_001);
    expect(place.notices).toEqual([expect.stringMatching(/more machines than one answer/)]);
  });

  test("of one datacenter is that of vim25, without a notice", async () => {
    await using place = await start({ moreDatacenters: ["DC1"] }, { datacenter: "DC1" });
    expect(await gathered(place.inventory.list())).toEqual([]);
    expect(place.notices).toEqual([]);
  });

  test("ends at once when it is aborted, and asks nobody else", async () => {
    await using place = await start();
    const signal = AbortSignal.abort(new Error("enough"));
    const moref = place.simulator.machine("a/b").id;
    await expect(place.inventory.power(moref, { signal })).rejects.toThrow("enough");
    await expect(place.inventory.detail(moref, { signal })).rejects.toThrow("enough");
    await expect(gathered(place.inventory.list({}, { signal }))).rejects.toThrow("enough");
    expect(place.notices).toEqual([]);
  });
});
