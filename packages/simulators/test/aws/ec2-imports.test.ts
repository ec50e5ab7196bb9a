import {
  CancelImportTaskCommand,
  DescribeImagesCommand,
  DescribeImportImageTasksCommand,
  ImportImageCommand,
  RunInstancesCommand,
  type ImportImageCommandInput,
} from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import {
  block,
  clientsOf,
  firstAccount,
  later,
  noWaits,
  setup,
  size,
  upload,
  type Clients,
  type Setup,
} from "./aws-client.ts";

const named = (name: string): unknown => expect.objectContaining({ name });

/** A first block with the signature of a partition table. */
function bootable(): Buffer {
  const first = block(3);
  first.set([0x55, 0xaa], 510);
  return first;
}

async function start({ ec2, ebs }: Clients, more: Partial<ImportImageCommandInput> = {}): Promise<string> {
  const SnapshotId = await upload(ebs, { 0: bootable() });
  const answer = await ec2.send(new ImportImageCommand({ DiskContainers: [{ SnapshotId }], ...more }));
  return answer.ImportTaskId ?? "";
}

async function look({ ec2 }: Clients, id: string) {
  return (await ec2.send(new DescribeImportImageTasksCommand({ ImportTaskIds: [id] }))).ImportImageTasks?.[0];
}

/** The end of a conversion waits for the disk to be read; asking again is what a caller does too. */
async function ended(clients: Clients, id: string) {
  for (let asked = 0; asked < 100; asked++) {
    const task = await look(clients, id);
    if (task?.Status !== "active") return task;
    await new Promise((done) => setTimeout(done, 10));
  }
  throw new Error(`${id} did not end`);
}

test("ImportImage from a snapshot converts it into an image of snapshots of its own, which starts", async () => {
  const setUp: Setup = await setup();
  const { ec2, simulator } = setUp;
  const id = await start(setUp, { Platform: "Windows", BootMode: "uefi", Description: "moved" });
  const task = await ended(setUp, id);
  expect(task).toMatchObject({ Status: "completed", Platform: "Windows", BootMode: "uefi" });
  const { Images } = await ec2.send(new DescribeImagesCommand({ ImageIds: [task?.ImageId ?? ""] }));
  expect(Images?.[0]).toMatchObject({ Platform: "windows", VirtualizationType: "hvm", EnaSupport: true });
  const [mapping] = Images?.[0]?.BlockDeviceMappings ?? [];
  expect((await simulator.snapshotBytes(mapping?.Ebs?.SnapshotId ?? "", 0, size)).equals(bootable())).toBe(true);
  const run = new RunInstancesCommand({
    ImageId: task?.ImageId,
    InstanceType: "m5.large",
    MinCount: 1,
    MaxCount: 1,
  });
  expect((await ec2.send(run)).Instances?.[0]).toMatchObject({ Platform: "windows", BootMode: "uefi" });
});

test("an import shows its progress, can be cancelled, and then ends as deleted", async () => {
  const setUp = await setup({ delays: { ...noWaits, changeMs: 50_000 } });
  const id = await start(setUp);
  expect(await look(setUp, id)).toMatchObject({ Status: "active", StatusMessage: "pending", Progress: "2" });
  const aged = later(setUp.simulator, 20_000);
  expect(await look(aged, id)).toMatchObject({ Status: "active", StatusMessage: "updating", Progress: "28" });
  const cancel = new CancelImportTaskCommand({ ImportTaskId: id });
  expect(await aged.ec2.send(cancel)).toMatchObject({ PreviousState: "active", State: "deleting" });
  await expect(aged.ec2.send(cancel)).rejects.toEqual(named("IncorrectState"));
  expect(await look(later(setUp.simulator, 60_000), id)).toMatchObject({ Status: "deleted" });
});

test("a conversion fails for want of a system on the disk, or as the test says", async () => {
  const setUp = await setup();
  const SnapshotId = await upload(setUp.ebs, { 0: block(1) });
  const empty = await setUp.ec2.send(new ImportImageCommand({ DiskContainers: [{ SnapshotId }] }));
  expect(await ended(setUp, empty.ImportTaskId ?? "")).toMatchObject({
    Status: "deleted",
    StatusMessage: "ClientError: Unknown OS / Missing OS files.",
  });
  setUp.simulator.failNextImport("ClientError: Unsupported kernel version");
  const task = await ended(setUp, await start(setUp));
  expect(task).toMatchObject({ Status: "deleted", StatusMessage: "ClientError: Unsupported kernel version" });
  expect(task?.ImageId).toBeUndefined();
});

test("ImportImage refuses what VM Import cannot take, and needs its service role", async () => {
  const setUp = await setup();
  const { ebs, simulator } = setUp;
  await expect(start(setUp, { BootMode: "uefi" })).rejects.toEqual(named("InvalidParameterCombination"));
  await expect(start(setUp, { BootMode: "uefi", Platform: "Linux", Encrypted: true })).rejects.toEqual(
    named("InvalidParameterCombination"),
  );
  await expect(start(setUp, { Architecture: "arm64" })).rejects.toEqual(named("InvalidParameterValue"));
  const SnapshotId = await upload(ebs, { 0: bootable() }, { Encrypted: true });
  await expect(start(setUp, { DiskContainers: [{ SnapshotId }] })).rejects.toEqual(named("InvalidParameter"));
  const many = Array.from({ length: 22 }, () => ({ SnapshotId }));
  await expect(start(setUp, { DiskContainers: many })).rejects.toEqual(named("InvalidParameterValue"));
  simulator.removeRole(`arn:aws:iam::${firstAccount}:role/vmimport`);
  await expect(start(setUp)).rejects.toThrow("service role vmimport");
  await expect(start(clientsOf(simulator, { account: 1 }))).resolves.toMatch(/^import-ami-/);
  await expect(look(setUp, "import-ami-unknown")).rejects.toEqual(named("InvalidConversionTaskId.Malformed"));
});
