import { z } from "zod";

const text = z.string().min(1);
const path = text.refine((value) => !value.includes("\0"), "holds a NUL byte");
const count = (least: number, most: number): z.ZodInt =>
  z.int(`has to be a whole number from ${least} to ${most}`).min(least).max(most);

/** A vCenter's or host's address: `vc.example.org`, `vc.example.org:8443` or `https://vc.example.org`. */
const address = text.superRefine((value, context) => {
  const problem = addressProblem(value);
  if (problem !== undefined) context.addIssue({ code: "custom", message: problem });
});

const tracking = z.strictObject({
  /** Turn change tracking on where it is off; default true. False: a run without it reads whole disks and says so. */
  enable: z.boolean().optional(),
  /** Also on machines that run, by making and removing a snapshot; default true. False: it waits for the next power cycle. */
  enableOnRunning: z.boolean().optional(),
  /** Begin tracking anew where it is found broken; default true. */
  reset: z.boolean().optional(),
  /** Use `*` on thin disks on VMFS to skip what was never allocated; nothing proves such a list, so default false. */
  allocated: z.boolean().optional(),
});

const snapshots = z.strictObject({
  /**
   * How the guest is brought to rest: `auto` (VSS for Windows, the guest's tools elsewhere), `tools` (as VMware Tools think
   * best), `windows`, `guest`, or `never`. Default auto where a consistency above crash is wanted.
   */
  quiesce: z.enum(["auto", "tools", "windows", "guest", "never"]).optional(),
  /** Minutes the guest may take, 5 to 240 (VirtualMachineGuestQuiesceSpec); default 15. */
  quiesceMinutes: count(5, 240).optional(),
  /** `copy`, the default, leaves the backup chains of applications alone; `full` truncates logs. */
  vssBackup: z.enum(["copy", "full"]).optional(),
  /** What to do when the guest does not quiesce: `fall-back` to another method and tell, or `fail`. Default fall-back. */
  onQuiesceFailure: z.enum(["fall-back", "fail"]).optional(),
  /** Remove snapshots that an earlier run of the same job left behind; default true. */
  sweep: z.boolean().optional(),
});

const vddk = z.strictObject({
  /** The folder of the unpacked VMware VDDK (`vmware-vix-disklib-distrib`). */
  libdir: path.optional(),
  /** The nbdkit program; default `nbdkit`. */
  nbdkit: path.optional(),
  /** The plugin and what stands before its own arguments; default `["vddk"]`. */
  plugin: z.array(text).min(1).optional(),
  /** Arguments added at the end, `key=value` of the plugin. Never a secret: other users of the machine see them. */
  arguments: z.array(text).optional(),
  /** VDDK's transports in order of preference, with colons; default `nbdssl`. */
  transports: text
    .regex(/^(nbdssl|nbd|san|hotadd|file)(:(nbdssl|nbd|san|hotadd|file))*$/, "names transports, with colons between")
    .optional(),
  /** Compression on the way from the host. */
  compression: z.enum(["none", "zlib", "fastlz", "skipz"]).optional(),
  /** Bytes of one read, a multiple of 64 KiB; default 2 MiB through vCenter and 16 MiB from a host. */
  readSize: count(65536, 33554432)
    .refine((size) => size % 65536 === 0, "has to be a multiple of 65536")
    .optional(),
  /** Requests at once for each disk; default 16. */
  requests: count(1, 64).optional(),
  /** VDDK's own configuration file (`vixDiskLib.nfcAio.Session.BufCount` …). */
  config: path.optional(),
});

