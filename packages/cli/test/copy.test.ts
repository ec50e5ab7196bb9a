import { createHash, generateKeyPairSync } from "node:crypto";
import { existsSync, linkSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { diskBytes, jsonLines, workplace } from "./in-process.ts";

test("a copy is full first and sends nothing when nothing changed", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const first = await place.run(["copy", "disk.raw", "copy.raw"]);
  expect(first).toMatchObject({ code: 0 });
  expect(first.out).toMatch(/run \S+ done/);
  expect(first.out).toMatch(/disk +full +3\.0 MiB/);
  expect(readFileSync(place.path("copy.raw")).equals(diskBytes())).toBe(true);
  const second = await place.run(["copy", "disk.raw", "copy.raw", "--json"]);
  const report = jsonLines(second.out).find(({ type }) => type === "result")!["report"] as { disks: object[] };
  expect(report.disks).toEqual([expect.objectContaining({ mode: "rescan", moved: 0, same: 3 << 20 })]);
});

test("only what differs is sent again, and the report names the fallback", async () => {
  const place = await workplace();
  const bytes = diskBytes();
  await place.write("disk.raw", bytes);
  await place.run(["copy", "disk.raw", "copy.qcow2"]);
  bytes.fill(7, 1 << 20, (1 << 20) + 512);
  await place.write("disk.raw", bytes);
  const said = await place.run(["copy", "disk.raw", "copy.qcow2", "--json"]);
  const lines = jsonLines(said.out);
  expect(said).toMatchObject({ code: 0, err: "" });
  expect(lines).toContainEqual(
    expect.objectContaining({ type: "fallback", disk: "disk", from: "incremental", to: "rescan" }),
  );
  const { disks } = lines.find(({ type }) => type === "result")!["report"] as { disks: { moved: number }[] };
  expect(disks[0]!.moved).toBeGreaterThan(0);
  expect(disks[0]!.moved).toBeLessThan(1 << 20);
  const quiet = await place.run(["copy", "disk.raw", "copy.qcow2", "--quiet"]);
  expect(quiet.err).toMatch(/^fallback: job .*incremental → rescan: .*\n$/);
});

test("JSON lines are one object each: progress, then a result", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const { out, err, code } = await place.run(["copy", "disk.raw", "copy.raw", "--json", "--job", "nightly"]);
  const lines = jsonLines(out);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(new Set(lines.map(({ type }) => type))).toEqual(new Set(["progress", "result"]));
  expect(lines.at(-1)).toMatchObject({ type: "result", command: "copy", job: "nightly", report: { status: "done" } });
  const progress = lines.filter(({ type }) => type === "progress");
  expect(progress.at(-1)).toMatchObject({ job: "nightly", final: true, doneBytes: 3 << 20, totalBytes: 3 << 20 });
});

test("the job's id follows from source and target, whatever folder and parameters they are named with", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const ids: unknown[] = [];
  for (const source of [
    "disk.raw",
    "./disk.raw",
    place.path("disk.raw"),
    "local:disk.raw",
    "raw:disk.raw?frozen=true",
  ]) {
    const { out } = await place.run(["plan", source, "copy.raw", "--json"]);
    ids.push((jsonLines(out).at(-1)!["plan"] as { job: string }).job);
  }
  const other = await place.run(["plan", "disk.raw", "other.raw", "--json"]);
  ids.push((jsonLines(other.out).at(-1)!["plan"] as { job: string }).job);
  expect(new Set(ids.slice(0, 5)).size).toBe(1);
  expect(ids[0]).toMatch(/^disk\.raw-[0-9a-f]{12}$/);
  expect(ids[5]).not.toBe(ids[0]);
});

test("a job that was begun with two names is known by its id later", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.run(["copy", "disk.raw", "copy.raw", "--job", "one"]);
  expect(await place.run(["verify", "one"])).toMatchObject({ code: 0 });
  const list = await place.run(["status"]);
  expect(list.out).toMatch(/^one +\S+ +good/m);
  const detail = await place.run(["status", "one"]);
  expect(detail.out).toContain(place.path("copy.raw"));
  expect(await place.run(["cleanup", "one", "--dry-run"])).toMatchObject({
    code: 0,
    out: expect.stringContaining("the record names it"),
  });
  expect(await place.run(["verify", "oen"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("there is no job oen in "),
  });
  expect((await place.run(["verify", "oen"])).err).toContain("(did you mean one?)");
  await place.run(["cleanup", "one", "--include-replicas"]);
  expect(existsSync(place.path("copy.raw"))).toBe(false);
});

