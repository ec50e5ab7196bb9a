import type { Wait } from "@diskferry/core/provider";
import { AwsConnection } from "../connection/connection.ts";
import { tagValue } from "../connection/tags.ts";
import type { AwsOptions } from "../options.ts";
import type { VolumeOptions } from "../target/target-options.ts";
import { tagsOfNew, targetTagNames } from "../target/target-tags.ts";
import { makeVolume, volumeIn, volumesWith } from "./volumes.ts";

/** Which volume to make of a commit. */
export interface CreateVolumeRequest extends VolumeOptions, Wait {
  /** The account and Region of the snapshot. */
  in: AwsOptions;
  snapshotId: string;
  /** The Availability Zone, such as `eu-central-1a`. */
  zone: string;
  /** Idempotence: the same key gives the same volume again, until it is deleted. */
  key: string;
  job?: string | undefined;
  /** ARN of a KMS key to encrypt the volume with. Absent: as the snapshot, or as the account does by default. */
  kmsKey?: string | undefined;
}

/** A volume that can be attached. */
export interface CreatedVolume {
  volumeId: string;
  zone: string;
  /** Bytes. */
  size: number;
}

/**
 * Makes an EBS volume of a commit, for an instance that is there already.
 * @throws ProviderError NOT_FOUND for the snapshot; CONFIG_INVALID for a type, IOPS or throughput that do not fit its size
 */
export async function createVolume(request: CreateVolumeRequest): Promise<CreatedVolume> {
  const { in: options, snapshotId, zone, key, job, kmsKey, type, iops, throughput, signal } = request;
  await using connection = await AwsConnection.open(options, { signal });
  const { settings } = connection;
  const names = targetTagNames(settings.product);
  const own = { [names.key]: tagValue(key), [names.role]: "volume" };
  const known = await volumesWith(connection, own, { signal });
  const [mine] = known;
  const made =
    mine?.VolumeId === undefined
      ? await makeVolume(
          connection,
          {
            zone,
            snapshotId,
            kmsKey,
            type,
            iops,
            throughput,
            about: [key, snapshotId, zone],
            tags: tagsOfNew(settings, "Replica", { ...own, [names.job]: job }),
          },
          { signal },
        )
      : await volumeIn(connection, mine.VolumeId, ["available", "in-use"], { signal });
  return { volumeId: made.VolumeId ?? "", zone: made.AvailabilityZone ?? zone, size: (made.Size ?? 0) * 2 ** 30 };
}
