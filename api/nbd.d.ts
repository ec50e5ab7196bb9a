import { PeerCertificate } from "node:tls";
import "node:net";
import { BlockReader, BlockWriter, Wait } from "@diskferry/core/provider";
/**
 * The numbers of the NBD protocol, as in NetworkBlockDevice/nbd `doc/proto.md`. 64-bit magics are given as two 32-bit
 * halves (`[high, low]`), so that no BigInt is needed.
 */
/** The first eight bytes a server sends: `NBDMAGIC`. */
declare const greetingMagic: readonly [number, number];
/** `IHAVEOPT`: the second eight bytes of a newstyle server, and the start of every option request. */
declare const optionMagic: readonly [number, number];
/** The second eight bytes of an oldstyle server, which is refused by name. */
declare const oldstyleMagic: readonly [number, number];
/** The start of every option reply. */
declare const optionReplyMagic: readonly [number, number];
/** The start of a 28-byte request. */
declare const requestMagic: number;
/** The start of a 32-byte request, once extended headers were agreed on. */
declare const extendedRequestMagic: number;
/** The start of a 16-byte simple reply. */
declare const simpleReplyMagic: number;
/** The start of a 20-byte structured reply. */
declare const structuredReplyMagic: number;
/** The start of a 32-byte extended reply. */
declare const extendedReplyMagic: number;
/** Bytes of a compact request: magic, flags, type, cookie, offset, length. */
declare const requestHeaderLength = 28;
/** Bytes of an extended request: magic, flags, type, cookie, offset, 64-bit length. */
declare const extendedRequestHeaderLength = 32;
/** Bytes of a simple reply: magic, error, cookie. */
declare const simpleReplyHeaderLength = 16;
/** Bytes of a structured reply's header: magic, flags, type, cookie, length. */
declare const structuredReplyHeaderLength = 20;
/** Bytes of an extended reply's header: magic, flags, type, cookie, offset, 64-bit length. */
declare const extendedReplyHeaderLength = 32;
/** Bytes of an option request's header: magic, option, length. */
declare const optionHeaderLength = 16;
/** Bytes of an option reply's header: magic, option, type, length. */
declare const optionReplyHeaderLength = 20;
/** The longest string (export name, context name, description) the protocol allows, in bytes. */
declare const maximumStringLength = 4096;
/** The payload limit that holds where no block sizes were negotiated: 32 MiB. */
declare const defaultMaximumPayload: number;
/** Flags of the server's greeting; the client answers with the same two bits. */
declare const handshakeFlag: {
  readonly fixedNewstyle: 1;
  readonly noZeroes: 2;
};
/** What a client may ask for before transmission. */
declare const option: {
  readonly exportName: 1;
  readonly abort: 2;
  readonly list: 3;
  readonly startTls: 5;
  readonly info: 6;
  readonly go: 7;
  readonly structuredReply: 8;
  readonly listMetaContext: 9;
  readonly setMetaContext: 10;
  readonly extendedHeaders: 11;
};
/** How a server answers an option; those with bit 31 set are errors and may carry a message. */
declare const optionReply: {
  readonly acknowledge: 1;
  readonly server: 2;
  readonly info: 3;
  readonly metaContext: 4;
  readonly unsupported: 0x8000_0001;
  readonly policy: 0x8000_0002;
  readonly invalid: 0x8000_0003;
  readonly platform: 0x8000_0004;
  readonly tlsRequired: 0x8000_0005;
  readonly unknown: 0x8000_0006;
  readonly shutdown: 0x8000_0007;
  readonly blockSizeRequired: 0x8000_0008;
  readonly tooBig: 0x8000_0009;
  readonly extendedHeadersRequired: 0x8000_000a;
};
/** What an info reply tells. */
declare const infoType: {
  readonly export: 0;
  readonly name: 1;
  readonly description: 2;
  readonly blockSize: 3;
};
/** Flags of an export, in an info reply and after EXPORT_NAME. */
declare const transmissionFlag: {
  readonly hasFlags: 0x0001;
  readonly readOnly: 0x0002;
  readonly sendFlush: 0x0004;
  readonly sendFua: 0x0008;
  readonly rotational: 0x0010;
  readonly sendTrim: 0x0020;
  readonly sendWriteZeroes: 0x0040;
  readonly sendDf: 0x0080;
  readonly canMultiConnection: 0x0100;
  readonly sendResize: 0x0200;
  readonly sendCache: 0x0400;
  readonly sendFastZero: 0x0800;
  readonly blockStatusPayload: 0x1000;
};
/** What a request asks for. */
declare const command: {
  readonly read: 0;
  readonly write: 1;
  readonly disconnect: 2;
  readonly flush: 3;
  readonly trim: 4;
  readonly cache: 5;
  readonly writeZeroes: 6;
  readonly blockStatus: 7;
  readonly resize: 8;
};
/** Flags of a request. */
declare const commandFlag: {
  readonly fua: 0x0001;
  readonly noHole: 0x0002;
  readonly doNotFragment: 0x0004;
  readonly requireOne: 0x0008;
  readonly fastZero: 0x0010;
  readonly payloadLength: 0x0020;
};
/** The flag of a structured or extended reply that is the last one of its request. */
declare const replyFlagDone = 1;
/** What a structured or extended reply holds; those with bit 15 set are errors. */
declare const replyType: {
  readonly none: 0;
  readonly offsetData: 1;
  readonly offsetHole: 2;
  readonly blockStatus: 5;
  readonly blockStatusExtended: 6;
  readonly error: 0x8001;
  readonly errorOffset: 0x8002;
};
/** Errors a reply may carry: the Linux numbers, on every platform. */
declare const errorNumber: {
  readonly EPERM: 1;
  readonly EIO: 5;
  readonly ENOMEM: 12;
  readonly EINVAL: 22;
  readonly ENOSPC: 28;
  readonly EOVERFLOW: 75;
  readonly ENOTSUP: 95;
  readonly ESHUTDOWN: 108;
};
/** Bits of a `base:allocation` extent. Only `zero` promises that a range reads as zeroes; `hole` alone promises nothing. */
declare const allocationFlag: {
  readonly hole: 1;
  readonly zero: 2;
};
/** A PEM text, or its bytes. */
type Pem = string | Uint8Array;
/**
 * What one side of a TLS connection shows and demands. Certificates or PSK, not both. A client always verifies its
 * server: by `ca` and name, by `pin`, or by the shared key; there is no way to turn that off.
 */
