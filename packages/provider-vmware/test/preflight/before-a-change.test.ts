import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isProviderError, type Job, memoryPlace, MemoryStateStore, replicate } from "@diskferry/core";
import type { VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { VsphereOptions } from "../../src/options.ts";
import type { Reach } from "../../src/preflight/ports.ts";
import type { ReaderMeans } from "../../src/readers/reader-fitness.ts";
import { connectSource } from "../../src/source/connect-source.ts";
import { World } from "../world.ts";

// A run that cannot be read in the end is refused before tracking is turned on and before a snapshot is made.

vi.setConfig({ testTimeout: 240_000 });
const mib = 1 << 20;
const open: AsyncDisposable[] = [];
let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "diskferry-before-"));
});

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

/** An nbdkit that says what a script prints, and a library folder with these files. */
function nbdkitSaying(script: string, ...libraries: string[]): NonNullable<VsphereOptions["vddk"]> {
  const nbdkit = join(folder, "nbdkit");
  writeFileSync(nbdkit, `#!/bin/sh\n${script}\n`);
  chmodSync(nbdkit, 0o755);
  const libdir = join(folder, "vddk");
  mkdirSync(join(libdir, "lib64"), { recursive: true });
  for (const each of libraries) writeFileSync(join(libdir, "lib64", each), "");
  return { nbdkit, libdir };
}

const plugin = "echo name=vddk; echo vddk_default_libdir=/usr/lib/vddk";
const loaded = `${plugin}; echo vddk_library_version=8`;

/** Calls of the simulator that change something. */
function changingCalls({ simulator }: World): string[] {
  return [...simulator.calls.keys()].filter((method) => /_Task$|^Mark|^Export|^Shutdown|Lease/.test(method));
}

interface Refusal {
  readonly vsphere: () => Partial<VsphereOptions>;
  readonly simulated?: VcenterSimulatorOptions;
  readonly means?: ReaderMeans;
  readonly says: RegExp;
}

const closed: Reach = (_, port) => Promise.resolve(port === 902 ? "ECONNREFUSED" : undefined);

const refusals: Readonly<Record<string, Refusal>> = {
  "nbdkit is missing": {
    vsphere: () => ({ readers: ["vddk"], vddk: { nbdkit: "/nonexistent/nbdkit" } }),
    says: /vddk: there is no nbdkit here; install it/,
  },
  "nbdkit has no vddk plugin": {
    vsphere: () => ({
      readers: ["vddk"],
      vddk: nbdkitSaying(
        `echo "nbdkit: error: cannot open plugin 'vddk': nbdkit-vddk-plugin.so: cannot open shared object file" >&2; exit 1`,
      ),
    }),
    says: /cannot open plugin 'vddk'.*install nbdkit-plugin-vddk/,
  },
  "VMware's library is missing": {
    vsphere: () => ({ readers: ["vddk"], vddk: nbdkitSaying(plugin) }),
    says: /there is no VMware library .*\/vddk; unpack VMware's VDDK/,
  },
  "VMware's library does not load": {
    vsphere: () => ({
      readers: ["vddk"],
      vddk: nbdkitSaying(
        `echo 'nbdkit: error: required VDDK symbol "VixDiskLib_InitEx" is missing. VDDK version must be >= 6.5.' >&2; exit 1`,
      ),
    }),
    says: /required VDDK symbol.*use VDDK 6\.5 or newer/,
  },
  "VMware's library is too old for vCenter": {
    vsphere: () => ({ readers: ["vddk"], vddk: nbdkitSaying(loaded, "libvixDiskLib.so.6.7.3") }),
    says: /VDDK 6\.7\.3 is too old for vSphere 8\.0\.3.*unpack VDDK 8\.0/,
  },
  "VMware's library is too new for vCenter, and tells its version by itself": {
    vsphere: () => ({
      readers: ["vddk"],
      vddk: nbdkitSaying(`${loaded}; echo vddk_dll=/opt/vddk/lib64/libvixDiskLib.so.9.0.0`, "libvixDiskLib.so.7.0.3"),
    }),
    simulated: { version: "6.7" },
    says: /VDDK 9\.0\.0 is too new for vSphere 6\.7\.0.*unpack VDDK 8\.0 or older/,
  },
  "the host's port 902 is closed": {
    vsphere: () => ({ readers: ["vddk"], vddk: nbdkitSaying(loaded, "libvixDiskLib.so.8.0.3") }),
    means: { reach: closed },
    says: /port 902 of host esx1\.example\.org cannot be reached from here \(ECONNREFUSED\); open port 902/,
  },
  "another port for the hosts' data is closed": {
    vsphere: () => ({
      readers: ["vddk"],
      vddk: { ...nbdkitSaying(loaded, "libvixDiskLib.so.8.0.3"), arguments: ["nfchostport=9902"] },
    }),
    means: { reach: (_, port) => Promise.resolve(port === 9902 ? "ETIMEDOUT" : undefined) },
    says: /port 9902 of host esx1\.example\.org/,
  },
  "the hosts' port 443 is closed to the export": {
    vsphere: () => ({ readers: ["nfc"] }),
    means: { reach: (_, port) => Promise.resolve(port === 443 ? "ETIMEDOUT" : undefined) },
    says: /nfc: port 443 of host esx1\.example\.org/,
  },
  "the privilege to export is missing": {
    vsphere: () => ({ readers: ["nfc"] }),
    simulated: { missingPrivileges: ["VApp.Export"] },
    says: /nfc: VApp\.Export is missing; add VApp\.Export to the account's role/,
  },
  "the privilege to browse datastores is missing": {
    vsphere: () => ({ readers: ["folder"] }),
    simulated: { missingPrivileges: ["Datastore.Browse"] },
    says: /folder: Datastore\.Browse is missing/,
  },
  "vSAN has no files, and the export may not be used": {
    vsphere: () => ({ readers: ["folder"] }),
    simulated: { datastoreType: "vsan" },
    says: /folder: it serves files of datastores that have files/,
  },
};

