import { readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import type { MachineSpec } from "../../src/vcenter/virtual-machine.ts";
import type { VcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { VimClient } from "./vim-client.ts";

const size = 1 << 20;
const disk = 2000;
const open: VcenterSimulator[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each.stop();
});

async function start(
  spec: Partial<MachineSpec> = {},
): Promise<{ simulator: VcenterSimulator; client: VimClient; vm: string }> {
  const simulator = await startVcenterSimulator({
    tls: false,
    machines: [{ name: "web", tracking: true, disks: [{ size }, { size }], ...spec }],
  });
  open.push(simulator);
  return { simulator, client: await new VimClient(simulator).login(), vm: simulator.machine("web").id };
}

test("snapshots keep their bytes through writes, trims, removals in any order, reverts and consolidation", async () => {
  const seed = seedOf(11);
  const random = randomFrom(seed);
  const below = (count: number): number => Math.floor(random() * count);
  const { simulator, client, vm } = await start();
  // What every snapshot and the guest should see, kept as plain arrays.
  let live = new Uint8Array(size);
  const frozen = new Map<string, Uint8Array>();
  for (let step = 0; step < 120; step++) {
    const offset = below(size - 1);
    const length = 1 + below(Math.min(200_000, size - offset));
    const choice = below(10);
    if (choice < 5) {
      const bytes = randomBytes(length, step);
      simulator.write(vm, disk, offset, bytes);
      live.set(bytes, offset);
    } else if (choice < 6) {
      simulator.trim(vm, disk, offset, length);
      live.fill(0, offset, offset + length);
    } else if (choice < 8 && frozen.size < 5) {
      frozen.set(await client.snapshot(vm), live.slice());
    } else {
      const id = [...frozen.keys()][below(frozen.size)];
      if (id === undefined) continue;
      if (choice === 9) {
        await client.task("RevertToSnapshot_Task", ["VirtualMachineSnapshot", id]);
        live = (frozen.get(id) ?? live).slice();
      } else {
        await client.remove(id, below(3) > 0);
        frozen.delete(id);
        if (below(2) === 0) {
          await client.task("ConsolidateVMDisks_Task", ["VirtualMachine", vm]);
          expect(simulator.machine(vm).consolidationNeeded).toBe(false);
        }
      }
    }
    const message = `seed ${seed}, step ${step}`;
    expect(Buffer.from(simulator.readDisk(vm, disk, {})).equals(live), message).toBe(true);
    for (const [snapshot, bytes] of frozen) {
      expect(Buffer.from(simulator.readDisk(vm, disk, { snapshot })).equals(bytes), `${message} ${snapshot}`).toBe(
        true,
      );
    }
  }
  for (const [snapshot, bytes] of frozen) {
    expect(readFileSync(simulator.diskPath(snapshot, disk)).equals(bytes), snapshot).toBe(true);
  }
});

test("backings name the chain: a snapshot keeps the file, the guest goes on in a delta over it", async () => {
  const { client, vm } = await start();
  const names = async (self: [string, string]): Promise<(string | undefined)[]> => {
    const path = "config.hardware.device";
    const devices = (await client.properties(self, path)).get(path)?.children ?? [];
    const backing = devices.find((each) => each.string("key") === "2000")?.child("backing");
    return [backing?.string("fileName"), backing?.child("parent")?.string("fileName")];
  };
  const first = await client.snapshot(vm);
  const second = await client.snapshot(vm);
  expect(await names(["VirtualMachineSnapshot", first])).toEqual(["[datastore1] web/web.vmdk", undefined]);
  expect(await names(["VirtualMachineSnapshot", second])).toEqual([
    "[datastore1] web/web-000001.vmdk",
    "[datastore1] web/web.vmdk",
  ]);
  expect(await names(["VirtualMachine", vm])).toEqual([
    "[datastore1] web/web-000002.vmdk",
    "[datastore1] web/web-000001.vmdk",
  ]);
  await client.remove(first);
  expect(await names(["VirtualMachineSnapshot", second])).toEqual(["[datastore1] web/web.vmdk", undefined]);
});

test("a removal without consolidation, or one that fails to, leaves consolidationNeeded until it is done", async () => {
  const { simulator, client, vm } = await start();
  const needed = async (): Promise<string | undefined> =>
    (await client.properties(["VirtualMachine", vm], "runtime.consolidationNeeded")).get("runtime.consolidationNeeded")
      ?.text;
  const first = await client.snapshot(vm);
  expect(await needed()).toBe("false");
  await client.remove(first, false);
  expect(await needed()).toBe("true");
  await client.task("ConsolidateVMDisks_Task", ["VirtualMachine", vm]);
  expect(await needed()).toBe("false");
  simulator.machine(vm).consolidationFails = true;
  await client.remove(await client.snapshot(vm));
  expect(await needed()).toBe("true");
  const consolidated = client.task("ConsolidateVMDisks_Task", ["VirtualMachine", vm]);
  await expect(consolidated).rejects.toMatchObject({ type: "FileLocked" });
});

test("a quiesced snapshot says what it achieved, and the guest writes once more before it", async () => {
  const { simulator, client, vm } = await start();
  const machine = simulator.machine(vm);
  const quiesced = async (): Promise<string | undefined> =>
    (await client.properties(["VirtualMachine", vm], "snapshot.rootSnapshotList"))
      .get("snapshot.rootSnapshotList")
      ?.children.at(-1)
      ?.string("quiesced");
  machine.onFreeze = () => simulator.write(vm, disk, 0, Buffer.from("flushed"));
  const first = await client.snapshot(vm, true);
  expect(await quiesced()).toBe("true");
  expect(Buffer.from(simulator.readDisk(vm, disk, { snapshot: first, length: 7 })).toString()).toBe("flushed");
  await client.remove(first);
  machine.tools = "not-running";
  await client.remove(await client.snapshot(vm, true).then(async (id) => (expect(await quiesced()).toBe("false"), id)));
  machine.quiesce = "application-fault";
  await expect(client.snapshot(vm, true)).rejects.toMatchObject({ type: "ApplicationQuiesceFault" });
  machine.quiesce = "filesystem-fault";
  await expect(client.snapshot(vm, true)).rejects.toMatchObject({ type: "FilesystemQuiesceFault" });
  expect([...machine.snapshots()]).toEqual([]);
});

test("CreateSnapshotEx_Task takes a VSS specification in the order of the schema", async () => {
  const { client, vm } = await start();
  const spec =
    `<quiesceSpec xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="VirtualMachineWindowsQuiesceSpec">` +
    `<timeout>15</timeout><vssBackupType>5</vssBackupType></quiesceSpec>`;
  const self: [string, string] = ["VirtualMachine", vm];
  const id = await client.task("CreateSnapshotEx_Task", self, `<name>s</name><memory>false</memory>${spec}`);
  expect(id).toMatch(/^snapshot-/);
  const disordered = client.task("CreateSnapshotEx_Task", self, `<memory>false</memory><name>s</name>${spec}`);
  await expect(disordered).rejects.toMatchObject({ type: "InvalidRequest" });
  const hasty = spec.replace("<timeout>15<", "<timeout>1<");
  const short = client.task("CreateSnapshotEx_Task", self, `<name>s</name><memory>false</memory>${hasty}`);
  await expect(short).rejects.toMatchObject({ type: "InvalidArgument" });
});

test("an independent disk is in no snapshot, though a snapshot's configuration tells it", async () => {
  const { simulator, client, vm } = await start({ disks: [{ size }, { size, mode: "independent_persistent" }] });
  const snapshot = await client.snapshot(vm);
  expect(() => simulator.readDisk(vm, 2001, { snapshot })).toThrow(RangeError);
  const config = await client.properties(["VirtualMachineSnapshot", snapshot], "config.hardware.device");
  const disks = config.get("config.hardware.device")?.children.filter(({ xsiType }) => xsiType === "VirtualDisk");
  expect(disks?.map((each) => [each.string("key"), each.child("backing")?.string("diskMode")])).toEqual([
    ["2000", "persistent"],
    ["2001", "independent_persistent"],
  ]);
});

test("power follows its rules", async () => {
  const { simulator, client, vm } = await start();
  const self: [string, string] = ["VirtualMachine", vm];
  await expect(client.task("PowerOnVM_Task", self)).rejects.toMatchObject({ type: "InvalidPowerState" });
  simulator.machine(vm).tools = "not-running";
  await expect(client.call("ShutdownGuest", self)).rejects.toMatchObject({ type: "ToolsUnavailable" });
  simulator.machine(vm).tools = "running";
  simulator.machine(vm).obeysShutdown = false;
  await client.call("ShutdownGuest", self);
  await expect(client.call("MarkAsTemplate", self)).rejects.toMatchObject({ type: "InvalidPowerState" });
  await client.task("PowerOffVM_Task", self);
  expect(simulator.machine(vm).power).toBe("poweredOff");
  expect(() => simulator.write(vm, disk, 0, new Uint8Array(1))).toThrow(RangeError);
  await client.call("MarkAsTemplate", self);
  await expect(client.task("PowerOnVM_Task", self)).rejects.toMatchObject({ type: "NotSupported" });
});
