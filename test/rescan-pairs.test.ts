import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunReport, openDirectoryState, replicate } from "@diskferry/core";
import { memoryBackend, serveNbd } from "@diskferry/nbd";
import { provider } from "@diskferry/provider-local";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { describeWithPeers } from "./peers.ts";
import { randomBytes } from "./seed.ts";

// Whatever a disk is read from and written to: where nothing is known of what changed, digests decide what is sent.

const MIB = 1 << 20;
const size = 4 * MIB + 3 * 512;
let folder = "";
const at = (name: string): string => join(folder, name);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-rescan-"));
  vi.stubEnv("XDG_STATE_HOME", at("remembered"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

/** A source of one disk: how it is given new content, and where it is read from. */
interface SourceShape {
  options: object;
  fill(content: Uint8Array): void;
}

async function sourceOf(kind: string, stack: AsyncDisposableStack): Promise<SourceShape> {
  if (kind === "NBD server") {
    const held = new Uint8Array(size);
    const server = stack.use(
      await serveNbd({ listen: { path: at("source.sock") }, exports: { "": { backend: memoryBackend(held) } } }),
    );
    return { options: { uri: server.uri() }, fill: (content) => held.set(content) };
  }
  const file = at(kind === "qcow2 image" ? "source.qcow2" : "source.raw");
  return {
    options: { path: file },
    fill(content) {
      writeFileSync(at("content.raw"), content);
      if (kind === "raw file") writeFileSync(file, content);
      else execFileSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", at("content.raw"), file]);
    },
  };
}

async function targetOf(kind: string, stack: AsyncDisposableStack): Promise<object> {
  const directory = at("target");
  await mkdir(directory);
  switch (kind) {
    case "raw file":
      return { path: at("target.raw") };
    case "raw directory":
      return { directory, format: "raw" };
    case "qcow2 file":
      return { path: at("target.qcow2") };
    case "qcow2 directory":
      return { directory, format: "qcow2" };
    case "qcow2 chain":
      return { directory };
    default: {
      const backend = memoryBackend(randomBytes(size, 9));
      const server = stack.use(await serveNbd({ listen: { path: at("target.sock") }, exports: { "": { backend } } }));
      return { uri: server.uri() };
    }
  }
}

const sources = ["raw file", "qcow2 image", "NBD server"];
const targets = ["raw file", "raw directory", "qcow2 file", "qcow2 directory", "qcow2 chain", "NBD server"];

describeWithPeers(["qemu-img"], "a rescan", () => {
  const pairs = sources.flatMap((from) => targets.map((to): [string, string] => [from, to]));
  test.each(pairs)("from a %s to a %s sends what differs and nothing else", async (from, to) => {
    await using stack = new AsyncDisposableStack();
    const shape = await sourceOf(from, stack);
    const options = await targetOf(to, stack);
    const content = Buffer.from(randomBytes(size, 1));

    async function run(mode: "auto" | "rescan"): Promise<RunReport> {
      shape.fill(content);
      await using store = await openDirectoryState(at("state"));
      await using source = await provider.source!({ machine: "vm", key: "disk", frozen: true, ...shape.options });
      await using target = await provider.target!(options);
      const job = { id: "job", source, machine: "vm", target, store };
      const report = await replicate({ ...job, options: { mode, leaf: 64 << 10 } });
      await using reader = await target.read!(report.disks[0]!.volume!);
      const found = Buffer.alloc(Math.ceil(size / reader.blockSize) * reader.blockSize);
      for (let offset = 0; offset < found.length; offset += MIB) {
        await reader.read(offset, found.subarray(offset, Math.min(found.length, offset + MIB)));
      }
      if (!found.subarray(0, size).equals(content)) {
        throw new Error(`it differs, first at ${content.findIndex((byte, index) => byte !== found[index])}`);
      }
      return report;
    }

    await run("auto");
    content.set(randomBytes(1024, 2), MIB - 512);
    content.fill(0, 2 * MIB, 2 * MIB + (256 << 10));
    content.set(randomBytes(512, 3), size - 512);
    const [rescanned] = (await run("rescan")).disks;
    expect(rescanned!.mode).toBe("rescan");
    expect(rescanned!.moved + rescanned!.zeroed).toBeGreaterThan(256 << 10);
    expect(rescanned!.moved + rescanned!.zeroed).toBeLessThanOrEqual((3 * 64 + 256) << 10);
    expect((await run("rescan")).disks[0]).toMatchObject({ mode: "rescan", moved: 0, zeroed: 0 });
  });
});
