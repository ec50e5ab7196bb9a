import { statfs } from "node:fs/promises";
import type { Finding, Preflight, TargetPreflightRequest, Wait } from "@diskferry/core/provider";
import type { Cloud } from "../cloud.ts";
import { diskOffering } from "../target/replica-volumes.ts";
import { asFinding, placeFindings, privilegesFor } from "./place-findings.ts";
import { quotaFindings, sizeFindings } from "./target-preflight.ts";

const COMMANDS = ["listDiskOfferings", "getUploadParamsForVolume", "deleteVolume"];
const CALLS_PER_DISK = 15;

/** Says before a run what an upload takes and what stands in its way. */
export async function uploadPreflight(
  cloud: Cloud,
  folder: string,
  { disks, signal }: TargetPreflightRequest,
): Promise<Preflight> {
  const wait: Wait = { signal };
  signal?.throwIfAborted();
  const { privileges, findings } = await privilegesFor(cloud, COMMANDS, wait);
  findings.push(...(await placeFindings(cloud, wait)));
  findings.push({
    severity: "warning",
    subject: "mode",
    message:
      "Every run uploads whole disks as new volumes: nothing is sent incrementally, an upload that breaks off is begun anew, and " +
      "the platform waits one hour for it (upload.operation.timeout).",
    remedy: 'Use mode "attach" where more than one run is wanted.',
  });
  if (!findings.some(({ subject }) => subject === "zone")) {
    try {
      await diskOffering(cloud, Math.max(0, ...disks.map(({ size }) => size)), wait);
    } catch (error) {
      findings.push(asFinding("disk offering", error));
    }
    findings.push(...(await sizeFindings(cloud, disks, wait)));
    findings.push(...(await quotaFindings(cloud, disks, wait)));
  }
  findings.push(...(await spoolFindings(folder, disks)));
  return {
    privileges,
    findings,
    calls: [{ operation: "CloudStack API", count: { value: disks.length * CALLS_PER_DISK, kind: "estimate" } }],
  };
}

/** Whether the folder that disks are gathered in is there and has room. */
export async function spoolFindings(folder: string, disks: TargetPreflightRequest["disks"]): Promise<Finding[]> {
  const wanted = disks.reduce((sum, { size }) => sum + size, 0);
  try {
    const { bavail, bsize } = await statfs(folder);
    if (bavail * bsize >= wanted) return [];
    return [
      {
        severity: "warning",
        subject: "spool",
        message: `The disks have ${wanted} bytes and ${folder} has room for ${bavail * bsize}; zeroes take no room there.`,
        remedy: "Name a folder with more room.",
      },
    ];
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    const message = `The folder ${folder} cannot be looked at (${code}).`;
    return [{ severity: "blocker", subject: "spool", message, remedy: "Make it, for this user alone." }];
  }
}
