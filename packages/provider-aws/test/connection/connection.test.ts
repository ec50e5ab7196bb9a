import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StartSnapshotCommand } from "@aws-sdk/client-ebs";
import { DescribeInstancesCommand, DescribeVolumesCommand } from "@aws-sdk/client-ec2";
import { expect, test, vi } from "vitest";
import type { AwsOptions, StaticKeys } from "../../src/index.ts";
import { AwsConnection } from "../../src/connection/connection.ts";
import { putSnapshotBlock } from "../../src/connection/ebs-block-calls.ts";
import { awsWorld, block } from "../aws-world.ts";

const keys = { accessKeyId: "AKIAEXAMPLE", secretAccessKey: "a very secret key", sessionToken: "a very secret token" };

/** A server that records what it is asked and answers as it is told. */
async function peer(answer: (operation: string) => { status: number; headers?: Record<string, string>; body: string }) {
  const asked: { operation: string; headers: NodeJS.Dict<string | string[]> }[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const form = new URLSearchParams(Buffer.concat(parts.slice(0, 1)).toString());
      const operation = form.get("Action") ?? `${request.method} ${request.url}`;
      asked.push({ operation, headers: request.headers });
      const { status, headers = {}, body } = answer(operation);
      response.writeHead(status, headers).end(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const options: AwsOptions = {
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials: { ...keys, accountId: "111111111111" },
  };
  return {
    asked,
    options,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test("keys that AWS calls expired are exchanged once for all calls that were refused, and the calls made again", async () => {
  await using world = await awsWorld();
  let given = 0;
  const keysOf = (number: number) => ({
    accessKeyId: `ASIATEMPORARY${number}`,
    secretAccessKey: `secret ${number}`,
    sessionToken: `token ${number}`,
  });
  const allow = (number: number, expiresAt: number) =>
    world.simulator.addCredentials({ ...keysOf(number), accountId: "111111111111", expiresAt });
  const credentials = async () => {
    given++;
    allow(given, Date.now() + 3_600_000);
    await new Promise((resolve) => setTimeout(resolve, 20));
    return keysOf(given);
  };
  await using connection = await AwsConnection.open({ ...world.options(), credentials });
  expect(given).toBe(1);
  // AWS ends them early, whatever the client knows of them.
  allow(1, Date.now() - 1);
  const ask = () => connection.ec2(new DescribeInstancesCommand({}), { object: "instances" });
  await Promise.all(Array.from({ length: 8 }, ask));
  expect(given).toBe(2);
});

test("keys that stay expired end in an error after one exchange, not in a loop", async () => {
  await using world = await awsWorld();
  let given = 0;
  const { accessKeyId, secretAccessKey } = world.simulator.credentials[0]!;
  const credentials = async () => (given++, { accessKeyId, secretAccessKey });
  await using connection = await AwsConnection.open({ ...world.options(), credentials });
  world.simulator.faults.add({ fault: "expired-credentials" });
  const before = world.simulator.faults.counters()["DescribeInstances"] ?? 0;
  const asking = connection.ec2(new DescribeInstancesCommand({}), { object: "instances" });
  await expect(asking).rejects.toMatchObject({ code: "AUTH", retryable: false });
  expect((world.simulator.faults.counters()["DescribeInstances"] ?? 0) - before).toBe(2);
  expect(given).toBe(2);
});

test("keys that are about to run out are exchanged before they are used", async () => {
  await using world = await awsWorld();
  let given = 0;
  const { accessKeyId, secretAccessKey } = world.simulator.credentials[0]!;
  const credentials = async () => {
    given++;
    return { accessKeyId, secretAccessKey, expiration: new Date(Date.now() + (given === 1 ? 30_000 : 3_600_000)) };
  };
  await using connection = await AwsConnection.open({ ...world.options(), credentials });
  for (let turn = 0; turn < 3; turn++) await connection.ec2(new DescribeInstancesCommand({}), { object: "instances" });
  expect(given).toBe(2);
});

test("a clock that is an hour off is set right by AWS's answer, and the call made again", async () => {
  await using world = await awsWorld();
  await using connection = await AwsConnection.open(world.options());
  world.simulator.advance(3_600_000);
  await connection.ec2(new DescribeInstancesCommand({}), { object: "instances" });
});

test("a role is assumed, with its external id", async () => {
  await using world = await awsWorld();
  const roleArn = "arn:aws:iam::222222222222:role/backup";
  world.simulator.addRole(roleArn, { trusts: ["111111111111"], externalId: "e-1" });
  const [first] = world.simulator.credentials;
  const from = { accessKeyId: first!.accessKeyId, secretAccessKey: first!.secretAccessKey };
  const options = (externalId?: string): AwsOptions => ({
    ...world.options(),
    credentials: { roleArn, from, ...(externalId === undefined ? {} : { externalId }) },
  });
  await using connection = await AwsConnection.open(options("e-1"));
  expect(connection.accountId).toBe("222222222222");
  await expect(AwsConnection.open(options())).rejects.toMatchObject({ code: "DENIED" });
});

test("without a Region, without keys and with wrong keys there are three different errors, and no secret in any", async () => {
  vi.stubEnv("AWS_REGION", undefined);
  vi.stubEnv("AWS_DEFAULT_REGION", undefined);
  vi.stubEnv("AWS_CONFIG_FILE", "/nonexistent");
  vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
  vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
  vi.stubEnv("AWS_ACCESS_KEY_ID", undefined);
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", undefined);
  try {
    await expect(AwsConnection.open({ credentials: keys })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("AWS_REGION") as string,
    });
    await using world = await awsWorld();
    const { region, endpoint } = world.options();
    await expect(AwsConnection.open({ region, endpoint })).rejects.toMatchObject({ code: "AUTH" });
    const error: unknown = await AwsConnection.open({ region, endpoint, credentials: keys }).catch(
      (each: unknown) => each,
    );
    expect(error).toMatchObject({ code: "AUTH", message: expect.stringContaining("Check the access key") as string });
    const { inspect } = await import("node:util");
    expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/a very secret/);
  } finally {
    vi.unstubAllEnvs();
  }
});

/** Runs something in an environment that holds these AWS variables and no others, with a folder for its files. */
async function inEnvironment(
  variables: (folder: string) => Record<string, string>,
  files: Record<string, string>,
  run: () => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "diskferry-aws-keys-"));
  try {
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
    for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) vi.stubEnv(name, undefined);
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    const none = { AWS_SHARED_CREDENTIALS_FILE: join(folder, "none"), AWS_CONFIG_FILE: join(folder, "none") };
    for (const [name, value] of Object.entries({ ...none, ...variables(folder) })) vi.stubEnv(name, value);
    await run();
  } finally {
    vi.unstubAllEnvs();
    await rm(folder, { recursive: true, force: true });
  }
}

