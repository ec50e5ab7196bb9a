import { ProviderError, type ProviderErrorCode, isProviderError } from "@diskferry/core/provider";

/** What a code of AWS means for a copy, and what to do about it. */
interface Meaning {
  code: ProviderErrorCode;
  /** Default: true for THROTTLED and UNAVAILABLE alone, as in core. */
  retryable?: boolean;
  retryAfterMs?: number;
  /** What to do, as a sentence; `{action}`, `{object}` and `{region}` are filled in. */
  remedy?: string;
  /** AWS answers with the text that was signed, and the session token is in it: its words are left out. */
  secretive?: true;
}

const throttled: Meaning = { code: "THROTTLED" };
const again: Meaning = { code: "UNAVAILABLE" };
const expired: Meaning = {
  code: "AUTH",
  secretive: true,
  remedy: "The keys ran out and new ones were not given; log in again or check the credentials' source.",
};
const keys: Meaning = {
  code: "AUTH",
  secretive: true,
  remedy: "Check the access key, its secret, the session token and this machine's clock.",
};
/** So do good keys look where the account has not enabled the Region (AWS re:Post, "validate the provided credentials"). */
const keysHere: Meaning = {
  ...keys,
  remedy:
    "Check the access key, its secret, the session token and this machine's clock, and that the account has enabled {region}: " +
    "Regions that are off by default refuse good keys too, and tokens of the global STS endpoint.",
};
const denied: Meaning = {
  code: "DENIED",
  remedy: "Allow {action} on it in the IAM policy of these credentials (and in any boundary or organisation policy).",
};
const gone: Meaning = {
  code: "NOT_FOUND",
  remedy: "Check the id, the account, and that it is in {region}.",
};
const space = (remedy: string): Meaning => ({ code: "UNAVAILABLE", remedy });
const refuse = (remedy: string): Meaning => ({ code: "UNSUPPORTED", remedy });
const wrong: Meaning = { code: "CONFIG_INVALID" };

/**
 * The retry matrix, by code or by code and reason (EBS direct APIs, error retries; EC2, API error codes). AWS's SDK retries
 * nothing here: whether a call is repeated is decided by `retryable` alone.
 */
