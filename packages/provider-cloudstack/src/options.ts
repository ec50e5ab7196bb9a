import { z } from "zod";

const text = z.string().min(1);
const path = text.refine((value) => !value.includes("\0"), "holds a NUL byte");
const milliseconds = z.int().min(1);

const devices = z.strictObject({
  /** Where links by serial number are; default `/dev/disk/by-id`. */
  byId: path.optional(),
  /** Default `/dev`. */
  dev: path.optional(),
  /** Default `/sys`. */
  sys: path.optional(),
});

const remote = z.strictObject({
  /** Host name or address of the appliance as this machine reaches it. */
  host: text,
  /** Port of its NBD server. Default 10809. */
  port: z.int().min(1).max(65535).optional(),
  /** Port of its control door. Default 10810. */
  controlPort: z.int().min(1).max(65535).optional(),
  /** A folder with ca-cert.pem, client-cert.pem and client-key.pem. */
  certificates: path,
  /** The name in the appliance's certificate; default: `host`. */
  serverName: text.optional(),
});

const appliance = z.strictObject({
  /** Id or name of the virtual machine that volumes are attached to: the one this runs on, unless `remote` is given. */
  machine: text,
  /** Where this machine shows its devices. */
  devices: devices.optional(),
  /** The appliance is another machine, which `diskferry appliance` runs on. */
  remote: remote.optional(),
});

const network = z.strictObject({
  /** The source's network this is for; absent: every card that no other entry names. */
  from: text.optional(),
  /** Id or name of a network of the zone. */
  network: text,
  /** Keep the source's MAC address. Default false. */
  keepMac: z.boolean().optional(),
  /** Keep the source's first address, which has to be of that network. Default false. */
  keepAddress: z.boolean().optional(),
});

const launch = z.strictObject({
  /**
   * How the root volume gets into the machine: `volume` deploys from it, `swap` replaces the root of a machine made from a
   * template, `template` makes a template of it and the machine from that, with a copy for its root. Default `auto`: the
   * first of them, in this order, that the platform can. `import` has the file adopted as a machine's root (`importVm`), for
   * a root administrator in mode `import`.
   */
  method: z.enum(["auto", "volume", "swap", "template", "import"]).optional(),
  /** Id or name of a small template for `swap`; its root volume is deleted last. Default: the smallest that is ready. */
  template: text.optional(),
  /** Whether the template that a launch by `template` made stays. Default false: it is deleted when the machine is there. */
  keepTemplate: z.boolean().optional(),
  /** Id or name; default: the smallest that holds the source's processors and memory. */
  serviceOffering: text.optional(),
  /** Networks of a cutover. */
  networks: z.array(network).min(1).optional(),
  /** Id or name of an isolated network for test launches. */
  testNetwork: text.optional(),
  /** The guest's operating system as CloudStack lists it, such as `Debian GNU/Linux 12 (64-bit)`. */
  osType: text.optional(),
  /** `rootDiskController` of the machine; default: virtio for Linux, sata for UEFI Windows, ide for other Windows. */
  rootDiskController: z.enum(["virtio", "scsi", "sata", "ide", "osdefault"]).optional(),
  /** `nicAdapter` of the machine; default: virtio for Linux, E1000 for Windows. */
  nicAdapter: z.enum(["virtio", "E1000", "RTL8139", "PCNet32"]).optional(),
  /** MHz of each processor, for an offering that leaves it open. Default 1000. */
  cpuSpeed: z.int().min(1).optional(),
  /** Whether the machine is started. Default true. */
  start: z.boolean().optional(),
});

const importing = z.strictObject({
  /** Id or name of a primary storage pool of files: NFS, a shared mount point, or a host's own. */
  pool: text,
  /** Where the pool's own folder is mounted on this machine. */
  folder: path,
  /** Id or name of the host whose own storage the pool is; needed to launch by `import` from there. */
  host: text.optional(),
});

