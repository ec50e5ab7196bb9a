import { randomUUID } from "node:crypto";
import { open, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startCloudstackSimulator, type CloudstackSimulator } from "../../src/cloudstack/cloudstack-simulator.ts";
import { ApiClient, until } from "./api-client.ts";

const gib = 2 ** 30;

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

describe("a volume", () => {
  let simulator: CloudstackSimulator;
  let client: ApiClient;
  beforeAll(async () => {
    simulator = await startCloudstackSimulator();
    client = new ApiClient(simulator);
  });
  afterAll(() => simulator.close());

  it("is made by a job, in GiB, and stays allocated until it is attached", async () => {
    const given = { name: "replica", zoneid: simulator.zoneId, size: "2" };
    const offering = { diskofferingid: simulator.diskOfferings["Custom"] ?? "" };
    const made = await client.call("createVolume", { ...given, ...offering });
    expect(Object.keys(made).toSorted()).toEqual(["id", "jobid"]);
    await until(async () => (await client.call("queryAsyncJobResult", { jobid: made.jobid })).jobstatus === 1);
    const job = await client.call("queryAsyncJobResult", { jobid: made.jobid });
    expect(job).toMatchObject({
      cmd: "org.apache.cloudstack.api.command.user.volume.CreateVolumeCmd",
      jobresultcode: 0,
      jobresulttype: "object",
      jobinstancetype: "Volume",
      jobinstanceid: made.id,
      jobresult: { volume: { id: made.id, name: "replica", state: "Allocated", type: "DATADISK", size: 2 * gib } },
    });
    const [listed] = (await client.call("listVolumes", { id: made.id })).volume;
    expect(listed.created).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000$/);
    expect(listed.storageid).toBeUndefined();
  });

  it("of the same name is another one", async () => {
    const [one, other] = [await client.volume("twin"), await client.volume("twin")];
    expect(one).not.toBe(other);
    expect((await client.call("listVolumes", { name: "twin" })).count).toBe(2);
  });

  it("is marked by tags in a call of their own, by which it is found", async () => {
    const id = await client.volume("tagged");
    const tags = { resourceids: id, resourcetype: "Volume", "tags[0].key": "diskferry", "tags[0].value": "job 1" };
    await client.done("createTags", tags);
    const found = await client.call("listVolumes", { "tags[0].key": "diskferry", "tags[0].value": "job 1" });
    expect(found.volume.map((each) => each.id)).toEqual([id]);
    expect(found.volume[0].tags).toMatchObject([{ key: "diskferry", value: "job 1", resourceid: id }]);
    expect(await client.call("listVolumes", { "tags[0].key": "diskferry", "tags[0].value": "job 2" })).toEqual({});
    expect((await client.job("createTags", tags)).jobresult.errorcode).toBe(530);
    await client.done("deleteTags", { resourceids: id, resourcetype: "Volume", "tags[0].key": "diskferry" });
    expect((await client.call("listVolumes", { id })).volume[0].tags).toEqual([]);
  });

  it.each([
    {
      what: "without an offering",
      parameters: { size: "1", diskofferingid: "" },
      text: /At least one of disk Offering/,
    },
    { what: "without a size", parameters: { size: "" }, text: /requires a custom size/ },
    { what: "too large", parameters: { size: "1025" }, text: /1025 GB is out of allowed range. Min: 1. Max: 1024/ },
    { what: "in a zone that is none", parameters: { zoneid: "x" }, text: /Invalid parameter zoneid value=x/ },
    {
      what: "with an offering that is none",
      parameters: { diskofferingid: "y" },
      text: /parameter diskofferingid value=y/,
    },
    { what: "without a name", parameters: { name: "" }, text: /missing parameter name/ },
    { what: "of a size that is no number", parameters: { size: "1.5" }, text: /parameter size value=1.5/ },
  ])("$what is refused with 431", async ({ parameters, text }) => {
    const good = {
      name: "n",
      zoneid: simulator.zoneId,
      size: "1",
      diskofferingid: simulator.diskOfferings["Custom"] ?? "",
    };
    const { status, body } = await client.send("createVolume", { ...good, ...parameters });
    expect(status).toBe(431);
    expect(body.errortext).toMatch(text);
  });

  it("of an offering with a size takes no other", async () => {
    const fixed = { name: "n", zoneid: simulator.zoneId, diskofferingid: simulator.diskOfferings["Small"] ?? "" };
    expect((await client.send("createVolume", { ...fixed, size: "1" })).body.errortext).toMatch(
      /does not allow custom/,
    );
    expect((await client.done("createVolume", fixed)).volume.size).toBe(5 * gib);
  });

  it("of another account is neither listed nor usable", async () => {
    const id = await client.volume("mine");
    const other = new ApiClient(simulator, simulator.other);
    expect(await other.call("listVolumes", { id })).toEqual({});
    expect(await other.call("listVolumes", { listall: "true" })).toEqual({});
    const { status, body } = await other.send("deleteVolume", { id });
    expect(status).toBe(531);
    expect(body.errortext).toContain("does not have permission");
    const admin = new ApiClient(simulator, simulator.admin);
    expect(await admin.call("listVolumes", { id })).toEqual({});
    expect((await admin.call("listVolumes", { id, listall: "true" })).volume[0]).toMatchObject({ id });
  });

  it("in a project is seen only where the project is named", async () => {
    const projectid = simulator.addProject("migration");
    const id = await client.volume("in project", 1, { projectid });
    expect(await client.call("listVolumes", { id, listall: "true" })).toEqual({});
    expect((await client.call("listVolumes", { id, projectid })).volume[0]).toMatchObject({ projectid });
    expect((await client.call("listVolumes", { id, projectid: "-1" })).count).toBe(1);
    expect((await client.call("listProjects")).project[0].name).toBe("migration");
    const stranger = new ApiClient(simulator, simulator.other);
    expect((await stranger.send("listVolumes", { projectid })).status).toBe(531);
  });

  it("that is attached cannot be deleted, and after its deletion is unknown", async () => {
    const id = await client.volume("doomed");
    await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    const refused = await client.send("deleteVolume", { id });
    expect(refused).toMatchObject({ status: 431, body: { cserrorcode: 4350 } });
    expect(refused.body.errortext).toBe("Please specify a volume that is not attached to any VM.");
    await client.done("detachVolume", { id });
    expect(await client.call("deleteVolume", { id })).toEqual({ success: true });
    const again = await client.send("deleteVolume", { id });
    expect(again.status).toBe(431);
    expect(again.body.errortext).toContain(`Invalid parameter id value=${id}`);
  });

  it("grows while it is attached, and does not shrink unasked", async () => {
    const id = await client.volume("growing");
    await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    const link = simulator.appliance.linkOf(id);
    await until(() => exists(link));
    await client.done("resizeVolume", { id, size: "3" });
    expect((await stat(link)).size).toBe(3 * gib);
    const { status, body } = await client.send("resizeVolume", { id, size: "1" });
    expect(status).toBe(431);
    expect(body.errortext).toContain("supplying the shrinkok parameter");
    await client.done("detachVolume", { id });
  });
});

