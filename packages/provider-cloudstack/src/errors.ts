import { ProviderError, type ProviderErrorCode, isProviderError } from "@diskferry/core/provider";

/** What the server said of a call or job that failed; the `cause` of the ProviderError made of it. */
export class ApiFailure extends Error {
  readonly command: string;
  /** `errorcode`, which is the HTTP status too. */
  readonly code: number;
  /** `cserrorcode`, the number of the server's exception. */
  readonly exception: number | undefined;

  constructor(command: string, code: number, text: string, exception?: number) {
    super(text);
    this.name = "ApiFailure";
    this.command = command;
    this.code = code;
    this.exception = exception;
  }
}

interface Meaning {
  code: ProviderErrorCode;
  retryable?: boolean;
  /** What to do, as a sentence; `{command}` is filled in. */
  remedy: string;
}

/** What everybody but a root administrator reads for 530, 533 and 534. */
const masked = /internal error executing command, please contact/i;

/** Meanings by what the text says, looked at first: CloudStack puts most of what a tenant can meet under 431 and 530. */
const byText: readonly [pattern: RegExp, meaning: Meaning][] = [
  [
    /insufficient capacity|unable to find suitable primary storage|no suitable (pool|storage|host)|no destination found/i,
    {
      code: "UNAVAILABLE",
      retryable: false,
      remedy: "The zone has no room where this offering goes: free some, or choose another offering.",
    },
  ],
  [
    // A command, not an object: "The API [createTags] does not exist or is not available for the account for user id […]".
    /does not exist or is not available for the account/i,
    { code: "DENIED", remedy: "Allow {command} in the role of this account, or use an account whose role has it." },
  ],
  [
    /entity does not exist|unable to find|doesn't exist/i,
    { code: "NOT_FOUND", remedy: "Check the id, and that it is in this account, domain or project." },
  ],
  [
    /(managed|not supported).*(managed storage|root volume)|root volume (at|de)tach is not supported/i,
    {
      code: "UNSUPPORTED",
      remedy:
        'CloudStack swaps no root volume here (its pool is managed): launch with method "template", or use a disk offering of ' +
        "another pool.",
    },
  ],
  [
    /cannot find volume on storage pool|disk not found or is invalid/i,
    {
      code: "CONFIG_INVALID",
      remedy:
        "The pool does not have the file: import.folder has to be the mount of the very folder that this pool (import.pool) is " +
        "made of, and of no folder below or above it.",
    },
  ],
  [
    /importing and unmanaging volume are not supported for pool type/i,
    {
      code: "UNSUPPORTED",
      remedy:
        'CloudStack adopts files of NFS, shared mount points and hosts\' own storage alone. Name such a pool, or use mode "attach".',
    },
  ],
  [
    /already managed by cloudstack|disk image is already in use/i,
    { code: "IN_USE", remedy: "The file is a volume's already: nothing was changed." },
  ],
  [
    /locked volume cannot be imported|disk might be locked/i,
    { code: "IN_USE", remedy: "Somebody has the file open (qemu-img info without -U fails): end that, and run again." },
  ],
  [
    /storage tags are not compatible|should use (local|shared) storage/i,
    {
      code: "CONFIG_INVALID",
      remedy: "Name an offering that belongs to this pool: by its storage tags, local or shared.",
    },
  ],
  [
    /storage pool .* (is in maintenance|is not up)/i,
    { code: "UNAVAILABLE", remedy: "Wait until the pool is up again." },
  ],
  [
    /unsupported on storage pool type/i,
    {
      code: "UNSUPPORTED",
      remedy:
        "The volume's pool takes no snapshots, so nothing is tested from it: use a disk offering of another pool. A cutover " +
        'with launch.method "template" needs none.',
    },
  ],
  [
    /not attached (with|to) any vm|already attached|attached to (a|another) v|already has (root volume|.*job)|deviceid .* is used/i,
    { code: "IN_USE", remedy: "Another machine has it: detach it there first. Nothing was changed." },
  ],
  [
    /vm snapshots?\b.*\b(attach|detach|specify)|specify a vm that does not have vm snapshots/i,
    { code: "IN_USE", remedy: "Delete the machine's VM snapshots first: with them no volume is attached or detached." },
  ],
  [
    /out of allowed range|exceeds? the maximum|size for volume|larger than the maximum/i,
    {
      code: "CONFIG_INVALID",
      remedy:
        "The zone's largest volume is smaller: have custom.diskoffering.size.max raised, or choose another offering.",
    },
  ],
  [
    /maximum amount of resources|resource limit|exceed(s|ed)? (the )?(account|project|domain) .*limit/i,
    {
      code: "UNAVAILABLE",
      retryable: false,
      remedy: "A limit of the account or project is reached: have it raised, or remove what is not needed.",
    },
  ],
  [
    /maximum number of data disks/i,
    {
      code: "UNAVAILABLE",
      retryable: false,
      remedy: "The machine takes no more volumes: run fewer disks at once, or set up another appliance.",
    },
  ],
  [
    /maintenance or shutdown|async jobs? (are|is) disabled/i,
    {
      code: "UNAVAILABLE",
      remedy: "The management server is being shut down or maintained; wait, or ask another one.",
    },
  ],
  [/delete protection/i, { code: "IN_USE", remedy: "Take its delete protection away first (updateVolume)." }],
  [
    /is not in ready state but/i,
    {
      code: "IN_USE",
      remedy: "Something works on the volume, such as a snapshot schedule: run again when that has ended.",
    },
  ],
  [
    /kvm snapshot is not (supported|enabled)|snapshot.*not supported.*running|kvm\.snapshot\.enabled/i,
    {
      code: "UNSUPPORTED",
      remedy: "Have the global setting kvm.snapshot.enabled turned on, or stop the machine before its snapshot.",
    },
  ],
];

