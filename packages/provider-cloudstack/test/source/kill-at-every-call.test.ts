import { afterEach, beforeEach, expect, test } from "vitest";
import type { Machine, SourceConnector } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { Cloud } from "../../src/cloud.ts";
import { cloudstackSource } from "../../src/source/cloudstack-source.ts";
import { type TestCloud, startCloud } from "../cloud.ts";
import { killedAtEveryCall, patient } from "../killed-at-every-call.ts";

const sizes = [2 ** 20, 2 ** 20 + 512];
let cloud: TestCloud;
let machine: string;
beforeEach(async () => {
  cloud = await startCloud({ jobMs: 0, machines: [{ name: "web", disks: sizes }] });
  [machine = ""] = cloud.simulator.machines;
  for (const [index, id] of cloud.simulator.volumesOf(machine).entries())
    await cloud.simulator.writeVolume(id, 0, randomBytes(65_536, index));
});
afterEach(() => cloud[Symbol.asyncDispose]());

function demandNothingLeft(): void {
  const { simulator } = cloud;
  expect(simulator.snapshotIds()).toEqual([]);
  expect(simulator.volumes()).toHaveLength(1 + sizes.length);
  expect(simulator.volumesOf(simulator.appliance.id)).toHaveLength(1);
}

for (const [what, disks, read] of [
  ["of several disks, by a VM snapshot", undefined, "appliance"],
  ["of one disk", 1, "appliance"],
  ["of several disks, by download", undefined, "download"],
] as const) {
  test(`a point in time ${what}, killed after any call: one point, its bytes, and nothing left once released`, async () => {
    const { appliance, ...rest } = cloud.options;
    cloud.options = { ...rest, source: { read }, ...(read === "appliance" ? { appliance } : {}) };
    const chosen = (each: Machine): string[] => each.disks.slice(0, disks ?? each.disks.length).map(({ key }) => key);
    const copy = async (source: SourceConnector, round: number, attempt: number): Promise<void> => {
      const found = await source.machine(machine);
      const request = { key: `point ${round}`, disks: chosen(found), job: "out" };
      const point = await source.snapshot(found, request);
      expect(point.consistency).toBe("crash");
      for (const [index, disk] of point.disks.entries()) {
        const reader = await source.open(disk);
        try {
          const bytes = new Uint8Array(65_536);
          await reader.read(0, bytes);
          expect(Buffer.compare(bytes, randomBytes(65_536, index))).toBe(0);
        } finally {
          await reader[Symbol.asyncDispose]();
        }
      }
      if (attempt === 2) {
        expect(cloud.simulator.snapshotIds().length).toBeLessThanOrEqual(point.disks.length);
        await source.release(point);
      }
    };
    const calls = await killedAtEveryCall(
      cloud,
      (own) => cloudstackSource(own),
      copy,
      async () => demandNothingLeft(),
    );
    expect(calls).toBeGreaterThan(read === "download" ? 12 : 15);
  }, 900_000);
}

test.each(["appliance", "download"] as const)(
  "a release (%s) killed after any call is finished by the next, or by what the job owns",
  async (read) => {
    cloud.options = { ...cloud.options, source: { read } };
    const calls = await killedAtEveryCall(
      cloud,
      (own) => cloudstackSource(own),
      async (source, round, attempt) => {
        if (attempt === 1) {
          await using living = cloudstackSource(await Cloud.open(patient(cloud.options)));
          const point = await living.snapshot(await living.machine(machine), { key: `point ${round}`, job: "out" });
          for (const disk of point.disks) await (await living.open(disk))[Symbol.asyncDispose]();
          return source.release(point);
        }
        for await (const { snapshot } of source.owned("out"))
          if (snapshot !== undefined) await source.release(snapshot);
      },
      async () => demandNothingLeft(),
    );
    expect(calls).toBeGreaterThan(5);
  },
  900_000,
);