const meanings: Readonly<Record<string, Meaning>> = {
  InternalServerException: again,
  InternalError: again,
  InternalFailure: again,
  ServiceUnavailable: again,
  ServiceUnavailableException: again,
  Unavailable: again,
  RequestTimeout: again,
  RequestTimeoutException: again,
  ThrottlingException: throttled,
  Throttling: throttled,
  RequestThrottledException: throttled,
  RequestLimitExceeded: throttled,
  TooManyRequestsException: throttled,
  SlowDown: throttled,
  "ValidationException/WRITE_REQUEST_TIMEOUT": again,
  "ValidationException/INVALID_BLOCK_TOKEN": {
    code: "UNAVAILABLE",
    remedy: "The block's token ran out; the block has to be listed again.",
  },
  "ValidationException/INVALID_PAGE_TOKEN": {
    code: "UNAVAILABLE",
    remedy: "The page's token ran out; the listing has to begin again at its index.",
  },
  "ValidationException/UNRELATED_SNAPSHOTS": {
    code: "TRACKING_LOST",
    remedy:
      "They are not of one volume, nor incremental copies of one source, so nothing can be told of changes between them.",
  },
  "ValidationException/INVALID_VOLUME_SIZE": {
    ...wrong,
    remedy: "A snapshot is 1 to 65536 GiB and no smaller than its parent.",
  },
  "ValidationException/INVALID_SNAPSHOT_ID": refuse(
    "The EBS direct APIs read completed snapshots of this account or shared with it, which are neither archived nor public nor on an Outpost.",
  ),
  "ValidationException/INVALID_CUSTOMER_KEY": {
    code: "DENIED",
    remedy: "Check the KMS key: it must exist, be enabled and usable by these credentials.",
  },
  "ValidationException/CONFLICTING_BLOCK_UPDATE": {
    code: "UNAVAILABLE",
    remedy: "Another request writes the same block.",
  },
  ValidationException: wrong,
  ConcurrentLimitExceededException: space(
    "The account has its 100 pending snapshots in {region} already; wait until some complete, or remove those that nobody completes.",
  ),
  ServiceQuotaExceededException: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "A quota of the account is used up; ask for more in Service Quotas, or remove what is not needed.",
  },
  ConflictException: {
    code: "EXISTS",
    remedy: "The same client token was used for another snapshot; begin a new run.",
  },
  ResourceNotFoundException: gone,
  "AccessDeniedException/DEPENDENCY_ACCESS_DENIED": {
    code: "DENIED",
    remedy:
      "KMS refused: allow kms:Decrypt, kms:GenerateDataKeyWithoutPlaintext, kms:ReEncrypt* and kms:CreateGrant on the key, in the IAM policy and in the key's own policy.",
  },
  AccessDeniedException: denied,
  AccessDenied: denied,
  UnauthorizedOperation: denied,
  ExpiredToken: expired,
  ExpiredTokenException: expired,
  RequestExpired: expired,
  InvalidSignatureException: keys,
  SignatureDoesNotMatch: keys,
  RequestTimeTooSkewed: keys,
  AuthFailure: keysHere,
  UnrecognizedClientException: keysHere,
  InvalidClientTokenId: keysHere,
  MissingAuthenticationToken: keys,
  MissingAuthenticationTokenException: keys,
  CredentialsProviderError: { code: "AUTH", remedy: "Give credentials: by option, environment, profile or role." },
  TokenProviderError: { code: "AUTH", remedy: "Log in again: aws sso login." },
  OptInRequired: { code: "DENIED", remedy: "The account has not enabled this Region or service." },
  "InvalidInstanceID.NotFound": gone,
  "InvalidInstanceID.Malformed": gone,
  "InvalidSnapshot.NotFound": gone,
  "InvalidSnapshotID.Malformed": gone,
  "InvalidVolume.NotFound": gone,
  "InvalidVolumeID.Malformed": gone,
  InvalidParameterValue: wrong,
  InvalidParameter: wrong,
  InvalidParameterCombination: wrong,
  InvalidBlockDeviceMapping: wrong,
  MissingParameter: wrong,
  VPCIdNotSpecified: { ...wrong, remedy: "The account has no default VPC in {region}: name a subnet." },
  "InvalidAMIName.Duplicate": { code: "EXISTS", remedy: "An image of that name is there already." },
  "InvalidGroup.Duplicate": { code: "EXISTS", remedy: "A security group of that name is there already." },
  IdempotentParameterMismatch: { code: "EXISTS", remedy: "The same client token was used for another request." },
  "InvalidAMIID.NotFound": gone,
  "InvalidAMIID.Malformed": gone,
  "InvalidAMIID.Unavailable": gone,
  "InvalidGroup.NotFound": gone,
  "InvalidSubnetID.NotFound": gone,
  "InvalidKeyPair.NotFound": gone,
  "InvalidIPAddress.InUse": {
    code: "IN_USE",
    remedy: "The address belongs to another network interface; name another.",
  },
  DependencyViolation: { code: "IN_USE", remedy: "Something still uses it." },
  InsufficientInstanceCapacity: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "AWS has no room for this type in that Availability Zone: wait, or name another type or subnet.",
  },
  InsufficientFreeAddressesInSubnet: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "The subnet has no free address; name another.",
  },
  VcpuLimitExceeded: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "The account's quota of vCPUs is used up in {region}: ask for more, or end instances that nobody needs.",
  },
  Unsupported: refuse(
    "AWS does not offer this there: an instance type or volume type is not in every Availability Zone. Name another subnet, zone or type.",
  ),
  VolumeTypeNotAvailableInZone: refuse("Name another volume type, or another zone."),
  InsufficientVolumeCapacity: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "AWS has no room for this volume in that Availability Zone: wait, or name another type or zone.",
  },
  InsufficientCapacity: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "AWS has no room for this just now: wait, or name another type or zone.",
  },
  InstanceLimitExceeded: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy:
      "The account's quota of instances is used up in {region}: ask for more, or end instances that nobody needs.",
  },
  VolumeLimitExceeded: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy:
      "The account's quota of EBS storage is used up in {region}: ask for more, or delete volumes that nobody needs.",
  },
  MaxIOPSLimitExceeded: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "The account's quota of provisioned IOPS is used up in {region}: ask for more, or provision fewer.",
  },
  AttachmentLimitExceeded: refuse(
    "The instance has as many volumes as its type takes: use a larger type or fewer disks.",
  ),
  "InvalidVolume.ZoneMismatch": { ...wrong, remedy: "A volume is attached in its own Availability Zone alone." },
  "InvalidZone.NotFound": { ...wrong, remedy: "Name a zone of {region} that the account has." },
  TagLimitExceeded: {
    ...wrong,
    remedy:
      "AWS takes 50 tags on one thing, and some of ours are needed: take other tags off it, or set fewer in the option tags.",
  },
  PendingVerification: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "AWS still verifies the account for {region}, which takes up to four hours: run again then.",
  },
  "InvalidSnapshot.InUse": {
    code: "IN_USE",
    remedy: "An image is registered on it; deregister the image first.",
  },
  VolumeInUse: { code: "IN_USE", remedy: "Detach it first." },
  IncorrectState: { code: "UNAVAILABLE", remedy: "It is in another state than this needs." },
  IncorrectInstanceState: { code: "UNAVAILABLE", remedy: "The instance is in another state than this needs." },
  ConcurrentSnapshotLimitExceeded: space(
    "The volume has as many pending snapshots as AWS allows (5; st1 and sc1: 1); wait until one completes.",
  ),
  ResourceLimitExceeded: space("A Region takes 20 snapshot copies at once; wait until one completes."),
  SnapshotLimitExceeded: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "The account holds as many snapshots as its quota allows; remove some or ask for more.",
  },
  UnsupportedOperation: refuse("AWS does not do this here."),
  OperationNotPermitted: refuse("AWS does not allow this here."),
  InvalidAction: refuse("The endpoint does not know this call."),
  InvalidInstanceId: refuse(
    "Systems Manager does not reach the instance: its agent must run, and its role must hold AmazonSSMManagedInstanceCore.",
  ),
  UnsupportedPlatformType: refuse("The document is for another operating system."),
  InvalidDocument: refuse("The account or Region has no such document."),
  InvocationDoesNotExist: again,
};

