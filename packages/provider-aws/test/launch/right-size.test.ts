import { describe, expect, test } from "vitest";
import { BOOT_SCAN_BYTES, bootModeOf, chooseBootMode } from "../../src/launch/boot-mode.ts";
import { dataDeviceNames } from "../../src/launch/device-names.ts";
import { rightSize } from "../../src/launch/right-size.ts";

const gib = 2 ** 30;

describe("right-sizing", () => {
  test.each([
    [{ cpus: 1, memoryBytes: 1 * gib }, "t3.micro"],
    [{ cpus: 2, memoryBytes: 4 * gib }, "t3.medium"],
    [{ cpus: 2, memoryBytes: 8 * gib }, "m6i.large"],
    [{ cpus: 4, memoryBytes: 6 * gib }, "c6i.xlarge"],
    [{ cpus: 4, memoryBytes: 32 * gib }, "r6i.xlarge"],
    [{ cpus: 6, memoryBytes: 17 * gib }, "m6i.2xlarge"],
    [{ cpus: 100, memoryBytes: 10 * gib }, "c6i.32xlarge"],
  ])("%o fits %s: the fewest processors, then the least memory", (machine, type) => {
    const fit = rightSize({ ...machine, architecture: "x86_64" });
    expect(fit?.instanceType).toBe(type);
    expect(fit?.note).toBeUndefined();
    expect(fit!.vcpus).toBeGreaterThanOrEqual(machine.cpus);
    expect(fit!.memoryBytes).toBeGreaterThanOrEqual(machine.memoryBytes);
  });

  test("an ARM machine gets an ARM type", () => {
    expect(rightSize({ architecture: "arm64", cpus: 4, memoryBytes: 16 * gib })?.instanceType).toBe("m7g.xlarge");
  });

  test("what the source did not tell is assumed, and said", () => {
    const fit = rightSize({ cpus: 2, architecture: "x86_64" });
    expect(fit?.instanceType).toBe("t3.medium");
    expect(fit?.note).toContain("memory");
    expect(fit?.note).not.toContain("processors");
  });

  test("a machine that nothing holds fits nothing", () => {
    expect(rightSize({ cpus: 500, memoryBytes: gib })).toBeUndefined();
    expect(rightSize({ cpus: 2, memoryBytes: 10_000 * gib })).toBeUndefined();
  });
});

describe("device names", () => {
  test("are distinct for the most volumes an instance takes, and no more are invented", () => {
    for (const family of ["linux", "windows", "other"] as const) {
      const names = dataDeviceNames(39, family);
      expect(new Set(names).size).toBe(39);
      expect(names).not.toContain("/dev/sda1");
      expect(() => dataDeviceNames(1000, family)).toThrow(/device names/);
    }
    expect(dataDeviceNames(2)).toEqual(["/dev/sdf", "/dev/sdg"]);
    expect(dataDeviceNames(2, "windows")).toEqual(["xvdf", "xvdg"]);
  });
});

/** The first sectors of a disk with these MBR types and, in a GPT, partitions of these types. */
function disk(mbr: number[], gpt: string[] = []): Uint8Array {
  const bytes = Buffer.alloc(BOOT_SCAN_BYTES);
  bytes.writeUInt16LE(0xaa55, 510);
  for (const [at, type] of mbr.entries()) bytes[446 + at * 16 + 4] = type;
  if (gpt.length > 0) {
    bytes.write("EFI PART", 512, "latin1");
    bytes.writeBigUInt64LE(2n, 512 + 72);
    bytes.writeUInt32LE(128, 512 + 80);
    bytes.writeUInt32LE(128, 512 + 84);
    for (const [at, guid] of gpt.entries()) {
      const hex = Buffer.from(guid.replaceAll("-", ""), "hex");
      const entry = 1024 + at * 128;
      bytes.writeUInt32LE(hex.readUInt32BE(0), entry);
      bytes.writeUInt16LE(hex.readUInt16BE(4), entry + 4);
      bytes.writeUInt16LE(hex.readUInt16BE(6), entry + 6);
      hex.copy(bytes, entry + 8, 8);
    }
  }
  return bytes;
}

describe("boot mode", () => {
  const esp = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
  const biosBoot = "21686148-6449-6E6F-744E-656564454649";
  const linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

  test.each([
    ["an MBR disk", disk([0x83]), "legacy-bios"],
    ["a GPT disk with an EFI system partition", disk([0xee], [linux, esp]), "uefi"],
    ["a GPT disk with a BIOS boot partition", disk([0xee], [biosBoot, linux]), "legacy-bios"],
    ["a GPT disk with both", disk([0xee], [biosBoot, esp, linux]), "uefi-preferred"],
    ["a GPT disk with neither", disk([0xee], [linux]), undefined],
    ["a protective entry without a GPT", disk([0xee]), undefined],
    ["an MBR disk with an EFI partition", disk([0xef, 0x83]), "uefi-preferred"],
    ["a disk without partitions", new Uint8Array(BOOT_SCAN_BYTES), undefined],
    ["a disk that is cut short", new Uint8Array(100), undefined],
  ])("of %s", (_, bytes, mode) => expect(bootModeOf(bytes)).toBe(mode));

  test("is the source's where it is told, UEFI for ARM, the disk's where not, and a guess is said", () => {
    expect(chooseBootMode({ firmware: "uefi" }, disk([0x83]))).toEqual({ mode: "uefi" });
    expect(chooseBootMode({ firmware: "bios" }, undefined)).toEqual({ mode: "legacy-bios" });
    expect(chooseBootMode({ architecture: "arm64" }, undefined)).toEqual({ mode: "uefi" });
    expect(chooseBootMode({}, disk([0xee], [esp]))).toMatchObject({
      mode: "uefi",
      note: expect.stringContaining("uefi"),
    });
    expect(chooseBootMode({}, new Uint8Array(512))).toMatchObject({
      mode: "legacy-bios",
      note: expect.stringContaining("guess"),
    });
  });
});
