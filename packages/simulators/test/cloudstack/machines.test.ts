import { open, stat } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startCloudstackSimulator, type CloudstackSimulator } from "../../src/cloudstack/cloudstack-simulator.ts";
import { ApiClient, until } from "./api-client.ts";

const mib = 2 ** 20;
const gib = 2 ** 30;

describe("a machine", () => {
  let simulator: CloudstackSimulator;
  let client: ApiClient;
  beforeAll(async () => {
    simulator = await startCloudstackSimulator();
    client = new ApiClient(simulator);
  });
  afterAll(() => simulator.close());

  it("is deployed from a template with networks, addresses, firmware and details", async () => {
    const { networks, serviceOfferings } = simulator;
    const id = await client.machine("web-1", {
      serviceofferingid: serviceOfferings["Custom Instance"] ?? "",
      "details[0].cpuNumber": "4",
      "details[0].cpuSpeed": "1000",
      "details[0].memory": "8192",
      "details[0].rootDiskController": "scsi",
      "iptonetworklist[0].networkid": networks["isolated-test"] ?? "",
      "iptonetworklist[0].ip": "10.1.2.77",
      "iptonetworklist[0].mac": "02:01:02:03:04:05",
      boottype: "UEFI",
      bootmode: "SECURE",
      rootdisksize: "2",
    });
    const [machine] = (await client.call("listVirtualMachines", { id })).virtualmachine;
    expect(machine).toMatchObject({
      name: "web-1",
      state: "Stopped",
      cpunumber: 4,
      memory: 8192,
      boottype: "Uefi",
      bootmode: "secure",
      details: { rootDiskController: "scsi", UEFI: "SECURE" },
      nic: [{ ipaddress: "10.1.2.77", macaddress: "02:01:02:03:04:05", networkname: "isolated-test", isdefault: true }],
    });
    const [root] = (await client.call("listVolumes", { virtualmachineid: id })).volume;
    expect(root).toMatchObject({ type: "ROOT", deviceid: 0, size: 2 * gib, state: "Ready" });
    expect((await simulator.volumeBytes(root.id, 0, 28)).toString()).toBe("the simulated template's roo");
    await client.done("startVirtualMachine", { id });
    expect(simulator.machineState(id)).toBe("Running");
    await client.done("addNicToVirtualMachine", { virtualmachineid: id, networkid: networks["production"] ?? "" });
    const [grown] = (await client.call("listVirtualMachines", { id })).virtualmachine;
    expect(grown.nic.map((each) => each.networkname)).toEqual(["isolated-test", "production"]);
  });

  it("of an offering with a choice wants the details in their own case", async () => {
    const custom = { serviceofferingid: simulator.serviceOfferings["Custom Instance"] ?? "" };
    const sent = client.machine("web-2", {
      ...custom,
      "details[0].cpunumber": "4",
      "details[0].cpuspeed": "1000",
      "details[0].memory": "8192",
    });
    await expect(sent).rejects.toThrow(/Need to specify custom parameter values cpu, cpu speed and memory/);
  });

  it.each([
    { what: "a name with a dot", parameters: { name: "web.example" }, code: 431, text: /^Invalid name/ },
    { what: "an offering that is none", parameters: { serviceofferingid: "x" }, code: 431, text: /serviceofferingid/ },
    {
      what: "a network that is none",
      parameters: { networkids: "x" },
      code: 431,
      text: /Unable to find network by id x/,
    },
    { what: "a mode without its firmware", parameters: { bootmode: "SECURE" }, code: 431, text: /boot mode SECURE/ },
    {
      what: "brackets without a number",
      parameters: { "details[a].memory": "1" },
      code: 430,
      text: /Unable to decode/,
    },
  ])("with $what is refused", async ({ parameters, code, text }) => {
    const good = {
      name: "ok",
      zoneid: simulator.zoneId,
      serviceofferingid: simulator.serviceOfferings["Small Instance"] ?? "",
      templateid: simulator.templates["tiny Linux"] ?? "",
    };
    const { status, body } = await client.send("deployVirtualMachine", { ...good, ...parameters });
    expect(status).toBe(code);
    expect(body.errortext).toMatch(text);
  });

  it("is changed in operating system, and in details all at once: what is left out is gone, firmware too", async () => {
    const id = await client.machine("changed", { "details[0].nicAdapter": "e1000", boottype: "UEFI" });
    const types = (await client.call("listOsTypes")).ostype;
    const windows = types.find((each) => each.description.startsWith("Windows Server 2022"))?.id ?? "";
    const changed = await client.call("updateVirtualMachine", {
      id,
      ostypeid: windows,
      "details[0].rootDiskController": "sata",
    });
    expect(changed.virtualmachine).toMatchObject({ ostypeid: windows, details: { rootDiskController: "sata" } });
    expect(changed.virtualmachine.details.nicAdapter).toBeUndefined();
    expect(changed.virtualmachine).not.toHaveProperty("boottype");
  });

  it("gets another root volume while it is stopped, and without one does not start", async () => {
    const id = await client.machine("swapped");
    const [old] = (await client.call("listVolumes", { virtualmachineid: id })).volume;
    const replica = await client.volume("replica");
    await client.done("attachVolume", { id: replica, virtualmachineid: simulator.appliance.id });
    await simulator.writeVolume(replica, 0, Buffer.from("the replica"));
    await client.done("detachVolume", { id: replica });

    const early = await client.job("attachVolume", { id: replica, virtualmachineid: id, deviceid: "0" });
    expect(early.jobresult.errortext).toBe("Vm already has root volume attached to it");
    await client.done("startVirtualMachine", { id });
    const running = await client.job("detachVolume", { id: old.id });
    expect(running.jobresult.errortext).toMatch(/^Root volume detach can happen only when vm is in states: Stopped/);
    await client.done("stopVirtualMachine", { id });

    expect((await client.done("detachVolume", { id: old.id })).volume.type).toBe("DATADISK");
    const rootless = await client.job("startVirtualMachine", { id });
    expect(rootless.jobstatus).toBe(2);
    const attached = await client.done("attachVolume", { id: replica, virtualmachineid: id, deviceid: "0" });
    expect(attached.volume).toMatchObject({ type: "ROOT", deviceid: 0 });
    await client.done("startVirtualMachine", { id });
    expect((await client.call("deleteVolume", { id: old.id })).success).toBe(true);
    expect(simulator.volumesOf(id)).toEqual([replica]);
  });

  it("on managed storage keeps its root volume", async () => {
    const id = await client.machine("plain");
    const [root] = simulator.volumesOf(id);
    const managed = await client.volume("managed", 1, {
      diskofferingid: simulator.diskOfferings["Custom Managed"] ?? "",
    });
    await client.done("attachVolume", { id: managed, virtualmachineid: simulator.appliance.id });
    await client.done("detachVolume", { id: managed });
    await client.done("detachVolume", { id: root ?? "" });
    const job = await client.job("attachVolume", { id: managed, virtualmachineid: id, deviceid: "0" });
    expect(job.jobresult.errortext).toBe("Root volume detach is not supported for Managed DataStores");
  });

  it("is destroyed with its data volumes set free, and expunged by whom the server lets", async () => {
    const id = await client.machine("short-lived");
    const [root] = simulator.volumesOf(id);
    const [data, doomed] = [await client.volume("kept"), await client.volume("doomed")];
    for (const volume of [data, doomed]) await client.done("attachVolume", { id: volume, virtualmachineid: id });
    const refused = await client.job("destroyVirtualMachine", { id, expunge: "true" });
    expect(refused.jobresult).toMatchObject({
      errorcode: 530,
      errortext: "Account does not have permission for expunging.",
    });
    await client.done("destroyVirtualMachine", { id, volumeids: doomed });
    expect(simulator.machineState(id)).toBe("Destroyed");
    expect(await client.call("listVirtualMachines", { id })).toEqual({});
    const left = simulator.volumes();
    expect(left.find((each) => each.id === data)).toMatchObject({ machineId: undefined, state: "Ready" });
    expect(left.find((each) => each.id === root)).toMatchObject({ machineId: id, type: "ROOT" });
    expect(left.some((each) => each.id === doomed)).toBe(false);
    const admin = new ApiClient(simulator, simulator.admin);
    await admin.done("expungeVirtualMachine", { id });
    expect(simulator.volumes().some((each) => each.id === root)).toBe(false);
  });

  it("that stops takes the appliance's open devices with it", async () => {
    await using own = await startCloudstackSimulator();
    const person = new ApiClient(own);
    const id = await person.volume("v");
    await person.done("attachVolume", { id, virtualmachineid: own.appliance.id });
    await until(async () => stat(own.appliance.linkOf(id)).then(Boolean, () => false));
    await using device = await open(own.appliance.linkOf(id), "r+");
    await person.done("stopVirtualMachine", { id: own.appliance.id });
    await device.write(Buffer.from("late"), 0, 4, 0);
    expect((await own.volumeBytes(id, 0, 4)).equals(Buffer.alloc(4))).toBe(true);
    await person.done("startVirtualMachine", { id: own.appliance.id });
    expect((await stat(own.appliance.linkOf(id))).size).toBe(gib);
  });
});

