export * from "./provider/index.ts";
export type { MemoryCall, MemoryHook, MemoryTraffic } from "./memory/memory-gate.ts";
export type { MemoryMachine, TrackingFault } from "./memory/memory-guest.ts";
export type { MemoryReaderOptions } from "./memory/memory-reader.ts";
export type { MemorySourceOptions } from "./memory/memory-source.ts";
export type { MemoryTargetOptions } from "./memory/memory-target.ts";
export type { MemoryTrackerOptions } from "./memory/memory-tracker.ts";
export type { MemoryWriterOptions } from "./memory/memory-writer.ts";
export * from "./memory/memory-place.ts";
export { replicate, type RunOptions, type RunReport } from "./engine/replicate.ts";
export type * from "./engine/job.ts";
export { blockStream, BlockStream, type BlockStreamOptions, type StreamBlock } from "./engine/block-stream.ts";
export { Limits } from "./engine/limits.ts";
export {
  beginRun,
  transfer,
  transferSlice,
  type RunTicket,
  type SliceOptions,
  type SliceReport,
  type TransferOptions,
} from "./engine/transfer.ts";
export { verify, type DiskVerification, type VerificationReport, type VerifyOptions } from "./engine/verify.ts";
export { audit, type AuditOptions, type AuditReport, type DiskAudit } from "./engine/audit.ts";
export { launch, terminate, type LaunchOptions } from "./engine/launch.ts";
export { cutover, finalizeCutover, revertCutover, type CutoverOptions, type CutoverReport } from "./engine/cutover.ts";
export { plan, type DiskPlan, type Plan } from "./engine/plan.ts";
export { status, type JobStatus } from "./engine/status.ts";
export { cleanup, type CleanupOptions, type CleanupReport } from "./engine/cleanup.ts";
export type { CanaryReport } from "./engine/canary.ts";
export type { DiskReport } from "./engine/disk-run.ts";
export type { LoadCounter, LoadSummary } from "./engine/load-watch.ts";
export type { AttemptPolicy } from "./engine/attempts.ts";
export type { CutoverState } from "./engine/job-state.ts";
export { MemoryStateStore } from "./state/memory-state-store.ts";
export { openDirectoryState, type DirectoryStateOptions } from "./state/directory-state-store.ts";
export type { Lease, StateRecord, StateStore } from "./state/state-store.ts";
export {
  issueReceipt,
  verifyReceipt,
  type Receipt,
  type ReceiptFacts,
  type ReceiptVerdict,
  type VerifyReceiptOptions,
} from "./receipt/receipt.ts";
export type { DiskProgress, ProgressReport } from "./telemetry/progress.ts";
export { Registry, openSource, openTarget, type ResolvedUri } from "./registry/registry.ts";
export { loadProvider, type LoadOptions } from "./registry/load-provider.ts";
export { discoverProviders, type DiscoveredProvider } from "./registry/discover-providers.ts";
export { knownProviders, type KnownProvider } from "./registry/known-providers.ts";
export { configProblems, formatPath, validateConfig, type ConfigProblem } from "./registry/config.ts";
export { expandEnvironment } from "./registry/environment.ts";
export { isSecretName, redactUri } from "./registry/secrets.ts";
export { parseUri, type DiskUri } from "./registry/uri.ts";
export { supportedSpecs } from "./registry/specs.ts";
export { BackupWindow } from "./layers/window.ts";
export { WindowGate } from "./layers/window-gate.ts";
export type { Gate } from "./layers/gate.ts";
export { keyParts, stateKey } from "./state/state-key.ts";
export { preferredAlgorithm } from "./manifest/digest.ts";
export { compose, type Call, type CallMethod, type Layer } from "./layers/layer.ts";
export { Metrics, type MetricsSnapshot } from "./layers/metrics.ts";
export { faults, type FaultRule } from "./layers/faults.ts";
export { verifyWrites } from "./layers/verify.ts";
export { listen, type ChannelMessages, type TraceMessages } from "./telemetry/channels.ts";
