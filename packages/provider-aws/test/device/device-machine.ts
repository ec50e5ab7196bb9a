import { closeSync, mkdirSync, mkdtempSync, openSync, readSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Volume } from "@diskferry/core/provider";
import type { DeviceRoots } from "../../src/device/attached-device.ts";

/** A machine whose block devices are regular files behind a made-up /sys: the machine of a test is not the simulator's instance. */
export interface DeviceMachine {
  roots: DeviceRoots;
  /** Shows a volume as a disk, as the kernel does some time after it was attached; by a name alone, as Xen does, or as NVMe. */
  plug(volume: Pick<Volume, "id" | "size">, more?: { name?: string }): void;
  /** What is at the start of a volume's device. */
  bytesOf(volume: Volume, length: number): Uint8Array;
}

export function deviceMachine(): DeviceMachine {
  const root = mkdtempSync(join(tmpdir(), "diskferry-attached-"));
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  const [sys, dev] = [join(root, "sys"), join(root, "dev")];
  mkdirSync(join(sys, "block"), { recursive: true });
  mkdirSync(dev);
  const names = new Map<string, string>();
  return {
    roots: { sys, dev, identify: () => Promise.resolve({ isBlockDevice: true, number: "259:9" }) },
    bytesOf({ id }, length) {
      const bytes = new Uint8Array(length);
      const file = openSync(join(dev, names.get(id)!), "r");
      readSync(file, bytes);
      closeSync(file);
      return bytes;
    },
    plug({ id, size }, { name } = {}) {
      if (names.has(id)) return;
      const kernelName = name ?? `nvme${names.size + 1}n1`;
      names.set(id, kernelName);
      const about = join(sys, "block", kernelName);
      mkdirSync(join(about, "device"), { recursive: true });
      writeFileSync(join(about, "size"), String(size / 512));
      writeFileSync(join(about, "dev"), "259:9");
      if (name === undefined) {
        writeFileSync(join(about, "device", "serial"), id.replace("-", ""));
        writeFileSync(join(about, "device", "model"), "Amazon Elastic Block Store");
      }
      closeSync(openSync(join(dev, kernelName), "w"));
      truncateSync(join(dev, kernelName), size);
    },
  };
}
