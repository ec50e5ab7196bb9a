import type { MachineSpec } from "@diskferry/core/provider";

/** A family of instance types whose sizes differ by vCPUs alone. */
interface Family {
  name: string;
  architecture: "x86_64" | "arm64";
  /** Name and vCPUs of each size, ascending. */
  sizes: readonly (readonly [size: string, vcpus: number])[];
  /** Per vCPU; for burstable families of each size, in `sizes`' order. */
  memoryGib: number | readonly number[];
}

const nitro = [
  ["large", 2],
  ["xlarge", 4],
  ["2xlarge", 8],
  ["4xlarge", 16],
  ["8xlarge", 32],
  ["12xlarge", 48],
  ["16xlarge", 64],
] as const;
const nitroIntel = [...nitro, ["24xlarge", 96], ["32xlarge", 128]] as const;
const burstable = [
  ["nano", 2],
  ["micro", 2],
  ["small", 2],
  ["medium", 2],
] as const;

/**
 * The types that a machine is fitted to: current, in every Region, with ENA and NVMe. Data; the cheaper family of two that
 * fit stands first. Source: EC2 instance types, "Specifications".
 */
const families: readonly Family[] = [
  { name: "t3", architecture: "x86_64", sizes: burstable, memoryGib: [0.5, 1, 2, 4] },
  { name: "c6i", architecture: "x86_64", sizes: nitroIntel, memoryGib: 2 },
  { name: "m6i", architecture: "x86_64", sizes: nitroIntel, memoryGib: 4 },
  { name: "r6i", architecture: "x86_64", sizes: nitroIntel, memoryGib: 8 },
  { name: "t4g", architecture: "arm64", sizes: burstable, memoryGib: [0.5, 1, 2, 4] },
  { name: "c7g", architecture: "arm64", sizes: nitro, memoryGib: 2 },
  { name: "m7g", architecture: "arm64", sizes: nitro, memoryGib: 4 },
  { name: "r7g", architecture: "arm64", sizes: nitro, memoryGib: 8 },
];

/** Assumed where the source could not tell. */
const ASSUMED_CPUS = 2;
const ASSUMED_MEMORY: number = 4 * 2 ** 30;

/** An instance type and why it was taken. */
export interface RightSize {
  instanceType: string;
  vcpus: number;
  memoryBytes: number;
  /** For people, where something was assumed or does not fit. */
  note?: string;
}

/**
 * The smallest instance type with at least the machine's processors and memory: fewest vCPUs first, then least memory.
 * Unknown processors or memory count as 2 and 4 GiB. `undefined` where no type of the list is large enough.
 */
export function rightSize(machine: MachineSpec): RightSize | undefined {
  const { cpus = ASSUMED_CPUS, memoryBytes = ASSUMED_MEMORY, architecture = "x86_64" } = machine;
  const unknown = [
    ...(machine.cpus === undefined ? ["processors"] : []),
    ...(machine.memoryBytes === undefined ? ["memory"] : []),
    ...(machine.architecture === undefined ? ["architecture"] : []),
  ];
  let best: RightSize | undefined;
  for (const { name, sizes, memoryGib, ...family } of families) {
    if (family.architecture !== architecture) continue;
    for (const [index, [size, vcpus]] of sizes.entries()) {
      const memory = (typeof memoryGib === "number" ? memoryGib * vcpus : memoryGib[index]!) * 2 ** 30;
      if (vcpus < cpus || memory < memoryBytes) continue;
      const isSmaller = best === undefined || vcpus < best.vcpus || (vcpus === best.vcpus && memory < best.memoryBytes);
      if (isSmaller) best = { instanceType: `${name}.${size}`, vcpus, memoryBytes: memory };
    }
  }
  if (best !== undefined && unknown.length > 0)
    best.note = `The source did not tell ${unknown.join(", ")}: ${best.instanceType} is a guess. Set launch.instanceType.`;
  return best;
}
