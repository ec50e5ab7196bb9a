import { statSync } from "node:fs";
import { localError } from "./errors.ts";
import type { LocalOptions } from "./options.ts";

/** The URI schemes this provider answers to, without the colon. */
export const localSchemes: readonly string[] = [
  "local",
  "file",
  "raw",
  "qcow2",
  "nbd",
  "nbds",
  "nbd+unix",
  "nbds+unix",
];

/** How the parameters of a `local:` URI are read. */
const parameters: Record<string, (value: string, options: LocalOptions) => void> = {
  format: (value, options) => {
    options.format = value as LocalOptions["format"];
  },
  machine: (value, options) => {
    options.machine = value;
  },
  disk: (value, options) => {
    options.key = value;
  },
  frozen: (value, options) => {
    options.frozen = flagOf("frozen", value);
  },
  overwrite: (value, options) => {
    options.overwrite = flagOf("overwrite", value);
  },
  compression: (value, options) => {
    options.compression = value as LocalOptions["compression"];
  },
  "cluster-size": (value, options) => {
    options.clusterSize = numberOf("cluster-size", value);
  },
  "keep-count": (value, options) => {
    options.retention = { ...options.retention, count: numberOf("keep-count", value) };
  },
  "keep-days": (value, options) => {
    options.retention = { ...options.retention, ageDays: numberOf("keep-days", value) };
  },
};

/**
 * The options a path or URI stands for: a plain path, `local:` or `file:` with a path (absolute, relative, or after
 * `//`), `raw:` and `qcow2:` with the format said, or an NBD URI. A folder, a name that ends in `/` and `format=qcow2-chain`
 * mean a directory. A `bitmap` parameter of an NBD URI is ours and is not sent on.
 * @throws ProviderError CONFIG_INVALID naming the parameter that is not known.
 */
export function optionsFromUri(text: string): LocalOptions {
  const scheme = /^([a-z][a-z\d+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) return placed({}, text);
  if (scheme.startsWith("nbd")) return nbdOptions(text);
  if (!localSchemes.includes(scheme)) {
    throw localError("CONFIG_INVALID", `this provider knows no scheme ${scheme}:; known: ${localSchemes.join(", ")}`);
  }
  const rest = text.slice(scheme.length + 1).replace(/^\/\/(?=\/)/, "");
  if (rest.startsWith("//")) {
    throw localError("CONFIG_INVALID", `${scheme}: takes a path of this machine and no host: write ${scheme}:/path`);
  }
  const start = rest.indexOf("?");
  const options: LocalOptions = {};
  if (start >= 0) readParameters(rest.slice(start + 1), options);
  if (scheme === "raw" || scheme === "qcow2") {
    if (options.format !== undefined && options.format !== scheme) {
      throw localError("CONFIG_INVALID", `${scheme}: says the format already; leave format= away or write local:`);
    }
    options.format = scheme;
  }
  return placed(options, decode(start < 0 ? rest : rest.slice(0, start)));
}

function placed(options: LocalOptions, path: string): LocalOptions {
  const isDirectory =
    options.format === "qcow2-chain" ||
    path.endsWith("/") ||
    statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  return isDirectory ? { ...options, directory: path } : { ...options, path };
}

function nbdOptions(text: string): LocalOptions {
  const start = text.indexOf("?");
  if (start < 0) return { uri: text };
  const options: LocalOptions = {};
  const theirs: string[] = [];
  for (const part of text.slice(start + 1).split("&")) {
    const [name = "", value = ""] = part.split("=", 2);
    if (name === "bitmap") options.bitmap = decode(value);
    else if (name === "frozen") options.frozen = flagOf(name, value);
    else theirs.push(part);
  }
  return { ...options, uri: text.slice(0, start) + (theirs.length === 0 ? "" : `?${theirs.join("&")}`) };
}

function readParameters(query: string, options: LocalOptions): void {
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = decode(equals < 0 ? part : part.slice(0, equals));
    const read = Object.hasOwn(parameters, name) ? parameters[name] : undefined;
    if (read === undefined) {
      const known = Object.keys(parameters).join(", ");
      throw localError("CONFIG_INVALID", `a path's URI has no parameter ${JSON.stringify(name)}; known: ${known}`);
    }
    read(equals < 0 ? "true" : decode(part.slice(equals + 1)), options);
  }
}

function flagOf(name: string, value: string): boolean {
  if (value === "true" || value === "1" || value === "") return true;
  if (value === "false" || value === "0") return false;
  throw localError("CONFIG_INVALID", `${name} is true or false, not ${JSON.stringify(value)}`);
}

function numberOf(name: string, value: string): number {
  const number = Number(value);
  if (value.trim() !== "" && Number.isFinite(number)) return number;
  throw localError("CONFIG_INVALID", `${name} is a number, not ${JSON.stringify(value)}`);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw localError("CONFIG_INVALID", `${JSON.stringify(text)} is not percent-encoded UTF-8; write % as %25`);
  }
}
