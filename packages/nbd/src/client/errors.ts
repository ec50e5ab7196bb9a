import { ProviderError } from "@diskferry/core/provider";
import type { ProviderErrorCode } from "@diskferry/core/provider";
import { errorNumber } from "../protocol.ts";

/** The names of the errors a server may answer with. */
export type NbdErrorName = keyof typeof errorNumber;

/** What a server answered to a request; the `cause` of the ProviderError that a caller sees. */
export class NbdServerError extends Error {
  /** `EIO`, `ENOSPC` …; `E<number>` for one that the protocol does not name. */
  readonly code: string;
  /** The number on the wire. */
  readonly errno: number;
  /** Where on the export it happened, when the server said so. */
  readonly offset: number | undefined;

  constructor(errno: number, text: string, offset?: number) {
    const code = names.get(errno) ?? `E${errno}`;
    super(text === "" ? code : `${code}: ${text}`);
    this.name = "NbdServerError";
    this.code = code;
    this.errno = errno;
    this.offset = offset;
  }
}

const names = new Map<number, NbdErrorName>();
for (const [name, value] of Object.entries(errorNumber)) names.set(value, name as NbdErrorName);

interface Meaning {
  code: ProviderErrorCode;
  says: string;
  retryable?: boolean;
}

/**
 * The one translation of a server's errors. EIO and ENOMEM may pass, so they are retryable, yet never UNAVAILABLE:
 * the connection is sound and a new one would not help. Only ESHUTDOWN ends it.
 */
const meanings: Record<NbdErrorName, Meaning> = {
  EPERM: { code: "DENIED", says: "the server does not allow it (is the export read-only?)" },
  EIO: { code: "UNEXPECTED", says: "the server met an input/output error; see its log", retryable: true },
  ENOMEM: { code: "UNEXPECTED", says: "the server is short of memory; ask for less at once", retryable: true },
  EINVAL: { code: "UNEXPECTED", says: "the server calls the request invalid" },
  ENOSPC: { code: "UNEXPECTED", says: "the server has no space left; make room there" },
  EOVERFLOW: { code: "UNSUPPORTED", says: "the server finds the request too large" },
  ENOTSUP: { code: "UNSUPPORTED", says: "the server does not support it, or not fast" },
  ESHUTDOWN: { code: "UNAVAILABLE", says: "the server is shutting down" },
};

/** The error a caller sees for a server's answer. `what` names the request and the export. */
export function answeredError(what: string, operation: string, cause: NbdServerError): ProviderError {
  const name = names.get(cause.errno);
  const meaning: Meaning =
    name === undefined ? { code: "UNEXPECTED", says: "the server answered an error" } : meanings[name];
  const { code, says, retryable } = meaning;
  return new ProviderError(code, `${what}: ${says} (${cause.message})`, { operation, retryable, cause });
}

/** A session that is over: retryable, on a new session. */
export function unavailable(message: string, operation: string, cause?: unknown): ProviderError {
  return new ProviderError("UNAVAILABLE", message, { operation, cause });
}

/** What a peer sent, fit for a message: printable, on one line, at most 200 characters. */
export function printable(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes.subarray(0, 1024));
  const plain = text.replaceAll(/[^\P{C}]+/gu, " ").trim();
  return plain.length > 200 ? `${plain.slice(0, 199)}…` : plain;
}
