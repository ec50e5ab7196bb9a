import { controllerFamily, controllerLabel, controllerType, slotName } from "./disk-slot.ts";
import { formatChangeId } from "./virtual-disk.ts";
import type { ChangeId, DiskMode, VirtualDisk } from "./virtual-disk.ts";
import type { Snapshot, VirtualMachine } from "./virtual-machine.ts";
import { Any, data, enumerated, list, long, reference, subtype } from "./vim-value.ts";
import type { Data, Fields, List } from "./vim-value.ts";
import type { DiskLayer } from "./disk-layer.ts";

/** Where a machine lives, for its properties. */
export interface MachinePlace {
  readonly parent: { type: string; id: string };
  readonly host: string;
  /** The id of a datastore by its name. */
  readonly datastore: (name: string) => string;
  readonly network: string;
  readonly networkName: string;
  readonly pool: string;
}

/** The properties of a VirtualMachine, each computed when asked for. */
export function machineProperties(machine: VirtualMachine, place: MachinePlace): Record<string, () => Fields[string]> {
  const power = (): Fields[string] => enumerated("VirtualMachinePowerState", machine.power);
  const guestFullName = machine.spec.guestFullName ?? "Debian GNU/Linux 12 (64-bit)";
  const guestId = machine.spec.guestId ?? "debian12_64Guest";
  return {
    name: () => machine.name,
    parent: () => reference(place.parent.type, place.parent.id),
    config: () => machineConfig(machine, place, liveDisks(machine)),
    capability: () =>
      data("VirtualMachineCapability", {
        snapshotOperationsSupported: true,
        multipleSnapshotsSupported: true,
        diskSharesSupported: true,
        quiescedSnapshotsSupported: true,
        disableSnapshotsSupported: false,
        lockSnapshotsSupported: false,
        changeTrackingSupported: machine.trackingSupported,
      }),
    runtime: () =>
      data("VirtualMachineRuntimeInfo", {
        host: reference("HostSystem", place.host),
        connectionState: enumerated("VirtualMachineConnectionState", "connected"),
        powerState: power(),
        toolsInstallerMounted: false,
        question:
          machine.question === undefined
            ? undefined
            : data("VirtualMachineQuestionInfo", { id: machine.question.id, text: machine.question.text }),
        numMksConnections: 0,
        cleanPowerOff: machine.cleanPowerOff,
        consolidationNeeded: machine.consolidationNeeded,
      }),
    guest: () => guestInfo(machine, guestId, guestFullName),
    snapshot: () => snapshotInfo(machine),
    summary: () =>
      data("VirtualMachineSummary", {
        vm: reference("VirtualMachine", machine.id),
        runtime: data("VirtualMachineRuntimeInfo", {
          host: reference("HostSystem", place.host),
          connectionState: enumerated("VirtualMachineConnectionState", "connected"),
          powerState: power(),
        }),
        config: data("VirtualMachineConfigSummary", {
          name: machine.name,
          template: machine.template,
          vmPathName: vmxPath(machine),
          memorySizeMB: machine.spec.memoryMiB ?? 2048,
          numCpu: machine.spec.cpus ?? 2,
          numEthernetCards: machine.spec.nics?.length ?? 1,
          numVirtualDisks: machine.disks.size,
          uuid: machine.biosUuid,
          instanceUuid: machine.instanceUuid,
          guestId,
          guestFullName,
        }),
        storage: data("VirtualMachineStorageSummary", {
          committed: long(sum(machine, (disk) => disk.current.allocatedBytes)),
          uncommitted: long(sum(machine, (disk) => disk.capacity)),
          unshared: long(0),
          timestamp: new Date(),
        }),
        quickStats: data("VirtualMachineQuickStats", {
          overallCpuUsage: machine.power === "poweredOn" ? 120 : 0,
          guestMemoryUsage: machine.power === "poweredOn" ? 256 : 0,
          hostMemoryUsage: machine.power === "poweredOn" ? 1024 : 0,
          uptimeSeconds: machine.power === "poweredOn" ? 3600 : undefined,
        }),
        overallStatus: enumerated("ManagedEntityStatus", "green"),
      }),
    datastore: () =>
      list(
        "ManagedObjectReference",
        datastoreNames(machine).map((name) => reference("Datastore", place.datastore(name))),
      ),
    network: () => list("ManagedObjectReference", [reference("Network", place.network)]),
    resourcePool: () => (machine.template ? undefined : reference("ResourcePool", place.pool)),
    rootSnapshot: () =>
      list(
        "ManagedObjectReference",
        machine.roots.map((each) => reference("VirtualMachineSnapshot", each.id)),
      ),
  };
}