/** A section of a file of profiles with the keys of one of the simulator's accounts. */
function section(title: string, { accessKeyId, secretAccessKey }: StaticKeys): string {
  return `[${title}]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`;
}

test.for([
  ["credentials", "AWS_SHARED_CREDENTIALS_FILE", "backup"],
  ["config", "AWS_CONFIG_FILE", "profile backup"],
] as const)("a profile's keys are found in the file of %s, and no other profile's", async ([file, variable, title]) => {
  await using world = await awsWorld();
  const [first, second] = world.simulator.credentials as [StaticKeys, StaticKeys];
  const { region, endpoint } = world.options();
  const text = section("default", first) + section(title, second);
  await inEnvironment(
    (folder) => ({ [variable]: join(folder, file) }),
    { [file]: text },
    async () => {
      await using connection = await AwsConnection.open({ region, endpoint, credentials: { profile: "backup" } });
      expect(connection.accountId).toBe("222222222222");
      await connection.ec2(new DescribeVolumesCommand({}), { object: "volumes" });
      const missing = AwsConnection.open({ region, endpoint, credentials: { profile: "elsewhere" } });
      await expect(missing).rejects.toMatchObject({
        code: "AUTH",
        message: expect.stringContaining("elsewhere") as string,
      });
    },
  );
});

test.for([
  ["a profile's", "backup", { profile: "backup" }],
  ["the default profile's", "default", undefined],
] as const)(
  "%s keys are read anew when AWS calls them expired, for the file may have been renewed meanwhile",
  async ([, title, credentials]) => {
    await using world = await awsWorld();
    const { region, endpoint } = world.options();
    let path = "";
    const variables = (folder: string) => ({ AWS_SHARED_CREDENTIALS_FILE: (path = join(folder, "credentials")) });
    const old = { accessKeyId: "ASIAOLD", secretAccessKey: keys.secretAccessKey, accountId: "111111111111" };
    world.simulator.addCredentials(old);
    await inEnvironment(variables, { credentials: section(title, old) }, async () => {
      const options = { region, endpoint, ...(credentials === undefined ? {} : { credentials }) };
      await using connection = await AwsConnection.open(options);
      await writeFile(path, section(title, world.simulator.credentials[0]!));
      world.simulator.addCredentials({ ...old, expiresAt: Date.now() - 1 });
      await connection.ec2(new DescribeVolumesCommand({}), { object: "volumes" });
    });
  },
);

