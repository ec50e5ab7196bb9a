import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Finding, PlannedDisk, Preflight } from "@diskferry/core/provider";
import { startVcenterSimulator, type VcenterSimulator, type VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, describe, expect, test } from "vitest";
import { VsphereInventory } from "../../src/inventory/vsphere-inventory.ts";
import type { VsphereOptions } from "../../src/options.ts";
import { type Reach, reachPort } from "../../src/preflight/ports.ts";
import { privileges } from "../../src/preflight/privileges.ts";
import { releaseFindings, trackingBugFindings } from "../../src/preflight/releases.ts";
import { libraryFindings } from "../../src/preflight/vddk-library.ts";
import { vspherePreflight } from "../../src/preflight/vsphere-preflight.ts";
import { probeNbdkit, type ProbeNbdkit } from "../../src/readers/nbdkit-probe.ts";
import { connectVsphere } from "../../src/vsphere-connection.ts";

const mib = 1 << 20;
const open: Reach = () => Promise.resolve(undefined);
/** An nbdkit with its plugin, which tells nothing of the library's version. */
const installed: ProbeNbdkit = () =>
  Promise.resolve({ name: "vddk", library: "loaded", libraryFile: undefined, defaultLibdir: undefined });
const machines = [{ name: "web", disks: [{ size: mib }, { size: mib }], tracking: true }];
const simulators: VcenterSimulator[] = [];

afterEach(async () => {
  for (const each of simulators.splice(0)) await each.stop();
});

interface Look {
  readonly found: Preflight;
  readonly simulator: VcenterSimulator;
  /** The findings as lines: severity, subject, message, remedy. */
  readonly lines: string[];
}

async function look(
  options: VcenterSimulatorOptions,
  more: {
    options?: Partial<VsphereOptions>;
    reach?: Reach;
    probe?: ProbeNbdkit;
    before?: (simulator: VcenterSimulator) => void;
    chosen?: readonly string[];
  } = {},
): Promise<Look> {
  const simulator = await startVcenterSimulator({ tls: false, machines, ...options });
  simulators.push(simulator);
  more.before?.(simulator);
  const { url, userName: username, password } = simulator;
  await using connection = await connectVsphere({ url, username, password, ...more.options });
  await using inventory = new VsphereInventory(connection);
  const machine = await inventory.machine("web");
  const before = new Map(simulator.calls);
  const chosen = machine.disks.filter(({ key }) => more.chosen?.includes(key) ?? true);
  const disks = chosen.map((disk): PlannedDisk => {
    const none = { value: 0, kind: "bound" } as const;
    return { disk: disk.key, size: disk.size, mode: "incremental", read: none, write: none };
  });
  const found = await vspherePreflight(
    connection,
    machine,
    { disks },
    {
      reach: more.reach ?? open,
      probe: more.probe ?? installed,
    },
  );
  for (const [method, count] of simulator.calls) {
    const changes = /_Task$|^Mark|^Export|^Shutdown/.test(method) && count !== (before.get(method) ?? 0);
    expect(changes, `${method} was called by a look that changes nothing`).toBe(false);
  }
  return { found, simulator, lines: found.findings.map(line) };
}

function line({ severity, subject, message, remedy }: Finding): string {
  return `${severity}: ${subject}: ${message}${remedy === undefined ? "" : ` -> ${remedy}`}`;
}

const text = ({ lines }: Look): string => lines.join("\n");
const blockers = ({ found }: Look): Finding[] => found.findings.filter(({ severity }) => severity === "blocker");

