import { mkdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { BlockReader, BlockWriter } from "@diskferry/core/provider";
import { randomBytes, randomFrom, seedOf } from "../../../../test/seed.ts";
import { SlowZeroError, type AllocationExtent, type NbdBackend } from "../../src/server/backend.ts";
import { fileBackend } from "../../src/server/file-backend.ts";
import { readerBackend, writerBackend } from "../../src/server/provider-backend.ts";
import { closeAfterEach, folder, onEnd, run } from "./fixture.ts";

closeAfterEach();

const MiB = 1024 * 1024;
/** A child process reads the sources, as the tests do. */
const fromSource = ["--conditions=diskferry-source", "--disable-warning=ExperimentalWarning"];
const { signal } = new AbortController();

async function list(extents: AsyncIterable<AllocationExtent> | undefined): Promise<AllocationExtent[]> {
  const all: AllocationExtent[] = [];
  for await (const extent of extents ?? []) all.push(extent);
  return all;
}

describe("a file", () => {
  test("that began empty stays sparse, knows its holes and zeroes them for nothing", async () => {
    const path = join(await folder(), "disk");
    await writeFile(path, "");
    await truncate(path, 64 * MiB);
    const backend = await fileBackend(path);
    onEnd(() => backend[Symbol.asyncDispose]());
    const hole = (offset: number, length: number): AllocationExtent => ({ offset, length, hole: true, zero: true });
    expect(await list(backend.extents?.(0, 64 * MiB, { signal }))).toEqual([hole(0, 64 * MiB)]);
    const zero = { noHole: false, fast: true, fua: false, signal };
    await backend.zero?.(0, 64 * MiB, zero);
    await backend.write?.(70_000, Buffer.alloc(10, 1), { fua: true, signal });
    expect(await list(backend.extents?.(0, MiB, { signal }))).toEqual([
      hole(0, 65_536),
      { offset: 65_536, length: 65_536, hole: false, zero: false },
      hole(131_072, MiB - 131_072),
    ]);
    await expect(backend.zero?.(0, MiB, zero)).rejects.toThrow(SlowZeroError);
    expect((await readFile(path)).subarray(70_000, 70_010)).toEqual(Buffer.alloc(10, 1));
    await backend.zero?.(0, 64 * MiB, { ...zero, fast: false });
    expect((await readFile(path)).every((byte) => byte === 0)).toBe(true);
    expect((await stat(path)).blocks * 512).toBeLessThan(MiB);
  });

  test("with content claims nothing about it and reads and writes exactly", async () => {
    const path = join(await folder(), "disk");
    const content = Buffer.from(randomBytes(MiB + 13, 9));
    await writeFile(path, content);
    const backend = await fileBackend(path);
    onEnd(() => backend[Symbol.asyncDispose]());
    expect(backend.size).toBe(MiB + 13);
    expect(backend.extents).toBeUndefined();
    const into = Buffer.alloc(MiB);
    await backend.read(13, into, { signal });
    expect(into.equals(content.subarray(13))).toBe(true);
    await backend.zero?.(5, 100, { noHole: true, fast: false, fua: false, signal });
    content.fill(0, 5, 105);
    expect((await readFile(path)).equals(content)).toBe(true);
    await truncate(path, 100);
    await expect(backend.read(0, into, { signal })).rejects.toThrow(/cut/);
  });

  test("gets every write at once where it belongs, whatever order they come in and however long they are", async () => {
    const path = join(await folder(), "disk");
    const content = Buffer.from(randomBytes(8 * MiB, 10));
    await writeFile(path, Buffer.alloc(content.length));
    const backend = await fileBackend(path);
    onEnd(() => backend[Symbol.asyncDispose]());
    const random = randomFrom(seedOf(11));
    const parts: { offset: number; data: Buffer }[] = [];
    for (let at = 0; at < content.length;) {
      const length = Math.min(content.length - at, 1 + Math.floor(random() ** 4 * 300_000));
      parts.push({ offset: at, data: content.subarray(at, at + length) });
      at += length;
    }
    // Long runs in order, and places where one ends.
    for (let at = 0; at < parts.length; at += 17)
      parts.splice(Math.floor(random() * parts.length), 0, ...parts.splice(at, 3));
    await Promise.all(parts.map(async ({ offset, data }) => backend.write?.(offset, data, { fua: false, signal })));
    expect((await readFile(path)).equals(content)).toBe(true);
  });

  test("that takes a part of several writes at once says so to those alone that it did not take", async () => {
    const path = join(await folder(), "disk");
    await writeFile(path, "");
    await truncate(path, 160_000);
    const child = fileURLToPath(new URL("limited-writes.ts", import.meta.url));
    // A process whose files end at 64 KiB, as on a full disk: of sixteen writes of 10,000 bytes six fit.
    const limited = 'trap "" XFSZ; ulimit -f 128; exec "$0" "$@"';
    const printed = await run("sh", ["-c", limited, process.execPath, ...fromSource, child, path]);
    expect(JSON.parse(printed)).toEqual([
      ...Array<string>(6).fill("written"),
      ...Array<string>(10).fill("EFBIG"),
      "written",
    ]);
    const content = await readFile(path);
    expect(
      content
        .subarray(0, 60_000)
        .equals(Buffer.concat(Array.from({ length: 6 }, (_, at) => Buffer.alloc(10_000, at === 2 ? 99 : at + 1)))),
    ).toBe(true);
  });

  test("is cached by reading the range to its last byte and nothing beyond, and never trimmed", async () => {
    const path = join(await folder(), "disk");
    await writeFile(path, Buffer.alloc(3 * MiB));
    const backend = await fileBackend(path);
    onEnd(() => backend[Symbol.asyncDispose]());
    expect(backend.trim).toBeUndefined();
    // What is read beyond this fails.
    await truncate(path, 2 * MiB + 13);
    await backend.cache?.(5, 2 * MiB + 8, { signal });
    await expect(backend.cache?.(5, 2 * MiB + 9, { signal })).rejects.toThrow(/cut/);
  });

  test("is cached no further once the client is gone", async () => {
    const path = join(await folder(), "disk");
    await writeFile(path, Buffer.alloc(3 * MiB));
    const backend = await fileBackend(path);
    onEnd(() => backend[Symbol.asyncDispose]());
    // The second piece would fail as cut.
    await truncate(path, MiB);
    const client = new AbortController();
    const under = backend.cache?.(0, 3 * MiB, { signal: client.signal });
    client.abort(new Error("gone"));
    await expect(under).rejects.toThrow("gone");
  });

  test("that is none is refused by name", async () => {
    const directory = await folder();
    await mkdir(join(directory, "sub"));
    await run("mkfifo", [join(directory, "fifo")]);
    for (const readOnly of [false, true]) {
      await expect(fileBackend(join(directory, "fifo"), { readOnly })).rejects.toMatchObject({
        code: "CONFIG_INVALID",
      });
    }
    await expect(fileBackend(join(directory, "missing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(fileBackend(join(directory, "sub"))).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    await expect(fileBackend(join(directory, "sub"), { readOnly: true })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
    });
  });
});

describe("a reader of the contract", () => {
  function reader(
    blockSize: number,
    size: number,
    concurrency?: number,
  ): { reader: BlockReader; calls: number[][]; most(): number } {
    const content = Buffer.from(randomBytes(size, 4));
    const calls: number[][] = [];
    let inside = 0;
    let most = 0;
    return {
      calls,
      most: () => most,
      reader: {
        size,
        blockSize,
        ...(concurrency === undefined ? {} : { concurrency }),
        async read(offset, into) {
          calls.push([offset, into.byteLength]);
          most = Math.max(most, (inside += 1));
          await new Promise((resolve) => setImmediate(resolve));
          into.set(content.subarray(offset, offset + into.byteLength));
          inside -= 1;
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
      },
    };
  }

  test.each([
    [undefined, 1],
    [3, 3],
  ])("with concurrency %s gets %i calls at once", async (concurrency, expected) => {
    const { reader: source, most } = reader(512, MiB, concurrency);
    const backend = readerBackend(source);
    expect(backend).toMatchObject({ size: MiB, blockSize: 512, readOnly: true, multiConnection: true });
    await Promise.all(
      Array.from({ length: 10 }, async (_, index) => backend.read(index * 512, Buffer.alloc(512), { signal })),
    );
    expect(most()).toBe(expected);
  });

  test("with blocks larger than NBD allows gets whole blocks, and whole ones up to the disk's end", async () => {
    const size = MiB + 512;
    const { reader: source, calls } = reader(524_288, size);
    const backend = readerBackend(source);
    const into = Buffer.alloc(1024);
    await backend.read(MiB - 512, into, { signal });
    expect(into.equals(Buffer.from(randomBytes(size, 4)).subarray(MiB - 512))).toBe(true);
    expect(calls).toEqual([[524_288, MiB + 512 - 524_288]]);
  });

  test("is cached piece by piece, one call at a time and into one buffer, however many calls come", async () => {
    const { reader: source, calls, most } = reader(512, 4 * MiB, 3);
    const buffers = new Set<ArrayBufferLike>();
    const backend = readerBackend({
      ...source,
      read: (offset, into) => {
        buffers.add(into.buffer);
        return source.read(offset, into);
      },
    });
    await Promise.all([
      backend.cache?.(1536, 2 * MiB, { signal }),
      backend.cache?.(3 * MiB, MiB, { signal }),
      backend.cache?.(512, 512, { signal }),
    ]);
    expect(calls).toEqual([
      [1536, MiB - 1536],
      [MiB, MiB],
      [2 * MiB, 1536],
      [3 * MiB, MiB],
      [512, 512],
    ]);
    expect([most(), buffers.size]).toEqual([1, 1]);
  });

  test("with blocks larger than a piece has each of them read once to be cached", async () => {
    const { reader: source, calls } = reader(2 * MiB, 4 * MiB + 512);
    await readerBackend(source).cache?.(MiB, 3 * MiB + 1, { signal });
    expect(calls).toEqual([
      [0, 2 * MiB],
      [2 * MiB, 2 * MiB],
      [4 * MiB, 512],
    ]);
  });

  test("that reads ascending only is refused", () => {
    const { reader: source } = reader(512, MiB);
    expect(() => readerBackend({ ...source, order: "ascending" })).toThrow(TypeError);
  });
});

describe("a writer of the contract", () => {
  function writer(parts: Partial<BlockWriter> = {}): { backend: NbdBackend; log: string[] } {
    const log: string[] = [];
    const backend = writerBackend({
      size: MiB,
      blockSize: 4096,
      generation: "1",
      write: async (offset, data) => {
        log.push(`write ${offset}+${data.byteLength}`);
      },
      flush: async () => {
        log.push("flush");
      },
      commit: () => Promise.reject(new Error("never called")),
      abandon: () => Promise.resolve(),
      [Symbol.asyncDispose]: () => Promise.resolve(),
      ...parts,
    });
    return { backend, log };
  }

  test("gets FUA as a flush after the write, and zeroes as writes where it has no zero or space must stay", async () => {
    const { backend, log } = writer();
    await backend.write?.(4096, Buffer.alloc(4096), { fua: true, signal });
    await backend.zero?.(0, MiB, { noHole: false, fast: false, fua: false, signal });
    expect(log).toEqual(["write 4096+4096", "flush", `write 0+${MiB}`]);
    const zeroing = writer({
      zero: async (offset, length) => {
        zeroing.log.push(`zero ${offset}+${length}`);
      },
    });
    await zeroing.backend.zero?.(0, 8192, { noHole: false, fast: false, fua: false, signal });
    await zeroing.backend.zero?.(0, 8192, { noHole: true, fast: false, fua: false, signal });
    expect(zeroing.log).toEqual(["zero 0+8192", "write 0+8192"]);
    await expect(zeroing.backend.zero?.(0, 512, { noHole: false, fast: true, fua: false, signal })).rejects.toThrow(
      SlowZeroError,
    );
  });

  test("is trimmed by its zero, FUA as a flush after it, and cached by its read; without them it offers neither", async () => {
    const { backend, log } = writer({
      zero: async (offset, length) => {
        log.push(`zero ${offset}+${length}`);
      },
      read: async (offset, into) => {
        log.push(`read ${offset}+${into.byteLength}`);
      },
    });
    await backend.trim?.(4096, 8192, { fua: false, signal });
    await backend.trim?.(0, MiB, { fua: true, signal });
    await backend.cache?.(4096, MiB - 4096, { signal });
    expect(log).toEqual(["zero 4096+8192", `zero 0+${MiB}`, "flush", `read 4096+${MiB - 4096}`]);
    const bare = writer().backend;
    expect([bare.trim, bare.cache]).toEqual([undefined, undefined]);
  });

  test("without read refuses reads as unsupported, and one with huge blocks is refused itself", () => {
    const { backend } = writer();
    expect(() => backend.read(0, Buffer.alloc(4096), { signal })).toThrow(expect.objectContaining({ code: "ENOTSUP" }));
    expect(() => writer({ blockSize: 524_288 })).toThrow(TypeError);
  });
});
