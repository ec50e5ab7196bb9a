import { exitCodes as published } from "../src/index.ts";
import { ProviderError, type ProviderErrorCode } from "@diskferry/core";
import { expect, test } from "vitest";
import { commands } from "../src/commands.ts";
import { exitCodeOf, exitCodes } from "../src/exit-codes.ts";
import { nearMiss } from "../src/near-miss.ts";
import { bytesFrom, formatBytes, formatDuration, millisecondsFrom } from "../src/quantities.ts";
import { diskBytes, jsonLines, workplace } from "./in-process.ts";

test.for([
  [["cpoy", "a", "b"], "there is no command cpoy (did you mean copy?)"],
  [["frobnicate"], "there is no command frobnicate; see: diskferry help"],
  [["--jsn"], "begin with a command; --jsn is none"],
  [["receipt"], "receipt needs a second word; there is: diskferry receipt verify"],
  [["receipt", "vrify"], "receipt has no command vrify; there is: diskferry receipt verify"],
  [["copy", "a"], "copy takes a source and a target, and was given 1"],
  [["copy", "a", "b", "c"], "was given 3"],
  [
    ["copy", "a", "b", "--bandwith", "5"],
    "there is no option --bandwith (did you mean --bandwidth?); see: diskferry help copy",
  ],
  [
    ["copy", "a", "b", "--jso", "--wndow=x"],
    "there is no option --jso (did you mean --json?); there is no option --wndow (did you mean --window?)",
  ],
  [["copy", "a", "b", "--bandwidth"], "--bandwidth needs a value: --bandwidth <bytes/s>"],
  [["copy", "a", "b", "--job", "--quiet"], "--job needs a value"],
  [["copy", "a", "b", "--json=yes"], "--json takes no value"],
  [["copy", "a", "b", "--job", "x", "--job", "y"], "--job is given twice"],
  [
    ["copy", "a", "b", "--mode", "rescn"],
    '--mode is "rescn"; it has to be auto or full or rescan (did you mean rescan?)',
  ],
  [
    ["copy", "a", "b", "--bandwidth", "fast"],
    '--bandwidth is "fast"; it has to be bytes per second, such as 1048576 or 50MiB',
  ],
  [["copy", "a", "b", "--workers", "-1"], '--workers is "-1"; it has to be a whole number of at least 0'],
  [["copy", "a", "b", "--window", "25:00-26:00"], "25:00 is no time of day"],
  [["copy", "a", "b", "--window", "1:00-2:00", "--time-zone", "Mars"], 'there is no time zone "Mars"'],
  [["sync"], "name a job"],
  [["sync", "--config", "x.yaml", "--job", "y"], "--job and --config exclude each other"],
  [["verify", "a", "b", "c"], "3 arguments are too many"],
  [["cutover", "a", "b", "--finalize", "--revert"], "--finalize and --revert exclude each other"],
  [["doctor", "a"], "doctor takes a source and a target, or neither"],
  [["help", "cpoy"], "there is no command cpoy (did you mean copy?)"],
] as const)("%j is refused by name", async ([args, said]) => {
  const place = await workplace();
  await place.write("a", diskBytes());
  const found = await place.run(args);
  expect(found).toMatchObject({ code: 2, out: "" });
  expect(found.err).toContain(said);
  const json = await place.run([...args, "--json"]);
  // What cannot be read at all is no reason to break the promise of JSON lines.
  if (json.code === 2)
    expect(jsonLines(json.out)).toEqual([
      expect.objectContaining({ type: "error", exitCode: 2, code: "CONFIG_INVALID" }),
    ]);
});

