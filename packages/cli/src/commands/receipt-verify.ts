import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import {
  type BlockReader,
  openSource,
  ProviderError,
  type ReceiptVerdict,
  verifyReceipt,
  type Wait,
} from "@diskferry/core";
import type { Command, CommandContext } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { absoluteName } from "../jobs/disk-names.ts";
import { Providers } from "../providers.ts";
import { formatBytes } from "../quantities.ts";
import { providerOptions } from "../shared-options.ts";
import { usageError } from "../usage-error.ts";

/** Checks a receipt. */
export const receiptVerify: Command = {
  name: "receipt verify",
  summary: "check a receipt offline: its form, its signature, and the disk it is about",
  usage: ["<file> [--key <public key>] [--disk <path or URI>]"],
  options: {
    key: { value: "file", summary: "the Ed25519 public key in PEM that it has to be signed with" },
    disk: { value: "uri", summary: "read this disk, all of it, and compare it with the receipt" },
    "of-machine": { value: "id", summary: "the machine it has to be of" },
    "of-disk": { value: "key", summary: "the disk of the machine it has to be of" },
    root: { value: "hex", summary: "the Merkle root it has to name" },
    ...providerOptions,
  },
  async run(context) {
    const { positionals, options, io, output, interrupts } = context;
    const [file, ...more] = positionals;
    if (file === undefined || more.length > 0)
      throw usageError(`receipt verify takes one file, and was given ${positionals.length}`);
    const path = resolve(io.cwd, file);
    const receipt = parse(path, await textOf(path, "receipt"));
    const key = options.text("key");
    const disk = options.text("disk");
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    const expected = {
      signal,
      publicKey: key === undefined ? undefined : await textOf(resolve(io.cwd, key), "key"),
      machine: options.text("of-machine"),
      disk: options.text("of-disk"),
      root: options.text("root"),
    };
    // What costs nothing is checked before a disk is read.
    let verdict = await verifyReceipt(receipt, expected);
    if (disk !== undefined)
      verdict = await withDisk(disk, context, (reader) => verifyReceipt(receipt, { ...expected, reader }), { signal });
    output.result("receipt verify", { file: path, ...verdict }, verdictText(verdict));
    return DONE;
  },
};

async function withDisk(
  name: string,
  { io, options, output }: CommandContext,
  check: (reader: BlockReader) => Promise<ReceiptVerdict>,
  wait: Wait,
): Promise<ReceiptVerdict> {
  const label = absoluteName(name, io.cwd);
  const { definition, options: given } = await new Providers(io.cwd, options.list("provider")).resolve(label);
  await using source = await openSource(definition, given, { ...wait, notice: (message) => output.notice(message) });
  const machines = [];
  for await (const machine of source.machines(wait)) machines.push(machine);
  const [machine, ...others] = machines;
  if (machine === undefined || others.length > 0 || machine.disks.length !== 1) {
    throw usageError(`--disk names one disk, and ${label} has ${machines.flatMap(({ disks }) => disks).length}`);
  }
  const snapshot = await source.snapshot(machine, { key: `receipt/${Date.now()}`, ...wait });
  try {
    await using reader = await source.open(snapshot.disks[0]!, wait);
    return await check(reader);
  } finally {
    await source.release(snapshot);
  }
}

async function textOf(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const { code } = cause as { code?: unknown };
    const [kind, why] =
      code === "ENOENT"
        ? (["NOT_FOUND", "does not exist; check the path"] as const)
        : code === "EISDIR"
          ? (["CONFIG_INVALID", "is a directory; name the file in it"] as const)
          : (["DENIED", `cannot be read (${String(code)}); check its permissions`] as const);
    throw new ProviderError(kind, `the ${what} ${path} ${why}`, { operation: `read ${what}`, cause });
  }
}

function parse(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ProviderError("CORRUPT", `${path} is no receipt: it is not JSON; get the original file`, {
      operation: "read receipt",
      cause,
    });
  }
}

const signatures: Record<ReceiptVerdict["signature"], string> = {
  valid: "valid",
  unchecked: "there, and not checked: give --key",
  absent: "none: whoever has the file could have written it",
};

function verdictText({ receipt, signature, root, content }: ReceiptVerdict): string {
  const { machine, disk, size, run, volume, source, manifest, verified } = receipt;
  return [
    `machine ${machine}, disk ${disk}, ${formatBytes(size)}\n`,
    `run ${run}, point in time ${source.takenAt}, consistency ${source.consistency}\n`,
    `volume ${volume}; verified: ${verified.mode}, ${formatBytes(verified.bytes)}\n`,
    `root ${manifest.root} (${manifest.algorithm}, leaves of ${formatBytes(manifest.leaf)})\n`,
    `signature: ${signatures[signature]}\n`,
    `root: ${root === "equal" ? "as expected" : "not compared"}\n`,
    `content: ${content === "equal" ? "equal to the disk that was read" : "not compared: give --disk"}\n`,
  ].join("");
}
