import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startCloudstackSimulator, type CloudstackSimulator } from "../../src/cloudstack/cloudstack-simulator.ts";
import { releaseNames } from "../../src/cloudstack/releases.ts";
import { ApiClient, until } from "./api-client.ts";

describe("what goes wrong", () => {
  let simulator: CloudstackSimulator;
  let client: ApiClient;
  beforeEach(async () => {
    simulator = await startCloudstackSimulator();
    client = new ApiClient(simulator);
  });
  afterEach(() => simulator.close());

  it("is an error of any code, masked for tenants where the platform masks it", async () => {
    for (const code of [430, 431, 432, 530, 531, 532, 533, 534, 535, 536, 537]) {
      simulator.faults.add({
        command: "listZones",
        times: 1,
        action: { kind: "error", code, text: "pool p-7 is full" },
      });
      const { status, body } = await client.send("listZones");
      const masked = code === 530 || code === 533 || code === 534;
      expect([status, body.errorcode]).toEqual([code, code]);
      expect(body.errortext).toBe(
        masked ? "Internal error executing command, please contact your system administrator" : "pool p-7 is full",
      );
    }
    simulator.faults.add({ command: "listZones", times: 1, action: { kind: "error", code: 533, text: "full" } });
    const admin = new ApiClient(simulator, simulator.admin);
    expect((await admin.send("listZones")).body.errortext).toBe("full");
  });

  it("is a proxy's page", async () => {
    simulator.faults.add({ command: "listZones", times: 1, action: { kind: "status", status: 502, body: "<html>" } });
    const answer = await fetch(`${simulator.url}?command=listZones`);
    expect([answer.status, await answer.text()]).toEqual([502, "<html>"]);
  });

  it("is an answer that is lost after the command was done", async () => {
    simulator.faults.add({ command: "createVolume", times: 1, action: { kind: "lose-answer" } });
    await expect(client.volume("lost")).rejects.toThrow();
    expect(simulator.volumes().map((each) => each.name)).toContain("lost");
    simulator.faults.add({ command: "createVolume", times: 1, action: { kind: "drop" } });
    await expect(client.volume("dropped")).rejects.toThrow();
    expect(simulator.volumes().map((each) => each.name)).not.toContain("dropped");
  });

  it("is a job that fails, before or after its work", async () => {
    const id = await client.volume("v");
    const attach = { id, virtualmachineid: simulator.appliance.id };
    simulator.faults.add({ command: "attachVolume", times: 1, action: { kind: "job-fails", text: "host gone" } });
    expect(await client.job("attachVolume", attach)).toMatchObject({
      jobstatus: 2,
      jobresultcode: 530,
      jobresult: { errorcode: 530, errortext: "host gone" },
    });
    expect(simulator.volumesOf(simulator.appliance.id)).toHaveLength(1);
    simulator.faults.add({ command: "attachVolume", times: 1, action: { kind: "job-fails-late" } });
    expect((await client.job("attachVolume", attach)).jobstatus).toBe(2);
    expect(simulator.volumesOf(simulator.appliance.id)).toHaveLength(2);
  });

  it("is a job that hangs, which lists of its object and of jobs show", async () => {
    const id = await client.volume("v");
    simulator.faults.add({ command: "attachVolume", times: 1, action: { kind: "job-hangs" } });
    const { jobid } = await client.call("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    expect((await client.call("listVolumes", { id })).volume[0]).toMatchObject({ jobid, jobstatus: 0 });
    const jobs = (await client.call("listAsyncJobs", { startdate: "2026-01-01T00:00:00+0000" })).asyncjobs;
    expect(jobs.at(-1)).toMatchObject({ jobid, jobstatus: 0, jobinstanceid: id });
    expect(simulator.pendingJobs()).toBe(1);
    const stranger = new ApiClient(simulator, simulator.other);
    expect((await stranger.send("queryAsyncJobResult", { jobid })).status).toBe(531);
    expect(await stranger.call("listAsyncJobs")).toEqual({});
  });

  it("is a detachment that happens long after, on a volume attached again", async () => {
    const id = await client.volume("v");
    const attach = { id, virtualmachineid: simulator.appliance.id };
    await client.done("attachVolume", attach);
    simulator.faults.add({ command: "detachVolume", times: 1, action: { kind: "job-held" } });
    const { jobid } = await client.call("detachVolume", { id });
    await client.done("detachVolume", { id });
    await client.done("attachVolume", attach);
    await simulator.releaseJobs();
    expect((await client.call("queryAsyncJobResult", { jobid })).jobstatus).toBe(1);
    expect(simulator.volumesOf(simulator.appliance.id)).toHaveLength(1);
  });

  it("is a server that takes no jobs any more, and one that forgot old ones", async () => {
    const id = await client.volume("v");
    const { jobid } = await client.call("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    await until(async () => (await client.call("queryAsyncJobResult", { jobid })).jobstatus === 1);
    simulator.forgetJobs();
    expect((await client.send("queryAsyncJobResult", { jobid })).status).toBe(431);
    simulator.settings.maintenance = true;
    const refused = await client.send("detachVolume", { id });
    expect(refused.status).toBe(503);
    expect(refused.body.errortext).toMatch(/^Maintenance or Shutdown/);
    expect((await client.send("listZones")).status).toBe(200);
  });

  it("strikes by number of the call, so often, and lets a test act", async () => {
    const seen: number[] = [];
    simulator.faults.add({ command: "listZones", calls: [2], action: { kind: "run", run: () => void seen.push(2) } });
    for (let call = 0; call < 3; call++) await client.call("listZones");
    expect(seen).toEqual([2]);
    expect(simulator.calls.get("listZones")).toBe(3);
  });
});

describe("jobs of one machine", () => {
  it("are done one after the other", async () => {
    await using simulator = await startCloudstackSimulator({
      jobMs: (command) => (command === "attachVolume" ? 30 : 0),
    });
    const client = new ApiClient(simulator);
    const id = await client.volume("v");
    const attach = await client.call("attachVolume", { id, virtualmachineid: simulator.appliance.id });
    const stop = await client.call("stopVirtualMachine", { id: simulator.appliance.id });
    await until(async () => (await client.call("queryAsyncJobResult", { jobid: stop.jobid })).jobstatus === 1);
    expect((await client.call("queryAsyncJobResult", { jobid: attach.jobid })).jobstatus).toBe(1);
    expect(simulator.volumesOf(simulator.appliance.id)).toContain(id);
  });
});

describe("a release", () => {
  it.each(releaseNames)("%s tells its version", async (version) => {
    await using simulator = await startCloudstackSimulator({ version });
    const { capability } = await new ApiClient(simulator).call("listCapabilities");
    expect(capability).toMatchObject({
      cloudstackversion: version,
      kvmsnapshotenabled: version.startsWith("4.22"),
      allowuserexpungerecovervm: false,
    });
  });
});
