import { ProviderDefinition, Wait } from "@diskferry/core/provider";
import { z } from "zod";
import "undici";
import "node:fs/promises";
/** The options of the provider `cloudstack`, for a source or a target; every name unknown to it is refused. */
declare const optionsSchema: z.ZodType<CloudstackOptions, CloudstackOptions>;
/** The appliance: the machine that volumes are attached to. */
interface ApplianceOptions {
  machine: string;
  devices?: {
    byId?: string | undefined;
    dev?: string | undefined;
    sys?: string | undefined;
  } | undefined;
  remote?: RemoteOptions | undefined;
}
/** How an appliance on another machine is reached. */
interface RemoteOptions {
  host: string;
  /** NBD's; default 10809. */
  port?: number | undefined;
  /** The control door's; default 10810. */
  controlPort?: number | undefined;
  certificates: string;
  serverName?: string | undefined;
}
/** Where a card of the source goes. */
interface NetworkOptions {
  from?: string | undefined;
  network: string;
  keepMac?: boolean | undefined;
  keepAddress?: boolean | undefined;
}
/** How machines are launched. */
interface LaunchOptions {
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
interface ImportOptions {
  pool: string;
  folder: string;
  host?: string | undefined;
}
/** How a source is snapshotted and read. */
interface SourceOptions {
  snapshots?: "auto" | "machine" | "volumes" | undefined;
  read?: "appliance" | "download" | undefined;
}
/** How long things may take, in milliseconds. */
interface TimeoutOptions {
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
interface CloudstackOptions {
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
  tls?: {
    caFile?: string | undefined;
    pin?: string | undefined;
  } | undefined;
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
  storageTls?: {
    caFile?: string | undefined;
    pin?: string | undefined;
  } | undefined;
  /** Id or name of a project; absent: the account's own things. */
  project?: string | undefined;
  /** An account, and the id of its domain, that an administrator acts for; absent: the user's own. */
  owner?: {
    account: string;
    domainId: string;
  } | undefined;
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
/** The provider of Apache CloudStack: volumes as target, snapshots as source, machines to launch. */
declare const provider: ProviderDefinition<CloudstackOptions, CloudstackOptions>;
/** What an answer holds, before anybody looked at it. */
type AnswerObject = Readonly<Record<string, unknown>>;
/** A volume. */
interface CloudVolume {
  id: string;
  name: string;
  /** `Allocated` until it is first attached: no pool, no bytes. */
  state: string;
  type: "ROOT" | "DATADISK";
  /** Bytes. */
  size: number;
  zoneId: string | undefined;
  machineId: string | undefined;
  machineName: string | undefined;
  machineState: string | undefined;
  deviceId: number | undefined;
  snapshotId: string | undefined;
  diskOfferingId: string | undefined;
  /** Of a volume that goes back to a template. */
  templateId: string | undefined;
  storageType: string | undefined;
  /** Administrators alone are told: the pool, and the file's name there. */
  poolId: string | undefined;
  path: string | undefined;
  hypervisor: string | undefined;
  created: string | undefined;
  deleteProtected: boolean;
  tags: Readonly<Record<string, string>>;
  /** A job that works on it. */
  jobId: string | undefined;
}
/** A virtual machine. */
interface CloudMachine {
  id: string;
  name: string;
  displayName: string;
  state: string;
  zoneId: string | undefined;
  hypervisor: string | undefined;
  cpus: number | undefined;
  /** MiB. */
  memory: number | undefined;
  osName: string | undefined;
  osTypeId: string | undefined;
  /** Of what it was deployed from. */
  templateName: string | undefined;
  bootType: string | undefined;
  bootMode: string | undefined;
  details: Readonly<Record<string, string>>;
  cards: {
    networkId: string | undefined;
    network: string | undefined;
    mac: string | undefined;
    address: string | undefined;
  }[];
  tags: Readonly<Record<string, string>>;
  jobId: string | undefined;
}
/** A snapshot of a volume. */
interface CloudSnapshot {
  id: string;
  name: string;
  state: string;
  volumeId: string | undefined;
  /** Of the volume at that time, bytes. */
  size: number | undefined;
  created: string | undefined;
  tags: Readonly<Record<string, string>>;
  jobId: string | undefined;
}
/** A template. */
interface CloudTemplate {
  id: string;
  name: string;
  /** False as long as it has no bytes. */
  isReady: boolean;
  /** Of its disk, bytes. */
  size: number | undefined;
  jobId: string | undefined;
}
/** A snapshot of a whole machine. */
interface CloudMachineSnapshot {
  id: string;
  name: string;
  displayName: string;
  state: string;
  machineId: string | undefined;
  created: string | undefined;
  jobId: string | undefined;
}
/** An asynchronous job. */
interface CloudJob {
  id: string;
  command: string;
  status: "pending" | "done" | "failed";
  /** The error's code of a failed job. */
  resultCode: number;
  /** What it made or says, without its envelope; a failed job's text where it is no object. */
  result: AnswerObject;
  text: string | undefined;
  instanceId: string | undefined;
}
/** Something to choose from: a zone, an offering, a network, a template, an operating system. */
interface CloudChoice {
  id: string;
  name: string;
  /** All that the platform says of it. */
  about: AnswerObject;
}
/** Reads a volume. */
declare function volumeOf(answer: AnswerObject): CloudVolume;
/** Reads a virtual machine. */
declare function machineOf(answer: AnswerObject): CloudMachine;
/** Reads a snapshot of a volume. */
declare function snapshotOf(answer: AnswerObject): CloudSnapshot;
/** Reads a template. */
declare function templateOf(answer: AnswerObject): CloudTemplate;
/** Reads a snapshot of a machine. */
declare function machineSnapshotOf(answer: AnswerObject): CloudMachineSnapshot;
/**
 * Reads a job: 0 is pending, 1 done, 2 failed, 3 cancelled (`JobInfo.Status`), and what else there may be is no longer pending;
 * an old server's failure is a bare text, a new one's an object.
 */
declare function jobOf(answer: AnswerObject): CloudJob;
/** Reads anything with an id and a name. */
declare function choiceOf(answer: AnswerObject): CloudChoice;
/** Whom the server's certificate is believed from. Absent: the authorities that Node trusts. */
interface TlsTrust {
  /** Authorities in PEM, instead of Node's. */
  ca?: string | readonly string[] | undefined;
  /** SHA-256 fingerprint of that very certificate, 64 hex digits with or without colons; takes the place of every other check. */
  pin?: string | undefined;
}
/** One answer of the server, whatever its status. */
interface RawAnswer {
  status: number;
  body: string;
  /** `Date` of the answer in milliseconds; undefined where the server tells none. */
  serverTime: number | undefined;
  cookies: string[];
}
/** Sends a form and gives back the answer. */
interface Transport {
  /** @throws ProviderError UNAVAILABLE; of an answer that was lost on its way `isLostAnswer` is true */
  post(form: URLSearchParams, command: string, options: {
    cookie?: string | undefined;
  } & Wait): Promise<RawAnswer>;
  close(): Promise<void>;
}
/** Values of parameters; lists are joined by commas, absent ones are left out. */
type Parameters = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;
/** How a server is reached and who asks. */
interface CloudstackClientOptions {
  /** `https://cloud.example.org/client/api`. */
  endpoint: string;
  /** Keys of a user; or its name and password. */
  apiKey?: string | undefined;
  secretKey?: string | undefined;
  username?: string | undefined;
  password?: string | undefined;
  /** Path of the user's domain, for a login; default `/`. */
  domain?: string | undefined;
  tls?: TlsTrust | undefined;
  /** A connection, TLS included. Default 10 000. */
  connectMs?: number | undefined;
  /** One call. Default 60 000. */
  requestMs?: number | undefined;
  /** Between the first two looks at a job; grows by itself each time. Default 1000. */
  pollMs?: number | undefined;
  /** The longest between two looks. Default 10 000. */
  pollMostMs?: number | undefined;
  /** How long a job may be pending. Default four hours; `job.cancel.threshold.minutes` of the server ends most before. */
  jobMs?: number | undefined;
  /** How long a call that changed nothing is repeated. Default 120 000. */
  retryBudgetMs?: number | undefined;
  /** Reads how calls travel; tests have their own. */
  transport?: Transport | undefined;
  notice?: ((message: string) => void) | undefined;
}
/** What a command that starts a job answers. */
interface Submitted {
  jobId: string | undefined;
  /** Of what a create command makes. */
  id: string | undefined;
  answer: AnswerObject;
}
/**
 * A client of the CloudStack API: signed POST or session, lenient answers, pages always, jobs. Typed for nothing but the
 * envelope: {@link import("./entities.ts")} reads what the commands of this provider answer, any other command is open.
 */
declare class CloudstackClient implements AsyncDisposable {
  #private;
  readonly endpoint: string;
  /** @throws ProviderError CONFIG_INVALID without keys and without a user */
  constructor(options: CloudstackClientOptions);
  /** For people who watch. */
  notice(message: string): void;
  /**
   * Calls a command and gives the content of its answer. Reading commands are repeated while the server cannot be reached;
   * others only where it surely did nothing.
   * @throws ProviderError by the error table; of a lost answer of a changing command `isLostAnswer` is true
   */
  call(command: string, parameters?: Parameters, wait?: Wait & {
    object?: string;
  }): Promise<AnswerObject>;
  /**
   * Every item of a list, page by page; an id that comes twice because the list moved meanwhile is given once. What is deleted
   * meanwhile moves others to a page that was read already: a list that shrank is read again, until that brings nothing new.
   * @throws ProviderError UNAVAILABLE where it changes faster than it is read
   */
  list(command: string, parameters?: Parameters, wait?: Wait): AsyncGenerator<AnswerObject>;
  /** Submits a command that may start a job; {@link finish} waits for it. */
  submit(command: string, parameters?: Parameters, wait?: Wait & {
    object?: string;
  }): Promise<Submitted>;
  /** A job as it is now; undefined: the server does not know it, or forgot it (`job.expire.minutes`). */
  job(id: string, wait?: Wait): Promise<CloudJob | undefined>;
  /**
   * Waits for a job's end. Looks politely: more and more rarely, never at the same moment as others.
   * @returns undefined where the server forgot it: look at what it worked on
   * @throws ProviderError what the job failed with; UNAVAILABLE when it stays pending
   */
  finish(id: string, wait?: Wait & {
    object?: string;
  }): Promise<CloudJob | undefined>;
  /** Submits a command and waits for its job, where there is one. Of a lost answer nobody knows: see `ensure`. */
  run(command: string, parameters?: Parameters, wait?: Wait & {
    object?: string;
  }): Promise<AnswerObject>;
  /** The id of a pending job that works on an object; undefined: none does. */
  pendingJobOf(objectId: string, wait?: Wait): Promise<string | undefined>;
  /** The ids of pending jobs of some commands; for those that tell of no object which they work on. */
  pendingJobsOf(commands: ReadonlySet<string>, wait?: Wait): Promise<string[]>;
  [Symbol.asyncDispose](): Promise<void>;
}
/** Maps a client's parameter of several fields to CloudStack's way: `details[0].cpuNumber=4`. Names of fields keep their case. */
declare function mapParameter(name: string, fields: Readonly<Record<string, string | undefined>>): Record<string, string>;
/** Maps tags to `tags[0].key=…&tags[0].value=…`. */
declare function tagParameters(tags: Readonly<Record<string, string | undefined>>): Record<string, string>;
/** A request's parameters by name; of a name that occurs twice the server signs the first value alone. */
type SignedParameters = ReadonlyMap<string, string> | Readonly<Record<string, string>>;
/**
 * The text that is signed (`ApiServer.verifyRequest`): parameters in Java's string order of their names as they are sent,
 * names raw, values as `URLEncoder` writes them, all of it in lower case. `signature` itself is left out.
 */
declare function textToSign(parameters: SignedParameters): string;
/** The `signature` of a request: HMAC-SHA1 of {@link textToSign} in base64. */
declare function signatureOf(parameters: SignedParameters, secretKey: string): string;
/** How CloudStack writes a time that it reads as `expires`: `2030-01-01T00:00:00+0000`. */
declare function expiresText(milliseconds: number): string;
/** What the server said of a call or job that failed; the `cause` of the ProviderError made of it. */
declare class ApiFailure extends Error {
  readonly command: string;
  /** `errorcode`, which is the HTTP status too. */
  readonly code: number;
  /** `cserrorcode`, the number of the server's exception. */
  readonly exception: number | undefined;
  constructor(command: string, code: number, text: string, exception?: number);
}
/** An attached volume, open on the appliance: on this machine, or over NBD. */
interface OpenVolume {
  readonly size: number;
  readonly blockSize: number;
  readonly concurrency: number;
  readonly preferredLength: number;
  read(offset: number, into: Uint8Array, wait?: Wait): Promise<void>;
  write(offset: number, data: Uint8Array, wait?: Wait): Promise<void>;
  zero(offset: number, length: number, wait?: Wait): Promise<void>;
  flush(wait?: Wait): Promise<void>;
  /** Lets nothing more begin, for this reason, and resolves when nothing is under way. */
  shut(reason: () => Error): Promise<void>;
  close(): Promise<void>;
}
/** Opens what is attached to the appliance. */
interface Bench {
  /** Opens a volume that is attached; for writing, nobody else has it open then. */
  open(volume: {
    id: string;
    size: number;
  }, purpose: {
    mode: "read";
  } | {
    mode: "write";
    epoch: number;
  }, wait: Wait): Promise<OpenVolume>;
  close(): Promise<void>;
}
/** An attached disk, as the machine shows it. */
interface ListedDevice {
  /** The first 20 characters of the volume's id without dashes. */
  readonly serial: string;
  /** The kernel's name, for people. */
  readonly path: string;
  /** Bytes; undefined: the device went away while it was looked at. */
  readonly size: number | undefined;
}
/** The disks that the machine shows. */
interface DeviceList {
  readonly version: number;
  readonly devices: readonly ListedDevice[];
}
/** How an appliance on another machine is reached. */
interface RemoteApplianceOptions {
  readonly host: string;
  /** NBD's; default 10809. */
  readonly port?: number | undefined;
  /** The control door's; default 10810. */
  readonly controlPort?: number | undefined;
  /** A folder with ca-cert.pem, client-cert.pem and client-key.pem. */
  readonly certificates: string;
  /** The name in the appliance's certificate; default: `host`. */
  readonly serverName?: string | undefined;
  /** Milliseconds until a volume has to be open, the wait for its device included. Default 120 000. */
  readonly openTimeoutMs?: number | undefined;
  /** Milliseconds that the appliance may take for one read or write. Default 120 000. */
  readonly requestTimeoutMs?: number | undefined;
  /** For what did not stop anything: a volume that could not be given back. */
  notice?(message: string): void;
}
/** The bench of another machine, and what its devices are. */
interface RemoteBench extends Bench {
  /** The volumes that the machine shows, after its buses were asked to look again where `rescan` is given. */
  devices(options?: {
    rescan?: boolean;
  } & Wait): Promise<DeviceList>;
}
/** Opens volumes on the machine that runs `diskferry appliance`, over TLS with certificates on both sides. */
declare function remoteBench(options: RemoteApplianceOptions): RemoteBench;
/** What {@link serveAppliance} needs. */
interface ServeApplianceOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** NBD's; default 10809, 0 for any free one. */
  readonly port?: number;
  /** The control door's; default 10810, 0 for any free one. */
  readonly controlPort?: number;
  /** PEM: the appliance's certificate and key, and the authority that signs its clients' certificates. */
  readonly tls: {
    readonly cert: string;
    readonly key: string;
    readonly ca: string;
  };
  /** A folder of its own, which exists: what has to outlive a restart. */
  readonly stateFolder: string;
  /**
   * Stands for `/`: devices are looked for below it, and regular files count as devices there, as a simulated guest has
   * them. Absent: the machine's own, where only block devices count.
   */
  readonly deviceRoot?: string;
  /** How long a device may take to appear, in milliseconds. Default 60 000. */
  readonly patienceMs?: number;
  /** For people who watch: who was refused, and why. */
  notice?(message: string): void;
}
/** A running appliance. Disposing closes it, after what is under way. */
interface Appliance extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly controlPort: number;
  close(): Promise<void>;
}
/**
 * Lets others write to the volumes that are attached to this machine: NBD over mutual TLS, one export for each volume and
 * job, and the control door that opens them (see `protocol.ts`).
 * @throws ProviderError IN_USE DENIED CONFIG_INVALID when it cannot listen, or its state is not its own
 */
declare function serveAppliance(options: ServeApplianceOptions): Promise<Appliance>;
export { type AnswerObject, ApiFailure, type Appliance, type ApplianceOptions, type Bench, type CloudChoice, type CloudJob, type CloudMachine, type CloudMachineSnapshot, type CloudSnapshot, type CloudTemplate, type CloudVolume, CloudstackClient, type CloudstackClientOptions, type CloudstackOptions, type DeviceList, type ImportOptions, type LaunchOptions, type ListedDevice, type NetworkOptions, type OpenVolume, type Parameters, type RawAnswer, type RemoteApplianceOptions, type RemoteBench, type RemoteOptions, type ServeApplianceOptions, type SignedParameters, type SourceOptions, type Submitted, type TimeoutOptions, type TlsTrust, type Transport, choiceOf, expiresText, jobOf, machineOf, machineSnapshotOf, mapParameter, optionsSchema, provider, remoteBench, serveAppliance, signatureOf, snapshotOf, tagParameters, templateOf, textToSign, volumeOf };