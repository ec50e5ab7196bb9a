import { type MemoryPlace, memoryPlace } from "@diskferry/core";
import { expect, test } from "vitest";
import { randomBytes } from "../../../test/seed.ts";
import { jsonLines, type Workplace, workplace } from "./in-process.ts";

const size = 1 << 20;

/** A project with a provider package installed whose place this test can look into. */
async function project(
  options: Parameters<typeof memoryPlace>[0] = {},
): Promise<{ cli: Workplace; place: MemoryPlace }> {
  const cli = await workplace();
  const place = memoryPlace({ ...options, source: { ...options.source } });
  const key = `diskferry test ${cli.folder}`;
  (globalThis as unknown as Record<symbol, unknown>)[Symbol.for(key)] = place.provider;
  const manifest = {
    name: "diskferry-provider-memory",
    version: "1.2.3",
    type: "module",
    keywords: ["diskferry-provider"],
    exports: "./index.js",
    diskferry: { spec: "v1", name: "memory" },
  };
  await cli.write("node_modules/diskferry-provider-memory/package.json", JSON.stringify(manifest));
  await cli.write(
    "node_modules/diskferry-provider-memory/index.js",
    `export const provider = globalThis[Symbol.for(${JSON.stringify(key)})];\n`,
  );
  place.addMachine({
    id: "web",
    disks: [
      { key: "boot", size, boot: true },
      { key: "data", size },
    ],
  });
  place.write("web", "boot", 0, randomBytes(size, 1));
  place.write("web", "data", 0, randomBytes(size, 2));
  return { cli, place };
}

const ends = ["memory:place", "memory:place"];

interface Result {
  report: { disks: { disk: string; mode: string; moved: number }[]; fallbacks: object[] };
  machine: { id: string };
  step: string;
}

function result(out: string): Result {
  return jsonLines(out).findLast(({ type }) => type === "result") as unknown as Result;
}

test("an installed provider is found by the scheme of a URI, and a machine of two disks moves incrementally", async () => {
  const { cli, place } = await project();
  const first = await cli.run(["copy", ...ends, "--job", "web", "--json"]);
  expect(first).toMatchObject({ code: 0 });
  expect(result(first.out).report.disks.map(({ disk, mode }) => [disk, mode])).toEqual([
    ["boot", "full"],
    ["data", "full"],
  ]);
  place.write("web", "data", 65536, randomBytes(512, 3));
  const second = await cli.run(["copy", ...ends, "--job", "web", "--json"]);
  const [boot, data] = result(second.out).report.disks;
  expect(boot).toMatchObject({ mode: "incremental", moved: 0 });
  expect(data).toMatchObject({ mode: "incremental" });
  expect(data!.moved).toBeLessThanOrEqual(65536);
  place.breakTracking("lost");
  expect(await cli.run(["sync", "web", "--on-tracking-lost", "fail"])).toMatchObject({ code: 9 });
  const lost = await cli.run(["sync", "web"]);
  expect(lost.code).toBe(0);
  expect(lost.err).toMatch(/incremental → rescan/);
});

test("an audit finds a tracker that misses writes, and ends with 7", async () => {
  const { cli, place } = await project();
  await cli.run(["copy", ...ends, "--job", "web"]);
  expect(await cli.run(["audit", "web"])).toMatchObject({ code: 0, out: expect.stringContaining("missed nothing") });
  place.breakTracking("lie");
  place.write("web", "data", 65536, randomBytes(4096, 4));
  const said = await cli.run(["audit", "web", "--samples", "1000", "--json"]);
  expect(said.code).toBe(7);
  expect(jsonLines(said.out).at(-1)).toMatchObject({ sound: false });
});

test("a replica is launched, ended, and tried", async () => {
  const { cli, place } = await project();
  expect(await cli.run(["launch", ...ends, "--job", "web"])).toMatchObject({ code: 3 });
  await cli.run(["copy", ...ends, "--job", "web"]);
  const launched = result((await cli.run(["launch", "web", "--json"])).out).machine;
  expect(place.launchedIds()).toEqual([launched.id]);
  expect((await cli.run(["status", "web"])).out).toContain(launched.id);
  expect(await cli.run(["launch", "web", "--terminate", launched.id])).toMatchObject({ code: 0 });
  expect(place.launchedIds()).toEqual([]);
  const tried = await cli.run(["test", "web", "--hold", "1s"], {
    interrupts: { pause: AbortSignal.abort(), stop: new AbortController().signal },
  });
  expect(tried).toMatchObject({ code: 0, out: expect.stringContaining("ended ") });
  expect(place.launchedIds()).toEqual([]);
});

test("a cutover stops the source, launches, is taken back, done again and made final", async () => {
  const { cli, place } = await project();
  await cli.run(["copy", ...ends, "--job", "web"]);
  place.write("web", "data", 0, randomBytes(4096, 5));
  const over = await cli.run(["cutover", "web", "--json"]);
  expect(over).toMatchObject({ code: 0 });
  expect(result(over.out)).toMatchObject({ step: "launched" });
  expect(place.launchedIds()).toHaveLength(1);
  expect(() => place.write("web", "data", 0, new Uint8Array(512))).toThrow();
  expect(await cli.run(["copy", ...ends, "--job", "web"])).toMatchObject({
    code: 6,
    err: expect.stringContaining("Revert the cutover first"),
  });
  expect(await cli.run(["cutover", "web", "--revert"])).toMatchObject({ code: 0 });
  expect(place.launchedIds()).toEqual([]);
  place.write("web", "data", 0, randomBytes(4096, 6));
  expect(await cli.run(["cutover", "web"])).toMatchObject({ code: 0, out: expect.stringContaining("--finalize") });
  expect(await cli.run(["cutover", "web", "--finalize"])).toMatchObject({ code: 0 });
  expect(await cli.run(["cutover", "web", "--revert"])).toMatchObject({ code: 4 });
});

