import { defineProvider, type ProviderDefinition } from "@diskferry/core/provider";
import { optionsSchema, type VsphereOptions } from "./options.ts";
import { connectSource } from "./source/connect-source.ts";
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
  source: (options, context) => connectSource(options, context),
});
