import type { Machine, SourceConnector } from "@diskferry/core/provider";
import {
  generateMachines,
  startVcenterSimulator,
  type VcenterSimulator,
  type VcenterSimulatorOptions,
} from "@diskferry/simulators";
import { afterEach, describe, expect, test } from "vitest";
import type { VsphereOptions } from "../../src/options.ts";
import { provider } from "../../src/provider.ts";

const mib = 1 << 20;
const closing: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of closing.splice(0).reverse()) await each[Symbol.asyncDispose]();
});

interface Place {
  readonly simulator: VcenterSimulator;
  readonly source: SourceConnector;
  readonly notices: string[];
}

async function start(options: VcenterSimulatorOptions, more: Partial<VsphereOptions> = {}): Promise<Place> {
  const simulator = await startVcenterSimulator({ tls: false, ...options });
  closing.push(simulator);
  return { simulator, ...(await open(simulator, more)) };
}

async function open(
  simulator: VcenterSimulator,
  more: Partial<VsphereOptions> = {},
): Promise<Omit<Place, "simulator">> {
  const { url, userName: username, password } = simulator;
  const notices: string[] = [];
  const notice = (line: string): void => void notices.push(line);
  const source = await provider.source!({ url, username, password, retrySeconds: 5, ...more }, { notice });
  closing.push(source);
  return { source, notices };
}

async function all(source: SourceConnector): Promise<Machine[]> {
  const found: Machine[] = [];
  for await (const machine of source.machines()) found.push(machine);
  return found;
}

describe.each(["soap", "vi-json"] as const)("by %s", (protocol) => {
  test("a machine is told with all that a launch elsewhere needs", async () => {
    const { simulator, source } = await start(
      {
        machines: [
          {
            name: "web",
            folder: "prod/a",
            cpus: 4,
            memoryMiB: 6144,
            firmware: "efi",
            secureBoot: true,
            tpm: true,
            guestId: "windows2019srv_64Guest",
            guestFullName: "Microsoft Windows Server 2019 (64-bit)",
            bootDisk: 2001,
            tracking: true,
            nics: [
              { mac: "00:50:56:aa:bb:01", network: "front", addresses: ["192.0.2.7", "2001:db8::7"] },
              { mac: "00:50:56:aa:bb:02", network: "back", addresses: [] },
            ],
            disks: [{ size: mib }, { size: 3 * mib, thin: false }],
          },
        ],
      },
      { protocol },
    );
    const machine = await source.machine("web");
    const { instanceUuid, id } = simulator.machine("web");
    expect(machine).toMatchObject({
      id: `${simulator.instanceUuid}/${instanceUuid}`,
      name: "web",
      power: "on",
      spec: {
        name: "web",
        cpus: 4,
        memoryBytes: 6 * 2 ** 30,
        architecture: "x86_64",
        firmware: "uefi",
        secureBoot: true,
        tpm: true,
        guest: "Microsoft Windows Server 2019 (64-bit)",
        guestFamily: "windows",
        guestTools: "guestToolsRunning (guestToolsUnmanaged)",
        networkCards: [
          { mac: "00:50:56:aa:bb:01", network: "front", addresses: ["192.0.2.7", "2001:db8::7"] },
          { mac: "00:50:56:aa:bb:02", network: "back", addresses: [] },
        ],
      },
      data: {
        moref: id,
        instanceUuid,
        path: "DC0/vm/prod/a/web",
        trackingEnabled: true,
        usage: { cpuMhz: 120, memoryBytes: 2 ** 30 },
      },
    });
    expect(machine.disks).toMatchObject([
      { key: "2000", size: mib, name: "Hard disk 1", controller: "scsi", data: { slot: "scsi0:0", thin: true } },
      { key: "2001", size: 3 * mib, boot: true, controller: "scsi", data: { slot: "scsi0:1", thin: false } },
    ]);
    expect(machine.disks[0]).not.toHaveProperty("boot");
    expect(JSON.parse(JSON.stringify(machine))).toEqual(machine);
    const [listed] = await all(source);
    expect(listed).toMatchObject({ id: machine.id, disks: machine.disks });
  });

  test("every disk that cannot be copied says why, before anything starts", async () => {
    const { source } = await start(
      {
        machines: [
          {
            name: "odd",
            disks: [
              { size: mib },
              { size: mib, mode: "independent_persistent" },
              { size: mib, backing: "rdm-physical" },
              { size: mib, backing: "rdm-virtual" },
              { size: mib, shared: true },
              { size: mib, encrypted: true },
            ],
          },
          { name: "clustered", sharedBus: "physicalSharing", disks: [{ size: mib }] },
        ],
      },
      { protocol },
    );
    const reasons = (await source.machine("odd")).disks.map(({ ineligible }) => ineligible?.split(",")[0]);
    expect(reasons).toEqual([
      undefined,
      "it is independent",
      "it is a raw device mapping in physical mode",
      undefined,
      "several machines write to it (multi-writer)",
      "it is encrypted",
    ]);
    expect((await source.machine("clustered")).disks[0]?.ineligible).toMatch(/shares its bus/);
  });

  test("a machine is found by path, moref, UUIDs, name and its own id", async () => {
    const biosUuid = "42000000-0000-4000-8000-00000000000a";
    const { simulator, source } = await start(
      {
        machines: [
          { name: "web", folder: "prod", disks: [], biosUuid },
          { name: "db/1", disks: [] },
        ],
      },
      { protocol },
    );
    const { id, instanceUuid } = simulator.machine("web");
    for (const name of [
      "web",
      "DC0/vm/prod/web",
      "/DC0/vm/prod/web",
      id,
      `moref:${id}`,
      `VirtualMachine:${id}`,
      instanceUuid,
      instanceUuid.toUpperCase(),
      biosUuid,
      `${simulator.instanceUuid}/${instanceUuid}`,
    ]) {
      expect((await source.machine(name)).data, name).toMatchObject({ moref: id });
    }
    for (const name of ["db/1", "db%2f1", "DC0/vm/db%2f1"]) {
      const machine = await source.machine(name);
      expect([machine.name, machine.data?.["path"]]).toEqual(["db/1", "DC0/vm/db%2f1"]);
    }
  });
});

