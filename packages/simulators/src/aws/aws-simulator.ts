import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCertificate, type ServerCertificate } from "../vcenter/certificate.ts";
import { serveRequest } from "./aws-requests.ts";
import { BlockPool } from "./block-pool.ts";
import { BlockTable } from "./block-table.ts";
import { EbsEndpoint } from "./ebs-endpoint.ts";
import { Ec2Endpoint } from "./ec2-endpoint.ts";
import { Ec2Scope } from "./ec2-scope.ts";
import { makeVolume } from "./ec2-volumes.ts";
import { FaultPlan } from "./fault-plan.ts";
import type { Guest, GuestCommand } from "./guest-commands.ts";
import { Quotas } from "./quotas.ts";
import { makeReadyInstances } from "./ready-instances.ts";
import type { Instance, Snapshot, Volume } from "./resources.ts";
import type { AwsCredentials } from "./signature.ts";
import { SsmEndpoint } from "./ssm-endpoint.ts";
import { SyntheticContent } from "./synthetic-content.ts";
import { blocksPerGib, World, type AwsDelays, type AwsRole } from "./world.ts";

/** How a simulator starts; everything has a default. */
export interface AwsSimulatorOptions {
  /** 0 or absent: any free port of 127.0.0.1. */
  port?: number;
  /** Keys of the accounts; by default accounts 111111111111 and 222222222222 with one permanent key each. */
  credentials?: AwsCredentials[];
  /** Multiplies AWS's default quotas; Infinity lifts them. 1 by default. */
  quotaScale?: number;
  /** Multiplies the quotas per account once more; 1 by default. */
  accountQuotaScale?: number;
  delays?: Partial<AwsDelays>;
  /** Each n-th list page is empty with a next token; 0 for none, 5 by default. */
  emptyPageEvery?: number;
  /** Unchanged blocks whose index divides by this are reported as changed too; 0 for none (default). */
  overReportEvery?: number;
  /** A new listing makes the block tokens of earlier listings of the snapshot invalid; off by default. */
  strictTokens?: boolean;
  /** Computes the digests of a guest's writes at the write instead of the first read. */
  precomputeDigests?: boolean;
  /** false: of blocks put only the digests are kept, so that uploads of any size need no room. */
  keepUploads?: boolean;
  /** Milliseconds each answer waits; 0 by default. */
  latencyMs?: number;
  /** Of the fault plan's chances; 1 by default. */
  seed?: number;
  /** Whether two instances stand ready in the first account; true by default. */
  readyInstances?: boolean;
  /** Serves over TLS, with a certificate of an authority of its own; off by default. `expired`: one past its time. */
  tls?: boolean | "expired";
  /** The region of the two ready instances; us-east-1 by default. */
  region?: string;
}

