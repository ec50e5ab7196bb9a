import { CopySnapshotCommand, CreateSnapshotCommand, ModifySnapshotAttributeCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { DiskSnapshot } from "@diskferry/core/provider";
import { provider } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { findSnapshots } from "../../src/source/snapshot-facts.ts";
import { type AwsWorld, awsWorld, block, gather, gibi, randomBlock } from "../aws-world.ts";
import { type Place, place } from "./taken.ts";

const kmsKey = "arn:aws:kms:us-east-1:111111111111:key/11111111-2222-4333-8444-555555555555";
const volumeId = "vol-0123456789abcdef0";

/** A snapshot that exists, in whatever state, as a handle that `open` takes. */
function handle(id: string): DiskSnapshot {
  return { id, machine: "i-1", disk: volumeId, size: gibi, data: { volumeId, region: "us-east-1", made: false } };
}

async function existing(world: AwsWorld, account = 0): Promise<string> {
  await using connection = await AwsConnection.open(world.options({ account }));
  const [volume] = world.simulator.volumesOf(world.simulator.instances.linux);
  const { SnapshotId } = await connection.ec2(new CreateSnapshotCommand({ VolumeId: volume }), { object: volume! });
  await new Promise((resolve) => setTimeout(resolve, 40));
  return SnapshotId!;
}

async function count(world: AwsWorld): Promise<number> {
  await using connection = await AwsConnection.open(world.options());
  return (await gather(findSnapshots(connection, {}))).length;
}

interface Case {
  what: string;
  /** What is asked for; everything before it is in `world` already. */
  ask(it: Place, world: AwsWorld): Promise<unknown>;
  code: string;
  message: RegExp;
  delays?: { completeMs: number };
}

const cases: Case[] = [
  {
    what: "an instance that nobody has",
    ask: (it) => it.source.machine("i-0123456789abcdef0"),
    code: "NOT_FOUND",
    message: /no i-0123456789abcdef0 in us-east-1 of account 111111111111/,
  },
  {
    what: "a volume that nobody has",
    ask: (it) => it.source.machine(volumeId),
    code: "NOT_FOUND",
    message: /vol-0123456789abcdef0.*us-east-1/,
  },
  {
    what: "a snapshot that nobody has",
    ask: (it) => it.source.open(handle("snap-0123456789abcdef0")),
    code: "NOT_FOUND",
    message: /snap-0123456789abcdef0.*us-east-1/,
  },
  {
    what: "the wrong Region",
    async ask(_, world) {
      await using source = await provider.source!(world.options({ region: "eu-west-1" }));
      return source.machine(world.simulator.instances.linux);
    },
    code: "NOT_FOUND",
    message: /in eu-west-1 of account 111111111111. Check the id, the account and the Region/,
  },
  {
    what: "the wrong account",
    async ask(_, world) {
      await using source = await provider.source!(world.options({ account: 1 }));
      return source.machine(world.simulator.instances.linux);
    },
    code: "NOT_FOUND",
    message: /of account 222222222222/,
  },
  {
    what: "a snapshot of another Region",
    ask: (it) => it.source.open({ ...handle("snap-0123456789abcdef0"), data: { region: "eu-west-1" } }),
    code: "NOT_FOUND",
    message: /is in eu-west-1, and this source in us-east-1/,
  },
  {
    what: "a pending snapshot",
    delays: { completeMs: 60_000 },
    ask: async (it, world) => it.source.open(handle(await existing(world))),
    code: "UNAVAILABLE",
    message: /is pending \(0%\). Wait until EC2 calls it completed/,
  },
  {
    what: "an archived snapshot",
    async ask(it, world) {
      const id = await existing(world);
      world.simulator.archiveSnapshot(id);
      return it.source.open(handle(id));
    },
    code: "UNSUPPORTED",
    message: /is archived. Restore it with RestoreSnapshotTier/,
  },
  {
    what: "an archived snapshot as a machine",
    async ask(it, world) {
      const id = await existing(world);
      world.simulator.archiveSnapshot(id);
      return it.source.snapshot(await it.source.machine(id), { key: "k" });
    },
    code: "UNSUPPORTED",
    message: /is archived/,
  },
  {
    what: "a public snapshot of somebody else",
    async ask(_, world) {
      const id = await existing(world);
      await using owner = await AwsConnection.open(world.options());
      const command = new ModifySnapshotAttributeCommand({
        SnapshotId: id,
        Attribute: "createVolumePermission",
        OperationType: "add",
        GroupNames: ["all"],
      });
      await owner.ec2(command, { object: id });
      await using source = await provider.source!(world.options({ account: 1 }));
      return source.open(handle(id));
    },
    code: "UNSUPPORTED",
    message: /public.*neither archived nor public/s,
  },
  {
    what: "a snapshot of somebody else that is not shared",
    async ask(_, world) {
      await using source = await provider.source!(world.options({ account: 1 }));
      return source.open(handle(await existing(world)));
    },
    code: "NOT_FOUND",
    message: /does not exist.*Check the id, the account/s,
  },
  {
    what: "no right to take snapshots",
    ask(it, world) {
      world.simulator.deny("111111111111", "ec2:CreateSnapshots");
      return it.snapshot("k");
    },
    code: "DENIED",
    message: /ec2:CreateSnapshots on arn:aws:ec2:us-east-1:111111111111:\* is denied/,
  },
  {
    what: "no right to list blocks",
    async ask(it, world) {
      const id = await existing(world);
      world.simulator.deny("111111111111", "ebs:ListSnapshotBlocks");
      return gather(it.source.tracker!.changes(handle(id)));
    },
    code: "DENIED",
    message: /ebs:ListSnapshotBlocks on arn:aws:ec2:us-east-1::snapshot\/snap-\w+ is denied/,
  },
  {
    what: "a key that KMS refuses",
    async ask(it, world) {
      const id = await existing(world);
      await using connection = await AwsConnection.open(world.options());
      const command = { SourceRegion: "us-east-1", SourceSnapshotId: id, Encrypted: true, KmsKeyId: kmsKey };
      const { SnapshotId } = await connection.ec2(new CopySnapshotCommand(command), { object: id });
      await new Promise((resolve) => setTimeout(resolve, 60));
      world.simulator.denyKey(kmsKey);
      return gather(it.source.tracker!.changes(handle(SnapshotId!)));
    },
    code: "DENIED",
    message: /KMS refused.*kms:Decrypt/s,
  },
  {
    what: "five pending snapshots of a volume",
    delays: { completeMs: 60_000 },
    async ask(_, world) {
      for (let number = 0; number < 5; number++) await existing(world);
      await using it = await place(world, { retryBudgetMs: 100 });
      return it.snapshot("sixth");
    },
    code: "UNAVAILABLE",
    message: /as many pending snapshots as AWS allows/,
  },
  {
    what: "a range that is none",
    async ask(it) {
      const reader = await it.source.open(await it.point());
      await reader.read(512, new Uint8Array(block));
    },
    code: undefined as never,
    message: /512\+524288 is no range of blocks/,
  },
];

for (const { what, ask, code, message, delays } of cases) {
  test(`${what}: its own clear error, and nothing left behind`, async () => {
    await using world = await awsWorld(delays === undefined ? {} : { delays });
    await using it = await place(world);
    await it.write(0, randomBlock());
    let made = 0;
    const error: unknown = await ask(it, world).then(
      () => undefined,
      (failure: unknown) => failure,
    );
    expect(error).toMatchObject({ message: expect.stringMatching(message) as string });
    expect((error as { code?: string }).code).toBe(code);
    made = await count(world);
    // Whatever there is was made by the test's own hand, or is the point that a reader was opened on.
    await using connection = await AwsConnection.open(world.options());
    const ours = (await gather(findSnapshots(connection, { "tag-key": ["diskferry:key"] }))).length;
    expect(ours).toBe(what === "a range that is none" ? 1 : 0);
    expect(made).toBeGreaterThanOrEqual(ours);
  });
}
