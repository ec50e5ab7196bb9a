import { CreateTagsCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { awsWorld, gather, gibi } from "../aws-world.ts";
import { place } from "./taken.ts";

test("an instance tells what a launch elsewhere needs to know", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const { id, name, disks, power, spec } = it.machine;
  expect({ id, name, power }).toEqual({ id: world.simulator.instances.linux, name: "linux", power: "on" });
  expect(disks).toEqual(
    ["/dev/xvda", "/dev/sdf", "/dev/sdg"].map((device, index) => ({
      key: world.simulator.volumesOf(id)[index],
      size: gibi,
      name: device,
      ...(index === 0 ? { boot: true } : {}),
      controller: "nvme",
    })),
  );
  expect(spec).toMatchObject({
    name: "linux",
    cpus: 2,
    memoryBytes: 8 * gibi,
    architecture: "x86_64",
    firmware: "bios",
    guestFamily: "linux",
    labels: { Name: "linux" },
  });
  expect(spec?.networkCards?.[0]).toMatchObject({
    addresses: [expect.any(String)],
    network: expect.any(String) as string,
  });
  const windows = await it.source.machine(world.simulator.instances.windows);
  expect(windows.spec).toMatchObject({ guestFamily: "windows", firmware: "uefi" });
});

test("an instance is found by its name, unless two have it", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  const { linux, windows } = world.simulator.instances;
  expect((await it.source.machine("windows")).id).toBe(windows);
  await using connection = await AwsConnection.open(world.options());
  const Tags = [{ Key: "Name", Value: "linux" }];
  await connection.ec2(new CreateTagsCommand({ Resources: [windows], Tags }), { object: windows });
  await expect(it.source.machine("linux")).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringMatching(new RegExp(`2 instances are called linux.*${linux}`)) as string,
  });
});

test("a name that is nobody's tells of names near it, and wildcards mean themselves", async () => {
  await using world = await awsWorld();
  await using it = await place(world);
  await expect(it.source.machine("linux-2")).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: expect.stringContaining(`Near it: ${world.simulator.instances.linux} linux`) as string,
  });
  await expect(it.source.machine("l*")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("instances without a right to ask for types have no CPUs, and a notice says why", async () => {
  await using world = await awsWorld();
  world.simulator.deny("111111111111", "ec2:DescribeInstanceTypes");
  await using it = await place(world);
  expect(it.machine.spec?.cpus).toBeUndefined();
  expect(it.notices.join()).toContain("ec2:DescribeInstanceTypes");
});

test("a URI's instance is the only machine of its source", async () => {
  await using world = await awsWorld();
  await using it = await place(world, { resource: world.simulator.instances.windows });
  expect((await gather(it.source.machines())).map(({ id }) => id)).toEqual([world.simulator.instances.windows]);
});
