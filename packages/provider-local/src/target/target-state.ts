import { createHash, randomUUID } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { mkdir, open, readFile, rename, rm, rmdir } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { errnoOf, localError, translate } from "../errors.ts";

/**
 * What is remembered of a target in place, beside it: who made it, and which run's half-written state it holds. It
 * carries no data: without it a copy starts anew and clears its gaps.
 */
export interface TargetState {
  /** The key of the volume. */
  key?: string;
  job?: string;
  /** Bytes the volume was made with. */
  size: number;
  /** Whether this provider made the file, and so may remove it. */
  created: boolean;
  /** Identity of the file or device; a state of another one is void. */
  identity: string;
  /** The content's stamp when it was made, or found to be one hole: unchanged means that nobody wrote before the first run. */
  stamp?: string;
  /** The run whose half-written state the target holds. */
  run?: string;
  /** Names the generation together with `identity`; new with each run. */
  generation?: string;
  /** The run that began on the blank file. */
  firstRun?: string;
  /** The last run that committed. */
  committed?: string;
  /** How often a run was abandoned here: a run of the same name begins anew afterwards. */
  abandoned?: number;
}

const fileName = "state.json";
const hiddenName = ".diskferry";

/** The folder that remembers a file: hidden, beside it, so that it goes where the file goes. */
export function stateFolderOfFile(path: string): string {
  const folder = dirname(path);
  const beside = join(folder, hiddenName);
  const isUsable = isWritable(beside) ?? isWritable(folder) ?? false;
  return isUsable ? join(beside, basename(path)) : stateFolderOfIdentity(`file:${path}`);
}

/** Undefined where there is no such folder. */
function isWritable(folder: string): boolean | undefined {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch (error) {
    return (error as { code?: unknown }).code === "ENOENT" ? undefined : false;
  }
}

/** The folder that remembers what has no folder of its own: block devices, NBD exports. */
export function stateFolderOfIdentity(identity: string): string {
  const home =
    process.env["XDG_STATE_HOME"] ?? (process.getuid?.() === 0 ? "/var/lib" : join(homedir(), ".local", "state"));
  return join(home, "diskferry", "local", createHash("sha256").update(identity).digest("hex").slice(0, 32));
}

/** Reads a target's state; undefined where there is none, or it is of another file than `identity`. */
export async function readTargetState(folder: string, identity: string): Promise<TargetState | undefined> {
  const path = join(folder, fileName);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw translate(error, "reading", path);
  }
  const state = parseState(text);
  if (state === undefined) {
    throw localError("CORRUPT", `${path} is not what this provider wrote; remove it, the next copy then starts anew`);
  }
  return state.identity === identity ? state : undefined;
}

/** Replaces a target's state, durably, all or nothing. */
export async function writeTargetState(folder: string, state: TargetState): Promise<void> {
  await writeDurably(join(folder, fileName), JSON.stringify(state));
}

/** Forgets a target and its fence. */
export async function removeTargetState(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  if (basename(dirname(folder)) !== hiddenName) return;
  try {
    await rmdir(dirname(folder));
  } catch (error) {
    // Others are remembered there still, or it is gone already.
    if (!["ENOTEMPTY", "EEXIST", "ENOENT"].includes(errnoOf(error) ?? "")) throw translate(error, "removing", folder);
  }
}

/**
 * Begins or continues a run on a target in place, durably: the run that the state names gets the generation it had,
 * another one gets a new generation, since what the target holds is no longer what that one left. `isBlank`: nothing but
 * zeroes is in it yet.
 */
export async function beginRun(
  folder: string,
  state: TargetState,
  run: string,
  isBlank: boolean,
): Promise<TargetState> {
  if (state.run === run && state.generation !== undefined) return state;
  const begun: TargetState = { ...state, run, generation: randomUUID() };
  if (isBlank) begun.firstRun = run;
  else delete begun.firstRun;
  await writeTargetState(folder, begun);
  return begun;
}

/** Writes a small file so that after a power cut it holds either its old text or all of the new one. */
export async function writeDurably(path: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    const draft = `${path}.${randomUUID()}.new`;
    const file = await open(draft, "wx");
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
    const folder = await open(dirname(path), "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    throw translate(error, "writing", path);
  }
}

function parseState(text: string): TargetState | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return undefined;
    const state = value as Partial<TargetState>;
    const sound =
      typeof state.size === "number" && typeof state.created === "boolean" && typeof state.identity === "string";
    return sound ? (state as TargetState) : undefined;
  } catch {
    return undefined;
  }
}
