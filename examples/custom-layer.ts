/**
 * A layer of your own around every read, write and zero: this one tells of requests that take long, and refuses to copy
 * outside of a range. Layers run inside of core's retries, once per attempt.
 *
 *   node examples/custom-layer.ts server.raw server.qcow2
 */
import { type Layer, MemoryStateStore, Metrics, openSource, openTarget, replicate } from "@diskferry/core";
import { ProviderError } from "@diskferry/core/provider";
import { provider as local } from "@diskferry/provider-local";

const [from = "server.raw", to = "server.qcow2", slowMs = "50", end = "Infinity"] = process.argv.slice(2);

const tellsSlow: Layer = async (call, run) => {
  const began = performance.now();
  try {
    await run(call);
  } finally {
    const ms = performance.now() - began;
    if (ms > Number(slowMs)) console.error(`${call.side} ${call.method} at ${call.offset}: ${ms.toFixed(0)} ms`);
  }
};

const refusesBeyond =
  (last: number): Layer =>
  (call, run) => {
    if ((call.offset ?? 0) < last) return run(call);
    // Not retryable, so the run ends at once, and says why.
    throw new ProviderError("DENIED", `nothing behind ${last} is to be touched`, { operation: call.method });
  };

await using source = await openSource(local, { path: from, key: "root", machine: "server" });
await using target = await openTarget(local, { path: to, format: "qcow2" });
const metrics = new Metrics();
const layers = [metrics.layer, tellsSlow, refusesBeyond(Number(end))];
const store = new MemoryStateStore();
await replicate({ id: "layers", source, machine: "server", target, store, options: { layers } });
for (const { side, method, calls, bytes, errors } of metrics.snapshot().calls)
  console.log({ side, method, calls, bytes, errors });
