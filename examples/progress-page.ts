/**
 * Shows a copy's progress on a web page, by server-sent events. The page may be opened, closed and opened again; the copy
 * does not wait for it.
 *
 *   node examples/progress-page.ts server.raw server.qcow2
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { MemoryStateStore, openSource, openTarget, type ProgressReport, replicate } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

const page = `<!doctype html><title>diskferry</title><h1>Copying</h1><progress id="bar" max="1" value="0"></progress>
<p id="text"></p><script>
new EventSource("/events").onmessage = ({ data }) => {
  const { phase, doneBytes, totalBytes, mibPerSecond } = JSON.parse(data);
  bar.value = totalBytes === 0 ? 0 : doneBytes / totalBytes;
  text.textContent = phase + ", " + mibPerSecond.toFixed(0) + " MiB/s";
};
</script>`;

const [from = "server.raw", to = "server.qcow2"] = process.argv.slice(2);
const watchers = new Set<ServerResponse>();
let last: ProgressReport | undefined;
const send = (watcher: ServerResponse, report: ProgressReport): boolean =>
  // A watcher that does not read is not written to: its next event tells everything that it missed.
  watcher.writableNeedDrain || watcher.write(`data: ${JSON.stringify(report)}\n\n`);

const server = createServer((request, response) => {
  if (request.url !== "/events") return void response.setHeader("content-type", "text/html").end(page);
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.flushHeaders();
  if (last !== undefined) send(response, last);
  watchers.add(response);
  response.on("close", () => watchers.delete(response));
});
// For this machine alone; put your own proxy with your own log-in before it.
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);

await using source = await openSource(local, { path: from, key: "root", machine: "server" });
await using target = await openTarget(local, { path: to, format: "qcow2" });
await replicate(
  { id: "progress", source, machine: "server", target, store: new MemoryStateStore() },
  {
    onProgress(report) {
      last = report;
      for (const watcher of watchers) send(watcher, report);
    },
  },
);
// Whoever opens the page within the next seconds still sees how it ended.
setTimeout(() => server.close().closeAllConnections(), Number(process.env["LINGER_MS"] ?? 5000));
