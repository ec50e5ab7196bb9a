import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Volume } from "@diskferry/core/provider";
import type { ConformanceHarness, SourceHarness, TargetHarness } from "@diskferry/provider-testkit";
import type { CloudstackSimulator } from "@diskferry/simulators";
import { serveAppliance } from "../../src/appliance/serve-appliance.ts";
import { CloudstackClient, type CloudstackOptions, provider } from "../../src/index.ts";
import { makeAuthority } from "../appliance/authority.ts";
import { startCloud } from "../cloud.ts";
import { startImportCloud } from "../import/import-cloud.ts";

/** What is judged, and how it is taken down. */
export interface Judged extends AsyncDisposable {
  harness: ConformanceHarness;
}

const badConfig = { endpoint: "https://cloud.example.org/client/api", apiKey: "half of a pair", colour: "blue" };

/** A volume that exists already, with bytes in it. */
async function existingVolume(simulator: CloudstackSimulator, options: CloudstackOptions): Promise<string> {
  await using client = new CloudstackClient({ ...options, tls: undefined, pollMs: 2 });
  const { id = "" } = await client.submit("createVolume", {
    name: "somebody's disk",
    zoneid: simulator.zoneId,
    diskofferingid: simulator.diskOfferings["Custom"],
    size: 1,
  });
  const machine = simulator.appliance.id;
  await client.run("attachVolume", { id, virtualmachineid: machine });
  await simulator.writeVolume(id, 0, Buffer.alloc(4096, "somebody's bytes "));
  await client.run("detachVolume", { id });
  return id;
}

function launchedVolume(simulator: CloudstackSimulator, machine: string, disk: string): string {
  return simulator.volumesOf(machine)[disk === "boot" ? 0 : 1] ?? "";
}

async function targetHarness(simulator: CloudstackSimulator, options: CloudstackOptions): Promise<TargetHarness> {
  return {
    open: () => provider.target!(options),
    size: 4 * 2 ** 20 + 512,
    readVolume: (volume: Volume, offset, length) => simulator.volumeBytes(volume.id, offset, length),
    readLaunched: (machine, disk, offset, length) =>
      simulator.volumeBytes(launchedVolume(simulator, machine, disk), offset, length),
    writeLaunched: (machine, disk, offset, bytes) =>
      simulator.writeVolume(launchedVolume(simulator, machine, disk), offset, bytes),
    existingDisk: await existingVolume(simulator, options),
  };
}

/** Volumes on the appliance this runs on. */
export async function localWriterTarget(): Promise<Judged> {
  const cloud = await startCloud();
  const { simulator, options } = cloud;
  return {
    harness: {
      name: "CloudStack volumes, local writer",
      definition: { provider, config: options, badConfig, uri: "cloudstack://cloud.example.org/web01?zone=zone1" },
      target: await targetHarness(simulator, options),
      secrets: [simulator.tenant.apiKey, simulator.tenant.secretKey],
    },
    [Symbol.asyncDispose]: () => cloud[Symbol.asyncDispose](),
  };
}

