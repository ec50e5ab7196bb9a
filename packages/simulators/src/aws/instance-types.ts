/** What DescribeInstanceTypes tells of one type, as far as a launch depends on it. */
export interface InstanceType {
  name: string;
  architectures: readonly string[];
  hypervisor: "nitro" | "xen";
  bootModes: readonly ("legacy-bios" | "uefi")[];
  /** `required`: an image without the ENA flag cannot start on it. */
  ena: "required" | "supported" | "unsupported";
  nvme: "required" | "unsupported";
  vcpus: number;
  memoryMib: number;
  currentGeneration: boolean;
  burstable: boolean;
  tpm: boolean;
}

interface Family {
  name: string;
  /** GiB of memory for each virtual processor, of the sizes from large on. */
  ratio: number;
  chip: "intel" | "amd" | "graviton";
  xen?: true;
  burstable?: true;
}

const families: readonly Family[] = [
  ...["m6i", "m7i", "m5"].map((name): Family => ({ name, ratio: 4, chip: "intel" })),
  ...["m6a", "m7a", "m5a"].map((name): Family => ({ name, ratio: 4, chip: "amd" })),
  ...["c5", "c6i", "c7i"].map((name): Family => ({ name, ratio: 2, chip: "intel" })),
  ...["r5", "r6i", "r7i"].map((name): Family => ({ name, ratio: 8, chip: "intel" })),
  ...["m6g", "m7g"].map((name): Family => ({ name, ratio: 4, chip: "graviton" })),
  { name: "c7g", ratio: 2, chip: "graviton" },
  { name: "r7g", ratio: 8, chip: "graviton" },
  { name: "t3", ratio: 4, chip: "intel", burstable: true },
  { name: "t3a", ratio: 4, chip: "amd", burstable: true },
  { name: "t4g", ratio: 4, chip: "graviton", burstable: true },
  { name: "t2", ratio: 4, chip: "intel", burstable: true, xen: true },
  { name: "m4", ratio: 4, chip: "intel", xen: true },
  { name: "c4", ratio: 2, chip: "intel", xen: true },
];

/** Virtual processors and, of the small sizes, memory in MiB. */
const steadySizes: Readonly<Record<string, number>> = {
  large: 2,
  xlarge: 4,
  "2xlarge": 8,
  "4xlarge": 16,
  "8xlarge": 32,
  "16xlarge": 64,
};
const burstSizes: Readonly<Record<string, readonly [number, number]>> = {
  nano: [2, 512],
  micro: [2, 1024],
  small: [2, 2048],
  medium: [2, 4096],
  large: [2, 8192],
  xlarge: [4, 16_384],
  "2xlarge": [8, 32_768],
};

function typeOf(family: Family, size: string, vcpus: number, memoryMib: number): InstanceType {
  const xen = family.xen === true;
  const arm = family.chip === "graviton";
  return {
    name: `${family.name}.${size}`,
    architectures: arm ? ["arm64"] : xen && family.burstable === true ? ["i386", "x86_64"] : ["x86_64"],
    hypervisor: xen ? "xen" : "nitro",
    bootModes: arm ? ["uefi"] : xen ? ["legacy-bios"] : ["legacy-bios", "uefi"],
    ena: xen ? "unsupported" : "required",
    nvme: xen ? "unsupported" : "required",
    vcpus,
    memoryMib,
    currentGeneration: !xen || family.burstable === true,
    burstable: family.burstable === true,
    tpm: !xen && !arm,
  };
}

/** A choice of EC2's instance types, by name: enough of them that DescribeInstanceTypes has several pages. */
export const instanceTypes: ReadonlyMap<string, InstanceType> = new Map(
  families
    .flatMap((family) =>
      family.burstable === true
        ? Object.entries(burstSizes).map(([size, [vcpus, memory]]) => typeOf(family, size, vcpus, memory))
        : Object.entries(steadySizes).map(([size, vcpus]) => typeOf(family, size, vcpus, vcpus * family.ratio * 1024)),
    )
    .map((each) => [each.name, each]),
);
