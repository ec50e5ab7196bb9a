import { vsphereError } from "../errors.ts";
import { type MoRef, moRef } from "./moref.ts";
import { readSeen } from "./property-collector.ts";
import { runTask, type TaskWait } from "./tasks.ts";
import { vimData, type VimData } from "./vim-argument.ts";
import type { CallWait, VimClient } from "./vim-client.ts";
import type { VimElement } from "./vim-element.ts";
import { readDisks, type VirtualDisk } from "./virtual-disk.ts";

/** A machine's snapshot as the tree of snapshots tells it. */
export interface SnapshotNode {
  readonly ref: MoRef;
  readonly name: string;
  readonly description: string;
  /** When the point in time was fixed, ISO 8601 by the server's clock. */
  readonly createTime: string;
  /** Whether the guest was quiesced: what was achieved, not what was asked. */
  readonly quiesced: boolean;
  /** The machine's power state at that moment. */
  readonly powerState: string;
  /** The snapshot it stands on. */
  readonly parent: MoRef | undefined;
}

/** How a guest is brought to rest for a snapshot; absent: crash-consistent. */
export type QuiesceWish =
  /** VMware Tools do as they think best (`quiesce` of CreateSnapshot_Task). */
  | { readonly kind: "default" }
  /** VirtualMachineWindowsQuiesceSpec: VSS with a time-out of 5 to 240 minutes. 5: copy-only, 1: full. */
  | {
      readonly kind: "windows";
      readonly timeoutMinutes: number;
      readonly backupType: 1 | 5;
      readonly context: "ctx_auto" | "ctx_backup" | "ctx_file_share_backup";
    }
  /** VirtualMachineGuestQuiesceSpec: any guest, with a time-out of 5 to 240 minutes. */
  | { readonly kind: "guest"; readonly timeoutMinutes: number };

/** All snapshots of a machine, each before those that stand on it. */
export async function listSnapshots(client: VimClient, machine: MoRef, wait: CallWait = {}): Promise<SnapshotNode[]> {
  const properties = await readSeen(client, machine, ["snapshot"], wait);
  return snapshotTree(properties.get("snapshot"));
}

/** The snapshots that a machine's property `snapshot` tells of, each before those that stand on it. */
export function snapshotTree(info: VimElement | undefined): SnapshotNode[] {
  const found: SnapshotNode[] = [];
  for (const root of info?.all("rootSnapshotList") ?? []) readTree(root, undefined, found);
  return found;
}

function readTree(tree: VimElement, parent: MoRef | undefined, into: SnapshotNode[]): void {
  const ref = tree.reference("snapshot");
  if (ref === undefined) throw vsphereError("UNEXPECTED", "a snapshot of the tree has no reference");
  into.push({
    ref,
    name: tree.string("name") ?? "",
    description: tree.string("description") ?? "",
    createTime: tree.string("createTime") ?? "",
    quiesced: tree.boolean("quiesced") ?? false,
    powerState: tree.string("state") ?? "",
    parent,
  });
  for (const child of tree.all("childSnapshotList")) readTree(child, ref, into);
}

/**
 * Makes a snapshot without the memory; resolves to its reference. A wish other than `default` needs
 * CreateSnapshotEx_Task (vSphere 6.5).
 */
export async function createSnapshot(
  client: VimClient,
  machine: MoRef,
  wish: { name: string; description: string; quiesce?: QuiesceWish | undefined },
  wait: TaskWait = {},
): Promise<MoRef> {
  const { name, description, quiesce } = wish;
  const shared = { name, description, memory: false };
  const result =
    quiesce === undefined || quiesce.kind === "default"
      ? await runTask(client, "CreateSnapshot_Task", machine, { ...shared, quiesce: quiesce !== undefined }, wait)
      : await runTask(client, "CreateSnapshotEx_Task", machine, { ...shared, quiesceSpec: quiesceSpec(quiesce) }, wait);
  const ref = result?.asReference;
  if (ref === undefined) throw vsphereError("UNEXPECTED", `the snapshot ${name} was made and has no reference`);
  return ref;
}

function quiesceSpec(wish: Exclude<QuiesceWish, { kind: "default" }>): VimData {
  const { kind, timeoutMinutes: timeout } = wish;
  if (kind === "guest") return vimData("VirtualMachineGuestQuiesceSpec", { timeout });
  return vimData("VirtualMachineWindowsQuiesceSpec", {
    timeout,
    vssBackupType: wish.backupType,
    vssBootableSystemState: true,
    vssPartialFileSupport: false,
    vssBackupContext: wish.context,
  });
}

/** Removes one snapshot, merging its deltas; snapshots that stand on it stay. */
export async function removeSnapshot(client: VimClient, snapshot: MoRef, wait: TaskWait = {}): Promise<void> {
  await runTask(client, "RemoveSnapshot_Task", snapshot, { removeChildren: false, consolidate: true }, wait);
}

/** Whether deltas are left whose snapshot is gone (`runtime.consolidationNeeded`). */
export async function needsConsolidation(client: VimClient, machine: MoRef, wait: CallWait = {}): Promise<boolean> {
  const properties = await readSeen(client, machine, ["runtime.consolidationNeeded"], wait);
  return properties.boolean("runtime.consolidationNeeded") ?? false;
}

/** Merges deltas whose snapshot is gone (ConsolidateVMDisks_Task). */
export async function consolidate(client: VimClient, machine: MoRef, wait: TaskWait = {}): Promise<void> {
  await runTask(client, "ConsolidateVMDisks_Task", machine, {}, wait);
}

/**
 * The disks as a snapshot froze them: file names to read from, sizes and change ids of that point in time.
 *
 * @throws ProviderError NOT_FOUND where the snapshot is gone
 */
export async function snapshotDisks(client: VimClient, snapshot: MoRef, wait: CallWait = {}): Promise<VirtualDisk[]> {
  const properties = await readSeen(client, snapshot, ["config.hardware.device"], wait);
  return readDisks(properties.get("config.hardware.device"));
}

/** The reference to a snapshot by its id. */
export function snapshotRef(id: string): MoRef {
  return moRef("VirtualMachineSnapshot", id);
}

/** The reference to a machine by its id. */
export function machineRef(id: string): MoRef {
  return moRef("VirtualMachine", id);
}
