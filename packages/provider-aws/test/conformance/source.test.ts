import { CreateSnapshotCommand, DeleteSnapshotCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { Snapshot } from "@diskferry/core/provider";
import { type SourceHarness, formatConformance, runConformance } from "@diskferry/provider-testkit";
import { type AwsOptions, provider } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { findSnapshots } from "../../src/source/snapshot-facts.ts";
import { awsWorld, gibi } from "../aws-world.ts";
import { realRanges, sparseView } from "./sparse-view.ts";

test("aws-ebs source: every clause holds that can be judged, and those are the ones on record", async () => {
  await using world = await awsWorld();
  const { simulator } = world;
  const [root, data] = simulator.volumesOf(simulator.instances.linux);
  const config = world.options();
  let sizeGib = 1;
  const write = async (volume: string, offset: number, bytes: Uint8Array): Promise<void> => {
    let at = 0;
    for (const range of realRanges(sizeGib * gibi, offset, bytes.byteLength)) {
      await simulator.writeVolume(volume, range.offset, bytes.subarray(at, at + range.length));
      at += range.length;
    }
  };
  const source: SourceHarness = {
    open: async () => sparseView(await provider.source!(config)),
    machine: simulator.instances.linux,
    disk: root!,
    writeGuest: (offset, bytes) => write(root!, offset, bytes),
    async trimGuest(offset, length) {
      for (const range of realRanges(sizeGib * gibi, offset, length))
        await simulator.trimVolume(root!, range.offset, range.length);
    },
    second: { key: data!, write: (offset, bytes) => write(data!, offset, bytes) },
    grow: () => simulator.growVolume(root!, ++sizeGib),
    breakTracking: () => removeAllSnapshots(config),
    foreignSnapshot: () => foreignSnapshot(config, simulator.instances.linux, root!),
    mayPower: true,
  };
  const { secretAccessKey } = simulator.credentials[0]!;
  const report = await runConformance({
    name: "aws-ebs source",
    definition: {
      provider,
      config,
      badConfig: { region: "us-east-1", retries: 3, credentials: { accessKeyId: "AKIA" } },
      uri: `aws-ebs://us-east-1/${simulator.instances.linux}?profile=backup`,
    },
    source,
    secrets: [secretAccessKey],
  });
  const text = formatConformance(report);
  expect(text).not.toContain("FAILED");
  await expect(text).toMatchFileSnapshot("clauses/aws-ebs-source.txt");
}, 120_000);

/** Somebody else's hand: what checkpoints stand on is gone. */
async function removeAllSnapshots(config: AwsOptions): Promise<void> {
  await using connection = await AwsConnection.open(config);
  for await (const { id } of findSnapshots(connection, {}))
    await connection.ec2(new DeleteSnapshotCommand({ SnapshotId: id }), { object: id });
}

/** A snapshot that another tool made of the disk. */
async function foreignSnapshot(config: AwsOptions, machine: string, volume: string): Promise<Snapshot> {
  await using connection = await AwsConnection.open(config);
  const { SnapshotId } = await connection.ec2(new CreateSnapshotCommand({ VolumeId: volume }), { object: volume });
  const source = sparseView(await provider.source!(config));
  for (;;) {
    for await (const snapshot of source.snapshots!(await source.machine(machine)))
      if (snapshot.id === SnapshotId) return snapshot;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
