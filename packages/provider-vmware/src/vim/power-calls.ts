import type { PowerState } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { MoRef } from "./moref.ts";
import { readObject, waitForProperties } from "./property-collector.ts";
import { runTask, type TaskWait } from "./tasks.ts";
import type { CallWait, VimClient } from "./vim-client.ts";

/** vim25's names for power states. */
const powerStates: Readonly<Record<string, PowerState>> = {
  poweredOn: "on",
  poweredOff: "off",
  suspended: "suspended",
};

/** The power state by vim25's name for it. */
export function powerStateOf(name: string | undefined): PowerState | undefined {
  return powerStates[name ?? ""];
}

/** Reads a machine's power state. */
export async function readPowerState(client: VimClient, machine: MoRef, wait: CallWait = {}): Promise<PowerState> {
  const properties = await readObject(client, machine, ["runtime.powerState"], wait);
  const name = properties.string("runtime.powerState");
  const state = powerStateOf(name);
  if (state === undefined) throw vsphereError("UNEXPECTED", `the power state of ${machine.value} is '${name ?? ""}'`);
  return state;
}

/**
 * Asks the guest to shut down by VMware Tools (ShutdownGuest has no task) and resolves when the machine is off. Never
 * powers it off: a guest that does not obey is waited for until `signal` fires.
 *
 * @throws ProviderError UNSUPPORTED where VMware Tools is not running
 */
export async function shutDownGuest(client: VimClient, machine: MoRef, wait: CallWait = {}): Promise<void> {
  if ((await readPowerState(client, machine, wait)) === "off") return;
  await client.call("ShutdownGuest", machine, {}, wait);
  await waitForProperties(
    client,
    machine,
    ["runtime.powerState"],
    (seen) => seen.string("runtime.powerState") === "poweredOff",
    wait,
  );
}

/** Powers a machine off as a cut of its power does; one that is off already is left alone. */
export async function powerOff(client: VimClient, machine: MoRef, wait: TaskWait = {}): Promise<void> {
  if ((await readPowerState(client, machine, wait)) === "off") return;
  await runTask(client, "PowerOffVM_Task", machine, {}, wait);
}

/** Powers a machine on; one that is on already is left alone. */
export async function powerOn(client: VimClient, machine: MoRef, wait: TaskWait = {}): Promise<void> {
  if ((await readPowerState(client, machine, wait)) === "on") return;
  await runTask(client, "PowerOnVM_Task", machine, {}, wait);
}
