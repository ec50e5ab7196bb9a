import { randomUUID } from "node:crypto";
import { CreateTagsCommand } from "@aws-sdk/client-ec2";
import {
  type Consistency,
  type Disk,
  type Machine,
  type SnapshotRequest,
  type Wait,
  isProviderError,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames } from "../connection/tags.ts";
import { createSet, descriptionOf, setTags } from "./create-set.ts";
import { guardedCommands, releaseCommands, runInGuest } from "./guest.ts";
import { type SnapshotSet, deleteSnapshots, findSets, idsOf } from "./snapshot-set.ts";

/** How long a guest stays frozen at most, in seconds, whatever becomes of us. */
const longestFreezeSeconds = 60;

/** Makes a set by whichever way reaches the consistency asked for, and is content with a power cut's where none does. */
export async function makeSet(
  connection: AwsConnection,
  machine: Machine,
  disks: readonly Disk[],
  request: SnapshotRequest,
): Promise<SnapshotSet> {
  const { consistency = "crash", signal } = request;
  const wantsGuest = consistency === "filesystem" || consistency === "application";
  const { application } = connection.options.source ?? {};
  const create = (): Promise<SnapshotSet> => createSet(connection, machine, disks, request);
  if (!wantsGuest) return create();
  const less = (why: string): Promise<SnapshotSet> => {
    connection.notice(
      `${machine.id}: ${consistency} consistency is not reached, and crash consistency is what there is: ${why}`,
    );
    return create();
  };
  if (!machine.id.startsWith("i-")) return less("a volume or snapshot has no guest that could be asked.");
  if (machine.power === "off")
    return less("it is off, and EC2 does not tell whether its guest had shut down in time or its power was taken.");
  const timeoutSeconds = application?.timeoutSeconds ?? 600;
  const base = { instanceId: machine.id, timeoutSeconds, signal };
  try {
    if (machine.spec?.guestFamily === "windows") {
      const made = await vssSet(connection, machine, request, base);
      return made ?? (await less("AWSEC2-CreateVssSnapshot made no snapshots; see it in Systems Manager."));
    }
    const linux = application?.linux;
    if (linux === undefined)
      return await less("no commands are given for Linux guests; see the option source.application.linux.");
    return await frozenSet(connection, linux, create, base, less);
  } catch (error) {
    if (!isProviderError(error) || (error.code !== "UNSUPPORTED" && error.code !== "DENIED")) throw error;
    return less(error.message);
  }
}

type GuestRequest = { instanceId: string; timeoutSeconds: number } & Wait;

/** Has the guest run its own commands before and after the point in time; after it also when anything failed. */
async function frozenSet(
  connection: AwsConnection,
  linux: { pre: string[]; post: string[]; achieves: Consistency },
  create: () => Promise<SnapshotSet>,
  base: GuestRequest,
  less: (why: string) => Promise<SnapshotSet>,
): Promise<SnapshotSet> {
  const document = "AWS-RunShellScript";
  const { product } = connection.settings;
  const guard = { id: randomUUID(), seconds: Math.min(longestFreezeSeconds, base.timeoutSeconds) };
  const run = (commands: string[], comment: string, wait: Wait) =>
    runInGuest(connection, {
      ...base,
      document,
      comment,
      parameters: { commands, executionTimeout: [String(base.timeoutSeconds)] },
      ...wait,
    });
  const thaw = () =>
    run(releaseCommands(linux.post, guard.id), `${product}: after the snapshot`, { signal: undefined });
  let set: SnapshotSet | undefined;
  let why: string | undefined;
  try {
    const before = await run(guardedCommands(linux.pre, linux.post, guard), `${product}: before the snapshot`, base);
    if (before.status === "Success") set = await create();
    else why = `the commands before the snapshot ended as ${before.status}: ${before.output}`;
  } catch (error) {
    // Not what failed, but that the guest may still be frozen, comes first; its own guard is the last resort.
    await thaw().catch((more: unknown) => connection.notice(`${base.instanceId} could not be thawed: ${String(more)}`));
    throw error;
  }
  const after = await thaw();
  if (set === undefined) return less(why ?? "");
  if (after.status !== "Success") {
    connection.notice(
      `${base.instanceId}: only crash consistency is certain, because the commands after the snapshot ended as ${after.status}: ${after.output}`,
    );
    return set;
  }
  const { consistency } = tagNames(product);
  const Tags = [{ Key: consistency, Value: linux.achieves }];
  await connection.ec2(new CreateTagsCommand({ Resources: idsOf(set), Tags }), {
    object: set.id,
    settling: true,
    signal: base.signal,
  });
  return set;
}

/** Has Windows take the snapshots by VSS; what was achieved is in the tag AppConsistent, and is read there later. */
async function vssSet(
  connection: AwsConnection,
  machine: Machine,
  request: SnapshotRequest,
  base: GuestRequest,
): Promise<SnapshotSet | undefined> {
  const { application } = connection.options.source ?? {};
  const all = machine.disks;
  const tags = setTags(connection, machine, request, all.length);
  // The document takes tags as one text; what would be read as two of them is added once the snapshots are there.
  const inText = Object.entries(tags).filter((tag) => !/[,;=]/.test(tag.join("")));
  const outcome = await runInGuest(connection, {
    ...base,
    document: "AWSEC2-CreateVssSnapshot",
    comment: `${connection.settings.product}: snapshot`,
    parameters: {
      ExcludeBootVolume: ["False"],
      CopyOnly: [application?.windows?.copyOnly === false ? "False" : "True"],
      NoWriters: [application?.windows?.noWriters === true ? "True" : "False"],
      description: [descriptionOf(connection, machine)],
      tags: [inText.map(([key, value]) => `Key=${key},Value=${value}`).join(";")],
      executionTimeout: [String(base.timeoutSeconds)],
    },
  });
  const names = tagNames(connection.settings.product);
  const [made] = await findSets(connection, { [`tag:${names.set}`]: [tags[names.set]!] }, base);
  if (outcome.status !== "Success") {
    connection.notice(`AWSEC2-CreateVssSnapshot on ${machine.id} ended as ${outcome.status}: ${outcome.output}`);
    if (made !== undefined) await deleteSnapshots(connection, idsOf(made), base);
    return undefined;
  }
  return made;
}
