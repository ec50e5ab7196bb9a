import { setTimeout as pause } from "node:timers/promises";
import { AttachVolumeCommand, CreateVolumeCommand } from "@aws-sdk/client-ec2";
import { expect, test, vi } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { provider } from "../../src/index.ts";
import { guardedCommands, releaseCommands } from "../../src/source/guest.ts";
import { findSnapshots } from "../../src/source/snapshot-facts.ts";
import { awsWorld, gather } from "../aws-world.ts";
import { killedAtEveryCall } from "../killed-at-every-call.ts";
import { playedGuest } from "./played-guest.ts";

// Between the commands before a snapshot and those after it a guest is frozen. Whatever becomes of the process that asked, it
// must not stay so, and what is told of a point in time must be true of it.

const delays = { startVisibleMs: 0, completeMs: 0, listableMs: 0, changeMs: 0 };
/** What the longest freeze, a minute, is to the guest. */
const minuteMs = 1000;
const soon = { timeout: 20_000 };

test("a point in time of a Linux guest killed after any call: thawed, one whole set, and frozen where it says so", async () => {
  await using world = await awsWorld({ delays });
  const { simulator } = world;
  const guest = playedGuest(minuteMs);
  simulator.playGuest(guest.play);
  const { application } = guest;
  const volumes = simulator.volumesOf(simulator.instances.linux);
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      await using source = await provider.source!(options({ source: { application } }));
      const machine = await source.machine(simulator.instances.linux);
      const point = await source.snapshot(machine, { key: `point ${round}`, consistency: "filesystem", job: "out" });
      if (attempt === 1) return;
      expect(point.disks.map(({ disk }) => disk).toSorted()).toEqual(volumes.toSorted());
      const at = Date.parse(point.takenAt);
      const wasFrozen = guest.freezes().some(({ from, to }) => from <= at && at <= to);
      if (point.consistency !== "crash") expect(wasFrozen).toBe(true);
      const owned = await gather(source.owned("out"));
      expect(owned.map(({ id }) => id)).toEqual([point.id]);
      await source.release(point);
      expect(await gather(source.owned("out"))).toEqual([]);
    },
    async () => {
      await vi.waitFor(() => expect(guest.isFrozen()).toBe(false), soon);
      expect(guest.notes()).toEqual([]);
    },
  );
  expect(calls).toBeGreaterThan(12);
}, 300_000);

test("a point in time by VSS killed after any call: what was asked for, whole, with its tags, and nothing else", async () => {
  await using world = await awsWorld({ delays });
  const { simulator } = world;
  const { windows } = simulator.instances;
  await using connection = await AwsConnection.open(world.options());
  const spare = simulator.volumesOf(windows);
  const wanted: string[] = [];
  for (const Device of ["xvdg", "xvdh"]) {
    const shape = { AvailabilityZone: "us-east-1a", Size: 1 };
    const { VolumeId = "" } = await connection.ec2(new CreateVolumeCommand(shape), { object: Device });
    const attach = new AttachVolumeCommand({ VolumeId, InstanceId: windows, Device });
    await connection.ec2(attach, { object: VolumeId });
    wanted.push(VolumeId);
  }
  // What would be read as several tags in VSS's text comes by a call of its own.
  const tags = { Owner: "a;Key=CreatedBy,Value=mallory" };
  const calls = await killedAtEveryCall(
    world,
    async (options, round, attempt) => {
      const source = { exclude: spare, application: { windows: {} } };
      await using place = await provider.source!(options({ tags, source, timeouts: { visibleMs: 2000 } }));
      const machine = await place.machine(windows);
      const point = await place.snapshot(machine, { key: `vss ${round}`, consistency: "application", job: "out" });
      if (attempt === 1) return;
      expect(point.consistency).toBe("application");
      expect(point.disks.map(({ disk }) => disk).toSorted()).toEqual(wanted.toSorted());
      const all = await gather(findSnapshots(connection, {}));
      expect(all.map(({ id }) => id).toSorted()).toEqual(point.disks.map(({ id }) => id).toSorted());
      for (const each of all) expect(each.tags).toMatchObject({ ...tags, CreatedBy: "diskferry" });
      await place.release(point);
    },
    async () => expect(await gather(findSnapshots(connection, {}))).toEqual([]),
  );
  expect(calls).toBeGreaterThan(12);
}, 300_000);

test("a freeze that nobody ended does not end the next one before its time", async () => {
  const guest = playedGuest(minuteMs);
  const { pre, post } = guest.application.linux;
  expect(await guest.run(guardedCommands(pre, post, { id: "killed", seconds: 60 }))).toMatchObject({
    status: "Success",
  });
  expect(await guest.run(guardedCommands(pre, post, { id: "next", seconds: 600 }))).toMatchObject({
    status: "Success",
  });
  await pause(1.5 * minuteMs);
  expect(guest.isFrozen()).toBe(true);
  expect(await guest.run(releaseCommands(post, "next"))).toMatchObject({ status: "Success" });
  expect(guest.isFrozen()).toBe(false);
  // Whoever froze first is told that it did not hold.
  expect(await guest.run(releaseCommands(post, "killed"))).toMatchObject({ status: "Failed" });
  expect(guest.notes()).toEqual([]);
});

test.for([0, 30])(
  "a guest whose commands are cut off with all that they began is thawed all the same (%i)",
  async (slow) => {
    const guest = playedGuest(minuteMs);
    const { pre, post } = guest.application.linux;
    // Until it is in a session of its own, what guards the freeze ends with the commands too: a busy guest takes its time.
    const delay = slow > 0 ? [`setsid() { sleep ${slow}; command setsid "$@"; }`] : [];
    const lines = [...delay, ...guardedCommands([...pre, "tail -f /dev/null"], post, { id: "cut", seconds: 120 })];
    expect(await guest.run(lines, { cutOffWhenFrozen: true })).toMatchObject({ status: "Failed" });
    expect(guest.isFrozen()).toBe(true);
    await vi.waitFor(() => expect(guest.isFrozen()).toBe(false), soon);
  },
);

test("a guest whose guard comes up too late is not frozen, and the next freeze is not ended by it", async () => {
  const guest = playedGuest(minuteMs);
  const { pre, post } = guest.application.linux;
  const delay = `setsid() { command setsid sh -c 'sleep 90; exec "$@"' late "$@"; }`;
  expect(await guest.run([delay, ...guardedCommands(pre, post, { id: "late", seconds: 10 })])).toMatchObject({
    status: "Failed",
  });
  expect(guest.isFrozen()).toBe(false);
  expect(await guest.run(guardedCommands(pre, post, { id: "next", seconds: 600 }))).toMatchObject({
    status: "Success",
  });
  await pause(2 * minuteMs);
  expect(guest.isFrozen()).toBe(true);
  expect(await guest.run(releaseCommands(post, "next"))).toMatchObject({ status: "Success" });
}, 300_000);

test("a guest that cannot be guarded is not frozen", async () => {
  const guest = playedGuest(minuteMs);
  const { pre, post } = guest.application.linux;
  const lines = guardedCommands(pre, post, { id: "no/folder", seconds: 60 });
  expect(await guest.run(lines)).toMatchObject({ status: "Failed" });
  expect(guest.isFrozen()).toBe(false);
});
