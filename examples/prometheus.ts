/**
 * Metrics of all runs of a process for Prometheus, from the channels that core publishes on; scraped at /metrics.
 *
 *   node examples/prometheus.ts server.raw server.qcow2
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Counter, Gauge, Registry } from "prom-client";
import { listen, MemoryStateStore, openSource, openTarget, replicate } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

/** Counts runs from now on; the result stops it. */
export function countIn(register: Registry): () => void {
  const registers = [register];
  const runs = new Counter({
    name: "diskferry_runs_total",
    help: "Runs that ended",
    labelNames: ["job", "outcome"],
    registers,
  });
  const moved = new Counter({
    name: "diskferry_moved_bytes_total",
    help: "Bytes sent",
    labelNames: ["job", "disk"],
    registers,
  });
  const retries = new Counter({
    name: "diskferry_retries_total",
    help: "Attempts that failed",
    labelNames: ["side", "code"],
    registers,
  });
  const fallbacks = new Counter({
    name: "diskferry_fallbacks_total",
    help: "Not done as asked",
    labelNames: ["job", "to"],
    registers,
  });
  const lag = new Gauge({
    name: "diskferry_lag_seconds",
    help: "Age of the oldest change that the last run brought over",
    labelNames: ["job"],
    registers,
  });
  const done = new Gauge({
    name: "diskferry_progress_ratio",
    help: "Share of the run under way",
    labelNames: ["job"],
    registers,
  });
  const ends = [
    listen("diskferry:transfer-end", ({ job = "", disk = "", movedBytes }) => moved.inc({ job, disk }, movedBytes)),
    listen("diskferry:replication-end", ({ job = "", outcome, metrics }) => {
      runs.inc({ job, outcome });
      if (metrics?.lag.mostMs !== undefined) lag.set({ job }, metrics.lag.mostMs / 1000);
    }),
    listen("diskferry:call-retry", ({ side, code }) => retries.inc({ side, code })),
    listen("diskferry:fallback-take", ({ job = "", to }) => fallbacks.inc({ job, to })),
    listen("diskferry:progress-report", ({ job = "", doneBytes, totalBytes }) =>
      done.set({ job }, totalBytes === 0 ? 1 : doneBytes / totalBytes),
    ),
  ];
  return () => ends.forEach((stop) => stop());
}

const [from = "server.raw", to = "server.qcow2"] = process.argv.slice(2);
const register = new Registry();
countIn(register);
const server = createServer((_request, response) => {
  register.metrics().then(
    (text) => response.setHeader("content-type", register.contentType).end(text),
    (error: unknown) => response.writeHead(500).end(String(error)),
  );
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`;

await using source = await openSource(local, { path: from, key: "root", machine: "server" });
await using target = await openTarget(local, { path: to, format: "qcow2" });
const store = new MemoryStateStore();
for (let round = 0; round < 2; round++) await replicate({ id: "server", source, machine: "server", target, store });
console.log(await (await fetch(address)).text());
server.close();