interface NbdTlsOptions {
  /**
   * Who may have signed the other side's certificate. Client: absent means the certificate authorities that Node
   * trusts. Server: given means that clients must show a certificate signed by it.
   */
  readonly ca?: Pem | readonly Pem[] | undefined;
  /** Our own certificate chain. */
  readonly cert?: Pem | undefined;
  /** The private key of `cert`. */
  readonly key?: Pem | undefined;
  /**
   * Client only: the SHA-256 fingerprint of the server's certificate, 64 hex digits with or without colons. It takes
   * the place of `ca` and the server's name: that very certificate, or no connection.
   */
  readonly pin?: string | undefined;
  /** Client only: the name sent as SNI and looked for in the certificate. Default: the host of the address. */
  readonly serverName?: string | undefined;
  /** A key both sides know, and the identity it goes by. */
  readonly psk?: NbdPreSharedKey | undefined;
}
/** A pre-shared key. */
interface NbdPreSharedKey {
  /** At most 128 bytes of UTF-8. */
  readonly identity: string;
  /** The secret; at least 16 bytes. */
  readonly key: Uint8Array;
}
/** Where TLS material lies in files, as in the `tls-*` parameters of an NBD URI. */
interface NbdTlsFiles {
  /** A folder with `ca-cert.pem` and, for a client certificate, `client-cert.pem` and `client-key.pem`. */
  readonly certificates?: string | undefined;
  /** A file of lines `identity:hex`, as `psktool` writes it. */
  readonly pskFile?: string | undefined;
  /** The identity to look for in `pskFile`. Absent: its first one. */
  readonly username?: string | undefined;
  readonly serverName?: string | undefined;
}
/** The port IANA assigned to NBD. */
declare const defaultNbdPort = 10809;
/** Where an export is served. */
interface NbdAddress {
  /** Host name or address for TCP. Exactly one of `host` and `socketPath` is given. */
  readonly host?: string | undefined;
  /** Default 10809. */
  readonly port?: number | undefined;
  /** Path of a unix socket; one that begins with NUL is in the abstract namespace. */
  readonly socketPath?: string | undefined;
  /** Default: the empty name, which most servers take for their default export. */
  readonly exportName?: string | undefined;
  /** Given: TLS or no connection. Absent: no TLS. It is never left to the server. */
  readonly tls?: NbdTlsOptions | undefined;
  /** The same, with the material in files that are read when connecting. `tls` comes first. */
  readonly tlsFiles?: NbdTlsFiles | undefined;
}
/** The URI schemes of NBD, without the colon. */
declare const nbdSchemes: readonly string[];
/**
 * Parses an NBD URI (NetworkBlockDevice/nbd, `doc/uri.md`): `nbd`, `nbds`, `nbd+unix` and `nbds+unix`, with the
 * parameters `socket`, `tls-certificates`, `tls-psk-file`, `tls-username`, `tls-hostname`, `tls-type` (`x509`, `psk`)
 * and `tls-verify-peer` (`1` alone).
 * @throws ProviderError CONFIG_INVALID, never repeating more of the text than the name of a wrong parameter.
 */
