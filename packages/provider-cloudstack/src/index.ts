export { provider } from "./provider.ts";
export { optionsSchema } from "./options.ts";
export type {
  ApplianceOptions,
  CloudstackOptions,
  ImportOptions,
  LaunchOptions,
  NetworkOptions,
  RemoteOptions,
  SourceOptions,
  TimeoutOptions,
} from "./options.ts";
export { CloudstackClient, mapParameter, tagParameters } from "./client/cloudstack-client.ts";
export type { CloudstackClientOptions, Parameters, Submitted } from "./client/cloudstack-client.ts";
export type { AnswerObject } from "./client/decode.ts";
export { choiceOf, jobOf, machineOf, machineSnapshotOf, snapshotOf, templateOf, volumeOf } from "./client/entities.ts";
export type {
  CloudChoice,
  CloudJob,
  CloudMachine,
  CloudMachineSnapshot,
  CloudSnapshot,
  CloudTemplate,
  CloudVolume,
} from "./client/entities.ts";
export { type SignedParameters, expiresText, signatureOf, textToSign } from "./client/signature.ts";
export type { RawAnswer, TlsTrust, Transport } from "./client/transport.ts";
export { ApiFailure } from "./errors.ts";
export { remoteBench } from "./appliance/remote-bench.ts";
export type { RemoteApplianceOptions, RemoteBench } from "./appliance/remote-bench.ts";
export { serveAppliance } from "./appliance/serve-appliance.ts";
export type { Appliance, ServeApplianceOptions } from "./appliance/serve-appliance.ts";
export type { DeviceList, ListedDevice } from "./appliance/protocol.ts";
export type { Bench, OpenVolume } from "./target/bench.ts";
