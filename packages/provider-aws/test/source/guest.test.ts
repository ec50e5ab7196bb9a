import { execFileSync } from "node:child_process";
import { DetachVolumeCommand } from "@aws-sdk/client-ec2";
import { expect, test, vi } from "vitest";
import type { Machine } from "@diskferry/core/provider";
import type { AwsOptions } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { releaseCommands } from "../../src/source/guest.ts";
import { findSnapshots } from "../../src/source/snapshot-facts.ts";
import { type AwsWorld, awsWorld, gather } from "../aws-world.ts";
import { type Place, place } from "./taken.ts";

const application: NonNullable<NonNullable<AwsOptions["source"]>["application"]> = {
  linux: { pre: ["fsfreeze -f /data"], post: ["fsfreeze -u /data"], achieves: "filesystem" },
  windows: {},
};

async function windowsOf(it: Place, world: AwsWorld): Promise<Machine> {
  return it.source.machine(world.simulator.instances.windows);
}

/** The lines of each command that a guest was given. */
function linesGiven(world: AwsWorld): string[] {
  return world.simulator.commands().map(({ parameters }) => (parameters["commands"] ?? []).join("\n"));
}

test("a Linux guest runs its commands before and after the point in time, and what they achieve is reported", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application } });
  const order: string[] = [];
  world.simulator.playGuest(({ parameters }) => {
    const made = world.simulator.faults.counters()["CreateSnapshots"] ?? 0;
    order.push(`${(parameters["commands"] ?? []).includes("fsfreeze -f /data") ? "pre" : "post"} after ${made}`);
    return { status: "Success" };
  });
  const snapshot = await it.source.snapshot(it.machine, { key: "frozen", consistency: "filesystem", job: "j" });
  expect(snapshot.consistency).toBe("filesystem");
  expect(order).toEqual(["pre after 0", "post after 1"]);
  // Read back from what the snapshots themselves say, by another connection.
  await using other = await place(world);
  expect((await gather(other.source.owned("j")))[0]?.snapshot?.consistency).toBe("filesystem");
  expect((await other.source.snapshot(it.machine, { key: "frozen" })).consistency).toBe("filesystem");
});

test("commands that fail make a snapshot of crash consistency, with a notice, and the guest is thawed", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application } });
  world.simulator.playGuest(({ parameters }) =>
    (parameters["commands"] ?? []).includes("fsfreeze -f /data")
      ? { status: "Failed", responseCode: 1, errors: "not a mount point" }
      : { status: "Success" },
  );
  const snapshot = await it.source.snapshot(it.machine, { key: "k", consistency: "filesystem" });
  expect(snapshot.consistency).toBe("crash");
  expect(it.notices.join()).toMatch(/filesystem consistency is not reached.*not a mount point/);
  expect(linesGiven(world).at(-1)).toContain("fsfreeze -u /data");
});

test("a freeze that did not hold until the end is crash consistency, and is told", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application } });
  world.simulator.playGuest(({ parameters }) =>
    (parameters["commands"] ?? []).includes("fsfreeze -f /data")
      ? { status: "Success" }
      : { status: "Failed", responseCode: 1 },
  );
  const snapshot = await it.source.snapshot(it.machine, { key: "k", consistency: "filesystem" });
  expect(snapshot.consistency).toBe("crash");
  expect(it.notices.join()).toContain("only crash consistency is certain");
});

test("a guest is thawed also when the snapshot fails", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application }, retryBudgetMs: 0 });
  world.simulator.deny("111111111111", "ec2:CreateSnapshots");
  const failing = it.source.snapshot(it.machine, { key: "k", consistency: "filesystem" });
  await expect(failing).rejects.toMatchObject({ code: "DENIED" });
  expect(linesGiven(world)[1]).toContain("fsfreeze -u /data");
});

test("Windows takes its snapshots by VSS, and application consistency is what VSS wrote down", async () => {
  for (const isConsistent of [true, false]) {
    await using world = await awsWorld();
    await using it = await place(world, { source: { application } });
    world.simulator.playGuest(() => ({ status: "Success", applicationConsistent: isConsistent }));
    const snapshot = await it.source.snapshot(await windowsOf(it, world), { key: "v", consistency: "application" });
    expect(snapshot.consistency).toBe(isConsistent ? "application" : "crash");
    expect(snapshot.disks.length).toBe(2);
    expect(world.simulator.faults.counters()["CreateSnapshots"]).toBeUndefined();
    expect(world.simulator.commands()[0]).toMatchObject({ document: "AWSEC2-CreateVssSnapshot" });
    const again = await it.source.snapshot(await windowsOf(it, world), { key: "v", consistency: "application" });
    expect(again.id).toBe(snapshot.id);
    await it.source.release(snapshot);
  }
});

