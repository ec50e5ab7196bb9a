import { generateMachines, startVcenterSimulator } from "@diskferry/simulators";
import { describe, expect, test } from "vitest";
import { moRef } from "../../src/vim/moref.ts";
import { listObjects, readObject, readSeen, waitForProperties } from "../../src/vim/property-collector.ts";
import { machineRef } from "../../src/vim/snapshot-calls.ts";
import { VimClient } from "../../src/vim/vim-client.ts";
import { openClient } from "./open-client.ts";
import { answerLogin, ScriptedServer, soapAnswer } from "./scripted-server.ts";

const wanted = { types: ["VirtualMachine"], paths: ["name"] };

async function names(client: VimClient): Promise<string[]> {
  const found: string[] = [];
  for await (const page of listObjects(client, client.references.rootFolder, wanted)) {
    for (const each of page) found.push(each.string("name") ?? "");
  }
  return found;
}

describe.each(["soap", "vi-json"] as const)("by %s", (protocol) => {
  test("a listing comes in pages, each machine once, and leaves nothing at the server", async () => {
    const machines = generateMachines(250);
    await using simulator = await startVcenterSimulator({ tls: false, machines, pageSize: 40 });
    await using client = await openClient(simulator, { protocol });
    expect((await names(client)).sort()).toEqual(machines.map(({ name }) => name).sort());
    expect(simulator.calls.get("ContinueRetrievePropertiesEx")).toBe(6);
    expect(simulator.calls.get("DestroyView")).toBe(1);
    expect(simulator.calls.get("CancelRetrievePropertiesEx")).toBeUndefined();
  });

  test("a listing that is left early is cancelled at the server", async () => {
    const machines = generateMachines(250);
    await using simulator = await startVcenterSimulator({ tls: false, machines, pageSize: 40 });
    await using client = await openClient(simulator, { protocol });
    for await (const page of listObjects(client, client.references.rootFolder, wanted)) {
      expect(page).toHaveLength(40);
      break;
    }
    expect(simulator.calls.get("ContinueRetrievePropertiesEx")).toBeUndefined();
    expect(simulator.calls.get("CancelRetrievePropertiesEx")).toBe(1);
    expect(simulator.calls.get("DestroyView")).toBe(1);
  });

  test("a session that ends between two pages costs no machine and doubles none", async () => {
    const machines = generateMachines(250);
    await using simulator = await startVcenterSimulator({ tls: false, machines, pageSize: 40 });
    await using client = await openClient(simulator, { protocol });
    const run = (): void => simulator.expireSessions();
    simulator.inject({ method: "ContinueRetrievePropertiesEx", calls: [3], action: { kind: "run", run } });
    const found = await names(client);
    expect(found).toHaveLength(250);
    expect(new Set(found).size).toBe(250);
    expect(client.generation).toBe(2);
  });

  test("a session that ends before the first page is begun anew, and its view with it", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: generateMachines(5) });
    await using client = await openClient(simulator, { protocol });
    const run = (): void => simulator.expireSessions();
    simulator.inject({ method: "RetrievePropertiesEx", calls: [1], action: { kind: "run", run } });
    expect(await names(client)).toHaveLength(5);
    expect(client.generation).toBe(2);
  });

  test("a session that has ended tells that an object is there and nothing of it, which is not believed", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: generateMachines(1) });
    await using client = await openClient(simulator, { protocol });
    const [machine] = simulator.machines.keys();
    simulator.expireSessions();
    const properties = await readObject(client, machineRef(machine!), ["config.hardware.device"]);
    expect(properties.get("config.hardware.device")?.children.length).toBeGreaterThan(0);
    expect(client.generation).toBe(2);
  });

  test("a property that may not be seen is told from one that is unset, where that matters", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: generateMachines(1) });
    await using client = await openClient(simulator, { protocol });
    const machine = machineRef([...simulator.machines.keys()][0]!);
    expect((await readSeen(client, machine, ["snapshot"])).get("snapshot")).toBeUndefined();
    simulator.revokePrivilege("System.Read");
    expect((await readObject(client, machine, ["name"])).string("name")).toBeUndefined();
    const failure = readSeen(client, machine, ["name"], { about: "web" });
    await expect(failure).rejects.toMatchObject({ code: "DENIED", message: /reading name of web .*System\.Read/ });
  });

  test("an object that does not exist is not found, by its own words", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator, { protocol });
    const failure = readObject(client, machineRef("vm-999"), ["name"], { about: "web" });
    await expect(failure).rejects.toMatchObject({ code: "NOT_FOUND", message: /web/ });
    const waiting = waitForProperties(client, machineRef("vm-999"), ["name"], () => true);
    await expect(waiting).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("a property that the server does not have is refused, not left out", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator, { protocol });
    const failure = readObject(client, moRef("Datacenter", "datacenter-2"), ["nonsense"]);
    await expect(failure).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  test("a property is followed until it is as wanted", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: [{ name: "web", disks: [] }] });
    await using client = await openClient(simulator, { protocol });
    const { id } = simulator.machine("web");
    const states: (string | undefined)[] = [];
    const waiting = waitForProperties(client, machineRef(id), ["runtime.powerState"], (seen) => {
      states.push(seen.string("runtime.powerState"));
      if (states.length === 1) simulator.powerFailure("web");
      return seen.string("runtime.powerState") === "poweredOff";
    });
    await waiting;
    expect(states).toEqual(["poweredOn", "poweredOff"]);
    expect(simulator.calls.get("DestroyPropertyCollector")).toBe(1);
  });

  test("a wait is longer than any one request may be", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: [{ name: "web", disks: [] }] });
    await using client = await openClient(simulator, { protocol, timeoutMs: 5_000 });
    const machine = machineRef(simulator.machine("web").id);
    const later = setTimeout(() => simulator.powerFailure("web"), 6_000);
    await waitForProperties(client, machine, ["runtime.powerState"], (seen) => {
      return seen.string("runtime.powerState") === "poweredOff";
    });
    clearTimeout(later);
    expect(simulator.calls.get("CreatePropertyCollector")).toBe(1);
    expect(simulator.calls.get("WaitForUpdatesEx")).toBeGreaterThan(2);
  });

  test("a wait ends by its signal", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines: [{ name: "web", disks: [] }] });
    await using client = await openClient(simulator, { protocol });
    const stop = new AbortController();
    const waiting = waitForProperties(
      client,
      machineRef(simulator.machine("web").id),
      ["name"],
      () => {
        stop.abort(new Error("enough"));
        return false;
      },
      { signal: stop.signal },
    );
    await expect(waiting).rejects.toThrow("enough");
  });
});

