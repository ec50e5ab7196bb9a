import { expect, test } from "vitest";
import type { PlannedDisk } from "@diskferry/core/provider";
import { awsWorld, gibi } from "../aws-world.ts";
import { place } from "./taken.ts";

const full = (disk: string): PlannedDisk => ({
  disk,
  size: gibi,
  mode: "full",
  read: { value: gibi, kind: "bound" },
  write: { value: gibi, kind: "bound" },
});

test("calls, money and minutes follow from the bytes, and nothing stands in the way of who may do all", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const found = await it.source.preflight!(it.machine, { disks: it.machine.disks.map(({ key }) => full(key)) });
  expect(found.calls).toContainEqual({ operation: "GetSnapshotBlock", count: { value: 3 * 2048, kind: "bound" } });
  expect(found.calls?.map(({ operation }) => operation)).not.toContain("ListChangedBlocks");
  // 6144 blocks at 0.003 dollars for a thousand.
  expect(found.costs?.find(({ item }) => item.startsWith("GetSnapshotBlock"))?.amount.value).toBeCloseTo(0.0185, 4);
  expect(found.minutes?.value).toBeCloseTo(0.1, 2);
  expect(found.privileges?.needed).toContain("ec2:CreateSnapshots");
  expect(found.privileges?.missing).toEqual([]);
  expect(found.findings.filter(({ severity }) => severity !== "info")).toEqual([]);
  const { counters } = world.simulator.faults;
  expect(counters.call(world.simulator.faults)["CreateSnapshots"]).toBe(1);
  expect((await it.snapshot()).disks.length).toBe(3);
});

test("actions that are missing are blockers, named one by one", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  for (const action of ["ec2:CreateSnapshots", "ec2:DeleteSnapshot"]) world.simulator.deny("111111111111", action);
  const found = await it.source.preflight!(it.machine, { disks: [] });
  expect(found.privileges?.missing?.toSorted()).toEqual(["ec2:CreateSnapshots", "ec2:DeleteSnapshot"]);
  const blockers = found.findings.filter(({ severity }) => severity === "blocker");
  expect(blockers.map(({ subject }) => subject).toSorted()).toEqual(["ec2:CreateSnapshots", "ec2:DeleteSnapshot"]);
});

test("a base that is archived or gone is told before the run", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const base = await it.point();
  const since = (await it.source.tracker!.checkpoint(base))!;
  const disk: PlannedDisk = { ...full(it.root), mode: "incremental", since };
  expect((await it.source.preflight!(it.machine, { disks: [disk] })).calls).toContainEqual({
    operation: "ListChangedBlocks",
    count: { value: 1, kind: "estimate" },
  });
  world.simulator.archiveSnapshot(base.id);
  const { findings } = await it.source.preflight!(it.machine, { disks: [disk] });
  expect(findings).toContainEqual(
    expect.objectContaining({
      severity: "warning",
      subject: `disk ${it.root}`,
      message: expect.stringContaining("archived"),
    }),
  );
});

test("a snapshot that cannot be read and a guest that is not reached are found before the run", async () => {
  await using world = await awsWorld();
  const application = { windows: {} };
  await using it = await place(world, { source: { application } });
  const { id } = await it.point();
  const machine = await it.source.machine(id);
  world.simulator.archiveSnapshot(id);
  const ofSnapshot = await it.source.preflight!(machine, { disks: [] });
  expect(ofSnapshot.findings).toContainEqual(expect.objectContaining({ severity: "blocker", subject: id }));
  world.simulator.manageInstance(it.machine.id, false);
  const ofGuest = await it.source.preflight!(it.machine, { disks: [] });
  expect(ofGuest.findings).toContainEqual(
    expect.objectContaining({ severity: "warning", subject: `Systems Manager on ${it.machine.id}` }),
  );
  expect(ofGuest.privileges?.needed).toContain("ssm:SendCommand");
});
