import { readFile, rm } from "node:fs/promises";
import { closeSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { Wait } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import type { RetentionOptions } from "../options.ts";
import { isReading } from "../open-places.ts";
import { removeFromChain } from "../qcow2/qcow2-chain.ts";
import { openRaw } from "../raw/raw-file.ts";
import { listOf } from "./in-place.ts";
import { writeDurably } from "./target-state.ts";

/**
 * A recovery point: an image in the chain's folder, and beside it, under the same name, what is known of it. It exists
 * when both do; the note is written first.
 */
export interface RecoveryPoint {
  /** The image's file name: a number that only grows, and the time, so that names sort. */
  file: string;
  run: string;
  /** The image it stands on. */
  base?: string;
  /** Bytes. */
  size: number;
  committedAt: string;
  /** Being merged away: no longer good for anything else. */
  removing?: true;
}

const imageName = /^(\d{6,})-\d{8}T\d{6}Z\.qcow2$/;

/** The recovery points of a folder, oldest first, those included that are being removed. */
export async function recoveryPoints(folder: string): Promise<RecoveryPoint[]> {
  const points: RecoveryPoint[] = [];
  for (const name of listOf(folder).toSorted()) {
    if (!name.endsWith(".qcow2.json")) continue;
    const point = await readNote(join(folder, name));
    if (point.file !== name.slice(0, -".json".length)) {
      throw localError("CORRUPT", `${join(folder, name)} speaks of ${point.file}; put back its own note`);
    }
    if (statSync(join(folder, point.file), { throwIfNoEntry: false }) !== undefined) points.push(point);
  }
  return points;
}

/** The note that a run left when it began to commit, whether or not its image got its name. */
export async function pointOfRun(folder: string, run: string): Promise<RecoveryPoint | undefined> {
  for (const name of listOf(folder)) {
    if (!name.endsWith(".qcow2.json")) continue;
    const point = await readNote(join(folder, name));
    if (point.run === run) return point;
  }
  return undefined;
}

/** The name of the next recovery point: no number is used twice, also not one whose image is gone. */
export function nextName(folder: string, now: Date): string {
  let last = 0;
  for (const name of listOf(folder))
    last = Math.max(last, Number(imageName.exec(name.replace(/\.json$/, ""))?.[1] ?? 0));
  const time = now.toISOString().replaceAll(/[-:]|\.\d+/g, "");
  return `${String(last + 1).padStart(6, "0")}-${time}.qcow2`;
}

/** Writes a point's note, durably. */
export async function writeNote(folder: string, point: RecoveryPoint): Promise<void> {
  await writeDurably(join(folder, `${point.file}.json`), JSON.stringify(point));
}

/**
 * Which points retention lets go, oldest first. Count and age are floors, both of them; the newest point and those in
 * `kept` stay whatever they say.
 */
export function expired(
  points: readonly RecoveryPoint[],
  retention: RetentionOptions | undefined,
  kept: ReadonlySet<string>,
  now: Date,
): RecoveryPoint[] {
  const { count, ageDays } = retention ?? {};
  if (count === undefined && ageDays === undefined) return [];
  const whole = points.filter((point) => point.removing !== true);
  const oldestKept = ageDays === undefined ? Infinity : now.getTime() - ageDays * 86_400_000;
  return whole.filter((point, index) => {
    const newer = whole.length - 1 - index;
    const isYoung = !(Date.parse(point.committedAt) < oldestKept);
    return newer >= Math.max(1, count ?? 1) && (ageDays === undefined || !isYoung) && !kept.has(point.file);
  });
}

/**
 * Removes a point: what stands on it takes over its content first. Interrupted, it is finished by the next call.
 * @throws ProviderError IN_USE when it is being read, when a run is writing on top of it, or several images stand on it.
 */
export async function removePoint(folder: string, point: RecoveryPoint, compress: boolean, wait: Wait): Promise<void> {
  const path = join(folder, point.file);
  const image = openRaw(path, { anySize: true });
  closeSync(image.fd);
  if (isReading(image.place)) throw inUse(path, "it is being read");
  const pending = listOf(folder).find((name) => name.startsWith("pending-") && name.endsWith(".qcow2"));
  if (pending !== undefined)
    throw inUse(path, `a run writes ${pending}, which may stand on it; let that run end or be taken up`);
  await writeNote(folder, { ...point, removing: true });
  await removeFromChain(path, { compress, signal: wait.signal });
  await rm(join(folder, `${point.file}.json`), { force: true });
}

async function readNote(path: string): Promise<RecoveryPoint> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw translate(error, "reading", path);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const point = (value ?? {}) as Partial<RecoveryPoint>;
  const isSound =
    typeof point.file === "string" &&
    point.file === basename(point.file) &&
    imageName.test(point.file) &&
    typeof point.run === "string" &&
    typeof point.size === "number" &&
    typeof point.committedAt === "string";
  if (isSound) return point as RecoveryPoint;
  throw localError(
    "CORRUPT",
    `${path} is no note of a recovery point; put it back, or move it and its image away together`,
  );
}

function inUse(path: string, why: string): unknown {
  return localError("IN_USE", `the recovery point ${path} stays: ${why}`, { operation: "removing" });
}
