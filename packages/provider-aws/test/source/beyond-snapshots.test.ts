import type { Instance, InstanceTypeInfo, Volume } from "@aws-sdk/client-ec2";
import { DescribeVolumesCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { beyondSnapshots } from "../../src/source/beyond-snapshots.ts";
import { Inventory } from "../../src/source/inventory.ts";
import { preflightSource } from "../../src/source/source-preflight.ts";
import { type AwsWorld, awsWorld } from "../aws-world.ts";

const instance: Instance = {
  InstanceId: "i-1",
  RootDeviceType: "ebs",
  BlockDeviceMappings: [{ DeviceName: "/dev/xvda", Ebs: { VolumeId: "vol-1" } }],
};
const volumeAt = (...ids: string[]): ReadonlyMap<string, Volume> =>
  new Map([["vol-1", { VolumeId: "vol-1", Attachments: ids.map((InstanceId) => ({ InstanceId })) }]]);

test("an instance of EBS volumes alone has nothing beyond its snapshots", () => {
  expect(beyondSnapshots(instance, {}, volumeAt("i-1"))).toEqual([]);
  expect(beyondSnapshots(instance, undefined, new Map())).toEqual([]);
});

test("an instance store is told of, as data and as what the machine boots from", () => {
  const type: InstanceTypeInfo = { InstanceStorageInfo: { TotalSizeInGB: 75 } };
  expect(beyondSnapshots(instance, type, volumeAt("i-1"))).toEqual([
    expect.stringMatching(/i-1 has 75 GB of instance store.*not copied/),
  ]);
  expect(beyondSnapshots({ ...instance, RootDeviceType: "instance-store" }, undefined, new Map())).toEqual([
    expect.stringMatching(/i-1 boots from its instance store.*no copy of it can be started/),
  ]);
});

test("a volume that other instances write too is told of, with what a cutover has to stop", () => {
  expect(beyondSnapshots(instance, {}, volumeAt("i-1", "i-2", "i-3"))).toEqual([
    expect.stringMatching(/vol-1 is attached to i-2, i-3 too.*shutting i-1 down does not stop them/),
  ]);
});

/** A connection whose answers to DescribeVolumes are changed on their way. */
async function volumesChanged(
  world: AwsWorld,
  change: (volumes: Volume[], isFiltered: boolean) => Volume[],
): Promise<{ connection: AwsConnection; notices: string[] }> {
  const notices: string[] = [];
  const connection = await AwsConnection.open(world.options(), { notice: (line) => notices.push(line) });
  const { ec2 } = connection;
  connection.ec2 = (async (command: never, about: never) => {
    const answer = (await ec2.call(connection, command, about)) as { Volumes?: Volume[] };
    if (!((command as unknown) instanceof DescribeVolumesCommand)) return answer;
    const isFiltered = (command as DescribeVolumesCommand).input.Filters !== undefined;
    return { ...answer, Volumes: change(answer.Volumes ?? [], isFiltered) };
  }) as typeof ec2;
  return { connection, notices };
}

test("a plan of a machine that shares a volume warns of it", async () => {
  await using world = await awsWorld();
  const { linux } = world.simulator.instances;
  const { connection } = await volumesChanged(world, (volumes) =>
    volumes.map((each) => ({ ...each, Attachments: [...(each.Attachments ?? []), { InstanceId: "i-0other" }] })),
  );
  await using _ = connection;
  const machine = await new Inventory(connection, []).machine(linux);
  const { findings } = await preflightSource(connection, machine, { disks: [] });
  const warned = findings.filter(({ severity, subject }) => severity === "warning" && subject === linux);
  expect(warned).toHaveLength(3);
  expect(warned[0]!.message).toContain("i-0other");
});

test("a volume that the instance names and the filter does not pass yet is still a disk of the machine", async () => {
  await using world = await awsWorld();
  const { linux } = world.simulator.instances;
  const volumes = world.simulator.volumesOf(linux);
  const late = await volumesChanged(world, (found, isFiltered) =>
    isFiltered ? found.filter(({ VolumeId }) => VolumeId !== volumes[1]) : found,
  );
  await using _ = late.connection;
  const machine = await new Inventory(late.connection, []).machine(linux);
  expect(machine.disks.map(({ key }) => key).toSorted()).toEqual(volumes.toSorted());
  expect(late.notices).toEqual([]);

  // One that EC2 does not know at all is none, and a notice says so.
  const gone = await volumesChanged(world, (found) => found.filter(({ VolumeId }) => VolumeId !== volumes[1]));
  await using __ = gone.connection;
  const less = await new Inventory(gone.connection, []).machine(linux);
  expect(less.disks).toHaveLength(2);
  expect(gone.notices).toEqual([expect.stringContaining(volumes[1]!)]);
});
