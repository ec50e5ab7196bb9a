import { expect, test, vi } from "vitest";
import { provider } from "../../src/index.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { findSnapshots } from "../../src/source/snapshot-facts.ts";
import { awsWorld, gather } from "../aws-world.ts";
import { block, startPlace, writeBlocks } from "../target/target-place.ts";
import { place } from "./taken.ts";

test("a snapshot that is in error is refused as a source, with what to do instead", async () => {
  const { open, options, simulator } = await startPlace({}, { target: { timeoutMinutes: 10 } });
  const target = await open();
  const volume = await target.create({ key: "k", size: 2 ** 30 });
  const writer = await target.open(volume, { run: "r", epoch: 1 });
  await writeBlocks(writer, new Map([[0, randomBytes(block, 1)]]));
  const id = writer.generation;
  await using source = await provider.source!(options);
  const refusal = (state: RegExp, code: string): object => ({
    code,
    retryable: false,
    message: expect.stringMatching(state) as string,
  });
  const machine = await source.machine(id);
  const pending = source.snapshot(machine, { key: "run" });
  await expect(pending).rejects.toMatchObject(refusal(/is pending .*Wait until/, "UNAVAILABLE"));
  // Nothing more comes within the time-out: EC2 gives it up.
  simulator.advance(11 * 60_000);
  const failed = refusal(new RegExp(`${id} cannot be read: it failed .*Take another one`), "UNSUPPORTED");
  await expect(source.snapshot(machine, { key: "run" })).rejects.toMatchObject(failed);
  const disk = { id, machine: id, disk: id, size: 2 ** 30 };
  await expect(source.open(disk)).rejects.toMatchObject(failed);
  const { findings } = await source.preflight!(machine, { disks: [] });
  expect(findings).toContainEqual(expect.objectContaining({ severity: "blocker", subject: id }));
});

test("a machine's snapshot of which one disk fails is removed whole, and the same key makes another", async () => {
  await using world = await awsWorld({ delays: { completeMs: 60_000 } });
  await using it = await place(world);
  await using connection = await AwsConnection.open(world.options());
  const ids = async (): Promise<string[]> => (await gather(findSnapshots(connection, {}))).map(({ id }) => id);
  const made = async (): Promise<string[]> =>
    vi.waitFor(
      async () => {
        const found = await ids();
        expect(found).toHaveLength(3);
        return found;
      },
      { timeout: 30_000 },
    );
  const failing = it.snapshot("run");
  const failure = expect(failing).rejects.toMatchObject({
    code: "UNAVAILABLE",
    message: expect.stringMatching(/failed \(the volume is gone\).* are removed\. Run again/) as string,
  });
  const [first] = await made();
  world.simulator.failSnapshot(first!, "the volume is gone");
  world.simulator.advance(60_000);
  await failure;
  expect(await ids()).toEqual([]);
  const again = it.snapshot("run");
  const next = await made();
  expect(next).not.toContain(first);
  world.simulator.advance(60_000);
  expect((await again).disks.map(({ id }) => id).sort()).toEqual(next.sort());
});
