import { describe, expect, test } from "vitest";
import { hardwareVersionOf, ineligibility, trackingObstacle } from "../../src/inventory/eligibility.ts";
import type { VirtualDisk } from "../../src/vim/virtual-disk.ts";

const backing: VirtualDisk["backing"] = {
  type: "VirtualDiskFlatVer2BackingInfo",
  fileName: "[ds] web/web.vmdk",
  datastore: undefined,
  diskMode: "persistent",
  thinProvisioned: true,
  uuid: undefined,
  contentId: undefined,
  changeId: undefined,
  compatibilityMode: undefined,
  sharing: "sharingNone",
  encrypted: false,
  parent: undefined,
};

function disk(more: Partial<VirtualDisk["backing"]>, sharedBus = "noSharing"): VirtualDisk {
  const controller = { key: 1000, type: "ParaVirtualSCSIController", kind: "scsi" as const, busNumber: 0, sharedBus };
  return {
    key: 2000,
    label: "Hard disk 1",
    capacity: 1 << 20,
    unitNumber: 0,
    controller,
    backing: { ...backing, ...more },
    diskObjectId: undefined,
  };
}

describe("a disk", () => {
  test("of a plain machine may be copied", () => {
    expect(ineligibility(disk({}), false)).toBeUndefined();
    expect(
      ineligibility(
        disk({ type: "VirtualDiskRawDiskMappingVer1BackingInfo", compatibilityMode: "virtualMode" }),
        false,
      ),
    ).toBeUndefined();
    expect(ineligibility(disk({ type: "VirtualDiskSeSparseBackingInfo" }), false)).toBeUndefined();
  });

  test.each([
    [{ diskMode: "independent_persistent" }, /independent.*dependent while the machine is off/],
    [{ diskMode: "independent_nonpersistent" }, /independent/],
    [{ compatibilityMode: "physicalMode" }, /physical mode.*virtual mode/],
    [{ type: "VirtualDiskRawDiskVer2BackingInfo" }, /raw disk of the host/],
    [{ sharing: "sharingMultiWriter" }, /multi-writer/],
  ])("with %j may not, and the reason says what to do", (more, reason) => {
    expect(ineligibility(disk(more), true)).toMatch(reason);
  });

  test("on a shared bus may not", () => {
    expect(ineligibility(disk({}, "physicalSharing"), true)).toMatch(/shares its bus \(physicalSharing\)/);
    expect(ineligibility(disk({}, "virtualSharing"), true)).toMatch(/virtualSharing/);
  });

  test("that is encrypted may be only where a reader decrypts", () => {
    expect(ineligibility(disk({ encrypted: true }), false)).toMatch(/Cryptographer\.Access/);
    expect(ineligibility(disk({ encrypted: true }), true)).toBeUndefined();
  });

  test("is tracked from virtual hardware 7 on", () => {
    expect(trackingObstacle(disk({}), 4)).toMatch(/version 7/);
    expect(trackingObstacle(disk({}), 7)).toBeUndefined();
    expect(trackingObstacle(disk({}), undefined)).toBeUndefined();
    expect(trackingObstacle(disk({ type: "VirtualDiskFlatVer1BackingInfo" }), 19)).toMatch(/ESX 2/);
    expect(hardwareVersionOf("vmx-07")).toBe(7);
    expect(hardwareVersionOf(undefined)).toBeUndefined();
  });
});