test("verify finds a replica that was altered and ends with 7; a full copy mends it", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.run(["copy", "disk.raw", "copy.raw"]);
  expect(await place.run(["verify", "disk.raw", "copy.raw"])).toMatchObject({ code: 0 });
  const altered = readFileSync(place.path("copy.raw"));
  altered[2_000_000]! ^= 1;
  await writeFile(place.path("copy.raw"), altered, { flag: "r+" });
  const said = await place.run(["verify", "disk.raw", "copy.raw"]);
  expect(said.code).toBe(7);
  expect(said.out).toContain("DIFFERENT");
  const json = await place.run(["verify", "disk.raw", "copy.raw", "--json"]);
  expect(jsonLines(json.out).at(-1)).toMatchObject({ type: "result", equal: false });
  await place.run(["copy", "disk.raw", "copy.raw", "--mode", "full"]);
  expect(await place.run(["verify", "disk.raw", "copy.raw"])).toMatchObject({ code: 0 });
});

test("receipts are written, signed, and checked against key and disk", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  await place.write("key.pem", privateKey.export({ type: "pkcs8", format: "pem" }));
  await place.write("public.pem", publicKey.export({ type: "spki", format: "pem" }));
  const copied = await place.run([
    "copy",
    "disk.raw",
    "copy.qcow2",
    "--job",
    "j",
    "--receipts",
    "receipts",
    "--receipt-key",
    "key.pem",
  ]);
  expect(copied).toMatchObject({ code: 0 });
  const [name] = readdirSync(place.path("receipts"));
  const file = `receipts/${name}`;
  const checked = await place.run(["receipt", "verify", file, "--key", "public.pem", "--disk", "copy.qcow2"]);
  expect(checked).toMatchObject({ code: 0, err: "" });
  expect(checked.out).toContain("signature: valid");
  expect(checked.out).toContain("content: equal to the disk that was read");

  await place.write("other.raw", diskBytes(3 << 20, 2));
  expect(await place.run(["receipt", "verify", file, "--disk", "other.raw"])).toMatchObject({
    code: 7,
    err: expect.stringContaining("not that content"),
  });
  await place.write("small.raw", diskBytes(1 << 20, 2));
  expect(await place.run(["receipt", "verify", file, "--disk", "small.raw"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("is of a disk of 3145728 bytes, and this one has 1048576: another"),
  });
  expect(await place.run(["receipt", "verify", file, "--of-machine", "web"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("is of another disk than web"),
  });
  const altered = JSON.parse(readFileSync(place.path(file), "utf8")) as { volume: string };
  await place.write("altered.json", JSON.stringify({ ...altered, volume: "another" }));
  expect(await place.run(["receipt", "verify", "altered.json", "--key", "public.pem"])).toMatchObject({
    code: 7,
    err: expect.stringContaining("altered after it was signed"),
  });
  await place.write("no.json", "{");
  expect(await place.run(["receipt", "verify", "no.json"])).toMatchObject({
    code: 7,
    err: expect.stringContaining("it is not JSON"),
  });
  expect(await place.run(["receipt", "verify", "missing.json"])).toMatchObject({ code: 3 });
});

test("a key that cannot sign is found before anything is copied", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.write("key.pem", "no key");
  for (const [key, code] of [
    ["key.pem", 2],
    ["missing.pem", 3],
  ] as const) {
    const said = await place.run(["copy", "disk.raw", "copy.raw", "--receipts", "r", "--receipt-key", key]);
    expect(said).toMatchObject({ code, err: expect.stringContaining("openssl genpkey -algorithm ed25519") });
  }
  expect(existsSync(place.path("copy.raw"))).toBe(false);
});

test("a pause before anything began copies nothing and ends with 75", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const interrupts = { pause: AbortSignal.abort(), stop: new AbortController().signal };
  const said = await place.run(["copy", "disk.raw", "copy.raw"], { interrupts });
  expect(said).toMatchObject({ code: 75, out: "" });
  expect(existsSync(place.path("copy.raw"))).toBe(false);
});

test("a closed backup window is waited for, and a pause ends the wait", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  const pause = new AbortController();
  const hour = new Date().getUTCHours();
  const closed = `${String((hour + 2) % 24).padStart(2, "0")}:00-${String((hour + 3) % 24).padStart(2, "0")}:00`;
  const said = await place.run(["copy", "disk.raw", "copy.raw", "--window", closed, "--time-zone", "UTC"], {
    interrupts: { pause: pause.signal, stop: new AbortController().signal },
    watch: ({ err }) => err.includes("waits for") && setTimeout(() => pause.abort(), 50),
  });
  expect(said).toMatchObject({
    code: 75,
    err: expect.stringContaining("waits for its backup window, which opens at "),
  });
  expect(existsSync(place.path("copy.raw"))).toBe(false);
});