describe("what an account may have", () => {
  it("is limited by count and by GiB, with 535 before anything is made", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    simulator.limit("volume", 2);
    await client.volume("second");
    const given = { name: "third", zoneid: simulator.zoneId, size: "1" };
    const offering = { diskofferingid: simulator.diskOfferings["Custom"] ?? "" };
    const { status, body } = await client.send("createVolume", { ...given, ...offering });
    expect(status).toBe(535);
    expect(body.errortext).toMatch(/Type = 'volume'.*Account Resource Limit = 2, Current Account Resource Amount = 2/);
    simulator.limit("volume", 20);
    simulator.limit("primaryStorage", 2);
    const large = await client.send("createVolume", { ...given, ...offering, size: "5" });
    expect(large.status).toBe(535);
    expect(large.body.errortext).toContain("primary_storage");
    expect(simulator.volumes().map((each) => each.name)).not.toContain("third");
    const limits = (await client.call("listResourceLimits", { resourcetype: "10" })).resourcelimit;
    expect(limits).toMatchObject([{ resourcetype: "10", max: 2 }]);
    expect((await client.call("listAccounts")).account[0]).toMatchObject({ volumelimit: "20", volumetotal: "2" });
  });

  it("is limited by the pool as well, which the attachment finds out", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    simulator.poolCapacity("primary-ceph", gib);
    const id = await client.volume("large", 5, { diskofferingid: simulator.diskOfferings["Custom Ceph"] ?? "" });
    const job = await client.job("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    expect(job).toMatchObject({ jobstatus: 2, jobresult: { errorcode: 530 } });
    expect(simulator.volumes().find((each) => each.id === id)?.state).toBe("Allocated");
    simulator.poolMaintenance("primary-zone", true);
    const other = await client.volume("other");
    expect((await client.job("attachVolume", { id: other, virtualmachineid: simulator.appliance.id })).jobstatus).toBe(
      2,
    );
  });
});