const source = z.strictObject({
  /**
   * How a running machine of several disks is snapshotted: `machine` by a VM snapshot with memory, which stops it for as long
   * as that takes and is one point in time; `volumes` one after the other. Default `auto`: `machine` where it works.
   */
  snapshots: z.enum(["auto", "machine", "volumes"]).optional(),
  /**
   * How a snapshot's bytes are read: through a volume made of it and attached to the `appliance`, the default; or by
   * `download` of the file that `extractSnapshot` gives out (4.20 and later), which needs no appliance.
   */
  read: z.enum(["appliance", "download"]).optional(),
});

const tls = z.strictObject({
  caFile: path.optional(),
  pin: text.regex(/^([0-9A-Fa-f]{2}:?){32}$/, "must be a SHA-256 fingerprint, 64 hex digits").optional(),
});

/** The options of the provider `cloudstack`, for a source or a target; every name unknown to it is refused. */
export const optionsSchema: z.ZodType<CloudstackOptions, CloudstackOptions> = z
  .strictObject({
    endpoint: z.url({ protocol: /^https?$/, message: "must be the API's http: or https: URL, …/client/api" }),
    apiKey: text.optional(),
    secretKey: text.optional(),
    username: text.optional(),
    password: text.optional(),
    domain: text.startsWith("/", "is a path: /customers/acme").optional(),
    tls: tls.optional(),
    storageTls: tls.optional(),
    plainStorage: z.boolean().optional(),
    mode: z.enum(["attach", "upload", "import"]).optional(),
    spool: path.optional(),
    import: importing.optional(),
    project: text.optional(),
    owner: z.strictObject({ account: text, domainId: text }).optional(),
    zone: text.optional(),
    appliance: appliance.optional(),
    diskOffering: text.optional(),
    machine: text.optional(),
    launch: launch.optional(),
    source: source.optional(),
    timeouts: z
      .strictObject({
        connectMs: milliseconds.optional(),
        requestMs: milliseconds.optional(),
        pollMs: milliseconds.optional(),
        pollMostMs: milliseconds.optional(),
        jobMs: milliseconds.optional(),
        deviceMs: milliseconds.optional(),
      })
      .optional(),
    retryBudgetMs: z.int().min(0).optional(),
  })
  .superRefine((options, context) => {
    const refuse = (message: string, ...where: string[]): void => {
      context.addIssue({ code: "custom", message, path: where });
    };
    if ((options.apiKey === undefined) !== (options.secretKey === undefined))
      refuse("apiKey and secretKey belong together", options.apiKey === undefined ? "apiKey" : "secretKey");
    if ((options.username === undefined) !== (options.password === undefined))
      refuse("username and password belong together", options.username === undefined ? "username" : "password");
    if (options.apiKey !== undefined && options.username !== undefined)
      refuse("keys and a user exclude each other", "username");
    const gathers = options.mode === "upload" || options.mode === "import";
    if (gathers !== (options.spool !== undefined))
      refuse(
        'a folder for spool and mode "upload" or "import" belong together',
        options.spool === undefined ? "spool" : "mode",
      );
    if ((options.mode === "import") !== (options.import !== undefined))
      refuse('mode "import" and what import says belong together', options.import === undefined ? "import" : "mode");
    if (options.launch?.method === "import" && options.mode !== "import")
      refuse('method "import" adopts files, which mode "import" alone leaves on a pool', "launch", "method");
    if (options.project !== undefined && options.owner !== undefined) refuse("a project has no other owner", "owner");
    for (const name of ["tls", "storageTls"] as const) {
      if (options[name]?.pin !== undefined && options[name].caFile !== undefined)
        refuse("pin and caFile exclude each other", name, "pin");
    }
  });

/** The appliance: the machine that volumes are attached to. */
export interface ApplianceOptions {
  machine: string;
  devices?: { byId?: string | undefined; dev?: string | undefined; sys?: string | undefined } | undefined;
  remote?: RemoteOptions | undefined;
}

/** How an appliance on another machine is reached. */
export interface RemoteOptions {
  host: string;
  /** NBD's; default 10809. */
  port?: number | undefined;
  /** The control door's; default 10810. */
  controlPort?: number | undefined;
  certificates: string;
  serverName?: string | undefined;
}

/** Where a card of the source goes. */
export interface NetworkOptions {
  from?: string | undefined;
  network: string;
  keepMac?: boolean | undefined;
  keepAddress?: boolean | undefined;
}

