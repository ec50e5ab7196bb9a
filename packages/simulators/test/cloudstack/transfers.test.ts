import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { startCloudstackSimulator, type CloudstackSimulator } from "../../src/cloudstack/cloudstack-simulator.ts";
import { writeQcow2 } from "../../src/cloudstack/qcow2-image.ts";
import { SparseDisk } from "../../src/cloudstack/sparse-disk.ts";
import { ApiClient, type Json } from "./api-client.ts";

const run = promisify(execFile);
const mib = 2 ** 20;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-transfers-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("extracting", () => {
  let simulator: CloudstackSimulator;
  let client: ApiClient;
  let volume: string;
  beforeAll(async () => {
    simulator = await startCloudstackSimulator({ machines: [{ name: "db", disks: [3 * mib + 512] }] });
    client = new ApiClient(simulator);
    volume = simulator.volumesOf(simulator.machines[0] ?? "")[0] ?? "";
    await simulator.writeVolume(volume, 70_000, Buffer.from("some bytes"));
    await simulator.writeVolume(volume, 3 * mib, Buffer.alloc(512, 7));
  });
  afterAll(() => simulator.close());

  it("a volume wants its machine stopped", async () => {
    const job = await client.job("extractVolume", { id: volume, zoneid: simulator.zoneId, mode: "HTTP_DOWNLOAD" });
    expect(job.jobresult.errortext).toMatch(/either detached or the VM should be in stopped state/);
  });

  it("a snapshot gives a secret URL that serves ranges, is given again, and expires", async () => {
    const { snapshot } = await client.done("createSnapshot", { volumeid: volume });
    const given = { id: snapshot.id, zoneid: simulator.zoneId };
    const first = (await client.done("extractSnapshot", given)).snapshot;
    expect(first).toMatchObject({ id: snapshot.id, state: "DOWNLOAD_URL_CREATED" });
    expect(first.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/userdata\/[0-9a-f-]{36}\/.*\.qcow2$/);
    expect((await client.done("extractSnapshot", given)).snapshot.url).toBe(first.url);
    const whole = Buffer.from(await (await fetch(first.url)).arrayBuffer());
    expect(whole.subarray(0, 4).toString("latin1")).toBe("QFI\xfb");
    const part = await fetch(first.url, { headers: { range: "bytes=100-199" } });
    expect([part.status, part.headers.get("content-range")]).toEqual([206, `bytes 100-199/${whole.length}`]);
    expect(Buffer.from(await part.arrayBuffer())).toEqual(whole.subarray(100, 200));
    expect((await fetch(first.url, { headers: { range: `bytes=${whole.length}-` } })).status).toBe(416);
    simulator.faults.add({ command: "download", times: 1, action: { kind: "lose-answer" } });
    await expect(fetch(first.url).then((answer) => answer.arrayBuffer())).rejects.toThrow();
    simulator.advance(5 * 3_600_000);
    expect((await fetch(first.url)).status).toBe(404);
    expect((await client.done("extractSnapshot", given)).snapshot.url).not.toBe(first.url);
  });

  it("a snapshot is unknown before 4.20", async () => {
    await using old = await startCloudstackSimulator({ version: "4.19.1.0" });
    const person = new ApiClient(old);
    expect((await person.send("extractSnapshot", { id: "x", zoneid: old.zoneId })).status).toBe(401);
    expect(await person.call("listApis", { name: "extractSnapshot" })).toEqual({});
  });
});