/** Names of failed system calls and of the SDK's own timeouts: nothing was answered, so the same call may succeed. */
const transport = new Set([
  "MalformedHttpAnswer",
  "ECONNRESET",
  "ECONNREFUSED",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EAI_AGAIN",
  "ERR_STREAM_PREMATURE_CLOSE",
  "TimeoutError",
]);

/** What AWS answered, without the request: that one holds the signature and the session token. */
export class AwsFailure extends Error {
  /** AWS's code, such as `ValidationException`. */
  readonly awsCode: string;
  /** The EBS direct APIs' reason, such as `INVALID_BLOCK_TOKEN`. */
  readonly reason: string | undefined;
  readonly status: number | undefined;
  readonly requestId: string | undefined;

  constructor(
    awsCode: string,
    message: string,
    more: { reason?: unknown; status?: unknown; requestId?: unknown } = {},
  ) {
    super(message);
    this.name = "AwsFailure";
    this.awsCode = awsCode;
    this.reason = typeof more.reason === "string" ? more.reason : undefined;
    this.status = typeof more.status === "number" ? more.status : undefined;
    this.requestId = typeof more.requestId === "string" ? more.requestId : undefined;
  }
}

/** What AWS answered, behind an error of ours; undefined when it answered nothing. */
export function failureOf(error: unknown): AwsFailure | undefined {
  let current = error;
  for (let depth = 0; depth < 8 && current instanceof Error; depth++) {
    if (current instanceof AwsFailure) return current;
    current = current.cause;
  }
  return undefined;
}

/** A {@link ProviderError} of this provider. */
export function awsError(
  code: ProviderErrorCode,
  message: string,
  options: { operation?: string; cause?: unknown; retryable?: boolean; retryAfterMs?: number } = {},
): ProviderError {
  return new ProviderError(code, message, { provider: "aws-ebs", ...options });
}

/** What a call was about, for its error. */
export interface Subject {
  /** As IAM names it: `ebs:GetSnapshotBlock`. */
  action: string;
  /** `snap-…`, `block 7 of snap-…`, `i-…`. */
  object: string;
  region: string;
  /** What is unknown may only not be known yet. */
  settling?: boolean | undefined;
}

