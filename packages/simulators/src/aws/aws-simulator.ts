import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { AwsError } from "./aws-error.ts";
import { BlockPool } from "./block-pool.ts";
import type { Answer } from "./answer.ts";
import { EbsEndpoint, ebsRoute } from "./ebs-endpoint.ts";
import { Ec2Endpoint, ec2ErrorAnswer, ec2Form } from "./ec2-endpoint.ts";
import { FaultPlan, type AwsFault } from "./fault-plan.ts";
import { Ec2Scope } from "./ec2-scope.ts";
import type { Guest, GuestCommand } from "./guest-commands.ts";
import { makeReadyInstances } from "./ready-instances.ts";
import type { Instance, Snapshot, Volume } from "./resources.ts";
import { SsmEndpoint, ssmErrorAnswer } from "./ssm-endpoint.ts";
import { answerSts, stsErrorAnswer } from "./sts-endpoint.ts";
import { Quotas } from "./quotas.ts";
import { authenticate, guessService, type AwsCredentials, type AwsService } from "./signature.ts";
import { World, type AwsDelays, type AwsRole } from "./world.ts";

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
  /** Milliseconds each answer waits; 0 by default. */
  latencyMs?: number;
  /** Of the fault plan's chances; 1 by default. */
  seed?: number;
  /** The region of the two ready instances; us-east-1 by default. */
  region?: string;
}

/** A running simulator and its back door; stop it with `close()` or `await using`. */
export interface AwsSimulator extends AsyncDisposable {
  readonly endpoint: string;
  readonly credentials: readonly AwsCredentials[];
  /** Ids of the two instances that stand ready. */
  readonly instances: { readonly linux: string; readonly windows: string };
  readonly faults: FaultPlan;
  /** Ids of an instance's volumes, the root first. */
  volumesOf(instanceId: string): string[];
  /** The guest's hand on a volume of a running instance. @throws Error when it is not attached to one */
  writeVolume(volumeId: string, offset: number, bytes: Uint8Array): Promise<void>;
  trimVolume(volumeId: string, offset: number, length: number): Promise<void>;
  volumeBytes(volumeId: string, offset: number, length: number): Promise<Buffer>;
  snapshotBytes(snapshotId: string, offset: number, length: number): Promise<Buffer>;
  /** Grows a volume, as ModifyVolume does. */
  growVolume(volumeId: string, sizeGib: number): void;
  archiveSnapshot(snapshotId: string): void;
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

/** Requests longer than this are cut off: a block, or a large form. */
const longestBody = 2 ** 20;

const defaultCredentials: AwsCredentials[] = ["111111111111", "222222222222"].map((accountId) => ({
  accountId,
  accessKeyId: `AKIASIMULATED${accountId.slice(0, 7)}`,
  secretAccessKey: `simulated-secret-of-${accountId}`,
}));

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > longestBody) throw new AwsError(413, "RequestEntityTooLarge", "The body is too long.");
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function faultError(fault: AwsFault, ec2: boolean): AwsError | undefined {
  switch (fault) {
    case "throttle":
      return ec2
        ? new AwsError(503, "RequestLimitExceeded", "Request limit exceeded.")
        : new AwsError(400, "ThrottlingException", "Rate exceeded");
    case "resource-throttle":
      return new AwsError(400, "RequestThrottledException", "Rate exceeded", "RESOURCE_LEVEL_THROTTLE");
    case "internal-error":
      return new AwsError(500, ec2 ? "InternalError" : "InternalServerException", "An internal error has occurred");
    case "unavailable":
      return new AwsError(503, ec2 ? "Unavailable" : "ServiceUnavailableException", "Service unavailable");
    case "read-failed":
      return new AwsError(400, "ValidationException", "Failed to read block data", "INVALID_PARAMETER_VALUE");
    case "write-timeout":
      return new AwsError(400, "ValidationException", "The write request timed out", "WRITE_REQUEST_TIMEOUT");
    case "expired-block-token":
      return new AwsError(400, "ValidationException", "The block token has expired.", "INVALID_BLOCK_TOKEN");
    case "expired-page-token":
      return new AwsError(400, "ValidationException", "The page token has expired.", "INVALID_PAGE_TOKEN");
    case "expired-credentials":
      return ec2
        ? new AwsError(400, "RequestExpired", "Request has expired.")
        : new AwsError(403, "ExpiredTokenException", "The security token included in the request is expired");
    case "clock-skew":
      return ec2
        ? new AwsError(400, "RequestExpired", "Request has expired.")
        : new AwsError(403, "InvalidSignatureException", "Signature expired");
    default:
      return undefined;
  }
}

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
  });
  const scope = new Ec2Scope(world);
  const importFailures: string[] = [];
  const ec2 = new Ec2Endpoint(scope, importFailures);
  let guest: Guest = () => ({ status: "Success" });
  const ssm = new SsmEndpoint(scope, () => guest);
  for (const { accountId } of list)
    world.roles.set(`arn:aws:iam::${accountId}:role/vmimport`, { trusts: ["vmie.amazonaws.com"] });

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://simulator");
    const service = guessService(request, url.pathname);
    let fault: AwsFault | undefined;
    let answer: Answer;
    try {
      const body = await bodyOf(request);
      const route = service === "ebs" ? ebsRoute(request.method ?? "", url.pathname) : undefined;
      const form = service === "ec2" || service === "sts" ? ec2Form(body.toString()) : undefined;
      const target = String(request.headers["x-amz-target"] ?? "").replace("AmazonSSM.", "");
      const operation = route?.operation ?? form?.text("Action") ?? (service === "ssm" ? target : "Unknown");
      fault = faults.next(operation);
      if (fault === "hang") return;
      if (fault === "reset") return void request.socket.destroy();
      const broken = fault === undefined ? undefined : faultError(fault, service === "ec2");
      if (broken !== undefined) throw broken;
      const caller = authenticate(request, url, body, keys, world.now());
      if (options.latencyMs !== undefined) await new Promise((done) => setTimeout(done, options.latencyMs));
      const limit = quotas.take(operation, `${caller.accountId}/${caller.region}`, route?.snapshotId, world.now());
      if (limit !== undefined) throw throttled(operation, limit);
      if (service === "sts" && form !== undefined) answer = answerSts(world, keys, form, caller);
      else if (form !== undefined) answer = await ec2.answer(form, caller);
      else if (service === "ssm") answer = await ssm.answer(operation, body, caller);
      else if (route === undefined) throw new AwsError(404, "UnknownOperationException", "There is no such operation.");
      else
        answer = await ebs.answer(route, { method: request.method ?? "", url, headers: request.headers, body, caller });
    } catch (error) {
      answer = errorAnswer(service, error);
    }
    send(response, answer, fault, world.now());
  }

  const server = createServer((request, response) => {
    serve(request, response).catch(() => request.socket.destroy());
  });
  await new Promise<void>((listening, failed) => {
    server.once("error", failed);
    server.listen(options.port ?? 0, "127.0.0.1", listening);
  });
  const { port } = server.address() as AddressInfo;
  const account = list[0]?.accountId ?? "111111111111";
  const region = options.region ?? "us-east-1";
  const owner = { accountId: account, region, service: "ec2" as const, accessKeyId: "", arn: "" };
  const instances = makeReadyInstances(scope, owner);

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
    endpoint: `http://127.0.0.1:${port}`,
    credentials: list,
    instances,
    faults,
    volumesOf: (id) => scope.attached(instance(id).id).map((each) => each.id),
    writeVolume: async (id, offset, bytes) => world.write(guestVolume(id), offset, bytes),
    trimVolume: async (id, offset, length) => world.trim(guestVolume(id), offset, length),
    volumeBytes: async (id, offset, length) => world.bytes(volume(id), offset, length),
    snapshotBytes: async (id, offset, length) => world.bytes(snapshot(id), offset, length),
    growVolume: (id, sizeGib) => {
      if (sizeGib < volume(id).sizeGib) throw new RangeError("a volume cannot shrink");
      volume(id).sizeGib = sizeGib;
    },
    archiveSnapshot: (id) => {
      snapshot(id).tier = "archive";
    },
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

