import { statSync } from "node:fs";
import type { ProviderContext, TargetProvider, Volume, Wait } from "@diskferry/core/provider";
import { formatOf, isQcow2Name } from "../disk-format.ts";
import { localError } from "../errors.ts";
import { isFencedForAll } from "../fence/one-host.ts";
import type { LocalOptions } from "../options.ts";
import { qcow2ChainTarget } from "./qcow2-chain-target.ts";
import { qcow2Target } from "./qcow2-target.ts";
import { nbdTarget } from "./nbd-target.ts";
import { rawTarget } from "./raw-target.ts";

/** The target that the options name: in place where they name a path or URI, one file or chain per disk in a directory. */
export function localTarget(options: LocalOptions, context: ProviderContext = {}): TargetProvider {
  const target = heedful(chosenTarget(options, context));
  const place = options.path ?? options.directory;
  // Asked about now, since a file that is made later lies where its folder lies.
  return place !== undefined && isFencedForAll(place) ? Object.assign(target, { fences: true as const }) : target;
}

/** The same target, whose calls do not begin once their signal is aborted. */
function heedful(target: TargetProvider): TargetProvider {
  const read = target.read?.bind(target);
  const adopt = target.adopt?.bind(target);
  return {
    async create(request) {
      request.signal?.throwIfAborted();
      return target.create(request);
    },
    async open(volume, request) {
      request.signal?.throwIfAborted();
      return target.open(volume, request);
    },
    async remove(volume, wait) {
      wait?.signal?.throwIfAborted();
      return target.remove(volume, wait);
    },
    async *owned(job, wait) {
      wait?.signal?.throwIfAborted();
      yield* target.owned(job, wait);
    },
    ...(read === undefined
      ? {}
      : {
          async read(volume: Volume, wait?: Wait) {
            wait?.signal?.throwIfAborted();
            return read(volume, wait);
          },
        }),
    ...(adopt === undefined
      ? {}
      : {
          async adopt(disk: string, wait?: Wait) {
            wait?.signal?.throwIfAborted();
            return adopt(disk, wait);
          },
        }),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}

function chosenTarget(options: LocalOptions, context: ProviderContext): TargetProvider {
  if (options.disks !== undefined) {
    throw localError(
      "CONFIG_INVALID",
      "disks are for a source; give a target a directory, which takes every disk of a machine",
    );
  }
  const { path, uri, directory, overwrite } = options;
  if (uri !== undefined) return nbdTarget({ ...options, uri });
  const format = directory === undefined ? formatAt(path!, options.format) : chosen(options.format);
  if (format === "raw") return rawTarget({ path, directory, overwrite });
  if (format === "qcow2-chain") return qcow2ChainTarget({ ...options, directory: directory! }, context);
  return qcow2Target(options);
}

/** A directory is for chains of recovery points, unless the options say otherwise. */
function chosen(stated: LocalOptions["format"]): "raw" | "qcow2" | "qcow2-chain" {
  return stated === undefined || stated === "auto" ? "qcow2-chain" : stated;
}

function formatAt(path: string, stated: LocalOptions["format"]): "raw" | "qcow2" {
  const existing = statSync(path, { throwIfNoEntry: false });
  if (existing !== undefined && !(existing.isFile() && existing.size === 0)) return formatOf(path, stated);
  if (stated === "raw" || stated === "qcow2") return stated;
  return isQcow2Name(path) ? "qcow2" : "raw";
}