/** A running simulator and its back door; stop it with `close()` or `await using`. */
export interface AwsSimulator extends AsyncDisposable {
  readonly endpoint: string;
  /** The authority of its certificate in PEM, for a client to trust; undefined over plain HTTP. */
  readonly authority: string | undefined;
  readonly credentials: readonly AwsCredentials[];
  /** Ids of the two instances that stand ready; empty when none were asked for. */
  readonly instances: { readonly linux: string; readonly windows: string };
  readonly faults: FaultPlan;
  /** Ids of an instance's volumes, the root first. */
  volumesOf(instanceId: string): string[];
  /** The guest's hand on a volume of a running instance. @throws Error when it is not attached to one */
  writeVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  trimVolume(volumeId: string, offset: number, length: number): Promise<void>;
  volumeBytes(volumeId: string, offset: number, length: number): Promise<Buffer>;
  snapshotBytes(snapshotId: string, offset: number, length: number): Promise<Buffer>;
  /**
   * Adds a volume to the first account whose blocks are a function of their index, so that it takes no room whatever
   * its size. Every `stride`-th block holds data; the first `digests` of these have their digests computed at once.
   */
  addSyntheticVolume(volume: { sizeGib: number; stride?: number; digests?: number }): string;
  /** Takes a snapshot of a volume as CreateSnapshot does, for its owner. */
  takeSnapshot(volumeId: string): string;
  /** Calls that quotas refused so far, by operation. */
  throttled(): Record<string, number>;
  /** Writes into a volume whether or not a guest has it. */
  fillVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** Grows a volume, as ModifyVolume does. */
  growVolume(volumeId: string, sizeGib: number): void;
  archiveSnapshot(snapshotId: string): void;
  /** Lets a pending snapshot end in `error` instead of `completed`. */
  failSnapshot(snapshotId: string, statusMessage: string): void;
  /** Has the next snapshot of StartSnapshot go into `error` once the call was answered, as one whose key KMS then refuses. */
  failNextStart(statusMessage: string): void;
  /** Moves the clock, so that tokens, credentials and timeouts run out. */
  advance(milliseconds: number): void;
  encryptByDefault(accountId: string, region: string, on: boolean): void;
  /** Denies an action such as `ebs:PutSnapshotBlock` to an account. */
  deny(accountId: string, action: string): void;
  /** Plays the guests for Systems Manager; without one, every command succeeds and says nothing. */
  playGuest(guest: Guest): void;
  /** The commands that Systems Manager was given, in their order. */
  commands(): GuestCommand[];
  /** Whether the agent of Systems Manager runs in a guest: the ready instances have it, launched ones do not. */
  manageInstance(instanceId: string, managed: boolean): void;
  /** Has an instance fail its status checks, as one whose system does not start. */
  impairInstance(instanceId: string): void;
  /** Ends the next task of ImportImage with this status message, such as `ClientError: Unsupported kernel version`. */
  failNextImport(statusMessage: string): void;
  /** Adds an IAM role, or replaces it. */
  addRole(arn: string, role: AwsRole): void;
  /** Removes an IAM role: `role/vmimport` is there from the start, in each account. */
  removeRole(arn: string): void;
  /** Makes KMS refuse a key. */
  denyKey(kmsKeyId: string): void;
  addCredentials(credentials: AwsCredentials): void;
  close(): Promise<void>;
}

const defaultCredentials: AwsCredentials[] = ["111111111111", "222222222222"].map((accountId) => ({
  accountId,
  accessKeyId: `AKIASIMULATED${accountId.slice(0, 7)}`,
  secretAccessKey: `simulated-secret-of-${accountId}`,
}));