declare function parseNbdUri(text: string): NbdAddress;
/** The URI that identifies an address: no key, no file of keys, no user, only what tells one export from another. */
declare function formatNbdUri(address: NbdAddress): string;
/** What the names of all meta contexts of change trackings begin with. */
declare const changesPrefix = "diskferry:changes:";
/** What {@link trackChanges} needs. */
interface ChangeTrackingOptions {
  /** The part after `diskferry:changes:` of its meta contexts: 1 to 200 characters, no white space, no colon. */
  name: string;
  /** Of the disk, in bytes. */
  size: number;
  /**
   * How finely changes are told apart, in bytes; a power of two of at least 512. Default 64 KiB, or as much more as a
   * very large disk needs to keep the bitmap within 32 MiB.
   */
  granularity?: number;
}
/** A range being written. Given to {@link ChangeTracking.end} when the write settled. */
interface TrackedWrite {
  readonly offset: number;
  readonly length: number;
}
/**
 * Records which ranges of an export were written, zeroed or trimmed. Conservative: a range is marked before the write
 * reaches the backend and stays marked when the write fails, and a write under way during `reset` is marked in the new
 * epoch too. Held in memory alone: after a restart `identity` differs, and everything counts as changed.
 *
 * Clients see two meta contexts: `diskferry:changes:<name>`, which one begun anew after a restart or a reset bears too,
 * and {@link ChangeTracking.metaContext}, which none but this one bears.
 */
declare class ChangeTracking {
  #private;
  readonly name: string;
  readonly size: number;
  readonly granularity: number;
  /** Different for every tracking ever made. A consumer that knows another identity has lost its tracking. */
  readonly identity: string;
  constructor(options: ChangeTrackingOptions);
  /** Counts resets, beginning with 1. */
  get epoch(): number;
  /**
   * The meta context of this tracking in this epoch and of no other: `diskferry:changes:<name>:<identity>:<epoch>`.
   * Whoever remembers it and does not find it any more knows that writes may have gone by unseen.
   */
  get metaContext(): string;
  /**
   * What was changed since the last reset (or the beginning) in [from, to), as it is at this moment: ascending,
   * disjoint, widened to the granularity and clipped to the disk. Later writes do not show in a listing already begun.
   */
  changes(range?: {
    from?: number;
    to?: number;
  }): Iterable<{
    offset: number;
    length: number;
  }>;
  /** The first range of equal state from `from` on, without copying the map. `from` lies within the disk. */
  runAt(from: number, to: number): {
    length: number;
    changed: boolean;
  };
  /**
   * Forgets all changes but those of writes under way, and gives the new epoch. List the changes first: both calls are
   * synchronous, so that nothing is lost in between without an `await`. Read the disk only after the reset.
   */
  reset(): number;
  /** Marks a range that is about to be changed. Every call is followed by one of `end`, whatever becomes of it. */
  begin(offset: number, length: number): TrackedWrite;
  /** Says that a write settled, well or not. */
  end(write: TrackedWrite): void;
}
/** Begins to record changes of a disk. Give it to the export in `tracking`. */
declare function trackChanges(options: ChangeTrackingOptions): ChangeTracking;
/** What a backend is given with a call that waits. */
interface BackendWait {
  /**
   * For reads: aborted when the client is gone. For everything that changes the disk: aborted only when the server is
   * closed by force, so that a fence can wait for what is under way.
   */
  signal: AbortSignal;
}
/** One range of a disk and what is known of its allocation. */
interface AllocationExtent {
  /** Bytes. */
  offset: number;
  /** Bytes. */
  length: number;
  /** Nothing is allocated there. Says nothing of what it reads as. */
  hole: boolean;
  /** It reads as zeroes. */
  zero: boolean;
}
/**
 * What an export reads from and writes to. Only `size` and `read` are needed; an absent member means that the server
 * does not offer the command. Calls overlap: a backend that cannot bear that queues them itself. A call may finish
 * at once (return nothing) or return a promise.
 *
 * A call fails by throwing or rejecting; a `code` of Node (`ENOSPC`, `EACCES`) or of a ProviderError decides which
 * error the client sees, and everything else is EIO.
 */
