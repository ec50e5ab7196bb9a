import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { basename, isAbsolute, resolve } from "node:path";
import { ProviderError } from "@diskferry/core";
import type { EndSpec } from "./job-spec.ts";

const pathSchemes = ["local", "file", "raw", "qcow2"];

/** The same name of a disk, independent of the working folder. */
export function absoluteName(text: string, cwd: string): string {
  const match = /^([a-z][a-z\d+.-]+):(?:\/\/(?=\/))?(.*)$/is.exec(text);
  const scheme = match?.[1]?.toLowerCase();
  if (scheme === undefined) return absolutePath(text, cwd);
  if (!pathSchemes.includes(scheme) || match![2]!.startsWith("//")) return text;
  const [path, query] = splitQuery(match![2]!);
  // A path in a URI is percent-encoded; what is put before it has to be too.
  return `${scheme}:${isAbsolute(path) ? path : absolutePath(path, encodeURI(cwd).replaceAll("?", "%3F"))}${query}`;
}

function splitQuery(text: string): [string, string] {
  const start = text.indexOf("?");
  return start < 0 ? [text, ""] : [text.slice(0, start), text.slice(start)];
}

/** A `/` at the end says that a folder is meant, and stays. */
function absolutePath(path: string, cwd: string): string {
  const absolute = resolve(cwd, path);
  return path.endsWith("/") && !absolute.endsWith("/") ? `${absolute}/` : absolute;
}

/**
 * A job's id from its ends: the same for the same two, whatever parameters they are called with, and readable. Paths
 * count with the folder they are in.
 */
export function jobIdOf(source: EndSpec, target: EndSpec): string {
  const identity = JSON.stringify([identityOf(source), identityOf(target)]);
  const hash = createHash("sha256").update(identity).digest("hex").slice(0, 12);
  const name = basename(placesOf(source)[0] ?? source.label.replace(/\?.*$/s, ""));
  const letters = name
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[-.]+/, "")
    .slice(0, 40);
  return letters === "" ? hash : `${letters}-${hash}`;
}

function identityOf({ definition, options, label }: EndSpec): string {
  const [place] = placesOf({ definition, options, label });
  const query = label.indexOf("?");
  return `${definition.name} ${place ?? (query < 0 ? label : label.slice(0, query))}`;
}

/** Paths and NBD URIs that the options of the provider `local` name. */
function placesOf({ definition, options }: EndSpec): string[] {
  if (definition.name !== "local" || typeof options !== "object" || options === null) return [];
  const { path, uri, directory, disks } = options as { [name: string]: unknown };
  const nested = Array.isArray(disks)
    ? disks.flatMap((disk: unknown) => placesOf({ definition, options: disk, label: "" }))
    : [];
  return [path, uri, directory]
    .filter((place) => typeof place === "string")
    .map((place) => place.replace(/(?<=.)\/+$/, ""))
    .concat(nested);
}

/**
 * Refuses to copy a disk onto itself, by whatever names it goes.
 * @throws ProviderError CONFIG_INVALID naming both; nothing was opened then.
 */
export function refuseSameDisk(source: EndSpec, target: EndSpec): void {
  for (const from of placesOf(source)) {
    for (const to of placesOf(target)) {
      if (from !== to && (fileOf(from) === undefined || fileOf(from) !== fileOf(to))) continue;
      throw new ProviderError(
        "CONFIG_INVALID",
        `source ${from} and target ${to} are the same disk; nothing was written: name another target`,
        { operation: "open job" },
      );
    }
  }
}

/** Device and inode numbers; of a device, its own. */
function fileOf(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false, bigint: true });
  if (stats === undefined) return undefined;
  return stats.isBlockDevice() ? `device ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
}
