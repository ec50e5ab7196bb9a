import { defineProvider, type ProviderDefinition, type SourceConnector } from "@diskferry/core/provider";
import { referenceOf, VsphereInventory } from "./inventory/vsphere-inventory.ts";
import { vspherePower } from "./inventory/vsphere-power.ts";
import { optionsSchema, type VsphereOptions } from "./options.ts";
import { vspherePreflight } from "./preflight/vsphere-preflight.ts";
import { VsphereSource } from "./source/vsphere-source.ts";
import { connectVsphere, type VsphereConnection } from "./vsphere-connection.ts";
import { optionsFromUri, vsphereSchemes } from "./vsphere-uri.ts";

/** The provider of VMware vSphere: vCenter and ESXi hosts as source. */
export const provider: ProviderDefinition<VsphereOptions, VsphereOptions> = defineProvider<
  VsphereOptions,
  VsphereOptions
>({
  spec: "v1",
  name: "vsphere",
  schemes: vsphereSchemes,
  config: optionsSchema,
  fromUri: optionsFromUri,
  async source(options, context): Promise<SourceConnector> {
    context?.signal?.throwIfAborted();
    const place = await connectVsphere(options, context);
    const inventory = new VsphereInventory(place);
    const connection: VsphereConnection = {
      ...place,
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
      preflight: (machine, request) => vspherePreflight(connection, machine, request),
    });
  },
});