const limits: Meaning = {
  code: "UNAVAILABLE",
  retryable: false,
  remedy: "A limit of the account or project is reached: have it raised, or remove what is not needed.",
};

/** Meanings by `errorcode` (`ApiErrorCode`). */
const byCode: Readonly<Record<number, Meaning>> = {
  401: {
    code: "AUTH",
    remedy: "Check apiKey and secretKey (or user and password), that the user is enabled, and this machine's clock.",
  },
  405: { code: "UNSUPPORTED", remedy: "The server wants another HTTP method for {command}." },
  411: {
    code: "AUTH",
    remedy: "The user has two-factor authentication, which a program cannot pass: use an API key of that user.",
  },
  429: { code: "THROTTLED", remedy: "Have api.throttling.max raised, or run fewer disks at once." },
  430: { code: "CONFIG_INVALID", remedy: "The server could not read a parameter of {command}." },
  431: { code: "CONFIG_INVALID", remedy: "Check what was asked for against the zone's offerings and limits." },
  432: {
    code: "DENIED",
    remedy: "Allow {command} in the role of this account, or use an account whose role has it.",
  },
  503: { code: "UNAVAILABLE", remedy: "The management server takes no jobs now; wait, or ask another one." },
  530: {
    code: "UNEXPECTED",
    remedy: "The management server's log has the cause of {command}; see its lines of this time.",
  },
  531: { code: "DENIED", remedy: "The account may not use this object: check account, domain and project." },
  532: limits,
  533: {
    code: "UNAVAILABLE",
    retryable: false,
    remedy: "The zone has no room for it: free some, or choose another offering or zone.",
  },
  534: {
    code: "UNAVAILABLE",
    remedy: "Storage, host or network is not available now; see the state of the pool and host.",
  },
  535: limits,
  536: { code: "IN_USE", remedy: "Something else works on it or holds it: wait, or end that first." },
  537: { code: "CONFIG_INVALID", remedy: "The address or MAC is taken in that network." },
};

/** The code that the server gives a value that leads to nothing, where the text was masked or translated. */
const INVALID_VALUE = 4350;

/** A {@link ProviderError} of this provider. */
export function cloudstackError(
  code: ProviderErrorCode,
  message: string,
  options: {
    operation?: string;
    cause?: unknown;
    retryable?: boolean | undefined;
    retryAfterMs?: number | undefined;
  } = {},
): ProviderError {
  return new ProviderError(code, message, { provider: "cloudstack", ...options });
}

/** What the server said, as an error that says what to do. `object` names what the call was about. */
export function translateFailure(failure: ApiFailure, object?: string): ProviderError {
  const isMasked = masked.test(failure.message);
  const found = isMasked ? undefined : byText.find(([pattern]) => pattern.test(failure.message))?.[1];
  const role = failure.code === 432 ? byCode[432] : undefined;
  const meaning = role ?? found ?? byCode[failure.code] ?? unknown;
  const hidden = isMasked
    ? " The server hides the cause from everyone but root administrators: ask one for the management server's log."
    : "";
  const about = object === undefined ? "" : ` of ${object}`;
  const remedy = meaning.remedy.replaceAll("{command}", failure.command);
  return cloudstackError(
    meaning.code,
    `${failure.command}${about} failed (${failure.code}${failure.exception === undefined ? "" : `/${failure.exception}`}): ` +
      `${sentence(failure.message)} ${remedy}${hidden}`,
    {
      operation: failure.command,
      cause: failure,
      retryable: meaning.retryable,
      retryAfterMs: failure.code === 429 ? waitIn(failure.message) : undefined,
    },
  );
}

const unknown: Meaning = { code: "UNEXPECTED", remedy: "See the management server's log." };

/** What the server said, where an error is of this provider's client. */
export function failureOf(error: unknown): ApiFailure | undefined {
  if (!isProviderError(error)) return undefined;
  return error.cause instanceof ApiFailure ? error.cause : undefined;
}

/** Whether an error says that the thing is not there: 431 with 4350 is all that some commands tell. */
export function isMissing(error: unknown): boolean {
  if (!isProviderError(error)) return false;
  if (error.code === "NOT_FOUND") return true;
  const failure = failureOf(error);
  return failure?.code === 431 && failure.exception === INVALID_VALUE && /invalid parameter/i.test(failure.message);
}

const lostAnswers = new WeakSet();

/** An error after which nobody knows whether the server did what it was asked. */
export function lostAnswer(command: string, message: string, cause: unknown): ProviderError {
  const error = cloudstackError("UNAVAILABLE", message, { operation: command, cause });
  lostAnswers.add(error);
  return error;
}

/** Whether the server may have done what it was asked although the call failed. */
export function isLostAnswer(error: unknown): boolean {
  return typeof error === "object" && error !== null && lostAnswers.has(error);
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** How long a 429 asks to wait, in milliseconds. */
function waitIn(text: string): number | undefined {
  const found = /retry after (\d+)\s*ms/i.exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}
