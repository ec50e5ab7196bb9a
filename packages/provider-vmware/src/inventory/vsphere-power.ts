import type { SourceConnector } from "@diskferry/core/provider";
import { powerOff, powerOn, readPowerState, shutDownGuest } from "../vim/power-calls.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { referenceOf } from "./vsphere-inventory.ts";

/**
 * The power of a place's machines. A shutdown asks the guest by VMware Tools and waits; it never becomes a power-off, which
 * would also reset change tracking (KB 432633).
 */
export function vspherePower(connection: VsphereConnection): NonNullable<SourceConnector["power"]> {
  const { client } = connection;
  return {
    state: (machine, wait) => readPowerState(client, referenceOf(machine), { ...wait, about: machine.name }),
    shutdown: (machine, wait) => shutDownGuest(client, referenceOf(machine), { ...wait, about: machine.name }),
    powerOff: (machine, wait) => powerOff(client, referenceOf(machine), { ...wait, about: machine.name }),
    powerOn: (machine, wait) => powerOn(client, referenceOf(machine), { ...wait, about: machine.name }),
  };
}
