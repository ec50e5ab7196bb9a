import { isProviderError, ProviderError, type ProviderErrorCode } from "@diskferry/core/provider";
import { VimFault } from "./vim/vim-fault.ts";

/** A {@link ProviderError} of this provider. */
export function vsphereError(
  code: ProviderErrorCode,
  message: string,
  options: { operation?: string; cause?: unknown; retryable?: boolean; retryAfterMs?: number | undefined } = {},
): ProviderError {
  return new ProviderError(code, message, { provider: "vsphere", ...options });
}

interface Meaning {
  readonly code: ProviderErrorCode;
  /** What to do; follows the server's own words. */
  readonly remedy: string;
  readonly retryable?: boolean;
}

/**
 * What vim25's faults mean for a copy, by the type in the fault's detail (vSphere Web Services API reference). The one
 * table of this provider; a caller that knows more of the moment makes its own error and keeps the fault as cause.
 */
const faults: Readonly<Record<string, Meaning>> = {
  InvalidLogin: {
    code: "AUTH",
    remedy: "check user and password; a user of the directory is written name@domain",
  },
  NotAuthenticated: { code: "AUTH", remedy: "the session has ended and could not be renewed; check the account" },
  NoPermission: { code: "DENIED", remedy: "give the account's role this privilege, on this object and below it" },
  RestrictedVersion: {
    code: "UNSUPPORTED",
    remedy:
      "the host's licence does not allow this API (the free ESXi is read-only); use a licensed host or its vCenter",
  },
  ManagedObjectNotFound: { code: "NOT_FOUND", remedy: "it was removed, or belongs to another vCenter" },
  NotFound: { code: "NOT_FOUND", remedy: "check the name" },
  FileNotFound: { code: "NOT_FOUND", remedy: "the file is gone from the datastore" },
  MethodNotFound: { code: "UNSUPPORTED", remedy: "this version of vSphere does not have the call" },
  NotSupported: { code: "UNSUPPORTED", remedy: "the object, or this version of vSphere, does not allow it" },
  NotImplemented: { code: "UNSUPPORTED", remedy: "this version of vSphere does not have the call" },
  InvalidProperty: { code: "UNSUPPORTED", remedy: "this version of vSphere does not have the property" },
  InvalidRequest: { code: "UNEXPECTED", remedy: "the server refuses the form of the request; report this" },
  InvalidArgument: { code: "UNEXPECTED", remedy: "the server refuses an argument; see the cause" },
  InvalidName: { code: "CONFIG_INVALID", remedy: "choose another name" },
  InvalidPowerState: { code: "IN_USE", remedy: "the machine's power state does not allow it" },
  InvalidState: {
    code: "IN_USE",
    remedy: "the object's state does not allow it now; try again later",
    retryable: true,
  },
  TaskInProgress: {
    code: "IN_USE",
    remedy: "another task works on the machine; wait for it to end",
    retryable: true,
  },
  ConcurrentAccess: { code: "IN_USE", remedy: "somebody else changed it at the same time", retryable: true },
  ResourceInUse: { code: "IN_USE", remedy: "something else uses it; wait for that to end", retryable: true },
  FileLocked: { code: "IN_USE", remedy: "another process holds the file; wait for it to end", retryable: true },
  SnapshotLocked: { code: "IN_USE", remedy: "the snapshot is in use; wait for that to end", retryable: true },
  TooManySnapshotLevels: {
    code: "UNSUPPORTED",
    remedy: "the machine has as many snapshots as vSphere allows (32); remove some",
  },
  SnapshotMoveToNonHomeNotAllowed: { code: "UNSUPPORTED", remedy: "the machine's disks do not allow snapshots" },
  SnapshotIncompatibleDeviceInVm: {
    code: "UNSUPPORTED",
    remedy: "a device of the machine (a physical raw device mapping, a shared bus) does not allow snapshots",
  },
  MemorySnapshotOnIndependentDisk: {
    code: "UNSUPPORTED",
    remedy: "an independent disk allows no snapshot with memory",
  },
  ApplicationQuiesceFault: {
    code: "UNAVAILABLE",
    remedy: "the guest's applications (VSS writers, freeze scripts) did not quiesce; see the guest's event log",
    retryable: false,
  },
  FilesystemQuiesceFault: {
    code: "UNAVAILABLE",
    remedy: "the guest's file systems did not quiesce in time; see VMware Tools' log",
    retryable: false,
  },
  ToolsUnavailable: { code: "UNSUPPORTED", remedy: "VMware Tools is not running in the guest; start it" },
  NoDiskSpace: { code: "UNAVAILABLE", remedy: "free space on the datastore", retryable: false },
  InsufficientResourcesFault: { code: "UNAVAILABLE", remedy: "the host lacks resources", retryable: false },
  FileFault: { code: "UNAVAILABLE", remedy: "see the host's log about this file", retryable: false },
  CannotAccessFile: { code: "UNAVAILABLE", remedy: "the host cannot reach the file; check the datastore" },
  HostNotConnected: { code: "UNAVAILABLE", remedy: "the host is disconnected from vCenter; reconnect it" },
  HostCommunication: { code: "UNAVAILABLE", remedy: "vCenter cannot reach the host" },
  HostNotReachable: { code: "UNAVAILABLE", remedy: "vCenter cannot reach the host" },
  HostConnectFault: { code: "UNAVAILABLE", remedy: "vCenter cannot reach the host" },
  Timedout: { code: "UNAVAILABLE", remedy: "the operation took too long at the host" },
  RequestCanceled: { code: "UNAVAILABLE", remedy: "somebody cancelled it" },
  SystemError: { code: "UNAVAILABLE", remedy: "see the server's log (vpxd.log, hostd.log)" },
  QuestionPending: { code: "IN_USE", remedy: "the machine waits for an answer; answer it in the vSphere client" },
  VAppTaskInProgress: { code: "IN_USE", remedy: "a task of its vApp is running; wait for it", retryable: true },
  GenericVmConfigFault: { code: "UNEXPECTED", remedy: "see the machine's vmware.log" },
};

