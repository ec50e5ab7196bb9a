import { execFile, execFileSync } from "node:child_process";
import { readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { BlockWriter } from "@diskferry/core/provider";
import { describe, expect, test } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { trackChanges } from "../../src/server/change-tracking.ts";
import { fileBackend } from "../../src/server/file-backend.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import { writerBackend } from "../../src/server/provider-backend.ts";
import type { NbdServer } from "../../src/server/serve-nbd.ts";
import { closeAfterEach, folder, onEnd, run, serve } from "./fixture.ts";

closeAfterEach();

const MiB = 1024 * 1024;

/** A file of 16 MiB: data, a hole of 4 MiB, data. */
async function image(directory: string, name = "image"): Promise<{ path: string; content: Buffer }> {
  const content = Buffer.from(randomBytes(16 * MiB, 3));
  content.fill(0, 4 * MiB, 8 * MiB);
  const path = join(directory, name);
  await writeFile(path, content);
  return { path, content };
}

async function serveFile(path: string, readOnly = false): Promise<NbdServer> {
  const backend = await fileBackend(path, { readOnly });
  onEnd(() => backend[Symbol.asyncDispose]());
  return serve({ exports: { "": { backend } } });
}

async function blank(directory: string, size: number, name = "blank"): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, "");
  await truncate(path, size);
  return path;
}

