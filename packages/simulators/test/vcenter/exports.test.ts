import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { inflateSync } from "node:zlib";
import { afterEach, expect, test } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes } from "../../../../test/seed.ts";
import type { VcenterSimulator, VcenterSimulatorOptions } from "../../src/vcenter/vcenter-simulator.ts";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { ask, VimClient } from "./vim-client.ts";
import type { Answer } from "./vim-client.ts";

const run = promisify(execFile);
const size = (40 << 20) + 512;
const disk = 2000;
const open: VcenterSimulator[] = [];

afterEach(async () => {
  for (const each of open.splice(0)) await each.stop();
});

/** A machine with scattered data over two grain tables, zeroed parts and an odd end. */
async function start(
  options: VcenterSimulatorOptions = {},
): Promise<{ simulator: VcenterSimulator; client: VimClient; vm: string }> {
  const simulator = await startVcenterSimulator({
    tls: false,
    machines: [{ name: "web", disks: [{ size }, { size: 1 << 20 }] }],
    ...options,
  });
  open.push(simulator);
  const vm = simulator.machine("web").id;
  simulator.write(vm, disk, 1000, randomBytes(200_000, 1));
  simulator.write(vm, disk, 35 << 20, randomBytes(100_000, 2));
  simulator.write(vm, disk, size - 100, randomBytes(100, 3));
  simulator.trim(vm, disk, 65_536, 65_536);
  simulator.write(vm, 2001, 5, randomBytes(10, 4));
  return { simulator, client: await new VimClient(simulator).login(), vm };
}

async function lease(client: VimClient, snapshot: string): Promise<{ id: string; urls: string[] }> {
  const answer = await client.call("ExportSnapshot", ["VirtualMachineSnapshot", snapshot]);
  const id = answer.string("returnval") ?? "";
  const self: [string, string] = ["HttpNfcLease", id];
  await expect.poll(async () => (await client.properties(self, "state")).get("state")?.text).toBe("ready");
  const info = (await client.properties(self, "info")).get("info");
  return { id, urls: (info?.all("deviceUrl") ?? []).map((each) => each.string("url") ?? "") };
}

function get(client: VimClient, url: string, headers: Record<string, string> = {}): Promise<Answer> {
  return ask(url, { headers: { cookie: client.cookie ?? "", ...headers } });
}

/** Reads a stream-optimized VMDK from the format's description alone; throws unless it ends as it should. */
function decode(bytes: Buffer): Buffer {
  if (bytes.toString("latin1", 0, 4) !== "KDMV") throw new Error("no VMDK");
  const disk = Buffer.alloc(Number(bytes.readBigUInt64LE(12)) * 512);
  let at = Number(bytes.readBigUInt64LE(64)) * 512;
  for (;;) {
    if (at + 512 > bytes.length) throw new Error("truncated");
    const value = Number(bytes.readBigUInt64LE(at));
    const length = bytes.readUInt32LE(at + 8);
    if (length > 0) {
      const grain = inflateSync(bytes.subarray(at + 12, at + 12 + length));
      grain.copy(disk, value * 512, 0, Math.min(grain.length, disk.length - value * 512));
      at += Math.ceil((12 + length) / 512) * 512;
    } else if (bytes.readUInt32LE(at + 12) === 0) {
      if (at + 512 !== bytes.length) throw new Error("bytes after the end");
      return disk;
    } else {
      at += 512 + value * 512;
    }
  }
}

test("a lease serves every disk of a snapshot, byte for byte, while the guest goes on writing", async () => {
  const { simulator, client, vm } = await start();
  const snapshot = await client.snapshot(vm);
  simulator.write(vm, disk, 0, randomBytes(70_000, 9));
  const { id, urls } = await lease(client, snapshot);
  expect(urls).toHaveLength(2);
  for (const [index, url] of urls.entries()) {
    const answer = await get(client, url);
    expect(answer.status).toBe(200);
    const expected = simulator.readDisk(vm, disk + index, { snapshot });
    expect(decode(answer.bytes).equals(expected), `disk ${index}`).toBe(true);
  }
  await client.call("HttpNfcLeaseProgress", ["HttpNfcLease", id], "<percent>50</percent>");
  await client.call("HttpNfcLeaseComplete", ["HttpNfcLease", id]);
  expect((await get(client, urls[0] ?? "")).status).toBe(404);
  expect(simulator.alive.leases).toBe(0);
});