interface NbdBackend {
  /** Bytes. */
  readonly size: number;
  /** The unit that offsets and lengths are multiples of, in bytes; a power of two up to 64 KiB. Default 1. */
  readonly blockSize?: number;
  /** The request length served best, in bytes; a power of two of at least 512. Default: 4096. */
  readonly preferredLength?: number;
  /** True: nothing may be written although `write` exists. Without `write` an export is always read-only. */
  readonly readOnly?: boolean;
  /**
   * True where a flush covers the writes of all connections and every connection sees at once what another wrote.
   * Default: only where the export is read-only.
   */
  readonly multiConnection?: boolean;
  /** For people, shown in listings. */
  readonly description?: string;
  /** Fills all of `into`. The server owns `into` before and after the call. */
  read(offset: number, into: Uint8Array, options: BackendWait): Promise<void> | void;
  /**
   * Writes all of `data` and keeps no reference to it. `fua`: settles only when the data is durable; never true where
   * the backend has no `flush`.
   */
  write?(offset: number, data: Uint8Array, options: {
    fua: boolean;
  } & BackendWait): Promise<void> | void;
  /**
   * Makes a range read as zeroes. `noHole`: the space stays allocated. `fast`: rejects with a {@link SlowZeroError}
   * and changes nothing unless this is faster than writing. Absent: the server writes zeroes.
   */
  zero?(offset: number, length: number, options: {
    noHole: boolean;
    fast: boolean;
    fua: boolean;
  } & BackendWait): Promise<void> | void;
  /** The content of a range is not needed any more. */
  trim?(offset: number, length: number, options: {
    fua: boolean;
  } & BackendWait): Promise<void> | void;
  /** Makes every write durable that settled before the call, whichever connection it came by. */
  flush?(options: BackendWait): Promise<void> | void;
  /** A range will be read soon. */
  cache?(offset: number, length: number, options: BackendWait): Promise<void> | void;
  /** Allocation of a range, ascending; what is not listed counts as data. Absent: everything is data. */
  extents?(offset: number, length: number, options: BackendWait): AsyncIterable<AllocationExtent>;
}
/** A name that clients can open, and what stands behind it. */
interface NbdExport {
  readonly backend: NbdBackend;
  /** True: this export takes no writes, whatever the backend can. */
  readonly readOnly?: boolean;
  /** For people, shown in listings. Default: the backend's. */
  readonly description?: string;
  /** What records the ranges that clients write; each is also offered as a meta context of its own name. */
  readonly tracking?: readonly ChangeTracking[];
}
/** Thrown by `zero` with `fast`: zeroing this range is no faster than writing it. Nothing was changed. */
declare class SlowZeroError extends Error {
  readonly code: string;
  constructor();
}
/** Finds the export of a name; undefined: there is none. Called once per handshake that asks for the name. */
type FindNbdExport = (name: string) => NbdExport | undefined | Promise<NbdExport | undefined>;
/** Exports by name. The name that a client gets when it gives none is "". */
type NbdExports = Readonly<Record<string, NbdExport>> | ReadonlyMap<string, NbdExport> | FindNbdExport;
/** Who wants to open an export. */
interface NbdConnectionRequest {
  /** Without the epoch. */
  readonly exportName: string;
  /** Stated as the end of the name (`disk@7`), where the server has `epochs`. */
  readonly epoch?: number;
  /** What the client showed in the TLS handshake, verified; absent without client certificates. */
  readonly peerCertificate?: PeerCertificate;
  /** The PSK identity the client proved to hold the key of. */
  readonly pskIdentity?: string;
  /** Absent on a unix socket. */
  readonly remoteAddress?: string;
}
/** Throws, or rejects, to refuse. The message of a ProviderError is shown to the client, of any other error not. */
type NbdAuthorize = (request: NbdConnectionRequest) => void | Promise<void>;
/**
 * Whether clients state epochs, as `name@7`. `true`: those that state none are let in until the export is fenced.
 * `oldest`: the epochs that are over already, for a server that was started again.
 */
