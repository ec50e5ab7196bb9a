import { startVcenterSimulator } from "@diskferry/simulators";
import { describe, expect, test } from "vitest";
import {
  consolidate,
  createSnapshot,
  listSnapshots,
  machineRef,
  needsConsolidation,
  removeSnapshot,
  snapshotDisks,
  snapshotRef,
} from "../../src/vim/snapshot-calls.ts";
import { queryChangedDiskAreas, readTrackingState, setTracking } from "../../src/vim/tracking-calls.ts";
import { faultOf } from "../../src/vim/vim-fault.ts";
import { slotOf } from "../../src/vim/virtual-disk.ts";
import { openClient } from "./open-client.ts";

const mib = 1 << 20;
const machine = machineRef("vm-101");

describe.each([
  ["soap", "xsi"],
  ["soap", "local-prefix"],
  ["vi-json", "xsi"],
] as const)("by %s with types written as %s", (protocol, xml) => {
  const machines = [{ name: "web", disks: [{ size: 8 * mib }, { size: mib, thin: false }] }];

  test("snapshots are made as wished, told as a tree, and removed", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, xml, machines });
    await using client = await openClient(simulator, { protocol });
    const one = await createSnapshot(client, machine, {
      name: "one <&>",
      description: "ä\nb",
      quiesce: { kind: "windows", timeoutMinutes: 15, backupType: 5, context: "ctx_auto" },
    });
    const two = await createSnapshot(client, machine, { name: "two", description: "", quiesce: { kind: "default" } });
    const three = await createSnapshot(client, machine, { name: "three", description: "" });
    expect(await listSnapshots(client, machine)).toMatchObject([
      { ref: one, name: "one <&>", description: "ä\nb", quiesced: true, powerState: "poweredOn", parent: undefined },
      { ref: two, name: "two", quiesced: true, parent: one },
      { ref: three, name: "three", quiesced: false, parent: two },
    ]);
    await removeSnapshot(client, two);
    expect((await listSnapshots(client, machine)).map(({ name }) => name)).toEqual(["one <&>", "three"]);
    await expect(removeSnapshot(client, two)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(snapshotDisks(client, snapshotRef("snapshot-9"))).rejects.toMatchObject({ code: "NOT_FOUND" });
    const short = { name: "x", description: "", quiesce: { kind: "guest", timeoutMinutes: 4 } } as const;
    await expect(createSnapshot(client, machine, short)).rejects.toMatchObject({ cause: { type: "InvalidArgument" } });
  });

  test("a snapshot tells its disks as it froze them, with the delta's parents", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, xml, machines });
    await using client = await openClient(simulator, { protocol });
    const first = await createSnapshot(client, machine, { name: "1", description: "" });
    const second = await createSnapshot(client, machine, { name: "2", description: "" });
    const [disk, other] = await snapshotDisks(client, second);
    expect(disk).toMatchObject({
      key: 2000,
      label: "Hard disk 1",
      capacity: 8 * mib,
      controller: { key: 1000, type: "ParaVirtualSCSIController", kind: "scsi", busNumber: 0, sharedBus: "noSharing" },
      backing: {
        fileName: "[datastore1] web/web-000001.vmdk",
        diskMode: "persistent",
        thinProvisioned: true,
        encrypted: false,
        datastore: { type: "Datastore", value: "datastore-10" },
        parent: { fileName: "[datastore1] web/web.vmdk", parent: undefined },
      },
    });
    expect([slotOf(disk!), slotOf(other!), other?.backing.thinProvisioned]).toEqual(["scsi0:0", "scsi0:1", false]);
    expect((await snapshotDisks(client, first))[0]?.backing.parent).toBeUndefined();
  });

  test("change tracking is switched by machine and by disk, and its areas come in pages", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, xml, machines, spanLimit: 2 * mib });
    await using client = await openClient(simulator, { protocol });
    expect(await readTrackingState(client, machine)).toMatchObject({ supported: true, enabled: false });
    await setTracking(client, machine, { enabled: true });
    await setTracking(client, machine, { bySlot: new Map([["scsi0:1", false]]) });
    const state = await readTrackingState(client, machine);
    expect([state.enabled, state.bySlot.get("scsi0:0"), state.bySlot.get("scsi0:1")]).toEqual([true, true, false]);
    simulator.migrate("web");
    const base = await createSnapshot(client, machine, { name: "base", description: "" });
    const [tracked, untracked] = await snapshotDisks(client, base);
    expect(tracked?.backing.changeId).toMatch(/^[0-9a-f ]{23}-[0-9a-f ]{23}\/\d+$/);
    expect(untracked?.backing.changeId).toBeUndefined();
    simulator.write("web", 2000, 5 * mib, new Uint8Array(512).fill(1));
    await removeSnapshot(client, base);
    const next = await createSnapshot(client, machine, { name: "next", description: "" });
    const changeId = tracked!.backing.changeId!;
    const areas: { start: number; length: number }[] = [];
    for (let startOffset = 0; startOffset < 8 * mib;) {
      const page = await queryChangedDiskAreas(client, machine, {
        snapshot: next,
        deviceKey: 2000,
        startOffset,
        changeId,
      });
      expect([page.startOffset, page.length]).toEqual([startOffset, 2 * mib]);
      areas.push(...page.areas);
      startOffset += page.length;
    }
    expect(areas).toEqual([{ start: 5 * mib, length: 65536 }]);
    const past = { snapshot: next, deviceKey: 2000, startOffset: 8 * mib, changeId };
    const beyond = await queryChangedDiskAreas(client, machine, past).catch((error: unknown) => error);
    expect(faultOf(beyond)).toMatchObject({ type: "InvalidArgument" });
    simulator.resetTracking("web");
    const lost = await queryChangedDiskAreas(client, machine, { ...past, startOffset: 0 }).catch(
      (error: unknown) => error,
    );
    expect(faultOf(lost)).toMatchObject({ type: "FileFault" });
  });

  test("deltas that a removal left are seen and merged", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, xml, machines });
    await using client = await openClient(simulator, { protocol });
    const made = await createSnapshot(client, machine, { name: "s", description: "" });
    const web = simulator.machine("web");
    web.consolidationFails = true;
    await removeSnapshot(client, made);
    expect(await needsConsolidation(client, machine)).toBe(true);
    await expect(consolidate(client, machine)).rejects.toMatchObject({ code: "IN_USE", retryable: true });
    web.consolidationFails = false;
    await consolidate(client, machine);
    expect(await needsConsolidation(client, machine)).toBe(false);
  });
});