describe("a list", () => {
  it("comes in pages, is cut to one page without asking, and refuses larger ones", async () => {
    await using simulator = await startCloudstackSimulator({ settings: { pageSize: 3 } });
    const client = new ApiClient(simulator);
    for (let number = 0; number < 4; number++) await client.volume(`v${number}`);
    const all = await client.call("listVolumes");
    expect([all.count, all.volume.length]).toEqual([5, 3]);
    const second = await client.call("listVolumes", { page: "2", pagesize: "3" });
    expect([second.count, second.volume.length]).toEqual([5, 2]);
    expect(await client.call("listVolumes", { page: "3", pagesize: "3" })).toEqual({ count: 5 });
    expect(await client.call("listVolumes", { retrieveonlyresourcecount: "true" })).toEqual({ count: 5 });
    const large = await client.send("listVolumes", { page: "1", pagesize: "4" });
    expect([large.status, large.body.errortext]).toEqual([431, "Page size can not exceed max allowed page size: 3"]);
    expect((await client.send("listVolumes", { pagesize: "2" })).status).toBe(431);
    expect((await client.send("listVolumes", { page: "1" })).status).toBe(431);
    expect(await client.call("listVolumes", { name: "nothing" })).toEqual({});
  });
});

describe("the appliance's devices", () => {
  it("appear by serial after a while, with the volume's size and bytes, and go away", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const id = await client.volume("device");
    const { appliance } = simulator;
    await client.done("attachVolume", { id, virtualmachineid: appliance.id });
    const link = appliance.linkOf(id);
    expect(link).toBe(join(appliance.byId, `virtio-${id.replaceAll("-", "").slice(0, 20)}`));
    await until(() => exists(link));
    expect((await stat(link)).size).toBe(gib);
    await using device = await open(link, "r+");
    await device.write(Buffer.from("written inside the appliance"), 0, 28, 4096);
    expect((await simulator.volumeBytes(id, 4096, 28)).toString()).toBe("written inside the appliance");
    await client.done("detachVolume", { id });
    expect(await exists(link)).toBe(false);
    await device.write(Buffer.from("WRITTEN AFTER THE DETACHMENT"), 0, 28, 4096);
    expect((await simulator.volumeBytes(id, 4096, 28)).toString()).toBe("written inside the appliance");
  });

  it("are called otherwise on a SCSI bus", async () => {
    await using simulator = await startCloudstackSimulator({ devices: { bus: "scsi" } });
    const client = new ApiClient(simulator);
    const id = await client.volume("device");
    await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    await until(() => exists(simulator.appliance.linkOf(id)));
    const names = await readdir(simulator.appliance.byId);
    expect(names).toContain(`scsi-0QEMU_QEMU_HARDDISK_${id.replaceAll("-", "").slice(0, 20)}`);
    expect((await readdir(join(simulator.appliance.root, "dev"))).filter((each) => each.startsWith("sd"))).toHaveLength(
      2,
    );
  });

  it.each(["sys/bus/pci/rescan", "sys/class/scsi_host/host0/scan"])(
    "wait for a rescan by %s where they have to",
    async (file) => {
      await using simulator = await startCloudstackSimulator({ devices: { needsRescan: true, lagMs: 1 } });
      const client = new ApiClient(simulator);
      const id = await client.volume("device");
      await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
      await client.done("createTags", {
        resourceids: id,
        resourcetype: "Volume",
        "tags[0].key": "k",
        "tags[0].value": "v",
      });
      expect(await exists(simulator.appliance.linkOf(id))).toBe(false);
      await writeFile(join(simulator.appliance.root, file), "1");
      await until(() => exists(simulator.appliance.linkOf(id)));
      expect(simulator.appliance.rescans).toBeGreaterThan(0);
    },
  );

  it("stay away or lie about their size where a test wants it", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const [hidden, wrong] = [await client.volume("hidden"), await client.volume("wrong")];
    simulator.appliance.withhold(hidden);
    simulator.appliance.misreport(wrong, 512 * 2 ** 20);
    for (const id of [hidden, wrong])
      await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    await until(() => exists(simulator.appliance.linkOf(wrong)));
    expect((await stat(simulator.appliance.linkOf(wrong))).size).toBe(512 * 2 ** 20);
    expect(await exists(simulator.appliance.linkOf(hidden))).toBe(false);
  });

  it("hold what somebody left there where the storage does not clear volumes", async () => {
    await using simulator = await startCloudstackSimulator({ settings: { leftovers: true } });
    const client = new ApiClient(simulator);
    const id = await client.volume("dirty");
    await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    expect((await simulator.volumeBytes(id, 0, 4096)).equals(Buffer.alloc(4096))).toBe(false);
    expect((await readFile(simulator.volumeFile(simulator.volumesOf(simulator.appliance.id)[0] ?? ""))).length).toBe(
      2 ** 26,
    );
  });
});

