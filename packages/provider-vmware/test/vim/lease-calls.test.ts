import { startVcenterSimulator } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { abortLease, completeLease, leaseLink, openLease, reportLeaseProgress } from "../../src/vim/lease-calls.ts";
import { createSnapshot, machineRef } from "../../src/vim/snapshot-calls.ts";
import { openClient } from "./open-client.ts";

const mib = 1 << 20;

describe("a lease's link", () => {
  const server = new URL("https://vc.example.org:8443");

  test.each([
    ["https://esx1.example.org/nfc/1/disk-0.vmdk", "https://esx1.example.org/nfc/1/disk-0.vmdk"],
    ["https://*/nfc/1/disk-0.vmdk", "https://vc.example.org:8443/nfc/1/disk-0.vmdk"],
    ["https://*:443/nfc/1/disk-0.vmdk", "https://vc.example.org/nfc/1/disk-0.vmdk"],
    ["https://*:902/nfc/*", "https://vc.example.org:902/nfc/*"],
  ])("%s leads to %s", (link, expected) => {
    expect(leaseLink(link, server).href).toBe(expected);
  });

  test("that is no address is refused without being shown", () => {
    expect(() => leaseLink("//secret-ticket", server)).toThrow(/no address/);
    expect(() => leaseLink("//secret-ticket", server)).not.toThrow(/secret/);
  });
});

describe("a lease", () => {
  const machines = [{ name: "web", disks: [{ size: mib }, { size: 2 * mib }] }];

  test("on a snapshot serves its disks to the session's cookie, and ends well", async () => {
    for (const protocol of ["soap", "vi-json"] as const) {
      await using simulator = await startVcenterSimulator({ tls: false, machines, wildcardLeaseHost: true });
      await using client = await openClient(simulator, { protocol });
      const snapshot = await createSnapshot(client, machineRef("vm-101"), { name: "s", description: "" });
      const soap = await client.soap();
      const lease = await openLease(soap, snapshot);
      expect(lease.timeoutSeconds).toBe(300);
      expect(lease.files.map(({ disk, targetId }) => [disk, targetId])).toEqual([
        [true, "disk-0.vmdk"],
        [true, "disk-1.vmdk"],
      ]);
      const { url } = lease.files[1]!;
      const headers = { cookie: soap.cookie ?? "" };
      const { status, body } = await soap.http.stream(url.pathname, { method: "GET", headers, operation: "export" });
      expect(status).toBe(200);
      body.resume();
      await reportLeaseProgress(soap, lease.ref, 50.7);
      await completeLease(soap, lease.ref);
      expect(simulator.alive.leases).toBe(0);
    }
  });

  test("that the server refuses, or that is given up, is told and leaves nothing", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines, leaseInitializeMs: 50 });
    await using client = await openClient(simulator);
    const running = openLease(client, machineRef("vm-101"));
    await expect(running).rejects.toMatchObject({ code: "IN_USE", cause: { type: "InvalidPowerState" } });
    simulator.machine("web").shutDown();
    const lease = await openLease(client, machineRef("vm-101"));
    await abortLease(client, lease.ref);
    expect(simulator.alive.leases).toBe(0);
    await expect(reportLeaseProgress(client, lease.ref, 1)).rejects.toMatchObject({ provider: "vsphere" });
  });

  test("that is given up before it is ready is ended, and not left to hold the disks until it lapses", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines, leaseInitializeMs: 20_000 });
    await using client = await openClient(simulator);
    const snapshot = await createSnapshot(client, machineRef("vm-101"), { name: "s", description: "" });
    const waits = simulator.calls.get("WaitForUpdatesEx") ?? 0;
    const stop = new AbortController();
    const reason = new Error("enough");
    const opening = openLease(client, snapshot, { about: "web", signal: stop.signal });
    const failure = expect(opening).rejects.toBe(reason);
    await vi.waitFor(() => expect(simulator.calls.get("WaitForUpdatesEx")).toBeGreaterThan(waits), { timeout: 30_000 });
    stop.abort(reason);
    await failure;
    expect(simulator.calls.get("HttpNfcLeaseAbort")).toBe(1);
  });

  test("that fails before it is ready tells the fault", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines, leaseInitializeMs: 20_000 });
    await using client = await openClient(simulator);
    const machine = machineRef("vm-101");
    const snapshot = await createSnapshot(client, machine, { name: "s", description: "" });
    const opening = openLease(client, snapshot, { about: "web" });
    const failure = expect(opening).rejects.toMatchObject({ provider: "vsphere" });
    await vi.waitFor(() => expect(simulator.calls.get("WaitForUpdatesEx")).toBeGreaterThan(1), { timeout: 30_000 });
    simulator.removeSnapshot(snapshot.value);
    await failure;
  });
});
