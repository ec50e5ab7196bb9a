import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { serveAutomation } from "./automation-endpoint.ts";
import { makeCertificate } from "./certificate.ts";
import type { ServerCertificate } from "./certificate.ts";
import { DiskLayer, grainSize } from "./disk-layer.ts";
import { Exchange } from "./exchange.ts";
import { FaultPlan } from "./fault-plan.ts";
import type { FaultRule } from "./fault-plan.ts";
import { serveFolder, serveNfc } from "./folder-endpoint.ts";
import { Inventory } from "./inventory.ts";
import { NfcLeases } from "./nfc-leases.ts";
import { releaseOf } from "./releases.ts";
import type { ReleaseName } from "./releases.ts";
import { Sessions } from "./sessions.ts";
import { SimulatorCore } from "./simulator-core.ts";
import { serveSoap, serveVersions } from "./soap-endpoint.ts";
import { TaskBoard } from "./task-board.ts";
import { serveViJson } from "./vi-json-endpoint.ts";
import type { DatastoreType, DiskSpec, TrackingBug, VirtualDisk } from "./virtual-disk.ts";
import type { MachineSpec, Snapshot, VirtualMachine } from "./virtual-machine.ts";
import { VimService } from "./vim-service.ts";
import { reference } from "./vim-value.ts";
import { XmlWriter } from "./xml-writer.ts";
import type { TypeDialect } from "./xml-writer.ts";

/** How a simulated vCenter, or a bare ESXi host, behaves; every member has a default. */
export interface VcenterSimulatorOptions {
  readonly version?: ReleaseName;
  readonly kind?: "vcenter" | "esxi";
  readonly machines?: readonly MachineSpec[];
  /** `administrator@vsphere.local` unless given. */
  readonly userName?: string;
  /** `password` unless given. */
  readonly password?: string;
  /** `false` serves plain HTTP, for tests without the `openssl` program; `expired` a certificate past its time. */
  readonly tls?: boolean | "expired";
  /** 0, the default: any free port. */
  readonly port?: number;
  /** Privileges that the user lacks, by id. */
  readonly missingPrivileges?: readonly string[];
  readonly datacenter?: string;
  /** More datacenters beside the first, each with its own folders, hosts and datastore; three at most. */
  readonly moreDatacenters?: readonly string[];
  /** Hosts of each datacenter, 1 to 7; 1 unless given. */
  readonly hosts?: number;
  /** The name of each datacenter's datastore. */
  readonly datastore?: string;
  /** `VMFS` unless given; elsewhere `*` is no list of what is allocated. */
  readonly datastoreType?: DatastoreType;
  /** More datastores of each datacenter beside the first. */
  readonly moreDatastores?: readonly { readonly name: string; readonly type?: DatastoreType }[];
  /** Bytes. */
  readonly freeSpace?: number;
  /** The vCenter's instance UUID. */
  readonly instanceUuid?: string;
  /** Milliseconds that tasks take: all, or by method; 0 unless given. */
  readonly taskMs?: number | Readonly<Record<string, number>>;
  /** Milliseconds that a guest takes to shut down; 0 unless given. */
  readonly shutdownMs?: number;
  /** Milliseconds after which an idle session ends; 30 minutes unless given. */
  readonly sessionIdleMs?: number;
  readonly sessionLimit?: number;
  /** Objects in one answer of RetrievePropertiesEx; 500 unless given. */
  readonly pageSize?: number;
  /** Areas in one answer of QueryChangedDiskAreas; 2000 unless given. */
  readonly areaLimit?: number;
  /** Bytes that one answer of QueryChangedDiskAreas covers; a quarter of the disk (≥ 1 MiB, ≤ 512 GiB) unless given. */
  readonly spanLimit?: number;
  /** Bytes of a tracked block, a multiple of 64 KiB; by the disk's size unless given. */
  readonly granularity?: number;
  /** Share of unchanged blocks reported as changed too. */
  readonly overReport?: number;
  readonly wildcardElsewhere?: "whole-disk" | "fault";
  /** Whether the very snapshot whose creation was the stun that began tracking carries change ids; false unless given. */
  readonly firstSnapshotIsTracked?: boolean;
  readonly bugs?: readonly TrackingBug[];
  /** Seconds without progress after which a lease ends; 300 unless given. */
  readonly leaseTimeoutSeconds?: number;
  readonly leaseInitializeMs?: number;
  /** Whether links of leases name the host as `*`, which the client replaces. */
  readonly wildcardLeaseHost?: boolean;
  /** Bytes per second of exports and datastore files. */
  readonly bytesPerSecond?: number;
  /** How types are written in XML: vCenter's `xsi:type`, or a prefix declared on the spot. */
  readonly xml?: TypeDialect;
  readonly faults?: readonly FaultRule[];
  /** Of the faults with a probability. */
  readonly seed?: number;
}