test("help tells every command, every option and every exit code", async () => {
  const place = await workplace();
  for (const args of [[], ["--help"], ["-h"], ["help"]]) {
    const { code, out, err } = await place.run(args);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    for (const { name } of commands) expect(out).toContain(`  ${name} `);
  }
  for (const command of commands) {
    for (const args of [
      ["help", ...command.name.split(" ")],
      [...command.name.split(" "), "--help"],
      [...command.name.split(" "), "x", "-h"],
    ]) {
      const { code, out } = await place.run(args);
      expect(code).toBe(0);
      for (const name of Object.keys(command.options)) expect(out).toContain(`--${name}`);
    }
  }
  const { out } = await place.run(["help", "exit-codes"]);
  for (const { exitCode, meaning } of exitCodes) expect(out).toMatch(new RegExp(`^ *${exitCode}  ${meaning}`, "m"));
  expect((await place.run(["--version"])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("every kind of error has one exit code", () => {
  const codes: Record<ProviderErrorCode, number> = {
    CONFIG_INVALID: 2,
    NOT_FOUND: 3,
    AUTH: 4,
    DENIED: 4,
    UNSUPPORTED: 5,
    IN_USE: 6,
    FENCED: 6,
    EXISTS: 6,
    CORRUPT: 7,
    UNAVAILABLE: 8,
    THROTTLED: 8,
    TRACKING_LOST: 9,
    UNEXPECTED: 1,
  };
  for (const [code, exitCode] of Object.entries(codes)) {
    expect(exitCodeOf(new ProviderError(code as ProviderErrorCode, "it"))).toBe(exitCode);
    expect(exitCodes.filter(({ errors }) => errors.includes(code as ProviderErrorCode))).toHaveLength(1);
  }
  expect(exitCodeOf(new TypeError("a mistake of ours"))).toBe(1);
  expect(exitCodeOf("thrown text")).toBe(1);
  expect(new Set(exitCodes.map(({ exitCode }) => exitCode)).size).toBe(exitCodes.length);
  expect(published).toBe(exitCodes);
});

test("an error tells its causes, one line each, and its stack when asked", async () => {
  const place = await workplace();
  const said = await place.run(["copy", "gone.raw", "copy.raw"]);
  expect(said.err.trimEnd().split("\n")).toEqual([
    expect.stringMatching(/^diskferry: job \S+: .*gone\.raw does not exist.* \[NOT_FOUND\]$/),
    expect.stringMatching(/^ {2}because: ENOENT: .*gone\.raw'$/),
  ]);
  expect((await place.run(["copy", "gone.raw", "copy.raw", "--debug"])).err).toMatch(/^ +at /m);
  const json = jsonLines((await place.run(["copy", "gone.raw", "copy.raw", "--json"])).out);
  expect(json).toEqual([
    {
      type: "error",
      exitCode: 3,
      job: expect.stringMatching(/^gone\.raw-/),
      code: "NOT_FOUND",
      message: expect.stringContaining("gone.raw does not exist"),
      causes: [{ message: expect.stringContaining("ENOENT") }],
    },
  ]);
  const debug = jsonLines((await place.run(["copy", "gone.raw", "copy.raw", "--json", "--debug"])).out);
  expect(debug[0]).toMatchObject({ stack: expect.stringContaining(" at ") });
});

test("quantities are read and written as people do", () => {
  expect(["1048576", "50MiB", "1.5 GiB", "100 MB/s", "1kb"].map(bytesFrom)).toEqual([
    1 << 20,
    50 << 20,
    1.5 * 2 ** 30,
    1e8,
    1000,
  ]);
  expect(["", "0", "-1", "MiB", "1 MiB MiB", "1e999", "toString", "5 constructor"].map(bytesFrom)).toEqual(
    Array(8).fill(undefined),
  );
  expect(["30s", "15m", "1h", "1d", "1.5h"].map(millisecondsFrom)).toEqual([
    30_000, 900_000, 3_600_000, 86_400_000, 5_400_000,
  ]);
  expect(["", "5", "0s", "-1s", "1y", "9999d"].map(millisecondsFrom)).toEqual(Array(6).fill(undefined));
  expect([0, 1023, 1024, 1.5 * 2 ** 30, 2 ** 50 * 3].map(formatBytes)).toEqual([
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 GiB",
    "3.0 PiB",
  ]);
  expect([0, 7_400, 750_000, 11_100_000, 187_200_000].map(formatDuration)).toEqual([
    "0:00",
    "0:07",
    "12:30",
    "3:05:00",
    "2 d 4:00:00",
  ]);
});

test("a near miss is near", () => {
  const names = ["copy", "cutover", "cleanup", "status"];
  expect(["cpoy", "coyp", "cut-over", "statsu", "CLEANUP"].map((given) => nearMiss(given, names))).toEqual([
    "copy",
    "copy",
    "cutover",
    "status",
    "cleanup",
  ]);
  expect(["x", "frobnicate", ""].map((given) => nearMiss(given, names))).toEqual([undefined, undefined, undefined]);
  expect(nearMiss("x".repeat(1e6), names)).toBeUndefined();
});
