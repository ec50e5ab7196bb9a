import { createHash } from "node:crypto";
import type { BlockReader, ReadOptions, Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import type { AnswerHeaders, Receiver } from "../connection/direct-client.ts";
import { getSnapshotBlock } from "../connection/ebs-block-calls.ts";
import { awsError, failureOf } from "../errors.ts";
import { BlockTokens } from "./block-tokens.ts";
import { type SnapshotFacts, awaitListable, demandReadable, describeSnapshot, ebsBlockSize } from "./snapshot-facts.ts";

/**
 * Opens a snapshot for reading, of this account or shared with it.
 * @throws ProviderError NOT_FOUND; UNSUPPORTED for one that is archived, failed, public or on an Outpost; UNAVAILABLE for
 * one that is pending
 */
export async function openSnapshotReader(
  connection: AwsConnection,
  snapshotId: string,
  wait: Wait = {},
): Promise<BlockReader> {
  const facts = await describeSnapshot(connection, snapshotId, wait);
  demandReadable(facts);
  // EC2 describes public snapshots of others too; only the EBS direct APIs tell whether they read this one.
  if (facts.ownerId !== connection.accountId) await awaitListable(connection, snapshotId, wait);
  return new SnapshotReader(connection, facts);
}

/** Reads blocks of a snapshot, each verified by its length and SHA-256. */
class SnapshotReader implements BlockReader {
  readonly size: number;
  readonly blockSize: number = ebsBlockSize;
  readonly preferredLength: number = ebsBlockSize;
  readonly concurrency: number;
  readonly #connection: AwsConnection;
  readonly #snapshotId: string;
  readonly #tokens: BlockTokens;

  constructor(connection: AwsConnection, facts: SnapshotFacts) {
    this.#connection = connection;
    this.#snapshotId = facts.id;
    this.size = facts.size;
    this.concurrency = connection.settings.concurrency;
    this.#tokens = new BlockTokens(connection, facts.id);
  }

  async read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const { signal, hint } = options;
    signal?.throwIfAborted();
    const end = offset + into.byteLength;
    if (offset < 0 || offset % ebsBlockSize !== 0 || end > this.size || (end % ebsBlockSize !== 0 && end !== this.size))
      throw new RangeError(
        `${this.#snapshotId}: ${offset}+${into.byteLength} is no range of blocks of ${this.size} bytes`,
      );
    const token = typeof hint === "string" && into.byteLength <= ebsBlockSize ? hint : undefined;
    const parts: Promise<void>[] = [];
    for (let at = 0; at < into.byteLength; at += ebsBlockSize) {
      const part = into.subarray(at, Math.min(into.byteLength, at + ebsBlockSize));
      parts.push(this.#block((offset + at) / ebsBlockSize, part, token, signal));
    }
    // All of them, also when one failed: nothing may write into the caller's buffer afterwards.
    const failed = (await Promise.allSettled(parts)).find((each) => each.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #block(
    index: number,
    into: Uint8Array,
    hint: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    // A token of ours was listed after one was refused, so it is the better one.
    const first = this.#tokens.known(index) ?? hint ?? (await this.#tokens.tokenOf(index, { signal }));
    if (first === null) return void into.fill(0);
    try {
      return await this.#get(index, first, into, signal);
    } catch (error) {
      if (failureOf(error)?.reason !== "INVALID_BLOCK_TOKEN") throw error;
    }
    const token = await this.#tokens.tokenOf(index, { signal, refused: first });
    if (token === null) return void into.fill(0);
    await this.#get(index, token, into, signal);
  }

  async #get(index: number, token: string, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const snapshotId = this.#snapshotId;
    const object = `block ${index} of ${snapshotId}`;
    await this.#connection.direct(
      getSnapshotBlock({ snapshotId, index, token }, (headers) => blockReceiver(headers, into, object)),
      { object, snapshotId, signal },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** Takes a block's body down into the caller's memory and checks it there. */
function blockReceiver(headers: AnswerHeaders, into: Uint8Array, object: string): Receiver<void> {
  const damaged = (what: string): Error =>
    awsError("CORRUPT", `${object} did not arrive as AWS holds it: ${what}. It is read again.`, {
      operation: "GetSnapshotBlock",
      retryable: true,
    });
  const hash = createHash("sha256");
  const memory = Buffer.from(into.buffer, into.byteOffset, into.byteLength);
  let length = 0;
  return {
    take(part) {
      hash.update(part);
      // A disk that ends within its last block wants only what belongs to it. Filled, not set: into shared memory at an odd
      // address V8 sets byte by byte, which takes eight times as long.
      const end = Math.min(memory.byteLength, length + part.byteLength);
      if (end > length) memory.fill(part, length, end);
      length += part.byteLength;
      return length <= ebsBlockSize;
    },
    end() {
      const { "x-amz-data-length": told, "x-amz-checksum-algorithm": algorithm, "x-amz-checksum": checksum } = headers;
      if (length !== ebsBlockSize) throw damaged(`${length} bytes instead of ${ebsBlockSize}`);
      if (Number(told) !== ebsBlockSize) throw damaged(`AWS calls it ${String(told)} bytes long`);
      if (algorithm !== "SHA256") throw damaged(`its checksum is ${String(algorithm)}, not SHA256`);
      if (hash.digest("base64") !== checksum) throw damaged("its SHA-256 is another one");
    },
  };
}
