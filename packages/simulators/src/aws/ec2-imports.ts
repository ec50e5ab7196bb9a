import { maybe, tagSet, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { BlockDevice, Image, ImportTask, Snapshot } from "./resources.ts";
import type { Caller } from "./signature.ts";

/** Volumes of one import (VM Import/Export user guide, ImportImage from snapshots). */
const mostDisks = 21;

/** What a task shows on its way, with its progress in percent. */
const steps: readonly (readonly [string, string])[] = [
  ["pending", "2"],
  ["validated", "19"],
  ["updating", "28"],
  ["booting", "42"],
  ["preparing ami", "78"],
];

/** The actions of VM Import; `failures` are the status messages with which the next tasks end. */
export function importActions(scope: Ec2Scope, failures: string[]): Ec2Actions {
  const { world } = scope;

  function importImage(form: Ec2Form, caller: Caller): XmlObject {
    const [id = ""] = scope.once(form, caller, () => [begin(form, caller).id]);
    const task = world.imports.get(id);
    return task === undefined ? {} : taskXml(task);
  }

  function begin(form: Ec2Form, caller: Caller): ImportTask {
    const role = form.text("RoleName") ?? "vmimport";
    if (!world.roles.has(`arn:aws:iam::${caller.accountId}:role/${role}`))
      throw wrong(
        "InvalidParameter",
        `The service role ${role} provided does not exist or does not have sufficient permissions`,
      );
    const containers = form.forms("DiskContainer");
    if (containers.length === 0) throw wrong("MissingParameter", "The request must contain disk containers.");
    if (containers.length > mostDisks)
      throw wrong("InvalidParameterValue", `At most ${mostDisks} disks can be imported.`);
    const architecture = form.text("Architecture") ?? "x86_64";
    if (architecture !== "x86_64" && architecture !== "i386")
      throw wrong("InvalidParameterValue", `The architecture ${architecture} cannot be imported.`);
    const platform = form.text("Platform");
    if (platform !== undefined && !/^(Linux|Windows)$/i.test(platform))
      throw wrong("InvalidParameterValue", `Value (${platform}) for parameter Platform is invalid.`);
    const bootMode = form.text("BootMode");
    if (bootMode !== undefined && !/^(legacy-bios|uefi|uefi-preferred)$/.test(bootMode))
      throw wrong("InvalidParameterValue", `Value (${bootMode}) for parameter BootMode is invalid.`);
    const encrypted = form.flag("Encrypted");
    const licenseType = form.text("LicenseType");
    if (bootMode === "uefi" && platform === undefined)
      throw wrong("InvalidParameterCombination", "The boot mode uefi needs the parameter Platform.");
    if (bootMode === "uefi" && (encrypted || licenseType !== undefined))
      throw wrong("InvalidParameterCombination", "The boot mode uefi goes with neither encryption nor a licence type.");
    const kmsKeyId = scope.keyFor(caller, encrypted, form.text("KmsKeyId"));
    const disks = containers.map((container) => {
      container.only("SnapshotId DeviceName Description Format");
      const snapshot = scope.usableSnapshot(container.need("SnapshotId"), caller);
      if (snapshot.encrypted) throw wrong("InvalidParameter", `Encrypted snapshots cannot be imported: ${snapshot.id}`);
      const [deviceName, description] = [container.text("DeviceName"), container.text("Description")];
      return {
        snapshotId: snapshot.id,
        ...(deviceName === undefined ? {} : { deviceName }),
        ...(description === undefined ? {} : { description }),
      };
    });
    const usageOperation = form.text("UsageOperation");
    const task: ImportTask = {
      id: world.newId("import-ami"),
      accountId: caller.accountId,
      region: caller.region,
      tags: scope.tags(form, "import-image-task"),
      status: "active",
      statusMessage: "pending",
      progress: "2",
      architecture,
      description: form.text("Description") ?? "",
      encrypted,
      disks,
      ...(platform === undefined ? {} : { platform: /windows/i.test(platform) ? "Windows" : "Linux" }),
      ...(bootMode === undefined ? {} : { bootMode }),
      ...(licenseType === undefined ? {} : { licenseType }),
      ...(usageOperation === undefined ? {} : { usageOperation }),
      ...(kmsKeyId === undefined ? {} : { kmsKeyId }),
    };
    world.imports.set(task.id, task);
    const wanted = failures.shift();
    for (const [at, [statusMessage, progress]] of steps.entries()) {
      world.later((at * world.delays.changeMs) / steps.length, () => {
        if (task.status === "active") Object.assign(task, { statusMessage, progress });
      });
    }
    // The disk is looked at while the conversion is under way, as AWS does it.
    const bootable = isBootable(disks[0]?.snapshotId ?? "");
    world.later(world.delays.changeMs, () => void end(task, caller, bootable, wanted));
    return task;
  }

  /** A disk without a partition table's signature holds no system that VM Import knows. */
  async function isBootable(snapshotId: string): Promise<boolean> {
    const snapshot = world.snapshots.get(snapshotId);
    if (snapshot === undefined) return false;
    return (await world.bytes(snapshot, 510, 2)).equals(Buffer.from([0x55, 0xaa]));
  }

  async function end(task: ImportTask, caller: Caller, bootable: Promise<boolean>, wanted?: string): Promise<void> {
    const sound = await bootable;
    if (task.status !== "active") return;
    const failure = wanted ?? (sound ? undefined : "ClientError: Unknown OS / Missing OS files.");
    delete task.progress;
    if (failure !== undefined) {
      task.status = "deleted";
      task.statusMessage = failure;
      return;
    }
    const devices: BlockDevice[] = task.disks.flatMap((disk, at) => {
      const source = world.snapshots.get(disk.snapshotId);
      if (source === undefined) return [];
      const copy = converted(task, source);
      disk.importedId = copy.id;
      const deviceName = at === 0 ? "/dev/sda1" : `/dev/sd${String.fromCharCode(101 + at)}`;
      return [
        { deviceName, snapshotId: copy.id, shape: { sizeGib: copy.sizeGib, type: "gp2" }, deleteOnTermination: true },
      ];
    });
    const image: Image = {
      id: world.newId("ami"),
      accountId: caller.accountId,
      region: caller.region,
      tags: {},
      name: task.id,
      description: "AWS-VMImport service: " + (task.platform ?? "Linux"),
      state: "available",
      architecture: task.architecture,
      virtualizationType: "hvm",
      enaSupport: true,
      rootDeviceName: "/dev/sda1",
      devices,
      createdAt: world.now(),
      ...(task.platform === "Windows" ? { platform: "windows" } : {}),
      ...(task.bootMode === undefined ? {} : { bootMode: task.bootMode }),
    };
    world.images.set(image.id, image);
    task.imageId = image.id;
    task.status = "completed";
    delete task.statusMessage;
  }

  /** The snapshot of AWS's own that a conversion leaves: a full one of its own lineage. */
  function converted(task: ImportTask, source: Snapshot): Snapshot {
    const id = world.newId("snap");
    const copy: Snapshot = {
      id,
      accountId: task.accountId,
      region: task.region,
      tags: {},
      sizeGib: source.sizeGib,
      blocks: source.blocks.copy(),
      description: `Created by AWS-VMImport service for ${task.id}`,
      encrypted: task.encrypted,
      volumeId: "vol-ffffffff",
      lineage: id,
      startedAt: world.now(),
      completesAt: world.now(),
      tier: "standard",
      sharedWith: new Set(),
      generation: 0,
      ...(task.kmsKeyId === undefined ? {} : { kmsKeyId: task.kmsKeyId }),
    };
    world.snapshots.set(id, copy);
    return copy;
  }

  function describeTasks(form: Ec2Form, caller: Caller): XmlObject {
    const one = (id: string): ImportTask => {
      const task = world.imports.get(id);
      if (task?.accountId === caller.accountId && task.region === caller.region) return task;
      throw wrong("InvalidConversionTaskId.Malformed", `The task ID '${id}' is malformed or unknown.`);
    };
    const all = scope.named(form, "ImportTaskId", one, () => scope.mine(world.imports, caller));
    const field = (each: ImportTask, filter: string): string[] | undefined =>
      filter === "task-state" ? maybe(each.status) : undefined;
    const { items, nextToken } = scope.select(form, all, field, "Filters");
    return { importImageTaskSet: items.map(taskXml), nextToken };
  }

  function cancel(form: Ec2Form, caller: Caller): XmlObject {
    const id = form.need("ImportTaskId");
    const task = world.imports.get(id);
    if (task === undefined || task.accountId !== caller.accountId || task.region !== caller.region)
      throw wrong("InvalidConversionTaskId.Malformed", `The task ID '${id}' is malformed or unknown.`);
    if (task.status !== "active") throw wrong("IncorrectState", `The task ${id} is ${task.status}.`);
    task.status = "deleting";
    task.statusMessage = form.text("CancelReason") ?? "User initiated task cancelation";
    world.later(world.delays.changeMs, () => {
      task.status = "deleted";
    });
    return { importTaskId: id, previousState: "active", state: "deleting" };
  }

  function taskXml(task: ImportTask): XmlObject {
    const snapshotDetailSet = task.disks.map((disk) => ({
      snapshotId: disk.importedId ?? disk.snapshotId,
      deviceName: disk.deviceName,
      description: disk.description,
      status: task.status,
    }));
    return {
      importTaskId: task.id,
      architecture: task.architecture,
      bootMode: task.bootMode,
      description: task.description,
      encrypted: task.encrypted,
      kmsKeyId: task.kmsKeyId,
      imageId: task.imageId,
      licenseType: task.licenseType,
      platform: task.platform,
      progress: task.progress,
      snapshotDetailSet,
      status: task.status,
      statusMessage: task.statusMessage,
      usageOperation: task.usageOperation,
      tagSet: tagSet(task.tags),
    };
  }

  const importing =
    "Architecture BootMode ClientToken Description DiskContainer Encrypted KmsKeyId LicenseType Platform RoleName TagSpecification UsageOperation Hypervisor";
  return {
    ImportImage: { takes: importing, act: importImage },
    DescribeImportImageTasks: { takes: "ImportTaskId Filters MaxResults NextToken", act: describeTasks },
    CancelImportTask: { takes: "CancelReason ImportTaskId", act: cancel },
  };
}
