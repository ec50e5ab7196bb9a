import { createHash } from "node:crypto";
import {
  CompleteSnapshotCommand,
  EBSClient,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type ListChangedBlocksCommandOutput,
  type ListSnapshotBlocksCommandOutput,
  type StartSnapshotCommandInput,
} from "@aws-sdk/client-ebs";
import { EC2Client } from "@aws-sdk/client-ec2";
import { afterEach, expect } from "vitest";
import { startAwsSimulator, type AwsSimulator, type AwsSimulatorOptions } from "../../src/index.ts";

/** Bytes of an EBS block. */
export const size = 524288;
/** The two accounts of a simulator that is given no keys. */
export const firstAccount = "111111111111";
export const secondAccount = "222222222222";

const open: { close(): void | Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});

/** Has something closed after the test. */
export function closing<T extends { close(): void | Promise<void> }>(each: T): T {
  open.push(each);
  return each;
}

/** A simulator in which nothing takes time. */
export const noWaits = { startVisibleMs: 0, completeMs: 0, listableMs: 0, changeMs: 0, describableMs: 0 };

/** Clients of one account in one Region, which try each call once. */
export interface Clients {
  ebs: EBSClient;
  ec2: EC2Client;
}

/** A simulator and clients of its first account in us-east-1. */
export interface Setup extends Clients {
  simulator: AwsSimulator;
  client(account: number, region: string): Clients;
}

/** Starts a simulator without waits and without empty pages, unless told otherwise. */
export async function setup(options: AwsSimulatorOptions = {}): Promise<Setup> {
  const simulator = closing(await startAwsSimulator({ delays: noWaits, emptyPageEvery: 0, ...options }));
  const client = (account: number, region: string): Clients => clientsOf(simulator, { account, region });
  return { simulator, client, ...client(0, "us-east-1") };
}

/** Clients whose clock may be ahead by `clockMs`. */
export function clientsOf(
  simulator: AwsSimulator,
  { account = 0, region = "us-east-1", clockMs = 0 }: { account?: number; region?: string; clockMs?: number } = {},
): Clients {
  const { accessKeyId = "", secretAccessKey = "", sessionToken } = simulator.credentials[account] ?? {};
  const credentials = { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
  const config = { region, endpoint: simulator.endpoint, credentials, maxAttempts: 1, systemClockOffset: clockMs };
  const pair = { ebs: new EBSClient(config), ec2: new EC2Client(config) };
  closing({ close: () => pair.ebs.destroy() });
  closing({ close: () => pair.ec2.destroy() });
  return pair;
}

/** Moves the simulator's clock and gives clients whose clock goes with it. */
export function later(simulator: AwsSimulator, clockMs: number): Clients {
  simulator.advance(clockMs);
  return clientsOf(simulator, { clockMs });
}

/** A block full of one byte. */
export const block = (fill: number): Buffer => Buffer.alloc(size, fill);
/** SHA-256 as bytes. */
export const sha = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

/** Puts one block with its checksum, or with another. */
export function put(
  ebs: EBSClient,
  SnapshotId: string,
  BlockIndex: number,
  data: Buffer,
  checksum?: string,
): Promise<unknown> {
  const Checksum = checksum ?? sha(data).toString("base64");
  const common = { SnapshotId, BlockIndex, BlockData: data, DataLength: size };
  return ebs.send(new PutSnapshotBlockCommand({ ...common, Checksum, ChecksumAlgorithm: "SHA256" }));
}

/** Starts, fills and completes a snapshot. */
export async function upload(
  ebs: EBSClient,
  blocks: Record<number, Buffer>,
  start: Partial<StartSnapshotCommandInput> = {},
): Promise<string> {
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ...start }));
  for (const [index, data] of Object.entries(blocks)) await put(ebs, SnapshotId, Number(index), data);
  const ChangedBlocksCount = Object.keys(blocks).length;
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount }));
  return SnapshotId;
}

/** One page of a snapshot's blocks. */
export const list = (ebs: EBSClient, SnapshotId: string, more: object = {}): Promise<ListSnapshotBlocksCommandOutput> =>
  ebs.send(new ListSnapshotBlocksCommand({ SnapshotId, ...more }));

/** One page of the blocks in which two snapshots differ. */
export const changed = (
  ebs: EBSClient,
  FirstSnapshotId: string,
  SecondSnapshotId: string,
  more: object = {},
): Promise<ListChangedBlocksCommandOutput> =>
  ebs.send(new ListChangedBlocksCommand({ FirstSnapshotId, SecondSnapshotId, ...more }));

/** Matches a ValidationException of EBS with one reason. */
export const refusal = (Reason: string): unknown => expect.objectContaining({ name: "ValidationException", Reason });
