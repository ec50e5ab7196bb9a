import { expect, it } from "vitest";
import { randomBytes } from "../../../../test/seed.ts";
import { type CloudstackOptions, provider } from "../../src/index.ts";
import { startCloud } from "../cloud.ts";

it("everything is done in the project that the options name, and nothing of it is seen outside", async () => {
  await using cloud = await startCloud();
  const { simulator } = cloud;
  simulator.addProject("migration");
  const machine = await simulator.addMachine({ name: "worker", disks: [2 ** 20], guest: true, owner: "migration" });
  const { root } = simulator.guestOf(machine);
  const options: CloudstackOptions = {
    ...cloud.options,
    project: "migration",
    appliance: {
      machine: "worker",
      devices: { byId: `${root}/dev/disk/by-id`, dev: `${root}/dev`, sys: `${root}/sys` },
    },
  };
  await using target = await provider.target!(options);
  const volume = await target.create({ key: "disk", size: 2 ** 20, job: "job" });
  const writer = await target.open(volume, { run: "run", epoch: 1 });
  await writer.write(0, randomBytes(4096, 1));
  await writer.commit({ written: (async function* () {})() });
  await writer[Symbol.asyncDispose]();
  expect(Buffer.compare(await simulator.volumeBytes(volume.id, 0, 4096), randomBytes(4096, 1))).toBe(0);
  const owned = [];
  for await (const each of target.owned("job")) owned.push(each.id);
  expect(owned).toEqual([volume.id]);
  await using outside = await provider.target!(cloud.options);
  for await (const each of outside.owned("job")) expect.fail(`${each.id} is seen outside of its project`);
  await target.remove(volume);
  expect(simulator.volumes().map(({ id }) => id)).not.toContain(volume.id);
});