describe("deploying a volume or a snapshot", () => {
  it("needs 4.21 and a template behind it, on zone-wide storage", async () => {
    await using simulator = await startCloudstackSimulator({ version: "4.21.0.0" });
    const client = new ApiClient(simulator);
    const id = await client.machine("donor");
    const [root] = simulator.volumesOf(id);
    await client.done("detachVolume", { id: root ?? "" });
    await expect(
      client.machine("no-template", { templateid: "", volumeid: await client.volume("blank") }),
    ).rejects.toThrow(/supported only for Zone-wide storage pools/);
    const blank = await client.volume("placed");
    await client.done("attachVolume", { id: blank, virtualmachineid: simulator.appliance.id });
    await expect(client.machine("attached", { templateid: "", volumeid: blank })).rejects.toThrow(
      /doesn't have a template to deploy a VM/,
    );
    const machine = await client.machine("deployed", { templateid: "", volumeid: root ?? "" });
    expect(simulator.volumesOf(machine)).toEqual([root]);

    const snapshot = await client.done("createSnapshot", { volumeid: root ?? "" });
    const clone = await client.machine("test-clone", { templateid: "", snapshotid: snapshot.snapshot.id });
    const [cloned] = simulator.volumesOf(clone);
    expect(cloned).not.toBe(root);
    expect((await simulator.volumeBytes(cloned ?? "", 0, 28)).toString()).toBe("the simulated template's roo");
    const both = client.machine("both", { snapshotid: snapshot.snapshot.id });
    await expect(both).rejects.toThrow(/Please provide only one of/);
  });

  it("passes the template on to a volume made of a root volume's snapshot, with any custom size", async () => {
    await using simulator = await startCloudstackSimulator({ version: "4.22.0.0" });
    const client = new ApiClient(simulator);
    const donor = await client.machine("donor");
    const [root] = simulator.volumesOf(donor);
    const { snapshot } = await client.done("createSnapshot", { volumeid: root ?? "" });
    const id = await client.volume("replica", 3, { snapshotid: snapshot.id });
    const machine = await client.machine("launched", { templateid: "", volumeid: id });
    expect(simulator.volumesOf(machine)).toEqual([id]);
    expect(simulator.volumes().find((each) => each.id === id)?.size).toBe(3 * gib);
  });

  it("is unknown before 4.21: the template is missing", async () => {
    await using simulator = await startCloudstackSimulator({ version: "4.20.0.0" });
    const client = new ApiClient(simulator);
    const sent = client.machine("old", { templateid: "", volumeid: "any" });
    await expect(sent).rejects.toThrow(/due to missing parameter templateid/);
  });
});

