import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCertificate, type ServerCertificate } from "../vcenter/certificate.ts";
import { ApiEndpoint } from "./api-endpoint.ts";
import { CommandTable } from "./command-table.ts";
import type { Account, LimitedResource, Machine, Volume } from "./entities.ts";
import { FaultPlan, type FaultAction, type FaultRule } from "./fault-plan.ts";
import type { DeviceBus } from "./guest-devices.ts";
import { addAccount, addMachine, addProject, furnish, type MachineSpec } from "./inventory.ts";
import { JobBoard } from "./job-board.ts";
import { writeQcow2 } from "./qcow2-image.ts";
import type { ReleaseName } from "./releases.ts";
import { SparseDisk } from "./sparse-disk.ts";
import { StorageEndpoint } from "./storage-endpoint.ts";
import { World, type Settings } from "./world.ts";

/** How a simulator starts; everything has a default. */
export interface CloudstackSimulatorOptions {
  /** 0 or absent: any free port of 127.0.0.1. */
  readonly port?: number;
  /** 4.22.0.0 unless given. */
  readonly version?: ReleaseName;
  /** HTTPS with a certificate made at start, at the API and at the secondary storage machine; HTTP unless given. */
  readonly tls?: boolean;
  /** Machines of the tenant that stand ready, beside the appliance. */
  readonly machines?: readonly MachineSpec[];
  /** Global settings; those not given are CloudStack's defaults. */
  readonly settings?: Partial<Settings>;
  /** How long each job takes; 5 ms by default. */
  readonly jobMs?: number | ((command: string) => number);
  readonly devices?: {
    /** On which bus guests see their volumes; `virtio` by default. */
    readonly bus?: DeviceBus;
    /** How long after its attachment, or after a rescan, a device appears; 10 ms by default. */
    readonly lagMs?: number;
    /** Whether a device appears only after a rescan; off by default. */
    readonly needsRescan?: boolean;
  };
  /** Of the fault plan's chances; 1 by default. */
  readonly seed?: number;
}

/** One account's way in. */
export interface CloudstackCredentials {
  readonly accountId: string;
  readonly account: string;
  readonly apiKey: string;
  readonly secretKey: string;
  readonly userName: string;
  readonly password: string;
  /** As `login` wants it. */
  readonly domain: string;
}

/** What somebody inside a machine sees. */
export interface CloudstackGuest {
  /** Stands for the guest's `/`: below it are `dev`, `dev/disk/by-id` and the files of `sys` that rescan. */
  readonly root: string;
  /** `<root>/dev/disk/by-id`. */
  readonly byId: string;
  /** How often the guest has asked its buses to look again. */
  readonly rescans: number;
  /** The path of a volume's link, whether it is there or not. */
  linkOf(volumeId: string): string;
  /** Keeps the device of a volume from appearing. */
  withhold(volumeId: string): void;
  /** Lets the device of a volume appear with another size. */
  misreport(volumeId: string, size: number): void;
}

/** A volume as the back door tells it. */
export interface SimulatedVolume {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly type: "ROOT" | "DATADISK";
  /** Bytes. */
  readonly size: number;
  /** The file's name on its pool. */
  readonly path: string | undefined;
  readonly machineId: string | undefined;
  readonly deviceId: number | undefined;
  readonly tags: Readonly<Record<string, string>>;
}

