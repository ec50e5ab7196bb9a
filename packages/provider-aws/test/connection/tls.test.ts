import { createHash } from "node:crypto";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { StartSnapshotCommand } from "@aws-sdk/client-ebs";
import { afterEach, expect, test } from "vitest";
import { AwsConnection } from "../../src/connection/connection.ts";
import { listSnapshotBlocks, putSnapshotBlock } from "../../src/connection/ebs-block-calls.ts";
import { openSnapshotReader } from "../../src/source/snapshot-reader.ts";
import { describeWithPeers } from "../../../../test/peers.ts";
import { awsWorld, block, randomBlock } from "../aws-world.ts";

const known = getCACertificates("default");
afterEach(() => setDefaultCACertificates(known));

/** As NODE_EXTRA_CA_CERTS does for a process. */
function trust(authority: string | undefined): void {
  setDefaultCACertificates([...known, authority!]);
}

const quick = { emptyPageEvery: 0, delays: { completeMs: 0, listableMs: 0, startVisibleMs: 0 } };

describeWithPeers(["openssl"], "over TLS", () => {
  test("blocks are written and read as over plain HTTP, and the body is not hashed for the signature", async () => {
    await using world = await awsWorld({ ...quick, tls: true });
    trust(world.simulator.authority);
    await using connection = await AwsConnection.open(world.options());
    const { SnapshotId: id = "" } = await connection.ebs(new StartSnapshotCommand({ VolumeSize: 1 }), { object: "s" });
    const data = randomBlock();
    const checksum = createHash("sha256").update(data).digest("base64");
    await connection.direct(putSnapshotBlock({ snapshotId: id, index: 1, data, checksum }), { object: id });
    const { simulator } = world;
    expect(Buffer.compare(await simulator.snapshotBytes(id, block, block), data)).toBe(0);
    const volume = simulator.addSyntheticVolume({ sizeGib: 1 });
    const snapshot = simulator.takeSnapshot(volume);
    await using reader = await openSnapshotReader(connection, snapshot);
    const into = new Uint8Array(16 * block);
    await Promise.all(
      Array.from({ length: 4 }, (_, part) =>
        reader.read(part * 4 * block, into.subarray(part * 4 * block, (part + 1) * 4 * block)),
      ),
    );
    expect(Buffer.compare(into, await simulator.snapshotBytes(snapshot, 0, into.byteLength))).toBe(0);
  });

  test("an authority that nobody trusts is refused before anything is sent, as is a certificate past its time", async () => {
    for (const tls of [true, "expired"] as const) {
      await using world = await awsWorld({ ...quick, tls });
      if (tls === "expired") trust(world.simulator.authority);
      const { credentials, ...options } = world.options();
      await using connection = await AwsConnection.open({
        ...options,
        credentials: {
          ...(credentials as { accessKeyId: string; secretAccessKey: string }),
          accountId: "111111111111",
        },
      });
      const asking = connection.direct(listSnapshotBlocks("snap-1", { pageSize: 100 }), { object: "snap-1" });
      await expect(asking).rejects.toMatchObject({ code: "AUTH", retryable: false, message: /certificate/ });
      expect(world.simulator.faults.counters()).toEqual({});
    }
  });

  test("a certificate of another name is refused", async () => {
    await using world = await awsWorld({ ...quick, tls: true });
    trust(world.simulator.authority);
    const { credentials, ...options } = world.options();
    // It leads to the same server, whose certificate is of 127.0.0.1 and localhost.
    const endpoint = { ebs: world.simulator.endpoint.replace("127.0.0.1", "[::ffff:127.0.0.1]") };
    await using connection = await AwsConnection.open({
      ...options,
      endpoint,
      credentials: { ...(credentials as { accessKeyId: string; secretAccessKey: string }), accountId: "111111111111" },
    });
    const asking = connection.direct(listSnapshotBlocks("snap-1", { pageSize: 100 }), { object: "snap-1" });
    await expect(asking).rejects.toMatchObject({ code: "AUTH", retryable: false, message: /certificate/ });
    expect(world.simulator.faults.counters()).toEqual({});
  });
});
