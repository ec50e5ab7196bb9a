import { PowerState, ProviderContext, ProviderDefinition, Wait } from "@diskferry/core/provider";
import { z } from "zod";
import "node:crypto";
import "node:stream";
/** The options of the provider `vsphere`; every name unknown to it is refused. */
declare const optionsSchema: z.ZodType<VsphereOptions, VsphereOptions>;
/** How change tracking is used. */
interface TrackingOptions {
  enable?: boolean | undefined;
  enableOnRunning?: boolean | undefined;
  reset?: boolean | undefined;
  allocated?: boolean | undefined;
}
/** How snapshots are made and removed. */
interface SnapshotOptions {
  quiesce?: "auto" | "tools" | "windows" | "guest" | "never" | undefined;
  quiesceMinutes?: number | undefined;
  vssBackup?: "copy" | "full" | undefined;
  onQuiesceFailure?: "fall-back" | "fail" | undefined;
  sweep?: boolean | undefined;
}
/** How nbdkit reads through VMware's VDDK. */
interface VddkOptions {
  libdir?: string | undefined;
  nbdkit?: string | undefined;
  plugin?: string[] | undefined;
  arguments?: string[] | undefined;
  transports?: string | undefined;
  compression?: "none" | "zlib" | "fastlz" | "skipz" | undefined;
  readSize?: number | undefined;
  requests?: number | undefined;
  config?: string | undefined;
}
/** The names of the readers. */
type ReaderName = "vddk" | "nfc" | "folder";
/** The options of the provider `vsphere`; see `optionsSchema` for what each means. */
interface VsphereOptions {
  url: string;
  username?: string | undefined;
  password?: string | undefined;
  passwordFile?: string | undefined;
  cloneTicket?: string | undefined;
  thumbprint?: string | undefined;
  ca?: string | undefined;
  datacenter?: string | undefined;
  machine?: string | undefined;
  protocol?: "auto" | "soap" | "vi-json" | undefined;
  timeoutSeconds?: number | undefined;
  retrySeconds?: number | undefined;
  connections?: number | undefined;
  tracking?: TrackingOptions | undefined;
  snapshots?: SnapshotOptions | undefined;
  readers?: ReaderName[] | undefined;
  vddk?: VddkOptions | undefined;
  readersPerHost?: number | undefined;
  onPowerChange?: "continue" | "pause" | "fail" | undefined;
}
/** A machine as the Automation API lists it; templates are not listed. */
interface ListedMachine {
  /** The same as the moref of vim25. */
  readonly moref: string;
  readonly name: string;
  readonly power: PowerState | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
}
/** A machine as the Automation API details it. */
interface DetailedMachine {
  readonly name: string;
  readonly instanceUuid: string | undefined;
  readonly power: PowerState | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly firmware: "bios" | "uefi" | undefined;
  /** By device key. */
  readonly disks: readonly {
    key: string;
    size: number;
    label: string | undefined;
  }[];
  readonly macs: readonly string[];
}
/** The machines of a place without their disks, for lists of thousands; one machine's details and power state by its moref. */
interface QuickInventory extends AsyncDisposable {
  /** Every machine, or those of exactly these names; templates are left out. */
  list(filter?: {
    readonly names?: readonly string[];
  }, wait?: Wait): AsyncIterable<ListedMachine>;
  /** One machine with its disks. @throws ProviderError NOT_FOUND */
  detail(moref: string, wait?: Wait): Promise<DetailedMachine>;
  /** One machine's power state. @throws ProviderError NOT_FOUND */
  power(moref: string, wait?: Wait): Promise<PowerState>;
}
/**
 * Connects to a place for its quick inventory: by the vSphere Automation API, which answers with up to 4,000 machines at once, and by
 * vim25 where that is not there, does not answer or holds more; a notice says so each time.
 *
 * @throws ProviderError as the provider's source does when it connects
 */
declare function openQuickInventory(options: VsphereOptions, context?: ProviderContext): Promise<QuickInventory>;
/** A session that draws tickets for workers. It has to stay open until they have joined. */
interface TicketSession extends AsyncDisposable {
  /** A secret for the option `cloneTicket` of one worker: it joins as the same user without the password, once and soon. */
  ticket(wait?: Wait): Promise<string>;
}
/**
 * Logs in to draw tickets (SessionManager, AcquireCloneTicket), so that processes elsewhere work without being given the password.
 * VMware's library takes none: such workers read by `nfc` or `folder`.
 *
 * @throws ProviderError as the provider's source does when it connects
 */
declare function openTicketSession(options: VsphereOptions, context?: ProviderContext): Promise<TicketSession>;
/** The provider of VMware vSphere: vCenter and ESXi hosts as source. */
declare const provider: ProviderDefinition<VsphereOptions, VsphereOptions>;
export { type DetailedMachine, type ListedMachine, type QuickInventory, type ReaderName, type SnapshotOptions, type TicketSession, type TrackingOptions, type VddkOptions, type VsphereOptions, openQuickInventory, openTicketSession, optionsSchema, provider };