function found<T>(value: T | undefined, id: string): T {
  if (value === undefined) throw new Error(`there is no ${id}`);
  return value;
}

function throttled(operation: string, limit: "account" | "snapshot"): AwsError {
  if (operation !== "GetSnapshotBlock" && operation !== "PutSnapshotBlock")
    return new AwsError(400, "ThrottlingException", "Rate exceeded");
  const reason = limit === "account" ? "ACCOUNT_THROTTLED" : "RESOURCE_LEVEL_THROTTLE";
  return new AwsError(400, "RequestThrottledException", "Rate exceeded", reason);
}

function errorAnswer(service: AwsService, error: unknown): Answer {
  const code = service === "ec2" ? "InternalError" : "InternalServerException";
  const known = error instanceof AwsError ? error : new AwsError(500, code, String(error));
  const write = { ec2: ec2ErrorAnswer, sts: stsErrorAnswer, ssm: ssmErrorAnswer, ebs: ebsErrorAnswer }[service];
  return write(known);
}

function ebsErrorAnswer(error: AwsError): Answer {
  return {
    status: error.status,
    headers: { "content-type": "application/json", "x-amzn-errortype": error.code },
    body: JSON.stringify({ Message: error.message, ...(error.reason === undefined ? {} : { Reason: error.reason }) }),
  };
}

function send(response: ServerResponse, answer: Answer, fault: AwsFault | undefined, now: number): void {
  let body = Buffer.from(answer.body as Buffer);
  if (fault === "empty") body = Buffer.alloc(0);
  if (fault === "flip" && body.length > 0) {
    const middle = body.length >> 1;
    body[middle] = (body[middle] ?? 0) ^ 1;
  }
  // Clients correct their clocks by this header.
  const date = new Date(now).toUTCString();
  response.writeHead(answer.status, { ...answer.headers, date, "content-length": body.length });
  if (fault === "truncate") {
    response.write(body.subarray(0, body.length >> 1), () => response.destroy());
    return;
  }
  response.end(body);
}