describe("uploading", () => {
  let simulator: CloudstackSimulator;
  let client: ApiClient;
  let raw: Buffer;
  let image: Buffer;
  beforeAll(async () => {
    simulator = await startCloudstackSimulator();
    client = new ApiClient(simulator);
    const disk = await SparseDisk.create(join(folder, "upload.raw"), 2 * mib);
    await disk.write(mib, Buffer.from("uploaded bytes"));
    await writeQcow2(disk, join(folder, "upload.qcow2"));
    raw = await readFile(join(folder, "upload.raw"));
    image = await readFile(join(folder, "upload.qcow2"));
  });
  afterAll(() => simulator.close());

  const promise = async (format = "QCOW2", more: Record<string, string> = {}): Promise<Json> =>
    (await client.call("getUploadParamsForVolume", { name: "up", zoneid: simulator.zoneId, format, ...more }))
      .getuploadparams;
  const headersOf = ({ signature, metadata, expires }: Json): Record<string, string> => ({
    "X-signature": signature,
    "X-metadata": metadata,
    "X-expires": expires,
  });
  const send = async (params: Json, bytes: Buffer, more: Record<string, string> = {}): Promise<[number, string]> => {
    const form = new FormData();
    form.set("file", new Blob([Uint8Array.from(bytes)]), "disk.qcow2");
    const answer = await fetch(params.postURL, {
      method: "POST",
      body: form,
      headers: { ...headersOf(params), ...more },
    });
    return [answer.status, await answer.text()];
  };
  const stateOf = (id: string): string | undefined => simulator.volumes().find((each) => each.id === id)?.state;

  it.each(["QCOW2", "RAW"])(
    "%s makes a volume that is copied to primary storage when it is attached",
    async (format) => {
      const params = await promise(format);
      expect(stateOf(params.id)).toBe("NotUploaded");
      expect((await client.send("deleteVolume", { id: params.id })).body.errortext).toMatch(/getting uploaded/);
      expect(await send(params, format === "RAW" ? raw : image)).toEqual([200, "upload successful."]);
      expect(stateOf(params.id)).toBe("Uploaded");
      expect(await simulator.volumeBytes(params.id, mib, 14)).toEqual(Buffer.from("uploaded bytes"));
      await client.done("attachVolume", { id: params.id, virtualmachineid: simulator.appliance.id });
      expect(stateOf(params.id)).toBe("Ready");
    },
  );

  it("works once", async () => {
    const params = await promise();
    await send(params, image);
    expect(await send(params, image)).toEqual([400, "The one time post url is already used"]);
  });

  it("checks signature, expiry, length, form, format and checksum", async () => {
    expect(await send(await promise(), image, { "X-signature": "AAAA" })).toEqual([
      400,
      "signature validation failed.",
    ]);
    expect(await send(await promise(), image, { "X-metadata": "" })).toEqual([
      400,
      "signature or expires or metadata is missing",
    ]);
    const params = await promise();
    const empty = await fetch(params.postURL, { method: "POST", headers: headersOf(params) });
    expect(await empty.text()).toMatch(/^content length is not set/);
    const bare = await fetch(params.postURL, {
      method: "POST",
      body: Uint8Array.from(image),
      headers: headersOf(params),
    });
    expect([bare.status, stateOf(params.id)]).toEqual([422, "UploadError"]);
    expect((await send(await promise("QCOW2"), raw))[1]).toMatch(/^File type mismatch/);
    expect((await send(await promise("RAW"), image))[1]).toMatch(/^File type mismatch/);
    expect((await send(await promise("QCOW2", { checksum: "0".repeat(32) }), image))[1]).toBe(
      "checksum validation failed",
    );
    const late = await promise();
    simulator.advance(5 * 3_600_000);
    expect((await send(late, image))[1]).toBe("request not valid anymore");
    expect(
      (await client.send("getUploadParamsForVolume", { name: "x", zoneid: simulator.zoneId, format: "OVA" })).status,
    ).toBe(431);
  });
});

