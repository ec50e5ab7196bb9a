import { existsSync, readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { goodConfig } from "./good-config.ts";
import { diskBytes, jsonLines, workplace } from "./in-process.ts";

async function placeWithConfig(text: string): Promise<Awaited<ReturnType<typeof workplace>>> {
  const place = await workplace();
  await place.write("etc/jobs.yaml", text);
  await place.write("etc/disks/web.raw", diskBytes(3 << 20, 11));
  await place.write("etc/disks/db.raw", diskBytes(2 << 20, 12));
  return place;
}

test("the jobs of a file run, relative to the file's folder, with its options", async () => {
  const place = await placeWithConfig(goodConfig);
  const env = { DISKS: place.path("etc/disks") };
  const said = await place.run(["sync", "--config", "etc/jobs.yaml", "--json"], { env });
  expect(said).toMatchObject({ code: 0, err: "" });
  const results = jsonLines(said.out).filter(({ type }) => type === "result");
  expect(new Set(results.map(({ job }) => job))).toEqual(new Set(["web", "db"]));
  const db = results.find(({ job }) => job === "db")!["report"] as { disks: object[]; receipts: object[] };
  expect(db.disks).toEqual([expect.objectContaining({ digest: "sha256", moved: 2 << 20 })]);
  expect(existsSync(place.path("etc/db.qcow2"))).toBe(true);
  expect(readdirSync(place.path("etc/backup/web"))).toHaveLength(1);
  expect(readdirSync(place.path("etc/receipts"))).toHaveLength(2);
  expect(existsSync(place.path("etc/state/diskferry-state.json"))).toBe(true);
  expect(existsSync(place.path("state-home"))).toBe(false);

  const status = await place.run(["status", "-c", "etc/jobs.yaml", "--json"], { env });
  expect(jsonLines(status.out)[0]).toMatchObject({ jobs: [{ job: "web" }, { job: "db" }] });
  expect(await place.run(["verify", "-c", "etc/jobs.yaml", "db"], { env })).toMatchObject({ code: 0 });
  expect(await place.run(["sync", "-c", "etc/jobs.yaml", "wbe"], { env })).toMatchObject({
    code: 3,
    err: expect.stringMatching(/there is no job wbe in etc\/jobs\.yaml \(did you mean web\?\); it has web, db/),
  });
  expect(await place.run(["doctor", "-c", "etc/jobs.yaml"], { env })).toMatchObject({ code: 0 });
});

test("everything that is wrong is told at once, with its path and what may have been meant", async () => {
  const place = await placeWithConfig(`
stat: ./state
concurrency: none
defaults: { verfy: full }
receipts: { folder: ./receipts }
jobs:
  web:
    sorce: disks/web.raw
    target: { provider: local, pth: a.raw }
    verify: some
    bandwidth: fast
    window: 25:00-26:00
    every: soon
  "a b":
    source: { provider: locl }
    target: { path: b.raw }
  db:
    source: nope://x
    target: \${NOWHERE}/db.raw
    workers: \${WORKERS}
    parallelDisks: \${DISKS}
    timeZone: Mars/Olympus
    window: 22:00-06:00
`);
  const said = await place.run(["sync", "--config", "etc/jobs.yaml"]);
  expect(said).toMatchObject({ code: 2, out: "" });
  expect(said.err.replaceAll(place.folder, "")).toMatchInlineSnapshot(`
    "diskferry: the configuration file /etc/jobs.yaml is not valid; mend these and run again:
      jobs.db.target: NOWHERE is not set
      jobs.db.workers: WORKERS is not set
      jobs.db.parallelDisks: DISKS is not set
      concurrency: has to be a whole number
      receipts.directory: is missing; it has to be text
      receipts.folder: is not known (known: directory, key)
      defaults.verfy: is not known (did you mean verify?)
      jobs.web.source: has to be a path, a URI, or an object with provider and that provider's options
      jobs.web.verify: has to be none or written or full
      jobs.web.bandwidth: has to be bytes per second, such as 1048576 or 50MiB
      jobs.web.every: has to be a time span, such as 30s, 15m, 1h or 1d
      jobs.web.sorce: is not known (did you mean source?)
      jobs["a b"].target: has to be a path, a URI, or an object with provider and that provider's options
      stat: is not known (did you mean state?)
      jobs.web.window: backup window "25:00-26:00": 25:00 is no time of day; write it like 22:00-06:00 or Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00
      jobs["a b"]: a job's name has letters, digits and . _ @ + - alone
      jobs.db.timeZone: there is no time zone "Mars/Olympus"; give an IANA name such as Europe/Berlin or UTC
      jobs.web.target: Unrecognized key: "pth" (did you mean path?)
      jobs.web.target: name a disk: path (file or device), uri (NBD), disks (a machine of several) or directory (a target)
      jobs["a b"].source: there is no provider locl (did you mean local?)
      jobs.db.source: no provider for "nope:" in nope://x; known schemes are aws-ebs (npm install @diskferry/provider-aws), cloudstack (npm install @diskferry/provider-cloudstack), file, local, nbd, nbd+unix, nbds, nbds+unix, qcow2, raw, vsphere (npm install @diskferry/provider-vmware); for another provider install its package, or name the package's folder (--provider ./ on the command line); for a file of that name write ./nope://x [CONFIG_INVALID]
    "
  `);
});

test("syntax errors are told by line", async () => {
  const place = await placeWithConfig(`jobs:\n  web: {source: a, source: b\n  db: [\n`);
  const said = await place.run(["sync", "--config", "etc/jobs.yaml"]);
  expect(said.code).toBe(2);
  expect(said.err).toMatch(/line \d+, column \d+: /);
  const empty = await placeWithConfig("");
  expect((await empty.run(["sync", "-c", "etc/jobs.yaml"])).err).toContain("has to be a mapping");
  const bomb = await placeWithConfig(
    `a: &a [1,1,1,1,1,1,1,1,1]\n${"bcdefghi"
      .split("")
      .map((name, index) => `${name}: &${name} [${`*${"abcdefghi"[index]},`.repeat(9)}]`)
      .join("\n")}\njobs: {}\n`,
  );
  expect(await bomb.run(["sync", "-c", "etc/jobs.yaml"])).toMatchObject({ code: 2 });
  expect(await place.run(["sync", "-c", "no.yaml"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("no.yaml does not exist"),
  });
  expect(await place.run(["sync", "-c", "etc"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("is a directory"),
  });
});

test("a secret from the environment is never shown, even by who complains of it", async () => {
  const place = await placeWithConfig(`
jobs:
  web:
    source: { provider: local, path: "\${DISK_PASSWORD}", format: "\${DISK_PASSWORD}" }
    target: a.raw
    mode: "\${DISK_PASSWORD}"
  db:
    source: "nope:\${DISK_PASSWORD}"
    target: a.raw
    window: "\${DISK_PASSWORD}"
`);
  const env = { DISK_PASSWORD: "/hunter2/swordfish" };
  for (const args of [
    ["sync", "-c", "etc/jobs.yaml"],
    ["doctor", "-c", "etc/jobs.yaml"],
    ["sync", "-c", "etc/jobs.yaml", "--json", "--debug"],
  ]) {
    const said = await place.run(args, { env });
    expect(said.code).toBe(2);
    expect(said.out + said.err).not.toContain("swordfish");
  }
});

test("a secret that stands in the file itself is not quoted where it breaks the syntax", async () => {
  const broken = {
    "*hunter2": /column 17: \* names no anchor; put a text that begins with \* in quotes/,
    "}hunter2": /column 17: Unexpected flow-map-end token in YAML stream\n/,
    "|hunter2": /column 18: Block scalar header includes extra characters/,
    ">hunter2": /column 18: Block scalar header includes extra characters/,
    "!hunter2": /column 17: ! begins a tag, and none is known here/,
    "!hun!ter2": /column 17: ! begins a tag, and none is known here/,
    '"\\Uhunter2xyz"': /column 18: a backslash in double quotes begins no known escape/,
    "{{ hunter2 }}": /column 18: this is no name; was a \{\{ \}\} of a template left unfilled\?/,
    '"abc" hunter2': /column 23: Unexpected scalar at node end/,
  };
  for (const [password, told] of Object.entries(broken)) {
    const place = await placeWithConfig(`
jobs:
  web:
    source: disks/web.raw
    target:
      provider: local
      password: ${password}
`);
    const said = await place.run(["sync", "-c", "etc/jobs.yaml"]);
    expect(said).toMatchObject({ code: 2, out: "" });
    expect(said.err).toMatch(told);
    expect(said.err).toMatch(/line 7/);
    expect(said.err).not.toMatch(/hun!?ter/);
  }
});

test("one job that fails does not hold the others up, and decides the exit code", async () => {
  const place = await placeWithConfig(`
state: state
concurrency: 1
jobs:
  gone: { source: disks/gone.raw, target: gone.raw }
  web: { source: disks/web.raw, target: web.raw }
`);
  const said = await place.run(["sync", "-c", "etc/jobs.yaml"]);
  expect(said.code).toBe(3);
  expect(said.err).toMatch(/diskferry: job gone: .*gone\.raw does not exist/);
  expect(said.out).toMatch(/^job web: run \S+ done/);
  expect(readFileSync(place.path("etc/web.raw")).equals(diskBytes(3 << 20, 11))).toBe(true);
});

test("no more jobs run at once than concurrency says", async () => {
  const place = await placeWithConfig(`
state: state
concurrency: 2
defaults: { bandwidth: 4MiB }
jobs:
  a: { source: disks/web.raw, target: a.raw }
  b: { source: disks/web.raw, target: b.raw }
  c: { source: disks/web.raw, target: c.raw }
  d: { source: disks/web.raw, target: d.raw }
`);
  const running = new Set<unknown>();
  let most = 0;
  const said = await place.run(["sync", "-c", "etc/jobs.yaml", "--json"], {
    watch: ({ out }) => {
      const { type, job, final } = jsonLines(out).at(-1)!;
      if (type === "progress" && final !== true) running.add(job);
      else if (type === "result" || final === true) running.delete(job);
      most = Math.max(most, running.size);
    },
  });
  expect(said.code).toBe(0);
  expect(most).toBe(2);
  expect(jsonLines(said.out).filter(({ type }) => type === "result")).toHaveLength(4);
});

test("a job that waits for its backup window holds up no job that may run", async () => {
  const hour = new Date().getUTCHours();
  const closed = `${String((hour + 2) % 24).padStart(2, "0")}:00-${String((hour + 3) % 24).padStart(2, "0")}:00`;
  const place = await placeWithConfig(`
state: state
concurrency: 1
jobs:
  late: { source: disks/web.raw, target: late.raw, window: "${closed}", timeZone: UTC }
  now: { source: disks/web.raw, target: now.raw }
`);
  const pause = new AbortController();
  const said = await place.run(["sync", "-c", "etc/jobs.yaml", "--json"], {
    interrupts: { pause: pause.signal, stop: new AbortController().signal },
    watch: ({ out }) => {
      if (out.includes(`"type":"result"`)) pause.abort();
      // As long as nobody would wait for a copy of 3 MiB.
      else if (out.includes("waits for its backup window")) setTimeout(() => pause.abort(), 60_000).unref();
    },
  });
  expect(said.code).toBe(75);
  expect(jsonLines(said.out).filter(({ type }) => type === "result")).toMatchObject([{ job: "now" }]);
  expect(existsSync(place.path("etc/late.raw"))).toBe(false);
});

test("each disk has a receipt of its own, whatever letters its key has", async () => {
  const place = await placeWithConfig(`
state: state
receipts: { directory: receipts }
jobs:
  web:
    source:
      provider: local
      machine: web
      disks:
        - { key: "a/b", path: disks/web.raw }
        - { key: "a:b", path: disks/db.raw }
    target: backup/
`);
  expect(await place.run(["sync", "-c", "etc/jobs.yaml"])).toMatchObject({ code: 0 });
  const folder = place.path("etc/receipts");
  const disks = readdirSync(folder).map(
    (name) => (JSON.parse(readFileSync(`${folder}/${name}`, "utf8")) as { disk: string }).disk,
  );
  expect(disks.toSorted()).toEqual(["a/b", "a:b"]);
});

test("doctor looks at the state directory that the file names", async () => {
  const place = await placeWithConfig(`
state: ./state
jobs:
  web: { source: disks/web.raw, target: web.raw }
`);
  await place.write("etc/state/mine", "no state");
  expect(await place.run(["doctor", "-c", "etc/jobs.yaml"])).toMatchObject({
    code: 2,
    out: expect.stringMatching(/^fail +state directory .*etc\/state holds other files \(mine\)/m),
  });
});

test("a standing job runs again and again until it is paused", async () => {
  const place = await placeWithConfig(`
state: state
jobs:
  web: { source: disks/web.raw, target: web.raw, every: 1s }
`);
  const pause = new AbortController();
  const said = await place.run(["sync", "-c", "etc/jobs.yaml", "--json"], {
    interrupts: { pause: pause.signal, stop: new AbortController().signal },
    watch: ({ out }) => out.split(`"type":"result"`).length > 3 && pause.abort(),
  });
  expect(said.code).toBe(0);
  const modes = jsonLines(said.out)
    .filter(({ type }) => type === "result")
    .map(({ report }) => (report as { disks: { mode: string }[] }).disks[0]!.mode);
  expect(modes).toEqual(["full", "rescan", "rescan"]);
});

test("what arguments say goes before the file", async () => {
  const place = await placeWithConfig(`
state: state
jobs:
  web: { source: disks/web.raw, target: web.raw, digest: sha256, every: 1h }
`);
  const said = await place.run([
    "sync",
    "-c",
    "etc/jobs.yaml",
    "--json",
    "--once",
    "--digest",
    "none",
    "--state",
    "other",
  ]);
  const report = jsonLines(said.out).at(-1)!["report"] as { disks: object[] };
  expect(report.disks).toEqual([expect.objectContaining({ digest: "none" })]);
  expect(existsSync(place.path("other"))).toBe(true);
});
