/**
 * Streams the changed blocks of a disk into a tool of your own, without any target: here into a file of compressed
 * pieces, each with its place on the disk. `next()` calls under way are the concurrency and the memory bound.
 *
 *   node examples/changed-blocks.ts server.raw pieces.bin
 */
import { open } from "node:fs/promises";
import { promisify } from "node:util";
import { zstdCompress } from "node:zlib";
import { blockStream, openSource } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

const [from = "server.raw", to = "pieces.bin"] = process.argv.slice(2);
await using source = await openSource(local, { path: from, key: "root", machine: "server" });
const snapshot = await source.snapshot(await source.machine("server"), { key: "changed-blocks" });
const disk = snapshot.disks[0]!;
await using reader = await source.open(disk);
// Without a tracker: one tile, `changed`, over the whole disk. With `since: checkpoint` only what changed since then.
const tiles = source.tracker!.changes(disk);
const blocks = blockStream(reader, tiles, { blockLength: 1 << 20, blocks: 8 });

await using out = await open(to, "w");
const compress = promisify(zstdCompress);
const counts = { blocks: 0, bytes: 0, zeroBytes: 0, written: 0 };
let turn: Promise<unknown> = Promise.resolve();

async function worker(): Promise<void> {
  for await (using block of blocks) {
    const { offset, length, data } = block;
    if (data === null) {
      counts.zeroBytes += length;
      continue;
    }
    // The block is ours until it is disposed, at the end of this turn of the loop.
    const packed = await compress(data);
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(BigInt(offset));
    header.writeUInt32BE(length, 8);
    header.writeUInt32BE(packed.byteLength, 12);
    counts.blocks++;
    counts.bytes += length;
    counts.written += header.byteLength + packed.byteLength;
    turn = turn.then(() => out.writev([header, packed]));
    await turn;
  }
}
await Promise.all([worker(), worker(), worker(), worker()]);
await source.release(snapshot);
console.log(counts);
