import { wrong } from "./ec2-scope.ts";
import type { VolumeShape } from "./resources.ts";

interface VolumeType {
  /** GiB, first and last included. */
  size: readonly [number, number];
  /** Provisioned operations a second, and how many of them a GiB may have. */
  iops?: readonly [number, number, number];
  /** Has to be named, for there is no default. */
  needsIops?: true;
  /** MiB/s. */
  throughput?: readonly [number, number];
}

/** Limits of the volume types (EC2 user guide, Amazon EBS volume types). */
const volumeTypes: Readonly<Record<string, VolumeType>> = {
  gp3: { size: [1, 65_536], iops: [3000, 80_000, 500], throughput: [125, 2000] },
  gp2: { size: [1, 16_384] },
  io2: { size: [4, 65_536], iops: [100, 256_000, 1000], needsIops: true },
  io1: { size: [4, 16_384], iops: [100, 64_000, 50], needsIops: true },
  st1: { size: [125, 16_384] },
  sc1: { size: [125, 16_384] },
  standard: { size: [1, 1024] },
};

/** Volumes that an instance can start from. */
export const isBootable = (type: string): boolean => type !== "st1" && type !== "sc1";

/** A volume's shape with the defaults of its type. @throws AwsError for what the type does not allow. */
export function shapeOf(type: string, sizeGib: number, iops?: number, throughput?: number): VolumeShape {
  const limits = Object.hasOwn(volumeTypes, type) ? volumeTypes[type] : undefined;
  if (limits === undefined) throw wrong("UnknownVolumeType", `Unsupported volume type '${type}' for volume creation.`);
  const [least, most] = limits.size;
  if (sizeGib < least || sizeGib > most)
    throw wrong(
      "InvalidParameterValue",
      `Volume of ${sizeGib}GiB is outside of ${least}GiB to ${most}GiB for ${type}.`,
    );
  if (iops !== undefined && limits.iops === undefined)
    throw wrong("InvalidParameterCombination", `The parameter iops is not supported for ${type} volumes.`);
  if (throughput !== undefined && limits.throughput === undefined)
    throw wrong("InvalidParameterCombination", `The parameter throughput is not supported for ${type} volumes.`);
  if (limits.iops === undefined) {
    // gp2 grows with its size: three operations a second and GiB (EC2 user guide).
    return { sizeGib, type, ...(type === "gp2" ? { iops: Math.min(16_000, Math.max(100, 3 * sizeGib)) } : {}) };
  }
  if (iops === undefined && limits.needsIops === true)
    throw wrong("MissingParameter", `The parameter iops must be specified for ${type} volumes.`);
  const [leastIops, mostIops, perGib] = limits.iops;
  const operations = iops ?? leastIops;
  if (operations < leastIops || operations > mostIops)
    throw wrong("InvalidParameterValue", `Volume iops of ${operations} is outside of ${leastIops} to ${mostIops}.`);
  if (operations > leastIops && operations > perGib * sizeGib)
    throw wrong("InvalidParameterValue", `Iops to volume size ratio is too high; maximum is ${perGib}.`);
  if (limits.throughput === undefined) return { sizeGib, type, iops: operations };
  const [leastThroughput, mostThroughput] = limits.throughput;
  const flow = throughput ?? leastThroughput;
  if (flow < leastThroughput || flow > mostThroughput)
    throw wrong(
      "InvalidParameterValue",
      `Volume throughput of ${flow} is outside of ${leastThroughput} to ${mostThroughput}.`,
    );
  if (flow > operations / 4)
    throw wrong("InvalidParameterValue", "Throughput to iops ratio is too high; maximum is 0.25 MiB/s for each.");
  return { sizeGib, type, iops: operations, throughput: flow };
}
