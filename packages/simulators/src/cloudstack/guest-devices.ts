import { watch, type FSWatcher } from "node:fs";
import { link, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SparseDisk } from "./sparse-disk.ts";

/** On which bus a guest sees its volumes. */
export type DeviceBus = "virtio" | "scsi";

/** How a guest's devices behave. */
export interface GuestRules {
  readonly bus: DeviceBus;
  /** From the attachment, or from the rescan, to the device's appearance. */
  readonly lagMs: number;
  /** Whether a device appears only after the guest asked its buses to look again. */
  readonly needsRescan: boolean;
}

interface Device {
  readonly disk: SparseDisk;
  node: string | undefined;
  link: string | undefined;
  about: string | undefined;
}

/**
 * A guest's view of its volumes: `<root>/dev/vdb` is a file with the volume's bytes, `<root>/dev/disk/by-id/…` a link to
 * it by serial, `<root>/sys/block/vdb` tells the serial too, and writing to `<root>/sys/bus/pci/rescan` or
 * `<root>/sys/class/scsi_host/host0/scan` is a rescan.
 */
export class GuestDevices {
  /** Stands for the guest's `/`. */
  readonly root: string;
  readonly #rules: GuestRules;
  readonly #devices = new Map<string, Device>();
  readonly #withheld = new Set<string>();
  readonly #sizes = new Map<string, number>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #watchers: FSWatcher[] = [];
  /** Changes are made one after the other, so that a detachment cannot pass an attachment under way. */
  #last: Promise<unknown> = Promise.resolve();
  #rescans = 0;

  private constructor(root: string, rules: GuestRules) {
    this.root = root;
    this.#rules = rules;
  }

  static async create(root: string, rules: GuestRules): Promise<GuestDevices> {
    const guest = new GuestDevices(root, rules);
    await mkdir(guest.byId, { recursive: true });
    for (const path of [
      ["sys", "bus", "pci"],
      ["sys", "class", "scsi_host", "host0"],
    ]) {
      const folder = join(root, ...path);
      await mkdir(folder, { recursive: true });
      const file = path.includes("pci") ? "rescan" : "scan";
      await writeFile(join(folder, file), "");
      const watcher = watch(join(folder, file), () => {
        guest.#rescans++;
        guest.#appearLater(true);
      });
      guest.#watchers.push(watcher);
    }
    return guest;
  }

  /** The folder of the links by serial, `/dev/disk/by-id` of a real guest. */
  get byId(): string {
    return join(this.root, "dev", "disk", "by-id");
  }

  /** How often the guest has asked its buses; one request can count more than once. */
  get rescans(): number {
    return this.#rescans;
  }

  /** The device's name in `by-id`. */
  linkName(volumeId: string): string {
    const serial = serialOf(volumeId);
    return this.#rules.bus === "virtio" ? `virtio-${serial}` : `scsi-0QEMU_QEMU_HARDDISK_${serial}`;
  }

  /** Plugs a volume in; the device appears by the rules. */
  plug(volumeId: string, disk: SparseDisk): void {
    this.#devices.set(volumeId, { disk, node: undefined, link: undefined, about: undefined });
    if (!this.#rules.needsRescan) this.#appearLater(false);
  }

  /** Takes a volume out: its device goes away, and who still has it open reaches the bytes no more. */
  async unplug(volumeId: string): Promise<void> {
    const device = this.#devices.get(volumeId);
    if (device === undefined) return;
    this.#devices.delete(volumeId);
    await this.#serially(async () => {
      for (const path of [device.link, device.node, device.about])
        if (path !== undefined) await rm(path, { force: true, recursive: true });
      if (device.node !== undefined) await device.disk.cutOff();
    });
  }

  /** Keeps a volume's device from appearing. */
  withhold(volumeId: string): void {
    this.#withheld.add(volumeId);
  }

  /** Lets a volume's device appear with another size; its bytes are then not the volume's. */
  misreport(volumeId: string, size: number): void {
    this.#sizes.set(volumeId, size);
  }

  /** Lets every plugged device appear at once, as a boot does. */
  async appear(): Promise<void> {
    await this.#serially(async () => {
      for (const [volumeId, device] of this.#devices) await this.#show(volumeId, device);
    });
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    for (const watcher of this.#watchers) watcher.close();
    await this.#last;
  }

  #appearLater(rescan: boolean): void {
    if (this.#rules.needsRescan && !rescan) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      void this.appear();
    }, this.#rules.lagMs);
    this.#timers.add(timer);
  }

  async #show(volumeId: string, device: Device): Promise<void> {
    if (device.node !== undefined || this.#withheld.has(volumeId) || !this.#devices.has(volumeId)) return;
    const name = this.#freeName();
    const node = join(this.root, "dev", name);
    const size = this.#sizes.get(volumeId);
    if (size === undefined) await link(device.disk.path, node);
    else await SparseDisk.create(node, size);
    device.node = node;
    device.about = join(this.root, "sys", "block", name);
    await this.#tellSerial(device.about, volumeId);
    device.link = join(this.byId, this.linkName(volumeId));
    await rm(device.link, { force: true });
    await symlink(join("..", "..", name), device.link);
  }

  /** As the kernel does: of virtio as text, of SCSI as the page of vital product data that it is in. */
  async #tellSerial(about: string, volumeId: string): Promise<void> {
    const serial = serialOf(volumeId);
    await mkdir(join(about, "device"), { recursive: true });
    if (this.#rules.bus === "virtio") await writeFile(join(about, "serial"), `${serial}\n`);
    else await writeFile(join(about, "device", "vpd_pg80"), `\0\x80\0${String.fromCharCode(serial.length)}${serial}`);
  }

  #freeName(): string {
    const prefix = this.#rules.bus === "virtio" ? "vd" : "sd";
    const taken = new Set([...this.#devices.values()].map((each) => each.node));
    for (const letter of "abcdefghijklmnopqrstuvwxyz") {
      if (!taken.has(join(this.root, "dev", prefix + letter))) return prefix + letter;
    }
    throw new Error("a simulated guest has room for 26 devices");
  }

  #serially(action: () => Promise<void>): Promise<void> {
    const done = this.#last.then(action);
    this.#last = done.catch(() => undefined);
    return done;
  }
}

/** libvirt's serial is the volume's id without dashes, cut to 20 characters. */
function serialOf(volumeId: string): string {
  return volumeId.replaceAll("-", "").slice(0, 20);
}