/** A writer of the contract that only writes. */
function bareWriter(): BlockWriter {
  return {
    size: MiB,
    blockSize: 512,
    generation: "1",
    write: () => Promise.resolve(),
    flush: () => Promise.resolve(),
    commit: () => Promise.reject(new Error("never called")),
    abandon: () => Promise.resolve(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** A Python that has libnbd's module: Debian's own, where another one comes first in PATH. */
function pythonWithLibnbd(): string | undefined {
  return ["/usr/bin/python3", "python3"].find((python) => {
    try {
      execFileSync(python, ["-c", "import nbd"], { stdio: "ignore" });
      return true;
    } catch {
      return false;
    }
  });
}

describeWithPeers(["nbdinfo", "nbdcopy"], "libnbd's tools against our server", () => {
  test("nbdinfo lists every export and sees sizes, flags and contexts", async () => {
    const tracking = [trackChanges({ name: "backup", size: MiB })];
    const server = await serve({
      exports: {
        "": { backend: memoryBackend(4096) },
        big: { backend: memoryBackend(MiB), description: "a disk", tracking },
        fixed: { backend: memoryBackend(MiB), readOnly: true },
      },
    });
    const listed = JSON.parse(await run("nbdinfo", ["--list", "--json", server.uri()])) as {
      exports: Record<string, unknown>[];
    };
    expect(listed.exports.map((each) => each["export-name"])).toEqual(["", "big", "fixed"]);
    expect(listed.exports[1]).toMatchObject({
      description: "a disk",
      "export-size": MiB,
      contexts: ["base:allocation", "diskferry:changes:backup", tracking[0]?.metaContext],
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_trim: true,
      can_zero: true,
      can_fast_zero: true,
      can_df: true,
      can_multi_conn: true,
      block_size_maximum: 32 * MiB,
    });
    expect(listed.exports[2]).toMatchObject({ is_read_only: true, can_trim: false, can_multi_conn: true });
  });

  test("nbdinfo sees caching and trimming where the backend can", async () => {
    const { path } = await image(await folder());
    const file = await fileBackend(path);
    onEnd(() => file[Symbol.asyncDispose]());
    const able = { ...bareWriter(), read: () => Promise.resolve(), zero: () => Promise.resolve() };
    const server = await serve({
      exports: {
        bare: { backend: writerBackend(bareWriter()) },
        file: { backend: file },
        memory: { backend: memoryBackend(MiB) },
        writer: { backend: writerBackend(able) },
      },
    });
    const listed = JSON.parse(await run("nbdinfo", ["--list", "--json", server.uri()])) as {
      exports: Record<string, unknown>[];
    };
    expect(listed.exports.map((each) => [each["export-name"], each["can_cache"], each["can_trim"]])).toEqual([
      ["bare", false, false],
      ["file", true, false],
      ["memory", true, true],
      ["writer", true, true],
    ]);
  });

  test("nbdcopy writes and reads back a disk over many connections, and nbdinfo maps its holes and changes", async () => {
    const directory = await folder();
    const { path, content } = await image(directory);
    const backend = await fileBackend(await blank(directory, 16 * MiB));
    onEnd(() => backend[Symbol.asyncDispose]());
    const tracking = trackChanges({ name: "t", size: backend.size });
    const server = await serve({ exports: { "": { backend, tracking: [tracking] } } });
    await run("nbdcopy", ["--flush", "--destination-is-zero", path, server.uri()]);
    expect((await readFile(join(directory, "blank"))).equals(content)).toBe(true);
    const map = JSON.parse(await run("nbdinfo", ["--map", "--json", server.uri()])) as Record<string, unknown>[];
    expect(map.map(({ offset, length, type }) => [offset, length, type])).toEqual([
      [0, 4 * MiB, 0],
      [4 * MiB, 4 * MiB, 3],
      [8 * MiB, 8 * MiB, 0],
    ]);
    for (const context of ["diskferry:changes:t", tracking.metaContext]) {
      const changes = JSON.parse(await run("nbdinfo", [`--map=${context}`, "--json", server.uri()])) as Record<
        string,
        unknown
      >[];
      expect(changes.filter(({ type }) => type === 1).map(({ offset, length }) => ({ offset, length }))).toEqual([
        ...tracking.changes(),
      ]);
    }
    await run("nbdcopy", [server.uri(), join(directory, "copy")]);
    expect((await readFile(join(directory, "copy"))).equals(content)).toBe(true);
  });

  test("nbdcopy starts our server by socket activation", async () => {
    const directory = await folder();
    const { path, content } = await image(directory);
    const script = fileURLToPath(new URL("activated-server.ts", import.meta.url));
    const server = [process.execPath, "--conditions=diskferry-source", script, path];
    await run("nbdcopy", ["--", "[", ...server, "]", join(directory, "copy")]);
    expect((await readFile(join(directory, "copy"))).equals(content)).toBe(true);
  });

  test("nbdcopy works over TCP", async () => {
    const directory = await folder();
    const { path, content } = await image(directory);
    const backend = await fileBackend(path, { readOnly: true });
    onEnd(() => backend[Symbol.asyncDispose]());
    const server = await serve({ listen: { port: 0 }, exports: { "": { backend } } });
    await run("nbdcopy", [server.uri(), join(directory, "copy")]);
    expect((await readFile(join(directory, "copy"))).equals(content)).toBe(true);
  });
});

describeWithPeers(["qemu-img", "qemu-io"], "QEMU against our server", () => {
  test("qemu-img converts into and out of it, compares and maps", async () => {
    const directory = await folder();
    const { path } = await image(directory);
    const server = await serveFile(await blank(directory, 16 * MiB));
    const uri = server.uri();
    await run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", "-W", path, uri]);
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", path, uri]);
    const map = JSON.parse(await run("qemu-img", ["map", "--output=json", "-f", "raw", uri])) as { data: boolean }[];
    expect(map.map(({ data }) => data)).toEqual([true, false, true]);
    await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", uri, join(directory, "copy.qcow2")]);
    await run("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", join(directory, "copy.qcow2"), path]);
  });

  test("qemu-io writes patterns, zeroes, discards, flushes and finds what it wrote", async () => {
    const directory = await folder();
    const path = await blank(directory, 8 * MiB);
    const server = await serveFile(path);
    const commands = [
      "write -P 0xa5 0 1M",
      "write -f -P 0x5a 1M 64k",
      "write -z 512k 64k",
      "write -z -u 640k 64k",
      "aio_write -P 0x11 2M 1M",
      "aio_write -P 0x22 3M 1M",
      "aio_flush",
      "discard 5M 1M",
      "flush",
      "read -P 0xa5 0 512k",
      "read -P 0 512k 64k",
      "read -P 0xa5 576k 64k",
      "read -P 0 640k 64k",
      "read -P 0x5a 1M 64k",
      "read -P 0x11 2M 1M",
      "read -P 0x22 3M 1M",
      "read -P 0 6M 2M",
    ];
    const args = commands.flatMap((command) => ["-c", command]);
    const output = await run("qemu-io", ["-f", "raw", ...args, server.uri()]);
    expect(output).not.toMatch(/failed|error/i);
    const file = await readFile(path);
    expect(file.subarray(2 * MiB, 3 * MiB).equals(Buffer.alloc(MiB, 0x11))).toBe(true);
  });
});

describeWithPeers(["fio"], "fio's nbd engine against our server", () => {
  test("verifies random writes by crc32c", async () => {
    const directory = await folder();
    const server = await serveFile(await blank(directory, 32 * MiB));
    const uri = server.uri();
    const output = await run("fio", [
      "--name=verify",
      "--ioengine=nbd",
      `--uri=${uri}`,
      "--rw=randwrite",
      "--bsrange=4k-128k",
      "--size=32m",
      "--iodepth=16",
      "--verify=crc32c",
      "--verify_fatal=1",
      "--randseed=1",
      `--aux-path=${directory}`,
    ]);
    expect(output).toMatch(/err= ?0/);
  });
});

const python = pythonWithLibnbd();

describeWithPeers(["nbdsh"], "nbdsh against our server", () => {
  test("opens an export by its URI, writes, reads and flushes", async () => {
    const server = await serve({ exports: { disk: { backend: memoryBackend(MiB) } } });
    const script =
      'h.pwrite(b"ferry" * 100, 4096); h.flush(); print(h.get_size(), h.pread(500, 4096) == b"ferry" * 100)';
    // It starts the first python3 in PATH: Debian's has its module.
    const PATH = `/usr/bin:${process.env["PATH"] ?? ""}`;
    const printed = await run("nbdsh", ["-u", server.uri("disk"), "-c", script], { PATH });
    expect(printed.trim()).toBe(`${MiB} True`);
  });
});

describe.skipIf(python === undefined && process.env["DISKFERRY_REQUIRE_PEERS"] !== "1")("nbdsh's library", () => {
  test("scripts reads, writes, zeroing, trimming, caching, status and errors", async () => {
    const directory = await folder();
    const path = await blank(directory, 8 * MiB);
    const backend = await fileBackend(path);
    onEnd(() => backend[Symbol.asyncDispose]());
    const server = await serve({
      exports: { disk: { backend, tracking: [trackChanges({ name: "t", size: backend.size })] } },
    });
    const script = `
import nbd, errno, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.add_meta_context("diskferry:changes:t")
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated()
assert h.get_size() == 8 << 20
assert h.can_df() and h.can_cache() and h.can_fast_zero() and h.can_multi_conn()
assert not h.can_trim()
data = bytes(range(256)) * 512
h.pwrite(data, 65536, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 65536, nbd.CMD_FLAG_DF) == data
parts = []
h.pread_structured(262144, 0, lambda b, o, s, e: parts.append((o, len(b), s)))
assert sum(p[1] for p in parts) == 262144
seen = {}
def extents(name, offset, entries, err):
    seen[name] = list(entries)
h.block_status(8 << 20, 0, extents)
assert seen["base:allocation"] == [65536, 3, 131072, 0, (8 << 20) - 196608, 3], seen
assert seen["diskferry:changes:t"] == [65536, 0, 131072, 1, (8 << 20) - 196608, 0], seen
h.block_status(1 << 20, 65536, extents, nbd.CMD_FLAG_REQ_ONE)
assert seen["base:allocation"] == [131072, 0], seen
h.zero(65536, 65536, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(65536, 65536) == bytes(65536)
h.zero(1 << 20, 4 << 20, nbd.CMD_FLAG_FAST_ZERO)
h.cache(3 << 20, 65536)
h.flush()
def fails(code, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == code, (e.errnum, code)
    else:
        assert False, "did not fail"
fails(errno.EINVAL, lambda: h.pread(512, 8 << 20))
fails(errno.ENOSPC, lambda: h.pwrite(bytes(1024), (8 << 20) - 512))
fails(errno.ENOTSUP, lambda: h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO))
fails(errno.EINVAL, lambda: h.trim(512, 0))
fails(errno.EINVAL, lambda: h.cache(512, 8 << 20))
cookies = [h.aio_pread(nbd.Buffer(65536), i * 65536) for i in range(64)]
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
h.shutdown()
print("ok")
`;
    expect((await run(python ?? "python3", ["-c", script, server.uri("disk")])).trim()).toBe("ok");
  });

  test("negotiates without structured replies, and picks another export in one connection", async () => {
    const content = randomBytes(MiB, 5);
    const server = await serve({
      exports: { a: { backend: memoryBackend(512) }, b: { backend: memoryBackend(content) } },
    });
    const script = `
import nbd, sys
h = nbd.NBD()
h.set_request_structured_replies(False)
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
names = []
h.opt_list(lambda name, description: names.append(name))
assert names == ["a", "b"], names
h.set_export_name("missing")
try:
    h.opt_info()
    assert False
except nbd.Error:
    pass
h.set_export_name("b")
h.opt_go()
assert not h.can_df()
sys.stdout.buffer.write(h.pread(1 << 20, 0))
h.shutdown()
`;
    const { stdout } = await promisify(execFile)(python ?? "python3", ["-c", script, server.uri("a")], {
      encoding: "buffer",
      maxBuffer: 2 * MiB,
    });
    expect(stdout.equals(Buffer.from(content))).toBe(true);
  });
});
