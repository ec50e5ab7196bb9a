import { afterEach, describe, expect, test } from "vitest";
import type { VcenterSimulator, VcenterSimulatorOptions } from "../../src/vcenter/vcenter-simulator.ts";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { ask, VimClient } from "./vim-client.ts";

const open: VcenterSimulator[] = [];
const mib = 1 << 20;

afterEach(async () => {
  for (const each of open.splice(0)) await each.stop();
});

async function start(options: VcenterSimulatorOptions): Promise<{ simulator: VcenterSimulator; client: VimClient }> {
  const simulator = await startVcenterSimulator({ tls: false, ...options });
  open.push(simulator);
  return { simulator, client: await new VimClient(simulator).login() };
}

describe("several datacenters", () => {
  const options: VcenterSimulatorOptions = {
    moreDatacenters: ["DC1"],
    hosts: 2,
    machines: [
      { name: "web", disks: [{ size: mib }] },
      { name: "web", datacenter: "DC1", host: 1, disks: [{ size: 2 * mib }] },
    ],
  };

  test("have folders, hosts and machines of their own", async () => {
    const { client } = await start(options);
    const find = async (path: string): Promise<string | undefined> =>
      (
        await client.call(
          "FindByInventoryPath",
          ["SearchIndex", "SearchIndex"],
          `<inventoryPath>${path}</inventoryPath>`,
        )
      ).string("returnval");
    const [one, other] = [await find("DC0/vm/web"), await find("DC1/vm/web")];
    expect([one, other]).toEqual(["vm-101", "vm-102"]);
    const host = async (machine: string): Promise<string | undefined> =>
      (await client.properties(["VirtualMachine", machine], "runtime.host")).get("runtime.host")?.text;
    expect(await host("vm-101")).toBe("host-9");
    expect(await host("vm-102")).toBe("host-33");
    const onHost = await client.properties(["HostSystem", "host-33"], "vm", "name");
    expect(onHost.get("vm")?.children.map(({ text }) => text)).toEqual(["vm-102"]);
    expect(onHost.get("name")?.text).toBe("esx22.example.org");
  });

  test("tell equal paths on their datastores apart by the datacenter", async () => {
    const { simulator, client } = await start(options);
    simulator.machine("vm-101").shutDown();
    simulator.machine("vm-102").shutDown();
    const length = async (datacenter: string): Promise<number> => {
      const url = `${simulator.url}/folder/web/web-flat.vmdk?dcPath=${datacenter}&dsName=datastore1`;
      const answer = await ask(url, { method: "HEAD", headers: { cookie: client.cookie ?? "" } });
      return Number(answer.headers["content-length"]);
    };
    expect(await length("DC0")).toBe(mib);
    expect(await length("DC1")).toBe(2 * mib);
  });

  test("keep a machine that migrates to another host", async () => {
    const { simulator, client } = await start(options);
    simulator.migrate("vm-101", 1);
    const { id } = simulator.machine("vm-101");
    expect((await client.properties(["VirtualMachine", id], "runtime.host")).get("runtime.host")?.text).toBe("host-13");
    expect(() => simulator.migrate("vm-101", 2)).toThrow(RangeError);
  });
});

describe("disks", () => {
  const options: VcenterSimulatorOptions = {
    machines: [{ name: "web", disks: [{ size: mib }, { size: mib }], tracking: true }],
  };

  test("come and go by ReconfigVM, and a new one is tracked from the next stun on", async () => {
    const { simulator, client } = await start(options);
    const change = (inside: string): Promise<string> =>
      client.task(
        "ReconfigVM_Task",
        ["VirtualMachine", "vm-101"],
        `<spec><deviceChange>${inside}</deviceChange></spec>`,
      );
    await change(
      `<operation>add</operation><fileOperation>create</fileOperation>` +
        `<device xsi:type="VirtualDisk"><key>-1</key><capacityInKB>2048</capacityInKB></device>`,
    );
    expect([...simulator.machine("web").disks.keys()]).toEqual([2000, 2001, 2002]);
    const first = await client.snapshot("vm-101");
    expect(await client.changeId(first, 2002)).toBeUndefined();
    await client.remove(first);
    const second = await client.snapshot("vm-101");
    expect(await client.changeId(second, 2002)).toMatch(/\/\d+$/);
    await client.remove(second);
    await change(`<operation>remove</operation><device xsi:type="VirtualDisk"><key>2001</key></device>`);
    expect([...simulator.machine("web").disks.keys()]).toEqual([2000, 2002]);
    await expect(
      change(`<operation>remove</operation><device xsi:type="VirtualDisk"><key>2001</key></device>`),
    ).rejects.toMatchObject({ type: "InvalidArgument" });
  });

  test("a snapshot keeps what it froze of a disk that was taken away", async () => {
    const { simulator, client } = await start(options);
    const bytes = new Uint8Array(512).fill(7);
    simulator.write("web", 2001, 0, bytes);
    const snapshot = await client.snapshot("vm-101");
    simulator.removeDisk("web", 2001);
    const devices = await client.properties(["VirtualMachineSnapshot", snapshot], "config.hardware.device");
    const keys = devices.get("config.hardware.device")?.children.map((each) => each.string("key"));
    expect(keys).toContain("2001");
    expect(simulator.addDisk("web", { size: mib })).toBe(2001);
  });
});