/** The properties of a VirtualMachineSnapshot; its configuration is that of the moment, with disks that it does not hold. */
export function snapshotProperties(
  machine: VirtualMachine,
  snapshot: Snapshot,
  place: MachinePlace,
): Record<string, () => Fields[string]> {
  const disks = [...snapshot.disks.values(), ...snapshot.others].sort((one, other) => one.disk.key - other.disk.key);
  return {
    vm: () => reference("VirtualMachine", machine.id),
    config: () => machineConfig(machine, place, disks),
    childSnapshot: () =>
      list(
        "ManagedObjectReference",
        snapshot.children.map((each) => reference("VirtualMachineSnapshot", each.id)),
      ),
  };
}

interface ShownDisk {
  readonly disk: VirtualDisk;
  readonly layer: DiskLayer;
  readonly capacity: number;
  readonly mode: DiskMode;
  readonly changeId: ChangeId | undefined;
}

function liveDisks(machine: VirtualMachine): ShownDisk[] {
  return [...machine.disks.values()].map((disk) => ({
    disk,
    layer: disk.current,
    capacity: disk.capacity,
    mode: disk.mode,
    changeId: disk.tracker === undefined ? undefined : { epoch: disk.tracker.epoch, sequence: disk.tracker.sequence },
  }));
}

function machineConfig(machine: VirtualMachine, place: MachinePlace, disks: readonly ShownDisk[]): Data {
  const { spec } = machine;
  return data("VirtualMachineConfigInfo", {
    changeVersion: "2026-01-01T00:00:00.000000Z",
    modified: new Date(0),
    name: machine.name,
    guestFullName: spec.guestFullName ?? "Debian GNU/Linux 12 (64-bit)",
    version: `vmx-${String(machine.hardware).padStart(2, "0")}`,
    uuid: machine.biosUuid,
    instanceUuid: machine.instanceUuid,
    template: machine.template,
    guestId: spec.guestId ?? "debian12_64Guest",
    files: data("VirtualMachineFileInfo", { vmPathName: vmxPath(machine) }),
    hardware: data("VirtualHardware", {
      numCPU: spec.cpus ?? 2,
      numCoresPerSocket: 1,
      memoryMB: spec.memoryMiB ?? 2048,
      device: devices(machine, place, disks),
    }),
    changeTrackingEnabled: machine.trackingEnabled,
    firmware: spec.firmware ?? "bios",
    bootOptions: data("VirtualMachineBootOptions", {
      bootDelay: long(0),
      enterBIOSSetup: false,
      bootOrder:
        spec.bootDisk === undefined
          ? undefined
          : list("VirtualMachineBootOptionsBootableDevice", [
              subtype("VirtualMachineBootOptionsBootableDiskDevice", { deviceKey: spec.bootDisk }),
            ]),
      efiSecureBootEnabled: spec.secureBoot ?? false,
    }),
    extraConfig: list(
      "OptionValue",
      [...machine.disks.values()]
        .filter((disk) => machine.trackingEnabled || disk.wanted)
        .map((disk) =>
          subtype("OptionValue", {
            key: `${slotName(disk)}.ctkEnabled`,
            value: new Any(disk.wanted ? "TRUE" : "FALSE"),
          }),
        ),
    ),
  });
}

/** The datastores that a machine has files on. */
function datastoreNames(machine: VirtualMachine): string[] {
  return [...new Set([machine.home, ...[...machine.disks.values()].map(({ datastore }) => datastore.name)])];
}

