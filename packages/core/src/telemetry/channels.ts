import { channel, subscribe, tracingChannel, unsubscribe } from "node:diagnostics_channel";
import type { Channel, TracingChannel } from "node:diagnostics_channel";
import type { ProviderErrorCode } from "../provider/error.ts";
import type { Consistency, SourceLoad } from "../provider/source.ts";
import type { Call, CallMethod, Layer } from "../layers/layer.ts";
import type { ProgressReport } from "./progress.ts";
import type { RunMetrics } from "./run-metrics.ts";

/** Which run, and which disk of it, a message is about. */
export interface RunScope {
  job?: string | undefined;
  run?: string | undefined;
  machine?: string | undefined;
  disk?: string | undefined;
}

/** Messages of single moments, by channel name. */
export interface ChannelMessages {
  "diskferry:replication-start": RunScope & { disks: number };
  "diskferry:replication-end": RunScope & { outcome: "done" | "paused" | "failed"; metrics?: RunMetrics | undefined };
  "diskferry:transfer-start": RunScope & { mode: string; reason?: string | undefined; totalBytes: number };
  "diskferry:transfer-end": RunScope & { outcome: "done" | "paused" | "failed"; movedBytes: number };
  /** A run resumes one that ended early. */
  "diskferry:transfer-resume": RunScope & { doneBytes: number; totalBytes: number };
  "diskferry:snapshot-take": RunScope & { snapshot: string; consistency: Consistency; takenAt: string };
  "diskferry:snapshot-release": RunScope & { snapshot: string };
  /** A policy applied because something better was not possible; no fallback is silent. */
  "diskferry:fallback-take": RunScope & { from: string; to: string; reason: string };
  "diskferry:journal-write": RunScope & { durableBytes: number };
  "diskferry:record-write": RunScope & { root?: string | undefined };
  /** An attempt failed and another follows. */
  "diskferry:call-retry": CallMessage & { code: ProviderErrorCode; message: string; delayMs: number };
  /** A pause or backup window opened or closed. */
  "diskferry:gate-change": RunScope & { phase: "paused" | "waiting"; open: boolean };
  /** How busy the source's host is while a run copies from it. */
  "diskferry:load-report": RunScope & SourceLoad;
  "diskferry:progress-report": ProgressReport;
}

/** One attempt of a call. */
export interface CallMessage extends RunScope {
  side: Call["side"];
  method: CallMethod;
  offset?: number | undefined;
  length?: number | undefined;
  attempt: number;
}

/**
 * Operations that take time, by name: each is a tracing channel of Node (`tracing:diskferry:block-read:start`,
 * `:end`, `:asyncStart`, `:asyncEnd`, `:error`) whose message is shared by all of its events.
 */
export interface TraceMessages {
  "diskferry:block-read": CallMessage;
  "diskferry:block-write": CallMessage;
  "diskferry:block-zero": CallMessage;
  "diskferry:block-digest": CallMessage;
  "diskferry:target-flush": CallMessage;
  "diskferry:volume-commit": CallMessage;
  /** Every other method of a call. */
  "diskferry:provider-call": CallMessage;
  "diskferry:disk-verify": RunScope;
  "diskferry:machine-launch": RunScope & { purpose: "test" | "cutover" };
}

const channels = new Map<string, Channel>();
const tracings = new Map<string, TracingChannel<string, object>>();

/** Whether anybody listens to a channel; ask before making a message is work. */
export function hasListeners(name: keyof ChannelMessages): boolean {
  return channelOf(name).hasSubscribers;
}

/** Publishes a message; `make` is called only where somebody listens. */
export function publish<Name extends keyof ChannelMessages>(name: Name, make: () => ChannelMessages[Name]): void {
  const found = channelOf(name);
  if (found.hasSubscribers) found.publish(make());
}

/** Listens to a channel; the result ends it. */
export function listen<Name extends keyof ChannelMessages>(
  name: Name,
  listener: (message: ChannelMessages[Name]) => void,
): () => void {
  // Only `publish` above writes to channels of these names.
  const subscriber = (message: unknown): void => listener(message as ChannelMessages[Name]);
  subscribe(name, subscriber);
  return () => void unsubscribe(name, subscriber);
}

/** Runs an operation inside its tracing channel, or plainly where nobody listens. */
export function trace<Name extends keyof TraceMessages, Result>(
  name: Name,
  make: () => TraceMessages[Name],
  operation: () => Promise<Result>,
): Promise<Result> {
  const found = tracingOf(name);
  return found.hasSubscribers ? found.tracePromise(operation, make()) : operation();
}

const traceOf: Partial<Record<CallMethod, keyof TraceMessages>> = {
  read: "diskferry:block-read",
  write: "diskferry:block-write",
  zero: "diskferry:block-zero",
  digests: "diskferry:block-digest",
  flush: "diskferry:target-flush",
  commit: "diskferry:volume-commit",
};

/** A layer that shows every attempt of a call on its tracing channel. */
export function traceCalls(scope: RunScope = {}): Layer {
  return (call, run) => {
    const found = tracingOf(traceOf[call.method] ?? "diskferry:provider-call");
    return found.hasSubscribers ? found.tracePromise(() => run(call), callMessage(call, scope)) : run(call);
  };
}

/** What messages say of a call. */
export function callMessage(call: Call, scope: RunScope = {}): CallMessage {
  const { side, method, offset, length, attempt } = call;
  return { ...scope, disk: call.disk ?? scope.disk, side, method, offset, length, attempt };
}

function channelOf(name: string): Channel {
  let found = channels.get(name);
  if (found === undefined) channels.set(name, (found = channel(name)));
  return found;
}

function tracingOf(name: string): TracingChannel<string, object> {
  let found = tracings.get(name);
  if (found === undefined) tracings.set(name, (found = tracingChannel<string, object>(name)));
  return found;
}