describe("what a plan asks", () => {
  test("privileges are told by session, and an unknown name is never granted", async () => {
    const { client } = await start({ missingPrivileges: ["VirtualMachine.State.CreateSnapshot"] });
    const session = (await client.properties(["SessionManager", "SessionManager"], "currentSession"))
      .get("currentSession")
      ?.string("key");
    const ask = async (key: string): Promise<[string | undefined, string | undefined][]> => {
      const answer = await client.call(
        "HasPrivilegeOnEntities",
        ["AuthorizationManager", "AuthorizationManager"],
        `<entity type="Folder">group-d1</entity><sessionId>${key}</sessionId>` +
          ["Datastore.Browse", "VirtualMachine.State.CreateSnapshot", "No.Such"]
            .map((id) => `<privId>${id}</privId>`)
            .join(""),
      );
      const found = answer.child("returnval")?.all("privAvailability") ?? [];
      return found.map((each) => [each.string("privId"), each.string("isGranted")]);
    };
    expect(await ask(session ?? "")).toEqual([
      ["Datastore.Browse", "true"],
      ["VirtualMachine.State.CreateSnapshot", "false"],
      ["No.Such", "false"],
    ]);
    await expect(ask("another")).rejects.toMatchObject({ type: "InvalidArgument" });
  });

  test("a UUID that several machines share is told with all of them", async () => {
    const biosUuid = "42000000-0000-4000-8000-000000000001";
    const { client } = await start({
      machines: [
        { name: "a", disks: [], biosUuid },
        { name: "b", disks: [], biosUuid },
      ],
    });
    const answer = await client.call(
      "FindAllByUuid",
      ["SearchIndex", "SearchIndex"],
      `<uuid>${biosUuid}</uuid><vmSearch>true</vmSearch><instanceUuid>false</instanceUuid>`,
    );
    expect(answer.strings("returnval")).toEqual(["vm-101", "vm-102"]);
  });

  test("a host's counters are told for the samples asked", async () => {
    const { client } = await start({});
    const counters = (await client.properties(["PerformanceManager", "PerfMgr"], "perfCounter")).get("perfCounter");
    const cpu = counters?.children.find((each) => each.child("groupInfo")?.string("key") === "cpu")?.string("key");
    const query = (entity: string): Promise<unknown> =>
      client.call(
        "QueryPerf",
        ["PerformanceManager", "PerfMgr"],
        `<querySpec>${entity}<maxSample>2</maxSample><metricId><counterId>${cpu}</counterId><instance></instance></metricId>` +
          `<intervalId>20</intervalId></querySpec>`,
      );
    expect(await query(`<entity type="HostSystem">host-9</entity>`)).toMatchObject({
      children: [
        { xsiType: "PerfEntityMetric", children: expect.arrayContaining([expect.objectContaining({ name: "value" })]) },
      ],
    });
    await expect(query(`<entity type="HostSystem">host-1</entity>`)).rejects.toMatchObject({
      type: "ManagedObjectNotFound",
    });
  });
});

test("a collector of an ended session is gone, and does not wait as if it were there", async () => {
  const { simulator, client } = await start({});
  const collector = (await client.call("CreatePropertyCollector", ["PropertyCollector", "propertyCollector"])).string(
    "returnval",
  );
  simulator.expireSessions();
  await client.login();
  const wait = client.call(
    "WaitForUpdatesEx",
    ["PropertyCollector", collector ?? ""],
    "<version></version><options><maxWaitSeconds>1</maxWaitSeconds></options>",
  );
  await expect(wait).rejects.toMatchObject({ type: "ManagedObjectNotFound" });
});
