import { createHash } from "node:crypto";
import { CompleteSnapshotCommand } from "@aws-sdk/client-ebs";
import {
  type BlockWriter,
  isProviderError,
  type Volume,
  type Wait,
  type WrittenExtent,
} from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { listSnapshotBlocks, putSnapshotBlock } from "../connection/ebs-block-calls.ts";
import { awsError, failureOf } from "../errors.ts";
import { sleep } from "../limits/clock.ts";
import { BLOCK_BYTES } from "../plan/request-counts.ts";
import { LinearChecksum } from "./linear-checksum.ts";
import { deleteSnapshot, findSnapshot, type OwnSnapshot } from "./own-snapshots.ts";
import { removeUnneeded } from "./retention.ts";
import type { Upload } from "./uploads.ts";
import { readsAsZeroes } from "./zero-policy.ts";

const DIGEST_BYTES = 32;
/** Before the second look at a snapshot that is being completed, at most; each later wait is twice as long. */
const FIRST_LOOK_MS = 250;
/** Between two tries of a first block whose snapshot AWS does not know yet, at most. */
const FIRST_BLOCK_WAIT_MS = 250;

const zeroes = new Uint8Array(BLOCK_BYTES);
const zeroDigest: Uint8Array = createHash("sha256").update(zeroes).digest();

interface PutWait extends Wait {
  /** Whether the block is one of several of a call, which is made again when another fails. */
  remembered?: boolean;
}

export interface SnapshotWriterRequest {
  connection: AwsConnection;
  upload: Upload;
  /** Makes the commit's handle. */
  commitOf: (snapshotId: string) => Volume;
  /** What retention and older runs leave to remove after the commit. */
  removable: (wait: Wait) => Promise<OwnSnapshot[]>;
}

/**
 * Writes one run into one half-written snapshot, block by block; each is durable when its call is answered. `generation` is
 * the snapshot's id.
 */