test("tags and keys that would be read as several in VSS's text reach the snapshots all the same", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application }, tags: { Owner: "a;Key=CreatedBy,Value=mallory" } });
  const machine = await windowsOf(it, world);
  const request = { key: "run;1,x=2", job: "nightly=1", consistency: "application" } as const;
  const snapshot = await it.source.snapshot(machine, request);
  expect((await it.source.snapshot(machine, request)).id).toBe(snapshot.id);
  expect((await gather(it.source.owned("nightly=1"))).length).toBe(1);
  await using connection = await AwsConnection.open(world.options());
  for (const { tags } of await gather(findSnapshots(connection, {})))
    expect(tags).toMatchObject({ CreatedBy: "diskferry", Owner: "a;Key=CreatedBy,Value=mallory" });
});

test("of what VSS took only the disks that were asked for stay", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application } });
  const machine = await windowsOf(it, world);
  const { key } = machine.disks[1]!;
  const snapshot = await it.source.snapshot(machine, { key: "v", disks: [key], consistency: "application", job: "j" });
  expect(snapshot.disks.map(({ disk }) => disk)).toEqual([key]);
  expect((await it.source.snapshot(machine, { key: "v", disks: [key] })).id).toBe(snapshot.id);
  await it.source.release(snapshot);
  expect(await gather(it.source.owned("j"))).toEqual([]);
});

test("volumes that are excluded are not in what VSS took either", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application, exclude: ["xvdf"] } });
  const machine = await windowsOf(it, world);
  const snapshot = await it.source.snapshot(machine, { key: "v", consistency: "application" });
  expect(snapshot.disks.map(({ disk }) => disk)).toEqual([machine.disks[0]!.key]);
});

test("the same key gives a volume that was taken away since", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const snapshot = await it.snapshot("with three");
  await using connection = await AwsConnection.open(world.options());
  const volume = it.machine.disks[2]!.key;
  await connection.ec2(new DetachVolumeCommand({ VolumeId: volume }), { object: volume });
  await vi.waitFor(async () => expect((await it.source.machine(it.machine.id)).disks.length).toBe(2), 30_000);
  expect((await it.snapshot("with three")).disks.map(({ disk }) => disk)).toEqual(
    snapshot.disks.map(({ disk }) => disk),
  );
  expect((await it.snapshot("with two")).disks.length).toBe(2);
});

test("a guest that Systems Manager does not reach, or commands nobody gave, mean crash consistency and a notice", async () => {
  await using world = await awsWorld();
  await using without = await place(world);
  expect((await without.source.snapshot(without.machine, { key: "a", consistency: "application" })).consistency).toBe(
    "crash",
  );
  expect(without.notices.join()).toContain("source.application.linux");
  world.simulator.manageInstance(world.simulator.instances.linux, false);
  await using it = await place(world, { source: { application } });
  expect((await it.source.snapshot(it.machine, { key: "b", consistency: "application" })).consistency).toBe("crash");
  expect(it.notices.join()).toContain("AmazonSSMManagedInstanceCore");
});

test("a machine that is off is not asked, and what is uncertain about its disks is told", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { source: { application } });
  await it.source.power!.shutdown(it.machine);
  expect((await it.source.snapshot(it.machine, { key: "off", consistency: "filesystem" })).consistency).toBe("crash");
  expect(it.notices.join()).toContain("it is off");
  expect(world.simulator.commands()).toEqual([]);
});

test("the lines that thaw a guest tell by their end whether the freeze held and the commands worked", () => {
  const guard = `/tmp/diskferry-guard.${process.pid}`;
  const run = (lines: string[]): number => {
    try {
      execFileSync("sh", ["-c", lines.join("\n").replaceAll("/run/", "/tmp/")], { stdio: "ignore" });
      return 0;
    } catch (error) {
      return (error as { status: number }).status;
    }
  };
  const release = (post: string[]): string[] => releaseCommands(post, String(process.pid));
  expect(run([`: >${guard}`, ...release(["true"])])).toBe(0);
  expect(run([`: >${guard}`, ...release(["false", "true"])])).toBe(1);
  expect(run(release(["true"]))).toBe(1);
});
