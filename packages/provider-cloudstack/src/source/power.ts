import type { Machine, Wait } from "@diskferry/core/provider";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { stopMachine } from "../launch/terminate-machine.ts";

/**
 * Brings a machine to a power state. `shutdown` asks without `forced`; what KVM's agent does with a guest that does not answer
 * is the platform's: it switches it off after its own patience (`stop.script.timeout`), and no parameter forbids that.
 */
export async function ensurePower(
  cloud: Cloud,
  machine: Machine,
  wanted: "on" | "off" | "shutdown",
  wait: Wait,
): Promise<void> {
  wait.signal?.throwIfAborted();
  if (wanted !== "on") {
    await stopMachine(cloud, machine.id, wanted === "off", wait);
    return;
  }
  await ensure(
    cloud.client,
    {
      object: `machine ${machine.name}`,
      look: () => cloud.machine(machine.id, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "Running",
      command: () => ({ command: "startVirtualMachine", parameters: { id: machine.id } }),
    },
    wait,
  );
}