/** The options of the provider `vsphere`; every name unknown to it is refused. */
export const optionsSchema: z.ZodType<VsphereOptions, VsphereOptions> = z
  .strictObject({
    url: address,
    /** Default: the environment variable VSPHERE_USER. */
    username: text.optional(),
    /** Default: what `passwordFile` holds, else the environment variable VSPHERE_PASSWORD. */
    password: text.optional(),
    /** A file whose first line is the password. */
    passwordFile: path.optional(),
    /** Instead of user and password: a ticket that another session drew for a worker, good once and soon. */
    cloneTicket: text.optional(),
    /** SHA-256 or SHA-1 of the server's certificate; replaces every other check of it. */
    thumbprint: text.regex(/^[0-9A-Fa-f:]+$/, "has to be hexadecimal, with or without colons").optional(),
    /** A file in PEM with the authorities to trust instead of the system's. */
    ca: path.optional(),
    /** Only machines of this datacenter: its inventory path (`DC0`, `folder/DC0`). */
    datacenter: text.optional(),
    /** The one machine this place shows: inventory path, moref, instance UUID or name. */
    machine: text.optional(),
    /** `auto`, the default: VI/JSON where the server offers it, else SOAP. */
    protocol: z.enum(["auto", "soap", "vi-json"]).optional(),
    /** Seconds one request may take; default 300. */
    timeoutSeconds: count(1, 3600).optional(),
    /** Seconds calls are repeated while the server restarts; default 600. */
    retrySeconds: count(0, 86_400).optional(),
    /** Calls at once; default 8. */
    connections: count(1, 64).optional(),
    tracking: tracking.optional(),
    snapshots: snapshots.optional(),
    /** How disks are read, in order of preference; default vddk (where `vddk` is given), nfc, folder. */
    readers: z
      .array(z.enum(["vddk", "nfc", "folder"]))
      .min(1)
      .optional(),
    vddk: vddk.optional(),
    /** Disks read from one host at once; its NFC server has 48 MiB of buffers in all. Default 12. */
    readersPerHost: count(1, 50).optional(),
    /**
     * What to do when the machine is powered off or suspended under a run: `continue` (its snapshot stays readable), `pause`
     * until it runs again, or `fail`. Default continue.
     */
    onPowerChange: z.enum(["continue", "pause", "fail"]).optional(),
  })
  .superRefine(refuseContradictions);

/** How change tracking is used. */
export interface TrackingOptions {
  enable?: boolean | undefined;
  enableOnRunning?: boolean | undefined;
  reset?: boolean | undefined;
  allocated?: boolean | undefined;
}

/** How snapshots are made and removed. */
export interface SnapshotOptions {
  quiesce?: "auto" | "tools" | "windows" | "guest" | "never" | undefined;
  quiesceMinutes?: number | undefined;
  vssBackup?: "copy" | "full" | undefined;
  onQuiesceFailure?: "fall-back" | "fail" | undefined;
  sweep?: boolean | undefined;
}

/** How nbdkit reads through VMware's VDDK. */
export interface VddkOptions {
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
export type ReaderName = "vddk" | "nfc" | "folder";

/** The options of the provider `vsphere`; see `optionsSchema` for what each means. */
export interface VsphereOptions {
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

/** The address as a URL without a path. @throws TypeError for what the schema refuses */
export function addressUrl(value: string): URL {
  return new URL(/^[a-z]+:\/\//i.test(value) ? value : `https://${value}`);
}

function addressProblem(value: string): string | undefined {
  let url: URL;
  try {
    url = addressUrl(value);
  } catch {
    return "is no address: write vc.example.org or https://vc.example.org";
  }
  if (url.username !== "" || url.password !== "") {
    return "holds a user or a password; give those as username and password, or by the environment";
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return `has to be https, not ${url.protocol}`;
  if (url.search !== "" || url.hash !== "") return "has parameters; write only the address";
  if (!/^\/(sdk\/?|ui\/?)?$/.test(url.pathname)) return "has a path; write only the address";
  return undefined;
}

function refuseContradictions(options: VsphereOptions, context: z.RefinementCtx): void {
  const refuse = (message: string, ...where: string[]): void => {
    context.addIssue({ code: "custom", message, path: where });
  };
  if (options.thumbprint !== undefined) {
    const digits = options.thumbprint.replaceAll(":", "").length;
    if (digits !== 40 && digits !== 64) {
      refuse("has to be a SHA-256 (64 digits) or SHA-1 (40 digits) digest", "thumbprint");
    }
    if (options.ca !== undefined)
      refuse("thumbprint and ca exclude each other: a pin replaces every other check", "ca");
  }
  if (options.password !== undefined && options.passwordFile !== undefined) {
    refuse("password and passwordFile exclude each other", "passwordFile");
  }
  if (options.cloneTicket !== undefined && (options.password ?? options.passwordFile) !== undefined) {
    refuse("a ticket stands instead of a password", "cloneTicket");
  }
  const { readers } = options;
  if (readers !== undefined && new Set(readers).size !== readers.length) refuse("names a reader twice", "readers");
}
