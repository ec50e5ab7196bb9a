import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { keyParts, openDirectoryState, ProviderError, type StateStore } from "@diskferry/core";
import type { CommandIo } from "./command-io.ts";
import { didYouMean } from "./near-miss.ts";

/**
 * Where state is kept when nobody says: `$XDG_STATE_HOME/diskferry/state`, or `~/.local/state/diskferry/state` (XDG Base
 * Directory Specification). Not `diskferry` itself, beside whose state providers keep theirs.
 */
export function defaultStateFolder({ env }: Pick<CommandIo, "env">): string {
  const given = env["XDG_STATE_HOME"];
  // The specification: "All paths must be absolute. If an implementation encounters a relative path […] ignore it."
  const home = given?.startsWith("/") === true ? given : join(env["HOME"] ?? homedir(), ".local", "state");
  return join(home, "diskferry", "state");
}

/** The state directory that `--state` or the default name. */
export function stateFolder(given: string | undefined, io: CommandIo): string {
  return given === undefined ? defaultStateFolder(io) : resolve(io.cwd, given);
}

/** Opens a state directory that has to exist already: nothing is made by looking. @throws ProviderError NOT_FOUND */
export async function openExistingState(folder: string): Promise<StateStore> {
  if (existsSync(folder)) return openDirectoryState(folder);
  throw new ProviderError("NOT_FOUND", `there is no state directory ${folder}; name the one of the job by --state`, {
    operation: "open state",
  });
}

/** The ids of the jobs a state directory knows, sorted. */
export async function jobIds(store: StateStore): Promise<string[]> {
  const ids: string[] = [];
  for await (const key of store.list("jobs/")) {
    const [, id, piece, ...more] = keyParts(key);
    if (id !== undefined && piece === "state" && more.length === 0) ids.push(id);
  }
  return ids.toSorted();
}

/** The error for a job that is not known, with what is. */
export function unknownJob(id: string, known: readonly string[], where: string): ProviderError {
  const there =
    known.length === 0 ? "it has none" : `it has ${known.slice(0, 10).join(", ")}${known.length > 10 ? ", …" : ""}`;
  return new ProviderError("NOT_FOUND", `there is no job ${id} in ${where}${didYouMean(id, known)}; ${there}`, {
    operation: "find job",
  });
}
