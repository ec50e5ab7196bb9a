import { StartInstancesCommand, StopInstancesCommand } from "@aws-sdk/client-ec2";
import type { Machine, PowerState, SourceConnector, Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { awsError } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import type { Inventory } from "./inventory.ts";
import { powerOf } from "./machine-spec.ts";

/** Stops and starts instances. Only `powerOff` takes the power away. */
export function instancePower(connection: AwsConnection, inventory: Inventory): NonNullable<SourceConnector["power"]> {
  const { pollMs, powerMs } = connection.settings.timeouts;

  async function reach(machine: Machine, wanted: "running" | "stopped", operation: string, wait: Wait): Promise<void> {
    const end = performance.now() + powerMs;
    for (;;) {
      const { State } = await inventory.instance(machine.id, wait);
      if (State?.Name === wanted) return;
      if (State?.Name === "terminated" || State?.Name === "shutting-down")
        throw awsError("NOT_FOUND", `Instance ${machine.id} is being terminated.`, { operation });
      if (performance.now() > end) {
        const remedy =
          wanted === "stopped"
            ? "Its guest does not shut down: shut it down from within, or allow power-off, which loses what it has not written."
            : "See its status checks and console output.";
        throw awsError(
          "UNAVAILABLE",
          `Instance ${machine.id} is ${State?.Name ?? "in no state"} and not ${wanted} after ${Math.round(powerMs / 1000)} s. ${remedy}`,
          { operation, retryable: false },
        );
      }
      await sleep(pollMs, wait.signal);
    }
  }

  async function stop(machine: Machine, Force: boolean, wait: Wait): Promise<void> {
    demandInstance(machine);
    const { State } = await inventory.instance(machine.id, wait);
    if (State?.Name === "stopped") return;
    // An instance that is already stopping may hang there, and only a second, forced stop ends that.
    if (State?.Name !== "stopping" || Force) {
      const command = new StopInstancesCommand({ InstanceIds: [machine.id], ...(Force ? { Force } : {}) });
      await connection.ec2(command, { object: machine.id, ...wait });
    }
    await reach(machine, "stopped", "StopInstances", wait);
  }

  return {
    async state(machine, wait = {}): Promise<PowerState> {
      demandInstance(machine);
      return powerOf(await inventory.instance(machine.id, wait));
    },
    shutdown: (machine, wait = {}) => stop(machine, false, wait),
    powerOff: (machine, wait = {}) => stop(machine, true, wait),
    async powerOn(machine, wait = {}) {
      demandInstance(machine);
      const { State } = await inventory.instance(machine.id, wait);
      if (State?.Name === "stopping") await reach(machine, "stopped", "StartInstances", wait);
      if (State?.Name !== "running" && State?.Name !== "pending")
        await connection.ec2(new StartInstancesCommand({ InstanceIds: [machine.id] }), { object: machine.id, ...wait });
      await reach(machine, "running", "StartInstances", wait);
    },
  };
}

function demandInstance(machine: Machine): void {
  if (machine.id.startsWith("i-")) return;
  throw awsError("UNSUPPORTED", `${machine.id} is no instance, so it has no power.`, { operation: "power" });
}
