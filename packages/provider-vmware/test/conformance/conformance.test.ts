import { formatConformance, runConformance } from "@diskferry/provider-testkit";
import type { VcenterSimulatorOptions } from "@diskferry/simulators";
import { expect, test } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import type { ReaderName } from "../../src/options.ts";
import { standInKind, standInPeers, VddkStandIn } from "../stand-in/vddk-stand-in.ts";
import { World } from "../world.ts";
import { harnessOf, judgedMachine } from "./harness.ts";

async function judge(readers: readonly ReaderName[], simulated: VcenterSimulatorOptions = {}): Promise<World> {
  const world = await World.start({ machines: [judgedMachine], ...simulated });
  await using standIn = readers.includes("vddk") ? await VddkStandIn.start(world.simulator) : undefined;
  try {
    const vddk = standIn === undefined ? {} : { vddk: standIn.options };
    const harness = harnessOf(world, `vSphere read by ${readers.join(" or ")}`, { readers: [...readers], ...vddk });
    const text = formatConformance(await runConformance(harness));
    expect(text).not.toContain("FAILED");
    await expect(text).toMatchFileSnapshot(`clauses/${readers.join("-")}.txt`);
    const left = [...world.simulator.machine("web").snapshots()].filter(({ name }) => name.startsWith("diskferry"));
    expect(left).toEqual([]);
    expect(world.simulator.alive).toEqual({ sessions: 0, leases: 0, tasks: 0 });
  } finally {
    await world[Symbol.asyncDispose]();
  }
  return world;
}

const readBy = (world: World, name: ReaderName): number =>
  world.notices.filter((line) => line.includes(`is read by ${name}`)).length;

// Releases before 8.0 U1 speak SOAP alone; with the others VI/JSON is judged.
test("nfc, over SOAP: every clause holds that can be judged, and those are the ones on record", async () => {
  const world = await judge(["nfc"], { version: "7.0" });
  expect(readBy(world, "nfc")).toBeGreaterThan(50);
}, 300_000);

// A delta has a format of its own, so where another snapshot is below the folder's reader gives way to the next.
test("folder: every clause holds that can be judged, and those are the ones on record", async () => {
  const world = await judge(["folder", "nfc"]);
  expect(readBy(world, "folder")).toBeGreaterThan(9);
}, 300_000);

describeWithPeers(standInPeers, `vddk against ${standInKind}`, () => {
  test("vddk: every clause holds that can be judged, and those are the ones on record", async () => {
    expect(readBy(await judge(["vddk"]), "vddk")).toBeGreaterThan(50);
  }, 300_000);
});
