import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Answer } from "./answer.ts";
import { AwsError } from "./aws-error.ts";
import { ebsRoute, type EbsEndpoint } from "./ebs-endpoint.ts";
import { ec2ErrorAnswer, ec2Form, type Ec2Endpoint } from "./ec2-endpoint.ts";
import type { AwsFault, FaultPlan } from "./fault-plan.ts";
import type { Quotas } from "./quotas.ts";
import { bodyOf } from "./request-body.ts";
import { authenticate, guessService, type AwsCredentials, type AwsService } from "./signature.ts";
import { ssmErrorAnswer, type SsmEndpoint } from "./ssm-endpoint.ts";
import { answerSts, stsErrorAnswer } from "./sts-endpoint.ts";
import type { World } from "./world.ts";

/** What stands behind the one HTTP server. */
export interface AwsServices {
  world: World;
  keys: Map<string, AwsCredentials>;
  quotas: Quotas;
  faults: FaultPlan;
  ebs: EbsEndpoint;
  ec2: Ec2Endpoint;
  ssm: SsmEndpoint;
  latencyMs: number | undefined;
}

/** Answers one HTTP request, or does to it what the fault plan says. */
export async function serveRequest(
  { world, keys, quotas, faults, ebs, ec2, ssm, latencyMs }: AwsServices,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? "/", "http://simulator");
  const service = guessService(request, url.pathname);
  let fault: AwsFault | undefined;
  let answer: Answer;
  try {
    using taken = await bodyOf(request);
    const { bytes: body, sha256: digest } = taken;
    const route = service === "ebs" ? ebsRoute(request.method ?? "", url.pathname) : undefined;
    const form = service === "ec2" || service === "sts" ? ec2Form(body.toString()) : undefined;
    const target = String(request.headers["x-amz-target"] ?? "").replace("AmazonSSM.", "");
    const operation = route?.operation ?? form?.text("Action") ?? (service === "ssm" ? target : "Unknown");
    fault = faults.next(operation);
    if (fault === "hang") return;
    if (fault === "reset") return void request.socket.destroy();
    const broken = fault === undefined ? undefined : faultError(fault, service === "ec2");
    if (broken !== undefined) throw broken;
    const caller = authenticate(request, url, digest.toString("hex"), keys, world.now());
    if (latencyMs !== undefined) await new Promise((done) => setTimeout(done, latencyMs));
    const limit = quotas.take(operation, `${caller.accountId}/${caller.region}`, route?.snapshotId, world.now());
    if (limit !== undefined) throw throttled(operation, limit);
    if (service === "sts" && form !== undefined) answer = answerSts(world, keys, form, caller);
    else if (form !== undefined) answer = await ec2.answer(form, caller);
    else if (service === "ssm") answer = await ssm.answer(operation, body, caller);
    else if (route === undefined) throw new AwsError(404, "UnknownOperationException", "There is no such operation.");
    else
      answer = await ebs.answer(route, {
        url,
        headers: request.headers,
        body,
        bodyDigest: digest.toString("base64"),
        caller,
      });
  } catch (error) {
    answer = errorAnswer(service, error);
  }
  send(response, answer, fault, world.now());
}

function faultError(fault: AwsFault, ec2: boolean): AwsError | undefined {
  switch (fault) {
    case "throttle":
      return ec2
        ? new AwsError(503, "RequestLimitExceeded", "Request limit exceeded.")
        : new AwsError(400, "ThrottlingException", "Rate exceeded");
    case "resource-throttle":
      return new AwsError(400, "RequestThrottledException", "Rate exceeded", "RESOURCE_LEVEL_THROTTLE");
    case "dependency-throttle":
      return new AwsError(400, "RequestThrottledException", "Rate exceeded", "DEPENDENCY_REQUEST_THROTTLED");
    case "quota-exceeded":
      return new AwsError(
        402,
        "ServiceQuotaExceededException",
        "A quota of a service behind this one is exceeded",
        "DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
      );
    case "internal-error":
      return new AwsError(500, ec2 ? "InternalError" : "InternalServerException", "An internal error has occurred");
    case "unavailable":
      return new AwsError(503, ec2 ? "Unavailable" : "ServiceUnavailableException", "Service unavailable");
    case "no-capacity":
      return new AwsError(
        500,
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient capacity in the Availability Zone you requested.",
      );
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
  let pieces = typeof answer.body === "string" ? [Buffer.from(answer.body)] : [...answer.body];
  if (fault === "empty") pieces = [];
  if (fault === "flip") {
    const body = Buffer.concat(pieces);
    const middle = body.length >> 1;
    if (body.length > 0) body[middle] = (body[middle] ?? 0) ^ 1;
    pieces = [body];
  }
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  // Clients correct their clocks by the date.
  const date = new Date(now).toUTCString();
  const requestId = randomUUID();
  response.writeHead(answer.status, {
    ...answer.headers,
    date,
    "x-amzn-requestid": requestId,
    "content-length": length,
  });
  if (fault === "truncate") {
    response.write(Buffer.concat(pieces).subarray(0, length >> 1), () => response.destroy());
    return;
  }
  response.cork();
  for (const piece of pieces) response.write(piece);
  response.end();
}
