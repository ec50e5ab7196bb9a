import type { Wait } from "@diskferry/core/provider";
import { flagIn, textIn } from "../client/decode.ts";
import type { CloudVolume } from "../client/entities.ts";
import { ensure, finishQuietly } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";

/** The pool that files are adopted from. */
export interface ImportPool {
  id: string;
  name: string;
  /** `NetworkFilesystem`, `SharedMountPoint` or `Filesystem`. */
  type: string;
  /** Whether it is one host's own storage. */
  isLocal: boolean;
  clusterId: string | undefined;
}

/**
 * Kinds of pools whose volumes are qcow2 files. CloudStack adopts Ceph's images too, but records them as qcow2 up to 4.22.0
 * (pull request 13365), and they are no files to write.
 */
const FILE_POOLS = new Set(["NetworkFilesystem", "SharedMountPoint", "Filesystem"]);

/** `importVolume` came with it (pull request 8808). */
export const ADOPTS_SINCE = "4.19.1";

/**
 * The pool that the options name.
 * @throws ProviderError CONFIG_INVALID (none of the name), UNSUPPORTED (no pool of files), UNAVAILABLE (not up), DENIED
 */
export async function importPool(cloud: Cloud, wait: Wait): Promise<ImportPool> {
  if (!(await cloud.reaches(ADOPTS_SINCE, wait))) {
    throw cloudstackError(
      "UNSUPPORTED",
      `This CloudStack adopts no volumes: importVolume came with ${ADOPTS_SINCE}. Use mode "attach" or "upload".`,
      { operation: "importVolume" },
    );
  }
  const wanted = cloud.options.import?.pool;
  const filter = { zoneid: await cloud.zoneId(wait) };
  const { id, name, about } = await cloud.choice("listStoragePools", wanted, "primary storage pool", filter, wait);
  const type = textIn(about["type"]) ?? "unknown";
  if (!FILE_POOLS.has(type) || flagIn(about["managed"]) === true) {
    throw cloudstackError(
      "UNSUPPORTED",
      `Pool ${name} is of type ${type}: files are adopted on NFS, shared mount points and hosts' own storage alone. Name such a ` +
        `pool in import.pool, or use mode "attach".`,
      { operation: "importVolume" },
    );
  }
  const state = textIn(about["state"]);
  if (state !== undefined && state !== "Up") {
    throw cloudstackError("UNAVAILABLE", `Pool ${name} is ${state}. Wait until it is up again.`, {
      operation: "importVolume",
      retryable: false,
    });
  }
  return { id, name, type, isLocal: textIn(about["scope"]) === "HOST", clusterId: textIn(about["clusterid"]) };
}

/**
 * The volume of a file on the pool, whatever it is called, however it was adopted and whomever it was given to since; undefined:
 * CloudStack has none, so the file is nobody's.
 */
export async function adoptedVolume(
  cloud: Cloud,
  pool: ImportPool,
  file: string,
  wait: Wait,
): Promise<CloudVolume | undefined> {
  for await (const volume of cloud.everybodysVolumes({ storageid: pool.id }, wait))
    if (volume.path === file) return volume;
  return undefined;
}

/** The same once no job works on it any more: one that makes CloudStack forget it, of a dead process, is waited for. */
export async function settledVolume(
  cloud: Cloud,
  pool: ImportPool,
  file: string,
  wait: Wait,
): Promise<CloudVolume | undefined> {
  for (let round = 1; ; round++) {
    const volume = await adoptedVolume(cloud, pool, file, wait);
    if (volume === undefined || round > ROUNDS) return volume;
    const job = volume.jobId ?? (await cloud.client.pendingJobOf(volume.id, wait));
    if (job === undefined) return volume;
    await finishQuietly(cloud.client, job, `file ${file}`, wait);
  }
}

const ROUNDS = 5;
const IMPORTS = new Set(["importvm", "importvolume", "unmanagevolume"]);

/**
 * Waits for imports that a dead process may have left at work: CloudStack tells neither of which file nor for whom they are, and
 * a machine that appears while its launch is begun anew, or ended, would be nobody's.
 */
export async function awaitImports(cloud: Cloud, wait: Wait): Promise<void> {
  for (const job of await cloud.client.pendingJobsOf(IMPORTS, wait)) {
    cloud.notice(`An import is at work (job ${job}); waiting for its end.`);
    await finishQuietly(cloud.client, job, "an import", wait);
  }
}

/** Has CloudStack adopt a file as a data volume (`importVolume`, 4.19.1), once. */
export async function adoptFile(
  cloud: Cloud,
  pool: ImportPool,
  file: string,
  name: string,
  wait: Wait,
): Promise<CloudVolume> {
  const volume = await ensure(
    cloud.client,
    {
      object: `file ${file} on pool ${pool.name}`,
      look: () => adoptedVolume(cloud, pool, file, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "Ready",
      command: (state) => {
        if (state !== undefined) throw notReady(file, state);
        return { command: "importVolume", parameters: { storageid: pool.id, path: file, name } };
      },
      prepare: async () => ({ diskofferingid: await offeringFor(cloud, wait), ...(await cloud.scope(wait)) }),
    },
    wait,
  );
  if (volume === undefined) throw cloudstackError("UNEXPECTED", `File ${file} was adopted and is no volume.`);
  return volume;
}

/** The offering that the options name; without one CloudStack makes one for imports. */
async function offeringFor(cloud: Cloud, wait: Wait): Promise<string | undefined> {
  const { diskOffering: named } = cloud.options;
  if (named === undefined) return undefined;
  return (await cloud.choice("listDiskOfferings", named, "disk offering", { zoneid: await cloud.zoneId(wait) }, wait))
    .id;
}

/** Has CloudStack forget a volume and leave its file (`unmanageVolume`, 4.19.1). Idempotent. */
export async function forgetVolume(cloud: Cloud, pool: ImportPool, file: string, wait: Wait): Promise<void> {
  await ensure(
    cloud.client,
    {
      object: `file ${file} on pool ${pool.name}`,
      look: () => adoptedVolume(cloud, pool, file, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state === undefined,
      command: (state) => ({ command: "unmanageVolume", parameters: { id: state?.id } }),
    },
    wait,
  );
}

function notReady(file: string, { id, state }: CloudVolume): Error {
  return cloudstackError(
    "UNAVAILABLE",
    `Volume ${id} of file ${file} is in state ${state} and no job works on it. Look at CloudStack's events, and run again.`,
    { retryable: false },
  );
}
