import { readFileSync } from "node:fs";
import { globSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { actionsOf, type Duty, policyFor } from "../../src/plan/policy.ts";
import { requestCost, snapshotStorageCost } from "../../src/plan/prices.ts";
import { blocksOf, listingPages, minutesAtQuota, sumOf } from "../../src/plan/request-counts.ts";

const tebi = 2 ** 40;

const folder = new URL("../../", import.meta.url).pathname;
const duties: Duty[] = [
  "source",
  "power",
  "target",
  "launch",
  "convert",
  "swap",
  "volumes",
  "attached",
  "ssm",
  "copy",
  "kms",
];

describe("the IAM policy of a job", () => {
  test("names every call that this provider makes, with its service", () => {
    const services: Record<string, string> = { "client-ebs": "ebs", "client-ec2": "ec2", "client-ssm": "ssm" };
    const called = new Set<string>();
    for (const file of globSync("src/**/*.ts", { cwd: folder })) {
      const text = readFileSync(folder + file, "utf8");
      for (const [, names, client] of text.matchAll(/^import \{([^}]*)\} from "@aws-sdk\/([\w-]+)";/gms)) {
        const service = services[client!];
        if (service === undefined) continue;
        for (const [, name] of names!.matchAll(/(\w+)Command\b/g)) called.add(`${service}:${name}`);
      }
      // Calls for blocks are sent without the SDK.
      if (file.endsWith("ebs-block-calls.ts"))
        for (const [, name] of text.matchAll(/^ +operation: "(\w+)",$/gm)) called.add(`ebs:${name}`);
    }
    expect(called.size).toBeGreaterThan(30);
    const allowed = actionsOf(duties);
    expect([...called].filter((action) => !allowed.includes(action))).toEqual([]);
    // And nothing that is never called.
    expect(allowed.filter((action) => !action.startsWith("kms:") && !called.has(action))).toEqual([]);
  });

  test("stands in the documentation as it is made", () => {
    const page = readFileSync(`${folder}../../docs/providers/aws-ebs.md`, "utf8");
    const [, printed] = /^```json\n(.*?)^```$/ms.exec(page) ?? [];
    const policy = policyFor(["source", "power", "target", "launch"], {
      region: "eu-central-1",
      madeBy: { key: "CreatedBy", value: "diskferry" },
    });
    expect(JSON.parse(printed ?? "null")).toEqual(policy);
  });

  const scope = { region: "eu-central-1", madeBy: { key: "CreatedBy", value: "diskferry" } };

  test("allows every action of its duties, and none of another duty", () => {
    const policy = policyFor(["target"], scope);
    const allowed = policy.Statement.flatMap(({ Action }) => Action);
    expect([...allowed].sort()).toEqual(actionsOf(["target"]));
    expect(allowed).toContain("ebs:PutSnapshotBlock");
    expect(allowed).not.toContain("ec2:RunInstances");
    expect(actionsOf(["target", "kms"])).toContain("kms:CreateGrant");
  });

  const own = { StringEquals: { "aws:ResourceTag/CreatedBy": "diskferry" } };
  const changing = /^ec2:(Delete|Terminate|Deregister|Cancel|Revoke|Stop|Start|Attach|Detach|Modify)/;
  /** Actions that change or end what is there already, and are allowed whether or not it carries the job's tag, and on what. */
  const unbound = (named: Duty[]): [string, string | string[]][] =>
    policyFor(named, scope).Statement.flatMap(({ Action, Resource, Condition }) =>
      Condition === undefined
        ? Action.filter((action) => changing.test(action)).map((action): [string, string | string[]] => [
            action,
            Resource,
          ])
        : [],
    );

  test.for(duties.filter((duty) => duty !== "power" && duty !== "attached"))(
    "%s deletes, stops, starts, attaches, detaches and shares only what carries the job's tag",
    (duty) => {
      expect(unbound([duty])).toEqual([]);
      for (const { Action, Condition } of policyFor([duty], scope).Statement) {
        if (Condition === undefined) continue;
        expect(Condition).toEqual(own);
        expect(Action.filter((action) => !changing.test(action))).toEqual([]);
      }
    },
  );

  test("power alone stops and starts what carries no tag of the job, for the source's instance is its owner's; no more", () => {
    const both = [
      ["ec2:StartInstances", "*"],
      ["ec2:StopInstances", "*"],
    ];
    expect(unbound(["power"])).toEqual(both);
    expect(unbound(duties.filter((duty) => duty !== "attached"))).toEqual(both);
  });

  test("attached attaches and detaches volumes that carry the job's tag alone, at whichever instance this runs on", () => {
    const actions = ["ec2:AttachVolume", "ec2:DetachVolume"];
    const instances = "arn:aws:ec2:eu-central-1:*:instance/*";
    expect(unbound(["attached"])).toEqual(actions.map((action) => [action, instances]));
    const bound = policyFor(["attached"], scope).Statement.filter(({ Action }) => Action.includes("ec2:DetachVolume"));
    expect(bound.map(({ Action, Resource, Condition }) => ({ Action, Resource, Condition }))).toEqual([
      { Action: actions, Resource: "arn:aws:ec2:eu-central-1:*:volume/*", Condition: own },
      { Action: actions, Resource: instances, Condition: undefined },
    ]);
  });

  test("allows blocks on snapshots of the Region alone, and keys as they are named", () => {
    const policy = policyFor(["target", "kms"], { ...scope, account: "111111111111", kmsKeys: ["arn:k"] });
    const of = (Sid: string): unknown => policy.Statement.find((each) => each.Sid === Sid)?.Resource;
    expect(of("Blocks")).toBe("arn:aws:ec2:eu-central-1::snapshot/*");
    expect(of("Keys")).toEqual(["arn:k"]);
  });
});

describe("requests, money and time", () => {
  test("1 TiB is 2,097,152 blocks, 35 minutes at quota, $6.29 to read and $12.58 to write", () => {
    const blocks = blocksOf({ value: tebi, kind: "bound" });
    expect(blocks).toEqual({ value: 2_097_152, kind: "bound" });
    expect(minutesAtQuota(blocks, 1000)).toEqual({ value: 34.95, kind: "bound" });
    expect(requestCost("GetSnapshotBlock", blocks).amount.value).toBeCloseTo(6.29, 2);
    expect(requestCost("PutSnapshotBlock", blocks)).toMatchObject({
      amount: { value: 12.583, kind: "bound" },
      currency: "USD",
      pricesOf: expect.stringMatching(/^\d{4}-\d\d-\d\d$/),
    });
    expect(snapshotStorageCost({ value: tebi, kind: "estimate" }).amount.value).toBe(51.2);
  });

  test("16 TiB is listed in 3,356 pages, and even nothing takes one", () => {
    expect(listingPages(blocksOf({ value: 16 * tebi, kind: "exact" })).value).toBe(3356);
    expect(listingPages({ value: 0, kind: "exact" })).toEqual({ value: 1, kind: "estimate" });
  });

  test("a sum is as good as the worst of its parts", () => {
    const [exact, bound, estimate] = (["exact", "bound", "estimate"] as const).map((kind) => ({ value: 1, kind }));
    expect(sumOf([exact!, bound!])).toEqual({ value: 2, kind: "bound" });
    expect(sumOf([exact!, bound!, estimate!])).toEqual({ value: 3, kind: "estimate" });
    expect(sumOf([])).toEqual({ value: 0, kind: "exact" });
  });
});