describe("importing", () => {
  it("adopts files on primary storage, for root administrators", async () => {
    await using simulator = await startCloudstackSimulator();
    const [client, admin] = [new ApiClient(simulator), new ApiClient(simulator, simulator.admin)];
    const storageid = simulator.pools["primary-zone"] ?? "";
    await simulator.addStray("primary-zone", "disk-1.qcow2", Buffer.from("adopt me"), 4 * mib);
    await simulator.addStray("primary-zone", "root.qcow2", Buffer.from("boot me"), 4 * mib);
    for (const command of ["importVolume", "importVm", "unmanageVolume", "listVolumesForImport"])
      expect((await client.send(command, { storageid, path: "disk-1.qcow2" })).status).toBe(432);
    expect((await admin.call("listVolumesForImport", { storageid })).count).toBe(2);
    const owner = { account: "tenant", domainid: (await client.call("listAccounts")).account[0].domainid };
    const { volume } = await admin.done("importVolume", { storageid, path: "disk-1.qcow2", name: "adopted", ...owner });
    expect((await client.call("listVolumes", { id: volume.id })).volume[0]).toMatchObject({
      name: "adopted",
      state: "Ready",
    });
    expect((await admin.call("listVolumesForImport", { storageid })).count).toBe(1);
    expect((await simulator.volumeBytes(volume.id, 0, 8)).toString()).toBe("adopt me");
    const twice = await admin.job("importVolume", { storageid, path: "disk-1.qcow2" });
    expect(twice.jobresult.errortext).toBe("Volume is already managed by CloudStack: disk-1.qcow2");

    const machine = {
      importsource: "shared",
      hypervisor: "KVM",
      zoneid: simulator.zoneId,
      clusterid: (await admin.call("listClusters")).cluster[0].id,
      storageid,
      diskpath: "root.qcow2",
      networkid: simulator.networks["shared"] ?? "",
      serviceofferingid: simulator.serviceOfferings["Small Instance"] ?? "",
      name: "adopted-vm",
      ...owner,
    };
    const said = async (given: Record<string, string>): Promise<string> =>
      (await admin.job("importVm", { ...machine, ...given })).jobresult.errortext;
    expect(await said({ diskpath: "disk-1.qcow2" })).toBe("Disk image is already in use");
    expect(await said({ diskpath: "nowhere.qcow2" })).toBe("Disk not found or is invalid");
    expect(await said({ networkid: "" })).toMatch(/^Network is required/);
    expect(await said({ importsource: "local" })).toMatch(/^Host is required/);
    expect(await said({ hypervisor: "VMware" })).toMatch(/not supported for hypervisor/);
    const imported = await admin.done("importVm", machine);
    // As the platform leaves it: off, and its root shows device id 1.
    expect(imported.virtualmachine).toMatchObject({ name: "adopted-vm", state: "Stopped", rootdeviceid: 1 });
    expect(
      (await simulator.volumeBytes(simulator.volumesOf(imported.virtualmachine.id)[0] ?? "", 0, 7)).toString(),
    ).toBe("boot me");
  });

  it("refuses what the server refuses, by its words", async () => {
    await using simulator = await startCloudstackSimulator();
    const admin = new ApiClient(simulator, simulator.admin);
    const said = async (path: string, pool = "primary-zone", given: Record<string, string> = {}): Promise<string> =>
      (await admin.job("importVolume", { storageid: simulator.pools[pool] ?? "", path, ...given })).jobresult.errortext;
    const folder = simulator.poolFolder("primary-zone");
    await simulator.addStray("primary-zone", "good.qcow2", Buffer.from("good"), mib);
    const image = await readFile(join(folder, "good.qcow2"));
    await writeFile(join(folder, "raw.qcow2"), Buffer.alloc(4096));
    const backed = Buffer.from(image);
    backed.writeBigUInt64BE(512n, 8);
    await writeFile(join(folder, "backed.qcow2"), backed);
    const encrypted = Buffer.from(image);
    encrypted.writeUInt32BE(1, 32);
    await writeFile(join(folder, "encrypted.qcow2"), encrypted);
    simulator.lockFile("primary-zone", "good.qcow2", true);
    expect(await said("good.qcow2")).toBe("Locked volume cannot be imported or unmanaged.");
    simulator.lockFile("primary-zone", "good.qcow2", false);
    expect(await said("missing.qcow2")).toBe("Cannot find volume on storage pool: missing.qcow2");
    expect(await said("../good.qcow2")).toMatch(/^Cannot find volume/);
    expect(await said("raw.qcow2")).toMatch(/The file format is raw, but expected to be QCOW2/);
    expect(await said("backed.qcow2")).toBe("Volume with backing file cannot be imported or unmanaged.");
    expect(await said("encrypted.qcow2")).toBe("Encrypted volume cannot be imported or unmanaged.");
    expect(await said("x", "powerflex")).toMatch(/not supported for pool type PowerFlex on hypervisor KVM/);
    const local = { diskofferingid: simulator.diskOfferings["Custom Local"] ?? "" };
    expect(await said("good.qcow2", "primary-zone", local)).toMatch(/should use shared storage/);
    const ceph = { diskofferingid: simulator.diskOfferings["Custom Ceph"] ?? "" };
    expect(await said("good.qcow2", "primary-zone", ceph)).toMatch(/storage tags are not compatible/);
    simulator.poolMaintenance("primary-zone", true);
    expect(await said("good.qcow2")).toBe("Storage pool primary-zone is in maintenance");
  });

  it("forgets a volume and leaves its file, with what a guest wrote", async () => {
    await using simulator = await startCloudstackSimulator();
    const admin = new ApiClient(simulator, simulator.admin);
    const storageid = simulator.pools["primary-zone"] ?? "";
    await simulator.addStray("primary-zone", "disk.qcow2", Buffer.from("before"), mib);
    const { volume } = await admin.done("importVolume", { storageid, path: "disk.qcow2" });
    const virtualmachineid = simulator.appliance.id;
    await admin.done("attachVolume", { id: volume.id, virtualmachineid });
    expect((await admin.job("unmanageVolume", { id: volume.id })).jobresult.errortext).toMatch(/is attached to VM/);
    await simulator.writeVolume(volume.id, 0, Buffer.from("after!"));
    await admin.done("detachVolume", { id: volume.id });
    await admin.done("unmanageVolume", { id: volume.id });
    expect(simulator.volumes().map(({ id }) => id)).not.toContain(volume.id);
    const again = await admin.done("importVolume", { storageid, path: "disk.qcow2" });
    expect(again.volume.id).not.toBe(volume.id);
    expect((await simulator.volumeBytes(again.volume.id, 0, 6)).toString()).toBe("after!");
    await admin.call("deleteVolume", { id: again.volume.id });
    expect((await admin.call("listVolumesForImport", { storageid })).count).toBeUndefined();
  });

  it("of volumes came with 4.19.1", async () => {
    await using old = await startCloudstackSimulator({ version: "4.19.0.0" });
    const admin = new ApiClient(old, old.admin);
    expect((await admin.send("importVolume", { storageid: old.pools["primary-zone"] ?? "", path: "x" })).status).toBe(
      401,
    );
    expect((await admin.call("listApis", { name: "importVm" })).count).toBe(1);
  });
});

