import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { AwsError } from "./aws-error.ts";
import { blockSize, digestOf, type BlockPool } from "./block-pool.ts";
import type { Image, ImportTask, Instance, SecurityGroup, Snapshot, Subnet, Tags, Volume } from "./resources.ts";

/** Blocks in one GiB. */
export const blocksPerGib: number = 2 ** 30 / blockSize;

/** How long things take, in milliseconds of the simulator's clock. */
export interface AwsDelays {
  /** From StartSnapshot until PutSnapshotBlock knows the snapshot. */
  startVisibleMs: number;
  /** From CompleteSnapshot or CreateSnapshot until `completed`. */
  completeMs: number;
  /** From `completed` until the list calls know the snapshot. */
  listableMs: number;
  /** Of each step of a volume, an instance, an image, a copy, an import, a change of tier, and a command in a guest. */
  changeMs: number;
  /** From RunInstances until other calls know the instance, and from SendCommand until its invocation is known. */
  describableMs: number;
}

/** An IAM role. */
export interface AwsRole {
  /** Accounts, or services such as `vmie.amazonaws.com`. */
  trusts: readonly string[];
  externalId?: string;
}

/** The state of all accounts and regions, and the hand that changes it from outside the APIs. */
export class World {
  readonly pool: BlockPool;
  readonly delays: AwsDelays;
  readonly snapshots: Map<string, Snapshot> = new Map();
  readonly volumes: Map<string, Volume> = new Map();
  readonly instances: Map<string, Instance> = new Map();
  readonly images: Map<string, Image> = new Map();
  readonly subnets: Map<string, Subnet> = new Map();
  readonly groups: Map<string, SecurityGroup> = new Map();
  readonly imports: Map<string, ImportTask> = new Map();
  /** IAM roles by ARN: who may assume them, and with which external id. */
  readonly roles: Map<string, AwsRole> = new Map();
  readonly encryptedByDefault: Set<string> = new Set();
  readonly deniedActions: Set<string> = new Set();
  readonly deniedKeys: Set<string> = new Set();
  /** Status messages of the next snapshots of StartSnapshot, each of which goes into `error` at once. */
  readonly startFailures: string[] = [];
  readonly secret: Buffer = randomBytes(16);
  readonly precomputeDigests: boolean;
  #offset = 0;
  readonly #writes = new Map<string, Promise<void>>();
  #agenda: { at: number; effect: () => void }[] = [];

  constructor(pool: BlockPool, delays: AwsDelays, precomputeDigests: boolean) {
    this.pool = pool;
    this.delays = delays;
    this.precomputeDigests = precomputeDigests;
  }

  /** The simulator's time in milliseconds since 1970. */
  now(): number {
    return Date.now() + this.#offset;
  }

  /** Moves the clock forward. */
  advance(milliseconds: number): void {
    this.#offset += milliseconds;
  }

  /** Has something happen once the clock has gone on. */
  later(milliseconds: number, effect: () => void): void {
    this.#agenda.push({ at: this.now() + milliseconds, effect });
  }

  /** Does what has become due, in the order of its time; to be called before anybody looks. */
  settle(): void {
    const now = this.now();
    while (true) {
      const due = this.#agenda.filter(({ at }) => at <= now).sort((a, b) => a.at - b.at);
      if (due.length === 0) return;
      this.#agenda = this.#agenda.filter(({ at }) => at > now);
      for (const { effect } of due) effect();
    }
  }

  /** A fresh id such as `snap-0123456789abcdef0`. */
  newId(prefix: string): string {
    return `${prefix}-0${randomBytes(8).toString("hex")}`;
  }

  /** State and progress of a snapshot at this moment. */
  stateOf(snapshot: Snapshot): "pending" | "completed" | "error" {
    const now = this.now();
    if (snapshot.completesAt !== undefined) {
      if (now < snapshot.completesAt) return "pending";
      return snapshot.failure === undefined ? "completed" : "error";
    }
    const { upload } = snapshot;
    if (upload !== undefined && now - upload.touchedAt >= upload.timeoutMs) return "error";
    return "pending";
  }

  /** The key an account's new encrypted things get when they name none. */
  defaultKey(accountId: string, region: string): string {
    return `arn:aws:kms:${region}:${accountId}:key/00000000-0000-4000-8000-${accountId}`;
  }

