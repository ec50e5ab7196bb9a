import { leasedDisk } from "./nfc-leases.ts";
import { VimFault } from "./vim-fault.ts";
import type { VimMethods } from "./vim-service.ts";

/** Exports and the leases that serve them. */
export const leaseMethods: VimMethods = {
  ExportVm: {
    on: "VirtualMachine",
    privilege: "VApp.Export",
    run: ({ parts }, { self, session }) => {
      const machine = parts.inventory.machine(self);
      if (machine.power !== "poweredOff") {
        throw new VimFault("InvalidPowerState", "The attempted operation cannot be performed in the current state.", {
          requestedState: "poweredOff",
          existingState: machine.power,
        });
      }
      const disks = [...machine.disks.values()].map((disk, index) =>
        leasedDisk(disk, { layer: disk.current, capacity: disk.capacity }, index),
      );
      return parts.leases.open(machine, self, disks, session.key);
    },
  },
  ExportSnapshot: {
    on: "VirtualMachineSnapshot",
    privilege: "VApp.Export",
    run: ({ parts }, { self, session }) => {
      const { machine, snapshot } = parts.inventory.snapshot(self);
      const disks = [...snapshot.disks.values()].map((state, index) => leasedDisk(state.disk, state, index));
      return parts.leases.open(machine, self, disks, session.key);
    },
  },
  HttpNfcLeaseProgress: {
    on: "HttpNfcLease",
    run: ({ parts }, { self, args }) => {
      parts.leases.progress(self.id, args.number("percent") ?? 0);
      return undefined;
    },
  },
  HttpNfcLeaseComplete: {
    on: "HttpNfcLease",
    run: ({ parts }, { self }) => {
      parts.leases.complete(self.id);
      return undefined;
    },
  },
  HttpNfcLeaseAbort: {
    on: "HttpNfcLease",
    run: ({ parts }, { self }) => {
      parts.leases.abort(self.id);
      return undefined;
    },
  },
};
