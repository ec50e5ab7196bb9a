/**
 * Copies a disk in full once, and then only what changed. The disk is an NBD export whose server keeps dirty bitmaps, as
 * QEMU does; here this process serves it itself. Two take turns: one is begun anew at the moment that a run copies, and
 * the other tells that run what changed since the one before.
 *
 *   node examples/incremental.ts server.raw recovery-points/
 */
import { stat } from "node:fs/promises";
import { type Job, openDirectoryState, openSource, openTarget, replicate } from "@diskferry/core";
import { connectNbd, fileBackend, serveNbd, trackChanges } from "@diskferry/nbd";
import { provider as local } from "@diskferry/provider-local";

const [disk = "server.raw", directory = "recovery-points"] = process.argv.slice(2);
const { size } = await stat(disk);
const odd = trackChanges({ name: "odd", size });
const even = trackChanges({ name: "even", size });
await using backend = await fileBackend(disk);
await using server = await serveNbd({
  listen: { host: "127.0.0.1", port: 0 },
  exports: { server: { backend, tracking: [odd, even] } },
});
const uri = server.uri("server");

await using target = await openTarget(local, { directory, format: "qcow2-chain" });
await using store = await openDirectoryState(`${directory}/state`);
for (const [index, tracking] of [odd, even, odd].entries()) {
  const round = index + 1;
  tracking.reset();
  // `frozen`: nobody writes while it is copied. With QEMU, snapshot the disk and the bitmap together instead.
  await using source = await openSource(local, {
    uri,
    key: "root",
    machine: "server",
    frozen: true,
    bitmap: `diskferry:changes:${tracking.name}`,
  });
  const job: Job = { id: "server", source, machine: "server", target, store };
  const report = await replicate(job);
  for (const { mode, read, moved } of report.disks) console.log({ round, mode, size, read, moved });

  await using guest = await connectNbd(uri);
  await guest.write(1 << 20, new Uint8Array(64 << 10).fill(round));
  await guest.flush();
}