describe("templates", () => {
  it("are made of volumes that no running machine has, and of snapshots", async () => {
    await using simulator = await startCloudstackSimulator({
      machines: [{ name: "db", disks: [mib], state: "Running" }],
    });
    const client = new ApiClient(simulator);
    const [volumeid = ""] = simulator.volumesOf(simulator.machines[0] ?? "");
    await simulator.writeVolume(volumeid, 0, Buffer.from("template me"));
    const ostypeid = (await client.call("listOsTypes")).ostype[0].id;
    const running = await client.send("createTemplate", { name: "t", ostypeid, volumeid });
    expect(running.status).toBe(530);
    expect((await client.send("createTemplate", { name: "t", ostypeid })).status).toBe(431);
    const { snapshot } = await client.done("createSnapshot", { volumeid });
    const both = { name: "t", ostypeid, volumeid, snapshotid: snapshot.id };
    expect((await client.send("createTemplate", both)).status).toBe(431);
    const { template } = await client.done("createTemplate", { name: "t", ostypeid, snapshotid: snapshot.id });
    const mine = (await client.call("listTemplates", { templatefilter: "self" })).template;
    expect(mine).toMatchObject([{ id: template.id, name: "t", isready: true, ispublic: false, size: mib }]);
    const machine = {
      templateid: template.id,
      serviceofferingid: simulator.serviceOfferings["Small Instance"] ?? "",
      zoneid: simulator.zoneId,
      name: "copy",
      startvm: "false",
    };
    const { virtualmachine } = await client.done("deployVirtualMachine", machine);
    const [root = ""] = simulator.volumesOf(virtualmachine.id);
    expect((await simulator.volumeBytes(root, 0, 11)).toString()).toBe("template me");
    expect((await client.job("deleteTemplate", { id: template.id })).jobresult.errortext).toMatch(/\[1\] VM instances/);
    await client.done("deleteTemplate", { id: template.id, forced: "true" });
    expect((await simulator.volumeBytes(root, 0, 11)).toString()).toBe("template me");
    const small = simulator.templates["tiny Linux"] ?? "";
    expect((await client.job("deleteTemplate", { id: small })).jobresult.errorcode).toBe(531);
  });

  it("have short names in old releases", async () => {
    await using old = await startCloudstackSimulator({
      version: "4.20.0.0",
      machines: [{ name: "db", disks: [mib], state: "Stopped" }],
    });
    const client = new ApiClient(old);
    const [volumeid = ""] = old.volumesOf(old.machines[0] ?? "");
    const ostypeid = (await client.call("listOsTypes")).ostype[0].id;
    expect((await client.send("createTemplate", { name: "x".repeat(33), ostypeid, volumeid })).status).toBe(431);
    await client.done("createTemplate", { name: "x".repeat(32), ostypeid, volumeid });
  });
});

