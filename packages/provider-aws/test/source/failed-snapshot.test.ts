import { expect, test } from "vitest";
import { provider } from "../../src/index.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { block, startPlace, writeBlocks } from "../target/target-place.ts";

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
