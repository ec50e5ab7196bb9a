import type { PowerState } from "@diskferry/core/provider";
import { neverSent, vsphereError } from "../errors.ts";
import type { MoRef } from "./moref.ts";
import { patiently } from "./patiently.ts";
import { readObject, waitForProperties } from "./property-collector.ts";
import { runTask, type TaskWait } from "./tasks.ts";
import type { CallWait, VimClient } from "./vim-client.ts";
import { faultOf } from "./vim-fault.ts";

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
  await patiently(wait, askToShutDown(client, machine, wait));
  await waitForProperties(
    client,
    machine,
    ["runtime.powerState"],
    (seen) => seen.string("runtime.powerState") === "poweredOff",
    wait,
  );
}

/** Refusals by a guest that is on its way down already: its tools have stopped, or it is off. */
const onItsWay: ReadonlySet<string | undefined> = new Set(["ToolsUnavailable", "InvalidPowerState"]);

/** Asks once more where nobody knows whether it was heard: a guest that was asked shuts down, whoever believes what. */
function askToShutDown(client: VimClient, machine: MoRef, wait: CallWait): () => Promise<void> {
  let unheard = false;
  return async () => {
    if ((await readPowerState(client, machine, wait)) === "off") return;
    try {
      await client.call("ShutdownGuest", machine, {}, wait);
    } catch (error) {
      const fault = faultOf(error)?.type;
      if (unheard && onItsWay.has(fault)) return;
      unheard ||= fault === undefined && !neverSent(error);
      throw error;
    }
  };
}

/** Powers a machine off as a cut of its power does; one that is off already is left alone. */
export async function powerOff(client: VimClient, machine: MoRef, wait: TaskWait = {}): Promise<void> {
  await bring(client, machine, { state: "off", by: "PowerOffVM_Task" }, wait);
}

/** Powers a machine on; one that is on already is left alone. */
export async function powerOn(client: VimClient, machine: MoRef, wait: TaskWait = {}): Promise<void> {
  await bring(client, machine, { state: "on", by: "PowerOnVM_Task" }, wait);
}

/** By a task, unless the machine is as wanted before it, or in spite of its failure. */
async function bring(
  client: VimClient,
  machine: MoRef,
  wanted: { state: PowerState; by: "PowerOffVM_Task" | "PowerOnVM_Task" },
  wait: TaskWait,
): Promise<void> {
  const isThere = async (): Promise<boolean> => (await readPowerState(client, machine, wait)) === wanted.state;
  await patiently(wait, async () => {
    if (await isThere()) return;
    try {
      await runTask(client, wanted.by, machine, {}, wait);
    } catch (error) {
      wait.signal?.throwIfAborted();
      if (faultOf(error)?.type !== "InvalidPowerState" || !(await isThere())) throw error;
    }
  });
}
