import type { ProviderContext } from "@diskferry/core/provider";
import { referenceOf, VsphereInventory } from "../inventory/vsphere-inventory.ts";
import { vspherePower } from "../inventory/vsphere-power.ts";
import type { VsphereOptions } from "../options.ts";
import { vspherePreflight } from "../preflight/vsphere-preflight.ts";
import type { ReaderMeans } from "../readers/reader-fitness.ts";
import { connectVsphere, type VsphereConnection } from "../vsphere-connection.ts";
import { VsphereSource } from "./vsphere-source.ts";

/** Connects and puts a source together. `means`: how nbdkit and the hosts' ports are asked, for tests. */
export async function connectSource(
  options: VsphereOptions,
  context?: ProviderContext,
  means: ReaderMeans = {},
): Promise<VsphereSource> {
  context?.signal?.throwIfAborted();
  const place = await connectVsphere(options, context);
  const inventory = new VsphereInventory(place);
  const connection: VsphereConnection = {
    ...place,
    means,
    async [Symbol.asyncDispose]() {
      await inventory[Symbol.asyncDispose]();
      await place[Symbol.asyncDispose]();
    },
  };
  return new VsphereSource({
    connection,
    machines: (wait) => inventory.machines(wait),
    machine: (id, wait) => inventory.machine(id, wait),
    refOf: referenceOf,
    power: vspherePower(connection),
    preflight: (machine, request) => vspherePreflight(connection, machine, request, means),
  });
}