describe("a machine", () => {
  test("that does not exist is not found, and near names are offered", async () => {
    const machines = ["web-1", "web-2", "mail"].map((name) => ({ name, folder: "prod", disks: [] }));
    const { source } = await start({ machines });
    await expect(source.machine("web1")).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: /did you mean web-1, web-2\?/,
    });
    await expect(source.machine("DC0/vm/prod/mial")).rejects.toThrow(/DC0\/vm\/prod\/mail/);
    await expect(source.machine("zzzzzzzzz")).rejects.toThrow(/3 machines are visible/);
    await expect(source.machine("vm-999")).rejects.toMatchObject({ code: "NOT_FOUND" });
    const uuid = "00000000-0000-4000-8000-000000000000";
    await expect(source.machine(uuid)).rejects.toMatchObject({ code: "NOT_FOUND", message: /UUID/ });
    await expect(source.machine("DC0/vm/prod")).rejects.toMatchObject({ code: "NOT_FOUND", message: /is a Folder/ });
  });

  test("of a name that several have is refused with their paths, by either API", async () => {
    const machines = [
      { name: "web", folder: "a", disks: [] },
      { name: "web", folder: "b", disks: [] },
    ];
    for (const version of ["6.7", "8.0.3"] as const) {
      const { source } = await start({ version, machines });
      const failure = source.machine("web");
      await expect(failure).rejects.toMatchObject({ code: "CONFIG_INVALID" });
      await expect(failure).rejects.toThrow(/2 machines.*DC0\/vm\/a\/web \(vm-\d+\), DC0\/vm\/b\/web.*path or moref/s);
      expect((await source.machine("DC0/vm/b/web")).data?.["path"]).toBe("DC0/vm/b/web");
    }
  });

  test("of a UUID that copies share is refused with their paths", async () => {
    const biosUuid = "42000000-0000-4000-8000-00000000000b";
    const { source } = await start({
      machines: [
        { name: "a", disks: [], biosUuid },
        { name: "b", disks: [], biosUuid },
      ],
    });
    await expect(source.machine(biosUuid)).rejects.toThrow(/DC0\/vm\/a .*DC0\/vm\/b /);
  });

  test("that is a template is refused, and neither listed nor offered", async () => {
    const { source, simulator } = await start({
      machines: [
        { name: "golden", template: true, power: "poweredOff", disks: [{ size: mib }] },
        { name: "golde", disks: [{ size: mib }] },
      ],
    });
    const { id } = simulator.machine("golden");
    for (const name of ["golden", id, "DC0/vm/golden"]) {
      await expect(source.machine(name)).rejects.toMatchObject({ code: "UNSUPPORTED", message: /template.*deploy/s });
    }
    expect((await all(source)).map(({ name }) => name)).toEqual(["golde"]);
    await expect(source.machine("goldenn")).rejects.not.toThrow(/golden[,?]/);
  });

  test("of another vCenter is told from one of the same UUID here", async () => {
    const instanceUuid = "50000000-0000-4000-8000-00000000000c";
    const machines = [{ name: "web", disks: [], instanceUuid }];
    const one = await start({ machines });
    const other = await start({ machines });
    const there = await one.source.machine("web");
    const here = await other.source.machine("web");
    expect(there.id).not.toBe(here.id);
    await expect(other.source.machine(there.id)).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: new RegExp(`belongs to the vCenter ${one.simulator.instanceUuid}`),
    });
  });

  test("keeps its id and its disks' keys when it moves to another host and another disk goes", async () => {
    const { simulator, source } = await start({
      hosts: 2,
      machines: [{ name: "web", disks: [{ size: mib }, { size: 2 * mib }, { size: 3 * mib }] }],
    });
    const before = await source.machine("web");
    simulator.migrate("web", 1);
    simulator.removeDisk("web", 2001);
    simulator.takeSnapshot("web", "by somebody");
    const after = await source.machine(before.id);
    expect(after.id).toBe(before.id);
    expect(after.data?.["host"]).not.toBe(before.data?.["host"]);
    expect(after.disks.map(({ key, size }) => [key, size])).toEqual([
      ["2000", mib],
      ["2002", 3 * mib],
    ]);
    expect(after.disks[1]?.data?.["uuid"]).toBe(before.disks[2]?.data?.["uuid"]);
  });

  test("of a host by itself is known by the host's hardware", async () => {
    const { simulator, source } = await start({ kind: "esxi", machines: [{ name: "web", disks: [{ size: mib }] }] });
    const machine = await source.machine("web");
    const { instanceUuid, id } = simulator.machine("web");
    expect(machine.id).toBe(`4c4c4544-0000-4000-8000-000000000000/${instanceUuid}`);
    expect((await source.machine(id)).id).toBe(machine.id);
    expect(machine.data?.["path"]).toBe("ha-datacenter/vm/web");
  });
});

