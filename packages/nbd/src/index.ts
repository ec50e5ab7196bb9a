export * from "./protocol.ts";
export type { NbdPreSharedKey, NbdTlsFiles, NbdTlsOptions, Pem } from "./tls.ts";
export { defaultNbdPort, formatNbdUri, nbdSchemes, parseNbdUri } from "./uri.ts";
export type { NbdAddress } from "./uri.ts";
export { SlowZeroError } from "./server/backend.ts";
export type { AllocationExtent, BackendWait, NbdBackend, NbdExport } from "./server/backend.ts";
export { ChangeTracking, changesPrefix, trackChanges } from "./server/change-tracking.ts";
export type { ChangeTrackingOptions, TrackedWrite } from "./server/change-tracking.ts";
export type { NbdAuthorize, FindNbdExport, NbdConnectionRequest, NbdEpochs, NbdExports } from "./server/exports.ts";
export { fileBackend } from "./server/file-backend.ts";
export type { FileBackend, FileBackendOptions } from "./server/file-backend.ts";
export type { NbdListen, NbdServerAddress } from "./server/listen.ts";
export { memoryBackend } from "./server/memory-backend.ts";
export { changedFlag, changesLostFlag } from "./server/meta-contexts.ts";
export { readerBackend, writerBackend } from "./server/provider-backend.ts";
export { serveNbd } from "./server/serve-nbd.ts";
export type { NbdServer, NbdServerConnection, NbdServerLimits, NbdServerOptions } from "./server/serve-nbd.ts";
export type { NbdServerTls } from "./server/tls.ts";
export type { NbdExtent } from "./client/block-status.ts";
export type {
  NbdCapabilities,
  NbdClient,
  NbdReadOptions,
  NbdStatusOptions,
  NbdWait,
  NbdWriteOptions,
  NbdZeroOptions,
} from "./client/client.ts";
export { connectNbd, holdNbdPlace, listNbdExports } from "./client/connect.ts";
export type { NbdConnectOptions, NbdReachOptions } from "./client/connect.ts";
export { NbdServerError } from "./client/errors.ts";
export type { NbdErrorName } from "./client/errors.ts";
export type { NbdListedExport, ReplyStyle } from "./client/handshake.ts";
export { nbdHeadroom } from "./client/request.ts";
