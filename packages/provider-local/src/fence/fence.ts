import { randomBytes } from "node:crypto";
import { mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Wait } from "@diskferry/core/provider";
import { localError, translate } from "../errors.ts";
import { type ProcessMark, livenessOf, ownMark } from "./live-process.ts";
import { type WriteGate, createGate, shutGate } from "./write-gate.ts";

/** A writer's right to write to one target, until a newer epoch takes it. */
export interface Fence {
  /** Shared with the writer's lanes: shut before a newer epoch gets in. */
  readonly gate: WriteGate;
  readonly epoch: number;
  /** @throws ProviderError FENCED when a newer epoch has announced itself. */
  check(): Promise<void>;
  /** Gives the right back. The epoch stays known, so that an older one is refused later, too. */
  release(): Promise<void>;
}

export interface FenceOptions extends Wait {
  /** How long a living holder in another process may take to let go, in milliseconds. */
  patienceMs?: number;
  /**
   * Whether a process is refused while another one holds the same epoch: where two writers would each allocate on their own, as in a
   * qcow2 image, the slices of one run cannot share the target. Default false.
   */
  exclusive?: boolean;
}

interface Holder {
  name: string;
  epoch: number;
}

/** How often a holder looks whether a newer epoch wants in; a newcomer waits about this long. */
const watchMs = 250;
const defaultPatienceMs = 10_000;

/** Holds of this very process are cut off directly, without waiting for their next look. */
const heldHere = new Map<string, () => Promise<void>>();

/**
 * Takes the right to write to `object` under `epoch`, by files in `folder`: every writer announces itself there before
 * it looks at who else is there, so of two at least one sees the other. A newer epoch waits until each older writer has
 * let its last write drain and gone, or its process is dead; an older one is refused. This cuts off writers of this
 * host, and those of other hosts that see the same folder and are alive to answer.
 * @throws ProviderError FENCED, or IN_USE when an older writer neither answers nor is known to be dead.
 */
export async function takeFence(
  folder: string,
  object: string,
  epoch: number,
  options: FenceOptions = {},
): Promise<Fence> {
  try {
    await mkdir(folder, { recursive: true });
    const name = await announce(folder, epoch);
    try {
      await refuseIfOlder(folder, object, epoch);
      await expel(folder, object, epoch, options);
      if (options.exclusive === true) await refuseShared(folder, object, epoch, name);
      await remember(folder, epoch);
    } catch (error) {
      await rm(join(folder, name), { force: true });
      throw error;
    }
    return held(folder, object, epoch, name);
  } catch (error) {
    throw translate(error, "fencing", folder);
  }
}

/** Forgets the epochs seen, for a target that begins a new life under another owner. */
export async function forgetEpochs(folder: string): Promise<void> {
  for (const entry of await entriesOf(folder)) {
    if (epochOf(entry, "epoch") !== undefined) await rm(join(folder, entry), { force: true });
  }
}

function held(folder: string, object: string, epoch: number, name: string): Fence {
  const gate = createGate();
  const place = join(folder, name);
  let letGo: Promise<void> | undefined;

  function cutOff(): Promise<void> {
    letGo ??= (async () => {
      clearInterval(watch);
      heldHere.delete(place);
      await shutGate(gate, "fenced");
      await rm(place, { force: true });
    })();
    return letGo;
  }

  async function look(): Promise<void> {
    if ((await newestIn(folder)) > epoch) await cutOff();
  }

  const watch = setInterval(() => {
    // A folder that cannot be read now is read again at the next look, and at every flush.
    look().catch(() => {});
  }, watchMs);
  watch.unref();
  heldHere.set(place, cutOff);

  return {
    gate,
    epoch,
    async check(): Promise<void> {
      const newest = await newestIn(folder);
      if (newest <= epoch) return;
      await cutOff();
      throw fenced(object, epoch, newest, folder);
    },
    async release(): Promise<void> {
      clearInterval(watch);
      heldHere.delete(place);
      await rm(place, { force: true });
    },
  };
}

async function announce(folder: string, epoch: number): Promise<string> {
  const name = `holder-${padded(epoch)}-${process.pid}-${randomBytes(6).toString("hex")}`;
  const draft = join(folder, `.${name}`);
  await writeFile(draft, JSON.stringify(ownMark()), { flag: "wx" });
  await rename(draft, join(folder, name));
  return name;
}