test("an interrupted copy goes on where it was durable when the same command runs again", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes(96 << 20));
  const pause = new AbortController();
  const args = ["copy", "disk.raw", "copy.raw", "--json"];
  const first = await place.run([...args, "--bandwidth", "32MiB"], {
    interrupts: { pause: pause.signal, stop: new AbortController().signal },
    watch: ({ out }) => /"phase":"copying","doneBytes":[1-9]/.test(out) && pause.abort(),
  });
  expect(first.code).toBe(75);
  const done = jsonLines(first.out).find(({ type }) => type === "result")!["report"] as {
    status: string;
    disks: { moved: number }[];
  };
  expect(done.status).toBe("paused");
  const again = await place.run(args);
  const report = jsonLines(again.out).at(-1)!["report"] as { resumed: boolean; disks: { moved: number }[] };
  expect(again.code).toBe(0);
  expect(report.resumed).toBe(true);
  // Nothing was copied twice.
  expect(report.disks[0]!.moved + done.disks[0]!.moved).toBe(96 << 20);
  expect(readFileSync(place.path("copy.raw")).equals(diskBytes(96 << 20))).toBe(true);
});

/** Bad input, the exit code, and what has to be said of it: the object and the remedy. */
const bad: readonly (readonly [title: string, args: readonly string[], code: number, ...said: RegExp[]])[] = [
  ["a missing file", ["missing.raw", "target.raw"], 3, /missing\.raw does not exist; check the path/],
  ["a directory as source", ["folder", "target.raw"], 2, /folder is a directory/, /name one image/],
  ["a FIFO", ["fifo", "target.raw"], 2, /fifo/, /FIFO|pipe/i],
  ["a size that is no multiple of 512", ["odd.raw", "target.raw"], 2, /odd\.raw/, /512/],
  ["an empty file", ["empty.raw", "target.raw"], 2, /empty\.raw is empty/],
  [
    "a target that is too small",
    ["disk.raw", "small.raw"],
    2,
    /small\.raw has 1048576 bytes/,
    /enlarge it or name another target/,
  ],
  ["a target whose size is no multiple of 512", ["disk.raw", "odd.raw"], 2, /odd\.raw/, /512/],
  ["a target that is a FIFO", ["disk.raw", "fifo"], 2, /fifo/],
  ["the same file twice", ["disk.raw", "disk.raw"], 2, /are the same disk; nothing was written: name another target/],
  ["the same file by a symbolic link", ["disk.raw", "symbolic.raw"], 2, /are the same disk/],
  ["the same file by a hard link", ["disk.raw", "hard.raw"], 2, /are the same disk/],
  ["the same file by a URI", ["disk.raw", "local:disk.raw"], 2, /are the same disk/],
  ["the same image twice", ["image.qcow2", "image.qcow2"], 2, /are the same disk/],
  ["an unknown scheme", ["dsik:disk.raw", "target.raw"], 2, /no provider for "dsik:"/, /write \.\/dsik:disk\.raw/],
  [
    "a provider that is not installed",
    ["vsphere://host/vm", "target.raw"],
    3,
    /npm install @diskferry\/provider-vmware/,
  ],
  ["a password in a URI", ["nbd://me:hunter2@host/disk", "target.raw"], 2, /carries a password/],
  ["an image that only seems to be qcow2", ["fake.qcow2", "target.raw"], 2, /fake\.qcow2/, /format/],
  ["an unknown format", ["disk.vmdk", "target.raw"], 2, /VMDK/, /qemu-nbd/],
  ["an NBD server that is not there", ["nbd+unix:///?socket=none.sock", "target.raw"], 8, /none\.sock/],
  ["a target in a folder that is not there", ["disk.raw", "no/such/target.raw"], 3, /no\/such\/target\.raw/],
  ["a mistyped device as target", ["disk.raw", "/dev/no-such-disk"], 3, /there is no block device \/dev\/no-such-disk/],
];

