import { randomBytes } from "node:crypto";
import type { Wait } from "@diskferry/core/provider";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { jobMark, keyMark, readOwnName } from "../names.ts";

/**
 * All that one launch makes bears its mark in its name: what exists tells which step comes next, so that a launch that was
 * killed anywhere is gone on with, and can be undone, by the names alone.
 */
export interface LaunchScope {
  job: string;
  key: string;
}

/** The scope of a launch's key. */
export function launchScope(job: string | undefined, key: string): LaunchScope {
  return { job: jobMark(job), key: keyMark("launch", key) };
}

/** The name of something that a launch makes: its machine without a note, else `dummy`, or a disk's clone or snapshot. */
export function launchName(scope: LaunchScope, note?: string): string {
  return `df-${scope.job}-${scope.key}${note === undefined ? "" : `-${note}`}`;
}

/** The note of what is made for one disk. */
export function diskNote(kind: "clone" | "snapshot", disk: string): string {
  return `${kind}${keyMark("disk", disk).slice(0, 10)}`;
}

/** The machine of a launch; undefined: there is none yet. */
export async function launchedMachine(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<CloudMachine | undefined> {
  for await (const machine of cloud.machines({ keyword: launchName(scope) }, wait)) {
    if (readOwnName(machine.name)?.key === scope.key && !isGone(machine)) return machine;
  }
  return undefined;
}

/** Machines of a launch that are being ended: their names are given up, so that another can have the launch's. */
export async function goneMachines(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<CloudMachine[]> {
  const found: CloudMachine[] = [];
  for await (const machine of cloud.machines({ keyword: launchName(scope) }, wait))
    if (readOwnName(machine.name)?.key === scope.key && isGone(machine)) found.push(machine);
  return found;
}

const GONE = "gone";

/** The name that a machine gets before it is destroyed. */
export function goneName(scope: LaunchScope): string {
  return launchName(scope, `${GONE}${randomBytes(4).toString("hex")}`);
}

/** Whether a machine has the name that it gets before it is destroyed. */
export function isGone({ name }: CloudMachine): boolean {
  return readOwnName(name)?.note?.startsWith(GONE) === true;
}

/** Volumes that a launch made: clones, and the root of the template that was swapped out. */
export async function launchVolumes(cloud: Cloud, scope: LaunchScope, wait: Wait): Promise<CloudVolume[]> {
  const found: CloudVolume[] = [];
  for await (const volume of cloud.volumes({ keyword: launchName(scope) }, wait)) {
    if (isOfLaunch(volume.name, scope)) found.push(volume);
  }
  return found;
}

/** Whether a name is of something that this launch made, its machine left out. */
export function isOfLaunch(name: string, scope: LaunchScope): boolean {
  const own = readOwnName(name);
  return own?.key === scope.key && own.note !== undefined;
}
