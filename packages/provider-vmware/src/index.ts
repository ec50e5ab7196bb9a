export { provider } from "./provider.ts";
export {
  type ReaderName,
  type SnapshotOptions,
  type TrackingOptions,
  type VddkOptions,
  type VsphereOptions,
  optionsSchema,
} from "./options.ts";