describe("a place", () => {
  test("of one datacenter shows and finds its machines alone", async () => {
    const machines = [
      { name: "web", disks: [] },
      { name: "web", datacenter: "DC1", folder: "prod", disks: [] },
      { name: "mail", disks: [] },
    ];
    const { source } = await start({ moreDatacenters: ["DC1"], machines }, { datacenter: "DC1" });
    expect((await all(source)).map(({ data }) => data?.["path"])).toEqual(["DC1/vm/prod/web"]);
    expect((await source.machine("web")).data?.["path"]).toBe("DC1/vm/prod/web");
    expect((await source.machine("prod/web")).data?.["path"]).toBe("DC1/vm/prod/web");
    await expect(source.machine("mail")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("of a datacenter that is not there names those that are", async () => {
    const { source } = await start({ moreDatacenters: ["Other"] }, { datacenter: "DC9" });
    await expect(all(source)).rejects.toMatchObject({ code: "NOT_FOUND", message: /DC0, Other/ });
  });

  test("of one machine shows that one alone", async () => {
    const machines = generateMachines(3);
    const { source } = await start({ machines }, { machine: "machine-00001" });
    expect((await all(source)).map(({ name }) => name)).toEqual(["machine-00001"]);
  });

  test("gives its first machines before the last are asked for, and stops asking when left", async () => {
    const { source, simulator } = await start({ machines: generateMachines(350), pageSize: 100 });
    for await (const machine of source.machines()) {
      expect(machine.disks).toHaveLength(1);
      break;
    }
    expect(simulator.calls.get("ContinueRetrievePropertiesEx")).toBeUndefined();
    expect((await all(source)).map(({ data }) => data?.["path"]).at(-1)).toBe("DC0/vm/folder-003/machine-00349");
  });

  test("that is closed leaves no session, after the Automation API was used as well", async () => {
    const { simulator, source } = await start({ machines: [{ name: "web", disks: [] }] });
    await source.machine("web");
    expect(simulator.alive.sessions).toBe(2);
    await source[Symbol.asyncDispose]();
    expect(simulator.alive.sessions).toBe(0);
  });
});

describe("a name", () => {
  test("is looked up by the Automation API, and by vim25 where that fails", async () => {
    const { simulator, source, notices } = await start({ machines: generateMachines(350) });
    expect((await source.machine("machine-00007")).name).toBe("machine-00007");
    expect(simulator.calls.get("CreateContainerView")).toBeUndefined();
    expect(notices).toEqual([]);
    const remove = simulator.inject({
      method: "GET /api/vcenter/vm",
      action: { kind: "status", status: 503 },
    });
    expect((await source.machine("machine-00008")).name).toBe("machine-00008");
    expect(simulator.calls.get("CreateContainerView")).toBe(1);
    expect(notices.join()).toMatch(/listed by vim25 instead/);
    remove();
  });
});
