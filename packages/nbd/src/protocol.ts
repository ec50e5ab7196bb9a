/**
 * The numbers of the NBD protocol, as in NetworkBlockDevice/nbd `doc/proto.md`. 64-bit magics are given as two 32-bit
 * halves (`[high, low]`), so that no BigInt is needed.
 */

/** The first eight bytes a server sends: `NBDMAGIC`. */
export const greetingMagic: readonly [number, number] = [0x4e42444d, 0x41474943];
/** `IHAVEOPT`: the second eight bytes of a newstyle server, and the start of every option request. */
export const optionMagic: readonly [number, number] = [0x49484156, 0x454f5054];
/** The second eight bytes of an oldstyle server, which is refused by name. */
export const oldstyleMagic: readonly [number, number] = [0x00004202, 0x81861253];
/** The start of every option reply. */
export const optionReplyMagic: readonly [number, number] = [0x0003e889, 0x045565a9];

/** The start of a 28-byte request. */
export const requestMagic: number = 0x25609513;
/** The start of a 32-byte request, once extended headers were agreed on. */
export const extendedRequestMagic: number = 0x21e41c71;
/** The start of a 16-byte simple reply. */
export const simpleReplyMagic: number = 0x67446698;
/** The start of a 20-byte structured reply. */
export const structuredReplyMagic: number = 0x668e33ef;
/** The start of a 32-byte extended reply. */
export const extendedReplyMagic: number = 0x6e8a278c;

/** Bytes of a compact request: magic, flags, type, cookie, offset, length. */
export const requestHeaderLength = 28;
/** Bytes of an extended request: magic, flags, type, cookie, offset, 64-bit length. */
export const extendedRequestHeaderLength = 32;
/** Bytes of a simple reply: magic, error, cookie. */
export const simpleReplyHeaderLength = 16;
/** Bytes of a structured reply's header: magic, flags, type, cookie, length. */
export const structuredReplyHeaderLength = 20;
/** Bytes of an extended reply's header: magic, flags, type, cookie, offset, 64-bit length. */
export const extendedReplyHeaderLength = 32;
/** Bytes of an option request's header: magic, option, length. */
export const optionHeaderLength = 16;
/** Bytes of an option reply's header: magic, option, type, length. */
export const optionReplyHeaderLength = 20;

/** The longest string (export name, context name, description) the protocol allows, in bytes. */
export const maximumStringLength = 4096;
/** The payload limit that holds where no block sizes were negotiated: 32 MiB. */
export const defaultMaximumPayload: number = 32 * 1024 * 1024;

/** Flags of the server's greeting; the client answers with the same two bits. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** What a client may ask for before transmission. */
export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** How a server answers an option; those with bit 31 set are errors and may carry a message. */
export const optionReply = {
  acknowledge: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  platform: 0x8000_0004,
  tlsRequired: 0x8000_0005,
  unknown: 0x8000_0006,
  shutdown: 0x8000_0007,
  blockSizeRequired: 0x8000_0008,
  tooBig: 0x8000_0009,
  extendedHeadersRequired: 0x8000_000a,
} as const;

/** What an info reply tells. */
export const infoType = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Flags of an export, in an info reply and after EXPORT_NAME. */
export const transmissionFlag = {
  hasFlags: 0x0001,
  readOnly: 0x0002,
  sendFlush: 0x0004,
  sendFua: 0x0008,
  rotational: 0x0010,
  sendTrim: 0x0020,
  sendWriteZeroes: 0x0040,
  sendDf: 0x0080,
  canMultiConnection: 0x0100,
  sendResize: 0x0200,
  sendCache: 0x0400,
  sendFastZero: 0x0800,
  blockStatusPayload: 0x1000,
} as const;

/** What a request asks for. */
export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
  resize: 8,
} as const;

/** Flags of a request. */
export const commandFlag = {
  fua: 0x0001,
  noHole: 0x0002,
  doNotFragment: 0x0004,
  requireOne: 0x0008,
  fastZero: 0x0010,
  payloadLength: 0x0020,
} as const;

/** The flag of a structured or extended reply that is the last one of its request. */
export const replyFlagDone = 1;

/** What a structured or extended reply holds; those with bit 15 set are errors. */
export const replyType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Errors a reply may carry: the Linux numbers, on every platform. */
export const errorNumber = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Bits of a `base:allocation` extent. Only `zero` promises that a range reads as zeroes; `hole` alone promises nothing. */
export const allocationFlag = { hole: 1, zero: 2 } as const;