export function snapshotWriter({ connection, upload, commitOf, removable }: SnapshotWriterRequest): BlockWriter {
  const { snapshot } = upload;
  const { id, size } = snapshot;
  const { visibleMs, pollMs, snapshotMs } = connection.settings.timeouts;
  /** The last write of each block that is under way: two at once to one index are a conflict, and nobody knows which wins. */
  const underWay = new Map<number, Promise<void>>();
  /** Checksums of blocks that were put by calls that are not through: should another block fail, the call is made again, without them. */
  const taken = new Map<number, string>();
  const visibleBy = performance.now() + visibleMs;
  let isKnown = snapshot.state === "completed";
  let isCommitted = snapshot.state === "completed";
  let completeAsked = upload.resumed;
  let isClosed = false;

  const alive = (): void => {
    if (isClosed) throw new TypeError(`the writer of ${id} was disposed: open the run again`);
  };
  const writable = (): void => {
    alive();
    if (isCommitted)
      throw awsError("UNSUPPORTED", `Snapshot ${id} is committed already: begin another run to write more.`, {
        operation: "PutSnapshotBlock",
      });
  };
  const checkRange = (offset: number, length: number): void => {
    if (offset % BLOCK_BYTES !== 0 || length % BLOCK_BYTES !== 0 || length <= 0 || offset < 0 || offset + length > size)
      throw new RangeError(
        `${offset}+${length} is no range of whole ${BLOCK_BYTES}-byte blocks within the ${size} bytes of ${id}`,
      );
  };

  /** One block, once, after whatever is under way to the same block. */
  async function put(index: number, data: Uint8Array, digest: Uint8Array, wait: PutWait): Promise<void> {
    const before = underWay.get(index);
    const turn = (async () => {
      await before?.catch(() => undefined);
      wait.signal?.throwIfAborted();
      await putWhenKnown(index, data, digest, wait);
    })();
    underWay.set(index, turn);
    try {
      await turn;
    } finally {
      if (underWay.get(index) === turn) underWay.delete(index);
    }
  }

  /**
   * Until a first block was taken, AWS may not know the snapshot it began a moment ago (awslabs/coldsnap #43): for that long the
   * block waits here. Everything else that may pass is repeated by core.
   */
  async function putWhenKnown(index: number, data: Uint8Array, digest: Uint8Array, wait: PutWait): Promise<void> {
    const { signal, remembered = false } = wait;
    const checksum = checksumOf(digest);
    if (taken.get(index) === checksum) return;
    taken.delete(index);
    const call = putSnapshotBlock({ snapshotId: id, index, data, checksum });
    for (;;) {
      try {
        await connection.direct(call, { object: `block ${index} of ${id}`, snapshotId: id, signal });
        isKnown = true;
        if (remembered) taken.set(index, checksum);
        return;
      } catch (error) {
        const mayComeYet = !isKnown && performance.now() < visibleBy;
        if (!(mayComeYet && isProviderError(error) && error.code === "NOT_FOUND")) throw explainPut(error, index);
      }
      await sleep(Math.min(FIRST_BLOCK_WAIT_MS, pollMs), signal);
    }
  }

  function explainPut(error: unknown, index: number): unknown {
    const failure = failureOf(error);
    if (!isProviderError(error) || failure === undefined) return error;
    const about = { operation: "PutSnapshotBlock", cause: error };
    // Length, algorithm and index are ours and right, so what is invalid is the checksum.
    if (failure.awsCode === "ValidationException" && failure.reason === "INVALID_PARAMETER_VALUE" && !error.retryable)
      return awsError(
        "CORRUPT",
        `Block ${index} of ${id} was refused (${failure.message}): its bytes are not those its digest was made of. They were ` +
          `changed on the way or in memory; nothing of it was written.`,
        about,
      );
    if (error.code === "NOT_FOUND" || failure.reason === "INVALID_SNAPSHOT_ID")
      return awsError(
        "UNAVAILABLE",
        `Snapshot ${id} takes no more blocks (${failure.message}): it timed out or was removed. The run has to be opened again.`,
        { ...about, retryable: false },
      );
    return error;
  }

  /** Waits until nothing is under way. */
  const settled = async (): Promise<void> => {
    await Promise.allSettled(underWay.values());
  };

  async function writeBlocks(
    offset: number,
    length: number,
    one: (index: number, at: number) => Promise<void>,
  ): Promise<void> {
    const first = offset / BLOCK_BYTES;
    const count = length / BLOCK_BYTES;
    const outcomes = await Promise.allSettled(Array.from({ length: count }, (_, at) => one(first + at, at)));
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  /** How many blocks of one call go out at once: `concurrency` calls together use what the connection has. */
  async function zeroBlocks(offset: number, length: number, wait: Wait): Promise<void> {
    const window = connection.settings.concurrency * BLOCK_BYTES;
    for (let done = 0; done < length; done += window) {
      const part = Math.min(window, length - done);
      await writeBlocks(offset + done, part, (index) => put(index, zeroes, zeroDigest, wait));
    }
  }

  async function complete(written: AsyncIterable<WrittenExtent>, { signal }: Wait): Promise<void> {
    const sum = new LinearChecksum(size);
    try {
      for await (const extent of written) {
        signal?.throwIfAborted();
        sum.add(extent);
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw awsError("CORRUPT", `What was written to ${id} is not listed as it must be: ${error.message}.`, {
        operation: "commit",
      });
    }
    const { count } = sum;
    const command = new CompleteSnapshotCommand({
      SnapshotId: id,
      ChangedBlocksCount: count,
      // Of no blocks there is no aggregate to tell.
      ...(count === 0 ? {} : { Checksum: sum.end(), ChecksumAlgorithm: "SHA256", ChecksumAggregationMethod: "LINEAR" }),
    });
    try {
      await connection.patiently(
        async () => {
          const asked = completeAsked;
          completeAsked = true;
          try {
            await connection.ebs(command, { object: id, settling: !isKnown && performance.now() < visibleBy, signal });
          } catch (error) {
            // An answer that says no, to the first question, leaves nothing half done.
            if (isProviderError(error) && !error.retryable) completeAsked = asked;
            throw error;
          }
        },
        { signal },
      );
    } catch (error) {
      await afterRefusal(error, count, { signal });
    }
  }

  /**
   * CompleteSnapshot was refused. If an earlier one may have been taken, by a process that was killed or whose answer was lost,
   * the snapshot completes by itself; else what AWS holds is not what was written down, and it is no use to go on with it.
   */
  async function afterRefusal(error: unknown, count: number, { signal }: Wait): Promise<void> {
    const failure = failureOf(error);
    const isState = failure?.reason === "INVALID_SNAPSHOT_ID" || failure?.awsCode === "ConflictException";
    if (failure === undefined || !isProviderError(error) || error.retryable) throw error;
    if (completeAsked || isState) {
      const now = await findSnapshot(connection, id, { signal });
      if (now?.state === "completed" || (isState && now?.state === "pending")) return;
    }
    if (failure.awsCode !== "ValidationException" || isState) throw error;
    await deleteSnapshot(connection, id, { signal });
    throw awsError(
      "CORRUPT",
      `Snapshot ${id} does not hold the ${count} blocks that were written down (${failure.message}). It was removed; nothing was ` +
        `committed, and the next attempt of the run copies anew.`,
      { operation: "CompleteSnapshot", cause: error },
    );
  }

  /** Waits until the snapshot is completed. A small one is so within seconds, a large one after minutes. */
  async function becomeCompleted({ signal }: Wait): Promise<void> {
    const end = performance.now() + snapshotMs;
    for (let waitMs = Math.min(FIRST_LOOK_MS, pollMs); ; waitMs = Math.min(waitMs * 2, pollMs)) {
      const now = await findSnapshot(connection, id, { settling: true, signal });
      if (now?.state === "completed") return;
      if (now === undefined || now.state === "error")
        throw awsError(
          "UNAVAILABLE",
          now === undefined
            ? `Snapshot ${id} vanished while it was completed. The run has to be opened again.`
            : `Snapshot ${id} went into error while it was completed: ${now.message ?? "AWS does not say why"}. Check the KMS key ` +
                `and run again; it copies into a new snapshot.`,
          { operation: "CompleteSnapshot", retryable: false },
        );
      if (performance.now() >= end)
        throw awsError(
          "UNAVAILABLE",
          `Snapshot ${id} was not completed after ${snapshotMs} ms. Run again: it is waited for.`,
          {
            operation: "CompleteSnapshot",
          },
        );
      await sleep(waitMs, signal);
    }
  }

  /** Waits until a completed snapshot can be listed, which comes later. */
  async function becomeListable({ signal }: Wait): Promise<void> {
    const probe = listSnapshotBlocks(id, { pageSize: 100 });
    const listable = performance.now() + visibleMs;
    for (;;) {
      try {
        await connection.patiently(() => connection.direct(probe, { object: id, signal }), { signal });
        return;
      } catch (error) {
        const mayComeYet = isProviderError(error) && error.code === "NOT_FOUND" && performance.now() < listable;
        if (!mayComeYet) throw error;
      }
      await sleep(pollMs, signal);
    }
  }

  return {
    size,
    blockSize: BLOCK_BYTES,
    concurrency: connection.settings.concurrency,
    preferredLength: BLOCK_BYTES,
    generation: id,
    blank: readsAsZeroes({ parent: upload.base, encrypted: snapshot.encrypted }),
    digest: "sha256",
    async write(offset, data, { digest, signal } = {}) {
      signal?.throwIfAborted();
      writable();
      checkRange(offset, data.byteLength);
      const blocks = data.byteLength / BLOCK_BYTES;
      if (digest !== undefined && digest.byteLength !== blocks * DIGEST_BYTES)
        throw new RangeError(`${digest.byteLength} bytes of digests for ${blocks} blocks`);
      await writeBlocks(offset, data.byteLength, async (index, at) => {
        const block = data.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
        const own =
          digest?.subarray(at * DIGEST_BYTES, (at + 1) * DIGEST_BYTES) ?? createHash("sha256").update(block).digest();
        await put(index, block, own, { signal, remembered: blocks > 1 });
      });
      for (let at = 0; at < blocks; at++) taken.delete(offset / BLOCK_BYTES + at);
    },
    async zero(offset, length, { signal } = {}) {
      signal?.throwIfAborted();
      writable();
      checkRange(offset, length);
      await zeroBlocks(offset, length, { signal });
    },
    async flush({ signal } = {}) {
      signal?.throwIfAborted();
      alive();
    },
    async commit({ written, signal }) {
      signal?.throwIfAborted();
      alive();
      if (isCommitted) return commitOf(id);
      await settled();
      // Only one that was asked to complete before may be completed already.
      const now = completeAsked ? await findSnapshot(connection, id, { settling: !isKnown, signal }) : undefined;
      if (now?.state !== "completed") await complete(written, { signal });
      await becomeCompleted({ signal });
      const [listable, unneeded] = await Promise.allSettled([becomeListable({ signal }), removable({ signal })]);
      if (listable.status === "rejected") throw listable.reason;
      isCommitted = true;
      if (unneeded.status === "rejected") throw unneeded.reason;
      await removeUnneeded(connection, unneeded.value, { signal });
      return commitOf(id);
    },
    async abandon({ signal } = {}) {
      signal?.throwIfAborted();
      if (isClosed || isCommitted) return;
      await settled();
      const now = await findSnapshot(connection, id, { settling: !isKnown, signal });
      if (now !== undefined && now.state !== "completed") await deleteSnapshot(connection, id, { signal });
    },
    async [Symbol.asyncDispose]() {
      isClosed = true;
      await settled();
    },
  };
}

function checksumOf(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString("base64");
}
