import { afterEach, describe, expect, test } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import type { VcenterSimulator, VcenterSimulatorOptions } from "../../src/vcenter/vcenter-simulator.ts";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import type { DiskSpec } from "../../src/vcenter/virtual-disk.ts";
import { ask, VimClient } from "./vim-client.ts";

const size = 1 << 20;
const open: VcenterSimulator[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each.stop();
});

async function start(
  disks: readonly DiskSpec[],
  options: VcenterSimulatorOptions = {},
): Promise<{ simulator: VcenterSimulator; client: VimClient; vm: string }> {
  const machines = [{ name: "web", disks, tracking: true }];
  const simulator = await startVcenterSimulator({ tls: false, machines, ...options });
  open.push(simulator);
  return { simulator, client: await new VimClient(simulator).login(), vm: simulator.machine("web").id };
}

async function leasedFiles(client: VimClient, snapshot: string): Promise<{ key: string; url: string }[]> {
  const answer = await client.call("ExportSnapshot", ["VirtualMachineSnapshot", snapshot]);
  const self: [string, string] = ["HttpNfcLease", answer.string("returnval") ?? ""];
  await expect.poll(async () => (await client.properties(self, "state")).get("state")?.text).toBe("ready");
  const info = (await client.properties(self, "info")).get("info");
  return (info?.all("deviceUrl") ?? []).map((each) => ({
    key: each.string("key") ?? "",
    url: each.string("url") ?? "",
  }));
}

describe("controllers", () => {
  const disks: DiskSpec[] = [
    { size, controller: "lsilogic" },
    { size, controller: "lsilogic" },
    { size, controller: "pvscsi" },
    { size, controller: "sata" },
    { size, controller: "nvme" },
    { size, controller: "ide" },
    { size, controller: "ide" },
    { size, controller: "ide" },
  ];

  test("have vSphere's keys, and their disks' keys, units and flags of tracking", async () => {
    const { client, vm } = await start(disks);
    const read = await client.properties(["VirtualMachine", vm], "config.hardware.device", "config.extraConfig");
    const devices = read.get("config.hardware.device")?.children ?? [];
    const seen = devices
      .filter(({ xsiType }) => xsiType === "VirtualDisk")
      .map((each) => {
        const controller = devices.find((other) => other.string("key") === each.string("controllerKey"));
        expect(controller?.strings("device")).toContain(each.string("key"));
        return `${each.string("key")} at ${controller?.xsiType} ${controller?.string("busNumber")}:${each.string("unitNumber")}`;
      });
    expect(seen).toEqual([
      "2000 at VirtualLsiLogicController 0:0",
      "2001 at VirtualLsiLogicController 0:1",
      "2016 at ParaVirtualSCSIController 1:0",
      "16000 at VirtualAHCIController 0:0",
      "32000 at VirtualNVMEController 0:0",
      "3000 at VirtualIDEController 0:0",
      "3001 at VirtualIDEController 0:1",
      "3002 at VirtualIDEController 1:0",
    ]);
    const flags = (read.get("config.extraConfig")?.children ?? []).map((each) => each.string("key"));
    expect(flags).toEqual(
      ["scsi0:0", "scsi0:1", "scsi1:0", "sata0:0", "nvme0:0", "ide0:0", "ide0:1", "ide1:0"].map(
        (slot) => `${slot}.ctkEnabled`,
      ),
    );
  });

  test("are named in the keys of leased files", async () => {
    const { client, vm } = await start(disks);
    const snapshot = await client.snapshot(vm);
    const files = await leasedFiles(client, snapshot);
    expect(files.map(({ key }) => key.slice(key.lastIndexOf("/") + 1))).toEqual([
      "VirtualLsiLogicController0:0",
      "VirtualLsiLogicController0:1",
      "ParaVirtualSCSIController1:0",
      "VirtualAHCIController0:0",
      "VirtualNVMEController0:0",
      "VirtualIDEController0:0",
      "VirtualIDEController0:1",
      "VirtualIDEController1:0",
    ]);
  });

  test("have room for so many disks", async () => {
    await expect(start(Array.from({ length: 5 }, () => ({ size, controller: "ide" })))).rejects.toThrow(/no free slot/);
    const { simulator } = await start(Array.from({ length: 16 }, () => ({ size })));
    expect([...simulator.machine("web").disks.keys()].slice(-2)).toEqual([2015, 2016]);
  });
});

