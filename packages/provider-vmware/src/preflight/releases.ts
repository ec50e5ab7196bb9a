import type { Finding } from "@diskferry/core/provider";
import type { AboutInfo } from "../vim/about.ts";
import { compareVersions } from "../vim/api-version.ts";

/** What a host says of its software. */
export interface HostRelease {
  readonly name: string;
  /** `7.0.3`. */
  readonly version: string;
  readonly build: string;
}

const firstSupported = "6.7";
const newestTried = "9.0";

/** What is to be said of the release of a vCenter or host; 6.0 and older are refused when connecting. */
export function releaseFindings(about: AboutInfo): Finding[] {
  const subject = about.fullName;
  if (compareVersions(about.version, firstSupported) < 0) {
    return [
      {
        severity: "warning",
        subject,
        message: "vSphere 6.5 is deprecated: out of support since October 2022, its change tracking is limited",
        remedy: "upgrade to 6.7 or newer, best 8.0",
      },
    ];
  }
  if (compareVersions(about.version.split(".").slice(0, 2).join("."), newestTried) > 0) {
    return [
      {
        severity: "warning",
        subject,
        message: `this release is newer than any that was tried (${newestTried}); the API of ${newestTried} is asked for`,
      },
    ];
  }
  return [{ severity: "info", subject, message: "this release is supported" }];
}

interface TrackingBug {
  readonly kb: string;
  /** Whether a host of this version and build has it. */
  readonly affects: (version: string, build: number) => boolean;
  readonly message: string;
  readonly remedy: string;
}

const major = (version: string): string => version.split(".").slice(0, 2).join(".");

/** Bugs of hosts that lose changes or bytes, by VMware's knowledge base; a vCenter may be newer than its hosts. */
const trackingBugs: readonly TrackingBug[] = [
  {
    kb: "KB 310751 (formerly 2090639)",
    affects: (version) => compareVersions(version, "6.0") < 0,
    message: "after a disk grew past a multiple of 128 GiB, change tracking reports wrong areas",
    remedy: "update the host; tracking is taken as lost after every growth here, so that the disk is compared whole",
  },
  {
    kb: "KB 317933 (formerly 2136854)",
    affects: (version) => major(version) === "6.0",
    message: "changes made while a snapshot is consolidated are lost to change tracking",
    remedy: "update the host to ESXi600-201511001 or newer, and begin with a full copy",
  },
  {
    kb: "KB 59216",
    affects: (version, build) =>
      compareVersions(version, "5.5") >= 0 && compareVersions(version, "6.7") <= 0 && build < firstBuildOf67U1,
    message: "guests on snapshots of the SEsparse format (VMFS 6, or disks over 2 TiB) may lose data",
    remedy: "update the host to ESXi 6.7 U1 or newer, or set COW.COWEnableIOCoalescing to 0 on it",
  },
];

/** ESXi 6.7 Update 1 (VMware's list of builds, KB 2143832). */
const firstBuildOf67U1 = 10_302_608;

/** The known bugs that a host's release has. */
export function trackingBugFindings(host: HostRelease): Finding[] {
  const short = host.version.replace(/^(\d+\.\d+)\.0$/, "$1");
  return trackingBugs
    .filter(({ affects }) => affects(short, Number(host.build)))
    .map(({ kb, message, remedy }) => ({
      severity: "warning",
      subject: `host ${host.name} (ESXi ${host.version} build ${host.build})`,
      message: `${message} (${kb})`,
      remedy,
    }));
}