async function badPlace(): Promise<Awaited<ReturnType<typeof workplace>>> {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.write("small.raw", diskBytes(1 << 20, 3));
  await place.write("odd.raw", diskBytes(1000, 4));
  await place.write("empty.raw", "");
  await place.write("fake.qcow2", diskBytes(1 << 20, 5));
  await place.write("disk.vmdk", Buffer.concat([Buffer.from("KDMV"), diskBytes(4092, 6)]));
  await place.run(["copy", "small.raw", "image.qcow2"]);
  await mkdir(place.path("folder"));
  execFileSync("mkfifo", [place.path("fifo")]);
  symlinkSync("disk.raw", place.path("symbolic.raw"));
  linkSync(place.path("disk.raw"), place.path("hard.raw"));
  return place;
}

/** Every file below a folder, those that remember targets included; the command's own state directory is left out. */
function contents(folder: string): Record<string, string> {
  const files = readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => `${parentPath}/${name}`)
    .filter((path) => !path.includes("/state-home/"));
  return Object.fromEntries(files.map((path) => [path, createHash("sha256").update(readFileSync(path)).digest("hex")]));
}

test.for(bad)("%s is refused by name, and the target is untouched", async ([, args, code, ...said]) => {
  const place = await badPlace();
  const before = contents(place.folder);
  const found = await place.run(["copy", ...args]);
  expect(found.code, found.err).toBe(code);
  for (const pattern of said) expect(found.err).toMatch(pattern);
  expect(found.err).not.toContain("hunter2");
  expect(found.err).not.toMatch(/^\s+at /m);
  expect(contents(place.folder)).toEqual(before);
});

test("a spawned command ends with the same codes", async () => {
  const place = await badPlace();
  for (const [, args, code] of bad.filter((_, index) => index % 5 === 0)) {
    expect((await place.spawn(["copy", ...args]).ended).code).toBe(code);
  }
  expect(await place.spawn(["copy", "disk.raw", "target.raw"]).ended).toMatchObject({ code: 0 });
});

test("a damaged state directory is named and nothing is copied", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.write("state/diskferry-state.json", "rubbish");
  const said = await place.run(["copy", "disk.raw", "copy.raw", "--state", "state"]);
  expect(said).toMatchObject({
    code: 7,
    err: expect.stringContaining(`the state directory ${place.path("state")} is damaged`),
  });
  expect(existsSync(place.path("copy.raw"))).toBe(false);
  await place.write("other/file", "mine");
  expect(await place.run(["copy", "disk.raw", "copy.raw", "--state", "other"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("holds other files (file) and is no state directory"),
  });
  expect(existsSync(place.path("copy.raw"))).toBe(false);
});

test("a job's damaged document is told by status, verify and copy alike", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.run(["copy", "disk.raw", "copy.raw", "--job", "one", "--state", "state"]);
  const [file] = readdirSync(place.path("state"), { recursive: true, withFileTypes: true })
    .filter(({ name, parentPath }) => name.startsWith("state") && name.endsWith(".json") && parentPath.includes("keys"))
    .map(({ name, parentPath }) => `${parentPath}/${name}`);
  await truncate(file!, 20);
  for (const args of [
    ["status"],
    ["verify", "disk.raw", "copy.raw", "--job", "one"],
    ["copy", "disk.raw", "copy.raw", "--job", "one"],
  ]) {
    expect(await place.run([...args, "--state", "state"])).toMatchObject({
      code: 7,
      err: expect.stringContaining(file!),
    });
  }
  expect(readFileSync(place.path("copy.raw")).equals(diskBytes())).toBe(true);
});

test("a source that changed its size and a full target are told, and the same command goes on once they are mended", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  await place.write("copy.raw", new Uint8Array(3 << 20));
  await place.run(["copy", "disk.raw", "copy.raw"]);
  await truncate(place.path("disk.raw"), 4 << 20);
  expect(await place.run(["copy", "disk.raw", "copy.raw"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("enlarge it"),
  });
  await truncate(place.path("copy.raw"), 4 << 20);
  expect(await place.run(["copy", "disk.raw", "copy.raw"])).toMatchObject({ code: 0 });
  expect(readFileSync(place.path("copy.raw")).equals(readFileSync(place.path("disk.raw")))).toBe(true);
});

test("nothing is made by looking at a state directory that is not there", async () => {
  const place = await workplace();
  await place.write("disk.raw", diskBytes());
  expect(await place.run(["status"])).toMatchObject({ code: 0, out: expect.stringContaining("no jobs") });
  expect(await place.run(["status", "one"])).toMatchObject({ code: 3 });
  expect(await place.run(["verify", "disk.raw", "copy.raw"])).toMatchObject({ code: 3 });
  expect(await place.run(["plan", "disk.raw", "copy.raw"])).toMatchObject({ code: 0 });
  expect(existsSync(place.path("state-home"))).toBe(false);
  await rm(place.path("disk.raw"));
});
