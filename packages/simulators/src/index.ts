/** Clouds and hypervisors as local servers with real bytes and faults, for tests. */
export { startAwsSimulator } from "./aws/aws-simulator.ts";
export type { AwsSimulator, AwsSimulatorOptions } from "./aws/aws-simulator.ts";
export { FaultPlan } from "./aws/fault-plan.ts";
export type { AwsFault, AwsFaultRule } from "./aws/fault-plan.ts";
export type { Guest, GuestCommand, GuestOutcome } from "./aws/guest-commands.ts";
export type { AwsCredentials } from "./aws/signature.ts";
export type { AwsDelays, AwsRole } from "./aws/world.ts";
export { startCloudstackSimulator } from "./cloudstack/cloudstack-simulator.ts";
export type {
  CloudstackCredentials,
  CloudstackGuest,
  CloudstackSimulator,
  CloudstackSimulatorOptions,
  DeviceBus as CloudstackDeviceBus,
  FaultAction as CloudstackFaultAction,
  FaultRule as CloudstackFaultRule,
  LimitedResource as CloudstackLimitedResource,
  MachineSpec as CloudstackMachineSpec,
  ReleaseName as CloudstackReleaseName,
  Settings as CloudstackSettings,
  SimulatedVolume as CloudstackVolume,
} from "./cloudstack/cloudstack-simulator.ts";
export { generateMachines } from "./vcenter/inventory.ts";
export { startVcenterSimulator } from "./vcenter/vcenter-simulator.ts";
export type { FaultAction as VcenterFaultAction, FaultRule as VcenterFaultRule } from "./vcenter/fault-plan.ts";
export type { ReleaseName as VcenterReleaseName } from "./vcenter/releases.ts";
export type { ReadOptions, VcenterSimulator, VcenterSimulatorOptions } from "./vcenter/vcenter-simulator.ts";
export type { DiskSpec, TrackingBug } from "./vcenter/virtual-disk.ts";
export type { MachineSpec, PowerState, QuiesceOutcome, ToolsState, VirtualMachine } from "./vcenter/virtual-machine.ts";
