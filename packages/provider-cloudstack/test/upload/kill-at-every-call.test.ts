import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { TargetProvider, Volume } from "@diskferry/core/provider";
import { randomBytes } from "../../../../test/seed.ts";
import { Cloud } from "../../src/cloud.ts";
import { uploadTarget } from "../../src/upload/upload-target.ts";
import { type TestCloud, startCloud } from "../cloud.ts";
import { killedAtEveryCall, patient, writeBeginning } from "../killed-at-every-call.ts";

const size = 2 ** 20 + 512;
let cloud: TestCloud;
let spool: string;
beforeEach(async () => {
  cloud = await startCloud({ jobMs: 0 });
  spool = await mkdtemp(join(tmpdir(), "diskferry-spool-"));
});
afterEach(async () => {
  await cloud[Symbol.asyncDispose]();
  await rm(spool, { recursive: true, force: true });
});

const connect = (own: Cloud): TargetProvider => uploadTarget(own, spool);
const uploaded = () => cloud.simulator.volumes().filter(({ type }) => type === "DATADISK");

/** The platform gives up what was never begun; what it waited for can be deleted then. */
function passAnHour(): void {
  cloud.simulator.advance(2 * 3_600_000);
  cloud.simulator.advance(-2 * 3_600_000);
}

async function write(target: TargetProvider, key: string, seed: number, epoch: number): Promise<Volume> {
  return writeBeginning(target, await target.create({ key, size, job: "move" }), { seed, epoch });
}

test("an upload killed after any call goes on: one volume with its bytes, and no row stays that an hour lets go", async () => {
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => void (await write(target, `disk ${round}`, round, attempt)),
    async (round) => {
      const whole = uploaded().filter(({ state }) => state === "Uploaded");
      expect(whole).toHaveLength(1);
      const bytes = await cloud.simulator.volumeBytes(whole[0]!.id, 0, 65_536);
      expect(Buffer.compare(bytes, randomBytes(65_536, round))).toBe(0);
      // A row whose link died with the process holds nothing, and goes with the disk once the platform lets it.
      const rows = uploaded().filter(({ state }) => state !== "Uploaded");
      expect(rows.map(({ state, size: length }) => [state, length])).toEqual(rows.map(() => ["NotUploaded", 0]));
      expect(rows.length).toBeLessThanOrEqual(1);
      passAnHour();
      await using living = connect(await Cloud.open(patient(cloud.options)));
      for await (const { volume } of living.owned("move")) await living.remove(volume!);
      expect(uploaded()).toEqual([]);
      expect(await readdir(spool)).toEqual([]);
    },
  );
  expect(calls).toBeGreaterThan(5);
}, 900_000);

test("a removal killed after any call is finished by the next", async () => {
  const calls = await killedAtEveryCall(
    cloud,
    connect,
    async (target, round, attempt) => {
      if (attempt === 1) {
        await using living = connect(await Cloud.open(patient(cloud.options)));
        await write(living, `disk ${round}`, round, 1);
      }
      for await (const { volume } of target.owned("move")) await target.remove(volume!);
    },
    async () => {
      expect(uploaded()).toEqual([]);
      expect(await readdir(spool)).toEqual([]);
    },
  );
  expect(calls).toBeGreaterThan(3);
}, 900_000);
