import { DescribeInstancesCommand, EC2Client } from "@aws-sdk/client-ec2";
import { expect, test } from "vitest";
import { runAws } from "../../src/aws/aws-command.ts";
import { closing } from "./aws-client.ts";

interface FirstLine {
  endpoint: string;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string }[];
  instances: { linux: string; windows: string };
}

test("the command says where it listens and what stands ready, serves, stops, and tells its processor time", async () => {
  const stop = new AbortController();
  const lines: string[] = [];
  const args = ["--port", "0", "--region", "eu-west-1"];
  const running = runAws(args, (line) => void lines.push(line), { signal: stop.signal });
  await expect.poll(() => lines.length).toBe(1);
  const { endpoint, region, credentials, instances } = JSON.parse(lines[0] ?? "") as FirstLine;
  const [keys = { accessKeyId: "", secretAccessKey: "" }] = credentials;
  const ec2 = new EC2Client({ region, endpoint, credentials: keys, maxAttempts: 1 });
  closing({ close: () => ec2.destroy() });
  const { Reservations } = await ec2.send(new DescribeInstancesCommand({}));
  const ids = Reservations?.flatMap((each) => each.Instances ?? []).map(({ InstanceId }) => InstanceId);
  expect(ids).toEqual([instances.linux, instances.windows]);
  stop.abort();
  await running;
  expect(JSON.parse(lines[1] ?? "")).toMatchObject({ cpuMs: { user: expect.any(Number) as unknown } });
  await expect(ec2.send(new DescribeInstancesCommand({}))).rejects.toThrow("ECONNREFUSED");
});

test("without ready instances there are none", async () => {
  const stop = new AbortController();
  const lines: string[] = [];
  const running = runAws(["--empty"], (line) => void lines.push(line), { signal: stop.signal });
  await expect.poll(() => lines.length).toBe(1);
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({ instances: { linux: "", windows: "" } });
  stop.abort();
  await running;
});

test.for([
  [["--port", "x"], "no port 'x'"],
  [["--quota-scale", "0"], "scale of quotas"],
  [["--latency", "-1x"], "latency"],
] as const)("the command refuses %j", async ([args, message]) => {
  await expect(runAws(args, () => undefined, { signal: AbortSignal.abort() })).rejects.toThrow(message);
});
