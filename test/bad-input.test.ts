import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Job,
  type Machine,
  type ProviderDefinition,
  type ProviderError,
  type ProviderErrorCode,
  Registry,
  defineProvider,
  isProviderError,
  loadProvider,
  openDirectoryState,
  openSource,
  openTarget,
  replicate,
  verify,
  verifyReceipt,
} from "@diskferry/core";
import { provider } from "@diskferry/provider-local";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { describeWithPeers } from "./peers.ts";
import { randomBytes } from "./seed.ts";

// What a user may get wrong: each is refused with an error that names the object and the remedy, and whatever was at
// the target before is still there, byte for byte.

const MIB = 1 << 20;
const size = 2 * MIB;
const registry = new Registry([provider]);
let folder = "";
let refusals = 0;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-bad-"));
  writeFileSync(join(folder, "source.raw"), randomBytes(size, 1));
  writeFileSync(join(folder, "target.raw"), randomBytes(size, 2));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Wanted {
  code: ProviderErrorCode;
  /** What the message has to name. */
  object: string | RegExp;
  /** What the message has to advise. */
  remedy: RegExp;
  /** Default false. */
  isRetryable?: boolean;
}

/** Copies what one URI or path names to what another one does, as a user would. */
async function copy(source: string, target: string, state = join(folder, "state")): Promise<unknown> {
  const [from, to] = [registry.resolve(source), registry.resolve(target)];
  await using store = await openDirectoryState(state);
  await using connector = await openSource(from.definition, from.options);
  await using place = await openTarget(to.definition, to.options);
  const machines: Machine[] = [];
  for await (const machine of connector.machines()) machines.push(machine);
  return await replicate({
    id: "job",
    source: connector,
    machine: machines[0]!.id,
    target: place,
    store,
    options: { workers: 0, attempts: { attempts: 2, baseMs: 1, maxMs: 1, totalMs: 2_000, perAttemptMs: 2_000 } },
  });
}

/** Every file of the folder and what it holds, but for the state directory and what targets remember. */
function contents(): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (!statSync(path).isFile()) continue;
    found[name] = createHash("sha256").update(readFileSync(path)).digest("hex");
  }
  return found;
}

/** Expects an action to be refused in these words, with every file as it was. */
async function expectRefusal(action: () => Promise<unknown>, wanted: Wanted): Promise<ProviderError> {
  const before = contents();
  const error = await action().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isProviderError(error)) throw new Error("this was not refused with a ProviderError", { cause: error });
  expect({ code: error.code, message: error.message }).toEqual({
    code: wanted.code,
    message:
      typeof wanted.object === "string" ? expect.stringContaining(wanted.object) : expect.stringMatching(wanted.object),
  });
  expect(error.message).toMatch(wanted.remedy);
  expect(error.retryable).toBe(wanted.isRetryable ?? false);
  expect(contents()).toEqual(before);
  refusals++;
  return error;
}

const at = (name: string): string => join(folder, name);

describe("a source that cannot be", () => {
  test("a size that is no multiple of 512 is refused by name", async () => {
    truncateSync(at("source.raw"), size - 100);
    await expectRefusal(() => copy(at("source.raw"), at("target.raw")), {
      code: "CONFIG_INVALID",
      object: at("source.raw"),
      remedy: /multiple of 512.*pad it: truncate/,
    });
  });

  test("an empty file is refused", async () => {
    truncateSync(at("source.raw"), 0);
    await expectRefusal(() => copy(at("source.raw"), at("target.raw")), {
      code: "CONFIG_INVALID",
      object: at("source.raw"),
      remedy: /is empty: a disk has at least 512 bytes/,
    });
  });

  test("a file that is not there is refused", async () => {
    await expectRefusal(() => copy(at("nowhere.raw"), at("target.raw")), {
      code: "NOT_FOUND",
      object: at("nowhere.raw"),
      remedy: /does not exist; check the path/,
    });
  });

  test("a directory is refused", async () => {
    mkdirSync(at("disks"));
    await expectRefusal(() => copy(at("disks"), at("target.raw")), {
      code: "CONFIG_INVALID",
      object: at("disks"),
      remedy: /is a directory.*name one image in it/,
    });
  });

  test.skipIf(process.platform === "win32")("a FIFO is refused, and not waited for", async () => {
    execFileSync("mkfifo", [at("pipe")]);
    await expectRefusal(() => copy(at("pipe"), at("target.raw")), {
      code: "CONFIG_INVALID",
      object: at("pipe"),
      remedy: /is a FIFO; name a regular file or a block device/,
    });
  });

  test("a server that is not there is refused", async () => {
    const uri = `nbd+unix:///?socket=${at("no-socket")}`;
    await expectRefusal(() => copy(uri, at("target.raw")), {
      code: "UNAVAILABLE",
      object: at("no-socket"),
      remedy: /is the server running, and the address right/,
      isRetryable: true,
    });
  });
});

