import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";
import { root } from "../scripts/workspace.ts";

// Mistakes that the compiler finds, and how it says so: each snippet is compiled as a user's module.

const run = promisify(execFile);
// Inside the workspace, so that packages resolve as they do for its own sources.
const folder = mkdtempSync(join(root, ".docs-types-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ends = `import { openSource, openTarget, replicate, type Job } from "@diskferry/core";
import type { BlockReader, BlockWriter, ChangeTracker, SourceConnector, TargetProvider, Tile } from "@diskferry/core/provider";
import { provider as local } from "@diskferry/provider-local";
import { provider as aws } from "@diskferry/provider-aws";
import { provider as vsphere } from "@diskferry/provider-vmware";
import { provider as cloudstack } from "@diskferry/provider-cloudstack";
declare const job: Job;
export const used: unknown[] = [openSource, openTarget, replicate, local, aws, vsphere, cloudstack, job];
export type Used = [BlockReader, BlockWriter, ChangeTracker, SourceConnector, TargetProvider, Tile];
`;

/** A snippet, and what the compiler has to say of it; undefined: nothing. */
const snippets: [what: string, code: string, says: RegExp | undefined][] = [
  [
    "good options of every provider",
    `
    await openSource(local, { path: "disk.raw", key: "root", frozen: true });
    await openTarget(local, { directory: "copies", format: "qcow2-chain" });
    await openSource(aws, { region: "eu-central-1", resource: "i-0123456789abcdef0" });
    await openSource(vsphere, { url: "https://vcenter.example", username: "backup", password: "from the environment" });
    await openTarget(cloudstack, { endpoint: "https://cloud.example/client/api" });`,
    undefined,
  ],
  [
    "an option with a typing error",
    `await openSource(local, { path: "disk.raw", frosen: true });`,
    /'frosen' does not exist in type 'LocalOptions'/,
  ],
  [
    "a value that is not one of a few words",
    `await openTarget(local, { directory: "d", format: "vmdk" });`,
    /Type '"vmdk"' is not assignable to type '[^']*"qcow2-chain"/,
  ],
  [
    "an option of the wrong type",
    `await openSource(local, { path: 3 });`,
    /Type 'number' is not assignable to type 'string'/,
  ],
  [
    "an option that is missing",
    `await openSource(vsphere, { username: "backup" });`,
    /Property 'url' is missing in type .* but required in type 'VsphereOptions'/,
  ],
  [
    "options of another provider",
    `await openSource(aws, { endpoint: "https://cloud.example", apiKey: "k" });`,
    /'apiKey' does not exist in type 'AwsOptions'/,
  ],
  [
    "an option of a run with a typing error",
    `await replicate({ ...job, options: { onTrackingLoss: "rescan" } });`,
    /'onTrackingLoss' does not exist in type 'JobOptions'. Did you mean to write 'onTrackingLost'\\?/,
  ],
  [
    "a policy that is none",
    `await replicate({ ...job, options: { onTrackingLost: "ignore" } });`,
    /Type '"ignore"' is not assignable to type 'TrackingLostPolicy/,
  ],
  [
    "a job without a store",
    `await replicate({ id: "a", source: job.source, machine: "m", target: job.target });`,
    /Property 'store' is missing in type/,
  ],
  [
    "a source without a member that has to be there",
    `export const source: Omit<SourceConnector, "owned"> & {} = job.source; export const whole: SourceConnector = source;`,
    /Property 'owned' is missing in type/,
  ],
  [
    "a reader that gives bytes back instead of filling the buffer",
    `export const reader: Pick<BlockReader, "read"> = { read: async (offset: number, into: Uint8Array) => into.subarray(offset) };`,
    /Type 'Promise<Uint8Array<[^']*>>' is not assignable to type 'Promise<void>'/,
  ],
  [
    "a tile of a kind that is none",
    `export const tile: Tile = { offset: 0, length: 512, kind: "dirty" };`,
    /Type '"dirty"' is not assignable to type 'TileKind'/,
  ],
  [
    "fences that are false, where absent is meant",
    `export const target: Pick<TargetProvider, "fences"> = { fences: false };`,
    /Type 'false' is not assignable to type 'true'/,
  ],
  [
    "a checkpoint that is an object, where a token is meant",
    `export const tracker: Pick<ChangeTracker, "checkpoint"> = { checkpoint: async () => ({ change: 4 }) };`,
    /is not assignable to type 'string \\| undefined'|not assignable to type 'Promise<string \\| undefined>'/,
  ],
];

test("wrong options and members are errors of the compiler that say what is wrong", async () => {
  const files = snippets.map(([, code], index) => {
    const file = join(folder, `snippet-${index}.ts`);
    writeFileSync(file, `${ends}${code}\n`);
    return file;
  });
  const config = join(folder, "tsconfig.json");
  const compilerOptions = { isolatedDeclarations: false, declaration: false };
  writeFileSync(config, JSON.stringify({ extends: "../tsconfig.json", compilerOptions, files, include: [] }));
  const args = [join(root, "node_modules/typescript/bin/tsc"), "-p", config, "--pretty", "false"];
  const { stdout } = await run(process.execPath, args).catch((error: { stdout: string }) => error);
  const problems: string[] = [];
  for (const [index, [what, , says]] of snippets.entries()) {
    // A message's further lines are indented.
    const said = [
      ...stdout.matchAll(new RegExp(`snippet-${index}\\.ts\\(\\d+,\\d+\\): error (.*(?:\\n .*)*)`, "g")),
    ].map(([, text]) => text!);
    if (says === undefined ? said.length > 0 : said.length === 0 || !says.test(said.join("\n")))
      problems.push(`${what}: ${said.join("\n") || "nothing"}`);
  }
  expect(problems).toEqual([]);
}, 600_000);