async function jobOf(world: World, refusal: Pick<Refusal, "vsphere" | "means">, notices: string[] = []): Promise<Job> {
  const notice = (message: string): void => void notices.push(message);
  const source = await connectSource(world.options(refusal.vsphere()), { notice }, refusal.means);
  open.push(source);
  const { target } = memoryPlace();
  return {
    id: "job",
    source,
    machine: "web",
    target,
    store: new MemoryStateStore(),
    options: { workers: 0, attempts: { baseMs: 1, maxMs: 5, attempts: 2, reopens: 0 }, notice },
  };
}

test.for(Object.entries(refusals))("%s: a run is refused, and vSphere saw no changing call", async ([, refusal]) => {
  const machines = [{ name: "web", disks: [{ size: mib }] }];
  for (const tracking of [false, true]) {
    const world = await World.start({
      ...refusal.simulated,
      machines: machines.map((each) => ({ ...each, tracking })),
    });
    open.push(world);
    const error: unknown = await replicate(await jobOf(world, refusal)).catch((thrown: unknown) => thrown);
    expect(isProviderError(error) && error.code, String(error)).toBe("UNSUPPORTED");
    expect(String(error)).toMatch(refusal.says);
    expect(String(error)).toMatch(/disk 2000 .* of web can be read by none of the readers, so nothing was changed/);
    expect(changingCalls(world)).toEqual([]);
  }
});

test("a library that is too old is passed over for the next reader, loudly, also where a disk would open with it", async () => {
  const world = await World.start({ machines: [{ name: "web", disks: [{ size: mib }] }] });
  open.push(world);
  const vddk = nbdkitSaying(`case "$*" in *--dump-plugin*) ${loaded};; *) exit 9;; esac`, "libvixDiskLib.so.6.7.3");
  const notices: string[] = [];
  const job = await jobOf(world, { vsphere: () => ({ readers: ["vddk", "nfc"], vddk }) }, notices);
  expect(await replicate(job)).toMatchObject({ status: "done" });
  expect(notices.find((line) => line.includes("is read by nfc"))).toMatch(/after vddk: VDDK 6\.7\.3 is too old/);
});

test("a disk that is not copied stops nothing", async () => {
  const disks = [{ size: mib }, { size: mib, encrypted: true }];
  const world = await World.start({ machines: [{ name: "web", disks }] });
  open.push(world);
  const vddk = nbdkitSaying(plugin);
  const job = await jobOf(world, { vsphere: () => ({ readers: ["vddk", "nfc"], vddk }) });
  const all: unknown = await replicate(job).catch((thrown: unknown) => thrown);
  expect(String(all)).toMatch(/disk 2001 .*nfc: the disk is encrypted, and only vddk decrypts/);
  expect(changingCalls(world)).toEqual([]);
  expect(await replicate({ ...job, id: "one", disks: ["2000"] })).toMatchObject({ status: "done" });
});

test("through transports that go past the network no port is asked for", async () => {
  const world = await World.start({ machines: [{ name: "web", disks: [{ size: mib }] }] });
  open.push(world);
  const asked: number[] = [];
  const reach: Reach = (_, port) => (asked.push(port), Promise.resolve("ETIMEDOUT"));
  const vddk = { ...nbdkitSaying(loaded, "libvixDiskLib.so.8.0.3"), transports: "san:hotadd" };
  const job = await jobOf(world, { vsphere: () => ({ readers: ["vddk"], vddk }), means: { reach } });
  // This nbdkit serves nothing: the run gets as far as its snapshot.
  await expect(replicate(job)).rejects.toThrow(/by nbdkit/);
  expect(asked).toEqual([]);
});
