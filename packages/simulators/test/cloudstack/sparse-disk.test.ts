import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SparseDisk } from "../../src/cloudstack/sparse-disk.ts";

const mib = 2 ** 20;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-sparse-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const disk = async (name: string): Promise<SparseDisk> => {
  const made = await SparseDisk.create(join(folder, name), 4 * mib);
  // Enough that its copy takes longer than a write.
  await made.write(0, Buffer.alloc(4 * mib, "before"));
  return made;
};
const start = async (of: SparseDisk): Promise<string> => (await of.read(0, 6)).toString();

describe("a copy of a disk", () => {
  it("holds what was written before it began, and nothing of what is written from then on", async () => {
    const one = await disk("one");
    const ended: string[] = [];
    const copying = SparseDisk.copy(join(folder, "copy"), one).finally(() => ended.push("copy"));
    const written = one.write(0, Buffer.from("after!")).finally(() => ended.push("write"));
    expect(await start(await copying)).toBe("before");
    await written;
    expect(ended).toEqual(["copy", "write"]);
    expect(await start(one)).toBe("after!");
  });

  it("together with others is of one moment for all of them", async () => {
    const [log, data] = [await disk("log"), await disk("data")];
    const pairs = [log, data].map((from, index) => ({ from, path: join(folder, `together-${index}`) }));
    const ended: string[] = [];
    const copying = SparseDisk.copyTogether(pairs).finally(() => ended.push("copies"));
    const written = (async () => {
      await log.write(0, Buffer.from("after!"));
      await data.write(0, Buffer.from("after!"));
      ended.push("both writes");
    })();
    expect(await Promise.all((await copying).map((each) => start(each)))).toEqual(["before", "before"]);
    await written;
    expect(ended).toEqual(["copies", "both writes"]);
    expect(await Promise.all([start(log), start(data)])).toEqual(["after!", "after!"]);
  });

  it("may be larger, and stays as sparse as the disk", async () => {
    const one = await disk("sparse");
    const copy = await SparseDisk.copy(join(folder, "larger"), one, 64 * mib);
    expect(copy.size).toBe(64 * mib);
    expect((await copy.read(63 * mib, mib)).equals(Buffer.alloc(mib))).toBe(true);
    await expect(copy.read(64 * mib - 1, 2)).rejects.toThrow(RangeError);
    await expect(copy.write(-1, Buffer.alloc(1))).rejects.toThrow(RangeError);
  });
});
