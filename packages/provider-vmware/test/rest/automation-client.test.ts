import { generateMachines, startVcenterSimulator, type VcenterReleaseName } from "@diskferry/simulators";
import { describe, expect, test } from "vitest";
import { AutomationClient } from "../../src/rest/automation-client.ts";
import { VimHttp } from "../../src/vim/vim-http.ts";
import { ScriptedServer } from "../vim/scripted-server.ts";

const login = { userName: "administrator@vsphere.local", password: "password" };

describe.each([
  ["6.5", "/rest"],
  ["8.0.3", "/api"],
] as [VcenterReleaseName, string][])("the Automation API of %s", (version, prefix) => {
  test(`lists, details and tells the power at ${prefix}`, async () => {
    const machines = [
      {
        name: "web & co",
        cpus: 4,
        memoryMiB: 4096,
        firmware: "efi" as const,
        disks: [{ size: 1 << 20 }, { size: 2 << 20 }],
        nics: [{ mac: "00:50:56:aa:bb:01" }],
      },
      { name: "db", power: "poweredOff" as const, disks: [] },
      { name: "golden", template: true, disks: [] },
    ];
    await using simulator = await startVcenterSimulator({ tls: false, version, machines });
    await using http = new VimHttp({ origin: new URL(simulator.url), timeoutMs: 20_000 });
    const client = new AutomationClient(http, login);
    expect((await client.list()).map(({ name, power, cpus }) => [name, power, cpus])).toEqual([
      ["web & co", "on", 4],
      ["db", "off", 2],
    ]);
    const [found] = await client.list({ names: ["web & co", "nobody"] });
    expect(found).toMatchObject({ name: "web & co", memoryBytes: 4 * 2 ** 30 });
    const { id, instanceUuid } = simulator.machine("web & co");
    expect(found?.moref).toBe(id);
    expect(await client.detail(id)).toEqual({
      name: "web & co",
      instanceUuid,
      power: "on",
      cpus: 4,
      memoryBytes: 4 * 2 ** 30,
      firmware: "uefi",
      disks: [
        { key: "2000", size: 1 << 20, label: "Hard disk 1" },
        { key: "2001", size: 2 << 20, label: "Hard disk 2" },
      ],
      macs: ["00:50:56:aa:bb:01"],
    });
    expect(await client.power(id)).toBe("on");
    await expect(client.power("vm-999")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await client[Symbol.asyncDispose]();
    expect(simulator.alive.sessions).toBe(0);
  });

  test("logs in again when its session has ended, once", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, version, machines: generateMachines(2) });
    await using http = new VimHttp({ origin: new URL(simulator.url), timeoutMs: 20_000 });
    await using client = new AutomationClient(http, login);
    await client.list();
    simulator.expireSessions();
    expect(await client.list()).toHaveLength(2);
    expect(simulator.alive.sessions).toBe(1);
    simulator.inject({ method: `GET ${prefix}/vcenter/vm`, action: { kind: "status", status: 401 } });
    await expect(client.list()).rejects.toMatchObject({ code: "AUTH" });
  });
});

describe("the Automation API", () => {
  test("of a host or an old vCenter is not there, and says so", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, version: "6.0" });
    await using http = new VimHttp({ origin: new URL(simulator.url), timeoutMs: 20_000 });
    await using client = new AutomationClient(http, login);
    await expect(client.list()).rejects.toMatchObject({ code: "UNSUPPORTED", message: /6\.5 and newer/ });
  });

  test("refuses a wrong password without showing it", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using http = new VimHttp({ origin: new URL(simulator.url), timeoutMs: 20_000 });
    await using client = new AutomationClient(http, { ...login, password: "Secr3t!" });
    const failure = client.list();
    await expect(failure).rejects.toMatchObject({ code: "AUTH" });
    await expect(failure).rejects.not.toThrow(/Secr3t|U2VjcjN0/);
  });

  test("with more machines than one answer holds is given up for the other way", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: generateMachines(4_001) });
    await using http = new VimHttp({ origin: new URL(simulator.url), timeoutMs: 20_000 });
    await using client = new AutomationClient(http, login);
    await expect(client.list()).rejects.toMatchObject({ code: "UNSUPPORTED", message: /more machines/ });
    expect(await client.list({ names: ["machine-04000"] })).toHaveLength(1);
  });

  test("whose answer is cut short or no JSON fails by a retryable error", async () => {
    for (const body of [`[{"vm":"vm-1"`, "<html>"]) {
      await using server = await ScriptedServer.start(({ path }, response) => {
        response.end(path.endsWith("/session") ? `"token"` : body);
      });
      await using http = new VimHttp({ origin: server.url, timeoutMs: 20_000 });
      await using client = new AutomationClient(http, login);
      await expect(client.list()).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    }
  });
});
