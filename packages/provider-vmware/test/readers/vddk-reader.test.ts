import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DiskSnapshot, isProviderError, type SourceConnector } from "@diskferry/core/provider";
import type { VcenterSimulatorOptions } from "@diskferry/simulators";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes } from "../../../../test/seed.ts";
import type { VsphereOptions } from "../../src/options.ts";
import { standInKind, standInPeers, VddkStandIn } from "../stand-in/vddk-stand-in.ts";
import { readAll, snapshotIdOf, World } from "../world.ts";

const mebi = 1 << 20;
const size = 6 * mebi + 512;
vi.setConfig({ testTimeout: 120_000 });
const password = "correct horse battery staple";
const open: AsyncDisposable[] = [];
let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "diskferry-vddk-test-"));
  vi.stubEnv("TMPDIR", folder);
});

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]();
  const left = [nbdkits(), readdirSync(folder)];
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
  // Neither a process nor a file of it may be left.
  expect(left).toEqual([[], []]);
});

interface Opened {
  world: World;
  standIn: VddkStandIn;
  source: SourceConnector;
  disks: DiskSnapshot[];
  held: Uint8Array[];
}

async function start(options: VcenterSimulatorOptions = {}, more: Partial<VsphereOptions> = {}): Promise<Opened> {
  const spec = { name: "web", disks: [{ size }, { size: mebi }], tracking: true };
  const world = await World.start({ machines: [spec], password, ...options });
  open.push(world);
  const standIn = await VddkStandIn.start(world.simulator);
  open.push(standIn);
  const { simulator } = world;
  simulator.write("web", 2000, 0, randomBytes(3 * mebi, 1));
  simulator.write("web", 2000, size - 512, randomBytes(512, 2));
  simulator.write("web", 2001, 4096, randomBytes(9000, 3));
  const source = await world.source({ readers: ["vddk"], vddk: standIn.options, ...more });
  const snapshot = await source.snapshot(await source.machine("web"), { key: "run" });
  const id = snapshotIdOf(snapshot);
  const held = snapshot.disks.map(({ disk }) => simulator.readDisk("web", Number(disk), { snapshot: id }));
  simulator.write("web", 2000, 0, randomBytes(9000, 4));
  return { world, standIn, source, disks: snapshot.disks, held };
}

async function failureOf(work: Promise<unknown>): Promise<{ code: string; retryable: boolean; message: string }> {
  const error: unknown = await work.then(
    () => new Error("resolved"),
    (thrown: unknown) => thrown,
  );
  if (!isProviderError(error)) return { code: String(error), retryable: false, message: "" };
  return { code: error.code, retryable: error.retryable, message: error.message };
}

