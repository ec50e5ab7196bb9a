import { expect, test } from "vitest";
import { World } from "../packages/provider-vmware/test/world.ts";

const tebi = 2 ** 40;
const areas = 50_000;
const mebi = 1 << 20;

test("50,000 changed areas of a 1 TiB disk are listed as a stream, in memory that does not grow with them", async () => {
  await using world = await World.start({ machines: [{ name: "big", disks: [{ size: tebi }], tracking: true }] });
  const source = await world.source();
  const machine = await source.machine("big");
  const first = await source.snapshot(machine, { key: "first" });
  const since = await source.tracker!.checkpoint(first.disks[0]!);
  await source.release(first);
  const step = Math.floor(tebi / areas / mebi) * mebi;
  for (let area = 0; area < areas; area++) world.simulator.touch("big", 2000, area * step, 512);
  const second = await source.snapshot(machine, { key: "second" });
  const before = process.memoryUsage().rss;
  let peak = before;
  let [changed, bytes, end] = [0, 0, 0];
  for await (const { offset, length, kind } of source.tracker!.changes(second.disks[0]!, { since })) {
    expect(offset).toBe(end);
    end = offset + length;
    if (kind !== "changed") continue;
    bytes += length;
    if (++changed % 1000 !== 0) continue;
    peak = Math.max(peak, process.memoryUsage().rss);
    // Streamed: no more is asked for than what was taken needs, whatever else there is (2,000 areas, a quarter of the disk).
    const asked = world.simulator.calls.get("QueryChangedDiskAreas") ?? 0;
    expect(asked).toBeLessThanOrEqual(Math.ceil(changed / 2000) + 4);
  }
  const answers = world.simulator.calls.get("QueryChangedDiskAreas") ?? 0;
  console.info(
    `${changed} areas of ${bytes / mebi} MiB in ${answers} answers; resident set grew by ${Math.ceil((peak - before) / mebi)} MiB`,
  );
  expect(end).toBe(tebi);
  expect(changed).toBeGreaterThanOrEqual(areas);
  expect(answers).toBeGreaterThanOrEqual(areas / 2000);
  // Of the simulator's answers and ours together, both in this process.
  expect(peak - before).toBeLessThan(192 * mebi);
  await source.release(second);
}, 300_000);
