import { StartSnapshotCommand, type StartSnapshotCommandOutput } from "@aws-sdk/client-ebs";
import { isProviderError, type Volume, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { tagValue, toTags } from "../connection/tags.ts";
import { awsError, failureOf } from "../errors.ts";
import { clientToken } from "./client-token.ts";
import { deleteSnapshot, findSnapshot, type OwnSnapshot, snapshotsWith } from "./own-snapshots.ts";
import { tagsOfNew, targetTagNames } from "./target-tags.ts";

/**
 * How long a half-written snapshot lives after its last block, in minutes: the most that AWS allows (EBS direct APIs,
 * StartSnapshot, Timeout). Every block written begins it anew, so a run that makes any progress keeps its snapshot; one that
 * is interrupted can be taken up for three days. Rewriting a block to stay alive would need a process that lives that
 * long, which an interrupted run does not have.
 */
const TIMEOUT_MINUTES = 4320;

/** So many half-written snapshots of one run may have been lost or given up before it is told to begin anew. */
const MOST_GENERATIONS = 20;

/** A snapshot that a run writes, or wrote. */
export interface Upload {
  snapshot: OwnSnapshot;
  /** The commit it was started from. */
  base: string | undefined;
  /** Whether an earlier opening of the run made it. */
  resumed: boolean;
}

/** What StartSnapshot is asked for. */
export interface UploadRequest extends Wait {
  volume: Volume;
  /** The key the volume was created with, as its tag says. */
  key: string;
  run: string;
  /** The commit to start from. */
  base: OwnSnapshot | undefined;
  job: string | undefined;
}

/**
 * The snapshot that a run writes: the one an earlier opening of the same run began, whatever became of that process, else a new
 * one. A snapshot in error is removed first, as AWS takes nothing more into it.
 */
export async function openUpload(connection: AwsConnection, request: UploadRequest): Promise<Upload> {
  const names = targetTagNames(connection.settings.product);
  const { volume, key, run, base, signal } = request;
  const tags = { [names.key]: key, [names.volume]: volume.id, [names.run]: tagValue(run) };
  const known = await snapshotsWith(connection, tags, { signal });
  for (const snapshot of known) {
    if (snapshot.state !== "error") continue;
    connection.notice(
      `Snapshot ${snapshot.id} of run ${run} is in error (${snapshot.message ?? "AWS does not say why"}), as happens when ` +
        `nothing is written to it for too long; what it held is copied again into a new one.`,
    );
    await deleteSnapshot(connection, snapshot.id, { signal });
  }
  const alive = known.filter(({ state }) => state !== "error");
  const committed = alive.find(({ state }) => state === "completed");
  // One that stands on another base would show that one's blocks, or none, where this run writes nothing: it is left to be
  // removed after the commit.
  const snapshot = committed ?? alive.find(({ tags: { [names.base]: from } }) => from === base?.id);
  if (snapshot !== undefined) return { snapshot, base: snapshot.tags[names.base], resumed: true };
  return start(connection, request);
}

async function start(connection: AwsConnection, request: UploadRequest): Promise<Upload> {
  const { volume, key, run, base, job, signal } = request;
  const { settings } = connection;
  const { encrypted, kmsKey, timeoutMinutes = TIMEOUT_MINUTES } = connection.options.target ?? {};
  const names = targetTagNames(settings.product);
  const own = {
    [names.role]: "upload",
    [names.key]: key,
    [names.volume]: volume.id,
    [names.run]: run,
    [names.job]: job,
    [names.base]: base?.id,
  };
  const shape = {
    VolumeSize: volume.size / 2 ** 30,
    Timeout: timeoutMinutes,
    Description: `${settings.product}: written by run ${run}`.slice(0, 255),
    Tags: toTags(tagsOfNew(settings, "Replica", own)),
    // AWS refuses Encrypted beside a parent: the parent's encryption goes on.
    ...(base === undefined ? encryption(encrypted, kmsKey) : { ParentSnapshotId: base.id }),
  };
  for (let generation = 0; generation < MOST_GENERATIONS; generation++) {
    // The same run asks with the same token, so that a call repeated after a kill finds what it began. A token whose snapshot
    // is gone is spent: the next one is taken.
    const token = clientToken([settings.product, job ?? "", key, volume.id, base?.id ?? "", run, generation]);
    const command = new StartSnapshotCommand({ ...shape, ClientToken: token });
    const about = {
      object: base === undefined ? `a new snapshot for ${volume.id}` : `a new snapshot from ${base.id}`,
      signal,
    };
    let answer: StartSnapshotCommandOutput;
    try {
      answer = await connection.patiently(() => connection.ebs(command, about), { signal });
    } catch (error) {
      if (isProviderError(error) && error.code === "EXISTS") continue;
      throw explain(error, request, connection);
    }
    const { SnapshotId: id, KmsKeyArn, SseType } = answer;
    if (id === undefined)
      throw awsError("UNEXPECTED", "StartSnapshot gave no snapshot id.", { operation: "StartSnapshot" });
    const snapshot = await findSnapshot(connection, id, { settling: true, signal });
    if (snapshot === undefined) continue;
    if (snapshot.state === "error") {
      await deleteSnapshot(connection, id, { signal });
      throw failedAtOnce(snapshot, kmsKey);
    }
    // Whichever of the two says so: zeroes that are left out of an encrypted snapshot read as random bytes.
    const isEncrypted = snapshot.encrypted || KmsKeyArn !== undefined || SseType === "sse-kms";
    return { snapshot: { ...snapshot, encrypted: isEncrypted }, base: base?.id, resumed: false };
  }
  throw awsError(
    "UNAVAILABLE",
    `Run ${run} of volume ${volume.id} lost its half-written snapshot ${MOST_GENERATIONS} times: begin a new run.`,
    { operation: "StartSnapshot", retryable: false },
  );
}

/** A snapshot that was in error before anything was written to it; it is removed, and another one would end so too. */
function failedAtOnce({ id, message = "AWS does not say why" }: OwnSnapshot, kmsKey: string | undefined): Error {
  const isKey = /key|kms|encrypt/i.test(message);
  const about = kmsKey ?? "the account's default key";
  return awsError(
    isKey ? "DENIED" : "UNAVAILABLE",
    `Snapshot ${id} went into error as soon as it was begun (${message}), and was removed. ` +
      (isKey
        ? `Let these credentials use ${about}: kms:CreateGrant, kms:Decrypt and kms:GenerateDataKeyWithoutPlaintext.`
        : "Run again."),
    { operation: "StartSnapshot", retryable: !isKey },
  );
}

function encryption(
  encrypted: boolean | undefined,
  kmsKey: string | undefined,
): { Encrypted?: true; KmsKeyArn?: string } {
  if (kmsKey !== undefined) return { Encrypted: true, KmsKeyArn: kmsKey };
  // `false` is not sent: it would be refused where the account encrypts by default, and means nothing elsewhere.
  return encrypted === true ? { Encrypted: true } : {};
}

/** Says of a parent that AWS did not take what to do about it. */
function explain(error: unknown, { base }: UploadRequest, connection: AwsConnection): unknown {
  const failure = failureOf(error);
  if (base === undefined || failure?.awsCode !== "ValidationException" || base.encrypted) return error;
  if (!/encrypt/i.test(failure.message)) return error;
  return awsError(
    "UNSUPPORTED",
    `The account encrypts by default in ${connection.region} and the last commit ${base.id} is not encrypted, so no snapshot ` +
      `can start from it (${failure.message}). Copy once in full (mode full): that snapshot is encrypted and later ones start from it.`,
    { operation: "StartSnapshot", cause: error },
  );
}
