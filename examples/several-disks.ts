/**
 * Copies a machine of several disks: one snapshot over all of them, copied in parallel, and one record, so that a restore
 * never mixes two moments.
 *
 *   node examples/several-disks.ts copies/ root.raw data.raw
 */
import { openDirectoryState, openSource, openTarget, replicate } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

const [directory = "copies", ...paths] = process.argv.slice(2);
// `frozen` states that the machine is off: only then are files on their own one point in time.
const disks = paths.map((path, index) => ({ key: `disk${index}`, path, boot: index === 0, frozen: true }));
await using source = await openSource(local, { machine: "server", disks });
await using target = await openTarget(local, { directory, format: "raw" });
await using store = await openDirectoryState(`${directory}/state`);

const report = await replicate(
  { id: "server", source, machine: "server", target, store, options: { parallelDisks: 2, consistency: "crash" } },
  { onProgress: ({ phase, doneBytes, totalBytes }) => console.error(phase, doneBytes, "of", totalBytes) },
);
console.log(
  report.snapshot.consistency,
  report.disks.map(({ disk, moved, volume }) => ({ disk, moved, volume: volume?.id })),
);