/** A running simulator: the server, and the hands of the guest, of the administrator and of bad luck. */
export interface VcenterSimulator extends AsyncDisposable {
  /** `https://127.0.0.1:port`, without a path. */
  readonly url: string;
  readonly userName: string;
  readonly password: string;
  /** The certificate and its authority; undefined over plain HTTP. */
  readonly tls: Omit<ServerCertificate, "key"> | undefined;
  readonly instanceUuid: string;
  /** Calls so far by method. */
  readonly calls: ReadonlyMap<string, number>;
  /** What is alive now, for tests that nothing is left behind. */
  readonly alive: { readonly sessions: number; readonly leases: number; readonly tasks: number };
  /** Every machine by id. */
  readonly machines: ReadonlyMap<string, VirtualMachine>;
  /** A machine by its id or, where it is unique, by its name. */
  machine(idOrName: string): VirtualMachine;
  addMachine(spec: MachineSpec): VirtualMachine;
  /** The guest writes; the machine must be on. */
  write(machine: string, disk: number, offset: number, bytes: Uint8Array): void;
  /** The guest discards a range, which reads as zeroes from then on. */
  trim(machine: string, disk: number, offset: number, length: number): void;
  /** The guest writes what is there already: changed and allocated without taking space here. */
  touch(machine: string, disk: number, offset: number, length: number): void;
  /** Puts bytes on a disk as if they had been there before anything was tracked. */
  populate(machine: string, disk: number, offset: number, bytes: Uint8Array): void;
  /** Reads a disk as the guest does, or as a snapshot froze it. */
  readDisk(machine: string, disk: number, options: ReadOptions): Uint8Array;
  /** A sparse raw file with the content of a snapshot's disk, for a program that reads it by itself; not to be written. */
  diskPath(snapshot: string, disk: number): string;
  /** Grows a disk, which needs a machine without snapshots. */
  grow(machine: string, disk: number, size: number): void;
  /** A stun without a snapshot, as a migration to another host is; to the host of this number where one is given. */
  migrate(machine: string, host?: number): void;
  /** Hangs one more disk on a machine; its device key. */
  addDisk(machine: string, disk: DiskSpec): number;
  /** Takes a disk from a machine; snapshots keep what they froze of it. */
  removeDisk(machine: string, disk: number): void;
  /** The power fails under a running machine: off, and its trackers start anew. */
  powerFailure(machine: string): void;
  /** Begins a new epoch of change tracking on one disk or on all of a machine. */
  resetTracking(machine: string, disk?: number): void;
  /** A snapshot made by somebody else; its id. */
  takeSnapshot(machine: string, name: string): string;
  /** Somebody else removes a snapshot. */
  removeSnapshot(snapshot: string): void;
  /** Adds a fault; the function returned takes it away. */
  inject(rule: FaultRule): () => void;
  grantPrivilege(id: string): void;
  revokePrivilege(id: string): void;
  expireSessions(): void;
  /** Restarts vCenter: connections cut, sessions, tasks, leases and filters forgotten, refused for `downMs`. */
  reboot(options?: { readonly downMs?: number }): Promise<void>;
  /** Stops the server, closes every connection and removes every file. */
  stop(): Promise<void>;
}

/** What to read of a disk; everything where nothing is said. */
export interface ReadOptions {
  readonly snapshot?: string;
  readonly offset?: number;
  readonly length?: number;
}