describeWithPeers(["qemu-img"], "qemu-img", () => {
  test("reads the export of a lease as the same disk", async () => {
    const { simulator, client, vm } = await start();
    const snapshot = await client.snapshot(vm);
    const { urls } = await lease(client, snapshot);
    const folder = await mkdtemp(join(tmpdir(), "diskferry-vmdk-"));
    try {
      const [vmdk, raw] = [join(folder, "disk.vmdk"), join(folder, "disk.raw")];
      await writeFile(vmdk, (await get(client, urls[0] ?? "")).bytes);
      const { stdout } = await run("qemu-img", ["info", "--output=json", vmdk]);
      expect(JSON.parse(stdout)).toMatchObject({ format: "vmdk", "virtual-size": size });
      await run("qemu-img", ["convert", "-f", "vmdk", "-O", "raw", vmdk, raw]);
      expect((await readFile(raw)).equals(simulator.readDisk(vm, disk, { snapshot }))).toBe(true);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

test("a link needs the session's cookie", async () => {
  const { client, vm } = await start();
  const { urls } = await lease(client, await client.snapshot(vm));
  expect((await ask(urls[0] ?? "")).status).toBe(401);
});

test("a lease without progress ends, its streams are cut and the fault is kept", async () => {
  const { client, vm } = await start({ leaseTimeoutSeconds: 0.2, bytesPerSecond: 100_000 });
  const { id, urls } = await lease(client, await client.snapshot(vm));
  await expect(get(client, urls[0] ?? "")).rejects.toThrow();
  const state = await client.properties(["HttpNfcLease", id], "state", "error");
  expect(state.get("state")?.text).toBe("error");
  expect(state.get("error")?.child("fault")?.xsiType).toBe("Timedout");
  const late = client.call("HttpNfcLeaseProgress", ["HttpNfcLease", id], "<percent>1</percent>");
  await expect(late).rejects.toMatchObject({ type: "Timedout" });
});

test("an export can end early as if it were whole, and only its missing end tells", async () => {
  const { simulator, client, vm } = await start();
  const { urls } = await lease(client, await client.snapshot(vm));
  simulator.inject({ method: "GET /nfc", times: 1, action: { kind: "truncate", bytes: 150_000, clean: true } });
  const short = await get(client, urls[0] ?? "");
  expect(short).toMatchObject({ status: 200 });
  expect(short.bytes).toHaveLength(150_000);
  expect(() => decode(short.bytes)).toThrow();
  simulator.inject({ method: "GET /nfc", times: 1, action: { kind: "truncate", bytes: 150_000, clean: false } });
  await expect(get(client, urls[0] ?? "")).rejects.toThrow();
  expect(() => decode(short.bytes.subarray(0, 1000))).toThrow("truncated");
});

test("removing the snapshot under a lease ends the lease", async () => {
  const { simulator, client, vm } = await start();
  const snapshot = await client.snapshot(vm);
  const { id, urls } = await lease(client, snapshot);
  simulator.removeSnapshot(snapshot);
  expect((await get(client, urls[0] ?? "")).status).toBe(404);
  expect((await client.properties(["HttpNfcLease", id], "state")).get("state")?.text).toBe("error");
});

test("ExportVm needs a machine that is off", async () => {
  const { simulator, client, vm } = await start();
  const exported = client.call("ExportVm", ["VirtualMachine", vm]);
  await expect(exported).rejects.toMatchObject({ type: "InvalidPowerState" });
  simulator.machine(vm).shutDown();
  expect((await client.call("ExportVm", ["VirtualMachine", vm])).string("returnval")).toContain("session[");
});

test("a host names itself * in the links of its leases, which 9.0 accompany with the certificate", async () => {
  const { client, vm } = await start({ wildcardLeaseHost: true });
  const { urls } = await lease(client, await client.snapshot(vm));
  expect(urls[0]).toMatch(/^http:\/\/\*\/nfc\//);
});

test("the datastore serves ranges of a flat file that nobody locks, and its descriptor", async () => {
  const { simulator, client, vm } = await start();
  const at = (path: string, query = "dcPath=DC0&dsName=datastore1"): string =>
    `${simulator.url}/folder/${path}?${query}`;
  const flat = at("web/web-flat.vmdk");
  expect((await get(client, flat)).status).toBe(500);
  const snapshot = await client.snapshot(vm);
  simulator.write(vm, disk, 1000, randomBytes(50, 7));
  const expected = simulator.readDisk(vm, disk, { snapshot });
  const part = await get(client, flat, { range: "bytes=900-1099" });
  expect(part.status).toBe(206);
  expect(part.headers["content-range"]).toBe(`bytes 900-1099/${size}`);
  expect(part.bytes.equals(expected.subarray(900, 1100))).toBe(true);
  expect((await get(client, flat, { range: "bytes=-100" })).bytes.equals(expected.subarray(size - 100))).toBe(true);
  expect((await get(client, flat, { range: `bytes=${size}-` })).status).toBe(416);
  expect((await get(client, flat)).bytes.equals(expected)).toBe(true);
  expect((await get(client, at("web/web.vmdk"))).bytes.toString()).toContain('VMFS "web-flat.vmdk"');
  expect((await get(client, at("web/nothing.vmdk"))).status).toBe(404);
  expect((await get(client, at("web/web-flat.vmdk", "dcPath=DC0&dsName=other"))).status).toBe(404);
  expect((await ask(flat)).status).toBe(401);
  const basic = Buffer.from(`${simulator.userName}:${simulator.password}`).toString("base64");
  const head = await ask(flat, { method: "HEAD", headers: { authorization: `Basic ${basic}` } });
  expect([head.status, head.headers["content-length"]]).toEqual([200, String(size)]);
});
