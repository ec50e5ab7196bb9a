import { setImmediate } from "node:timers/promises";
import { GetSnapshotBlockCommand, StartSnapshotCommand } from "@aws-sdk/client-ebs";
import { CreateSnapshotCommand, DescribeVolumesCommand } from "@aws-sdk/client-ec2";
import { expect, test, vi } from "vitest";
import type { AwsFault } from "../../src/index.ts";
import {
  block,
  changed,
  clientsOf,
  later,
  list,
  noWaits,
  put,
  refusal,
  setup,
  sha,
  size,
  upload,
} from "./aws-client.ts";
import { sendSigned } from "./signed-request.ts";

const name = (end: PromiseSettledResult<unknown>): string =>
  end.status === "fulfilled"
    ? "done"
    : ((end.reason as { name: string; Reason?: string }).Reason ?? (end.reason as Error).name);

test("per-snapshot and Get/Put throttles: a snapshot's quota and an account's each have their own reason", async () => {
  // Two calls a second for each snapshot, and without end for the account; then the other way round.
  const bySnapshot = await setup({ quotaScale: 0.002, accountQuotaScale: Infinity });
  const one = (await bySnapshot.ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  const two = (await bySnapshot.ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  const puts = await Promise.allSettled([0, 1, 2, 3].map((index) => put(bySnapshot.ebs, one, index, block(1))));
  const refused = puts.map(name).filter((each) => each !== "done");
  expect(refused).toContain("RESOURCE_LEVEL_THROTTLE");
  expect(bySnapshot.simulator.throttled()).toEqual({ PutSnapshotBlock: refused.length });
  await put(bySnapshot.ebs, two, 0, block(1));
  const byAccount = await setup({ quotaScale: 1, accountQuotaScale: 0.002 });
  const id = (await byAccount.ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  const ends = await Promise.allSettled([0, 1, 2, 3].map((index) => put(byAccount.ebs, id, index, block(1))));
  expect(ends.map(name)).toContain("ACCOUNT_THROTTLED");
  const gets = await Promise.allSettled(
    [0, 1, 2, 3].map((BlockIndex) =>
      byAccount.ebs.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex, BlockToken: "AAAB" })),
    ),
  );
  expect(gets.map(name)).toContain("ACCOUNT_THROTTLED");
  const lists = await Promise.allSettled([0, 1, 2].map(() => list(byAccount.ebs, id)));
  expect(lists.map(name)).toContain("ThrottlingException");
});

test("a quota grants its rate again as the clock goes on", async () => {
  const { ebs, simulator } = await setup({ quotaScale: 0.002 });
  const id = (await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  const storm = (clients = { ebs }) =>
    Promise.allSettled([0, 1, 2, 3].map((index) => put(clients.ebs, id, index, block(1))));
  expect((await storm()).map(name)).toContain("RESOURCE_LEVEL_THROTTLE");
  expect((await storm(later(simulator, 1000))).map(name)).toContain("done");
});

test("hang and reset: a request that hangs ends by its caller's patience, one that is reset by the connection", async () => {
  const { ebs, simulator } = await setup();
  simulator.faults.add({ fault: "hang", operation: "StartSnapshot", times: 1 });
  simulator.faults.add({ fault: "reset", operation: "StartSnapshot", times: 1 });
  const start = (signal?: AbortSignal) =>
    ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }), signal === undefined ? {} : { abortSignal: signal });
  const patience = new AbortController();
  const hanging = expect(start(patience.signal)).rejects.toMatchObject({ name: "AbortError" });
  await expect.poll(() => simulator.faults.counters()["StartSnapshot"]).toBe(1);
  patience.abort();
  await hanging;
  await expect(start()).rejects.toMatchObject({ code: "ECONNRESET" });
  await start();
  expect(simulator.faults.counters()["StartSnapshot"]).toBe(3);
});

