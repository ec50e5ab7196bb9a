import { expect, test } from "vitest";
import { machineOf, volumeOf } from "../../src/client/entities.ts";
import { readMachine } from "../../src/source/read-machine.ts";

test("a machine without `boottype` has a BIOS: CloudStack tells of UEFI always, of a BIOS only where there are no details", () => {
  const firmware = (answer: object): unknown =>
    readMachine(machineOf({ id: "1", name: "web", state: "Running", ...answer }), []).spec?.firmware;
  expect(firmware({ details: { rootDiskController: "virtio" } })).toBe("bios");
  expect(firmware({ boottype: "Bios", bootmode: "legacy" })).toBe("bios");
  expect(firmware({ boottype: "Uefi", bootmode: "secure" })).toBe("uefi");
});

test("a disk that something works on for a while is no disk to leave out; one without bytes is", () => {
  const ineligible = (state: string): string | undefined =>
    readMachine(machineOf({ id: "1", state: "Running" }), [volumeOf({ id: "v", size: 512, state })]).disks[0]
      ?.ineligible;
  for (const state of [
    "Ready",
    "Snapshotting",
    "Migrating",
    "Resizing",
    "RevertSnapshotting",
    "Attaching",
    "Restoring",
  ])
    expect([state, ineligible(state)]).toEqual([state, undefined]);
  for (const state of ["Allocated", "Creating", "Copying", "Uploaded", "UploadError"])
    expect(ineligible(state)).toContain(state);
});