it("an upload that nobody began is given up after an hour, and can be deleted then", async () => {
  await using simulator = await startCloudstackSimulator();
  const client = new ApiClient(simulator);
  const { id } = (
    await client.call("getUploadParamsForVolume", { name: "x", zoneid: simulator.zoneId, format: "QCOW2" })
  ).getuploadparams;
  expect((await client.send("deleteVolume", { id })).status).toBe(431);
  simulator.advance(2 * 3_600_000);
  simulator.advance(-2 * 3_600_000);
  expect((await client.call("listVolumes", { id })).volume[0].state).toBe("UploadAbandoned");
  expect((await client.send("deleteVolume", { id })).status).toBe(200);
});

describeWithPeers(["qemu-img"], "the images", () => {
  it("are what qemu-img takes for whole", async () => {
    const disk = await SparseDisk.create(join(folder, "judge.raw"), 40 * mib + 512);
    for (const offset of [0, 65_535, 7 * mib, 40 * mib])
      await disk.write(offset, Buffer.alloc(512, 1 + (offset % 251)));
    const image = join(folder, "judge.qcow2");
    await writeQcow2(disk, image);
    await run("qemu-img", ["check", "-q", image]);
    await run("qemu-img", ["compare", "-q", "-f", "raw", "-F", "qcow2", disk.path, image]);
  });

  it("made by qemu-img, compressed or not, are read as they are", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const bytes = Buffer.alloc(3 * mib);
    for (let at = 0; at < bytes.length; at += 4096) bytes.writeUInt32LE(at * 7 + 1, at);
    bytes.fill(0, mib, 2 * mib);
    await writeFile(join(folder, "source.raw"), bytes);
    for (const options of [[], ["-c"]]) {
      const image = join(folder, `peer${options.join("")}.qcow2`);
      await run("qemu-img", ["convert", ...options, "-f", "raw", "-O", "qcow2", join(folder, "source.raw"), image]);
      const given = { name: "peer", zoneid: simulator.zoneId, format: "QCOW2" };
      const params = (await client.call("getUploadParamsForVolume", given)).getuploadparams;
      const form = new FormData();
      form.set("file", new Blob([await readFile(image)]), "disk.qcow2");
      const headers = {
        "X-signature": params.signature,
        "X-metadata": params.metadata,
        "X-expires": params.expires,
      };
      const answer = await fetch(params.postURL, { method: "POST", body: form, headers });
      expect(await answer.text()).toBe("upload successful.");
      expect((await simulator.volumeBytes(params.id, 0, bytes.length)).equals(bytes)).toBe(true);
    }
  });
});
