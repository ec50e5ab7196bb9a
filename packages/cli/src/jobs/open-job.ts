import { createPrivateKey } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import {
  BackupWindow,
  isProviderError,
  type Job,
  Limits,
  MemoryStateStore,
  openDirectoryState,
  openSource,
  openTarget,
  ProviderError,
  type SourceConnector,
  stateKey,
  type StateStore,
  type Wait,
  WindowGate,
} from "@diskferry/core";
import { refuseSameDisk } from "./disk-names.ts";
import type { JobSpec } from "./job-spec.ts";
import { openExistingState } from "../state-folder.ts";

/** A job with both ends and its state open. */
export interface OpenJob extends AsyncDisposable {
  readonly job: Job;
  readonly window: WindowGate | undefined;
}

export interface OpenOptions extends Wait {
  notice: (message: string) => void;
  /** What becomes of a state directory that is not there: made by default, missed, or taken for an empty one. */
  absentState?: "make" | "miss" | "empty" | undefined;
}

/** Opens everything a job needs. Nothing at the target is touched. @throws ProviderError naming what cannot be opened. */
export async function openJob(spec: JobSpec, options: OpenOptions): Promise<OpenJob> {
  const { signal, notice } = options;
  const context = { signal, notice };
  refuseSameDisk(spec.source, spec.target);
  const window = windowOf(spec);
  const receiptKey = spec.receiptKey === undefined ? undefined : await privateKey(spec.receiptKey);
  const opened: AsyncDisposable[] = [];
  const keep = <Opened extends AsyncDisposable>(each: Opened): Opened => {
    opened.push(each);
    return each;
  };
  try {
    const source = keep(await openSource(spec.source.definition, spec.source.options, context));
    const target = keep(await openTarget(spec.target.definition, spec.target.options, context));
    const machine = spec.machine ?? (await onlyMachine(source, spec.source.label, { signal }));
    const store = keep(await openState(spec.state, options));
    const job: Job = {
      id: spec.id,
      source,
      machine,
      ...(spec.disks === undefined ? {} : { disks: spec.disks }),
      target,
      store,
      options: {
        ...spec.options,
        limits: new Limits({ bytesPerSecond: spec.bytesPerSecond, window }),
        ...(receiptKey === undefined ? {} : { receiptKey }),
        notice,
      },
    };
    return { job, window, [Symbol.asyncDispose]: () => closeAll(opened, window) };
  } catch (error) {
    await closeAll(opened, window);
    throw error;
  }
}

function openState(folder: string, { absentState, signal }: OpenOptions): Promise<StateStore> {
  if (absentState === "miss") return openExistingState(folder);
  if (absentState === "empty" && !existsSync(folder)) return Promise.resolve(new MemoryStateStore());
  return openDirectoryState(folder, { signal });
}

/** Closes what was opened, the last first; the first failure is told when all are closed. */
async function closeAll(opened: AsyncDisposable[], window: WindowGate | undefined): Promise<void> {
  window?.[Symbol.dispose]();
  const failures: unknown[] = [];
  for (const each of opened.splice(0).reverse()) {
    try {
      await each[Symbol.asyncDispose]();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** The gate of a job's backup window; undefined where it has none. @throws ProviderError CONFIG_INVALID */
export function windowOf({ window, timeZone }: JobSpec): WindowGate | undefined {
  return window === undefined ? undefined : new WindowGate(BackupWindow.parse(window, { timeZone }));
}

/** Reads the key before anything is copied, so that a wrong one is not found out at the end. */
async function privateKey(path: string): Promise<string> {
  let pem: string;
  try {
    pem = await readFile(path, "utf8");
  } catch (cause) {
    const missing = (cause as { code?: unknown }).code === "ENOENT";
    throw new ProviderError(
      missing ? "NOT_FOUND" : "DENIED",
      `the key of receipts ${path} ${missing ? "does not exist" : "cannot be read"}; make one: openssl genpkey -algorithm ed25519 -out ${path}`,
      { operation: "read key", cause },
    );
  }
  try {
    if (createPrivateKey(pem).asymmetricKeyType === "ed25519") return pem;
  } catch {
    // What the parser says may quote the key.
  }
  throw new ProviderError(
    "CONFIG_INVALID",
    `${path} holds no Ed25519 private key in PEM; make one: openssl genpkey -algorithm ed25519 -out ${path}`,
    { operation: "read key" },
  );
}

async function onlyMachine(source: SourceConnector, label: string, wait: Wait): Promise<string> {
  const found: string[] = [];
  for await (const machine of source.machines(wait)) {
    found.push(machine.id);
    if (found.length > 5) break;
  }
  if (found.length === 1) return found[0]!;
  if (found.length === 0)
    throw new ProviderError("NOT_FOUND", `${label} has no machine; check its options`, { operation: "open job" });
  throw new ProviderError(
    "CONFIG_INVALID",
    `${label} has several machines (${found.slice(0, 5).join(", ")}${found.length > 5 ? ", …" : ""}); name one: --machine, or machine: in the configuration`,
    { operation: "open job" },
  );
}

/** What later commands need of a job that was begun with two URIs. Holds no secret. */
export interface RememberedJob {
  source: string;
  target: string;
  machine?: string;
  disks?: string[];
}

const memoryOf = (id: string): string => stateKey("jobs", id, "command");

/** Writes down what a job was begun with. */
export async function rememberJob(store: StateStore, spec: JobSpec, wait: Wait): Promise<void> {
  if (spec.uris === undefined) return;
  const { machine, disks } = spec;
  const memory = {
    ...spec.uris,
    ...(machine === undefined ? {} : { machine }),
    ...(disks === undefined ? {} : { disks: [...disks] }),
  };
  const before = await store.get(memoryOf(spec.id), wait);
  if (before !== undefined && JSON.stringify(before.value) === JSON.stringify(memory)) return;
  try {
    await store.set(memoryOf(spec.id), memory, { revision: before?.revision ?? null, ...wait });
  } catch (error) {
    // The same command, started twice at once, writes the same.
    if (!isProviderError(error) || error.code !== "IN_USE") throw error;
  }
}

/** What a job was begun with; undefined where it came from a configuration file or another program. */
export async function recallJob(store: StateStore, id: string): Promise<RememberedJob | undefined> {
  const found = await store.get(memoryOf(id));
  if (typeof found?.value !== "object" || found.value === null || Array.isArray(found.value)) return undefined;
  const { source, target, machine, disks } = found.value;
  if (typeof source !== "string" || typeof target !== "string") return undefined;
  return {
    source,
    target,
    ...(typeof machine === "string" ? { machine } : {}),
    ...(Array.isArray(disks) ? { disks: disks.filter((disk) => typeof disk === "string") } : {}),
  };
}
