import type { ProgressReport } from "@diskferry/core";
import { describe, expect, test } from "vitest";
import { BarProgress } from "../src/progress/bar-progress.ts";
import { JsonProgress, LineProgress } from "../src/progress/line-progress.ts";
import { progressLines, progressText } from "../src/progress/progress-lines.ts";
import { diskBytes, workplace } from "./in-process.ts";

const gib = 2 ** 30;

function report(doneBytes: number, given: Partial<ProgressReport> = {}): ProgressReport {
  return {
    phase: "copying",
    doneBytes,
    totalBytes: 2 * gib,
    movedBytes: doneBytes,
    mibPerSecond: 345.67,
    etaMs: 3_200,
    disks: [],
    elapsedMs: 1000,
    final: false,
    ...given,
  };
}

const plain = { columns: 100, colour: false, most: 12 };

test("a line tells phase, bar, percent, bytes, speed and what is left", () => {
  expect(progressLines([["web", report(gib)]], plain)).toEqual([
    "web  copying     [################----------------]   50 %  1.0 GiB / 2.0 GiB  345.7 MiB/s  ETA 0:03",
  ]);
});

test("no line is longer than the terminal, whatever its width", () => {
  const disks = ["boot", "a-disk-with-a-rather-long-name"].map((disk) => ({ ...report(gib), disk }));
  for (let columns = 20; columns <= 200; columns++) {
    const lines = progressLines([["a-job-with-a-rather-long-name", report(gib, { disks })]], { ...plain, columns });
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(columns);
    if (columns >= 40) for (const line of lines) expect(line).toContain(" 50 %");
  }
});

test("the disks of a machine have lines of their own, and what does not fit is counted", () => {
  const disks = Array.from({ length: 20 }, (_, index) => ({ ...report(gib), disk: `disk-${index}` }));
  const lines = progressLines([["web", report(gib, { disks })]], { ...plain, most: 5 });
  expect(lines).toHaveLength(5);
  expect(lines[1]).toMatch(/^ {2}disk-0 +copying/);
  expect(lines[4]).toBe("  and 17 more");
});

test("100 % is said when nothing is left, and not before", () => {
  expect(progressLines([["web", report(2 * gib - 1)]], plain)[0]).toContain(" 99 %");
  expect(progressLines([["web", report(2 * gib)]], plain)[0]).toContain("100 %");
  expect(progressLines([["web", report(0, { totalBytes: 0, mibPerSecond: 0, etaMs: undefined })]], plain)[0]).toContain(
    "  0 %",
  );
});

test("plain words tell the same", () => {
  expect(progressText("web", report(gib))).toBe("web: copying 50 %, 1.0 GiB of 2.0 GiB, 345.7 MiB/s, 0:03 to go");
  expect(progressText("web", report(0, { mibPerSecond: 0, etaMs: undefined }))).toBe(
    "web: copying 0 %, 0 B of 2.0 GiB",
  );
});

describe("a display", () => {
  test("of bars draws over itself and clears for other text", () => {
    let screen = "";
    const bars = new BarProgress({ sink: { write: (text) => (screen += text), columns: 80 }, colour: false });
    bars.show("web", report(0));
    bars.show("db", report(gib));
    expect(screen.split("\u001b[1A\r\u001b[0J")).toHaveLength(2);
    screen = "";
    bars.show("web", report(2 * gib, { final: true }));
    expect(screen).toMatch(/^.\[2A\r.\[0Jdb /);
    screen = "";
    bars.clear();
    bars.clear();
    expect(screen).toBe("\u001b[1A\r\u001b[0J");
    expect(new BarProgress({ sink: { write() {}, columns: 0 }, colour: false }).close()).toBeUndefined();
  });

  test("of a terminal that does not tell its width is 80 wide", () => {
    let screen = "";
    new BarProgress({ sink: { write: (text) => (screen += text), columns: 0 }, colour: false }).show(
      "web",
      report(gib),
    );
    expect(screen.trimEnd().length).toBeGreaterThan(60);
    expect(screen.trimEnd().length).toBeLessThanOrEqual(80);
  });

  test("of lines speaks now and then, and when something else begins", () => {
    const lines: string[] = [];
    const display = new LineProgress((line) => lines.push(line));
    for (const done of [0, 1, 2, 3]) display.show("web", report(done * 1024));
    display.show("web", report(gib, { phase: "verifying" }));
    display.show("db", report(0));
    display.show("web", report(2 * gib, { final: true }));
    expect(lines.map((line) => line.split(",")[0])).toEqual([
      "web: copying 0 %",
      "web: verifying 50 %",
      "db: copying 0 %",
    ]);
  });

  test("of JSON tells the last report too", () => {
    const objects: object[] = [];
    const display = new JsonProgress((content) => objects.push(content));
    for (const done of [0, 1, 2]) display.show("web", report(done));
    display.show("web", report(2 * gib, { final: true }));
    expect(objects).toHaveLength(2);
    expect(objects[1]).toMatchObject({ type: "progress", job: "web", final: true });
  });
});

test("a terminal gets bars, a file gets lines, and quiet gets neither", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const onTerminal = await place.run(["copy", "disk.raw", "a.raw"], { columns: 100 });
  expect(onTerminal.err).toContain("\u001b[36m");
  expect((await place.run(["copy", "disk.raw", "b.raw"], { columns: 100, env: { NO_COLOR: "1" } })).err).not.toContain(
    "\u001b[3",
  );
  expect((await place.run(["copy", "disk.raw", "c.raw"], { columns: 100, env: { TERM: "dumb" } })).err).not.toContain(
    "\u001b",
  );
  const intoFile = await place.run(["copy", "disk.raw", "d.raw"]);
  expect(intoFile.err).toMatch(/^disk\.raw-\w+: \w+ \d+ %, /);
  expect(intoFile.err + intoFile.out).not.toContain("\u001b");
  expect((await place.run(["copy", "disk.raw", "e.raw", "-q"], { columns: 100 })).err).toBe("");
});
