import type { Consistency } from "@diskferry/core/provider";
import type { QuiesceWish } from "../vim/snapshot-calls.ts";
import { faultOf } from "../vim/vim-fault.ts";

/** How long a guest may take to come to rest, in minutes; vSphere takes 5 to 240 (VirtualMachineGuestQuiesceSpec). */
export const defaultQuiesceMinutes = 15;

/** What is known of a guest when it is to be quiesced. */
export interface Guest {
  readonly windows: boolean;
  /** `8.0.3.0`. */
  readonly apiVersion: string;
}

/** VSS_BACKUP_TYPE: a copy leaves the chains of other backups as they are, a full one truncates logs. */
const vssBackup = { full: 1, copy: 5 } as const;

/** How long the guest may take, and what its applications are told. */
export interface QuiesceManner {
  readonly timeoutMinutes?: number | undefined;
  readonly backup?: "copy" | "full" | undefined;
}

/** The ways to quiesce a guest, best first. Those with a specification of their own exist since vSphere 6.5. */
export function waysToQuiesce(guest: Guest, manner: QuiesceManner = {}): QuiesceWish[] {
  const { timeoutMinutes = defaultQuiesceMinutes, backup = "copy" } = manner;
  const standard: QuiesceWish = { kind: "default" };
  const [major = 0, minor = 0] = guest.apiVersion.split(".").map(Number);
  if (major < 6 || (major === 6 && minor < 5)) return [standard];
  if (!guest.windows) return [{ kind: "guest", timeoutMinutes }, standard];
  return [{ kind: "windows", timeoutMinutes, backupType: vssBackup[backup], context: "ctx_auto" }, standard];
}

/** For people. */
export function describeWay(way: QuiesceWish): string {
  if (way.kind === "windows") return "VSS in the guest";
  return way.kind === "guest" ? "freezing the guest's file systems" : "quiescing by VMware Tools";
}

/** The faults after which another way may work: the guest did not come to rest, or this way does not exist here. */
const worthAnotherWay: ReadonlySet<string> = new Set([
  "ApplicationQuiesceFault",
  "FilesystemQuiesceFault",
  "SnapshotFault",
  "ToolsUnavailable",
  "MethodNotFound",
  "NotSupported",
  "NotImplemented",
  "Timedout",
]);

/** Whether an error says that the guest was not quiesced this way, and nothing else. */
export function notQuiesced(error: unknown): boolean {
  return worthAnotherWay.has(faultOf(error)?.type ?? "");
}

/** What a snapshot is worth, by what vSphere says of it afterwards. */
export function consistencyOf(snapshot: {
  quiesced: boolean;
  /** vim25's name of the machine's state at that moment. */
  powerState: string;
  windows: boolean;
  /** `runtime.cleanPowerOff` of a machine that was off. */
  cleanPowerOff: boolean | undefined;
}): Consistency {
  // A guest that shut down in order has written everything, its applications included.
  if (snapshot.powerState === "poweredOff") return snapshot.cleanPowerOff === true ? "application" : "crash";
  if (!snapshot.quiesced) return "crash";
  return snapshot.windows ? "application" : "filesystem";
}