type NbdEpochs = boolean | {
  readonly oldest: ReadonlyMap<string, number>;
};
/** Options of {@link fileBackend}. */
interface FileBackendOptions {
  /** Default false. */
  readonly readOnly?: boolean;
}
/** A disk in a file or block device. Dispose it after the server was closed. */
interface FileBackend extends NbdBackend, AsyncDisposable {}
/**
 * Serves a raw file or a block device. In a file that had nothing allocated when it was opened, the parts never
 * written since are known to be holes: clients are told so, and zeroing them costs nothing. Trimming is not offered:
 * Node has no call that punches a hole.
 * @throws ProviderError NOT_FOUND, DENIED or CONFIG_INVALID naming the path.
 */
declare function fileBackend(path: string, options?: FileBackendOptions): Promise<FileBackend>;
/**
 * Where a server listens: a TCP port (0: any free one; host 127.0.0.1 unless given), a unix socket, a listening socket
 * that this process inherited under a number, or the one that a service manager hands over (LISTEN_PID, LISTEN_FDS).
 */
type NbdListen = {
  readonly host?: string;
  readonly port: number;
} | {
  readonly path: string;
} | {
  readonly descriptor: number;
} | {
  readonly activation: true;
};
/** Where a server can be reached. */
type NbdServerAddress = {
  readonly host: string;
  readonly port: number;
} | {
  readonly path: string;
};
/** A disk in memory: `size` bytes of zeroes, or the given bytes, which are used and not copied. Never durable. */
declare function memoryBackend(content: number | Uint8Array): NbdBackend;
/** The bit of a `diskferry:changes:` extent that was written, zeroed or trimmed since the last reset. */
declare const changedFlag = 1;
/**
 * The bit of a `diskferry:changes:<name>:<identity>:<epoch>` extent whose epoch is over, reset after the client chose it:
 * what changed is not known. `changedFlag` is set beside it, for whoever looks at that alone.
 */
declare const changesLostFlag = 2;
/**
 * Serves a reader of the provider contract, read-only. Calls at once stay within its `concurrency`; it stays the
 * caller's to dispose. Where its blocks are larger than NBD allows, or the disk ends within one, reads are widened.
 * @throws TypeError for a reader that only reads ascending: NBD clients read anywhere.
 */
declare function readerBackend(reader: BlockReader): NbdBackend;
/**
 * Serves a writer of the provider contract. Calls at once stay within its `concurrency`; `commit` and disposing stay
 * with the caller, after the server was closed or the epoch fenced. A writer without `read` refuses reads and caches
 * nothing; one with `zero` is trimmed by it, since that is what gives its space back.
 * @throws TypeError for a writer whose blocks are larger than NBD allows (64 KiB).
 */
