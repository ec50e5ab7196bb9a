import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { root } from "../scripts/workspace.ts";
import { committedFiles } from "./source-files.ts";

// The patterns are put together from parts, so that this file does not match them itself.
const forbidden: Record<string, RegExp> = {
  "a private key": new RegExp(["-----BEGIN ", "[A-Z ]*", "PRIVATE", " KEY-----"].join("")),
  // Amazon's documentation uses ids that end in EXAMPLE; those are nobody's.
  "an AWS access key id": new RegExp(["\\b(?:AK", "IA|AS", "IA)(?![A-Z0-9]{9}EXAMPLE)[A-Z0-9]{16}\\b"].join("")),
  "an access token": new RegExp(
    ["\\b(?:gh", "[pousr]_|github", "_pat_|npm", "_|glpat", "-|xox", "[abprs]-)\\w{20,}"].join(""),
  ),
  "an auth line of npm": new RegExp(["_auth", "(?:Token)?\\s*="].join("")),
  "a registry host": new RegExp(["\\bregistry", "\\.(?:npmjs|yarnpkg|npmmirror)\\.|npm", "\\.pkg\\.github"].join("")),
  "a path of one machine": new RegExp(
    ["(?<![\\w.@~-])/(?:work", "|root|home/(?!alice/|user/)\\w+|Users/\\w+)/[\\w.-]"].join(""),
  ),
};

/** Names of what `text` holds and must not. */
function findings(text: string): string[] {
  return Object.keys(forbidden).filter((name) => forbidden[name]?.test(text) === true);
}

test.for([
  ["-----BEGIN RSA PRIV" + "ATE KEY-----", "a private key"],
  ["-----BEGIN PRIV" + "ATE KEY-----", "a private key"],
  ["id AKI" + "AQWERTYUIOPASDFGH", "an AWS access key id"],
  ["ghp" + "_0123456789abcdefghijABCDEFGHIJ", "an access token"],
  ["//host/:_auth" + "Token=abc", "an auth line of npm"],
  ["https://registry" + ".npmjs.org/zod", "a registry host"],
  ["see /ho" + "me/dk3/disk.raw", "a path of one machine"],
  ["see /ro" + "ot/disk.raw", "a path of one machine"],
] as const)("%s is found", ([text, name]) => {
  expect(findings(text)).toEqual([name]);
});

test("example ids and general paths are left alone", () => {
  expect(findings("AKI" + "AIOSFODNN7EXAMPLE, /var/lib/disk.raw, ./ro" + "ot/x, example.org/ho" + "me/x")).toEqual([]);
});

test("no committed file holds a secret, a registry or a path of one machine", () => {
  const found = committedFiles().flatMap((file) => {
    const bytes = readFileSync(join(root, file));
    const text = bytes.includes(0) ? bytes.toString("latin1") : bytes.toString("utf8");
    return findings(text).map((name) => `${file}: ${name}`);
  });
  expect(found).toEqual([]);
});