/** How machines are launched. */
export interface LaunchOptions {
  method?: "auto" | "volume" | "swap" | "template" | "import" | undefined;
  template?: string | undefined;
  keepTemplate?: boolean | undefined;
  serviceOffering?: string | undefined;
  networks?: NetworkOptions[] | undefined;
  testNetwork?: string | undefined;
  osType?: string | undefined;
  rootDiskController?: "virtio" | "scsi" | "sata" | "ide" | "osdefault" | undefined;
  nicAdapter?: "virtio" | "E1000" | "RTL8139" | "PCNet32" | undefined;
  cpuSpeed?: number | undefined;
  start?: boolean | undefined;
}

/** Where mode `import` puts files. */
export interface ImportOptions {
  pool: string;
  folder: string;
  host?: string | undefined;
}

/** How a source is snapshotted and read. */
export interface SourceOptions {
  snapshots?: "auto" | "machine" | "volumes" | undefined;
  read?: "appliance" | "download" | undefined;
}

/** How long things may take, in milliseconds. */
export interface TimeoutOptions {
  /** A connection, TLS included. Default 10 000. */
  connectMs?: number | undefined;
  /** One call of the API. Default 60 000. */
  requestMs?: number | undefined;
  /** Between the first two looks at a job; it grows by itself. Default 1000. */
  pollMs?: number | undefined;
  /** The longest between two looks. Default 10 000. */
  pollMostMs?: number | undefined;
  /** How long a job may be pending. Default four hours. */
  jobMs?: number | undefined;
  /** How long the device of an attached volume may take to appear. Default 60 000. */
  deviceMs?: number | undefined;
}

/** The options of the provider `cloudstack`. */
export interface CloudstackOptions {
  /** `https://cloud.example.org/client/api`. */
  endpoint: string;
  /** Keys of a user. Absent, and no user either: CLOUDSTACK_KEY and CLOUDSTACK_SECRET of the environment. */
  apiKey?: string | undefined;
  secretKey?: string | undefined;
  /** Instead of keys: a user who logs in. */
  username?: string | undefined;
  password?: string | undefined;
  /** Path of the user's domain; default `/`. */
  domain?: string | undefined;
  /** Whom to believe; absent: the authorities Node trusts. */
  tls?: { caFile?: string | undefined; pin?: string | undefined } | undefined;
  /**
   * How a target's volumes get their bytes: `attach`, the default, through the appliance and again and again; `upload` once,
   * as a whole, to the secondary storage machine; `import` once, as a whole, as a file on a pool that is mounted here and that a
   * root administrator has CloudStack adopt.
   */
  mode?: "attach" | "upload" | "import" | undefined;
  /** A folder of this machine with room for the disks, for `upload` and `import`: each is gathered there first. */
  spool?: string | undefined;
  /** The pool that mode `import` puts files on. */
  import?: ImportOptions | undefined;
  /** Bytes without TLS from and to the secondary storage machine although the API is reached with it. Default false. */
  plainStorage?: boolean | undefined;
  /** Whom to believe of the secondary storage machine, for downloads and uploads; absent: `tls.caFile`, else whom Node trusts. */
  storageTls?: { caFile?: string | undefined; pin?: string | undefined } | undefined;
  /** Id or name of a project; absent: the account's own things. */
  project?: string | undefined;
  /** An account, and the id of its domain, that an administrator acts for; absent: the user's own. */
  owner?: { account: string; domainId: string } | undefined;
  /** Id or name; absent: the only zone there is. */
  zone?: string | undefined;
  appliance?: ApplianceOptions | undefined;
  /** Id or name of the offering of new volumes; absent: the first of a custom size on shared storage. */
  diskOffering?: string | undefined;
  /** The machine that a URI names: a source then lists that one alone. */
  machine?: string | undefined;
  launch?: LaunchOptions | undefined;
  source?: SourceOptions | undefined;
  timeouts?: TimeoutOptions | undefined;
  /** How long a call that changed nothing is repeated. Default 120 000. */
  retryBudgetMs?: number | undefined;
}
