import type { Machine, Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import type { ReaderName } from "../options.ts";
import { type HostFacts, type MachineFacts, readMachineFacts } from "../preflight/place-facts.ts";
import { type Reach, reachPort } from "../preflight/ports.ts";
import { type MissingPrivilege, missingPrivileges, privileges } from "../preflight/privileges.ts";
import { libraryObstacle, libraryVersion, libraryVersionOf } from "../preflight/vddk-library.ts";
import type { VirtualDisk } from "../vim/virtual-disk.ts";
import { isLoopback } from "../vim/vim-http.ts";
import type { VsphereConnection } from "../vsphere-connection.ts";
import { nfcPortOf } from "./nbdkit-command.ts";
import { NbdkitError } from "./nbdkit-process.ts";
import { type NbdkitPlugin, probeNbdkit, type ProbeNbdkit } from "./nbdkit-probe.ts";
import { nbdkitObstacle } from "./vddk-failure.ts";

const httpsPort = 443;
/** The fastest first; the last works for machines that are off, or have no other snapshot. */
const preference: readonly ReaderName[] = ["vddk", "nfc", "folder"];

/** How what lies outside of vSphere's API is asked; for tests. */
export interface ReaderMeans {
  readonly reach?: Reach | undefined;
  readonly probe?: ProbeNbdkit | undefined;
}

/** What stands in a reader's way, and what to do about it. */
export interface Obstacle {
  /** A privilege, a host and port, a folder, a version. */
  readonly subject: string;
  readonly message: string;
  readonly remedy: string;
}

/** A reader, and why it would not work; no obstacles: it should. */
export interface Way {
  readonly name: ReaderName;
  readonly obstacles: readonly Obstacle[];
}

/** The readers of a place in order of preference. Without options for VMware's library nobody meant it to be used. */
export function readersOf({ options }: VsphereConnection): readonly ReaderName[] {
  return options.readers ?? preference.filter((name) => name !== "vddk" || options.vddk !== undefined);
}

/** What nbdkit and VMware's library are found to be. */
export interface LibraryFacts {
  readonly obstacles: readonly Obstacle[];
  /** The library's version (`8.0.3`), where its file tells it. */
  readonly version: string | undefined;
}

/** Looks at nbdkit, its plugin and VMware's library, and whether that fits these hosts and the server. Connects to nobody. */
export async function lookAtLibrary(
  { options, client, login }: VsphereConnection,
  hosts: readonly HostFacts[],
  { probe = probeNbdkit }: ReaderMeans,
  wait: Wait,
): Promise<LibraryFacts> {
  const vddk = options.vddk ?? {};
  const { libdir } = vddk;
  const obstacles: Obstacle[] = [];
  const add = (subject: string, message: string, remedy: string): void =>
    void obstacles.push({ subject, message, remedy });
  if (login === undefined) {
    add("vddk", "VMware's library logs in by itself, which a ticket does not allow", "give user and password");
  }
  let plugin: NbdkitPlugin;
  try {
    plugin = await probe(vddk, wait);
  } catch (error) {
    if (!(error instanceof NbdkitError)) throw error;
    const { message, remedy } = nbdkitObstacle(error);
    add(vddk.nbdkit ?? "nbdkit", message, remedy);
    return { obstacles, version: undefined };
  }
  const where = libdir ?? plugin.defaultLibdir;
  if (plugin.library === "missing") {
    add(
      where ?? "vddk",
      `there is no VMware library (lib64/libvixDiskLib.so) in ${where}`,
      "unpack VMware's VDDK, and name its folder by vddk.libdir",
    );
  }
  const named = plugin.libraryFile === undefined ? undefined : libraryVersionOf(plugin.libraryFile);
  const version = named ?? (where === undefined ? undefined : await libraryVersion(where));
  if (version !== undefined) {
    const servers = new Set([client.about.version, ...hosts.map((host) => host.version)]);
    for (const server of servers) {
      const obstacle = libraryObstacle(version, server);
      if (obstacle !== undefined) add(`VDDK ${version}`, obstacle.message, obstacle.remedy);
    }
  }
  return { obstacles, version };
}

/** What the ways to read are judged by. */
export interface WayFacts {
  readonly connection: VsphereConnection;
  readonly hosts: readonly HostFacts[];
  /** Undefined: the server does not tell. */
  readonly missing: readonly MissingPrivilege[] | undefined;
  /** Undefined where the reader `vddk` is none of the wanted. */
  readonly library: LibraryFacts | undefined;
  readonly reach: Reach;
}

/** What stands in the way of one reader: privileges, programs and libraries, ports. Changes nothing. */
export async function wayOf(name: ReaderName, given: WayFacts, wait: Wait): Promise<Way> {
  const { connection, hosts, missing, library, reach } = given;
  const obstacles: Obstacle[] = [];
  for (const { id, purpose } of missing ?? []) {
    const concerns = purpose === name || (name === "vddk" && id.endsWith("DiskRandomRead"));
    if (concerns)
      obstacles.push({ subject: id, message: `${id} is missing`, remedy: `add ${id} to the account's role` });
  }
  if (name === "vddk") obstacles.push(...(library?.obstacles ?? []));
  const port = portOf(name, connection);
  const reached = port === undefined ? [] : await Promise.all(hosts.map(({ address }) => reach(address, port, wait)));
  for (const [index, why] of reached.entries()) {
    const address = hosts[index]?.address ?? "";
    if (why === undefined) continue;
    obstacles.push({
      subject: `${address}:${port}`,
      message: `port ${port} of host ${address} cannot be reached from here (${why})`,
      remedy: `open port ${port} to every ESXi host, and see that its name is known here`,
    });
  }
  return { name, obstacles };
}

/** The port of hosts that a reader needs: files of datastores come from the server itself, and a host by itself was reached already. */
function portOf(name: ReaderName, { options, client }: VsphereConnection): number | undefined {
  if (name === "vddk") return nfcPortOf(options.vddk ?? {});
  return name === "nfc" && client.about.kind === "vcenter" ? httpsPort : undefined;
}

/** Whether a reader gives an encrypted disk's bytes as the guest sees them. */
export function decrypts(name: ReaderName): boolean {
  return name === "vddk";
}

/** Whether a reader leads to a disk: files are served of datastores that have files, and not while they are locked. */
export function serves(
  name: ReaderName,
  disk: VirtualDisk,
  on: { suspended: boolean; datastoreType: string },
): boolean {
  if (disk.backing.encrypted && !decrypts(name)) return false;
  return name !== "folder" || (!on.suspended && !/^(vsan|vvol)/i.test(on.datastoreType));
}

/** The type of the datastore that a disk is on (`VMFS`, `vsan`). */
export function datastoreTypeOf(disk: VirtualDisk, { datastores }: Pick<MachineFacts, "datastores">): string {
  return datastores.find(({ ref }) => ref.value === disk.backing.datastore?.value)?.type ?? "";
}

/**
 * Demands, before anything is changed, that each of the machine's eligible disks has a reader that can work.
 *
 * @throws ProviderError UNSUPPORTED naming what stands in the way of each reader, and what to do
 */
export async function demandReaders(connection: VsphereConnection, machine: Machine, wait: Wait): Promise<void> {
  const { client, means = {} } = connection;
  const facts = await readMachineFacts(client, machine, wait);
  const readers = readersOf(connection);
  const hosts = [facts.host ?? []].flat();
  const asked = privileges.filter(({ id, purpose }) => {
    return readers.some((name) => purpose === name) || (readers.includes("vddk") && id.endsWith("DiskRandomRead"));
  });
  const objects = { machine: facts.ref, datastores: facts.datastores.map(({ ref }) => ref) };
  const missing = await missingPrivileges(client, asked, objects, wait);
  const library = readers.includes("vddk") ? await lookAtLibrary(connection, hosts, means, wait) : undefined;
  const given = { connection, hosts, missing, library, reach: means.reach ?? reachOf(connection) };
  const ways: Way[] = [];
  for (const name of readers) ways.push(await wayOf(name, given, wait));
  const wanted = machine.disks.filter(({ ineligible }) => ineligible === undefined).map(({ key }) => key);
  for (const disk of facts.disks) {
    if (!wanted.includes(String(disk.key))) continue;
    const on = { suspended: machine.power === "suspended", datastoreType: datastoreTypeOf(disk, facts) };
    if (ways.some(({ name, obstacles }) => obstacles.length === 0 && serves(name, disk, on))) continue;
    throw vsphereError(
      "UNSUPPORTED",
      `disk ${disk.key} (${disk.label}) of ${machine.name} can be read by none of the readers, so nothing was changed. ` +
        ways.map((way) => `${way.name}: ${whyNot(way, disk)}`).join(" "),
      { operation: "demand readers" },
    );
  }
}

/** Who reaches a vCenter at an address of this machine goes through a tunnel, and where its hosts are from here is not known. */
function reachOf({ client }: VsphereConnection): Reach {
  return isLoopback(client.http.origin.hostname) ? () => Promise.resolve(undefined) : reachPort;
}

function whyNot({ name, obstacles }: Way, disk: VirtualDisk): string {
  if (obstacles.length > 0) return `${obstacles.map(({ message, remedy }) => `${message}; ${remedy}`).join("; ")}.`;
  if (disk.backing.encrypted && !decrypts(name)) return "the disk is encrypted, and only vddk decrypts.";
  return "it serves files of datastores that have files, of machines that are not suspended.";
}