/** A failed call, task or lease as a {@link ProviderError}; `object` names what it was done on. */
export function translateFault(fault: VimFault, operation: string, object: string): ProviderError {
  const meaning = faults[fault.type];
  const privilege = fault.type === "NoPermission" ? fault.detail?.string("privilegeId") : undefined;
  const what = privilege === undefined ? fault.message : `${fault.message} (${privilege})`;
  if (meaning === undefined) {
    return vsphereError("UNEXPECTED", `${operation} of ${object} failed: ${what}`, { operation, cause: fault });
  }
  return vsphereError(meaning.code, `${operation} of ${object} failed: ${what}; ${meaning.remedy}`, {
    operation,
    cause: fault,
    ...(meaning.retryable === undefined ? {} : { retryable: meaning.retryable }),
  });
}

/** System and TLS errors: what they mean, and what to do. */
const transport: Readonly<Record<string, Meaning>> = {
  CERT_HAS_EXPIRED: {
    code: "AUTH",
    remedy: "its certificate has expired; renew it (vCenter: Certificate Management), or pin it by its thumbprint",
  },
  CERT_NOT_YET_VALID: { code: "AUTH", remedy: "its certificate is not valid yet; check the clocks" },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    code: "AUTH",
    remedy: "its certificate names another host; use a name that the certificate has, or pin it by its thumbprint",
  },
  DEPTH_ZERO_SELF_SIGNED_CERT: {
    code: "AUTH",
    remedy: "its certificate is self-signed; give its authority (ca) or pin it by its thumbprint",
  },
  SELF_SIGNED_CERT_IN_CHAIN: {
    code: "AUTH",
    remedy: "its authority is not trusted here; give it (ca: the file from https://<vcenter>/certs/download.zip)",
  },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: {
    code: "AUTH",
    remedy: "its authority is not trusted here; give it (ca: the file from https://<vcenter>/certs/download.zip)",
  },
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: {
    code: "AUTH",
    remedy: "its authority is not trusted here; give it (ca: the file from https://<vcenter>/certs/download.zip)",
  },
  CERT_UNTRUSTED: { code: "AUTH", remedy: "its certificate is not trusted; give its authority (ca)" },
  CERT_REVOKED: { code: "AUTH", remedy: "its certificate is revoked; renew it" },
  EPROTO: { code: "CONFIG_INVALID", remedy: "it does not speak TLS on this port; check the port" },
  ERR_SSL_WRONG_VERSION_NUMBER: {
    code: "CONFIG_INVALID",
    remedy: "it does not speak TLS on this port; check the port",
  },
  ECONNREFUSED: { code: "UNAVAILABLE", remedy: "nothing listens there, or it is restarting; check address and port" },
  ENOTFOUND: { code: "UNAVAILABLE", remedy: "the name is not known to DNS; check it" },
  EAI_AGAIN: { code: "UNAVAILABLE", remedy: "DNS does not answer" },
  EHOSTUNREACH: { code: "UNAVAILABLE", remedy: "no route leads there; check network and firewall" },
  ENETUNREACH: { code: "UNAVAILABLE", remedy: "no route leads there; check the network" },
  ETIMEDOUT: { code: "UNAVAILABLE", remedy: "it does not answer; check the firewall" },
  UND_ERR_CONNECT_TIMEOUT: { code: "UNAVAILABLE", remedy: "it does not answer; check the firewall (port 443)" },
  UND_ERR_HEADERS_TIMEOUT: { code: "UNAVAILABLE", remedy: "it took the request and did not answer in time" },
  UND_ERR_BODY_TIMEOUT: { code: "UNAVAILABLE", remedy: "its answer stopped half-way" },
  UND_ERR_SOCKET: { code: "UNAVAILABLE", remedy: "it closed the connection" },
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: { code: "UNAVAILABLE", remedy: "its answer was cut short" },
  HPE_INVALID_CONSTANT: { code: "UNAVAILABLE", remedy: "it does not speak HTTP on this port; check the port" },
  ECONNRESET: { code: "UNAVAILABLE", remedy: "it closed the connection" },
  EPIPE: { code: "UNAVAILABLE", remedy: "it closed the connection" },
};

/** Errors of the time before a request left this machine, or before the server was up: it cannot have been done. */
const beforeSending: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
  "HTTP_503",
]);

/** Whether an error proves that the server never took the request. */
export function neverSent(error: unknown): boolean {
  return codesOf(error).some((code) => beforeSending.has(code));
}

/** A failed request as a {@link ProviderError}; errors that are one already are given back. */
export function translateTransport(error: unknown, operation: string, host: string): unknown {
  if (isProviderError(error) || error instanceof VimFault) return error;
  if (error instanceof TypeError || error instanceof RangeError) return error;
  for (const code of codesOf(error)) {
    const meaning = transport[code];
    if (meaning === undefined) continue;
    return vsphereError(meaning.code, `${operation} at ${host} failed: ${meaning.remedy} (${code})`, {
      operation,
      cause: error,
    });
  }
  return vsphereError("UNAVAILABLE", `${operation} at ${host} failed: ${(error as Error).message}`, {
    operation,
    cause: error,
  });
}

function codesOf(error: unknown): string[] {
  const codes: string[] = [];
  let at = error;
  for (let depth = 0; depth < 5 && at instanceof Error; depth++) {
    const { code } = at as { code?: unknown };
    if (typeof code === "string") codes.push(code);
    at = at.cause;
  }
  return codes;
}
