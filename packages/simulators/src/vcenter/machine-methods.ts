import { slotName } from "./disk-slot.ts";
import type { VimElement } from "./vim-element.ts";
import type { VirtualMachine } from "./virtual-machine.ts";
import { invalidArgument, objectNotFound, VimFault } from "./vim-fault.ts";
import { data, list, long, reference } from "./vim-value.ts";
import type { Reference, VimValue } from "./vim-value.ts";
import type { AuthenticatedCall, VimMethod, VimMethods, VimService } from "./vim-service.ts";

/** A task on the machine that the call is made on. */
function machineTask(
  work: (machine: VirtualMachine, args: VimElement, service: VimService) => VimValue | undefined,
): VimMethod {
  return (service, call) => {
    const machine = service.parts.inventory.machine(call.self);
    return service.start(call, { entity: call.self, name: machine.name }, () => {
      const result = work(machine, call.args, service);
      service.parts.changed();
      return result;
    });
  };
}

function createSnapshot(quiesces: (args: VimElement) => boolean): VimMethod {
  return machineTask((machine, args, { parts }) => {
    const name = args.string("name") ?? "";
    if (name === "") throw new VimFault("InvalidName", "The snapshot's name is empty", { name });
    const wish = { name, description: args.string("description") ?? "", quiesce: quiesces(args) };
    const snapshot = machine.snapshot(wish, parts.inventory.snapshotId(machine));
    parts.inventory.register(machine, snapshot);
    return reference("VirtualMachineSnapshot", snapshot.id);
  });
}

function powerTask(change: (machine: VirtualMachine) => void): VimMethod {
  return machineTask((machine) => {
    change(machine);
    return undefined;
  });
}

/** Methods of VirtualMachine and VirtualMachineSnapshot, and those on disks by name. */
export const machineMethods: VimMethods = {
  CreateSnapshot_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.State.CreateSnapshot",
    run: createSnapshot((args) => args.boolean("quiesce") === true),
  },
  CreateSnapshotEx_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.State.CreateSnapshot",
    run: (service, call) => {
      demandSchemaOrder(call.args, ["_this", "name", "description", "memory", "quiesceSpec"]);
      const minutes = call.args.child("quiesceSpec")?.number("timeout");
      if (minutes !== undefined && !(minutes >= 5 && minutes <= 240)) throw invalidArgument("quiesceSpec.timeout");
      return createSnapshot((args) => args.child("quiesceSpec") !== undefined)(service, call);
    },
  },
  RemoveSnapshot_Task: {
    on: "VirtualMachineSnapshot",
    privilege: "VirtualMachine.State.RemoveSnapshot",
    run: (service, call) => {
      const { machine, snapshot } = service.parts.inventory.snapshot(call.self);
      return service.start(call, { entity: vm(machine), name: machine.name }, () => {
        // Somebody else may have removed it while the task waited.
        service.parts.inventory.snapshot(call.self);
        service.parts.leases.revoke(machine);
        machine.removeSnapshot(snapshot, {
          removeChildren: call.args.boolean("removeChildren") === true,
          consolidate: call.args.boolean("consolidate") !== false,
        });
        service.parts.changed();
        return undefined;
      });
    },
  },
  RemoveAllSnapshots_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.State.RemoveSnapshot",
    run: machineTask((machine, args, { parts }) => {
      parts.leases.revoke(machine);
      const consolidate = args.boolean("consolidate") !== false;
      for (const root of [...machine.roots]) machine.removeSnapshot(root, { removeChildren: true, consolidate });
      return undefined;
    }),
  },
  RevertToSnapshot_Task: {
    on: "VirtualMachineSnapshot",
    privilege: "VirtualMachine.State.RevertToSnapshot",
    run: (service, call) => {
      const { machine, snapshot } = service.parts.inventory.snapshot(call.self);
      return service.start(call, { entity: vm(machine), name: machine.name }, () => {
        machine.revert(snapshot);
        service.parts.changed();
        return undefined;
      });
    },
  },
  ConsolidateVMDisks_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.State.RemoveSnapshot",
    run: machineTask((machine, _args, { parts }) => {
      parts.leases.revoke(machine);
      machine.consolidate();
      return undefined;
    }),
  },
  ReconfigVM_Task: {
    on: "VirtualMachine",
    run: (service, call) => {
      const specification = call.args.child("spec");
      if (specification?.child("changeTrackingEnabled") !== undefined) {
        service.demand("VirtualMachine.Config.ChangeTracking", call.self);
      }
      return machineTask((machine) => {
        if (specification !== undefined) reconfigure(machine, specification);
        return undefined;
      })(service, call);
    },
  },
  QueryChangedDiskAreas: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Provisioning.DiskRandomRead",
    run: queryChangedDiskAreas,
  },
  QueryVirtualDiskUuid: {
    on: "VirtualDiskManager",
    run: ({ parts }, { args }) => {
      const name = args.string("name") ?? "";
      for (const machine of parts.inventory.machines.values()) {
        for (const disk of machine.disks.values()) {
          for (let layer: typeof disk.current | undefined = disk.current; layer !== undefined; layer = layer.parent) {
            if (layer.fileName === name) return disk.uuid;
          }
        }
      }
      throw new VimFault("FileNotFound", `File ${name} was not found`, { file: name });
    },
  },
  PowerOnVM_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Interact.PowerOn",
    run: powerTask((machine) => machine.powerOn()),
  },
  PowerOffVM_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Interact.PowerOff",
    run: powerTask((machine) => machine.powerOff()),
  },
  SuspendVM_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Interact.Suspend",
    run: powerTask((machine) => machine.suspend()),
  },
  ResetVM_Task: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Interact.Reset",
    run: powerTask((machine) => {
      machine.powerOff();
      machine.powerOn();
    }),
  },
  ShutdownGuest: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Interact.PowerOff",
    run: ({ parts }, { self }) => {
      const machine = parts.inventory.machine(self);
      machine.demandTools();
      if (machine.obeysShutdown) {
        setTimeout(() => {
          machine.shutDown();
          parts.changed();
        }, parts.shutdownMs).unref();
      }
      return undefined;
    },
  },
  AnswerVM: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Interact.AnswerQuestion",
    run: ({ parts }, { self, args }) => {
      const machine = parts.inventory.machine(self);
      if (machine.question === undefined || machine.question.id !== args.string("questionId")) {
        throw invalidArgument("questionId");
      }
      machine.question = undefined;
      parts.changed();
      return undefined;
    },
  },
  MarkAsTemplate: {
    on: "VirtualMachine",
    privilege: "VirtualMachine.Provisioning.MarkAsTemplate",
    run: ({ parts }, { self }) => {
      const machine = parts.inventory.machine(self);
      if (machine.power !== "poweredOff") {
        throw new VimFault("InvalidPowerState", "A template is made of a machine that is powered off.", {
          requestedState: "poweredOff",
          existingState: machine.power,
        });
      }
      machine.template = true;
      parts.changed();
      return undefined;
    },
  },
};

