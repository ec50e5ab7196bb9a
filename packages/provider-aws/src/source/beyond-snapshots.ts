import type { Instance, InstanceTypeInfo, Volume } from "@aws-sdk/client-ec2";
import type { Machine } from "@diskferry/core/provider";

/** What of an instance its snapshots do not hold, or not as one would think; each a sentence for people. */
export function beyondSnapshots(
  instance: Instance,
  type: InstanceTypeInfo | undefined,
  volumes: ReadonlyMap<string, Volume>,
): string[] {
  const { InstanceId: id = "", RootDeviceType, BlockDeviceMappings = [] } = instance;
  const told: string[] = [];
  if (RootDeviceType === "instance-store")
    told.push(`${id} boots from its instance store, which no EBS snapshot holds: no copy of it can be started.`);
  const gb = type?.InstanceStorageInfo?.TotalSizeInGB ?? 0;
  if (gb > 0)
    told.push(
      `${id} has ${gb} GB of instance store, which no EBS snapshot holds: what is there is not copied. Move what matters to a volume.`,
    );
  for (const { Ebs } of BlockDeviceMappings) {
    const { VolumeId = "", Attachments = [] } = volumes.get(Ebs?.VolumeId ?? "") ?? {};
    const others = Attachments.flatMap(({ InstanceId }) =>
      InstanceId === undefined || InstanceId === id ? [] : InstanceId,
    );
    if (others.length > 0)
      told.push(
        `${VolumeId} is attached to ${others.join(", ")} too (Multi-Attach): what they write is in no order with ${id}, and ` +
          `shutting ${id} down does not stop them. Stop them before a cutover.`,
      );
  }
  return told;
}

/** What {@link beyondSnapshots} told of a machine when it was looked at. */
export function toldOf({ data }: Machine): string[] {
  const beyond = data?.["beyond"];
  return Array.isArray(beyond) ? beyond.filter((line) => typeof line === "string") : [];
}
