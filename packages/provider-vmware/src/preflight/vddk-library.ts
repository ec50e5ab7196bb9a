import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Finding } from "@diskferry/core/provider";
import { compareVersions } from "../vim/api-version.ts";

/** Major releases of vSphere and of its VDDK, in order. */
const generations: readonly string[] = ["6.0", "6.5", "6.7", "7.0", "8.0", "9.0"];
/** A VDDK is made for servers of its own generation, the two before it and the one after it (VDDK 7.0.3 release notes: "N-2 and N+1"). */
const generationsBack = 2;
const generationsAhead = 1;

/** The version of the library below `libdir`, as its file is named (`8.0.3`); undefined where there is none. */
export async function libraryVersion(libdir: string): Promise<string | undefined> {
  let names: string[];
  try {
    names = await readdir(join(libdir, "lib64"));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EACCES") return undefined;
    throw error;
  }
  return names
    .flatMap((name) => libraryVersionOf(name) ?? [])
    .sort(compareVersions)
    .at(-1);
}

/** The version that a library's file is named with; undefined where its name tells none. */
export function libraryVersionOf(file: string): string | undefined {
  return /(?:^|\/)libvixDiskLib\.so\.(\d+\.\d+\.\d+)$/.exec(file)?.[1];
}

/** Why a library does not serve with a server of this release, and what would; undefined where it does, or nobody knows. */
export function libraryObstacle(version: string, server: string): { message: string; remedy: string } | undefined {
  const [own, other] = [generationOf(version), generationOf(server)];
  if (own < 0 || other < 0) return undefined;
  if (other - own > generationsAhead) {
    return {
      message: `VDDK ${version} is too old for vSphere ${server}: it was made for releases up to ${generations[own + generationsAhead]}, and disks may open and then fail to be read`,
      remedy: `unpack VDDK ${generations[other]} in vddk.libdir`,
    };
  }
  if (own - other > generationsBack) {
    return {
      message: `VDDK ${version} is too new for vSphere ${server}: it was made for releases from ${generations[own - generationsBack]} on`,
      remedy: `unpack VDDK ${generations[Math.min(other + generationsBack, generations.length - 1)]} or older in vddk.libdir`,
    };
  }
  return undefined;
}

/** What is to be said of a library that serves with servers of this release (`8.0.3`). */
export function libraryFindings(version: string, server: string): Finding[] {
  const subject = `VDDK ${version}`;
  const [own, other] = [generationOf(version), generationOf(server)];
  if (own < 0 || other < 0) {
    return [{ severity: "warning", subject, message: `nobody tried this version with vSphere ${server}` }];
  }
  const obstacle = libraryObstacle(version, server);
  if (obstacle !== undefined) return [{ severity: "warning", subject, ...obstacle }];
  if (own < other) {
    return [
      {
        severity: "warning",
        subject,
        message: `it is older than vSphere ${server}, which it reads without what is new there`,
        remedy: `unpack VDDK ${generations[other]} in vddk.libdir`,
      },
    ];
  }
  return [{ severity: "info", subject, message: `it fits vSphere ${server}` }];
}

function generationOf(version: string): number {
  return generations.indexOf(version.split(".").slice(0, 2).join("."));
}