declare function writerBackend(writer: BlockWriter): NbdBackend;
/** What a server shows and demands. Given at all, it is required: nothing but STARTTLS is served in the clear. */
interface NbdServerTls {
  /** The server's certificate chain, PEM. Not with `psk`. */
  readonly cert?: Pem;
  /** Its private key, PEM. */
  readonly key?: Pem;
  /** Given: a client must show a certificate signed by one of these, PEM. */
  readonly ca?: Pem | readonly Pem[];
  /** Keys that clients may prove to know, instead of certificates. */
  readonly psk?: readonly NbdPreSharedKey[];
}
/** Bounds of what clients can make a server use. All have defaults. */
interface NbdServerLimits {
  /** Connections at once; one more is closed at once. Default 64. */
  readonly connections?: number;
  /** The longest payload of one request, in bytes: 64 KiB to 1 GiB. Default 32 MiB. */
  readonly payload?: number;
  /** Requests of one connection under way at once; more wait in the socket. Default 32. */
  readonly inFlight?: number;
  /** Payload of all connections under way at once, in bytes; a connection gets a quarter at most. Default 256 MiB. */
  readonly bufferBytes?: number;
  /** From the connection to the begin of transmission, TLS included. Default 10 000. */
  readonly handshakeMs?: number;
  /**
   * For a request that began to arrive, and for answers to be taken: this long, and a second per MiB. Default 30 000.
   */
  readonly messageMs?: number;
  /** How long a client with nothing under way may be silent. Default: for ever. */
  readonly idleMs?: number;
}
/** What {@link serveNbd} needs. */
interface NbdServerOptions {
  readonly listen: NbdListen;
  readonly exports: NbdExports;
  /** Given: TLS is required. Absent: there is none. */
  readonly tls?: NbdServerTls;
  /** Who may open what. Absent: everyone may open every export. */
  readonly authorize?: NbdAuthorize;
  /**
   * Whether a name may end in an epoch: `disk@7` opens `disk` for epoch 7. Needed for `fence`. To bind an epoch to a
   * client certificate, `authorize` is given both. Default false: names are taken as they are.
   */
  readonly epochs?: NbdEpochs;
  readonly limits?: NbdServerLimits;
  /** For people who watch: connections that were refused, cut or failed, and why. */
  notice?(message: string): void;
}
/** A connection that got through its handshake. */
interface NbdServerConnection extends NbdConnectionRequest {
  /** Closes it now, whatever is under way. */
  destroy(): void;
}
/** A running server. Disposing closes it. */
interface NbdServer extends AsyncDisposable {
  readonly address: NbdServerAddress;
  /** The NBD URI of an export, for clients on this machine. */
  uri(exportName?: string): string;
  /** Who has which export open. */
  connections(): NbdServerConnection[];
  /**
   * Ends all epochs of an export before this one: connections of an older epoch, or of none, take no more requests, end
   * what is under way and are closed; new ones are refused. Resolves when no older write can reach the backend any
   * more. Repeating it is fine. @throws ProviderError FENCED when a newer epoch has begun; TypeError without `epochs`.
   */
  fence(exportName: string, epoch: number, wait?: Wait): Promise<void>;
  /**
   * Takes no more connections and requests, ends what is under way and closes; after `deadlineMs` (default 10 000), or
   * when the signal is aborted, by force. Resolves when all sockets are closed. Backends are the caller's to close.
   */
  close(options?: {
    deadlineMs?: number;
  } & Wait): Promise<void>;
}
/**
 * Serves disks over NBD: fixed newstyle, structured replies, extended headers, meta contexts, TLS.
 * @throws TypeError RangeError for options that cannot be; ProviderError when it cannot listen.
 */
declare function serveNbd(options: NbdServerOptions): Promise<NbdServer>;
/** Bytes behind `into` that a read with slack may overwrite, and before `data` that a write with headroom may. */
declare const nbdHeadroom = 32;
/** A range whose status is the same throughout, in each of the contexts asked for. */
interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  /**
   * By context name. `base:allocation`: 1 hole, 2 reads as zeroes (1 alone promises nothing);
   * `qemu:dirty-bitmap:…`: 1 dirty; `diskferry:changes:…`: 1 changed, 2 what changed is not known;
   * `qemu:allocation-depth`: 0 absent, 1 here, more in a backing file.
   */
  readonly flags: Readonly<Record<string, number>>;
}
/** The names of the errors a server may answer with. */
type NbdErrorName = keyof typeof errorNumber;
/** What a server answered to a request; the `cause` of the ProviderError that a caller sees. */
declare class NbdServerError extends Error {
  /** `EIO`, `ENOSPC` …; `E<number>` for one that the protocol does not name. */
  readonly code: string;
  /** The number on the wire. */
  readonly errno: number;
  /** Where on the export it happened, when the server said so. */
  readonly offset: number | undefined;
  constructor(errno: number, text: string, offset?: number);
}
/** How replies look once transmission began. */
type ReplyStyle = "simple" | "structured" | "extended";
/** An export that a server lists. */
interface NbdListedExport {
  readonly name: string;
  /** For people; absent where the server gives none. */
  readonly description?: string;
}
/** How a request is waited for. */
interface NbdWait {
  /**
   * Aborting rejects with the signal's reason as soon as the buffers of the call are free. What was sent may still
   * happen at the server.
   */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds the server may take, from when the request is sent; then the session is over. */
  readonly timeoutMs?: number | undefined;
}
interface NbdReadOptions extends NbdWait {
  /** Ask for the reply in one piece (DF), where the server can; elsewhere it has no effect. */
  readonly dontFragment?: boolean | undefined;
  /** The 32 bytes that follow `into` in its buffer are ours to overwrite; saves a system call per request. */
  readonly slack?: boolean | undefined;
}
interface NbdWriteOptions extends NbdWait {
  /** Resolve only once these bytes are durable. Where the server has no FUA, a flush follows. */
  readonly fua?: boolean | undefined;
  /** The 32 bytes that precede `data` in its buffer are ours to overwrite; header and data then go out as one write. */
  readonly headroom?: boolean | undefined;
}
interface NbdZeroOptions extends NbdWait {
  readonly fua?: boolean | undefined;
  /** Keep the range allocated (NO_HOLE). */
  readonly noHole?: boolean | undefined;
  /** Reject with UNSUPPORTED rather than be as slow as writing zeroes (FAST_ZERO). */
  readonly fast?: boolean | undefined;
}
interface NbdStatusOptions extends NbdWait {
  /** Which of the granted contexts to tell of. Default: all of `metaContexts`. */
  readonly contexts?: readonly string[] | undefined;
}
/** What an export can do. */
interface NbdCapabilities {
  readonly canFlush: boolean;
  readonly canFua: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  readonly canFastZero: boolean;
  readonly canDf: boolean;
  readonly canCache: boolean;
  /** A flush on one connection covers what any connection has written. */
  readonly canMultiConn: boolean;
  /** The server says that seeking costs. */
  readonly rotational: boolean;
}
/**
 * One session with one export: it never reconnects. When a connection dies, everything rejects with UNAVAILABLE
 * (retryable, on a new session) and a flush of a later session says nothing of this one's writes. An error that the
 * server merely answers (EIO, ENOSPC …) rejects its own call alone; its name is in `cause.code`.
 *
 * Offsets and lengths are multiples of `minimumBlock`, in bytes, and inside the export: else RangeError. Calls of any
 * length are split to what the server takes; calls may overlap in time, and are queued beyond `maxInFlight`.
 */