/** Starts a simulated vCenter on 127.0.0.1. */
export async function startVcenterSimulator(options: VcenterSimulatorOptions = {}): Promise<VcenterSimulator> {
  const folder = await mkdtemp(join(tmpdir(), "diskferry-vcenter-"));
  try {
    const certificate =
      options.tls === false ? undefined : await makeCertificate(folder, { expired: options.tls === "expired" });
    const simulator = new Simulator(options, folder, certificate);
    await simulator.listen(options.port ?? 0);
    return simulator;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/** Milliseconds that an idle connection is kept. */
const keepAliveMs = 120_000;

class Simulator implements VcenterSimulator {
  readonly userName: string;
  readonly password: string;
  readonly tls: Omit<ServerCertificate, "key"> | undefined;
  readonly instanceUuid: string;
  readonly #folder: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #waiting = new Set<() => void>();
  readonly #inventory: Inventory;
  readonly #sessions: Sessions;
  readonly #tasks: TaskBoard;
  readonly #leases: NfcLeases;
  readonly #service: VimService;
  readonly #core: SimulatorCore;
  readonly #missing: Set<string>;
  readonly #flattened = new Map<string, string>();
  #port = 0;
  #down = false;
  #stopped: Promise<void> | undefined;

  constructor(options: VcenterSimulatorOptions, folder: string, certificate: ServerCertificate | undefined) {
    const { kind = "vcenter", granularity, overReport = 0 } = options;
    if (granularity !== undefined && !(granularity > 0 && granularity % grainSize === 0)) {
      throw new RangeError(`a granularity of ${granularity} bytes; it is a multiple of ${grainSize}`);
    }
    this.#folder = folder;
    this.userName = options.userName ?? (kind === "esxi" ? "root" : "administrator@vsphere.local");
    this.password = options.password ?? "password";
    this.instanceUuid = options.instanceUuid ?? randomUUID();
    this.#missing = new Set(options.missingPrivileges);
    const release = releaseOf(options.version ?? "8.0.3");
    const changed = (): void => this.#changed();
    this.#inventory = new Inventory({
      kind,
      release,
      folder,
      datacenters: [options.datacenter ?? "DC0", ...(options.moreDatacenters ?? [])],
      hosts: options.hosts ?? 1,
      datastores: [
        { name: options.datastore ?? "datastore1", type: options.datastoreType ?? "VMFS" },
        ...(options.moreDatastores ?? []).map(({ name, type = "VMFS" }) => ({ name, type })),
      ],
      freeSpace: options.freeSpace ?? 2 ** 42,
      newUuid: randomUUID,
      rules: {
        areaLimit: options.areaLimit ?? 2000,
        spanLimit: options.spanLimit,
        granularity,
        fine: release.fineTracking,
        overReport,
        wildcardElsewhere: options.wildcardElsewhere ?? "whole-disk",
        firstSnapshotIsTracked: options.firstSnapshotIsTracked ?? false,
        bugs: new Set(options.bugs),
      },
    });
    this.#sessions = new Sessions(options.sessionIdleMs ?? 30 * 60_000, options.sessionLimit ?? 500);
    const { taskMs = 0 } = options;
    this.#tasks = new TaskBoard((method) => (typeof taskMs === "number" ? taskMs : (taskMs[method] ?? 0)), changed);
    this.#leases = new NfcLeases({
      timeoutSeconds: options.leaseTimeoutSeconds ?? 300,
      initializeMs: options.leaseInitializeMs ?? 0,
      base: () => (options.wildcardLeaseHost === true ? this.url.replace(/\/\/.*/, "//*") : this.url),
      thumbprint: () => certificate?.sha1,
      certificate: () => (release.version.startsWith("9.") ? certificate?.certificate : undefined),
      changed,
    });
    this.#service = new VimService({
      kind,
      release,
      instanceUuid: this.instanceUuid,
      userName: this.userName,
      password: this.password,
      inventory: this.#inventory,
      sessions: this.#sessions,
      tasks: this.#tasks,
      leases: this.#leases,
      missingPrivileges: this.#missing,
      pageSize: options.pageSize ?? 500,
      shutdownMs: options.shutdownMs ?? 0,
      changed,
      nextChange: (signal) => this.#nextChange(signal),
    });
    const plan = new FaultPlan(options.seed ?? 1, options.faults ?? []);
    this.#core = new SimulatorCore(this.#service, plan, new XmlWriter(options.xml ?? "xsi"), certificate !== undefined);
    this.#core.bytesPerSecond = options.bytesPerSecond;
    const serve = (request: IncomingMessage, response: ServerResponse): void => void this.#serve(request, response);
    this.tls =
      certificate === undefined
        ? undefined
        : {
            certificate: certificate.certificate,
            authority: certificate.authority,
            sha1: certificate.sha1,
            sha256: certificate.sha256,
          };
    this.#server =
      certificate === undefined
        ? createServer(serve)
        : createSecureServer({ key: certificate.key, cert: certificate.certificate }, serve);
    // Node's own 5 s would cut a client off that a busy machine keeps from its next call.
    this.#server.keepAliveTimeout = keepAliveMs;
    this.#server.on("connection", (socket: Socket) => {
      if (this.#down) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.on("close", () => void this.#sockets.delete(socket));
    });
    for (const spec of options.machines ?? []) this.addMachine(spec);
  }

  get url(): string {
    return `${this.tls === undefined ? "http" : "https"}://127.0.0.1:${this.#port}`;
  }

  get calls(): ReadonlyMap<string, number> {
    return this.#core.plan.calls;
  }

  get alive(): { sessions: number; leases: number; tasks: number } {
    return { sessions: this.#sessions.count, leases: this.#leases.ready, tasks: this.#tasks.running };
  }

  get machines(): ReadonlyMap<string, VirtualMachine> {
    return this.#inventory.machines;
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, "127.0.0.1", resolve);
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  machine(idOrName: string): VirtualMachine {
    const known = this.machines.get(idOrName);
    if (known !== undefined) return known;
    const named = [...this.machines.values()].filter(({ spec }) => spec.name === idOrName);
    if (named.length === 1 && named[0] !== undefined) return named[0];
    throw new RangeError(`${named.length} machines are called '${idOrName}'`);
  }

  addMachine(spec: MachineSpec): VirtualMachine {
    const machine = this.#inventory.add(spec);
    if (machine.disks.size > 0) mkdirSync(join(this.#folder, machine.id), { recursive: true });
    this.#changed();
    return machine;
  }

  write(machine: string, disk: number, offset: number, bytes: Uint8Array): void {
    const { current, sequence } = this.#running(machine, disk, offset, bytes.length);
    current.write(offset, bytes, sequence);
  }

  trim(machine: string, disk: number, offset: number, length: number): void {
    const { current, sequence } = this.#running(machine, disk, offset, length);
    current.trim(offset, length, sequence);
  }

  touch(machine: string, disk: number, offset: number, length: number): void {
    const { current, sequence } = this.#running(machine, disk, offset, length);
    current.touch(offset, length, sequence);
  }

  populate(machine: string, disk: number, offset: number, bytes: Uint8Array): void {
    const found = this.#disk(machine, disk);
    demandRange(found, offset, bytes.length);
    found.current.write(offset, bytes, 0);
  }

  readDisk(machine: string, disk: number, options: ReadOptions): Uint8Array {
    const found = this.#disk(machine, disk);
    const state = options.snapshot === undefined ? undefined : this.#snapshot(options.snapshot).disks.get(disk);
    if (options.snapshot !== undefined && state === undefined) throw new RangeError(`the snapshot lacks disk ${disk}`);
    const capacity = state?.capacity ?? found.capacity;
    const offset = options.offset ?? 0;
    const into = new Uint8Array(options.length ?? capacity - offset);
    (state?.layer ?? found.current).read(offset, into);
    return into;
  }

  diskPath(snapshot: string, disk: number): string {
    const state = this.#snapshot(snapshot).disks.get(disk);
    if (state === undefined) throw new RangeError(`the snapshot '${snapshot}' lacks disk ${disk}`);
    const name = `${snapshot}-${disk}`;
    const known = this.#flattened.get(name);
    if (known !== undefined) return known;
    const path = join(this.#folder, `flat-${name}.raw`);
    const flat = new DiskLayer(path, path, state.capacity);
    flat.materialize();
    for (let from = 0; from < state.capacity;) {
      const range = { start: from, end: state.capacity, limit: 1024, granularity: grainSize };
      const { areas, covered } = state.layer.areas({ allocated: true }, range);
      for (const area of areas) {
        for (let offset = area.start; offset < area.start + area.length; offset += grainSize) {
          const part = new Uint8Array(Math.min(grainSize, state.capacity - offset));
          state.layer.read(offset, part);
          flat.write(offset, part, 0);
        }
      }
      from = covered;
    }
    flat.close();
    this.#flattened.set(name, path);
    return path;
  }

  grow(machine: string, disk: number, size: number): void {
    this.machine(machine).grow(disk, size);
    this.#changed();
  }

  migrate(machine: string, host?: number): void {
    const found = this.machine(machine);
    if (host !== undefined) this.#inventory.move(found, host);
    found.stun();
    this.#changed();
  }

  addDisk(machine: string, disk: DiskSpec): number {
    const found = this.machine(machine);
    mkdirSync(join(this.#folder, found.id), { recursive: true });
    const key = found.addDisk(disk);
    this.#changed();
    return key;
  }

  removeDisk(machine: string, disk: number): void {
    this.machine(machine).removeDisk(disk);
    this.#changed();
  }

  powerFailure(machine: string): void {
    this.machine(machine).powerOff();
    this.#changed();
  }

  resetTracking(machine: string, disk?: number): void {
    for (const each of this.machine(machine).disks.values()) {
      if (disk === undefined || each.key === disk) each.reset();
    }
  }

  takeSnapshot(machine: string, name: string): string {
    const found = this.machine(machine);
    const id = this.#inventory.snapshotId(found);
    const snapshot = found.snapshot({ name, description: "", quiesce: false }, id);
    this.#inventory.register(found, snapshot);
    this.#changed();
    return id;
  }

  removeSnapshot(snapshot: string): void {
    const found = this.#inventory.snapshot(reference("VirtualMachineSnapshot", snapshot));
    this.#leases.revoke(found.machine);
    found.machine.removeSnapshot(found.snapshot, { removeChildren: false, consolidate: true });
    this.#changed();
  }

  inject(rule: FaultRule): () => void {
    return this.#core.plan.add(rule);
  }

  grantPrivilege(id: string): void {
    this.#missing.delete(id);
  }

  revokePrivilege(id: string): void {
    this.#missing.add(id);
  }

  expireSessions(): void {
    this.#sessions.clear();
    this.#service.forget();
  }

  async reboot(options: { readonly downMs?: number } = {}): Promise<void> {
    this.#down = true;
    this.expireSessions();
    this.#leases.clear();
    this.#tasks.forget();
    for (const socket of this.#sockets) socket.destroy();
    await sleep(options.downMs ?? 0);
    this.#down = false;
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#close();
    return this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #close(): Promise<void> {
    this.#tasks.stop();
    this.#leases.clear();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    this.#inventory.discard();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = new Exchange(request, response);
    try {
      await this.#route(exchange);
    } catch (error) {
      // The client went away, or the request was beyond what a server would take.
      if (error instanceof RangeError) exchange.send(413, {}, error.message);
      else if (!response.destroyed) exchange.cut();
    }
  }

  async #route(exchange: Exchange): Promise<void> {
    const { pathname } = exchange.url;
    const verb = exchange.request.method;
    if (verb === "POST" && (pathname === "/sdk" || pathname === "/sdk/")) await serveSoap(this.#core, exchange);
    else if (verb === "GET" && pathname === "/sdk/vimServiceVersions.xml") serveVersions(this.#core, exchange);
    else if (pathname.startsWith("/sdk/vim25/")) await serveViJson(this.#core, exchange);
    else if (pathname.startsWith("/api/") || pathname.startsWith("/rest/")) await serveAutomation(this.#core, exchange);
    else if (pathname.startsWith("/folder/") && (verb === "GET" || verb === "HEAD")) {
      await serveFolder(this.#core, exchange);
    } else if (pathname.startsWith("/nfc/") && verb === "GET") await serveNfc(this.#core, exchange);
    else exchange.send(404, {});
  }

  #changed(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  #nextChange(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal.addEventListener("abort", wake);
    });
  }

  #snapshot(id: string): Snapshot {
    return this.#inventory.snapshot(reference("VirtualMachineSnapshot", id)).snapshot;
  }

  #disk(machine: string, key: number): VirtualDisk {
    const found = this.machine(machine);
    const disk = found.disks.get(key);
    if (disk === undefined) throw new RangeError(`'${found.name}' has no disk ${key}`);
    return disk;
  }

  #running(machine: string, key: number, offset: number, length: number): VirtualDisk {
    const disk = this.#disk(machine, key);
    if (this.machine(machine).power !== "poweredOn")
      throw new RangeError(`'${machine}' is not running; nothing writes`);
    demandRange(disk, offset, length);
    return disk;
  }
}

function demandRange(disk: VirtualDisk, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= disk.capacity) return;
  throw new RangeError(`${length} bytes at ${offset} are not on a disk of ${disk.capacity} bytes`);
}
