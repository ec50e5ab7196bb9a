import { expect, test } from "vitest";
import type { PlannedDisk, Volume } from "@diskferry/core/provider";
import { commitRun, region, startPlace } from "../target/target-place.ts";

const size = 10 * 2 ** 30;
const account = "111111111111";
const full: PlannedDisk = {
  disk: "sda",
  size,
  mode: "full",
  read: { value: size, kind: "bound" },
  write: { value: size, kind: "bound" },
};
const machine = { name: "web-1", cpus: 2, memoryBytes: 4 * 2 ** 30, guestFamily: "linux" as const };

function increment(base: Volume): PlannedDisk {
  return { ...full, mode: "incremental", write: { value: 2 ** 30, kind: "estimate" }, base };
}

test("a plan counts blocks, dollars and minutes at quota, and the actions it needs", async () => {
  const { open } = await startPlace();
  const target = await open();
  const found = await target.preflight!({ disks: [full, { ...full, disk: "sdb" }], job: "job", machine });
  expect(found.calls).toContainEqual({ operation: "PutSnapshotBlock", count: { value: 40_960, kind: "bound" } });
  expect(found.costs).toContainEqual({
    item: "PutSnapshotBlock requests",
    amount: { value: 0.2458, kind: "bound" },
    currency: "USD",
    pricesOf: "2023-05-01",
  });
  expect(found.minutes).toEqual({ value: 0.68, kind: "bound" });
  expect(found.privileges!.needed).toEqual(expect.arrayContaining(["ebs:PutSnapshotBlock", "ec2:RunInstances"]));
  expect(found.privileges!.missing).toEqual([]);
  expect(found.findings.every(({ severity }) => severity === "info")).toBe(true);
});

test("dry runs tell which actions are missing: what the run needs blocks, what a launch needs warns", async () => {
  const { open, simulator } = await startPlace();
  const target = await open();
  for (const action of ["ec2:DeleteSnapshot", "ec2:RegisterImage"]) simulator.deny(account, action);
  const found = await target.preflight!({ disks: [full], job: "job", machine });
  expect(found.privileges!.missing).toEqual(["ec2:DeleteSnapshot", "ec2:RegisterImage"]);
  expect(found.findings).toContainEqual(
    expect.objectContaining({ severity: "blocker", subject: "ec2:DeleteSnapshot" }),
  );
  expect(found.findings).toContainEqual(expect.objectContaining({ severity: "warning", subject: "ec2:RegisterImage" }));
});

test("an account that encrypts by default writes every block of a full copy, and blocks a plain base", async () => {
  const { open, simulator } = await startPlace();
  const target = await open();
  const volume = await target.create({ key: "k", size: 2 ** 30 });
  const base = await commitRun(target, volume, "r", new Map());
  simulator.encryptByDefault(account, region, true);
  const copied = await target.preflight!({ disks: [{ ...full, write: { value: 2 ** 20, kind: "estimate" } }] });
  expect(copied.calls).toContainEqual({ operation: "PutSnapshotBlock", count: { value: 20_480, kind: "exact" } });
  const found = await target.preflight!({ disks: [increment(base)] });
  expect(found.findings).toContainEqual(
    expect.objectContaining({ severity: "blocker", subject: "disk sda", remedy: expect.stringContaining("mode full") }),
  );
});

test("a base that is gone or archived is told before the run", async () => {
  const { open, simulator } = await startPlace();
  const target = await open();
  const volume = await target.create({ key: "k", size: 2 ** 30 });
  const base = await commitRun(target, volume, "r", new Map());
  expect(
    (await target.preflight!({ disks: [increment(base)] })).findings.every(({ severity }) => severity === "info"),
  ).toBe(true);
  simulator.archiveSnapshot(base.id);
  const archived = await target.preflight!({ disks: [increment(base)] });
  expect(archived.findings).toContainEqual(
    expect.objectContaining({ severity: "blocker", message: expect.stringContaining("archived") }),
  );
  const gone = await target.preflight!({ disks: [increment({ ...base, id: "snap-00000000000000000" })] });
  expect(gone.findings).toContainEqual(
    expect.objectContaining({ severity: "warning", message: expect.stringContaining("in full") }),
  );
});

test("a machine that no type holds, and Windows over a plain image, are warned of", async () => {
  const { open } = await startPlace();
  const target = await open();
  const huge = await target.preflight!({ disks: [full], machine: { ...machine, cpus: 4000 } });
  expect(huge.findings).toContainEqual(
    expect.objectContaining({ severity: "warning", remedy: "Set launch.instanceType." }),
  );
  const windows = await target.preflight!({ disks: [full], machine: { ...machine, guestFamily: "windows" } });
  expect(windows.findings).toContainEqual(
    expect.objectContaining({ severity: "warning", remedy: expect.stringContaining("convert") }),
  );
});

test("a plan makes nothing", async () => {
  const { open, simulator } = await startPlace();
  const target = await open();
  await target.preflight!({ disks: [full], job: "job", machine });
  const counters = simulator.faults.counters();
  for (const call of ["StartSnapshot", "PutSnapshotBlock"]) expect(counters[call], call).toBeUndefined();
  for await (const owned of target.owned("job")) expect.fail(`${owned.kind} ${owned.id}`);
});
