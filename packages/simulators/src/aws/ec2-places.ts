import { instanceTypes } from "./instance-types.ts";
import { listing, wrong, type Ec2Actions, type Ec2Scope, type XmlObject } from "./ec2-scope.ts";
import type { Ec2Form } from "./ec2-wire.ts";
import type { Caller } from "./signature.ts";

const regions = ["us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-2"];

/** The actions that tell what a Region offers: Regions, zones and instance types. */
export function placeActions(scope: Ec2Scope): Ec2Actions {
  function describeRegions(form: Ec2Form): XmlObject {
    const wanted = form.list("RegionName");
    for (const name of wanted)
      if (!regions.includes(name)) throw wrong("InvalidParameterValue", `Invalid region name '${name}'`);
    const all = regions.filter((name) => wanted.length === 0 || wanted.includes(name)).map((name) => ({ name }));
    const { items } = scope.select(form, all, ({ name }, filter) => {
      if (filter === "region-name") return [name];
      return filter === "opt-in-status" ? ["opt-in-not-required"] : undefined;
    });
    const regionInfo = items.map(({ name }) => ({
      regionName: name,
      regionEndpoint: `ec2.${name}.amazonaws.com`,
      optInStatus: "opt-in-not-required",
    }));
    return { regionInfo };
  }

  function describeZones(form: Ec2Form, { region }: Caller): XmlObject {
    const names = [...form.list("ZoneName")];
    const all = ["a", "b", "c"].map((letter, at) => ({ name: region + letter, id: `${region}-az${at + 1}` }));
    for (const name of names)
      if (all.every((each) => each.name !== name))
        throw wrong("InvalidParameterValue", `Invalid availability zones: [${name}]`);
    const { items } = scope.select(
      form,
      all.filter(({ name }) => names.length === 0 || names.includes(name)),
      ({ name, id }, filter) => {
        if (filter === "zone-name") return [name];
        if (filter === "zone-id") return [id];
        if (filter === "state") return ["available"];
        if (filter === "zone-type") return ["availability-zone"];
        return filter === "region-name" ? [region] : undefined;
      },
    );
    const availabilityZoneInfo = items.map(({ name, id }) => ({
      zoneName: name,
      zoneId: id,
      zoneState: "available",
      regionName: region,
      zoneType: "availability-zone",
      optInStatus: "opt-in-not-required",
      groupName: region,
      networkBorderGroup: region,
    }));
    return { availabilityZoneInfo };
  }

  function describeTypes(form: Ec2Form): XmlObject {
    const names = form.list("InstanceType");
    const most = form.number("MaxResults");
    if (names.length > 0 && most !== undefined)
      throw wrong("InvalidParameterCombination", "InstanceType cannot be used with MaxResults");
    if (most !== undefined && (most < 5 || most > 100))
      throw wrong("InvalidParameterValue", `MaxResults has to be from 5 to 100, not ${most}.`);
    const unknown = names.filter((name) => !instanceTypes.has(name));
    if (unknown.length > 0)
      throw wrong("InvalidInstanceType", `The following supplied instance types do not exist: [${unknown.join(", ")}]`);
    const all = [...instanceTypes.values()].filter(({ name }) => names.length === 0 || names.includes(name));
    // Without MaxResults a page holds 100 (EC2 API, DescribeInstanceTypes).
    const paged = most === undefined && names.length === 0 ? form.with("MaxResults", "100") : form;
    const { items, nextToken } = scope.select(paged, all, (each, filter) => {
      switch (filter) {
        case "instance-type":
          return [each.name];
        case "processor-info.supported-architecture":
          return [...each.architectures];
        case "supported-boot-mode":
          return [...each.bootModes];
        case "current-generation":
          return [String(each.currentGeneration)];
        case "hypervisor":
          return [each.hypervisor];
        case "bare-metal":
          return ["false"];
        case "burstable-performance-supported":
          return [String(each.burstable)];
        case "supported-virtualization-type":
          return ["hvm"];
        case "supported-root-device-type":
          return ["ebs"];
        case "supported-usage-class":
          return ["on-demand", "spot"];
        case "vcpu-info.default-vcpus":
          return [String(each.vcpus)];
        case "memory-info.size-in-mib":
          return [String(each.memoryMib)];
        case "network-info.ena-support":
          return [each.ena];
        case "ebs-info.nvme-support":
          return [each.nvme];
        case "nitro-tpm-support":
          return [each.tpm ? "supported" : "unsupported"];
        default:
          return undefined;
      }
    });
    const instanceTypeSet = items.map((each) => ({
      instanceType: each.name,
      currentGeneration: each.currentGeneration,
      supportedUsageClasses: ["on-demand", "spot"],
      supportedRootDeviceTypes: ["ebs"],
      supportedVirtualizationTypes: ["hvm"],
      bareMetal: false,
      hypervisor: each.hypervisor,
      processorInfo: { supportedArchitectures: [...each.architectures] },
      vCpuInfo: { defaultVCpus: each.vcpus },
      memoryInfo: { sizeInMiB: each.memoryMib },
      instanceStorageSupported: false,
      ebsInfo: { encryptionSupport: "supported", nvmeSupport: each.nvme, maximumEbsAttachments: 28 },
      networkInfo: { enaSupport: each.ena, maximumNetworkInterfaces: 3 },
      burstablePerformanceSupported: each.burstable,
      supportedBootModes: [...each.bootModes],
      nitroTpmSupport: each.tpm ? "supported" : "unsupported",
      nitroTpmInfo: each.tpm ? { supportedVersions: ["2.0"] } : undefined,
    }));
    return { instanceTypeSet, nextToken };
  }

  return {
    DescribeRegions: { takes: "RegionName AllRegions Filter", act: describeRegions },
    DescribeAvailabilityZones: { takes: "ZoneName AllAvailabilityZones Filter", act: describeZones },
    DescribeInstanceTypes: { takes: `InstanceType ${listing}`, act: describeTypes },
  };
}