function devices(machine: VirtualMachine, place: MachinePlace, disks: readonly ShownDisk[]): List {
  const fixed = (type: string, key: number, label: string, more: Fields): Data =>
    subtype(type, { key, deviceInfo: describe(label, label), ...more });
  const controllers = new Map(disks.map(({ disk: { controller } }) => [controller.key, controller]));
  const on = (key: number): number[] =>
    disks.filter(({ disk }) => disk.controller.key === key).map(({ disk }) => disk.key);
  const nics = machine.spec.nics ?? [{ mac: defaultMac(machine.id) }];
  return list("VirtualDevice", [
    ...[0, 1].map((busNumber) =>
      fixed("VirtualIDEController", 200 + busNumber, `IDE ${busNumber}`, {
        busNumber,
        device: on(200 + busNumber).length > 0 ? list("xsd:int", on(200 + busNumber)) : undefined,
      }),
    ),
    fixed("VirtualPS2Controller", 300, "PS2 controller 0", { busNumber: 0, device: list("xsd:int", [600, 700]) }),
    fixed("VirtualPCIController", 100, "PCI controller 0", { busNumber: 0, device: list("xsd:int", [500, 12_000]) }),
    fixed("VirtualSIOController", 400, "SIO controller 0", { busNumber: 0 }),
    subtype("VirtualKeyboard", {
      key: 600,
      deviceInfo: describe("Keyboard ", "Keyboard"),
      controllerKey: 300,
      unitNumber: 0,
    }),
    subtype("VirtualPointingDevice", {
      key: 700,
      deviceInfo: describe("Pointing device", "Pointing device; Device"),
      backing: subtype("VirtualPointingDeviceDeviceBackingInfo", {
        deviceName: "",
        useAutoDetect: false,
        hostPointingDevice: "autodetect",
      }),
      controllerKey: 300,
      unitNumber: 1,
    }),
    // The two of IDE are part of every machine.
    ...[...controllers.values()]
      .filter((controller) => controllerFamily(controller) !== "ide")
      .map((controller) =>
        fixed(controllerType(controller), controller.key, controllerLabel(controller), {
          busNumber: controller.bus,
          device: list("xsd:int", on(controller.key)),
          ...(controllerFamily(controller) === "scsi"
            ? {
                sharedBus: enumerated("VirtualSCSISharing", machine.spec.sharedBus ?? "noSharing"),
                scsiCtlrUnitNumber: 7,
              }
            : {}),
        }),
      ),
    ...disks.map((shown, index) => diskDevice(machine, place, shown, index)),
    ...(machine.spec.tpm === true ? [fixed("VirtualTPM", 11_000, "Virtual TPM", {})] : []),
    ...nics.map((nic, index) =>
      fixed("VirtualVmxnet3", 4000 + index, `Network adapter ${index + 1}`, {
        backing: subtype("VirtualEthernetCardNetworkBackingInfo", {
          deviceName: nic.network ?? place.networkName,
          network: reference("Network", place.network),
        }),
        controllerKey: 100,
        unitNumber: 7 + index,
        addressType: "assigned",
        macAddress: nic.mac,
      }),
    ),
  ]);
}

function diskDevice(machine: VirtualMachine, place: MachinePlace, shown: ShownDisk, index: number): Data {
  const { disk, capacity } = shown;
  const kib = Math.floor(capacity / 1024);
  return subtype("VirtualDisk", {
    key: disk.key,
    deviceInfo: describe(`Hard disk ${index + 1}`, `${kib.toLocaleString("en-US")} KB`),
    backing: backing(place, shown),
    controllerKey: disk.controller.key,
    unitNumber: disk.unitNumber,
    capacityInKB: long(kib),
    capacityInBytes: long(capacity),
    diskObjectId: `${machine.id.replace(/\D/g, "")}-${disk.key}`,
    nativeUnmanagedLinkedClone: false,
  });
}

function backing(place: MachinePlace, shown: Omit<ShownDisk, "capacity">): Data {
  const { disk, layer, mode, changeId } = shown;
  const file = {
    fileName: layer.fileName,
    datastore: reference("Datastore", place.datastore(disk.datastore.name)),
    backingObjectId: disk.datastore.type === "vsan" ? layer.objectId : undefined,
  };
  const parent =
    layer.parent === undefined ? undefined : backing(place, { disk, layer: layer.parent, mode, changeId: undefined });
  const common = {
    uuid: disk.uuid,
    contentId: disk.uuid.replaceAll("-", ""),
    changeId: changeId === undefined ? undefined : formatChangeId(changeId),
    parent: parent === undefined ? undefined : data(parent.type, parent.fields),
  };
  const sharing = disk.spec.shared === true ? "sharingMultiWriter" : "sharingNone";
  if (disk.spec.backing === "rdm-physical" || disk.spec.backing === "rdm-virtual") {
    return subtype("VirtualDiskRawDiskMappingVer1BackingInfo", {
      ...file,
      lunUuid: disk.uuid.replaceAll("-", ""),
      deviceName: "vml.0200000000",
      compatibilityMode: disk.spec.backing === "rdm-physical" ? "physicalMode" : "virtualMode",
      diskMode: mode,
      ...common,
      sharing,
    });
  }
  return subtype("VirtualDiskFlatVer2BackingInfo", {
    ...file,
    diskMode: mode,
    split: false,
    writeThrough: false,
    thinProvisioned: disk.spec.thin ?? true,
    eagerlyScrub: disk.spec.eager,
    ...common,
    digestEnabled: false,
    sharing,
    keyId:
      disk.spec.encrypted === true
        ? data("CryptoKeyId", { keyId: disk.uuid, providerId: data("KeyProviderId", { id: "keys" }) })
        : undefined,
  });
}