describe("a target that cannot be", () => {
  test("one that is a sector too small is refused", async () => {
    truncateSync(at("target.raw"), size - 512);
    await expectRefusal(() => copy(at("source.raw"), at("target.raw")), {
      code: "CONFIG_INVALID",
      object: at("target.raw"),
      remedy: /512 too few.*nothing was written: enlarge it or name another target/,
    });
  });

  test("a size that is no multiple of 512 is refused by name", async () => {
    truncateSync(at("target.raw"), size - 100);
    await expectRefusal(() => copy(at("source.raw"), at("target.raw")), {
      code: "CONFIG_INVALID",
      object: at("target.raw"),
      remedy: /multiple of 512.*pad it: truncate/,
    });
  });

  test.skipIf(process.platform === "win32")("a FIFO is refused, and not waited for", async () => {
    execFileSync("mkfifo", [at("pipe")]);
    await expectRefusal(() => copy(at("source.raw"), at("pipe")), {
      code: "CONFIG_INVALID",
      object: at("pipe"),
      remedy: /is a FIFO; name a regular file or a block device/,
    });
  });

  test("a path through a file is refused", async () => {
    await expectRefusal(() => copy(at("source.raw"), at("target.raw/disk.raw")), {
      code: "CONFIG_INVALID",
      object: at("target.raw/disk.raw"),
      remedy: /no directory; check the path/,
    });
  });

  test("a folder that is not there is refused", async () => {
    await expectRefusal(() => copy(at("source.raw"), at("no-folder/disk.raw")), {
      code: "NOT_FOUND",
      object: at("no-folder/disk.raw"),
      remedy: /does not exist; check the path/,
    });
  });

  test("an image of an unknown format is refused", async () => {
    writeFileSync(at("target.vmdk"), Buffer.concat([Buffer.from("KDMV"), randomBytes(size - 4, 3)]));
    await expectRefusal(() => copy(at("source.raw"), at("target.vmdk")), {
      code: "CONFIG_INVALID",
      object: at("target.vmdk"),
      remedy: /VMDK image.*state format raw/,
    });
  });

  test("what is named qcow2 and is none is refused", async () => {
    writeFileSync(at("target.qcow2"), randomBytes(size, 4));
    await expectRefusal(() => copy(at("source.raw"), at("target.qcow2")), {
      code: "CONFIG_INVALID",
      object: at("target.qcow2"),
      remedy: /state its format/,
    });
  });

  test("another job's replica is refused", async () => {
    await copy(at("source.raw"), at("target.raw"));
    writeFileSync(at("other.raw"), randomBytes(size, 5));
    await expectRefusal(() => copy(at("other.raw"), at("target.raw"), at("other-state")), {
      code: "EXISTS",
      object: at("target.raw"),
      remedy: /name another target, or set overwrite/,
    });
  });
});

describe("the same disk at both ends", () => {
  const wanted: Wanted = {
    code: "CONFIG_INVALID",
    object: /source .*source\.(raw|qcow2) and target .*\.(raw|qcow2) (are the same disk|share the same bytes)/,
    remedy: /nothing was written: name another target/,
  };

  test("by its own path", async () => {
    await expectRefusal(() => copy(at("source.raw"), at("source.raw")), wanted);
  });

  test("by a symbolic link", async () => {
    symlinkSync(at("source.raw"), at("link.raw"));
    await expectRefusal(() => copy(at("source.raw"), at("link.raw")), wanted);
  });

  test("by a symbolic link as the source", async () => {
    symlinkSync(at("source.raw"), at("link.raw"));
    await expectRefusal(() => copy(at("link.raw"), at("source.raw")), {
      ...wanted,
      object: /source .*link\.raw and target .*source\.raw are the same disk/,
    });
  });

  test("by a hard link", async () => {
    linkSync(at("source.raw"), at("hard.raw"));
    await expectRefusal(() => copy(at("source.raw"), at("hard.raw")), {
      ...wanted,
      object: /source .*source\.raw and target .*hard\.raw are the same disk/,
    });
  });
});