/** Volumes on an appliance that is reached over mutual TLS. */
export async function remoteWriterTarget(): Promise<Judged> {
  const cloud = await startCloud();
  const folder = await mkdtemp(join(tmpdir(), "diskferry-remote-"));
  const authority = await makeAuthority(join(folder, "authority"));
  const stateFolder = join(folder, "state");
  await mkdir(stateFolder);
  const appliance = await serveAppliance({
    port: 0,
    controlPort: 0,
    tls: authority.server,
    stateFolder,
    deviceRoot: cloud.simulator.appliance.root,
    patienceMs: 5_000,
  });
  const { simulator } = cloud;
  const options: CloudstackOptions = {
    ...cloud.options,
    appliance: {
      machine: simulator.appliance.id,
      remote: {
        host: "127.0.0.1",
        port: appliance.port,
        controlPort: appliance.controlPort,
        certificates: await authority.client("worker"),
      },
    },
  };
  return {
    harness: {
      name: "CloudStack volumes, remote writer",
      definition: { provider, config: options, badConfig },
      target: await targetHarness(simulator, options),
      secrets: [simulator.tenant.apiKey, simulator.tenant.secretKey],
    },
    async [Symbol.asyncDispose]() {
      await appliance.close();
      await cloud[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Disks that are gathered here and uploaded; there is no appliance. */
export async function uploadTarget(): Promise<Judged> {
  const cloud = await startCloud();
  const { simulator } = cloud;
  const spool = await mkdtemp(join(tmpdir(), "diskferry-spool-"));
  const { appliance: _, launch: __, ...rest } = cloud.options;
  const options: CloudstackOptions = { ...rest, mode: "upload", spool };
  return {
    harness: {
      name: "CloudStack volumes, uploaded",
      definition: { provider, config: options, badConfig },
      target: {
        open: () => provider.target!(options),
        size: 4 * 2 ** 20 + 512,
        readVolume: (volume: Volume, offset, length) => simulator.volumeBytes(volume.id, offset, length),
      },
      secrets: [simulator.tenant.apiKey, simulator.tenant.secretKey],
    },
    async [Symbol.asyncDispose]() {
      await cloud[Symbol.asyncDispose]();
      await rm(spool, { recursive: true, force: true });
    },
  };
}

/** Files on a pool that is mounted here, which a root administrator has adopted; machines are made of them by `importVm`. */
export async function importTarget(): Promise<Judged> {
  const cloud = await startImportCloud();
  const { simulator } = cloud;
  const options: CloudstackOptions = { ...cloud.options, launch: { ...cloud.options.launch, method: "import" } };
  return {
    harness: {
      name: "CloudStack volumes, imported",
      definition: { provider, config: options, badConfig },
      target: {
        open: () => provider.target!(options),
        size: 4 * 2 ** 20 + 512,
        readVolume: (volume: Volume, offset, length) => {
          const found = simulator.volumes().find(({ path }) => path === volume.id);
          return simulator.volumeBytes(found?.id ?? volume.id, offset, length);
        },
        readLaunched: (machine, disk, offset, length) =>
          simulator.volumeBytes(launchedVolume(simulator, machine, disk), offset, length),
        writeLaunched: (machine, disk, offset, bytes) =>
          simulator.writeVolume(launchedVolume(simulator, machine, disk), offset, bytes),
      },
      secrets: [simulator.admin.apiKey, simulator.admin.secretKey],
    },
    [Symbol.asyncDispose]: () => cloud[Symbol.asyncDispose](),
  };
}

/** A running machine of two disks, read through the appliance. */
export function applianceSource(): Promise<Judged> {
  return machineSource("read through the appliance", (options) => options);
}

/** The same, its snapshots downloaded; there is no appliance. */
export function downloadSource(): Promise<Judged> {
  return machineSource("read by download", ({ appliance: _, ...options }) => ({
    ...options,
    source: { read: "download" },
  }));
}

async function machineSource(how: string, adapt: (options: CloudstackOptions) => CloudstackOptions): Promise<Judged> {
  const cloud = await startCloud({ machines: [{ name: "web01", disks: [4 * 2 ** 20 + 512, 3 * 2 ** 20] }] });
  const { simulator } = cloud;
  const options = adapt(cloud.options);
  const [machine = ""] = simulator.machines;
  const [boot = "", data = ""] = simulator.volumesOf(machine);
  const client = new CloudstackClient({ ...options, tls: undefined, pollMs: 2 });
  const source: SourceHarness = {
    open: () => provider.source!(options),
    machine,
    disk: boot,
    writeGuest: (offset, bytes) => simulator.writeVolume(boot, offset, bytes),
    trimGuest: (offset, length) => simulator.writeVolume(boot, offset, new Uint8Array(length)),
    second: { key: data, write: (offset, bytes) => simulator.writeVolume(data, offset, bytes) },
    async grow() {
      await client.run("resizeVolume", { id: data, size: 1 });
    },
    async foreignSnapshot() {
      const { jobId, id = "" } = await client.submit("createSnapshot", { volumeid: boot, name: "somebody's" });
      await client.finish(jobId ?? "");
      const disk = { id, machine, disk: boot, size: 4 * 2 ** 20 + 512 };
      const takenAt = new Date().toISOString();
      return { id, key: "somebody's", machine, consistency: "crash", takenAt, disks: [disk] };
    },
    mayPower: true,
  };
  return {
    harness: {
      name: `CloudStack machines, ${how}`,
      definition: { provider, config: options, badConfig, uri: "cloudstack://cloud.example.org/web01?zone=zone1" },
      source,
      secrets: [simulator.tenant.apiKey, simulator.tenant.secretKey],
    },
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await cloud[Symbol.asyncDispose]();
    },
  };
}