describe("attaching", () => {
  it("takes the first free device id, never 3, and refuses one that is taken", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const ids: number[] = [];
    for (let number = 0; number < 4; number++) {
      const id = await client.volume(`v${number}`);
      ids.push((await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id })).volume.deviceid);
    }
    expect(ids).toEqual([1, 2, 4, 5]);
    const id = await client.volume("more");
    for (const [deviceid, text] of [
      ["3", /^deviceId should be 0,1,2,4-65$/],
      ["2", /^deviceId 2 is used by vol/],
    ] as const) {
      const job = await client.job("attachVolume", { id, virtualmachineid: simulator.appliance.id, deviceid });
      expect(job).toMatchObject({ jobstatus: 2, jobresultcode: 530 });
      expect(job.jobresult.errortext).toMatch(text);
    }
  });

  it("twice fails in the job with 431", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const id = await client.volume("v");
    await client.done("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    const job = await client.job("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    expect(job).toMatchObject({ jobstatus: 2, jobresultcode: 431, jobresult: { errorcode: 431 } });
    expect((await client.job("detachVolume", { id })).jobstatus).toBe(1);
    expect((await client.job("detachVolume", { id })).jobresult.errortext).toBe(
      "The specified volume is not attached to a VM.",
    );
  });

  it("by a job whose id the client chose happens once", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const id = await client.volume("v");
    const customjobid = randomUUID();
    const given = { id, virtualmachineid: simulator.appliance.id, customjobid };
    expect((await client.call("attachVolume", given)).jobid).toBe(customjobid);
    const { status, body } = await client.send("attachVolume", given);
    expect([status, body.errortext]).toEqual([431, `UUID: ${customjobid} already exists`]);
    await until(async () => (await client.call("queryAsyncJobResult", { jobid: customjobid })).jobstatus === 1);
    // A command that makes something has made its row before the id is looked at.
    const before = simulator.volumes().length;
    const offering = { diskofferingid: simulator.diskOfferings["Custom"] ?? "", zoneid: simulator.zoneId };
    expect((await client.send("createVolume", { name: "x", size: "1", ...offering, customjobid })).status).toBe(431);
    expect(simulator.volumes()).toHaveLength(before + 1);
  });
});
