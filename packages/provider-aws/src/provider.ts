import {
  type ProviderDefinition,
  type SourceConnector,
  type TargetProvider,
  defineProvider,
} from "@diskferry/core/provider";
import { awsScheme, optionsFromUri } from "./connection/aws-uri.ts";
import { AwsConnection } from "./connection/connection.ts";
import { AttachedTarget } from "./device/attached-target.ts";
import { type AwsOptions, optionsSchema } from "./options.ts";
import { AwsSource } from "./source/aws-source.ts";
import { EbsTarget } from "./target/ebs-target.ts";

/** The provider of AWS: instances, EBS volumes and snapshots. */
export const provider: ProviderDefinition<AwsOptions, AwsOptions> = defineProvider<AwsOptions, AwsOptions>({
  spec: "v1",
  name: "aws-ebs",
  schemes: [awsScheme],
  config: optionsSchema,
  fromUri: optionsFromUri,
  async source(options, context): Promise<SourceConnector> {
    return new AwsSource(await AwsConnection.open(options, context));
  },
  async target(options, context): Promise<TargetProvider> {
    const { attached } = options.target ?? {};
    const connection = await AwsConnection.open(options, context);
    return attached === undefined ? new EbsTarget(connection) : new AttachedTarget(connection, attached.instance);
  },
});