test("without credentials in the options the default chain finds keys: of the environment, then of the default profile", async () => {
  await using world = await awsWorld();
  const [first, second] = world.simulator.credentials as [StaticKeys, StaticKeys];
  const { region, endpoint } = world.options();
  const account = async (): Promise<string> => {
    await using connection = await AwsConnection.open({ region, endpoint });
    await connection.ec2(new DescribeVolumesCommand({}), { object: "volumes" });
    return connection.accountId;
  };
  const files = { credentials: section("default", first) };
  const shared = (folder: string) => ({ AWS_SHARED_CREDENTIALS_FILE: join(folder, "credentials") });
  const own = { AWS_ACCESS_KEY_ID: second.accessKeyId, AWS_SECRET_ACCESS_KEY: second.secretAccessKey };
  await inEnvironment(shared, files, async () => expect(await account()).toBe("111111111111"));
  await inEnvironment(
    (folder) => ({ ...shared(folder), ...own }),
    files,
    async () => expect(await account()).toBe("222222222222"),
  );
  const session = { ...keys, accessKeyId: "ASIASESSION", accountId: "111111111111", expiresAt: Date.now() + 3_600_000 };
  world.simulator.addCredentials(session);
  await inEnvironment(
    () => ({
      AWS_ACCESS_KEY_ID: session.accessKeyId,
      AWS_SECRET_ACCESS_KEY: session.secretAccessKey,
      AWS_SESSION_TOKEN: session.sessionToken,
    }),
    {},
    async () => expect(await account()).toBe("111111111111"),
  );
});

test("the SDK repeats nothing: a call of the data plane that fails is sent once", async () => {
  await using far = await peer(() => ({ status: 500, body: "{}" }));
  await using connection = await AwsConnection.open(far.options);
  const asking = connection.ebs(new StartSnapshotCommand({ VolumeSize: 1 }), { object: "a snapshot" });
  await expect(asking).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
  expect(far.asked.length).toBe(1);
});

test("a call of the control plane is repeated until its budget is spent, and not after", async () => {
  await using far = await peer(() => ({ status: 503, body: "<Response/>" }));
  await using connection = await AwsConnection.open({ ...far.options, retryBudgetMs: 700 });
  const asking = connection.ec2(new DescribeVolumesCommand({}), { object: "volumes" });
  await expect(asking).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
  expect(far.asked.length).toBeGreaterThan(1);
  const controller = new AbortController();
  const aborted = connection.ec2(new DescribeVolumesCommand({}), { object: "volumes", signal: controller.signal });
  const reason = new Error("enough");
  controller.abort(reason);
  await expect(aborted).rejects.toBe(reason);
});

test("a block is signed without its body, so that it is not hashed twice, and its own checksum is signed", async () => {
  await using far = await peer(() => ({ status: 201, headers: { "content-type": "application/json" }, body: "{}" }));
  await using connection = await AwsConnection.open(far.options);
  const data = Buffer.alloc(block, 7);
  const checksum = createHash("sha256").update(data).digest("base64");
  await connection.direct(putSnapshotBlock({ snapshotId: "snap-1", index: 0, data, checksum }), {
    object: "block 0 of snap-1",
    snapshotId: "snap-1",
  });
  expect(far.asked[0]?.headers["x-amz-content-sha256"]).toBe("UNSIGNED-PAYLOAD");
  expect(far.asked[0]?.headers.authorization).toMatch(/SignedHeaders=[^,]*x-amz-checksum;/);
});

test("an account that STS cannot tell is one that uses the same key, and a notice says so", async () => {
  await using world = await awsWorld();
  world.simulator.faults.add({ fault: "reset", operation: "GetCallerIdentity" });
  const notices: string[] = [];
  await using connection = await AwsConnection.open(world.options(), { notice: (message) => notices.push(message) });
  expect(connection.accountId).toBe("unknown");
  expect(notices.join()).toContain("STS could not be asked");
});