/** A running simulator and its back door; stop it with `close()` or `await using`. */
export interface CloudstackSimulator extends AsyncDisposable {
  /** `http://127.0.0.1:<port>/client/api`, or `https:`. */
  readonly url: string;
  /** The authority in PEM and the certificate's SHA-256 in hexadecimal with colons, with `tls`. */
  readonly tls: { readonly authority: string; readonly sha256: string } | undefined;
  readonly version: ReleaseName;
  /** An ordinary account, another one, and the root administrator. */
  readonly tenant: CloudstackCredentials;
  readonly other: CloudstackCredentials;
  readonly admin: CloudstackCredentials;
  readonly zoneId: string;
  /** A running machine of the tenant whose volumes appear as files. */
  readonly appliance: { readonly id: string } & CloudstackGuest;
  /** Ids of `machines`, in their order. */
  readonly machines: readonly string[];
  /** Ids by name. */
  readonly diskOfferings: Readonly<Record<string, string>>;
  readonly serviceOfferings: Readonly<Record<string, string>>;
  readonly networks: Readonly<Record<string, string>>;
  readonly templates: Readonly<Record<string, string>>;
  readonly pools: Readonly<Record<string, string>>;
  /** Global settings; what is changed here counts from the next call on. */
  readonly settings: Settings;
  readonly faults: { add(rule: FaultRule): () => void; clear(): void };
  /** Calls so far by command, whatever became of them. */
  readonly calls: ReadonlyMap<string, number>;
  /** All volumes of all accounts. */
  volumes(): SimulatedVolume[];
  /** Ids of a machine's volumes by device id. */
  volumesOf(machineId: string): string[];
  machineState(machineId: string): string | undefined;
  /** Snapshots of volumes and of machines that exist, of all accounts. */
  snapshotIds(): string[];
  machineIds(): string[];
  /** Names of the templates that accounts made. */
  templateNames(): string[];
  volumeBytes(volumeId: string, offset: number, length: number): Promise<Buffer>;
  /** The guest's hand on a volume of a running machine. @throws Error when it is not attached to one */
  writeVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** The file with a volume's bytes; read it and keep from writing. @throws Error when it has none yet */
  volumeFile(volumeId: string): string;
  /** Adds a machine with volumes, as if it had been there before. Its id. */
  addMachine(spec: MachineSpec): Promise<string>;
  /** What is seen inside a machine made with `guest`. */
  guestOf(machineId: string): CloudstackGuest;
  /** The folder of a pool's files, as somebody sees it who mounted the pool. */
  poolFolder(name: string): string;
  /** Lets a pool's file look as if somebody had it open, or no longer. */
  lockFile(pool: string, fileName: string, on: boolean): void;
  /** Puts an image with these bytes on a pool, unknown to CloudStack, for `importVolume`: qcow2, or raw on Ceph. */
  addStray(pool: string, fileName: string, bytes: Uint8Array, size?: number): Promise<void>;
  /** Adds a project of the tenant's. Its id. */
  addProject(name: string): string;
  /** Gives the tenant's account, or a project, a limit; storage is counted in GiB. */
  limit(resource: LimitedResource, most: number, ownerId?: string): void;
  /** Takes a command from an account's role. */
  deny(accountId: string, command: string): void;
  /** Puts a pool into maintenance, or back. */
  poolMaintenance(name: string, on: boolean): void;
  /** Bytes that a pool takes. */
  poolCapacity(name: string, bytes: number): void;
  /** Lets held jobs do their work and waits for it. */
  releaseJobs(): Promise<void>;
  /** Jobs that have not ended. */
  pendingJobs(): number;
  /** Forgets jobs that ended, as the server does after a day. */
  forgetJobs(): void;
  /** Moves the clock: signatures, sessions and URLs run out, and uploads that were never begun are given up. */
  advance(milliseconds: number): void;
  /** Ends all sessions, as a restart of the management server does. */
  endSessions(): void;
  close(): Promise<void>;
}

export type { DeviceBus, FaultAction, FaultRule, LimitedResource, MachineSpec, ReleaseName, Settings };