describe("datastores", () => {
  const moreDatastores = [
    { name: "nas", type: "NFS" },
    { name: "objects", type: "vsan" },
  ] as const;
  const disks: DiskSpec[] = [{ size }, { size, datastore: "nas" }, { size, datastore: "objects" }];

  test("are the machine's where its disks are, each with its type", async () => {
    const { client, vm, simulator } = await start(disks, { moreDatastores });
    const stores = (await client.properties(["VirtualMachine", vm], "datastore")).get("datastore")?.children ?? [];
    const types = [];
    for (const { text } of stores) {
      const summary = (await client.properties(["Datastore", text], "summary")).get("summary");
      types.push(`${summary?.string("name")} ${summary?.string("type")}`);
    }
    expect(types).toEqual(["datastore1 VMFS", "nas NFS", "objects vsan"]);
    const names = [...simulator.machine(vm).disks.values()].map(({ current }) => current.fileName);
    expect(names[0]).toBe("[datastore1] web/web.vmdk");
    expect(names[1]).toBe("[nas] web/web.vmdk");
    expect(names[2]).toMatch(/^\[objects\] [0-9a-f-]{36}\/web\.vmdk$/);
  });

  test("give flat files away, but for vSAN, where a disk is an object, and for raw device mappings", async () => {
    const { client, simulator, vm } = await start([...disks, { size, backing: "rdm-virtual" }], { moreDatastores });
    simulator.machine(vm).shutDown();
    const get = async (name: string): Promise<[number, string]> => {
      const [, store = "", path = ""] = /^\[(.*)\] (.*)$/.exec(name) ?? [];
      const url = `${simulator.url}/folder/${path}?dcPath=DC0&dsName=${store}`;
      const { status, bytes } = await ask(url, { headers: { cookie: client.cookie ?? "" } });
      return [status, bytes.toString("latin1", 0, 2000)];
    };
    const statuses = [];
    const extents = [];
    for (const { current } of simulator.machine(vm).disks.values()) {
      statuses.push((await get(current.fileName.replace(/\.vmdk$/, "-flat.vmdk")))[0]);
      const [, text] = await get(current.fileName);
      extents.push(/^RW 2048 (.*)$/m.exec(text)?.[1]);
    }
    expect(statuses).toEqual([200, 200, 404, 404]);
    expect(extents).toEqual([
      'VMFS "web-flat.vmdk"',
      'VMFS "web-flat.vmdk"',
      expect.stringMatching(/^VMFS "vsan:\/\/[0-9a-f-]{36}"$/),
      'VMFSRDM "web_1-rdm.vmdk"',
    ]);
  });

  test("answer `*` by what is allocated on VMFS alone", async () => {
    const { client, simulator, vm } = await start(disks, { moreDatastores });
    for (const key of [2000, 2001, 2002]) simulator.write(vm, key, 65_536, randomBytes(512, key));
    const snapshot = await client.snapshot(vm);
    expect(await client.allAreas(vm, snapshot, 2000, "*")).toEqual([[65_536, 65_536]]);
    for (const key of [2001, 2002]) expect(await client.allAreas(vm, snapshot, key, "*")).toEqual([[0, size]]);
  });

  test.for([
    ["VMFS", [true, true]],
    ["vsan", [true, false]],
  ] as const)("on %s a lease over two disks gives bytes of %j", async ([datastoreType, given]) => {
    const { client, simulator, vm } = await start([{ size }, { size }], { datastoreType });
    for (const key of [2000, 2001]) simulator.write(vm, key, 0, randomBytes(512, key));
    const files = await leasedFiles(client, await client.snapshot(vm));
    const answers = [];
    for (const { url } of files) answers.push(await ask(url, { headers: { cookie: client.cookie ?? "" } }));
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect(answers.map(({ bytes }) => bytes.length > 0)).toEqual(given);
  });
});