interface NbdClient extends AsyncDisposable {
  /** The URI of the export; holds no secret. */
  readonly uri: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly flags: NbdCapabilities;
  /** What offsets and lengths are multiples of; 1 where the server demands nothing. */
  readonly minimumBlock: number;
  /** The unit the server serves best. */
  readonly preferredBlock: number;
  /** The most a single request carries; longer calls are split. */
  readonly maximumPayload: number;
  /** The contexts the server granted, which may be fewer than were asked for. */
  readonly metaContexts: readonly string[];
  readonly tls: boolean;
  /** How replies are framed: `extended` headers allow requests beyond 4 GiB. */
  readonly replies: "simple" | "structured" | "extended";
  /** How many connections requests are spread over. */
  readonly connections: number;
  /** False once a connection died: what the server did with the writes it had answered on it is not known. */
  readonly alive: boolean;
  /** What the server says of the export, for people. */
  readonly description: string | undefined;
  /**
   * Fills all of `into`, or rejects. On a plain socket the kernel writes straight into it; it is the caller's again
   * when the call settles, and not before. It may be shared memory.
   */
  read(offset: number, into: Uint8Array, options?: NbdReadOptions): Promise<void>;
  /** Resolves when the server has the bytes; no reference to `data` is kept then. */
  write(offset: number, data: Uint8Array, options?: NbdWriteOptions): Promise<void>;
  /** Makes a range read as zeroes. @throws ProviderError UNSUPPORTED where the server cannot. */
  zero(offset: number, length: number, options?: NbdZeroOptions): Promise<void>;
  /** Gives a range up; what it reads as afterwards is unknown. @throws ProviderError UNSUPPORTED */
  trim(offset: number, length: number, options?: NbdWait & {
    fua?: boolean | undefined;
  }): Promise<void>;
  /**
   * Makes durable every write of this session that settled before the call.
   * @throws ProviderError UNSUPPORTED where the server cannot promise it.
   */
  flush(options?: NbdWait): Promise<void>;
  /** Hints that a range will be read. @throws ProviderError UNSUPPORTED */
  cache(offset: number, length: number, options?: NbdWait): Promise<void>;
  /**
   * The status of a range: ascending, contiguous extents that cover exactly `[offset, offset + length)`.
   * @throws ProviderError UNSUPPORTED when a context was not granted.
   */
  blockStatus(offset: number, length: number, options?: NbdStatusOptions): AsyncIterable<NbdExtent>;
  /** Lets calls under way finish for a short while, disconnects cleanly. Idempotent; never rejects. */
  close(): Promise<void>;
}
/** How a server is reached. */
interface NbdReachOptions {
  /** TLS or no connection; takes the place of what the address says of TLS. */
  readonly tls?: NbdTlsOptions | undefined;
  /** Milliseconds for everything until the export is open: name, connection, TLS, negotiation. Default 30 000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Aborting ends the attempt; afterwards the signal has no meaning for the client. */
  readonly signal?: AbortSignal | undefined;
}
interface NbdConnectOptions extends NbdReachOptions {
  /** Takes the place of the address's export name. */
  readonly exportName?: string | undefined;
  /**
   * Metadata contexts to ask for: `base:allocation`, `qemu:allocation-depth`, `qemu:dirty-bitmap:NAME`, or all of a
   * kind by a final `*`: `qemu:dirty-bitmap:*`, `diskferry:changes:NAME:*`. What was granted is in `metaContexts`.
   */
  readonly metaContexts?: readonly string[] | undefined;
  /** Milliseconds the server may take for one request, from when it is sent. Default 120 000. */
  readonly requestTimeoutMs?: number | undefined;
  /** How many requests are under way at once on each connection, 1 to 1024. Default 16: qemu-nbd and nbdkit work on no more. */
  readonly maxInFlight?: number | undefined;
  /** How many connections to spread requests over, 1 to 64, where the server says that it is safe. Default 1. */
  readonly connections?: number | undefined;
  /** Use `connections` on a read-only export too that does not say so. The caller knows that its bytes stand still. */
  readonly forceConnections?: boolean | undefined;
  /** The richest framing to ask for. Default `extended`; servers that lack it fall back by themselves. */
  readonly replies?: ReplyStyle | undefined;
}
/**
 * Opens an export, given by URI or address, and resolves when it is ready.
 * @throws ProviderError CONFIG_INVALID, AUTH (TLS), DENIED, NOT_FOUND (no such export), UNSUPPORTED (no NBD server,
 * oldstyle), UNAVAILABLE (cannot connect, closed, deadline), UNEXPECTED (garbage)
 */
