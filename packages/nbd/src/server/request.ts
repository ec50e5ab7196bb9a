import {
  command,
  commandFlag,
  errorNumber,
  extendedRequestHeaderLength,
  extendedRequestMagic,
  requestHeaderLength,
  requestMagic,
} from "../protocol.ts";
import type { NbdBackend } from "./backend.ts";

/** One command of a client, as its header says. 64-bit fields are kept in halves as well, to be sent back unchanged. */
export interface Request {
  readonly flags: number;
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
  /** Bytes. Exact up to 2^53; beyond that only known to lie behind every disk. */
  readonly offset: number;
  /** Bytes: of the payload where there is one, else of the range. */
  readonly length: number;
  /** Whether `length` bytes follow the header. */
  readonly hasPayload: boolean;
  /** Of a status request: the ids of the contexts it is limited to. Absent: all that were chosen. */
  readonly contexts?: readonly number[];
}

/** What a client did wrong with a request, and the NBD error that tells it so. */
export class RequestError extends Error {
  readonly errorNumber: number;

  constructor(number: number, message: string) {
    super(message);
    this.name = "RequestError";
    this.errorNumber = number;
  }
}

/** Bytes of a request's header. */
export function requestLength(extended: boolean): number {
  return extended ? extendedRequestHeaderLength : requestHeaderLength;
}

/** The request of a header; undefined: no request begins there, so the stream cannot be understood any more. */
export function parseRequest(header: Buffer, extended: boolean): Request | undefined {
  if (header.readUInt32BE(0) !== (extended ? extendedRequestMagic : requestMagic)) return undefined;
  const flags = header.readUInt16BE(4);
  const type = header.readUInt16BE(6);
  const offsetHigh = header.readUInt32BE(16);
  const offsetLow = header.readUInt32BE(20);
  const length = extended ? header.readUInt32BE(24) * 2 ** 32 + header.readUInt32BE(28) : header.readUInt32BE(24);
  return {
    flags,
    type,
    cookieHigh: header.readUInt32BE(8),
    cookieLow: header.readUInt32BE(12),
    offsetHigh,
    offsetLow,
    offset: offsetHigh * 2 ** 32 + offsetLow,
    length,
    hasPayload: extended ? (flags & commandFlag.payloadLength) !== 0 : type === command.write,
  };
}

/** What an export allows, as it was told to the client. */
export interface Offered {
  readonly writable: boolean;
  readonly backend: NbdBackend;
  readonly structured: boolean;
  readonly extended: boolean;
  readonly maximumPayload: number;
}

/** Checks a request against what was offered. @throws RequestError with the error that the protocol asks for. */
export function checkRequest(request: Request, offered: Offered): void {
  const { backend } = offered;
  checkFlags(request, offered);
  if (request.type === command.flush) {
    if (request.offset !== 0 || request.length !== 0) invalid("a flush has no offset and no length");
    if (backend.flush === undefined) invalid("flush was not offered");
    return;
  }
  if (changesDisk(request.type) && !offered.writable) {
    throw new RequestError(errorNumber.EPERM, "this export is read-only");
  }
  checkOffered(request, backend);
  const blockSize = backend.blockSize ?? 1;
  if (request.offset % blockSize !== 0 || request.length % blockSize !== 0) {
    invalid(`offset and length must be multiples of ${blockSize}`);
  }
  if (request.offset + request.length > backend.size) {
    const grows = request.type === command.write || request.type === command.writeZeroes;
    throw new RequestError(
      grows ? errorNumber.ENOSPC : errorNumber.EINVAL,
      `the range ends beyond the disk's ${backend.size} bytes`,
    );
  }
  if (request.type === command.read && request.length > offered.maximumPayload) {
    throw new RequestError(
      offered.structured ? errorNumber.EOVERFLOW : errorNumber.EINVAL,
      `a read is at most ${offered.maximumPayload} bytes`,
    );
  }
}

/** Whether a command may change what the disk holds. */
export function changesDisk(type: number): boolean {
  return type === command.write || type === command.writeZeroes || type === command.trim;
}

const { fua, noHole, doNotFragment, requireOne, fastZero, payloadLength } = commandFlag;

function checkFlags(request: Request, offered: Offered): void {
  const allowed = allowedFlags(request.type, offered);
  if (allowed === undefined) invalid(`command ${request.type} is not known here`);
  else if ((request.flags & ~allowed) !== 0) {
    invalid(`flags 0x${request.flags.toString(16)} do not belong to command ${request.type} as it was offered`);
  }
  if (offered.extended && request.type === command.write && !request.hasPayload) {
    invalid("a write must say that it has a payload");
  }
}

function allowedFlags(type: number, offered: Offered): number | undefined {
  const durable = offered.backend.flush === undefined ? 0 : fua;
  switch (type) {
    case command.read:
      return durable | (offered.structured ? doNotFragment : 0);
    case command.write:
      return durable | (offered.extended ? payloadLength : 0);
    case command.flush:
    case command.cache:
      return durable;
    case command.trim:
      return durable;
    case command.writeZeroes:
      return durable | noHole | (offered.backend.zero === undefined ? 0 : fastZero);
    case command.blockStatus:
      return durable | requireOne;
    default:
      return undefined;
  }
}

function checkOffered(request: Request, backend: NbdBackend): void {
  if (request.type === command.trim && backend.trim === undefined) invalid("trim was not offered");
  if (request.type === command.cache && backend.cache === undefined) invalid("cache was not offered");
  if (request.type === command.blockStatus && request.length === 0) invalid("a block status needs a length");
}

function invalid(message: string): never {
  throw new RequestError(errorNumber.EINVAL, message);
}