describeWithPeers(["qemu-img"], "the same qcow2 image at both ends", () => {
  const qemuImg = (...args: string[]): void => void execFileSync("qemu-img", args, { cwd: folder });

  test("is refused, by its own path and as a backing file", async () => {
    qemuImg("convert", "-f", "raw", "-O", "qcow2", "source.raw", "source.qcow2");
    await expectRefusal(() => copy(at("source.qcow2"), at("source.qcow2")), {
      code: "CONFIG_INVALID",
      object: at("source.qcow2"),
      remedy: /name another target/,
    });
    qemuImg("create", "-q", "-f", "qcow2", "-b", "source.qcow2", "-F", "qcow2", "over.qcow2");
    await expectRefusal(() => copy(at("over.qcow2"), at("source.qcow2"), at("other-state")), {
      code: "EXISTS",
      object: at("source.qcow2"),
      remedy: /name another target/,
    });
    rmSync(at(".diskferry"), { recursive: true });
    await expectRefusal(() => copy(at("over.qcow2"), at("source.qcow2"), at("third-state")), {
      code: "CONFIG_INVALID",
      object: at("source.qcow2"),
      remedy: /share the same bytes; nothing was written: name another target/,
    });
  });
});

describe("names that mean nothing", () => {
  test("an unknown URI scheme is refused", async () => {
    await expectRefusal(() => copy("tape://drive/1", at("target.raw")), {
      code: "CONFIG_INVALID",
      object: "tape:",
      remedy: /local|nbd/,
    });
  });

  test("a URI with a secret in it is refused, and the secret is not repeated", async () => {
    const error = await expectRefusal(() => copy("nbd://user:hunter2@host/disk", at("target.raw")), {
      code: "CONFIG_INVALID",
      object: "host",
      remedy: /./,
    });
    expect(error.message).not.toContain("hunter2");
  });

  test("an unknown parameter of a URI is refused", async () => {
    await expectRefusal(() => copy(`local:${at("source.raw")}?frozn=1`, at("target.raw")), {
      code: "CONFIG_INVALID",
      object: "frozn",
      remedy: /known: .*frozen/,
    });
  });

  test("an unknown provider is refused", async () => {
    await expectRefusal(async () => registry.get("aws-ebs"), {
      code: "NOT_FOUND",
      object: '"aws-ebs"',
      remedy: /npm install @diskferry\/provider-aws/,
    });
    await expectRefusal(() => loadProvider("@example/diskferry-provider-tape"), {
      code: "NOT_FOUND",
      object: "@example/diskferry-provider-tape",
      remedy: /npm install @example\/diskferry-provider-tape/,
    });
  });

  test("a provider for another spec is refused", async () => {
    const other = { ...defineProvider(provider), name: "tape", spec: "v2" } as unknown as ProviderDefinition;
    await expectRefusal(() => loadProvider(other), {
      code: "UNSUPPORTED",
      object: /provider "tape" was written for spec v2, and this @diskferry\/core supports v1/,
      remedy: /npm install @diskferry\/core@latest/,
    });
  });

  test("an unknown option of a provider is refused", async () => {
    await expectRefusal(() => openTarget<unknown, unknown>(provider, { path: at("target.raw"), sparse: true }), {
      code: "CONFIG_INVALID",
      object: "sparse",
      remedy: /./,
    });
  });

  test("an unknown machine and an unknown disk are refused", async () => {
    const state = at("state");
    const job = async (given: Pick<Job, "machine"> & Partial<Pick<Job, "disks">>): Promise<unknown> => {
      await using store = await openDirectoryState(state);
      await using source = await openSource(provider, {
        path: at("source.raw"),
        machine: "vm",
        key: "root",
      });
      await using target = await openTarget(provider, { path: at("target.raw") });
      return await replicate({ id: "job", source, target, store, ...given });
    };
    await expectRefusal(() => job({ machine: "other" }), { code: "NOT_FOUND", object: "other", remedy: /known: vm/ });
    await expectRefusal(() => job({ machine: "vm", disks: ["data"] }), {
      code: "NOT_FOUND",
      object: "data",
      remedy: /it has root/,
    });
  });
});