describe("a look before a run", () => {
  test("at a machine that is well finds no blocker and no warning, and tells each disk's reader and tracking", async () => {
    for (const protocol of ["soap", "vi-json"] as const) {
      const seen = await look({}, { options: { protocol } });
      expect(seen.lines.filter((each) => !each.startsWith("info: "))).toEqual([]);
      expect(text(seen)).toMatch(/disk 2000 \(Hard disk 1\) of web: it is read by nfc, else folder/);
      expect(text(seen)).toMatch(/disk 2001 .*: its changes are tracked/);
      expect(text(seen)).toMatch(/VMware vCenter Server 8\.0\.3 .*: this release is supported/);
      expect(text(seen)).toMatch(/host esx1\.example\.org: 7\.5 % of its CPU and 25\.0 % of its memory/);
      expect(text(seen)).toMatch(/datastore datastore1: 4096\.0 GiB are free \(VMFS\)/);
      expect(seen.found.privileges?.missing).toEqual([]);
      expect(seen.found.privileges?.needed).toContain("VirtualMachine.State.CreateSnapshot");
      expect(seen.found.privileges?.needed).not.toContain("VirtualMachine.Config.DiskLease");
      expect(seen.found.calls).toContainEqual({
        operation: "QueryChangedDiskAreas",
        count: { value: 2, kind: "estimate" },
      });
    }
  });

  test("at a run of some disks speaks of those, and of what can never be copied", async () => {
    const some = [{ name: "web", disks: [{ size: mib }, { size: mib }, { size: mib, shared: true }], tracking: true }];
    const seen = await look({ machines: some }, { chosen: ["2001"] });
    expect(text(seen)).not.toMatch(/disk 2000/);
    expect(text(seen)).toMatch(/disk 2001 .*it is read by/);
    expect(text(seen)).toMatch(/warning: disk 2002 .*left out: several machines write to it/);
  });

  test("at the place alone needs no machine, and tries the ports of its hosts", async () => {
    const simulator = await startVcenterSimulator({ tls: false, hosts: 2, moreDatacenters: ["DC1"] });
    simulators.push(simulator);
    const { url, userName: username, password } = simulator;
    await using connection = await connectVsphere({ url, username, password, vddk: {} });
    const well = await vspherePreflight(connection, undefined, { disks: [] }, { reach: open, probe: installed });
    expect(well.findings.map(({ severity }) => severity)).toEqual(["info", "info"]);
    expect(well.privileges?.missing).toEqual([]);
    const asked: string[] = [];
    const reach: Reach = (host, port) => {
      asked.push(`${host}:${port}`);
      return Promise.resolve(host === "esx2.example.org" && port === 902 ? "ETIMEDOUT" : undefined);
    };
    const closed = await vspherePreflight(connection, undefined, { disks: [] }, { reach, probe: installed });
    expect(asked.filter((each) => each.endsWith(":902"))).toEqual(
      ["esx1", "esx2", "esx21", "esx22"].map((name) => `${name}.example.org:902`),
    );
    expect(closed.findings.filter(({ severity }) => severity !== "info")).toMatchObject([
      { severity: "warning", subject: "esx2.example.org:902", message: /reader vddk/ },
    ]);
  });
});

describe("privileges", () => {
  test.each(privileges.filter(({ purpose }) => purpose === "copy").map(({ id }) => id))(
    "without %s nothing works, and it is named with what to do",
    async (id) => {
      const seen = await look({ missingPrivileges: [id] });
      expect(seen.found.privileges?.missing).toEqual([id]);
      expect(blockers(seen)).toMatchObject([{ subject: id, remedy: expect.stringContaining("role") as string }]);
    },
  );

  test("that change tracking or a cutover lacks are warnings that say what is lost", async () => {
    const missing = ["VirtualMachine.Config.ChangeTracking", "VirtualMachine.Interact.PowerOff"];
    const seen = await look({ missingPrivileges: missing });
    expect(seen.found.privileges?.missing).toEqual(missing);
    expect(blockers(seen)).toEqual([]);
    expect(text(seen)).toMatch(/warning: VirtualMachine\.Config\.ChangeTracking: .*every run reads whole disks/);
    expect(text(seen)).toMatch(/warning: VirtualMachine\.Interact\.PowerOff: .*cutover/);
  });

  test("that a reader lacks let disks fall back, and the last reader's are a blocker", async () => {
    const one = await look({ missingPrivileges: ["VApp.Export"] });
    expect(text(one)).toMatch(/warning: VApp\.Export: reader nfc: .*fall back to the reader folder/);
    expect(text(one)).toMatch(/disk 2000 .*: it is read by folder/);
    const both = await look({ missingPrivileges: ["VApp.Export", "Datastore.Browse"] });
    expect(text(both)).toMatch(/blocker: VApp\.Export: reader nfc: .*no reader is left/);
    expect(text(both)).toMatch(/blocker: disk 2000 .*no reader is left/);
  });
});

