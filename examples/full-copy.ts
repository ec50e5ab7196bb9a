/**
 * Copies a disk in full: a raw file, block device or qcow2 image into a qcow2 image, every written block read back.
 *
 *   node examples/full-copy.ts server.raw server.qcow2
 */
import { MemoryStateStore, openSource, openTarget, replicate } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

const [from = "server.raw", to = "server.qcow2"] = process.argv.slice(2);
await using source = await openSource(local, { path: from, key: "root", machine: "server" });
await using target = await openTarget(local, { path: to, format: "qcow2" });

// A state directory in the place of this one lets a killed copy go on where it was durable.
const store = new MemoryStateStore();
const report = await replicate({ id: "full-copy", source, machine: "server", target, store });
for (const { disk, size, read, moved, verifiedBytes, root } of report.disks)
  console.log({ disk, size, read, moved, verifiedBytes, root });
