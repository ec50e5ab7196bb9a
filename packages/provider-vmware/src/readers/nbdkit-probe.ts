import { execFile } from "node:child_process";
import type { Wait } from "@diskferry/core/provider";
import type { VddkOptions } from "../options.ts";
import { nbdkitProbeCommand } from "./nbdkit-command.ts";
import { NbdkitError } from "./nbdkit-process.ts";

/** Loading VMware's library from a slow disk takes seconds. */
const timeoutMs = 60_000;
const mostOutput = 1 << 20;

/** What nbdkit tells of its plugin before anything is served. */
export interface NbdkitPlugin {
  /** `vddk`; another where the options name another. */
  readonly name: string;
  /** Whether the plugin tells of VMware's library, and could load it; undefined: it does not speak of one. */
  readonly library: "loaded" | "missing" | undefined;
  /** The library's file with its version, where the plugin tells it. */
  readonly libraryFile: string | undefined;
  /** Where the plugin looks for the library when nobody says. */
  readonly defaultLibdir: string | undefined;
}

/** Asks a program for its plugin, by the options that a reader starts it with. */
export type ProbeNbdkit = (options: VddkOptions, wait?: Wait) => Promise<NbdkitPlugin>;

/**
 * Starts nbdkit with the options of a reader and without a disk: it loads filters, plugin and VMware's library, takes its
 * parameters, and tells what it found (nbdkit(1), `--dump-plugin`). It connects to nobody and is given no password.
 *
 * @throws NbdkitError where the program, a filter, the plugin or a parameter does not exist, or the library does not load
 */
export const probeNbdkit: ProbeNbdkit = async (options, wait = {}) => {
  const { signal } = wait;
  signal?.throwIfAborted();
  const [program = "nbdkit", ...args] = nbdkitProbeCommand(options);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  execFile(
    program,
    args,
    { timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: mostOutput, signal },
    (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      if (signal?.aborted === true) return reject(signal.reason as Error);
      const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
      const why = error.killed === true ? `it told nothing within ${timeoutMs / 1000} s` : "it ended";
      reject(new NbdkitError(why, stderr === "" ? error.message : stderr, missing));
    },
  );
  return readDump(await promise);
};

/** Reads `key=value` lines. */
function readDump(text: string): NbdkitPlugin {
  const said = new Map<string, string>();
  for (const line of text.split("\n")) {
    const at = line.indexOf("=");
    if (at > 0) said.set(line.slice(0, at), line.slice(at + 1));
  }
  const speaksOfLibrary = said.has("vddk_default_libdir");
  return {
    name: said.get("name") ?? "",
    library: speaksOfLibrary ? (said.has("vddk_library_version") ? "loaded" : "missing") : undefined,
    libraryFile: said.get("vddk_dll"),
    defaultLibdir: said.get("vddk_default_libdir"),
  };
}