function queryChangedDiskAreas({ parts }: VimService, { self, args }: AuthenticatedCall): VimValue {
  const machine = parts.inventory.machine(self);
  const disk = machine.disks.get(args.number("deviceKey") ?? 0);
  if (disk === undefined) throw invalidArgument("deviceKey");
  const startOffset = args.number("startOffset") ?? 0;
  const since = args.string("changeId") ?? "";
  const asked = args.ref("snapshot");
  let state = undefined;
  if (asked !== undefined) {
    const found = parts.inventory.snapshot(asked);
    if (found.machine !== machine) throw objectNotFound(asked);
    state = found.snapshot.disks.get(disk.key);
  } else if (machine.power === "poweredOff" && disk.tracker !== undefined) {
    const { epoch, sequence } = disk.tracker;
    state = { layer: disk.current, capacity: disk.capacity, changeId: { epoch, sequence } };
  }
  if (state === undefined) {
    const file = disk.current.fileName;
    throw new VimFault("FileFault", `Error caused by file ${file}`, { file });
  }
  const found = disk.changedAreas(state, startOffset, since);
  return data("DiskChangeInfo", {
    startOffset: long(found.startOffset),
    length: long(found.length),
    changedArea: list(
      "DiskChangeExtent",
      found.areas.map(({ start, length }) => data("DiskChangeExtent", { start: long(start), length: long(length) })),
    ),
  });
}

function reconfigure(machine: VirtualMachine, specification: VimElement): void {
  const tracking = specification.boolean("changeTrackingEnabled");
  if (tracking !== undefined) machine.setTracking(tracking);
  for (const option of specification.all("extraConfig")) {
    const key = option.string("key") ?? "";
    for (const disk of machine.disks.values()) {
      if (key === `${slotName(disk)}.ctkEnabled`) {
        disk.wanted = (option.string("value") ?? "").toLowerCase() === "true" && disk.trackable;
      }
    }
  }
  for (const change of specification.all("deviceChange")) {
    const device = change.child("device");
    if (device?.xsiType !== "VirtualDisk") throw invalidArgument("spec.deviceChange");
    const key = device.number("key") ?? 0;
    const bytes = device.number("capacityInBytes") ?? (device.number("capacityInKB") ?? 0) * 1024;
    const operation = change.string("operation");
    if (operation === "edit") machine.grow(key, bytes);
    else if (operation === "remove") machine.removeDisk(key);
    else if (operation === "add" && change.string("fileOperation") === "create") machine.addDisk({ size: bytes });
    else throw invalidArgument("spec.deviceChange");
  }
}

/** vCenter's parser wants the order of the schema. */
function demandSchemaOrder(args: VimElement, order: readonly string[]): void {
  // JSON objects have no order.
  if (args.child("_this") === undefined) return;
  let last = 0;
  for (const { name } of args.children) {
    const at = order.indexOf(name);
    if (at < last) throw new VimFault("InvalidRequest", `Unexpected element tag "${name}" seen`);
    last = at;
  }
}

function vm(machine: VirtualMachine): Reference {
  return reference("VirtualMachine", machine.id);
}
