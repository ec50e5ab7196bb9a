import { expect, test } from "vitest";
import type { ProviderErrorCode } from "@diskferry/core/provider";
import { AwsFailure, failureOf, throttleScope, translate } from "../src/errors.ts";

const subject = { action: "ebs:GetSnapshotBlock", object: "block 7 of snap-1", region: "us-east-1" };

/** An error as the SDK throws it. */
function thrown(name: string, message = "no", more: { Reason?: string; status?: number; code?: string } = {}): Error {
  const { status, ...rest } = more;
  return Object.assign(new Error(message), { name, $metadata: { httpStatusCode: status, requestId: "r-1" }, ...rest });
}

// The retry matrix of the EBS direct APIs, and what EC2 and the network add: code, reason, what it becomes, retryable.
const matrix: [name: string, reason: string | undefined, code: ProviderErrorCode, retryable: boolean][] = [
  ["InternalServerException", undefined, "UNAVAILABLE", true],
  ["ThrottlingException", undefined, "THROTTLED", true],
  ["RequestThrottledException", "ACCOUNT_THROTTLED", "THROTTLED", true],
  ["RequestThrottledException", "DEPENDENCY_REQUEST_THROTTLED", "THROTTLED", true],
  ["RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", "THROTTLED", true],
  ["RequestLimitExceeded", undefined, "THROTTLED", true],
  ["ValidationException", "WRITE_REQUEST_TIMEOUT", "UNAVAILABLE", true],
  ["ValidationException", "INVALID_BLOCK_TOKEN", "UNAVAILABLE", true],
  ["ValidationException", "INVALID_PAGE_TOKEN", "UNAVAILABLE", true],
  ["ValidationException", "UNRELATED_SNAPSHOTS", "TRACKING_LOST", false],
  ["ValidationException", "INVALID_SNAPSHOT_ID", "UNSUPPORTED", false],
  ["ValidationException", "INVALID_VOLUME_SIZE", "CONFIG_INVALID", false],
  ["ValidationException", "INVALID_CUSTOMER_KEY", "DENIED", false],
  ["ValidationException", "INVALID_TAG", "CONFIG_INVALID", false],
  ["ValidationException", "INVALID_PARAMETER_VALUE", "CONFIG_INVALID", false],
  ["ConcurrentLimitExceededException", undefined, "UNAVAILABLE", true],
  ["ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", "NOT_FOUND", false],
  ["ConflictException", undefined, "EXISTS", false],
  ["ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED", "UNAVAILABLE", false],
  ["AccessDeniedException", "UNAUTHORIZED_ACCOUNT", "DENIED", false],
  ["AccessDeniedException", "DEPENDENCY_ACCESS_DENIED", "DENIED", false],
  ["InvalidSignatureException", undefined, "AUTH", false],
  ["ExpiredTokenException", undefined, "AUTH", false],
  ["UnauthorizedOperation", undefined, "DENIED", false],
  ["InvalidSnapshot.NotFound", undefined, "NOT_FOUND", false],
  ["InvalidSnapshot.InUse", undefined, "IN_USE", false],
  ["ConcurrentSnapshotLimitExceeded", undefined, "UNAVAILABLE", true],
  ["ResourceLimitExceeded", undefined, "UNAVAILABLE", true],
  ["InvalidInstanceId", undefined, "UNSUPPORTED", false],
  ["InsufficientInstanceCapacity", undefined, "UNAVAILABLE", false],
  ["InsufficientVolumeCapacity", undefined, "UNAVAILABLE", false],
  ["InstanceLimitExceeded", undefined, "UNAVAILABLE", false],
  ["VolumeLimitExceeded", undefined, "UNAVAILABLE", false],
  ["Unsupported", undefined, "UNSUPPORTED", false],
  ["AttachmentLimitExceeded", undefined, "UNSUPPORTED", false],
  ["TagLimitExceeded", undefined, "CONFIG_INVALID", false],
  ["InvalidZone.NotFound", undefined, "CONFIG_INVALID", false],
  ["OptInRequired", undefined, "DENIED", false],
  ["AuthFailure", undefined, "AUTH", false],
  ["UnrecognizedClientException", undefined, "AUTH", false],
  ["CredentialsProviderError", undefined, "AUTH", false],
  ["TimeoutError", undefined, "UNAVAILABLE", true],
  ["SomethingNew", undefined, "UNEXPECTED", false],
];