test("a cutover that fails after a pause was asked for ends with the failure's code, and one that paused with 75", async () => {
  const paused = { pause: AbortSignal.abort(), stop: new AbortController().signal };
  const { cli } = await project({ target: { launch: false } });
  await cli.run(["copy", ...ends, "--job", "web"]);
  expect(await cli.run(["cutover", "web", "--json"], { interrupts: paused })).toMatchObject({ code: 5 });
  const able = await project();
  await able.cli.run(["copy", ...ends, "--job", "web"]);
  able.place.write("web", "data", 0, randomBytes(size, 7));
  expect(await able.cli.run(["cutover", "web", "--json"], { interrupts: paused })).toMatchObject({ code: 75 });
});

test("cleaning up removes nothing on a dry run, keeps replicas, and removes them when told to", async () => {
  const { cli, place } = await project();
  await cli.run(["copy", ...ends, "--job", "web"]);
  const before = place.volumeIds();
  for (const args of [["--dry-run"], [], ["--dry-run", "--include-replicas"]]) {
    expect(await cli.run(["cleanup", "web", ...args])).toMatchObject({ code: 0 });
    expect(place.volumeIds()).toEqual(before);
  }
  expect(await cli.run(["cleanup", "web", "--include-replicas"])).toMatchObject({ code: 0 });
  expect(place.volumeIds()).toEqual([]);
});

test("machines and disks are chosen by name, and asked for where there are several", async () => {
  const { cli, place } = await project();
  place.addMachine({ id: "db", disks: [{ key: "only", size }] });
  expect(await cli.run(["copy", ...ends])).toMatchObject({
    code: 2,
    err: expect.stringMatching(/has several machines \((web, db|db, web)\); name one: --machine/),
  });
  expect(await cli.run(["copy", ...ends, "--machine", "wbe"])).toMatchObject({ code: 3 });
  expect(await cli.run(["copy", ...ends, "--machine", "web", "--disk", "dta"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("it has boot, data"),
  });
  const said = await cli.run(["copy", ...ends, "--machine", "web", "--disk", "data", "--json", "--job", "one"]);
  expect(result(said.out).report.disks.map(({ disk }) => disk)).toEqual(["data"]);
  expect(await cli.run(["verify", "one"])).toMatchObject({ code: 0 });
});

test("providers are listed with their spec, and those that cannot be used with the reason", async () => {
  const { cli } = await project();
  const broken = {
    name: "diskferry-provider-old",
    version: "0.1.0",
    keywords: ["diskferry-provider"],
    diskferry: { spec: "v9", name: "old" },
  };
  await cli.write("node_modules/diskferry-provider-old/package.json", JSON.stringify(broken));
  const { code, out } = await cli.run(["providers"]);
  expect(code).toBe(0);
  expect(out).toMatch(/^local +built in +v1/m);
  expect(out).toMatch(/^vsphere +not installed .*npm install @diskferry\/provider-vmware$/m);
  expect(out).toMatch(/^memory +installed +v1 +1\.2\.3 +diskferry-provider-memory/m);
  expect(out).toMatch(/^old +unusable +v9 .*supports v1; run: npm install @diskferry\/core@latest$/m);
  expect(out).toContain("this diskferry supports spec v1");
  expect(await cli.run(["copy", "old:x", "a.raw"])).toMatchObject({ code: 2 });
  expect(await cli.run(["copy", "old:x", "a.raw", "--provider", "diskferry-provider-old"])).toMatchObject({
    code: 5,
    err: expect.stringContaining("was written for spec v9"),
  });
  expect(await cli.run(["copy", "a.raw", "b.raw", "--provider", "./nowhere"])).toMatchObject({ code: 3 });
});

test("doctor says what is well and what is not, with the code of the first failure", async () => {
  const { cli } = await project();
  const well = await cli.run(["doctor", "memory:place", "target.raw", "--json"]);
  expect(well.code).toBe(0);
  const { findings } = jsonLines(well.out).at(-1) as unknown as {
    findings: { check: string; verdict: string; detail: string }[];
  };
  expect(findings).toContainEqual(expect.objectContaining({ check: "Node.js", verdict: "ok" }));
  expect(findings).toContainEqual(expect.objectContaining({ check: "provider memory", verdict: "ok" }));
  expect(findings).toContainEqual(
    expect.objectContaining({
      check: "state directory",
      verdict: "ok",
      detail: expect.stringContaining("will be made"),
    }),
  );
  expect(findings).toContainEqual(
    expect.objectContaining({ detail: expect.stringContaining("boot 1.0 MiB, data 1.0 MiB") }),
  );

  await cli.write("state/diskferry-state.json", "{}");
  const ill = await cli.run(["doctor", "gone.raw", "target.raw", "--state", "state"], { env: { PATH: "" } });
  expect(ill.code).toBe(7);
  expect(ill.out).toMatch(/^fail +state directory .*is damaged/m);
  expect(ill.out).toMatch(/^fail +source of gone\.raw-\w+ .*does not exist/m);
  expect(ill.out).toMatch(/^warn +nbdkit +is not installed/m);
  const config = await cli.run(["doctor", "--config", "none.yaml"]);
  expect(config).toMatchObject({
    code: 3,
    out: expect.stringMatching(/^fail +configuration .*none\.yaml does not exist/m),
  });
  const same = await cli.run(["doctor", "state/diskferry-state.json", "./state/../state/diskferry-state.json"]);
  expect(same.out).toMatch(/are the same disk/);
});
