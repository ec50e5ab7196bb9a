/**
 * Spans of a run for OpenTelemetry, from the channels that core publishes on: one span for the run, one for each disk,
 * and one for each operation that takes time. Core itself knows nothing of OpenTelemetry.
 *
 *   node examples/opentelemetry.ts server.raw server.qcow2
 */
import { tracingChannel } from "node:diagnostics_channel";
import { context, type Span, SpanStatusCode, trace, type Tracer } from "@opentelemetry/api";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { listen, MemoryStateStore, openSource, openTarget, replicate, type TraceMessages } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

/** Operations that get a span each; blocks are many, so they are counted by metrics instead (see prometheus.ts). */
const traced = [
  "diskferry:provider-call",
  "diskferry:target-flush",
  "diskferry:volume-commit",
  "diskferry:disk-verify",
  "diskferry:machine-launch",
] as const satisfies (keyof TraceMessages)[];

/** Makes spans from now on; the result stops it. */
export function traceTo(tracer: Tracer): () => void {
  const open = new Map<string, Span>();
  const begin = (
    key: string,
    name: string,
    parent: string | undefined,
    attributes: Record<string, string | number>,
  ) => {
    const above = parent === undefined ? undefined : open.get(parent);
    const within = above === undefined ? context.active() : trace.setSpan(context.active(), above);
    open.set(key, tracer.startSpan(name, { attributes }, within));
  };
  const end = (key: string, attributes: Record<string, string | number>): void => {
    const span = open.get(key)?.setAttributes(attributes);
    if (attributes["outcome"] === "failed") span?.setStatus({ code: SpanStatusCode.ERROR });
    span?.end();
    open.delete(key);
  };
  const runOf = ({ run }: { run?: string | undefined }): string => `run ${run}`;
  const diskOf = ({ run, disk }: { run?: string | undefined; disk?: string | undefined }): string => `${run}/${disk}`;
  const ends = [
    listen("diskferry:replication-start", (message) =>
      begin(runOf(message), "replicate", undefined, { job: message.job ?? "", disks: message.disks }),
    ),
    listen("diskferry:replication-end", (message) => end(runOf(message), { outcome: message.outcome })),
    listen("diskferry:transfer-start", (message) =>
      begin(diskOf(message), "transfer", runOf(message), { disk: message.disk ?? "", mode: message.mode }),
    ),
    listen("diskferry:transfer-end", (message) =>
      end(diskOf(message), { outcome: message.outcome, movedBytes: message.movedBytes }),
    ),
    listen("diskferry:fallback-take", (message) =>
      open.get(diskOf(message))?.addEvent("fallback", { from: message.from, to: message.to, reason: message.reason }),
    ),
  ];
  for (const name of traced) {
    const spans = new WeakMap<object, Span>();
    const events = {
      start(message: TraceMessages[typeof name]) {
        const parent = open.get(diskOf(message)) ?? open.get(runOf(message));
        const within = parent === undefined ? context.active() : trace.setSpan(context.active(), parent);
        const method = "method" in message ? `${message.side} ${message.method}` : name.replace("diskferry:", "");
        spans.set(message, tracer.startSpan(method, {}, within));
      },
      error(message: TraceMessages[typeof name] & { error: unknown }) {
        spans.get(message)?.recordException(message.error as Error);
        spans.get(message)?.setStatus({ code: SpanStatusCode.ERROR });
      },
      asyncEnd: (message: TraceMessages[typeof name]) => spans.get(message)?.end(),
      end() {},
      asyncStart() {},
    };
    const channel = tracingChannel<string, TraceMessages[typeof name]>(name);
    channel.subscribe(events);
    ends.push(() => channel.unsubscribe(events));
  }
  return () => ends.forEach((stop) => stop());
}

const [from = "server.raw", to = "server.qcow2"] = process.argv.slice(2);
const exporter = new InMemorySpanExporter(); // in the place of an OTLP exporter
const tracing = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
const stop = traceTo(tracing.getTracer("diskferry"));

await using source = await openSource(local, { path: from, key: "root", machine: "server" });
await using target = await openTarget(local, { path: to, format: "qcow2" });
await replicate({ id: "traced", source, machine: "server", target, store: new MemoryStateStore() });
stop();
await tracing.forceFlush();
for (const { name, attributes, parentSpanContext } of exporter.getFinishedSpans())
  console.log({ name, attributes, inside: parentSpanContext !== undefined });
