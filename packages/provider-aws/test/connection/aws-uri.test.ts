import { expect, test } from "vitest";
import { optionsFromUri } from "../../src/connection/aws-uri.ts";
import { optionsSchema } from "../../src/options.ts";

test("a URI names a Region and what it is about", () => {
  expect(optionsFromUri("aws-ebs://eu-central-1/i-0123456789abcdef0?profile=backup&product=acme")).toEqual({
    region: "eu-central-1",
    resource: "i-0123456789abcdef0",
    credentials: { profile: "backup" },
    product: "acme",
  });
  expect(optionsFromUri("aws-ebs://eu-central-1")).toEqual({ region: "eu-central-1" });
  expect(optionsFromUri("aws-ebs:///vol-1")).toEqual({ resource: "vol-1" });
});

for (const uri of [
  "aws-ebs://user@eu-central-1/i-1",
  "aws-ebs://eu-central-1:443/i-1",
  "aws-ebs://eu-central-1/i-1/vol-2",
  "aws-ebs://eu-central-1/i-1?profil=x",
  "aws-ebs://eu-central-1/i-1?profile=",
  "aws-ebs://eu-central-1/i-1#x",
  "ebs://eu-central-1/i-1",
  "aws-ebs",
]) {
  test(`${uri} is refused, with an example of a good one`, () => {
    expect(() => optionsFromUri(uri)).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID", message: expect.stringContaining("aws-ebs://eu-central-1/") }),
    );
  });
}

const bad: [string, object][] = [
  ["an unknown option", { retries: 3 }],
  ["half a key", { credentials: { accessKeyId: "AKIA" } }],
  ["a role that is none", { credentials: { roleArn: "backup" } }],
  ["an endpoint that is no URL", { endpoint: "localhost" }],
  ["a tag of AWS's own", { tags: { "aws:x": "y" } }],
  ["a timeout of nothing", { timeouts: { blockMs: 0 } }],
  ["no connections", { concurrency: 0 }],
  [
    "commands before the snapshot and none after",
    { source: { application: { linux: { pre: ["x"], achieves: "filesystem" } } } },
  ],
];

for (const [what, options] of bad) {
  test(`${what} is refused`, () => {
    expect(optionsSchema.safeParse(options).success).toBe(false);
  });
}

test("no option has a default secret, and none at all are good options", () => {
  expect(optionsSchema.parse({})).toEqual({});
});
