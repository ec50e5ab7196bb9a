export { provider } from "./provider.ts";
export {
  type AwsOptions,
  type CredentialFunction,
  type CredentialOptions,
  type StaticKeys,
  type TimeoutOptions,
  optionsSchema,
} from "./options.ts";
export type { ApplicationOptions, SourceOptions } from "./source/source-options.ts";
export type { TargetOptions } from "./target/target-options.ts";