/** Starts a simulated CloudStack on 127.0.0.1. */
export async function startCloudstackSimulator(options: CloudstackSimulatorOptions = {}): Promise<CloudstackSimulator> {
  const version = options.version ?? "4.22.0.0";
  const folder = await mkdtemp(join(tmpdir(), "diskferry-cloudstack-"));
  const world = new World(folder, version, options.settings ?? {});
  const [admin, tenant, other] = [
    addAccount(world, "admin", { rootAdmin: true }),
    addAccount(world, "tenant", { rootAdmin: false }),
    addAccount(world, "other", { rootAdmin: false }),
  ] as const;
  await furnish(world, tenant);
  const { jobMs = 5 } = options;
  const durationMs = typeof jobMs === "number" ? (): number => jobMs : jobMs;
  const jobs = new JobBoard(() => world.now(), durationMs);
  const faults = new FaultPlan(options.seed ?? 1);
  const storage = new StorageEndpoint(world, faults);
  const commands = new CommandTable(version, storage);
  const endpoint = new ApiEndpoint(world, jobs, faults, commands);
  const guestRules = {
    bus: options.devices?.bus ?? "virtio",
    lagMs: options.devices?.lagMs ?? 10,
    needsRescan: options.devices?.needsRescan ?? false,
  };
  const appliance = await addMachine(world, { name: "appliance", disks: [64 * 2 ** 20], guest: true }, guestRules);
  const machines: string[] = [];
  for (const spec of options.machines ?? []) machines.push((await addMachine(world, spec, guestRules)).id);

  const certificate = options.tls === true ? await makeCertificate(folder, { expired: false }) : undefined;
  const scheme = certificate === undefined ? "http" : "https";
  const server = serverFor(certificate, (request, response) => {
    endpoint.serve(request, response).catch(() => request.socket.destroy());
  });
  const storageServer = serverFor(certificate, (request, response) => {
    storage.serve(request, response).catch(() => request.socket.destroy());
  });
  const port = await listenOn(server, options.port ?? 0);
  storage.origin = `${scheme}://127.0.0.1:${await listenOn(storageServer, 0)}`;

  const volume = (id: string): Volume => found(world.volumes.get(id), `volume ${id}`);
  const machine = (id: string): Machine => found(world.machines.get(id), `machine ${id}`);
  const pool = (name: string) =>
    found(
      [...world.pools.values()].find((each) => each.name === name),
      `pool ${name}`,
    );
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    for (const each of [server, storageServer]) {
      const closed = new Promise<void>((done) => each.close(() => done()));
      each.closeAllConnections();
      await closed;
    }
    await jobs.stop();
    for (const each of world.machines.values()) await each.guest?.close();
    await rm(folder, { recursive: true, force: true });
  };
  return {
    url: `${scheme}://127.0.0.1:${port}/client/api`,
    tls: certificate === undefined ? undefined : { authority: certificate.authority, sha256: certificate.sha256 },
    version,
    tenant: credentialsOf(tenant),
    other: credentialsOf(other),
    admin: credentialsOf(admin),
    zoneId: world.zone.id,
    appliance: Object.assign(guestView(appliance), { id: appliance.id }),
    machines,
    diskOfferings: idsByName(world.diskOfferings),
    serviceOfferings: idsByName(world.serviceOfferings),
    networks: idsByName(world.networks),
    templates: idsByName(world.templates),
    pools: idsByName(world.pools),
    settings: world.settings,
    faults,
    get calls() {
      return faults.calls;
    },
    volumes: () => [...world.volumes.values()].map(volumeView),
    volumesOf: (id) => world.volumesOf(machine(id)).map((each) => each.id),
    machineState: (id) => world.machines.get(id)?.state,
    snapshotIds: () => [...world.snapshots.keys(), ...world.machineSnapshots.keys()],
    machineIds: () => [...world.machines.keys()],
    templateNames: () =>
      [...world.templates.values()].flatMap(({ owner, name }) => (owner === undefined ? [] : [name])),
    volumeBytes: async (id, offset, length) => volume(id).disk?.read(offset, length) ?? Buffer.alloc(length),
    writeVolume: async (id, offset, bytes) => {
      const { machine: owner, disk } = volume(id);
      if (owner?.state !== "Running" || disk === undefined)
        throw new Error(`volume ${id} is not attached to a running machine`);
      await disk.write(offset, bytes);
    },
    volumeFile: (id) => found(volume(id).disk, `file of volume ${id}`).path,
    addMachine: async (spec) => (await addMachine(world, spec, guestRules)).id,
    guestOf: (id) => guestView(machine(id)),
    poolFolder: (name) => world.folderOf(pool(name)),
    lockFile: (name, fileName, on) => {
      const path = join(world.folderOf(pool(name)), fileName);
      if (on) world.locked.add(path);
      else world.locked.delete(path);
    },
    addStray: async (name, fileName, bytes, size = bytes.length) => {
      const disk = await world.newDisk(size);
      await disk.write(0, bytes);
      const path = join(world.folderOf(pool(name)), fileName);
      if (pool(name).type === "RBD") await SparseDisk.copy(path, disk);
      else await writeQcow2(disk, path);
      await disk.discard();
    },
    addProject: (name) => addProject(world, name, [tenant]).id,
    limit: (resource, most, ownerId) => {
      const owner = ownerId === undefined ? tenant : (world.accounts.get(ownerId) ?? world.projects.get(ownerId));
      found(owner, `owner ${ownerId}`).limits.set(resource, most);
    },
    deny: (accountId, command) => void found(world.accounts.get(accountId), `account ${accountId}`).denied.add(command),
    poolMaintenance: (name, on) => {
      pool(name).maintenance = on;
    },
    poolCapacity: (name, bytes) => {
      pool(name).capacity = bytes;
    },
    releaseJobs: () => jobs.release(),
    pendingJobs: () => jobs.all().filter((each) => each.status === 0).length,
    forgetJobs: () => jobs.forgetEnded(),
    advance: (milliseconds) => {
      world.advance(milliseconds);
      storage.giveUp();
    },
    endSessions: () => endpoint.endSessions(),
    close: () => (closing ??= close()),
    [Symbol.asyncDispose]: () => (closing ??= close()),
  };
}