for (const [name, reason, code, retryable] of matrix) {
  test(`${name}${reason === undefined ? "" : `, ${reason}`} is ${code}, ${retryable ? "tried again" : "final"}`, () => {
    const error = translate(thrown(name, "no", reason === undefined ? {} : { Reason: reason }), subject);
    expect(error).toMatchObject({ code, retryable, provider: "aws-ebs", operation: "GetSnapshotBlock" });
    expect(failureOf(error)).toMatchObject({ awsCode: name, reason, requestId: "r-1" });
  });
}

test("'Failed to read block data' is tried again, though code and reason call it the caller's mistake", () => {
  const error = thrown("ValidationException", "Failed to read block data", { Reason: "INVALID_PARAMETER_VALUE" });
  expect(translate(error, subject)).toMatchObject({ code: "UNAVAILABLE", retryable: true });
});

test("what AWS does not know may only not be known yet, where something was just made", () => {
  const error = thrown("ResourceNotFoundException", "does not exist");
  expect(translate(error, { ...subject, settling: true })).toMatchObject({ code: "UNAVAILABLE", retryable: true });
});

test("network failures and unknown server errors are tried again", () => {
  for (const code of ["ECONNRESET", "ECONNREFUSED", "EPIPE", "ETIMEDOUT", "EAI_AGAIN"])
    expect(translate(thrown("Error", "socket hang up", { code }), subject)).toMatchObject({ retryable: true });
  expect(translate(thrown("Odd", "no", { status: 503 }), subject)).toMatchObject({ retryable: true });
  expect(translate(thrown("Error", "bad", { code: "CERT_HAS_EXPIRED" }), subject)).toMatchObject({ code: "AUTH" });
});

test("a refusal names the action and the resource, as AWS names them or as we asked", () => {
  const told =
    "User: arn:aws:iam::1:user/u is not authorized to perform: ebs:GetSnapshotBlock on resource: arn:aws:ec2:us-east-1::snapshot/snap-1 because no identity-based policy allows it";
  const error = translate(thrown("AccessDeniedException", told, { Reason: "UNAUTHORIZED_ACCOUNT" }), subject);
  expect(error.message).toContain("ebs:GetSnapshotBlock on arn:aws:ec2:us-east-1::snapshot/snap-1 is denied");
  expect(error.message).toContain("Allow ebs:GetSnapshotBlock");
  const untold = translate(thrown("UnauthorizedOperation", "You are not authorized."), subject);
  expect(untold.message).toContain("ebs:GetSnapshotBlock on block 7 of snap-1 is denied");
  const kms = translate(
    thrown("AccessDeniedException", "KMS said no", { Reason: "DEPENDENCY_ACCESS_DENIED" }),
    subject,
  );
  expect(kms.message).toContain("kms:Decrypt");
});

test("what AWS says of a signature is left out, because the session token may be in it", () => {
  const said = "The Canonical String was 'GET x-amz-security-token:FwoGZXIvYXdzEXAMPLE'";
  const error = translate(thrown("InvalidSignatureException", said), subject);
  expect(
    `${error.message} ${String((error.cause as Error).message)} ${String((error.cause as Error).stack)}`,
  ).not.toContain("FwoGZXIvYXdzEXAMPLE");
});

test("an error keeps AWS's answer as its cause, and never the request", () => {
  const sdk = Object.assign(thrown("InternalError"), {
    $response: { headers: { authorization: "AWS4-HMAC-SHA256 …" } },
  });
  const { cause } = translate(sdk, subject);
  expect(cause).toBeInstanceOf(AwsFailure);
  expect(JSON.stringify(cause, Object.getOwnPropertyNames(cause))).not.toContain("AWS4");
});

test("whose quota refused is told where AWS tells it", () => {
  expect(throttleScope(thrown("RequestThrottledException", "", { Reason: "RESOURCE_LEVEL_THROTTLE" }))).toBe(
    "snapshot",
  );
  expect(throttleScope(thrown("RequestThrottledException", "", { Reason: "ACCOUNT_THROTTLED" }))).toBe("account");
  expect(throttleScope(thrown("ThrottlingException"))).toBe("account");
  expect(throttleScope(thrown("InternalError"))).toBeUndefined();
});

test("good keys in a Region that the account has not enabled look like wrong ones, and the error says so", () => {
  for (const name of ["AuthFailure", "UnrecognizedClientException", "InvalidClientTokenId"]) {
    const error = translate(thrown(name, "token FwoGZXIvY of the request"), { ...subject, region: "me-south-1" });
    expect(error.message).toMatch(/the account has enabled me-south-1/);
    expect(error.message).not.toContain("FwoGZXIvY");
  }
});
