/**
 * Copies one disk by workers that live for seconds, as serverless functions do: a coordinator begins the run and hands out
 * slices, each worker copies as much of its slice as it has time for, and the coordinator verifies, commits and records.
 * A worker that dies costs what it had not flushed.
 *
 *   node examples/slices.ts server.raw copies/
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import {
  beginRun,
  type Job,
  openDirectoryState,
  openSource,
  openTarget,
  replicate,
  type RunTicket,
  transferSlice,
} from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

interface Slice {
  ticket: RunTicket;
  disk: string;
  range: { offset: number; length: number };
}

/** Every worker opens both ends and the shared state itself. */
async function withJob<Result>(act: (job: Job) => Promise<Result>): Promise<Result> {
  const [from = "server.raw", directory = "copies"] = process.argv.slice(2);
  await using source = await openSource(local, { path: from, key: "root", machine: "server", frozen: true });
  await using target = await openTarget(local, { directory, format: "raw" });
  await using store = await openDirectoryState(`${directory}/state`);
  return await act({ id: "sliced", source, machine: "server", target, store, options: { workers: 0 } });
}

if (process.send !== undefined) {
  const [slice] = (await once(process, "message")) as [Slice];
  const { ticket, disk, range } = slice;
  // Ends at a durable point in time; the next worker goes on there.
  const { status } = await withJob((job) => transferSlice(job, ticket, { disk, range, deadlineMs: 5000 }));
  process.send(status);
  process.disconnect();
} else {
  const ticket = await withJob((job) => beginRun(job));
  const waiting: Slice[] = ticket.disks.flatMap(({ disk, size, leaf }) => {
    const length = Math.ceil(size / 4 / leaf) * leaf;
    const starts = Array.from({ length: Math.ceil(size / length) }, (_, index) => index * length);
    return starts.map((offset) => ({ ticket, disk, range: { offset, length: Math.min(length, size - offset) } }));
  });
  let workers = 0;
  // A qcow2 image is written by one process at a time; into raw files, devices, NBD exports and EBS they may run side by side.
  for (let slice = waiting.shift(); slice !== undefined; slice = waiting.shift()) {
    const worker = fork(import.meta.filename, process.argv.slice(2));
    workers++;
    worker.send(slice);
    const [status] = (await Promise.race([once(worker, "message"), once(worker, "exit")])) as [unknown];
    if (status === "paused") waiting.unshift(slice);
    else if (status !== "done") throw new Error(`a worker ended with ${String(status)}; run this again to go on`);
    if (worker.exitCode === null) await once(worker, "exit");
  }
  const report = await withJob((job) => replicate(job));
  for (const { disk, size, settled, verifiedBytes } of report.disks)
    console.log({ workers, disk, size, settled, verifiedBytes });
}