describe("a state directory that is not what it was", () => {
  const damages: [name: string, wanted: Wanted, damage: (state: string) => void][] = [
    [
      "a file of its own in place of its mark",
      { code: "CORRUPT", object: "state", remedy: /restore it from a backup, or name a new one/ },
      (state) => writeFileSync(join(state, "diskferry-state.json"), "garbage"),
    ],
    [
      "a newer version's mark",
      {
        code: "UNSUPPORTED",
        object: /state has version 2, and this diskferry knows 1/,
        remedy: /use the diskferry that wrote it/,
      },
      (state) => writeFileSync(join(state, "diskferry-state.json"), '{"format":"diskferry state","version":2}'),
    ],
    [
      "no mark, but files",
      { code: "CONFIG_INVALID", object: "state", remedy: /holds other files .* name an empty or a new one/ },
      (state) => rmSync(join(state, "diskferry-state.json")),
    ],
    [
      "a record cut short",
      { code: "CORRUPT", object: "state", remedy: /restore the state directory from a backup|begin the job anew/ },
      (state) => eachFile(state, "keys", ".json", (path) => truncateSync(path, Math.floor(statSync(path).size / 2))),
    ],
    [
      "a record with a flipped bit",
      { code: "CORRUPT", object: "state", remedy: /restore the state directory from a backup|begin the job anew/ },
      (state) => eachFile(state, "keys", ".json", flip),
    ],
    [
      "a lease of garbage",
      { code: "CORRUPT", object: "state", remedy: /restore|remove/ },
      (state) => eachFile(state, "leases", ".json", (path) => writeFileSync(path, "garbage")),
    ],
    [
      "a manifest page with a flipped bit",
      { code: "CORRUPT", object: /manifest|page|root/i, remedy: /./ },
      (state) => eachFile(state, "keys", ".blob", flip),
    ],
  ];

  test.for(damages)("%s is refused", async ([, wanted, damage]) => {
    const state = at("state");
    await copy(at("source.raw"), at("target.raw"), state);
    writeFileSync(at("source.raw"), randomBytes(size, 6));
    damage(state);
    await expectRefusal(() => copy(at("source.raw"), at("target.raw"), state), wanted);
  });

  test("a file in the state directory's place is refused", async () => {
    writeFileSync(at("state"), "no directory");
    await expectRefusal(() => copy(at("source.raw"), at("target.raw"), at("state")), {
      code: "CONFIG_INVALID",
      object: at("state"),
      remedy: /director/,
    });
  });
});

describe("a receipt", () => {
  test("of another disk is refused, and so is one that does not fit the volume", async () => {
    const report = (await copy(at("source.raw"), at("target.raw"))) as { receipts: unknown[] };
    const [receipt] = report.receipts;
    await verifyReceipt(receipt, { machine: at("source.raw"), disk: "disk" });
    await expectRefusal(() => verifyReceipt(receipt, { machine: at("source.raw"), disk: "data" }), {
      code: "NOT_FOUND",
      object: `the receipt of machine ${at("source.raw")} disk disk`,
      remedy: /is of another disk than .* find the receipt of that one/,
    });
    writeFileSync(at("other.raw"), randomBytes(size, 7));
    await using target = await openTarget(provider, { path: at("other.raw") });
    const volume = await target.adopt!(at("other.raw"));
    await using reader = await target.read!(volume);
    await expectRefusal(() => verifyReceipt(receipt, { reader }), {
      code: "CORRUPT",
      object: "the receipt of machine",
      remedy: /not that content/,
    });
  });
});

test("verifying before the first run is refused", async () => {
  await using store = await openDirectoryState(at("state"));
  await using source = await openSource(provider, { path: at("source.raw") });
  await using target = await openTarget(provider, { path: at("target.raw") });
  await expectRefusal(() => verify({ id: "job", source, machine: at("source.raw"), target, store }), {
    code: "NOT_FOUND",
    object: "job",
    remedy: /run it to its end first/,
  });
  console.log(`bad input: ${refusals} refusals, each by code, object and remedy, every file unchanged`);
});

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[Math.floor(bytes.length / 2)]! ^= 1;
  writeFileSync(path, bytes);
}

/** Damages every file of a kind below a folder of the state. */
function eachFile(state: string, below: string, ending: string, damage: (path: string) => void): void {
  const names = readdirSync(join(state, below), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(ending),
  );
  if (names.length === 0) throw new Error(`there is no ${ending} in ${join(state, below)}`);
  for (const name of names) damage(join(state, below, name));
}