function guestInfo(machine: VirtualMachine, guestId: string, guestFullName: string): Data {
  const running = machine.tools === "running" && machine.power === "poweredOn";
  const installed = machine.tools !== "not-installed";
  return data("GuestInfo", {
    toolsStatus: enumerated(
      "VirtualMachineToolsStatus",
      installed ? (running ? "toolsOk" : "toolsNotRunning") : "toolsNotInstalled",
    ),
    toolsVersionStatus: installed ? "guestToolsUnmanaged" : "guestToolsNotInstalled",
    toolsVersionStatus2: installed ? "guestToolsUnmanaged" : "guestToolsNotInstalled",
    toolsRunningStatus: running ? "guestToolsRunning" : "guestToolsNotRunning",
    toolsVersion: installed ? "12352" : undefined,
    guestId: running ? guestId : undefined,
    guestFamily: running ? (guestId.startsWith("win") ? "windowsGuest" : "linuxGuest") : undefined,
    guestFullName: running ? guestFullName : undefined,
    hostName: running ? machine.name : undefined,
    ipAddress: running ? "192.0.2.10" : undefined,
    net: running
      ? list(
          "GuestNicInfo",
          (machine.spec.nics ?? [{ mac: defaultMac(machine.id) }]).map((nic, index) =>
            data("GuestNicInfo", {
              network: nic.network ?? "VM Network",
              ipAddress: list("xsd:string", nic.addresses ?? [`192.0.2.${10 + index}`]),
              macAddress: nic.mac,
              connected: true,
              deviceConfigId: 4000 + index,
            }),
          ),
        )
      : undefined,
    guestState: machine.power === "poweredOn" ? "running" : "notRunning",
    guestOperationsReady: running,
  });
}

function snapshotInfo(machine: VirtualMachine): Data | undefined {
  if (machine.roots.length === 0) return undefined;
  const tree = (snapshot: Snapshot): Data =>
    data("VirtualMachineSnapshotTree", {
      snapshot: reference("VirtualMachineSnapshot", snapshot.id),
      vm: reference("VirtualMachine", machine.id),
      name: snapshot.name,
      description: snapshot.description,
      id: snapshot.number,
      createTime: snapshot.created,
      state: enumerated("VirtualMachinePowerState", snapshot.power),
      quiesced: snapshot.quiesced,
      childSnapshotList: list("VirtualMachineSnapshotTree", snapshot.children.map(tree)),
      replaySupported: false,
    });
  return data("VirtualMachineSnapshotInfo", {
    currentSnapshot:
      machine.currentSnapshot === undefined
        ? undefined
        : reference("VirtualMachineSnapshot", machine.currentSnapshot.id),
    rootSnapshotList: list("VirtualMachineSnapshotTree", machine.roots.map(tree)),
  });
}

function describe(label: string, summary: string): Data {
  return subtype("Description", { label, summary });
}

function vmxPath(machine: VirtualMachine): string {
  const called = machine.spec.name.replaceAll("/", "_");
  const first = machine.disks.values().next().value?.current.fileName;
  const directory = first === undefined ? `[${machine.home}] ${called}` : first.slice(0, first.lastIndexOf("/"));
  return `${directory}/${called}.vmx`;
}

function defaultMac(id: string): string {
  const number = Number(id.replace(/\D/g, "")) || 0;
  const byte = (shift: number): string => ((number >> shift) & 255).toString(16).padStart(2, "0");
  return `00:50:56:${byte(16)}:${byte(8)}:${byte(0)}`;
}

function sum(machine: VirtualMachine, of: (disk: VirtualDisk) => number): number {
  let total = 0;
  for (const disk of machine.disks.values()) total += of(disk);
  return total;
}
