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
export type { LaunchOptions, NetworkOptions, VolumeOptions } from "./target/target-options.ts";
export {
  actionsOf,
  type Duty,
  type PolicyDocument,
  policyFor,
  type PolicyScope,
  type PolicyStatement,
} from "./plan/policy.ts";
export { type AttachedVolume, type DeviceRoots, type FoundDevice, type OpenedFile } from "./device/attached-device.ts";
export { type DeviceRun, openAttachedVolume } from "./device/device-writer.ts";
export {
  type CreatedVolume,
  createVolume,
  type CreateVolumeRequest,
  removeCreatedVolume,
} from "./launch/create-volume.ts";
export { type CopiedSnapshot, type CopySnapshotRequest, copySnapshot } from "./copy/copy-snapshot.ts";