describe("ports", () => {
  test("of hosts that are closed are named with the reader they close and what is used instead", async () => {
    const asked: string[] = [];
    const reach: Reach = (host, port) => {
      asked.push(`${host}:${port}`);
      return Promise.resolve(port === 902 ? "ETIMEDOUT" : undefined);
    };
    const seen = await look({}, { options: { vddk: {} }, reach });
    expect(asked).toEqual(["esx1.example.org:902", "esx1.example.org:443"]);
    expect(text(seen)).toMatch(
      /warning: esx1\.example\.org:902: reader vddk: port 902 .*ETIMEDOUT.*fall back to the reader nfc -> open port 902/,
    );
    expect(text(seen)).toMatch(/disk 2000 .*: it is read by nfc, else folder/);
    const none = await look({}, { options: { readers: ["vddk"], vddk: {} }, reach });
    expect(text(none)).toMatch(/blocker: esx1\.example\.org:902: .*no reader is left/);
  });

  test("are tried by TCP", async () => {
    const server = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    expect(await reachPort("127.0.0.1", port)).toBeUndefined();
    await new Promise((resolve) => server.close(resolve));
    expect(await reachPort("127.0.0.1", port)).toBe("ECONNREFUSED");
    expect(await reachPort("no-such-host.invalid", 902)).toMatch(/ENOTFOUND|EAI_AGAIN/);
    await expect(reachPort("127.0.0.1", port, { signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow(
      "enough",
    );
  });
});

describe("releases", () => {
  const about = { kind: "vcenter", fullName: "VMware vCenter", build: "1", apiVersion: "", instanceUuid: "u" } as const;

  test.each([
    ["6.5.0", "warning", /deprecated/],
    ["6.7.0", "info", /supported/],
    ["7.0.3", "info", /supported/],
    ["8.0.3", "info", /supported/],
    ["9.0.1", "info", /supported/],
    ["10.0.0", "warning", /newer than any/],
  ])("%s is told as it is", (version, severity, message) => {
    expect(releaseFindings({ ...about, version })).toMatchObject([
      { severity, message: expect.stringMatching(message) as string },
    ]);
  });

  test.each([
    ["5.5.0", "1", ["310751", "59216"]],
    ["6.0.0", "3029758", ["317933", "59216"]],
    ["6.5.0", "5969303", ["59216"]],
    ["6.7.0", "8169922", ["59216"]],
    ["6.7.0", "10302608", []],
    ["7.0.3", "20036589", []],
    ["8.0.3", "24022510", []],
  ])("of a host %s build %s name their known bugs by KB number", (version, build, kbs) => {
    const found = trackingBugFindings({ name: "esx1", version, build }).map(
      ({ message }) => /KB (\d+)/.exec(message)?.[1],
    );
    expect(found).toEqual(kbs);
  });

  test.each([
    ["8.0.3", "8.0.1", "info"],
    ["8.0.3", "6.7.0", "info"],
    ["9.0.0", "7.0.3", "info"],
    ["9.0.0", "6.7.0", "warning"],
    ["8.0.3", "6.5.0", "warning"],
    ["7.0.3", "8.0.3", "warning"],
    ["6.7.3", "8.0.3", "warning"],
    ["5.0.0", "8.0.3", "warning"],
  ])("VDDK %s with vSphere %s is %s", (library, server, severity) => {
    expect(libraryFindings(library, server)).toMatchObject([{ severity }]);
  });

  test.each<[string, string, NonNullable<VcenterSimulatorOptions["version"]>, RegExp, RegExp]>([
    ["8.0.10", "8.0.9", "8.0.3", /info: VDDK 8\.0\.10: it fits/, /is read by vddk, else nfc, else folder/],
    ["7.0.3", "6.7.0", "8.0.3", /warning: VDDK 7\.0\.3: it is older than vSphere 8\.0\.3/, /is read by vddk, else nfc/],
    ["6.7.3", "6.5.0", "8.0.3", /VDDK 6\.7\.3 is too old for vSphere 8\.0\.3: .*up to 7\.0/, /is read by nfc, else/],
    ["9.0.0", "8.0.0", "6.7", /VDDK 9\.0\.0 is too new for vSphere 6\.7\.0: .*from 7\.0 on/, /is read by nfc, else/],
  ])("a VDDK %s (beside %s) with vSphere %s is told as it is", async (version, other, server, told, read) => {
    const folder = await mkdtemp(join(tmpdir(), "diskferry-vddk-"));
    try {
      await mkdir(join(folder, "lib64"));
      for (const each of [version, other]) await writeFile(join(folder, "lib64", `libvixDiskLib.so.${each}`), "");
      const seen = await look({ version: server }, { options: { vddk: { libdir: folder } } });
      expect(text(seen)).toMatch(told);
      expect(text(seen)).toMatch(read);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("a VDDK that is not where it should be, and an nbdkit that is not there, let disks fall back", async () => {
    const none: ProbeNbdkit = () =>
      Promise.resolve({ name: "vddk", library: "missing", libraryFile: undefined, defaultLibdir: undefined });
    const without = await look({}, { options: { vddk: { libdir: "/opt/vddk" } }, probe: none });
    expect(text(without)).toMatch(
      /reader vddk: there is no VMware library .*in \/opt\/vddk; disks fall back to the reader nfc -> unpack VMware's VDDK/,
    );
    const missing = await look({}, { options: { vddk: { nbdkit: "/nonexistent/nbdkit" } }, probe: probeNbdkit });
    expect(text(missing)).toMatch(/warning: \/nonexistent\/nbdkit: reader vddk: there is no nbdkit here/);
  });
});

describe("a machine", () => {
  test("with snapshots cannot begin tracking, and says which they are", async () => {
    const off = [{ name: "web", disks: [{ size: mib }] }];
    const before = (simulator: VcenterSimulator): void => void simulator.takeSnapshot("web", "before the update");
    const seen = await look({ machines: off }, { before });
    expect(text(seen)).toMatch(/warning: web: it has snapshots: 'before the update'; change tracking cannot begin/);
    const tracked = await look({}, { before });
    expect(text(tracked)).toMatch(/info: web: it has snapshots: 'before the update' ->/);
  });

  test("whose chain is full, that waits for an answer or has left-over deltas says so", async () => {
    const full = await look(
      {},
      {
        before: (simulator) => {
          for (let count = 0; count < 31; count++) simulator.takeSnapshot("web", `s${count}`);
        },
      },
    );
    expect(blockers(full)).toMatchObject([{ subject: "web", message: /31 snapshots.*32/ }]);
    const asked = await look(
      {},
      {
        before: (simulator) => {
          simulator.machine("web").question = { id: "1", text: "Moved or copied?" };
        },
      },
    );
    expect(blockers(asked)).toMatchObject([{ message: /Moved or copied\?/ }]);
    const left = await look(
      {},
      {
        before: (simulator) => {
          simulator.machine("web").consolidationFails = true;
          simulator.removeSnapshot(simulator.takeSnapshot("web", "s"));
        },
      },
    );
    expect(text(left)).toMatch(/warning: web: deltas of removed snapshots are left/);
  });

  test("whose tracking is off tells what turns it on, or what goes without", async () => {
    const off = [{ name: "web", disks: [{ size: mib }] }];
    expect(text(await look({ machines: off }))).toMatch(
      /info: disk 2000 .*tracking is off; the first run turns it on by a snapshot/,
    );
    const refused = await look({ machines: off }, { options: { tracking: { enable: false } } });
    expect(text(refused)).toMatch(/warning: disk 2000 .*tracking\.enable is false; every run reads it whole/);
    const later = await look({ machines: off }, { options: { tracking: { enableOnRunning: false } } });
    expect(text(later)).toMatch(/begins at the next power cycle/);
    const one = [{ name: "web", tracking: true, disks: [{ size: mib }, { size: mib, tracked: false }] }];
    expect(text(await look({ machines: one }))).toMatch(
      /disk 2000 .*are tracked\n.*disk 2001.*\n.*disk 2001 .*tracking is off/,
    );
  });

  test("of old hardware, without tools or with disks that cannot be copied says so", async () => {
    const old = await look({
      machines: [
        {
          name: "web",
          hardware: 4,
          tools: "not-installed",
          disks: [{ size: mib }, { size: mib, mode: "independent_persistent" }],
        },
      ],
    });
    expect(text(old)).toMatch(/warning: disk 2000 .*virtual hardware 4 does not track changes/);
    expect(text(old)).toMatch(/warning: web: VMware Tools does not run.*crash-consistent/);
    expect(text(old)).toMatch(/warning: disk 2001 .*left out: it is independent/);
    expect(blockers(old)).toEqual([]);
  });

  test("on a datastore that is nearly full is warned of, and on one that is full is stopped", async () => {
    const big = [{ name: "web", disks: [{ size: 2 ** 40 }], tracking: true }];
    expect(text(await look({ machines: big, freeSpace: 2 ** 33 }))).toMatch(
      /warning: datastore datastore1: 8\.0 GiB .*less than a tenth/,
    );
    expect(blockers(await look({ machines: big, freeSpace: 2 ** 20 }))).toMatchObject([
      { subject: "datastore datastore1" },
    ]);
  });

  test("with an encrypted disk is read by the reader that decrypts, and by no other", async () => {
    const machines = [{ name: "web", disks: [{ size: mib, encrypted: true }] }];
    const seen = await look({ machines }, { options: { vddk: {} } });
    expect(text(seen)).toMatch(/disk 2000 .*: it is read by vddk\n/);
    const closed: Reach = (host, port, wait) =>
      port === 902 ? Promise.resolve("ECONNREFUSED") : open(host, port, wait);
    const without = await look({ machines }, { options: { vddk: {} }, reach: closed });
    expect(text(without)).toMatch(/blocker: disk 2000 .*: no reader is left for it/);
  });

  test("on vSAN is not read from files", async () => {
    const seen = await look({ datastoreType: "vsan" });
    expect(text(seen)).toMatch(/disk 2000 .*: it is read by nfc\n/);
  });
});
