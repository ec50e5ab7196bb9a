import { expect, test } from "vitest";
import { machineOf } from "../../src/client/entities.ts";
import { readMachine } from "../../src/source/read-machine.ts";

test("a machine without `boottype` has a BIOS: CloudStack tells of UEFI always, of a BIOS only where there are no details", () => {
  const firmware = (answer: object): unknown =>
    readMachine(machineOf({ id: "1", name: "web", state: "Running", ...answer }), []).spec?.firmware;
  expect(firmware({ details: { rootDiskController: "virtio" } })).toBe("bios");
  expect(firmware({ boottype: "Bios", bootmode: "legacy" })).toBe("bios");
  expect(firmware({ boottype: "Uefi", bootmode: "secure" })).toBe("uefi");
});
