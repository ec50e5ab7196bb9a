import { access, constants, statfs } from "node:fs/promises";
import type { Finding, Preflight, TargetPreflightRequest, Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { importPool } from "../import/adopt-file.ts";
import type { ImportOptions } from "../options.ts";
import { asFinding, placeFindings, privilegesFor } from "./place-findings.ts";
import { launchCommands, launchFindings, quotaFindings } from "./target-preflight.ts";
import { spoolFindings } from "./upload-preflight.ts";

const COMMANDS = ["listStoragePools", "listDiskOfferings", "importVolume", "deleteVolume"];
const BY_IMPORT = ["unmanageVolume", "importVm", "listClusters", "addNicToVirtualMachine"];
const CALLS_PER_DISK = 12;

/** Says before a run, or a launch, what adopting files takes and what stands in the way. */
export async function importPreflight(
  cloud: Cloud,
  spool: string,
  { folder }: ImportOptions,
  { disks, machine, signal }: TargetPreflightRequest,
): Promise<Preflight> {
  const wait: Wait = { signal };
  signal?.throwIfAborted();
  const { launch } = cloud.options;
  const launches = machine !== undefined && launch !== undefined;
  const more = launches ? [...launchCommands(cloud), ...(launch.method === "import" ? BY_IMPORT : [])] : [];
  const { privileges, findings } = await privilegesFor(cloud, [...COMMANDS, ...more], wait);
  findings.push(...(await placeFindings(cloud, wait)));
  findings.push({
    severity: "warning",
    subject: "mode",
    message:
      "Every run writes whole disks to the pool and has CloudStack adopt them as new volumes, which a root administrator alone " +
      "may: nothing is sent incrementally.",
    remedy: 'Use mode "attach" where more than one run is wanted, or where a tenant does it.',
  });
  if (!findings.some(({ subject }) => subject === "zone")) {
    try {
      const pool = await importPool(cloud, wait);
      if (launch?.method === "import" && pool.isLocal && cloud.options.import?.host === undefined) {
        findings.push({
          severity: "blocker",
          subject: "import.host",
          message: `Pool ${pool.name} is a host's own storage, and launches import from it.`,
          remedy: "Name the host in import.host.",
        });
      }
    } catch (error) {
      findings.push(asFinding("import.pool", error));
    }
    findings.push(...(await quotaFindings(cloud, disks, wait)));
  }
  findings.push(...(await folderFindings(folder, disks)));
  findings.push(...(await spoolFindings(spool, disks)));
  if (launches) findings.push(...(await launchFindings(cloud, machine, wait)));
  return {
    privileges,
    findings,
    calls: [{ operation: "CloudStack API", count: { value: disks.length * CALLS_PER_DISK, kind: "estimate" } }],
  };
}

async function folderFindings(folder: string, disks: TargetPreflightRequest["disks"]): Promise<Finding[]> {
  const wanted = disks.reduce((sum, { size }) => sum + size, 0);
  try {
    await access(folder, constants.W_OK | constants.X_OK);
    const { bavail, bsize } = await statfs(folder);
    if (bavail * bsize >= wanted) return [];
    return [
      {
        severity: "warning",
        subject: "import.folder",
        message: `The disks have ${wanted} bytes and the pool in ${folder} has room for ${bavail * bsize}; zeroes take no room there.`,
        remedy: "Free some of the pool, or name another.",
      },
    ];
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    const message = `The pool's folder ${folder} cannot be written (${code}).`;
    return [
      {
        severity: "blocker",
        subject: "import.folder",
        message,
        remedy: "Mount the pool there, for this user to write.",
      },
    ];
  }
}
