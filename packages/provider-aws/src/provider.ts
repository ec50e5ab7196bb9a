import { type ProviderDefinition, defineProvider } from "@diskferry/core/provider";
import { awsScheme, optionsFromUri } from "./connection/aws-uri.ts";
import { type AwsOptions, optionsSchema } from "./options.ts";

/** The provider of AWS: instances, EBS volumes and snapshots. */
export const provider: ProviderDefinition<AwsOptions> = defineProvider<AwsOptions>({
  spec: "v1",
  name: "aws-ebs",
  schemes: [awsScheme],
  config: optionsSchema,
  fromUri: optionsFromUri,
});
