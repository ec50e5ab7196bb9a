import { statSync } from "node:fs";
import type { TargetProvider } from "@diskferry/core/provider";
import { formatOf, isQcow2Name } from "../disk-format.ts";
import { localError } from "../errors.ts";
import type { LocalOptions } from "../options.ts";
import { nbdTarget } from "./nbd-target.ts";
import { rawTarget } from "./raw-target.ts";

/** The target that the options name: in place where they name a path or URI, one file or chain per disk in a directory. */
export function localTarget(options: LocalOptions): TargetProvider {
  if (options.disks !== undefined) {
    throw localError("CONFIG_INVALID", "disks are for a source; give a target a directory, which takes every disk of a machine");
  }
  const { path, uri, directory, overwrite } = options;
  if (uri !== undefined) return nbdTarget({ ...options, uri });
  const format = directory === undefined ? formatAt(path!, options.format) : (options.format ?? "qcow2-chain");
  if (format === "raw") return rawTarget({ path, directory, overwrite });
  throw localError("UNSUPPORTED", `the format ${format} is not written yet`);
}

function formatAt(path: string, stated: LocalOptions["format"]): "raw" | "qcow2" {
  const existing = statSync(path, { throwIfNoEntry: false });
  if (existing !== undefined && !(existing.isFile() && existing.size === 0)) return formatOf(path, stated);
  if (stated === "raw" || stated === "qcow2") return stated;
  return isQcow2Name(path) ? "qcow2" : "raw";
}
