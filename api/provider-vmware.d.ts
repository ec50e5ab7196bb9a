import { ProviderDefinition } from "@diskferry/core/provider";
import { z } from "zod";
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
/** The provider of VMware vSphere: vCenter and ESXi hosts as source. */
declare const provider: ProviderDefinition<VsphereOptions, VsphereOptions>;
export { type ReaderName, type SnapshotOptions, type TrackingOptions, type VddkOptions, type VsphereOptions, optionsSchema, provider };