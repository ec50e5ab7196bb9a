import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { VsphereInventory, referenceOf } from "../../src/inventory/vsphere-inventory.ts";
import { vspherePower } from "../../src/inventory/vsphere-power.ts";
import { provider } from "../../src/provider.ts";
import { missingPrivileges, privileges } from "../../src/preflight/privileges.ts";
import { faultOf } from "../../src/vim/vim-fault.ts";
import {
  consolidate,
  createSnapshot,
  listSnapshots,
  needsConsolidation,
  removeSnapshot,
  snapshotDisks,
} from "../../src/vim/snapshot-calls.ts";
import { queryChangedDiskAreas, readTrackingState, setTracking } from "../../src/vim/tracking-calls.ts";
import { VimClient } from "../../src/vim/vim-client.ts";
import { connectVsphere, type VsphereConnection } from "../../src/vsphere-connection.ts";
import { startVcsim, type Vcsim, vcsimProgram } from "./start-vcsim.ts";

// What another team's server says is right: envelopes, sessions, paging, tasks, snapshots and /folder. It has no change
// tracking and no VI/JSON.
describeWithPeers([vcsimProgram], "govmomi's simulator", () => {
  let vcsim: Vcsim;
  let connection: VsphereConnection;
  let inventory: VsphereInventory;
  const notices: string[] = [];

  beforeAll(async () => {
    vcsim = await startVcsim("-tls=false", "-vm", "4");
    const { url, username, password } = vcsim;
    connection = await connectVsphere({ url, username, password }, { notice: (line) => void notices.push(line) });
    inventory = new VsphereInventory(connection);
  });

  afterAll(async () => {
    await inventory?.[Symbol.asyncDispose]();
    await connection?.[Symbol.asyncDispose]();
    await vcsim?.[Symbol.asyncDispose]();
  });

  /** A client whose session another one ended. */
  async function loggedOutElsewhere(): Promise<VimClient> {
    const { username: userName, password } = vcsim;
    const client = await VimClient.connect({ url: new URL(vcsim.url), credentials: { userName, password } });
    const { http, cookie = "" } = client;
    const body =
      `<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><Logout xmlns="urn:vim25">` +
      `<_this type="SessionManager">SessionManager</_this></Logout></Body></Envelope>`;
    await http.request("/sdk", { headers: { cookie, "content-type": "text/xml" }, body, operation: "Logout" });
    return client;
  }

  test("tells its version, and is spoken to in SOAP", () => {
    const { client } = connection;
    expect([client.about.kind, client.protocol]).toEqual(["vcenter", "soap"]);
    expect(client.apiVersion).toBe(client.about.apiVersion);
    expect(client.cookie).toMatch(/^vmware_soap_session=/);
    expect(connection.placeId).toMatch(/^[0-9a-f-]{36}$/);
  });

  test("refuses a wrong password by the fault that we know", async () => {
    const { url, username } = vcsim;
    const failure = connectVsphere({ url, username, password: "wrong" });
    await expect(failure).rejects.toMatchObject({ code: "AUTH", cause: { type: "InvalidLogin" } });
  });

  test("lists its machines with paths, disks, cards and power", async () => {
    const found = [];
    for await (const machine of inventory.machines()) found.push(machine);
    expect(found.map(({ name }) => name).sort()).toEqual(
      ["DC0_C0_RP0_VM0", "DC0_C0_RP0_VM1", "DC0_C0_RP0_VM2", "DC0_C0_RP0_VM3"].concat([
        "DC0_H0_VM0",
        "DC0_H0_VM1",
        "DC0_H0_VM2",
        "DC0_H0_VM3",
      ]),
    );
    const machine = found.find(({ name }) => name === "DC0_H0_VM0");
    expect(machine).toMatchObject({ power: "on", data: { path: "DC0/vm/DC0_H0_VM0" } });
    expect(machine?.disks).toMatchObject([{ size: 10 * 2 ** 30, boot: true }]);
    expect(machine?.disks[0]?.ineligible).toBeUndefined();
    expect(machine?.disks[0]?.data).toMatchObject({ datastore: "LocalDS_0" });
    expect(machine?.spec?.networkCards?.[0]?.mac).toMatch(/^[0-9a-f:]{17}$/);
    expect(machine?.spec).toMatchObject({ cpus: 1, memoryBytes: 32 * 2 ** 20, firmware: "bios" });
  });

  test("finds a machine by path, moref, UUID, name and id", async () => {
    const machine = await inventory.machine("DC0/vm/DC0_H0_VM1");
    const { moref, instanceUuid } = machine.data as { moref: string; instanceUuid: string };
    for (const name of [moref, instanceUuid, "DC0_H0_VM1", machine.id]) {
      expect((await inventory.machine(name)).id, name).toBe(machine.id);
    }
    const failure = inventory.machine("DC0_H0_VM9");
    await expect(failure).rejects.toMatchObject({ code: "NOT_FOUND", message: /did you mean .*DC0_H0_VM1/ });
  });

  test("makes, lists and removes snapshots by tasks", async () => {
    const { client } = connection;
    const machine = referenceOf(await inventory.machine("DC0_H0_VM0"));
    const made = await createSnapshot(client, machine, {
      name: "s-1",
      description: "of a test <&>",
      quiesce: { kind: "guest", timeoutMinutes: 5 },
    });
    const plain = await createSnapshot(client, machine, { name: "s-2", description: "" });
    const nodes = await listSnapshots(client, machine);
    expect(nodes).toMatchObject([
      { ref: made, name: "s-1", description: "of a test <&>", parent: undefined },
      { ref: plain, name: "s-2", parent: made },
    ]);
    expect(await snapshotDisks(client, made)).toMatchObject([{ capacity: 10 * 2 ** 30 }]);
    await removeSnapshot(client, plain);
    await removeSnapshot(client, made);
    expect(await listSnapshots(client, machine)).toEqual([]);
    expect(await needsConsolidation(client, machine)).toBe(false);
    // This simulator has none; it says so by the fault that an old release would use.
    await expect(consolidate(client, machine)).rejects.toMatchObject({ code: "UNSUPPORTED" });
    await expect(snapshotDisks(client, made)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("takes the flag of change tracking, and says that it cannot list changes", async () => {
    const { client } = connection;
    const machine = referenceOf(await inventory.machine("DC0_H0_VM0"));
    await setTracking(client, machine, { enabled: true, bySlot: new Map([["scsi0:0", true]]) });
    const state = await readTrackingState(client, machine);
    expect([state.enabled, state.bySlot.get("scsi0:0")]).toEqual([true, true]);
    const query = { deviceKey: 2000, startOffset: 0, changeId: "*" };
    const failure = await queryChangedDiskAreas(client, machine, query).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "UNSUPPORTED" });
    expect(faultOf(failure)?.type).toBe("MethodNotFound");
  });

  test("switches machines off and on, and asks their guests", async () => {
    const power = vspherePower(connection);
    const machine = await inventory.machine("DC0_H0_VM2");
    await power.powerOff(machine);
    expect(await power.state(machine)).toBe("off");
    await power.powerOff(machine);
    await power.powerOn(machine);
    expect(await power.state(machine)).toBe("on");
    await power.shutdown(machine);
    expect(await power.state(machine)).toBe("off");
  });

  test("serves ranges of a datastore's file to the session's cookie", async () => {
    const { client } = connection;
    const path = "/folder/diskferry-test.bin?dcPath=DC0&dsName=LocalDS_0";
    const headers = { cookie: client.cookie ?? "" };
    const put = await client.http.request(path, { method: "PUT", headers, body: "abcdefgh", operation: "upload" });
    expect(put.status).toBeLessThan(300);
    const ranged = { method: "GET", headers: { ...headers, range: "bytes=2-5" }, operation: "read datastore" } as const;
    const { status, body, header } = await client.http.stream(path, ranged);
    const parts: Buffer[] = [];
    for await (const part of body) parts.push(part as Buffer);
    expect([status, header("content-range"), Buffer.concat(parts).toString()]).toEqual([206, "bytes 2-5/8", "cdef"]);
  });

  test("tells privileges by the session's key", async () => {
    const { client } = connection;
    const machine = referenceOf(await inventory.machine("DC0_H0_VM0"));
    const missing = await missingPrivileges(client, privileges, { machine, datastores: [] });
    expect(missing).toEqual([]);
  });

  test("lets a worker join by a ticket, and ends a session that is logged out elsewhere", async () => {
    const { client } = connection;
    const cloneTicket = await client.cloneTicket();
    const url = new URL(vcsim.url);
    await using worker = await VimClient.connect({ url, credentials: { cloneTicket } });
    expect(worker.user.userName).toBe(client.user.userName);
    await using another = await loggedOutElsewhere();
    expect(await another.call("CurrentTime", { type: "ServiceInstance", value: "ServiceInstance" })).toHaveLength(1);
    expect(another.generation).toBe(2);
  });

  test("answers a session that has ended without its properties, which is no machine without snapshots", async () => {
    const machine = referenceOf(await inventory.machine("DC0_H0_VM0"));
    const made = await createSnapshot(connection.client, machine, { name: "diskferry-ended", description: "" });
    try {
      await using another = await loggedOutElsewhere();
      expect((await listSnapshots(another, machine)).map(({ name }) => name)).toEqual(["diskferry-ended"]);
      expect(another.generation).toBe(2);
    } finally {
      await removeSnapshot(connection.client, made);
    }
  });

  test("is looked over before a run, whatever it lacks", async () => {
    const { url, username, password } = vcsim;
    await using source = await provider.source!({ url, username, password });
    const machine = await source.machine("DC0_H0_VM0");
    const found = await source.preflight!(machine, { disks: [] });
    expect(found.privileges?.missing).toEqual([]);
    expect(found.findings.map(({ subject }) => subject)).toContain("datastore LocalDS_0");
  });

  test("as a host by itself is known by its hardware", async () => {
    await using host = await startVcsim("-tls=false", "-esx");
    const { url, username, password } = host;
    await using place = await connectVsphere({ url, username, password });
    await using machines = new VsphereInventory(place);
    expect(place.client.about.kind).toBe("esxi");
    const found = [];
    for await (const machine of machines.machines()) found.push(machine.id);
    expect(found.length).toBeGreaterThan(0);
    expect(found.every((id) => id.startsWith(`${place.placeId}/`))).toBe(true);
  });

  test("by HTTPS is pinned by its own certificate", async () => {
    await using secure = await startVcsim();
    const { url, username, password } = secure;
    const failure = await connectVsphere({ url, username, password }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "AUTH" });
    const wrong = await connectVsphere({ url, username, password, thumbprint: "0".repeat(64) }).catch(
      (error: unknown) => error,
    );
    const thumbprint = /thumbprint ([0-9A-F:]{95})/.exec(String(wrong))?.[1];
    expect(thumbprint).toBeDefined();
    await using place = await connectVsphere({ url, username, password, thumbprint });
    expect(place.client.user.userName).toBe("user");
  });
});