/** Starts EC2 and EBS on 127.0.0.1; the region and service of a request are those of its signature. */
export async function startAwsSimulator(options: AwsSimulatorOptions = {}): Promise<AwsSimulator> {
  const pool = await BlockPool.create();
  const delays = {
    startVisibleMs: 30,
    completeMs: 50,
    listableMs: 30,
    changeMs: 50,
    describableMs: 0,
    ...options.delays,
  };
  const world = new World(pool, delays, options.precomputeDigests ?? false);
  const list = [...(options.credentials ?? defaultCredentials)];
  const keys = new Map(list.map((each) => [each.accessKeyId, each]));
  const quotas = new Quotas(options.quotaScale ?? 1, options.accountQuotaScale ?? 1);
  const faults = new FaultPlan(options.seed ?? 1);
  const ebs = new EbsEndpoint(world, {
    emptyPageEvery: options.emptyPageEvery ?? 5,
    overReportEvery: options.overReportEvery ?? 0,
    strictTokens: options.strictTokens ?? false,
    keepUploads: options.keepUploads ?? true,
  });
  const scope = new Ec2Scope(world);
  const importFailures: string[] = [];
  const ec2 = new Ec2Endpoint(scope, importFailures);
  let guest: Guest = () => ({ status: "Success" });
  const ssm = new SsmEndpoint(scope, () => guest);
  for (const { accountId } of list)
    world.roles.set(`arn:aws:iam::${accountId}:role/vmimport`, { trusts: ["vmie.amazonaws.com"] });

  const services = { world, keys, quotas, faults, ebs, ec2, ssm, latencyMs: options.latencyMs };
  const certificate = await certificateOf(options.tls);
  const serve = (request: IncomingMessage, response: ServerResponse): void =>
    void serveRequest(services, request, response).catch(() => request.socket.destroy());
  const server =
    certificate === undefined
      ? createServer(serve)
      : createTlsServer({ key: certificate.key, cert: certificate.certificate }, serve);
  await new Promise<void>((listening, failed) => {
    server.once("error", failed);
    server.listen(options.port ?? 0, "127.0.0.1", listening);
  });
  const { port } = server.address() as AddressInfo;
  const account = list[0]?.accountId ?? "111111111111";
  const region = options.region ?? "us-east-1";
  const owner = { accountId: account, region, service: "ec2" as const, accessKeyId: "", arn: "" };
  const instances = options.readyInstances === false ? { linux: "", windows: "" } : makeReadyInstances(scope, owner);

  const settled = <T>(all: ReadonlyMap<string, T>, id: string): T => {
    world.settle();
    return found(all.get(id), id);
  };
  const volume = (id: string): Volume => settled(world.volumes, id);
  const snapshot = (id: string): Snapshot => settled(world.snapshots, id);
  const instance = (id: string): Instance => settled(world.instances, id);
  const guestVolume = (id: string): Volume => {
    const each = volume(id);
    const { attachment } = each;
    if (attachment?.status !== "attached" || instance(attachment.instanceId).state !== "running")
      throw new Error(`${id} is not attached to a running instance`);
    return each;
  };
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((done) => server.close(() => done()));
    server.closeAllConnections();
    await closed;
    await pool.close();
  };
  return {
    endpoint: `${certificate === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    authority: certificate?.authority,
    credentials: list,
    instances,
    faults,
    volumesOf: (id) => scope.attached(instance(id).id).map((each) => each.id),
    writeVolume: async (id, offset, bytes) => world.write(guestVolume(id), offset, bytes),
    trimVolume: async (id, offset, length) => world.trim(guestVolume(id), offset, length),
    volumeBytes: async (id, offset, length) => world.bytes(volume(id), offset, length),
    snapshotBytes: async (id, offset, length) => world.bytes(snapshot(id), offset, length),
    addSyntheticVolume: ({ sizeGib, stride = 1, digests = 0 }) => {
      const content = new SyntheticContent(sizeGib * blocksPerGib, stride);
      let index = content.next(0);
      for (let done = 0; done < digests && index !== undefined; done++) {
        content.digest(index);
        index = content.next(index + 1);
      }
      const shape = { sizeGib, type: "gp3" };
      const made = makeVolume(scope, { caller: owner, zone: `${region}a`, shape, tags: {} });
      made.blocks = new BlockTable(content);
      made.state = "available";
      return made.id;
    },
    takeSnapshot: (id) => world.snapshotOf(volume(id), "", {}).id,
    throttled: () => quotas.refused(),
    fillVolume: async (id, offset, bytes) => world.write(volume(id), offset, bytes),
    growVolume: (id, sizeGib) => {
      if (sizeGib < volume(id).sizeGib) throw new RangeError("a volume cannot shrink");
      volume(id).sizeGib = sizeGib;
    },
    archiveSnapshot: (id) => {
      snapshot(id).tier = "archive";
    },
    failSnapshot: (id, statusMessage) => {
      snapshot(id).failure = statusMessage;
    },
    failNextStart: (message) => void world.startFailures.push(message),
    advance: (milliseconds) => world.advance(milliseconds),
    encryptByDefault: (accountId, region, on) => {
      if (on) world.encryptedByDefault.add(`${accountId}/${region}`);
      else world.encryptedByDefault.delete(`${accountId}/${region}`);
    },
    deny: (accountId, action) => void world.deniedActions.add(`${accountId} ${action}`),
    playGuest: (player) => {
      guest = player;
    },
    commands: () => ssm.commands(),
    manageInstance: (id, managed) => {
      instance(id).managed = managed;
    },
    impairInstance: (id) => {
      instance(id).impaired = true;
    },
    failNextImport: (message) => void importFailures.push(message),
    addRole: (arn, role) => void world.roles.set(arn, role),
    removeRole: (arn) => void world.roles.delete(arn),
    denyKey: (key) => void world.deniedKeys.add(key),
    addCredentials: (each) => void keys.set(each.accessKeyId, each),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function certificateOf(tls: AwsSimulatorOptions["tls"]): Promise<ServerCertificate | undefined> {
  if (tls === undefined || tls === false) return undefined;
  const folder = await mkdtemp(join(tmpdir(), "diskferry-aws-tls-"));
  try {
    return await makeCertificate(folder, { expired: tls === "expired" });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function found<T>(value: T | undefined, id: string): T {
  if (value === undefined) throw new Error(`there is no ${id}`);
  return value;
}
