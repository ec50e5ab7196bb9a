import { expect, it, vi } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { type TestCloud, startCloud } from "../cloud.ts";

/** The provider as another process has it, which knows nothing of what this one holds. */
async function otherProcess(cloud: TestCloud): Promise<import("@diskferry/core/provider").TargetProvider> {
  vi.resetModules();
  const { provider } = await import("../../src/index.ts");
  return provider.target!(cloud.options);
}

it("a reader that a writer of another process cut off takes nothing from it when it ends", async () => {
  await using cloud = await startCloud();
  const { simulator } = cloud;
  await using auditing = await otherProcess(cloud);
  const volume = await auditing.create({ key: "disk", size: 2 ** 20 });
  const reader = await auditing.read!(volume);
  await using writing = await otherProcess(cloud);
  const writer = await writing.open(volume, { run: "run", epoch: 1 });
  await writer.write(0, randomBytes(4096, 1));
  await reader[Symbol.asyncDispose]();
  expect(simulator.volumesOf(simulator.appliance.id)).toContain(volume.id);
  await writer.commit({ written: (async function* () {})() });
  await writer[Symbol.asyncDispose]();
  expect(simulator.volumesOf(simulator.appliance.id)).not.toContain(volume.id);
  await using again = await auditing.read!(volume);
  await again.read(0, new Uint8Array(4096));
  await again[Symbol.asyncDispose]();
  expect(simulator.volumesOf(simulator.appliance.id)).not.toContain(volume.id);
});