/** An answer of AWS, or its absence, as a {@link ProviderError}. Errors that are one already are given back as they are. */
export function translate(error: unknown, subject: Subject): ProviderError {
  if (isProviderError(error)) return error;
  const { action, object, region } = subject;
  const operation = action.slice(action.indexOf(":") + 1);
  const failure = read(error);
  const meaning = meaningOf(failure, subject);
  const label = failure.reason === undefined ? failure.awsCode : `${failure.awsCode}, ${failure.reason}`;
  const secretive = meaning?.secretive === true;
  const said = secretive ? "" : `: ${clip(failure.message)}`;
  const who = meaning === denied ? deniedTo(failure.message, action, object) : undefined;
  const remedy = meaning?.remedy
    ?.replaceAll("{action}", who?.action ?? action)
    .replaceAll("{object}", object)
    .replaceAll("{region}", region);
  const what =
    who === undefined
      ? `${operation} of ${object} in ${region} failed${said} (${label})`
      : `${who.action} on ${who.resource} is denied (${label})`;
  const cause = secretive
    ? new AwsFailure(failure.awsCode, `${failure.awsCode} (AWS's words are left out: they may hold a secret)`, failure)
    : failure;
  return awsError(meaning?.code ?? "UNEXPECTED", remedy === undefined ? what : `${what}. ${remedy}`, {
    operation,
    cause,
    ...(meaning?.retryable === undefined ? {} : { retryable: meaning.retryable }),
    ...(meaning?.retryAfterMs === undefined ? {} : { retryAfterMs: meaning.retryAfterMs }),
  });
}

/** Whether other keys, or a clock set right, may make the same call succeed. */
export function asksForFreshKeys(error: unknown): boolean {
  const { awsCode, message } = read(error);
  if (/Expired/.test(awsCode) || awsCode === "RequestTimeTooSkewed") return true;
  return (
    awsCode === "InvalidSignatureException" ||
    awsCode === "SignatureDoesNotMatch" ||
    (awsCode === "UnrecognizedClientException" && /token/i.test(message))
  );
}

/** Whether AWS refused because too much is asked for, and whose quota refused. */
export function throttleScope(error: unknown): "account" | "snapshot" | undefined {
  const failure = read(error);
  if (meanings[failure.awsCode] !== throttled) return undefined;
  return failure.reason === "RESOURCE_LEVEL_THROTTLE" ? "snapshot" : "account";
}

function meaningOf(failure: AwsFailure, subject: Subject): Meaning | undefined {
  const { awsCode, reason, status, message } = failure;
  // AWS's own table calls this one retryable, though its code and reason say otherwise (EBS direct APIs, error retries).
  if (awsCode === "ValidationException" && /failed to read block data/i.test(message)) return again;
  const known = meanings[`${awsCode}/${reason}`] ?? meanings[awsCode];
  if (known === gone && subject.settling === true) return again;
  if (known !== undefined) return known;
  if (transport.has(awsCode)) return again;
  if (awsCode === "ENOTFOUND")
    return { code: "UNAVAILABLE", remedy: "The endpoint's name does not resolve: check the Region and DNS." };
  if (/CERT|TLS|SSL|SELF_SIGNED|UNABLE_TO_VERIFY/.test(awsCode))
    return { code: "AUTH", remedy: "The endpoint's certificate is not trusted." };
  if (status !== undefined && status >= 500) return again;
  if (status === 429) return throttled;
  return undefined;
}

function read(error: unknown): AwsFailure {
  const known = failureOf(error);
  if (known !== undefined) return known;
  if (!(error instanceof Error)) return new AwsFailure("UnknownError", String(error));
  const {
    code,
    Reason: reason,
    $metadata = {},
  } = error as Error & {
    code?: unknown;
    Reason?: unknown;
    $metadata?: { httpStatusCode?: number; requestId?: string };
  };
  const name =
    error.name === "Error" && typeof code === "string"
      ? code
      : typeof code === "string" && /^E[A-Z]/.test(code)
        ? code
        : error.name;
  return new AwsFailure(name, error.message === "" ? name : error.message, {
    reason,
    status: $metadata.httpStatusCode,
    requestId: $metadata.requestId,
  });
}

/** Action and resource of a refusal, as AWS names them, else as we asked. */
function deniedTo(message: string, action: string, object: string): { action: string; resource: string } {
  const said = /not authorized to perform:? ([\w-]+:\w+)(?: on resource:? (\S+))?/.exec(message);
  return { action: said?.[1] ?? action, resource: said?.[2]?.replace(/[.,]$/, "") ?? object };
}

function clip(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}…` : text.replace(/\.$/, "");
}
