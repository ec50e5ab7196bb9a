import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Finding } from "@diskferry/core/provider";

/** Major releases of vSphere and of its VDDK, in order. */
const generations: readonly string[] = ["6.5", "6.7", "7.0", "8.0", "9.0"];
/** VMware supports a VDDK with servers up to two generations older (VDDK release notes, "Compatibility"). */
const generationsBack = 2;

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
  const versions = names.flatMap((name) => /^libvixDiskLib\.so\.(\d+\.\d+\.\d+)$/.exec(name)?.[1] ?? []);
  return versions.sort().at(-1);
}

/** What is to be said of a library with servers of this release (`8.0.3`). */
export function libraryFindings(version: string, server: string): Finding[] {
  const subject = `VDDK ${version}`;
  const [own, other] = [generationOf(version), generationOf(server)];
  if (own < 0 || other < 0) {
    return [{ severity: "warning", subject, message: `nobody tried this version with vSphere ${server}` }];
  }
  if (own < other) {
    return [
      {
        severity: "warning",
        subject,
        message: `it is older than vSphere ${server}: disks may open and then fail to be read`,
        remedy: `unpack VDDK ${generations[other]} in vddk.libdir`,
      },
    ];
  }
  if (own > other + generationsBack) {
    return [
      {
        severity: "warning",
        subject,
        message: `it is too new for vSphere ${server}: a VDDK supports the ${generationsBack} generations before it`,
        remedy: `unpack VDDK ${generations[Math.min(other + generationsBack, generations.length - 1)]} or older in vddk.libdir`,
      },
    ];
  }
  return [{ severity: "info", subject, message: `it fits vSphere ${server}` }];
}

function generationOf(version: string): number {
  return generations.indexOf(version.split(".").slice(0, 2).join("."));
}