describe("a wait", () => {
  const update = (inside: string): string =>
    soapAnswer(
      `<WaitForUpdatesExResponse xmlns="urn:vim25"><returnval><version>1</version><filterSet>` +
        `<filter type="PropertyFilter">f</filter><objectSet>${inside}</objectSet></filterSet></returnval></WaitForUpdatesExResponse>`,
    );
  const machine = `<obj type="VirtualMachine">vm-1</obj>`;
  const answerOf = (body: string, updates: string[]): string => {
    const reference = (name: string, type: string): string =>
      soapAnswer(`<${name}Response xmlns="urn:vim25"><returnval type="${type}">x</returnval></${name}Response>`);
    if (body.includes("<CreatePropertyCollector ")) return reference("CreatePropertyCollector", "PropertyCollector");
    if (body.includes("<CreateFilter ")) return reference("CreateFilter", "PropertyFilter");
    if (body.includes("<WaitForUpdatesEx ")) return updates.shift() ?? "";
    return soapAnswer(`<DestroyPropertyCollectorResponse xmlns="urn:vim25"></DestroyPropertyCollectorResponse>`);
  };

  async function follow(updates: string[]): Promise<string | undefined> {
    await using server = await ScriptedServer.start((request, response) => {
      if (!answerLogin(request, response, "vmware_soap_session=x")) response.end(answerOf(request.body, updates));
    });
    const credentials = { userName: "u", password: "p" };
    await using client = await VimClient.connect({ url: server.url, credentials, retryForMs: 0 });
    const seen = await waitForProperties(client, machineRef("vm-1"), ["name"], (properties) => {
      return properties.string("name") === "done";
    });
    return seen.string("name");
  }

  test("goes on through answers in which nothing changed", async () => {
    const nothing = soapAnswer(`<WaitForUpdatesExResponse xmlns="urn:vim25"></WaitForUpdatesExResponse>`);
    const value = (name: string): string =>
      update(
        `<kind>modify</kind>${machine}<changeSet><name>name</name><op>assign</op><val xsi:type="xsd:string">${name}</val></changeSet>`,
      );
    expect(await follow([nothing, value("begun"), nothing, nothing, value("done")])).toBe("done");
  });

  test("ends when the object goes, or its properties may not be seen", async () => {
    const gone = update(`<kind>leave</kind>${machine}`);
    await expect(follow([gone])).rejects.toMatchObject({ code: "NOT_FOUND" });
    const hidden = update(
      `<kind>enter</kind>${machine}<missingSet><path>name</path><fault><fault xsi:type="NoPermission"></fault></fault></missingSet>`,
    );
    await expect(follow([hidden])).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