declare function connectNbd(where: string | NbdAddress, options?: NbdConnectOptions): Promise<NbdClient>;
/**
 * What a server lists. Names that it hides may still exist.
 * @throws ProviderError as `connectNbd`; DENIED where the server does not list
 */
declare function listNbdExports(where: string | NbdAddress, options?: NbdReachOptions): Promise<NbdListedExport[]>;
/**
 * Takes one of the places that a server has for clients, without choosing an export, until it is disposed. Tells how many
 * clients a server takes, at far less cost to it than as many sessions.
 * @throws ProviderError as `connectNbd` does before TLS; UNAVAILABLE where the server lets clients wait
 */
declare function holdNbdPlace(where: string | NbdAddress, options?: Omit<NbdReachOptions, "tls">): Promise<AsyncDisposable>;
export { type AllocationExtent, type BackendWait, ChangeTracking, type ChangeTrackingOptions, type FileBackend, type FileBackendOptions, type FindNbdExport, type NbdAddress, type NbdAuthorize, type NbdBackend, type NbdCapabilities, type NbdClient, type NbdConnectOptions, type NbdConnectionRequest, type NbdEpochs, type NbdErrorName, type NbdExport, type NbdExports, type NbdExtent, type NbdListedExport, type NbdListen, type NbdPreSharedKey, type NbdReachOptions, type NbdReadOptions, type NbdServer, type NbdServerAddress, type NbdServerConnection, NbdServerError, type NbdServerLimits, type NbdServerOptions, type NbdServerTls, type NbdStatusOptions, type NbdTlsFiles, type NbdTlsOptions, type NbdWait, type NbdWriteOptions, type NbdZeroOptions, type Pem, type ReplyStyle, SlowZeroError, type TrackedWrite, allocationFlag, changedFlag, changesLostFlag, changesPrefix, command, commandFlag, connectNbd, defaultMaximumPayload, defaultNbdPort, errorNumber, extendedReplyHeaderLength, extendedReplyMagic, extendedRequestHeaderLength, extendedRequestMagic, fileBackend, formatNbdUri, greetingMagic, handshakeFlag, holdNbdPlace, infoType, listNbdExports, maximumStringLength, memoryBackend, nbdHeadroom, nbdSchemes, oldstyleMagic, option, optionHeaderLength, optionMagic, optionReply, optionReplyHeaderLength, optionReplyMagic, parseNbdUri, readerBackend, replyFlagDone, replyType, requestHeaderLength, requestMagic, serveNbd, simpleReplyHeaderLength, simpleReplyMagic, structuredReplyHeaderLength, structuredReplyMagic, trackChanges, transmissionFlag, writerBackend };