function serverFor(certificate: ServerCertificate | undefined, serve: RequestListener): Server {
  if (certificate === undefined) return createServer(serve);
  return createTlsServer({ key: certificate.key, cert: certificate.certificate }, serve);
}

async function listenOn(server: Server, port: number): Promise<number> {
  await new Promise<void>((listening, failed) => {
    server.once("error", failed);
    server.listen(port, "127.0.0.1", listening);
  });
  return (server.address() as AddressInfo).port;
}

function credentialsOf(account: Account): CloudstackCredentials {
  const { id, name, apiKey, secretKey, userName, password } = account;
  return { accountId: id, account: name, apiKey, secretKey, userName, password, domain: "/" };
}

function idsByName(map: ReadonlyMap<string, { readonly id: string; readonly name: string }>): Record<string, string> {
  return Object.fromEntries([...map.values()].map((each) => [each.name, each.id]));
}

function volumeView(volume: Volume): SimulatedVolume {
  return {
    id: volume.id,
    name: volume.name,
    state: volume.state,
    type: volume.type,
    size: volume.size,
    path: volume.path,
    machineId: volume.machine?.id,
    deviceId: volume.deviceId,
    tags: Object.fromEntries(volume.tags.map((tag) => [tag.key, tag.value])),
  };
}

function guestView(machine: Machine): CloudstackGuest {
  const guest = found(machine.guest, `guest of ${machine.name}`);
  return {
    root: guest.root,
    byId: guest.byId,
    get rescans() {
      return guest.rescans;
    },
    linkOf: (volumeId) => join(guest.byId, guest.linkName(volumeId)),
    withhold: (volumeId) => guest.withhold(volumeId),
    misreport: (volumeId, size) => guest.misreport(volumeId, size),
  };
}

function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`there is no ${what}`);
  return value;
}