test("faults strike by operation, call number, times and chance, on EC2 in its own words", async () => {
  const { ec2, ebs, simulator } = await setup();
  const describe = (): Promise<unknown> => ec2.send(new DescribeVolumesCommand({}));
  const faults: [AwsFault, string, number][] = [
    ["throttle", "RequestLimitExceeded", 503],
    ["internal-error", "InternalError", 500],
    ["unavailable", "Unavailable", 503],
    ["no-capacity", "InsufficientInstanceCapacity", 500],
    ["expired-credentials", "RequestExpired", 400],
    ["clock-skew", "RequestExpired", 400],
  ];
  for (const [at, [fault]] of faults.entries())
    simulator.faults.add({ fault, operation: "DescribeVolumes", calls: { first: at + 1, last: at + 1 } });
  for (const [, code, httpStatusCode] of faults)
    await expect(describe()).rejects.toMatchObject({ name: code, $metadata: { httpStatusCode } });
  await describe();
  const id = await upload(ebs, { 0: block(1) });
  for (const [fault, code] of [
    ["expired-page-token", "INVALID_PAGE_TOKEN"],
    ["expired-block-token", "INVALID_BLOCK_TOKEN"],
    ["write-timeout", "WRITE_REQUEST_TIMEOUT"],
  ] as const) {
    simulator.faults.add({ fault, operation: "ListSnapshotBlocks", times: 1 });
    await expect(list(ebs, id)).rejects.toEqual(refusal(code));
  }
  for (const [fault, code, Reason, httpStatusCode] of [
    ["throttle", "ThrottlingException", undefined, 400],
    ["resource-throttle", "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", 400],
    ["dependency-throttle", "RequestThrottledException", "DEPENDENCY_REQUEST_THROTTLED", 400],
    ["quota-exceeded", "ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED", 402],
    ["expired-credentials", "ExpiredTokenException", undefined, 403],
  ] as const) {
    simulator.faults.add({ fault, operation: "ListSnapshotBlocks", times: 1 });
    await expect(list(ebs, id)).rejects.toMatchObject({
      name: code,
      ...(Reason === undefined ? {} : { Reason }),
      $metadata: { httpStatusCode },
    });
  }
  simulator.faults.add({ fault: "resource-throttle", probability: 0.5 });
  const ends = await Promise.allSettled(Array.from({ length: 40 }, () => list(ebs, id)));
  const struck = ends.map(name).filter((each) => each === "RESOURCE_LEVEL_THROTTLE").length;
  expect(struck).toBeGreaterThan(0);
  expect(struck).toBeLessThan(40);
  simulator.faults.clear();
  await list(ebs, id);
});

test("clock skew: five minutes of difference are too much, in each service's words", async () => {
  const { simulator } = await setup();
  const body = JSON.stringify({ VolumeSize: 1 });
  const headers = { "content-type": "application/json" };
  const start = (skewMs: number): Promise<Response> =>
    sendSigned(simulator, { service: "ebs", path: "/snapshots", headers, body, skewMs });
  expect((await start(-240_000)).status).toBe(201);
  const late = await start(-360_000);
  expect([late.status, late.headers.get("x-amzn-errortype")]).toEqual([403, "InvalidSignatureException"]);
  const form = "Action=DescribeVolumes&Version=2016-11-15";
  const ec2 = await sendSigned(simulator, { service: "ec2", body: form, skewMs: 360_000 });
  expect([ec2.status, await ec2.text()]).toEqual([400, expect.stringContaining("RequestExpired")]);
});

test("answers carry the simulator's clock, so that a client corrects its own by them", async () => {
  const { ec2, simulator } = await setup();
  simulator.advance(3_600_000);
  await expect(ec2.send(new DescribeVolumesCommand({}))).rejects.toMatchObject({ name: "RequestExpired" });
  await ec2.send(new DescribeVolumesCommand({}));
});

