import type { CreateRequest, Volume, Wait } from "@diskferry/core/provider";
import { numberIn } from "../client/decode.ts";
import type { CloudChoice, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { keyMark, ownName, readOwnName, readableName } from "../names.ts";
import { deleteVolume, knownVolume } from "./attachment.ts";
import { TAG_PREFIX, putTags, tagValue } from "./tags.ts";

/** CloudStack sells disks in these. */
export const GIB: number = 2 ** 30;

const TAGS = { key: `${TAG_PREFIX}key`, job: `${TAG_PREFIX}job`, size: `${TAG_PREFIX}size` };

/** GiB that hold so many bytes. */
export function gibFor(size: number): number {
  return Math.max(1, Math.ceil(size / GIB));
}

/**
 * Finds or makes the volume of a key. The key is in the volume's name, since tags are a call of their own: a crash between
 * the two leaves a volume that the next call finds and tags.
 * @throws ProviderError UNSUPPORTED where a larger size is wanted of an offering that is fixed
 */
export async function createReplica(cloud: Cloud, request: CreateRequest): Promise<Volume> {
  const { key, size, job, name, signal } = request;
  const wait = { signal };
  signal?.throwIfAborted();
  if (!Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0)
    throw new RangeError(`a volume of ${size} bytes: the size is a positive multiple of 512`);
  const mark = keyMark("volume", key);
  const end = ownName(job, mark);
  const found = await ensure(
    cloud.client,
    {
      object: `volume ${end}`,
      look: () => findReplica(cloud, mark, wait),
      jobOf: (volume) => volume?.jobId,
      done: (volume) => volume !== undefined,
      command: () => ({ command: "createVolume", parameters: {} }),
      creates: true,
      prepare: async () => {
        const offering = await diskOffering(cloud, size, wait);
        return {
          name: readableName(name, end),
          zoneid: await cloud.zoneId(wait),
          diskofferingid: offering.id,
          ...(fixedSizeOf(offering) === undefined ? { size: gibFor(size) } : {}),
          ...(await cloud.scope(wait)),
        };
      },
    },
    wait,
  );
  if (found === undefined) throw cloudstackError("UNEXPECTED", `Volume ${end} was made and is not there.`);
  const only = await removeTwins(cloud, mark, found, wait);
  const grown = await grow(cloud, only, size, wait);
  const tags = { [TAGS.key]: tagValue(key), [TAGS.size]: String(Math.max(size, recordedSize(grown))) };
  const all = job === undefined ? tags : { ...tags, [TAGS.job]: tagValue(job) };
  await putTags(cloud, "Volume", grown.id, all, () => knownVolume(cloud, grown.id, wait), wait);
  return { id: grown.id, size: grown.size, data: { key: mark } };
}

/** The volume of a key; of several the one that was tagged, then the one with bytes, then the oldest. */
async function findReplica(cloud: Cloud, mark: string, wait: Wait): Promise<CloudVolume | undefined> {
  return (await replicasOf(cloud, mark, wait))[0];
}

async function replicasOf(cloud: Cloud, mark: string, wait: Wait): Promise<CloudVolume[]> {
  const found: CloudVolume[] = [];
  for await (const volume of cloud.volumes({ keyword: mark }, wait)) {
    if (readOwnName(volume.name)?.key === mark) found.push(volume);
  }
  const rank = (volume: CloudVolume): string =>
    [
      volume.tags[TAGS.key] === undefined ? 1 : 0,
      volume.state === "Allocated" ? 1 : 0,
      volume.created ?? "",
      volume.id,
    ].join(" ");
  return found.sort((one, other) => (rank(one) < rank(other) ? -1 : 1));
}

/** Two processes that began at once, or an answer that came very late, can leave a second volume: without bytes, so it goes. */
async function removeTwins(cloud: Cloud, mark: string, found: CloudVolume, wait: Wait): Promise<CloudVolume> {
  const [first = found, ...twins] = await replicasOf(cloud, mark, wait);
  for (const twin of twins) {
    if (twin.state !== "Allocated" || twin.machineId !== undefined || twin.tags[TAGS.key] !== undefined) {
      throw cloudstackError(
        "UNEXPECTED",
        `Volumes ${first.id} and ${twin.id} both bear the key ${mark} and both hold bytes: delete the one that is not needed.`,
      );
    }
    cloud.notice(`Volume ${twin.id} is a second, empty one of the same key; it is deleted.`);
    await deleteVolume(cloud, twin.id, wait);
  }
  return first;
}

async function grow(cloud: Cloud, volume: CloudVolume, size: number, wait: Wait): Promise<CloudVolume> {
  if (volume.size >= size) return volume;
  const offering = await offeringOf(cloud, volume, wait);
  if (offering !== undefined && fixedSizeOf(offering) !== undefined) {
    throw cloudstackError(
      "UNSUPPORTED",
      `Volume ${volume.id} has ${volume.size} bytes, the disk ${size}, and its offering ${offering.name} is of a fixed size. ` +
        `Change its offering to one of a custom size (resizeVolume), or begin a new job with another diskOffering.`,
      { operation: "create" },
    );
  }
  return ensure(
    cloud.client,
    {
      object: `volume ${volume.id}`,
      look: () => knownVolume(cloud, volume.id, wait),
      jobOf: (now) => now.jobId,
      done: (now) => now.size >= size,
      command: () => ({ command: "resizeVolume", parameters: { id: volume.id, size: gibFor(size) } }),
    },
    wait,
  );
}

async function offeringOf(cloud: Cloud, volume: CloudVolume, wait: Wait): Promise<CloudChoice | undefined> {
  if (volume.diskOfferingId === undefined) return undefined;
  for await (const offering of cloud.choices("listDiskOfferings", { id: volume.diskOfferingId }, wait)) return offering;
  return undefined;
}

/** Bytes of the volumes of an offering that leaves no choice; undefined: the client chooses. */
export function fixedSizeOf(offering: CloudChoice): number | undefined {
  if (offering.about["iscustomized"] === true || offering.about["iscustomized"] === "true") return undefined;
  const gib = numberIn(offering.about["disksize"]) ?? 0;
  return gib > 0 ? gib * GIB : undefined;
}

/**
 * The offering for a disk of so many bytes: the one that the options name, else the first of a custom size on shared storage.
 * @throws ProviderError CONFIG_INVALID
 */
export async function diskOffering(cloud: Cloud, size: number, wait: Wait = {}): Promise<CloudChoice> {
  const { diskOffering: named } = cloud.options;
  const zoneid = await cloud.zoneId(wait);
  if (named !== undefined) {
    const offering = await cloud.choice("listDiskOfferings", named, "disk offering", { zoneid }, wait);
    const fixed = fixedSizeOf(offering);
    if (fixed !== undefined && fixed < size) {
      throw cloudstackError(
        "CONFIG_INVALID",
        `Disk offering ${offering.name} is of ${fixed} bytes, too small for a disk of ${size}. Name one of a custom size.`,
        { operation: "create" },
      );
    }
    return offering;
  }
  const names: string[] = [];
  for await (const offering of cloud.choices("listDiskOfferings", { zoneid }, wait)) {
    const isShared = offering.about["storagetype"] !== "local";
    if (isShared && fixedSizeOf(offering) === undefined && offering.about["iscustomizediops"] !== true) return offering;
    names.push(offering.name);
  }
  throw cloudstackError(
    "CONFIG_INVALID",
    `No disk offering of a custom size on shared storage is to be seen; name one in diskOffering. There are: ${names.join(", ") || "none"}.`,
    { operation: "create" },
  );
}

function recordedSize(volume: CloudVolume): number {
  return Number(volume.tags[TAGS.size] ?? 0);
}
