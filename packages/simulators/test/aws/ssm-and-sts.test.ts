import { DescribeSnapshotsCommand } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import type { AwsSimulator, GuestCommand } from "../../src/index.ts";
import { noWaits, secondAccount, setup } from "./aws-client.ts";
import { sendSigned } from "./signed-request.ts";

/** An operation of Systems Manager over plain HTTP: JSON 1.1, the operation in a header. */
async function ssm(simulator: AwsSimulator, operation: string, input: object): Promise<Record<string, unknown>> {
  const headers = { "content-type": "application/x-amz-json-1.1", "x-amz-target": `AmazonSSM.${operation}` };
  const answer = await sendSigned(simulator, { service: "ssm", headers, body: JSON.stringify(input) });
  return (await answer.json()) as Record<string, unknown>;
}

async function send(
  simulator: AwsSimulator,
  DocumentName: string,
  id: string,
  Parameters: object = {},
): Promise<string> {
  const answer = await ssm(simulator, "SendCommand", { DocumentName, InstanceIds: [id], Parameters });
  return (answer["Command"] as { CommandId: string } | undefined)?.CommandId ?? JSON.stringify(answer);
}

test("a shell script runs on Linux, ends as its guest says, and its invocation may be unknown at first", async () => {
  const { simulator } = await setup({ delays: { ...noWaits, changeMs: 60_000, describableMs: 10_000 } });
  const { linux } = simulator.instances;
  const seen: GuestCommand[] = [];
  simulator.playGuest((command) => {
    seen.push(command);
    return { status: "Failed", responseCode: 3, output: "frozen", errors: "no such mount" };
  });
  const CommandId = await send(simulator, "AWS-RunShellScript", linux, { commands: ["fsfreeze -f /data"] });
  expect(seen).toMatchObject([{ instanceId: linux, parameters: { commands: ["fsfreeze -f /data"] } }]);
  const get = (): Promise<Record<string, unknown>> =>
    ssm(simulator, "GetCommandInvocation", { CommandId, InstanceId: linux });
  expect(await get()).toMatchObject({ __type: "InvocationDoesNotExist" });
  simulator.advance(10_000);
  expect(await get()).toMatchObject({ Status: "Pending", ResponseCode: -1 });
  simulator.advance(30_000);
  expect(await get()).toMatchObject({ Status: "InProgress" });
  simulator.advance(60_000);
  expect(await get()).toMatchObject({
    Status: "Failed",
    ResponseCode: 3,
    StandardOutputContent: "frozen",
    StandardErrorContent: "no such mount",
  });
});

test("the VSS document takes tagged snapshots on Windows only, and says whether they are application-consistent", async () => {
  const { simulator, ec2 } = await setup();
  const { linux, windows } = simulator.instances;
  const vss = "AWSEC2-CreateVssSnapshot";
  expect(await send(simulator, vss, linux)).toContain("UnsupportedPlatformType");
  expect(await send(simulator, "AWS-RunShellScript", windows)).toContain("UnsupportedPlatformType");
  const tagged = async (): Promise<string[]> => {
    const Filters = [{ Name: "tag:job", Values: ["nightly"] }];
    const { Snapshots } = await ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ["self"], Filters }));
    return (Snapshots ?? []).map(({ Tags }) => {
      const value = (key: string): string => Tags?.find(({ Key }) => Key === key)?.Value ?? "";
      return `${value("Device")} ${value("AppConsistent")}`;
    });
  };
  await send(simulator, vss, windows, { ExcludeBootVolume: ["True"], tags: ["Key=job,Value=nightly"] });
  expect(await tagged()).toEqual(["xvdf True"]);
  simulator.playGuest(() => ({ status: "Success", applicationConsistent: false }));
  await send(simulator, vss, windows, { ExcludeBootVolume: ["True"], tags: ["Key=job,Value=nightly"] });
  expect((await tagged()).sort()).toEqual(["xvdf False", "xvdf True"]);
  const CommandId = await send(simulator, vss, windows, { tags: ["Key=Device,Value=mine"] });
  expect(await ssm(simulator, "GetCommandInvocation", { CommandId, InstanceId: windows })).toMatchObject({
    Status: "Failed",
    StandardErrorContent: expect.stringContaining("reserved") as unknown,
  });
  expect(simulator.commands().map(({ document }) => document)).toEqual([vss, vss, vss]);
});

test("only running instances with an agent are managed", async () => {
  const { simulator } = await setup();
  const { linux, windows } = simulator.instances;
  const managed = async (): Promise<unknown> =>
    (await ssm(simulator, "DescribeInstanceInformation", {}))["InstanceInformationList"];
  expect(await managed()).toMatchObject([
    { InstanceId: linux, PingStatus: "Online", PlatformType: "Linux" },
    { InstanceId: windows, PlatformType: "Windows" },
  ]);
  simulator.manageInstance(linux, false);
  expect(await managed()).toHaveLength(1);
  expect(await send(simulator, "AWS-RunShellScript", linux)).toContain("InvalidInstanceId");
  expect(await send(simulator, "AWS-RunAnything", windows)).toContain("InvalidDocument");
  expect(await send(simulator, "AWS-RunPowerShellScript", windows, { script: ["x"] })).toContain("InvalidParameters");
  simulator.deny("111111111111", "ssm:SendCommand");
  expect(await send(simulator, "AWS-RunPowerShellScript", windows)).toContain("AccessDeniedException");
});

test("STS tells who calls, and gives a role's keys to those whom the role trusts", async () => {
  const { simulator } = await setup();
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const sts = async (
    form: Record<string, string>,
    keys?: { accessKeyId: string; secretAccessKey: string; sessionToken: string },
  ) => {
    const body = new URLSearchParams({ Version: "2011-06-15", ...form }).toString();
    return (
      await sendSigned(simulator, { service: "sts", headers, body, ...(keys === undefined ? {} : { keys }) })
    ).text();
  };
  expect(await sts({ Action: "GetCallerIdentity" })).toContain("<Account>111111111111</Account>");
  const RoleArn = `arn:aws:iam::${secondAccount}:role/mover`;
  const assume = { Action: "AssumeRole", RoleArn, RoleSessionName: "job-1", ExternalId: "secret" };
  expect(await sts(assume)).toContain("<Code>AccessDenied</Code>");
  simulator.addRole(RoleArn, { trusts: ["111111111111"], externalId: "secret" });
  expect(await sts({ ...assume, ExternalId: "guess" })).toContain("<Code>AccessDenied</Code>");
  const given = await sts({ ...assume, DurationSeconds: "900" });
  const field = (name: string): string => new RegExp(`<${name}>([^<]+)`).exec(given)?.[1] ?? "";
  const keys = {
    accessKeyId: field("AccessKeyId"),
    secretAccessKey: field("SecretAccessKey"),
    sessionToken: field("SessionToken"),
  };
  const identity = await sts({ Action: "GetCallerIdentity" }, keys);
  expect(identity).toContain(`<Arn>arn:aws:sts::${secondAccount}:assumed-role/mover/job-1</Arn>`);
  expect(await sts({ Action: "GetCallerIdentity" }, { ...keys, sessionToken: "other" })).toContain(
    "InvalidClientTokenId",
  );
  simulator.advance(900_000);
  expect(await sts({ Action: "GetCallerIdentity" }, keys)).toContain("<Code>ExpiredToken</Code>");
});
