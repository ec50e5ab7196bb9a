import { afterEach, beforeEach, expect, it } from "vitest";
import type { SourceConnector } from "@diskferry/core/provider";
import { CloudstackClient, provider } from "../../src/index.ts";
import { type TestCloud, startCloud } from "../cloud.ts";

const size = 2 ** 20;
let cloud: TestCloud;
let client: CloudstackClient;
let source: SourceConnector;
beforeEach(async () => {
  cloud = await startCloud({ machines: [{ name: "db", disks: [size, size], state: "Stopped" }] });
  client = new CloudstackClient({ ...cloud.options, tls: undefined, pollMs: 1 });
  source = await provider.source!(cloud.options);
});
afterEach(async () => {
  await source[Symbol.asyncDispose]();
  await client[Symbol.asyncDispose]();
  await cloud[Symbol.asyncDispose]();
});

it("a machine that is started between the snapshots of its disks has no common point in time in them", async () => {
  const { simulator } = cloud;
  const [id = ""] = simulator.machines;
  const machine = await source.machine("db");
  simulator.faults.add({
    command: "createSnapshot",
    calls: [2],
    action: { kind: "run", run: async () => void (await client.run("startVirtualMachine", { id })) },
  });
  await expect(source.snapshot(machine, { key: "now", job: "out" })).rejects.toMatchObject({ retryable: true });
  expect(simulator.snapshotIds()).toEqual([]);
  const point = await source.snapshot(await source.machine("db"), { key: "now", job: "out" });
  expect(point.consistency).toBe("crash");
  expect(simulator.calls.get("createVMSnapshot")).toBe(1);
  await source.release(point);
  expect(simulator.snapshotIds()).toEqual([]);
});

it("what a request that came late made a second time goes with the point in time", async () => {
  const { simulator } = cloud;
  const point = await source.snapshot(await source.machine("db"), { key: "now", job: "out" });
  const [disk] = point.disks;
  const reader = await source.open(disk!);
  await reader[Symbol.asyncDispose]();
  const names = new Map<string, string>();
  for await (const { name, id } of client.list("listSnapshots")) names.set(String(id), String(name));
  const { name } = simulator.volumes().find((volume) => volume.name.endsWith("-reading"))!;
  await client.run("createVolume", { snapshotid: disk!.id, name });
  await client.run("createSnapshot", { volumeid: disk!.disk, name: names.get(disk!.id) });
  await client.run("createSnapshot", { volumeid: disk!.disk, name: "the owner's" });
  await source.release(point);
  expect(simulator.snapshotIds()).toHaveLength(1);
  expect(simulator.volumes().filter((volume) => volume.name.includes("df-"))).toEqual([]);
});