describe("a snapshot", () => {
  const disks = [8 * mib, 4 * mib];

  it("keeps its moment while the guest writes on, and becomes a volume", async () => {
    await using simulator = await startCloudstackSimulator({ machines: [{ name: "db", disks }] });
    const client = new ApiClient(simulator);
    const [, data] = simulator.volumesOf(simulator.machines[0] ?? "");
    await simulator.writeVolume(data ?? "", 0, Buffer.from("before"));
    const { snapshot } = await client.done("createSnapshot", { volumeid: data ?? "", name: "point" });
    await simulator.writeVolume(data ?? "", 0, Buffer.from("after!"));
    expect(snapshot).toMatchObject({ name: "point", state: "BackedUp", volumeid: data, chainsize: 1 });
    const clone = await client.done("createVolume", { snapshotid: snapshot.id, name: "clone" });
    expect(clone.volume).toMatchObject({ size: 4 * mib, state: "Ready" });
    expect((await simulator.volumeBytes(clone.volume.id, 0, 6)).toString()).toBe("before");
    const named = {
      snapshotid: snapshot.id,
      name: "c",
      diskofferingid: simulator.diskOfferings["Custom"] ?? "",
      size: "1",
    };
    expect((await client.send("createVolume", named)).body.errortext).toMatch(/^Disk Offering ID cannot be passed/);
    const second = await client.done("createSnapshot", { volumeid: data ?? "" });
    expect(second.snapshot).toMatchObject({ parent: snapshot.id, chainsize: 2 });
    await client.done("deleteSnapshot", { id: snapshot.id });
    expect((await client.call("listSnapshots", { volumeid: data ?? "" })).count).toBe(1);
  });

  it("of a running machine is refused before 4.22, by the job", async () => {
    await using simulator = await startCloudstackSimulator({ version: "4.21.0.0", machines: [{ name: "db", disks }] });
    const client = new ApiClient(simulator);
    const [root] = simulator.volumesOf(simulator.machines[0] ?? "");
    const job = await client.job("createSnapshot", { volumeid: root ?? "" });
    expect(job.jobresult.errortext).toMatch(/^KVM Snapshot is not supported for Running VMs/);
    await client.done("stopVirtualMachine", { id: simulator.machines[0] ?? "" });
    await client.done("createSnapshot", { volumeid: root ?? "" });
  });

  it("is reverted to only while the machine is stopped", async () => {
    await using simulator = await startCloudstackSimulator({ machines: [{ name: "db", disks }] });
    const client = new ApiClient(simulator);
    const id = simulator.machines[0] ?? "";
    const [root] = simulator.volumesOf(id);
    await simulator.writeVolume(root ?? "", 0, Buffer.from("old"));
    const { snapshot } = await client.done("createSnapshot", { volumeid: root ?? "" });
    await simulator.writeVolume(root ?? "", 0, Buffer.from("new"));
    expect((await client.job("revertSnapshot", { id: snapshot.id })).jobresult.errortext).toMatch(/shutdown state/);
    await client.done("stopVirtualMachine", { id });
    await client.done("revertSnapshot", { id: snapshot.id });
    expect((await simulator.volumeBytes(root ?? "", 0, 3)).toString()).toBe("old");
  });

  it("of a machine holds all disks at one moment, and gives each as a snapshot only with memory", async () => {
    await using simulator = await startCloudstackSimulator({ machines: [{ name: "db", disks }] });
    const client = new ApiClient(simulator);
    const id = simulator.machines[0] ?? "";
    const volumes = simulator.volumesOf(id);
    for (const volume of volumes) await simulator.writeVolume(volume, 0, Buffer.from("one"));
    const made = await client.done("createVMSnapshot", { virtualmachineid: id, snapshotmemory: "true" });
    expect(made.vmsnapshot).toMatchObject({ type: "DiskAndMemory", state: "Ready" });
    for (const volume of volumes) await simulator.writeVolume(volume, 0, Buffer.from("two"));
    const vmsnapshotid = made.vmsnapshot.id;
    for (const volumeid of volumes) {
      const { snapshot } = await client.done("createSnapshotFromVMSnapshot", { vmsnapshotid, volumeid });
      const { volume } = await client.done("createVolume", { snapshotid: snapshot.id, name: "c" });
      expect((await simulator.volumeBytes(volume.id, 0, 3)).toString()).toBe("one");
    }
    const job = await client.job("detachVolume", { id: volumes[1] ?? "" });
    expect(job.jobresult.errortext).toMatch(/please specify a VM that does not have VM snapshots/);
    await client.done("deleteVMSnapshot", { vmsnapshotid });

    const light = await client.done("createVMSnapshot", { virtualmachineid: id });
    const given = { vmsnapshotid: light.vmsnapshot.id, volumeid: volumes[0] ?? "" };
    const { status, body } = await client.send("createSnapshotFromVMSnapshot", given);
    expect([status, body.errortext]).toEqual([431, "Cannot perform this operation, unsupported VM snapshot type."]);
    expect((await client.call("listVMSnapshot", { virtualmachineid: id })).count).toBe(1);
  });

  it("of a machine without memory is refused before 4.21", async () => {
    await using simulator = await startCloudstackSimulator({ version: "4.20.0.0", machines: [{ name: "db", disks }] });
    const client = new ApiClient(simulator);
    const { status, body } = await client.send("createVMSnapshot", { virtualmachineid: simulator.machines[0] ?? "" });
    expect(status).toBe(530);
    expect(body.errortext).toMatch(/^Internal error executing command/);
  });
});