test("UNSIGNED-PAYLOAD: EBS takes a body that the signature does not cover, EC2 does not, and a wrong hash is refused", async () => {
  const { ebs, simulator } = await setup();
  const id = (await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  const send = (contentHash: string): Promise<Response> =>
    sendSigned(simulator, {
      service: "ebs",
      method: "PUT",
      path: `/snapshots/${id}/blocks/0`,
      headers: {
        "x-amz-checksum": sha(block(1)).toString("base64"),
        "x-amz-checksum-algorithm": "SHA256",
        "x-amz-data-length": String(size),
      },
      body: block(1),
      contentHash,
    });
  expect((await send("UNSIGNED-PAYLOAD")).status).toBe(201);
  expect((await send(sha(block(1)).toString("hex"))).status).toBe(201);
  expect((await send(sha(block(2)).toString("hex"))).status).toBe(403);
  const form = { service: "ec2", body: "Action=DescribeVolumes&Version=2016-11-15", contentHash: "UNSIGNED-PAYLOAD" };
  expect((await sendSigned(simulator, form)).status).toBe(403);
});

test("a header of AWS's that the signature leaves out is refused", async () => {
  const { simulator } = await setup();
  const body = "Action=DescribeVolumes&Version=2016-11-15";
  const answer = await sendSigned(simulator, { service: "ec2", body });
  expect(answer.status).toBe(200);
  const bare = await fetch(simulator.endpoint, { method: "POST", body });
  expect([bare.status, await bare.text()]).toEqual([401, expect.stringContaining("AuthFailure")]);
});

test("strictTokens: a new listing makes the tokens of the one before invalid", async () => {
  const { ebs } = await setup({ strictTokens: true });
  const id = await upload(ebs, { 0: block(1) });
  const token = async (): Promise<string> => (await list(ebs, id)).Blocks?.[0]?.BlockToken ?? "";
  const get = (BlockToken: string): Promise<unknown> =>
    ebs.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex: 0, BlockToken }));
  const [old, fresh] = [await token(), await token()];
  await expect(get(old)).rejects.toEqual(refusal("INVALID_BLOCK_TOKEN"));
  await expect(get(fresh)).resolves.toMatchObject({ DataLength: size });
});

test("over-reporting: unchanged blocks may be told as changed, with tokens for both sides", async () => {
  const { ebs, ec2, simulator } = await setup({ overReportEvery: 2 });
  const VolumeId = simulator.volumesOf(simulator.instances.linux)[0] ?? "";
  await simulator.writeVolume(VolumeId, 0, Buffer.concat([1, 2, 3, 4, 5].map(block)));
  const snapshot = async (): Promise<string> =>
    (await ec2.send(new CreateSnapshotCommand({ VolumeId }))).SnapshotId ?? "";
  const first = await snapshot();
  await simulator.writeVolume(VolumeId, size, block(9));
  const { ChangedBlocks = [] } = await changed(ebs, first, await snapshot());
  const shape = ChangedBlocks.map((each) => [each.BlockIndex, !!each.FirstBlockToken, !!each.SecondBlockToken]);
  expect(shape).toEqual([0, 1, 2, 4].map((index) => [index, true, true]));
});

test("latency: answers come later, and the calls of many connections wait side by side", async () => {
  const { ebs, simulator } = await setup({ latencyMs: 30 });
  const id = (await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }))).SnapshotId ?? "";
  // The waits of the simulator, which runs in this process, end only when this clock goes on.
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    let answered = 0;
    const puts = [0, 1, 2, 3].map((index) => put(ebs, id, index, block(1)).then(() => answered++));
    while (simulator.faults.counters()["PutSnapshotBlock"] !== 4) await setImmediate();
    // Who may not ask is refused without a wait, and so is a later call that is answered before them.
    const refused = await fetch(`${simulator.endpoint}/snapshots/${id}/blocks`);
    expect([refused.ok, answered]).toEqual([false, 0]);
    vi.advanceTimersByTime(29);
    await fetch(`${simulator.endpoint}/snapshots/${id}/blocks`);
    expect(answered).toBe(0);
    vi.advanceTimersByTime(1);
    await Promise.all(puts);
    expect(answered).toBe(4);
  } finally {
    vi.useRealTimers();
  }
});

test("keys of an account serve every Region, and its own account only", async () => {
  const { ebs, simulator } = await setup({ delays: noWaits });
  const id = await upload(ebs, { 0: block(1) });
  await expect(list(clientsOf(simulator, { region: "eu-west-1" }).ebs, id)).rejects.toMatchObject({
    name: "ResourceNotFoundException",
  });
  await expect(list(clientsOf(simulator, { account: 1 }).ebs, id)).rejects.toMatchObject({
    name: "AccessDeniedException",
  });
});
