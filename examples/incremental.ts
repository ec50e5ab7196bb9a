/**
 * Copies a disk in full once, and then only what changed. The disk is an NBD export whose server keeps a dirty bitmap, as
 * QEMU does; here this process serves it itself.
 *
 *   node examples/incremental.ts server.raw recovery-points/
 */
import { stat } from "node:fs/promises";
import { type Job, openDirectoryState, openSource, openTarget, replicate } from "@diskferry/core";
import { connectNbd, fileBackend, serveNbd, trackChanges } from "@diskferry/nbd";
import { provider as local } from "@diskferry/provider-local";

const [disk = "server.raw", directory = "recovery-points"] = process.argv.slice(2);
const tracking = trackChanges({ name: "backup", size: (await stat(disk)).size });
await using backend = await fileBackend(disk);
await using server = await serveNbd({
  listen: { host: "127.0.0.1", port: 0 },
  exports: { server: { backend, tracking: [tracking] } },
});
const uri = server.uri("server");

await using target = await openTarget(local, { directory, format: "qcow2-chain" });
await using store = await openDirectoryState(`${directory}/state`);
for (const round of [1, 2]) {
  // `frozen`: nobody writes while it is copied. With QEMU, snapshot the disk and the bitmap together instead.
  await using source = await openSource(local, {
    uri,
    key: "root",
    machine: "server",
    frozen: true,
    bitmap: "diskferry:changes:backup",
  });
  const job: Job = { id: "server", source, machine: "server", target, store };
  const report = await replicate(job);
  tracking.reset();
  for (const { mode, size, read, moved } of report.disks) console.log({ round, mode, size, read, moved });

  await using guest = await connectNbd(uri);
  await guest.write(1 << 20, new Uint8Array(64 << 10).fill(round));
  await guest.flush();
}
