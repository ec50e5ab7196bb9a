import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
  chmodSync,
} from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { Tile } from "@diskferry/core/provider";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomFrom, seedOf } from "../../../../test/seed.ts";
import { freshFolder } from "../folder.ts";
import { rawAllocation } from "../../src/raw/raw-allocation.ts";

const seed = seedOf(11);
const size = 64 * 1024 * 1024;
const path = process.env["PATH"];
afterEach(() => {
  process.env["PATH"] = path;
});

/** Only these programs can be found. */
function leavePrograms(...names: string[]): void {
  const folder = freshFolder();
  for (const name of names) {
    // The program itself: what stands in the path may be a script that needs others.
    const script = { perl: "print $^X", python3: "import sys; print(sys.executable)" }[name]!;
    const found = execFileSync(name, [name === "perl" ? "-e" : "-c", script], {
      encoding: "utf8",
      env: { PATH: path },
    }).trim();
    symlinkSync(found, join(folder, name));
  }
  process.env["PATH"] = folder;
}

function sparseFile(): string {
  const file = join(freshFolder(), "sparse.raw");
  const fd = openSync(file, "w");
  ftruncateSync(fd, size);
  const next = randomFrom(seed);
  for (let index = 0; index < 20; index++) {
    const offset = Math.floor((next() * size) / 4096) * 4096;
    writeSync(fd, Buffer.alloc(4096, index + 1), 0, 4096, offset);
  }
  writeSync(fd, Buffer.alloc(512, 255), 0, 512, size - 512);
  closeSync(fd);
  return file;
}

async function tilesOf(file: string, from = 0, to = size): Promise<Tile[]> {
  const tiles: Tile[] = [];
  for await (const tile of rawAllocation(file, undefined, { from, to })) tiles.push(tile);
  return tiles;
}

/** Contiguous from `from` to `to`, and everything called zero is. */
function judge(tiles: readonly Tile[], content: Uint8Array, from = 0, to = size): void {
  let position = from;
  for (const tile of tiles) {
    expect(tile.offset, `seed ${seed}`).toBe(position);
    expect(tile.length).toBeGreaterThan(0);
    position += tile.length;
    if (tile.kind !== "zero") continue;
    const isZero = Buffer.compare(content.subarray(tile.offset, position), Buffer.alloc(tile.length)) === 0;
    expect(isZero, `seed ${seed} at ${tile.offset}`).toBe(true);
  }
  expect(position).toBe(to);
}

for (const program of ["perl", "python3"]) {
  describeWithPeers([program], `holes listed by ${program}`, () => {
    test("every hole is found, nothing that holds data is called zero, and any range may be asked for", async () => {
      const file = sparseFile();
      const content = readFileSync(file);
      leavePrograms(program);
      const tiles = await tilesOf(file);
      judge(tiles, content);
      const changed = tiles.filter(({ kind }) => kind === "changed").reduce((sum, { length }) => sum + length, 0);
      expect(changed).toBeLessThanOrEqual(21 * 128 * 1024);
      for (const [from, to] of [
        [size / 2, size],
        [512, 1024],
        [size - 512, size],
        [4096 * 3, size / 3 - ((size / 3) % 512)],
      ] as const) {
        judge(await tilesOf(file, from, to), content, from, to);
      }
    });
  });
}

test("without a program that can tell, all of the file is to be read", async () => {
  const file = sparseFile();
  leavePrograms();
  expect(await tilesOf(file)).toEqual([{ offset: 0, length: size, kind: "changed" }]);
});

for (const [what, script] of [
  ["stops in the middle", "echo 0 4096"],
  ["ends with another size", 'echo 0 4096; echo "end 4096"'],
  ["fails at the end", `echo 0 4096; echo "end ${size}"; exit 1`],
  ["goes backwards", `echo 1048576 4096; echo 0 4096; echo "end ${size}"`],
  ["says something else", `echo hello; echo "end ${size}"`],
] as const) {
  test(`a listing that ${what} is not believed: what it did not prove is read`, async () => {
    const file = sparseFile();
    const folder = freshFolder();
    writeFileSync(join(folder, "perl"), `#!/bin/sh\n${script}\n`);
    chmodSync(join(folder, "perl"), 0o755);
    process.env["PATH"] = folder;
    const tiles = await tilesOf(file);
    const last = tiles.at(-1)!;
    expect(last.kind).toBe("changed");
    expect(last.offset + last.length).toBe(size);
    expect(last.offset).toBeLessThanOrEqual(1048576 + 65536);
  });
}

test("a file without holes is one tile, and nobody is asked", async () => {
  const file = join(freshFolder(), "full.raw");
  writeFileSync(file, Buffer.alloc(1024 * 1024, 1));
  leavePrograms();
  expect(await tilesOf(file, 0, 1024 * 1024)).toEqual([{ offset: 0, length: 1024 * 1024, kind: "changed" }]);
  rmSync(file);
});