async function refuseIfOlder(folder: string, object: string, epoch: number): Promise<void> {
  const newest = await newestIn(folder);
  if (newest > epoch) throw fenced(object, epoch, newest, folder);
}

/** Waits until no writer of a lower epoch is left. */
async function expel(folder: string, object: string, epoch: number, options: FenceOptions): Promise<void> {
  const end = performance.now() + (options.patienceMs ?? defaultPatienceMs);
  for (;;) {
    options.signal?.throwIfAborted();
    const older = await olderHolders(folder, epoch);
    let left: { holder: Holder; mark: ProcessMark | undefined } | undefined;
    for (const holder of older) {
      const mark = await gone(folder, holder, end);
      if (mark !== "gone") left = { holder, mark };
    }
    if (left === undefined) return;
    if (performance.now() > end) {
      const who = left.mark === undefined ? "a process" : `process ${left.mark.pid} on ${left.mark.machine}`;
      throw localError(
        "IN_USE",
        `${object} is still held by ${who} of an older run (epoch ${left.holder.epoch}), which does not answer; ` +
          `end it, or when it is surely dead remove ${join(folder, left.holder.name)}`,
        { operation: "fencing" },
      );
    }
    await delay(watchMs / 5, undefined, { signal: options.signal });
  }
}

/** @throws ProviderError IN_USE when a writer of another living process holds the same epoch. */
async function refuseShared(folder: string, object: string, epoch: number, own: string): Promise<void> {
  for (const name of await entriesOf(folder)) {
    if (name === own || epochOf(name, "holder") !== epoch) continue;
    // One of this very process is cut off, for it was left behind by whoever opens again; a dead one's place is free.
    if ((await gone(folder, { name, epoch }, performance.now() + defaultPatienceMs)) === "gone") continue;
    throw localError(
      "IN_USE",
      `${object} is being written by another worker of this run: one image takes one writer at a time. Copy it without ` +
        `slices, or to a raw file or an NBD server`,
      { operation: "fencing" },
    );
  }
}

async function gone(folder: string, holder: Holder, end: number): Promise<"gone" | ProcessMark | undefined> {
  const place = join(folder, holder.name);
  const cutOff = heldHere.get(place);
  if (cutOff !== undefined) {
    // A write that hangs holds up its own process' newcomers no longer than others'.
    const late = new AbortController();
    const patience = delay(Math.max(0, end - performance.now()), "late" as const, { signal: late.signal });
    const first = await Promise.race([cutOff(), patience]);
    late.abort();
    patience.catch(() => {});
    return first === "late" ? ownMark() : "gone";
  }
  let mark: ProcessMark;
  try {
    mark = JSON.parse(await readFile(place, "utf8")) as ProcessMark;
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return "gone";
    return undefined;
  }
  if (livenessOf(mark) !== "dead") return mark;
  await rm(place, { force: true });
  return "gone";
}

async function remember(folder: string, epoch: number): Promise<void> {
  await writeFile(join(folder, `epoch-${padded(epoch)}`), "");
  for (const entry of await entriesOf(folder)) {
    const other = epochOf(entry, "epoch");
    if (other !== undefined && other < epoch) await rm(join(folder, entry), { force: true });
  }
}

async function olderHolders(folder: string, epoch: number): Promise<Holder[]> {
  const older: Holder[] = [];
  for (const name of await entriesOf(folder)) {
    const other = epochOf(name, "holder");
    if (other !== undefined && other < epoch) older.push({ name, epoch: other });
  }
  return older;
}

async function newestIn(folder: string): Promise<number> {
  let newest = -1;
  for (const entry of await entriesOf(folder)) {
    newest = Math.max(newest, epochOf(entry, "holder") ?? epochOf(entry, "epoch") ?? -1);
  }
  return newest;
}

async function entriesOf(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return [];
    throw error;
  }
}

function epochOf(entry: string, kind: "holder" | "epoch"): number | undefined {
  const found = entry.startsWith(`${kind}-`) ? /^[a-z]+-(\d+)/.exec(entry)?.[1] : undefined;
  return found === undefined ? undefined : Number(found);
}

function padded(epoch: number): string {
  return String(epoch).padStart(16, "0");
}

function fenced(object: string, epoch: number, newest: number, folder: string): unknown {
  return localError(
    "FENCED",
    `${object} belongs to a newer run (epoch ${newest}, this one has ${epoch}); this run must stop. ` +
      `If the job's state was lost and no other run exists, remove ${folder}`,
    { operation: "fencing" },
  );
}