  /** @throws AwsError when the back door denied the action to the account. */
  authorize(accountId: string, action: string, resource: string): void {
    if (!this.deniedActions.has(`${accountId} ${action}`)) return;
    const who = `User: arn:aws:iam::${accountId}:user/simulated is not authorized to perform: ${action} on resource: ${resource}`;
    if (action.startsWith("sts:")) throw new AwsError(403, "AccessDenied", who);
    if (action.startsWith("ssm:")) throw new AwsError(400, "AccessDeniedException", who);
    if (action.startsWith("ec2:"))
      throw new AwsError(403, "UnauthorizedOperation", `You are not authorized to perform this operation. ${who}`);
    throw new AwsError(403, "AccessDeniedException", who, "UNAUTHORIZED_ACCOUNT");
  }

  /** Bytes of a volume or snapshot; what is not there is zero or, behind an encrypted snapshot's hole, noise. */
  async bytes(from: Volume | Snapshot, offset: number, length: number): Promise<Buffer> {
    if (offset < 0 || length < 0 || offset + length > from.sizeGib * 2 ** 30)
      throw new RangeError(`${from.id} ends before that`);
    const result = Buffer.alloc(length);
    for (let at = offset; at < offset + length;) {
      const index = Math.floor(at / blockSize);
      const within = at - index * blockSize;
      const count = Math.min(blockSize - within, offset + length - at);
      (await this.#blockAt(from, index)).copy(result, at - offset, within, within + count);
      at += count;
    }
    return result;
  }

  /** The guest's hand: writes into a volume; one write at a time. */
  write(volume: Volume, offset: number, bytes: Uint8Array): Promise<void> {
    if (offset < 0 || offset + bytes.length > volume.sizeGib * 2 ** 30)
      throw new RangeError(`${volume.id} ends before that`);
    return this.#inTurn(volume, async () => {
      for (let at = 0; at < bytes.length;) {
        const index = Math.floor((offset + at) / blockSize);
        const within = offset + at - index * blockSize;
        const count = Math.min(blockSize - within, bytes.length - at);
        const block = count === blockSize ? Buffer.alloc(blockSize) : await this.#blockAt(volume, index);
        block.set(bytes.subarray(at, at + count), within);
        volume.blocks.set(index, await this.pool.store(block, this.precomputeDigests ? digestOf(block) : undefined));
        at += count;
      }
    });
  }

  /** The guest's TRIM: frees whole blocks; what it covers of a block in part is written as zeros. */
  async trim(volume: Volume, offset: number, length: number): Promise<void> {
    const first = Math.ceil(offset / blockSize);
    const end = Math.floor((offset + length) / blockSize);
    if (first > end) return this.write(volume, offset, new Uint8Array(length));
    if (first * blockSize > offset) await this.write(volume, offset, new Uint8Array(first * blockSize - offset));
    const tail = offset + length - end * blockSize;
    if (tail > 0) await this.write(volume, end * blockSize, new Uint8Array(tail));
    await this.#inTurn(volume, async () => {
      volume.blocks.free(first, end);
    });
  }

  /** A snapshot of a volume's bytes as they are now. */
  snapshotOf(volume: Volume, description: string, tags: Tags): Snapshot {
    const now = this.now();
    const snapshot: Snapshot = {
      id: this.newId("snap"),
      accountId: volume.accountId,
      region: volume.region,
      tags,
      sizeGib: volume.sizeGib,
      blocks: volume.blocks.copy(),
      description,
      encrypted: volume.encrypted,
      volumeId: volume.id,
      lineage: volume.id,
      startedAt: now,
      completesAt: now + this.delays.completeMs,
      tier: "standard",
      sharedWith: new Set(),
      generation: 0,
      ...(volume.kmsKeyId === undefined ? {} : { kmsKeyId: volume.kmsKeyId }),
      ...(volume.noiseKey === undefined ? {} : { noiseKey: volume.noiseKey }),
    };
    this.snapshots.set(snapshot.id, snapshot);
    return snapshot;
  }

  async #blockAt(from: Volume | Snapshot, index: number): Promise<Buffer> {
    const block = from.blocks.get(index);
    if (block !== undefined) return this.pool.read(block);
    if (from.noiseKey === undefined) return Buffer.alloc(blockSize);
    const key = createHash("sha256").update(`${from.noiseKey}/${index}`).digest();
    return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(blockSize));
  }

  #inTurn(volume: Volume, work: () => Promise<void>): Promise<void> {
    const turn = (this.#writes.get(volume.id) ?? Promise.resolve()).then(work, work);
    this.#writes.set(volume.id, turn);
    return turn;
  }
}
