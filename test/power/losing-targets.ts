import { closeSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BlockWriter, TargetProvider, Volume } from "@diskferry/core/provider";
import { memoryPlace } from "@diskferry/core";
import { type NbdBackend, type NbdServer, memoryBackend, serveNbd } from "@diskferry/nbd";
import { provider } from "@diskferry/provider-local";
import { LossyFiles } from "../../packages/provider-local/test/qcow2/lossy-files.ts";
import { lossyQcow2Bytes, lossyQcow2Target } from "../../packages/provider-local/test/qcow2/lossy-target.ts";
import { replaced } from "../replaced.ts";
import { Power, powered } from "./power.ts";
import { Unflushed } from "./unflushed.ts";

/** A target whose power can be cut, with all that was written and not flushed at stake. */
export interface LosingTarget extends AsyncDisposable {
  readonly power: Power;
  /** A connection to the target as it is now. */
  open(): Promise<TargetProvider>;
  /** The power goes and comes back; without `random` only those who wrote are gone, and nothing is lost. */
  lose(random: (() => number) | undefined): Promise<void>;
  /** What a volume holds now. */
  bytes(volume: Volume, length: number): Promise<Uint8Array>;
}

export type MakeTarget = (size: number) => Promise<LosingTarget>;

/** Every kind of target that is put to the test, by name. */
export const losingTargets: Record<string, MakeTarget> = {
  "memory in place": () => memoryTarget("in-place"),
  "memory versions": () => memoryTarget("versioned"),
  raw: rawTarget,
  qcow2: qcow2Target,
  nbd: nbdTarget,
};

async function memoryTarget(style: "in-place" | "versioned"): Promise<LosingTarget> {
  const place = memoryPlace({ target: { style, removal: "merge" } });
  const power = new Power();
  return {
    power,
    open: () => Promise.resolve(powered(place.target, power, () => {})),
    async lose(random) {
      await power.restore();
      if (random !== undefined) place.crash({ seed: Math.floor(random() * 1e9), writers: "dead" });
    },
    bytes: (volume, length) => Promise.resolve(place.volumeBytes(volume.id, 0, length)),
    async [Symbol.asyncDispose]() {},
  };
}

/** A file of this machine, written by the provider itself; the loss is done to the file. */
async function rawTarget(size: number): Promise<LosingTarget> {
  const folder = await mkdtemp(join(tmpdir(), "diskferry-power-"));
  const path = join(folder, "target.raw");
  const fd = openSync(path, "w+");
  ftruncateSync(fd, size);
  const unflushed = new Unflushed({
    read(offset, length) {
      const bytes = new Uint8Array(length);
      readSync(fd, bytes, 0, length, offset);
      return bytes;
    },
    write: (offset, bytes) => void writeSync(fd, bytes, 0, bytes.length, offset),
  });
  const power = new Power();
  let writers: BlockWriter[] = [];
  const target = await provider.target!({ path });
  const losing = replaced<TargetProvider>(target, {
    open: async (volume, request) => losingWriter(await target.open(volume, request), unflushed),
  });
  return {
    power,
    open: () => Promise.resolve(powered(losing, power, (writer) => void writers.push(writer))),
    async lose(random) {
      await power.restore();
      for (const writer of writers) await writer[Symbol.asyncDispose]();
      writers = [];
      if (random !== undefined) unflushed.lose(random);
    },
    bytes: (_volume, length) => Promise.resolve(readFileSync(path).subarray(0, length)),
    async [Symbol.asyncDispose]() {
      closeSync(fd);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function losingWriter(writer: BlockWriter, unflushed: Unflushed): BlockWriter {
  const flushing = async <Result>(act: () => Promise<Result>): Promise<Result> => {
    const durable = unflushed.flushing();
    const result = await act();
    durable();
    return result;
  };
  return replaced<BlockWriter>(writer, {
    write: (offset, data, options) =>
      unflushed.changing(offset, data.length, () => writer.write(offset, data, options)),
    zero: (offset, length, wait) => unflushed.changing(offset, length, () => writer.zero!(offset, length, wait)),
    flush: (wait) => flushing(() => writer.flush(wait)),
    commit: (request) => flushing(() => writer.commit(request)),
  });
}

/** A qcow2 image over files that lose writes, renames and tables alike. */
function qcow2Target(): Promise<LosingTarget> {
  const files = new LossyFiles();
  const power = new Power();
  const target = lossyQcow2Target(files);
  return Promise.resolve({
    power,
    open: () => Promise.resolve(powered(target, power, () => {})),
    async lose(random) {
      await power.restore();
      if (random === undefined) files.kill();
      else files.lose(random);
    },
    bytes: (_volume, length) => lossyQcow2Bytes(files, length),
    async [Symbol.asyncDispose]() {},
  } satisfies LosingTarget);
}

/** An NBD server of ours in front of a disk that loses writes, seen through the provider and its connections. */
async function nbdTarget(size: number): Promise<LosingTarget> {
  const folder = await mkdtemp(join(tmpdir(), "diskferry-power-"));
  const bytes = new Uint8Array(size);
  const memory = memoryBackend(bytes) as Required<Pick<NbdBackend, "read" | "write" | "zero">> & NbdBackend;
  const unflushed = new Unflushed({
    read: (offset, length) => bytes.subarray(offset, offset + length),
    write: (offset, part) => bytes.set(part, offset),
  });
  const power = new Power();
  const on = <Result>(act: () => Promise<Result> | Result): Promise<Result> => power.call(power.start, act);
  const backend: NbdBackend = {
    size,
    multiConnection: true,
    read: (offset, into, options) => memory.read(offset, into, options),
    write: (offset, data, options) =>
      on(() => unflushed.changing(offset, data.length, async () => memory.write(offset, data, options))),
    zero: (offset, length, options) =>
      on(() => unflushed.changing(offset, length, async () => memory.zero(offset, length, options))),
    flush: () => on(() => unflushed.flushing()()),
  };
  const serve = (): Promise<NbdServer> =>
    serveNbd({ listen: { path: join(folder, "socket") }, exports: { "": { backend } } });
  let server = await serve();
  let target = await provider.target!({ uri: server.uri() });
  return {
    power,
    open: () => Promise.resolve(target),
    async lose(random) {
      power.cut();
      for (const connection of server.connections()) connection.destroy();
      await server.close({ deadlineMs: 0 });
      await target[Symbol.asyncDispose]().catch(() => {});
      await power.restore();
      if (random !== undefined) unflushed.lose(random);
      server = await serve();
      target = await provider.target!({ uri: server.uri() });
    },
    bytes: (_volume, length) => Promise.resolve(bytes.subarray(0, length)),
    async [Symbol.asyncDispose]() {
      await target[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
