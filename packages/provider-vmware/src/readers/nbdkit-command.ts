import type { VddkOptions } from "../options.ts";

/** What nbdkit is started for. */
export interface NbdkitDisk {
  /** Host name or address of the vCenter or host. */
  readonly server: string;
  readonly port: number;
  readonly user: string;
  /** SHA-1 of the server's certificate with colons; absent only where the server has none. */
  readonly thumbprint: string | undefined;
  /** The machine's id (`vm-16`). */
  readonly machine: string;
  /** The snapshot's id (`snapshot-42`). */
  readonly snapshot: string;
  /** The disk's file as the snapshot froze it: `[datastore1] web/web.vmdk`. */
  readonly file: string;
  /** Whether the server is a vCenter, which passes bytes on from the host. */
  readonly throughVcenter: boolean;
}

/** Where nbdkit listens, and the descriptor from which it reads the password. */
export interface NbdkitPlace {
  readonly socket: string;
  readonly pidFile: string;
  readonly passwordDescriptor: number;
}

const mebi = 1 << 20;
/** vCenter's NFC refuses larger reads once several run (NFC error 5, allocation); a host bears 23 MiB. */
const readBytesThroughVcenter = 2 * mebi;
const readBytesFromHost = 16 * mebi;
const defaultRequests = 16;

/** How a disk is asked for its bytes. */
export interface ReadShape {
  /** Bytes of one read. */
  readonly length: number;
  /** Reads at once. */
  readonly requests: number;
}

/** Bytes and number of reads, by the options and by where they come from. */
export function readShape(options: VddkOptions, throughVcenter: boolean): ReadShape {
  const length = options.readSize ?? (throughVcenter ? readBytesThroughVcenter : readBytesFromHost);
  return { length, requests: options.requests ?? defaultRequests };
}

/** VDDK's transports in order of preference, with colons; the library takes the first that leads to the disk. */
export function transportsOf(options: VddkOptions): string {
  return options.transports ?? "nbdssl";
}

const filters: readonly string[] = ["--filter=multi-conn", "--filter=blocksize"];

function optional(name: string, value: string | undefined): string[] {
  return value === undefined ? [] : [`${name}=${value}`];
}

/** The port of hosts that VMware's library reads from, unless `nfchostport` says another (nbdkit-vddk-plugin(1)). */
const defaultNfcPort = 902;

/** The port of hosts that a reader of these options connects to; undefined where its transports go past the network. */
export function nfcPortOf(options: VddkOptions): number | undefined {
  const networked = transportsOf(options)
    .split(":")
    .every((transport) => transport === "nbd" || transport === "nbdssl");
  if (!networked) return undefined;
  const said = options.arguments?.findLast((each) => each.startsWith("nfchostport="))?.slice("nfchostport=".length);
  return said === undefined ? defaultNfcPort : Number(said);
}

/** The command line that loads what {@link nbdkitCommand} loads, tells of it and ends: no disk, no server, no password. */
export function nbdkitProbeCommand(options: VddkOptions): string[] {
  return [
    options.nbdkit ?? "nbdkit",
    "--dump-plugin",
    ...filters,
    ...(options.plugin ?? ["vddk"]),
    ...optional("libdir", options.libdir),
    ...optional("config", options.config),
    `transports=${transportsOf(options)}`,
    ...optional("compression", options.compression),
    ...(options.arguments ?? []),
    "multi-conn-mode=disable",
    `maxdata=${options.readSize ?? readBytesThroughVcenter}`,
  ];
}

/**
 * The command line of nbdkit with its vddk plugin (nbdkit-vddk-plugin(1)): read-only, one disk, one connection, since several
 * make VMware's library several times slower. Reads are cut by a filter, so that none is larger than the server bears.
 * Nothing is retried in it: that is core's. The password is read from an inherited descriptor and stands nowhere.
 */
export function nbdkitCommand(options: VddkOptions, disk: NbdkitDisk, place: NbdkitPlace): string[] {
  const { length, requests } = readShape(options, disk.throughVcenter);
  return [
    options.nbdkit ?? "nbdkit",
    "--exit-with-parent",
    "--foreground",
    "--readonly",
    `--unix=${place.socket}`,
    `--pidfile=${place.pidFile}`,
    `--threads=${requests}`,
    ...filters,
    ...(options.plugin ?? ["vddk"]),
    ...optional("libdir", options.libdir),
    ...optional("config", options.config),
    `server=${disk.server}`,
    ...(disk.port === 443 ? [] : [`port=${disk.port}`]),
    `user=${disk.user}`,
    `password=-${place.passwordDescriptor}`,
    ...optional("thumbprint", disk.thumbprint),
    `vm=moref=${disk.machine}`,
    `snapshot=${disk.snapshot}`,
    `transports=${transportsOf(options)}`,
    ...optional("compression", options.compression),
    ...(options.arguments ?? []),
    `file=${disk.file}`,
    "multi-conn-mode=disable",
    `maxdata=${length}`,
  ];
}
