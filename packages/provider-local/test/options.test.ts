import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { optionsSchema, provider } from "../src/index.ts";
import { freshFolder } from "./folder.ts";

function issuesOf(options: unknown): string[] {
  const result = optionsSchema.safeParse(options);
  return result.success ? [] : result.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
}

test("a path or URI stands for options that the schema takes", () => {
  const folder = freshFolder();
  mkdirSync(join(folder, "chain"));
  const cases: [string, object][] = [
    ["disk.raw", { path: "disk.raw" }],
    ["/dev/vdb", { path: "/dev/vdb" }],
    ["local:/a%20b.raw", { path: "/a b.raw" }],
    ["file:///a/b.raw", { path: "/a/b.raw" }],
    ["local:disk.qcow2?format=raw&frozen", { path: "disk.qcow2", format: "raw", frozen: true }],
    ["raw:/a/b", { path: "/a/b", format: "raw" }],
    ["qcow2:/a/b", { path: "/a/b", format: "qcow2" }],
    [`${folder}/chain`, { directory: `${folder}/chain` }],
    ["new/", { directory: "new/" }],
    [
      "local:new?format=qcow2-chain&keep-count=7&keep-days=30&compression=zstd&cluster-size=131072",
      {
        directory: "new",
        format: "qcow2-chain",
        retention: { count: 7, ageDays: 30 },
        compression: "zstd",
        clusterSize: 131072,
      },
    ],
    [
      "local:disk.raw?machine=web&disk=sda&overwrite=true",
      { path: "disk.raw", machine: "web", key: "sda", overwrite: true },
    ],
    ["nbd://host/export", { uri: "nbd://host/export" }],
    ["nbd+unix:///e?socket=/s&bitmap=b0&frozen=1", { uri: "nbd+unix:///e?socket=/s", bitmap: "b0", frozen: true }],
  ];
  for (const [uri, expected] of cases) {
    const options = provider.fromUri!(uri);
    expect(options, uri).toEqual(expected);
    expect(issuesOf(options), uri).toEqual([]);
  }
});

test("a URI that means nothing here says what would", () => {
  const cases: [string, RegExp][] = [
    ["local:disk?formaat=raw", /no parameter "formaat"; known: format, machine/],
    ["local:disk?frozen=perhaps", /frozen is true or false/],
    ["local:disk?keep-count=many", /keep-count is a number/],
    ["file://host/disk", /no host/],
    ["qcow2:disk?format=raw", /says the format already/],
    ["s3://bucket/disk", /no scheme s3:; known: local/],
    ["local:%E0%A4%A", /percent-encoded/],
    ["local:disk?__proto__=1", /no parameter/],
  ];
  for (const [uri, message] of cases) {
    const refusal = expect.objectContaining({ code: "CONFIG_INVALID", message: expect.stringMatching(message) });
    expect(() => provider.fromUri!(uri), uri).toThrow(refusal);
  }
});

test("options that contradict each other are refused together, each with what to do", () => {
  const cases: [unknown, RegExp][] = [
    [{}, /name a disk: path .*uri .*directory/],
    [{ path: "a", uri: "nbd://h/" }, /path and uri exclude each other/],
    [{ path: "a", colour: "blue" }, /colour/],
    [{ uri: "nbd://h/", format: "qcow2" }, /leave format away/],
    [{ uri: "nbd://h/", tls: { certificates: "/c" } }, /nbds:\/\//],
    [{ path: "a", bitmap: "b" }, /give uri/],
    [{ path: "a", format: "qcow2-chain" }, /needs a directory/],
    [{ path: "a", retention: { count: 2 } }, /qcow2-chain in a directory/],
    [{ directory: "a", format: "raw", retention: { count: 2 } }, /other targets hold one state/],
    [{ directory: "a", retention: { count: 0 } }, /count/],
    [{ directory: "a", clusterSize: 100_000 }, /power of two/],
    [{ disks: [] }, /disks/],
    [{ disks: [{ key: "a" }] }, /disks\.0: name a disk/],
    [{ path: "a\0b" }, /NUL/],
    [{ path: 7 }, /path/],
    ["disk", /object/],
  ];
  for (const [options, message] of cases) {
    const issues = issuesOf(options).join("\n");
    expect(issues, JSON.stringify(options)).toMatch(message);
  }
  expect(issuesOf({ path: "a", uri: "nbd://h/", bitmap: 7, colour: "blue" }).length).toBeGreaterThan(1);
});

test("no option takes a secret, and a secret in a URI of an export is not repeated", async () => {
  const uri = "nbd://user:hunter2@host/export";
  const opening = provider.source!({ uri });
  await expect(opening).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  await expect(opening).rejects.not.toMatchObject({ message: expect.stringContaining("hunter2") });
  expect(issuesOf({ uri: "nbds://h/", tls: { key: "hunter2" } }).join("\n")).not.toContain("hunter2");
});

test("disks are for sources and directories for targets", async () => {
  const folder = freshFolder();
  const target = provider.target!({ disks: [{ path: join(folder, "a") }] });
  await expect(target).rejects.toMatchObject({ code: "CONFIG_INVALID", message: expect.stringContaining("directory") });
  const source = provider.source!({ directory: folder });
  await expect(source).rejects.toMatchObject({ code: "CONFIG_INVALID", message: expect.stringContaining("one image") });
});