/** The nbdkits that this process started and that serve, by their command lines; not those that are asked what they are. */
function nbdkits(): { pid: number; argv: string[]; environment: string }[] {
  const found = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const argv = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      const parent = /^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${name}/status`, "utf8"))?.[1];
      if (!argv[0]?.endsWith("nbdkit") || argv.includes("--dump-plugin") || parent !== String(process.pid)) continue;
      found.push({ pid: Number(name), argv, environment: readFileSync(`/proc/${name}/environ`, "utf8") });
    } catch {
      // It ended while it was looked at.
    }
  }
  return found;
}

/** The command lines of all processes. */
function everyCommandLine(): string {
  return readdirSync("/proc")
    .map((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, "utf8");
      } catch {
        return "";
      }
    })
    .join("\n");
}

describeWithPeers(standInPeers, `the vddk reader against ${standInKind}`, () => {
  console.info(`vddk reader: judged against ${standInKind}`);

  test("every disk of a snapshot is read byte for byte, and no nbdkit is left", async () => {
    const { source, disks, held, world } = await start();
    for (const [index, disk] of disks.entries()) {
      expect(Buffer.compare(await readAll(source, disk), held[index]!)).toBe(0);
    }
    expect(nbdkits()).toEqual([]);
    expect(world.notices.filter((line) => line.includes("is read by vddk"))).toHaveLength(2);
  });

  test("many reads at once each give their own bytes", async () => {
    const { source, disks, held } = await start();
    await using reader = await source.open(disks[0]!);
    expect([reader.concurrency, reader.preferredLength]).toEqual([16, 2 * mebi]);
    const parts = Array.from({ length: 16 }, (_, index) => ({ at: index * 150_016, into: new Uint8Array(99_840) }));
    await Promise.all(parts.map(({ at, into }) => reader.read(at, into)));
    for (const { at, into } of parts) {
      expect(Buffer.compare(into, held[0]!.subarray(at, at + into.length)), `${at}`).toBe(0);
    }
  });

  test("the password is in no command line and no environment, and arrives all the same", async () => {
    const { source, disks, standIn, world } = await start();
    await using reader = await source.open(disks[0]!);
    await reader.read(0, new Uint8Array(512));
    const processes = nbdkits();
    expect(processes).toHaveLength(1);
    for (const { argv, environment } of processes) {
      expect(argv.join(" ")).not.toContain(password);
      expect(environment).not.toContain(password);
      expect(argv).toContain("password=-3");
      expect(argv).toContain("--exit-with-parent");
      expect(argv.some((each) => each.includes("retry"))).toBe(false);
    }
    // Nor in anything that those started.
    expect(everyCommandLine()).not.toContain(password);
    expect(standIn.logins[0]).toMatchObject({
      password,
      user: world.simulator.userName,
      server: "127.0.0.1",
      vm: `moref=${world.simulator.machine("web").id}`,
      snapshot: [...world.simulator.machine("web").snapshots()][0]!.id,
      transports: "nbdssl",
    });
  });

  test("over TLS the library is told the thumbprint of the certificate that was trusted", async () => {
    const { source, disks, held, standIn, world } = await start({ tls: true });
    expect(Buffer.compare(await readAll(source, disks[1]!), held[1]!)).toBe(0);
    expect(standIn.logins[0]?.thumbprint).toBe(world.simulator.tls?.sha1);
  });

  test("from a host itself, larger reads are asked for", async () => {
    const { source, disks, held, standIn } = await start({ kind: "esxi" });
    await using reader = await source.open(disks[0]!);
    expect(reader.preferredLength).toBe(16 * mebi);
    const bytes = new Uint8Array(size);
    await reader.read(0, bytes);
    expect(Buffer.compare(bytes, held[0]!)).toBe(0);
    expect(standIn.logins[0]?.user).toBe("root");
  });

  test("an nbdkit that is killed is told while reading, and another takes its place", async () => {
    const { source, disks, held } = await start();
    const reader = await source.open(disks[0]!);
    await reader.read(0, new Uint8Array(4096));
    process.kill(nbdkits()[0]!.pid, "SIGKILL");
    const found = await failureOf(
      (async () => {
        for (let at = 0; at < 50; at++) await reader.read(0, new Uint8Array(4096));
      })(),
    );
    expect([found.code, found.retryable]).toEqual(["UNAVAILABLE", true]);
    await reader[Symbol.asyncDispose]();
    expect(Buffer.compare(await readAll(source, disks[0]!), held[0]!)).toBe(0);
  });

  test("a disk of another size is refused, whatever it is called", async () => {
    const { source, disks, standIn } = await start();
    standIn.instead = join(folder, "other.raw");
    writeFileSync(standIn.instead, Buffer.alloc(size - 512));
    expect((await failureOf(source.open(disks[0]!))).code).toBe("CORRUPT");
    rmSync(standIn.instead);
    expect(nbdkits()).toEqual([]);
  });

  test("a read that is aborted rejects with the reason, and the next one works", async () => {
    const { source, disks, held } = await start();
    await using reader = await source.open(disks[0]!);
    const reason = new Error("enough");
    await expect(reader.read(0, new Uint8Array(512), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const into = new Uint8Array(4096);
    await reader.read(0, into);
    expect(Buffer.compare(into, held[0]!.subarray(0, 4096))).toBe(0);
  });

  test("no more disks of a host are read at once than it bears", async () => {
    const { source, disks } = await start({}, { readersPerHost: 1 });
    let opened = false;
    let second: Promise<AsyncDisposable>;
    {
      await using first = await source.open(disks[0]!);
      second = source.open(disks[1]!).then((reader) => ((opened = true), reader));
      open.push({ [Symbol.asyncDispose]: async () => await (await second)[Symbol.asyncDispose]() });
      await first.read(0, new Uint8Array(512));
      expect([opened, nbdkits().length]).toEqual([false, 1]);
    }
    await second;
  });

  describe("what the library refuses teaches what to do", () => {
    test.for<[refusal: { connect?: string; open?: string }, code: string, teaches: RegExp]>([
      [{ connect: "Cannot connect to the host" }, "UNAVAILABLE", /port 902/],
      [{ connect: "Cannot complete login due to an incorrect user name or password" }, "AUTH", /user and password/],
      [{ open: "You do not have access rights to this file" }, "DENIED", /DiskRandomRead/],
      [{ open: "Insufficient permissions in host operating system" }, "DENIED", /privilege/],
      [{ connect: "The host certificate chain is not verified" }, "AUTH", /thumbprint/],
      [{ open: "Memory allocation failed. Out of memory." }, "THROTTLED", /readersPerHost/],
      [{ open: "The managed object has already been deleted" }, "NOT_FOUND", /new run/],
    ])("%j", async ([refusal, code, teaches]) => {
      const { source, disks, standIn, world } = await start({}, { readers: ["vddk", "folder"] });
      Object.assign(standIn.refusals, refusal);
      const found = await failureOf(source.open(disks[1]!));
      // Where another reader may work, it is tried, and the reason is told.
      const told = found.code === code ? found.message : world.notices.join("\n");
      expect(told).toMatch(teaches);
      expect(told).not.toContain(password);
      expect(nbdkits()).toEqual([]);
    });

    test.for<[what: string, vddk: VsphereOptions["vddk"], teaches: RegExp]>([
      ["nbdkit is missing", { nbdkit: "/nonexistent/nbdkit" }, /there is no nbdkit here/],
      ["its plugin is missing", { plugin: ["vddk-that-nobody-installed"] }, /cannot open plugin/],
      ["an argument is unknown", { arguments: ["colour=blue"] }, /unknown parameter/],
    ])("%s", async ([, vddk, teaches]) => {
      const { source, disks, standIn, world } = await start();
      const other = await world.source({ readers: ["vddk"], vddk: { ...standIn.options, ...vddk } });
      const found = await failureOf(other.open(disks[0]!));
      expect(found.code).toBe("UNSUPPORTED");
      expect(found.message).toMatch(teaches);
      await source[Symbol.asyncDispose]();
    });
  });

  test("the library is given the transports in the order of the options, and the notice tells them", async () => {
    const { disks, held, standIn, world } = await start();
    const transports = "nbd:san:hotadd:nbdssl";
    const ordered = await world.source({ readers: ["vddk"], vddk: { ...standIn.options, transports } });
    expect(Buffer.compare(await readAll(ordered, disks[0]!), held[0]!)).toBe(0);
    expect(standIn.logins.map((login) => login.transports)).toEqual([transports]);
    expect(world.notices.filter((line) => line.includes("is read by"))).toEqual([
      expect.stringMatching(/ is read by vddk \(the first of the transports nbd:san:hotadd:nbdssl that works\)$/),
    ]);
  });

  test("the notice of a reader tells the one transport that its bytes take", async () => {
    const { source, disks, standIn, world } = await start();
    const exported = await world.source({ readers: ["nfc"] });
    for (const place of [source, exported]) await (await place.open(disks[1]!))[Symbol.asyncDispose]();
    expect(standIn.logins.map((login) => login.transports)).toEqual(["nbdssl"]);
    expect(world.notices.filter((line) => line.includes("is read by"))).toEqual([
      expect.stringMatching(/ is read by vddk \(transport nbdssl\)$/),
      expect.stringMatching(/ is read by nfc \(HTTP\)$/),
    ]);
  });

  test("where the library cannot be used, the next reader of the preference is, and a notice says why", async () => {
    const { source, disks, held, standIn, world } = await start({}, { readers: ["vddk", "nfc"] });
    standIn.refusals.connect = "Cannot connect to the host";
    expect(Buffer.compare(await readAll(source, disks[0]!), held[0]!)).toBe(0);
    expect(world.notices.find((line) => line.includes("is read by nfc"))).toMatch(/after vddk: .*port 902/);
  });
});
