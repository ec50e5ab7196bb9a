import {
  CreateTagsCommand,
  DeleteTagsCommand,
  DescribeSnapshotAttributeCommand,
  ModifySnapshotAttributeCommand,
} from "@aws-sdk/client-ec2";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagNames } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import type { SnapshotFacts } from "../source/snapshot-facts.ts";

/**
 * Runs something while a snapshot is shared with another account, and ends the sharing that was begun for it. A tag tells
 * what was begun, so that a run after a killed one ends it too; sharing by somebody else is left as it is.
 * @throws ProviderError UNSUPPORTED for a snapshot whose key cannot be shared
 */
export async function whileShared<Result>(
  from: AwsConnection,
  snapshot: SnapshotFacts,
  account: string,
  wait: Wait,
  run: () => Promise<Result>,
): Promise<Result> {
  const { shared } = tagNames(from.settings.product);
  const { id } = snapshot;
  const isShared = await sharedWith(from, id, account, wait);
  const begun = !isShared || snapshot.tags[shared] === account;
  const about = { object: id, ...wait };
  if (!isShared) {
    await from.ec2(new CreateTagsCommand({ Resources: [id], Tags: [{ Key: shared, Value: account }] }), about);
    await modify(from, id, account, "add", wait);
  }
  let result: Result;
  try {
    result = await run();
  } catch (error) {
    if (begun) await end(from, id, account, shared).catch((more: unknown) => notEnded(from, id, account, more));
    throw error;
  }
  if (begun) await end(from, id, account, shared);
  return result;
}

async function sharedWith(from: AwsConnection, id: string, account: string, wait: Wait): Promise<boolean> {
  const command = new DescribeSnapshotAttributeCommand({ SnapshotId: id, Attribute: "createVolumePermission" });
  const { CreateVolumePermissions = [] } = await from.ec2(command, { object: id, ...wait });
  return CreateVolumePermissions.some(({ UserId }) => UserId === account);
}

async function modify(
  from: AwsConnection,
  id: string,
  account: string,
  OperationType: "add" | "remove",
  wait: Wait,
): Promise<void> {
  const command = new ModifySnapshotAttributeCommand({
    SnapshotId: id,
    Attribute: "createVolumePermission",
    OperationType,
    UserIds: [account],
  });
  try {
    await from.ec2(command, { object: id, ...wait });
  } catch (error) {
    if (!isProviderError(error) || failureOf(error)?.awsCode !== "OperationNotPermitted") throw error;
    await untag(from, id, tagNames(from.settings.product).shared, wait);
    throw awsError(
      "UNSUPPORTED",
      `Snapshot ${id} cannot be shared with account ${account}: ${failureOf(error)?.message}. Copy it within its account with ` +
        `a KMS key of its own first, and let the other account use that key.`,
      { operation: "ModifySnapshotAttribute", cause: error },
    );
  }
}

/** Not with the caller's signal: what was begun is ended although the caller gave up. */
async function end(from: AwsConnection, id: string, account: string, shared: string): Promise<void> {
  await modify(from, id, account, "remove", {});
  await untag(from, id, shared, {});
}

async function untag(from: AwsConnection, id: string, Key: string, wait: Wait): Promise<void> {
  await from.ec2(new DeleteTagsCommand({ Resources: [id], Tags: [{ Key }] }), { object: id, ...wait });
}

function notEnded(from: AwsConnection, id: string, account: string, error: unknown): void {
  from.notice(
    `Snapshot ${id} is still shared with account ${account}, because that could not be ended: ${String(error)}`,
  );
}
