import { type ProviderDefinition, defineProvider } from "@diskferry/core/provider";
import { Cloud } from "./cloud.ts";
import { cloudstackSchemes, optionsFromUri } from "./cloudstack-uri.ts";
import { benchOf } from "./open-bench.ts";
import { importTarget } from "./import/import-target.ts";
import { type CloudstackOptions, optionsSchema } from "./options.ts";
import { cloudstackSource } from "./source/cloudstack-source.ts";
import { cloudstackTarget } from "./target/cloudstack-target.ts";
import { uploadTarget } from "./upload/upload-target.ts";

/** The provider of Apache CloudStack: volumes as target, snapshots as source, machines to launch. */
export const provider: ProviderDefinition<CloudstackOptions, CloudstackOptions> = defineProvider<
  CloudstackOptions,
  CloudstackOptions
>({
  spec: "v1",
  name: "cloudstack",
  schemes: cloudstackSchemes,
  config: optionsSchema,
  fromUri: optionsFromUri,
  async source(options, context) {
    const cloud = await Cloud.open(options, context);
    return cloudstackSource(cloud, benchOf(cloud));
  },
  async target(options, context) {
    const cloud = await Cloud.open(options, context);
    if (options.mode === "upload" && options.spool !== undefined) return uploadTarget(cloud, options.spool);
    if (options.mode === "import" && options.spool !== undefined && options.import !== undefined)
      return importTarget(cloud, options.spool, options.import);
    return cloudstackTarget(cloud, benchOf(cloud));
  },
});
