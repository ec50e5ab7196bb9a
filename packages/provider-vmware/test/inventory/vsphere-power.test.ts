import { startVcenterSimulator } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { referenceOf, VsphereInventory } from "../../src/inventory/vsphere-inventory.ts";
import { readHostLoad, readMachineLoad } from "../../src/inventory/host-load.ts";
import { vspherePower } from "../../src/inventory/vsphere-power.ts";
import { moRef } from "../../src/vim/moref.ts";
import { connectVsphere } from "../../src/vsphere-connection.ts";
import type { MachineSpec, VcenterSimulator, VcenterSimulatorOptions } from "@diskferry/simulators";
import type { Machine, SourceConnector } from "@diskferry/core/provider";

interface Place extends AsyncDisposable {
  readonly simulator: VcenterSimulator;
  readonly power: NonNullable<SourceConnector["power"]>;
  readonly machine: Machine;
}

async function start(
  spec: Partial<MachineSpec> = {},
  protocol: "soap" | "vi-json" = "soap",
  simulated: VcenterSimulatorOptions = {},
): Promise<Place> {
  const simulator = await startVcenterSimulator({
    tls: false,
    machines: [{ name: "web", disks: [{ size: 1 << 20 }], tracking: true, ...spec }],
    ...simulated,
  });
  const { url, userName: username, password } = simulator;
  const connection = await connectVsphere({ url, username, password, protocol });
  const machine = await new VsphereInventory(connection).machine("moref:vm-101");
  return {
    simulator,
    machine,
    power: vspherePower(connection),
    async [Symbol.asyncDispose]() {
      await connection[Symbol.asyncDispose]();
      await simulator.stop();
    },
  };
}

describe("power", () => {
  test.each(["soap", "vi-json"] as const)("goes through its states by %s", async (protocol) => {
    await using place = await start({}, protocol);
    const { power, machine, simulator } = place;
    expect(await power.state(machine)).toBe("on");
    await power.shutdown(machine);
    expect(await power.state(machine)).toBe("off");
    await power.shutdown(machine);
    await power.powerOff(machine);
    await power.powerOn(machine);
    await power.powerOn(machine);
    expect(await power.state(machine)).toBe("on");
    expect(simulator.calls.get("PowerOffVM_Task")).toBeUndefined();
    await power.powerOff(machine);
    expect(await power.state(machine)).toBe("off");
    expect([simulator.calls.get("PowerOffVM_Task"), simulator.calls.get("PowerOnVM_Task")]).toEqual([1, 1]);
  });

  test("is never cut by a shutdown that the guest does not obey", async () => {
    await using place = await start({ obeysShutdown: false });
    const { power, machine, simulator } = place;
    const stop = new AbortController();
    const shutdown = power.shutdown(machine, { signal: stop.signal });
    const failure = expect(shutdown).rejects.toThrow("enough");
    await vi.waitFor(() => expect(simulator.calls.get("WaitForUpdatesEx")).toBeGreaterThan(0), { timeout: 30_000 });
    stop.abort(new Error("enough"));
    await failure;
    expect(simulator.machine("web").power).toBe("poweredOn");
    expect(simulator.calls.get("PowerOffVM_Task")).toBeUndefined();
  });

  test.each([
    ["no", []],
    // VMware Tools stop while the guest shuts down.
    ["the tools' own", [{ method: "ShutdownGuest", calls: [2], action: { kind: "fault", type: "ToolsUnavailable" } }]],
  ] as const)("goes on by a shutdown whose answer was lost, with %s refusal of the second", async (_, more) => {
    const lost = { method: "ShutdownGuest", calls: [1], action: { kind: "drop-after" } } as const;
    await using place = await start({}, "soap", { shutdownMs: 3_000, faults: [lost, ...more] });
    const { power, machine, simulator } = place;
    await power.shutdown(machine);
    expect(await power.state(machine)).toBe("off");
    expect(simulator.machine("web").cleanPowerOff).toBe(true);
  });

  test("that is as wanted by the time it is asked for is left alone, and a lost answer is looked up", async () => {
    await using place = await start();
    const { power, machine, simulator } = place;
    for (const [method, change, state] of [
      ["PowerOffVM_Task", power.powerOff, "off"],
      ["PowerOnVM_Task", power.powerOn, "on"],
    ] as const) {
      simulator.inject({ method, calls: [1], action: { kind: "drop-after" } });
      await change(machine);
      expect(await power.state(machine)).toBe(state);
    }
    const run = (): void => simulator.machine("web").shutDown();
    simulator.inject({ method: "PowerOffVM_Task", times: 1, action: { kind: "run", run } });
    await power.powerOff(machine);
    expect(await power.state(machine)).toBe("off");
  });

  test("cannot be asked of a guest without tools, and the error says what to do", async () => {
    await using place = await start({ tools: "not-installed" });
    const failure = place.power.shutdown(place.machine);
    await expect(failure).rejects.toMatchObject({ code: "UNSUPPORTED", message: /web.*VMware Tools/s });
    expect(place.simulator.machine("web").power).toBe("poweredOn");
  });

  test("of a machine that waits for an answer fails by that", async () => {
    await using place = await start({ power: "poweredOff" });
    place.simulator.machine("web").question = { id: "1", text: "Moved or copied?" };
    await expect(place.power.powerOn(place.machine)).rejects.toMatchObject({ code: "IN_USE" });
  });

  test("of a machine of another provider is refused", async () => {
    expect(() => referenceOf({ id: "x", name: "x", disks: [] })).toThrow(/does not come from this provider/);
  });
});

test("a host's counters tell its CPU and memory in percent, also of the host that a machine runs on", async () => {
  await using simulator = await startVcenterSimulator({ tls: false, machines: [{ name: "web", disks: [] }] });
  const { url, userName: username, password } = simulator;
  for (const protocol of ["soap", "vi-json"] as const) {
    await using connection = await connectVsphere({ url, username, password, protocol });
    const load = await readHostLoad(connection.client, moRef("HostSystem", "host-9"));
    expect(load).toEqual({ cpuPercent: 7.5, memoryPercent: 25 });
    const machine = moRef("VirtualMachine", simulator.machine("web").id);
    for (let times = 0; times < 3; times++) {
      const told = await readMachineLoad(connection.client, machine);
      expect(told).toEqual({ host: "esx1.example.org", cpuPercent: 7.5, memoryPercent: 25 });
    }
  }
});
