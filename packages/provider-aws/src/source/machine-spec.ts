import type { Instance, InstanceTypeInfo } from "@aws-sdk/client-ec2";
import type { MachineSpec, NetworkCard, PowerState } from "@diskferry/core/provider";
import { tagsOf } from "../connection/tags.ts";

/** What a launch elsewhere needs to know of an instance (EC2, DescribeInstances and DescribeInstanceTypes). */
export function machineSpec(instance: Instance, type: InstanceTypeInfo | undefined): MachineSpec {
  const labels = tagsOf(instance.Tags);
  const { CpuOptions: cpu } = instance;
  const cpus = cpu?.CoreCount === undefined ? type?.VCpuInfo?.DefaultVCpus : cpu.CoreCount * (cpu.ThreadsPerCore ?? 1);
  const mebi = type?.MemoryInfo?.SizeInMiB;
  const architecture = instance.Architecture;
  const firmware = firmwareOf(instance);
  const guest = instance.PlatformDetails;
  const spec: MachineSpec = {
    guestFamily: instance.Platform?.toLowerCase() === "windows" ? "windows" : "linux",
    labels,
    networkCards: (instance.NetworkInterfaces ?? []).map((card): NetworkCard => {
      const given = (card.PrivateIpAddresses ?? []).map(({ PrivateIpAddress }) => PrivateIpAddress);
      const addresses = [
        ...(given.length === 0 ? [card.PrivateIpAddress] : given),
        ...(card.Ipv6Addresses ?? []).map(({ Ipv6Address }) => Ipv6Address),
      ].filter((address) => address !== undefined);
      return {
        ...(card.MacAddress === undefined ? {} : { mac: card.MacAddress }),
        ...(card.SubnetId === undefined ? {} : { network: card.SubnetId }),
        ...(addresses.length === 0 ? {} : { addresses }),
      };
    }),
  };
  const name = labels["Name"];
  if (name !== undefined && name !== "") spec.name = name;
  if (cpus !== undefined) spec.cpus = cpus;
  if (mebi !== undefined) spec.memoryBytes = mebi * 2 ** 20;
  if (architecture === "x86_64" || architecture === "arm64") spec.architecture = architecture;
  if (firmware !== undefined) spec.firmware = firmware;
  if (instance.TpmSupport !== undefined && instance.TpmSupport !== "") spec.tpm = true;
  if (guest !== undefined) spec.guest = guest;
  return spec;
}

/** Whether an instance is on; what is on its way there or back counts as on, because its disks are being written. */
export function powerOf(instance: Instance): PowerState {
  return instance.State?.Name === "stopped" ? "off" : "on";
}

/** Graviton boots by UEFI alone; else the mode it booted in, else the mode of its image where that leaves no choice. */
function firmwareOf(instance: Instance): "bios" | "uefi" | undefined {
  const mode = instance.CurrentInstanceBootMode ?? instance.BootMode;
  if (mode === "uefi" || instance.Architecture === "arm64") return "uefi";
  return mode === "legacy-bios" ? "bios" : undefined;
}
