import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { MemoryPlace } from "@diskferry/core";
import { expect, test, vi } from "vitest";
import { jsonLines, workplace } from "./in-process.ts";

// Every write of the guest is a process, and processes start slowly where many do.
vi.setConfig({ testTimeout: 300_000 });
const memory = fileURLToPath(new URL("memory-provider", import.meta.url));
const args = ["conformance", "memory:place", "--scratch", "--provider", memory];
const placeOfTest = (): MemoryPlace =>
  (globalThis as unknown as Record<symbol, MemoryPlace>)[Symbol.for("diskferry.test.place")]!;

test("without --scratch nothing is judged, and without --yes it tells what it would make and cost, and makes nothing", async () => {
  const cli = await workplace();
  const refused = await cli.run(["conformance", "memory:place", "--provider", memory]);
  expect(refused).toMatchObject({ code: 2, out: "" });
  expect(refused.err).toContain("--scratch");

  const { code, out } = await cli.run([...args, "--guest-write", "false"]);
  expect(code).toBe(0);
  expect(out).toMatch(/takes at most \d\d+ snapshots of machine web/);
  expect(out).toMatch(/OVERWRITES disk boot \(4\.0 MiB\) of that machine by: false/);
  expect(out).toMatch(/makes at most \d\d+ volumes of 16\.0 MiB and \d\d+ commits/);
  expect(out).toMatch(/launches at most \d+ machines/);
  expect(out).toMatch(/costs at most about \d+\.\d\d USD for copies \(prices of 2026-01-31\)/);
  expect(out).toContain("- warning: clock: runs late; set it");
  expect(out).toContain("Nothing was done. Add --yes to begin.");
  expect(placeOfTest().volumeIds()).toEqual([]);
  expect(existsSync(cli.path("diskferry-conformance-memory-target.jsonl"))).toBe(false);
});

test("clauses that need the guest to write are NOT JUDGED without a command, and everything made is removed", async () => {
  const cli = await workplace();
  const said = await cli.run([...args, "--yes", "--json", "--size", "1MiB"]);
  expect(said.code, said.out + said.err).toBe(0);
  const result = jsonLines(said.out).find(({ type }) => type === "result") as unknown as {
    judged: string[];
    notJudged: { id: string; reason: string }[];
    left: unknown[];
  };
  const reasonOf = (id: string): string | undefined => result.notJudged.find((each) => each.id === id)?.reason;
  for (const id of ["reader.read.bytes", "tracker.never-too-few", "source.snapshot.fixed"]) {
    expect(reasonOf(id), id).toContain("no --guest-write");
    expect(result.judged).not.toContain(id);
  }
  expect(result.judged).toEqual(
    expect.arrayContaining(["source.owned.lists", "writer.write.bytes", "launch.idempotent"]),
  );
  expect(result.left).toEqual([]);
  const place = placeOfTest();
  expect(place.volumeIds()).toEqual([]);
  expect(place.launchedIds()).toEqual([]);
  await using source = place.openSource();
  for await (const { id } of source.snapshots!(await source.machine("web"))) expect.fail(`snapshot ${id} is left`);
  expect(existsSync(cli.path("diskferry-conformance-memory-target.jsonl"))).toBe(false);
});

test("has the guest write by a command, and a broken clause ends with 7", async () => {
  const cli = await workplace();
  await cli.write("disk.raw", new Uint8Array(2 << 20));
  const dd = `dd of=${cli.path("disk.raw")} bs=512 seek=$((DISKFERRY_OFFSET / 512)) conv=notrunc iflag=fullblock status=none`;
  const local = [
    "conformance",
    `local:${cli.path("disk.raw")}`,
    "--scratch",
    "--side",
    "source",
    "--yes",
    "-q",
    "--guest-write",
    dd,
  ];
  const broken = await cli.run([...local, "--unfixed", "the disk itself is read"]);
  expect(broken.code).toBe(7);
  expect(broken.out).toMatch(/^FAILED source\.owned\.lists: source\.owned\.lists: the contract demands: /m);
  const sound = await cli.run([...local, "--unfixed", "the disk itself is read", "--snapshotless", "nothing is made"]);
  expect(sound.code, sound.out).toBe(0);
  expect(sound.out).toMatch(/^judged reader\.read\.bytes$/m);
  expect(sound.out).toMatch(/^NOT JUDGED source\.owned\.lists: nothing is made$/m);
  expect(sound.out).toMatch(/\d+ hold, 0 are broken, \d+ were NOT JUDGED\neverything that was made is removed/);
  const failing = await cli.run([
    ...local.slice(0, -1),
    "echo no such guest >&2; exit 3",
    "--unfixed",
    "x",
    "--snapshotless",
    "y",
  ]);
  expect(failing.code).toBe(7);
  expect(failing.out).toContain("the command of --guest-write ended with 3: no such guest");
});

test("removes first what a run that was killed left behind", async () => {
  const cli = await workplace();
  await cli.run([...args]);
  const place = placeOfTest();
  await using target = place.openTarget();
  const volume = await target.create({ key: "left", size: 1 << 20, job: "conformance-killed" });
  const file = cli.path("diskferry-conformance-memory-target.jsonl");
  // The last line was being written when the power went.
  await writeFile(file, `${JSON.stringify({ job: "conformance-killed" })}\n{"volume":{"id":"vol`);
  const { code, err } = await cli.run([...args, "--side", "source", "--yes"]);
  expect(err).toContain("an earlier run was cut short");
  // Only the source was judged: the target's leftover stays, and stays on record.
  expect(code).toBe(0);
  expect(place.volumeIds()).toEqual([volume.id]);
  expect((await cli.run([...args, "--side", "target", "--yes", "-q", "--size", "1MiB"])).code).toBe(0);
  expect(place.volumeIds()).toEqual([]);
  expect(existsSync(file)).toBe(false);
});

test("writes down what it makes before it makes it", async () => {
  const cli = await workplace();
  let seen = "";
  const place = placeOfTest();
  place.fault = ({ method }) => {
    const file = cli.path("diskferry-conformance-memory-target.jsonl");
    if (method === "create" && existsSync(file)) seen ||= readFileSync(file, "utf8");
  };
  await cli.run([...args, "--side", "target", "--yes", "-q", "--size", "1MiB"]);
  place.fault = undefined;
  expect(seen).toMatch(/^\{"job":"conformance-/);
});
