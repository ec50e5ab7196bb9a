import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { describeWithPeers } from "../../../test/peers.ts";
import { diskBytes, jsonLines, program, workplace } from "./in-process.ts";

const size = 96 << 20;
const begun = /"phase":"copying","doneBytes":[1-9]/;

interface Report {
  status: string;
  resumed: boolean;
  run: string;
  disks: { moved: number; read: number }[];
}

function reportOf(out: string): Report {
  return jsonLines(out).find(({ type }) => type === "result")!["report"] as Report;
}

test.for(["SIGINT", "SIGTERM"] as const)(
  "%s in the middle of a copy pauses it, and the same command goes on",
  async (signal) => {
    const place = await workplace();
    await place.write("disk.raw", diskBytes(size));
    const args = ["copy", "disk.raw", "copy.raw", "--json"];
    const copying = place.spawn([...args, "--bandwidth", "32MiB"]);
    await copying.until(begun);
    copying.child.kill(signal);
    const paused = await copying.ended;
    expect(paused).toMatchObject({ code: 75, err: "" });
    expect(jsonLines(paused.out)).toContainEqual(
      expect.objectContaining({
        type: "notice",
        message: expect.stringContaining("pausing at the next durable point"),
      }),
    );
    const before = reportOf(paused.out);
    expect(before.status).toBe("paused");
    expect(before.disks[0]!.moved).toBeLessThan(size);
    const again = await place.spawn(args).ended;
    expect(again.code).toBe(0);
    const after = reportOf(again.out);
    expect(after).toMatchObject({ status: "done", resumed: true, run: before.run });
    expect(after.disks[0]!.moved + before.disks[0]!.moved).toBe(size);
    expect(readFileSync(place.path("copy.raw")).equals(diskBytes(size))).toBe(true);
  },
);

test("a second signal stops at once, and the same command goes on", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes(size));
  const args = ["copy", "disk.raw", "copy.raw", "--json"];
  const copying = place.spawn([...args, "--bandwidth", "16MiB"]);
  await copying.until(begun);
  copying.child.kill("SIGINT");
  await copying.until(/interrupt again to stop at once/);
  copying.child.kill("SIGINT");
  const stopped = await copying.ended;
  expect(stopped.code).toBe(130);
  expect(stopped.out).toContain("was stopped at once");
  const again = await place.spawn(args).ended;
  expect(again.code).toBe(0);
  expect(reportOf(again.out)).toMatchObject({ status: "done", resumed: true });
  expect(readFileSync(place.path("copy.raw")).equals(diskBytes(size))).toBe(true);
});

test("a standing job that waits for its next round ends with the code of the last one", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const running = place.spawn(["sync", "disk.raw", "copy.raw", "--every", "1h", "--json"]);
  await running.until(/"type":"result"/);
  running.child.kill("SIGTERM");
  expect((await running.ended).code).toBe(0);
});

test("a reader that goes away early is no failure", async () => {
  const place = await workplace();
  const { stdout } = await promisify(execFile)(
    "/bin/sh",
    ["-c", '"$0" "$@" | head -n 1', process.execPath, ...program, "help"],
    { env: place.env },
  );
  expect(stdout).toMatch(/^diskferry moves disks/);
});

describeWithPeers(["script"], "on a pseudo-terminal (script of util-linux)", () => {
  test("a bar is drawn over itself and gone when the result is told", async () => {
    const place = await workplace();
    await place.write("disk.raw", diskBytes(64 << 20));
    const words = [process.execPath, ...program, "copy", "disk.raw", "copy.raw", "--bandwidth", "32MiB"];
    const line = `stty cols 100; ${words.map((word) => `'${word}'`).join(" ")}`;
    const run = promisify(execFile);
    const { stdout } = await run("script", ["-qec", line, "/dev/null"], {
      cwd: place.folder,
      env: { ...place.env, TERM: "xterm" },
    });
    expect(stdout).toContain("\u001b[1A\r\u001b[0J");
    expect(stdout.replaceAll("\u001b[", "^")).toMatch(/copying +\[\^36m#+\^39m-+\] +\d+ %/);
    expect(stdout).toContain("MiB/s");
    // Nothing drawn is left below the last clearing but the result.
    const last = stdout.slice(stdout.lastIndexOf("\u001b[0J") + 4);
    expect(last).toMatch(/^job \S+: run \S+ done/);
    for (const drawn of stdout.split("\u001b[0J")) {
      // oxlint-disable-next-line no-control-regex -- colours take no room
      const width = drawn.split("\r")[0]!.replaceAll(/\u001b\[\d+m/g, "").length;
      expect(width).toBeLessThanOrEqual(100);
    }
    const plain = await run("script", ["-qec", `${line} --mode full`, "/dev/null"], {
      cwd: place.folder,
      env: { ...place.env, TERM: "xterm", NO_COLOR: "1" },
    });
    expect(plain.stdout).toContain("\u001b[0J");
    expect(plain.stdout).not.toContain("\u001b[3");
    const dumb = await run("script", ["-qec", line, "/dev/null"], {
      cwd: place.folder,
      env: { ...place.env, TERM: "dumb" },
    });
    expect(dumb.stdout).not.toContain("\u001b");
  });
});
