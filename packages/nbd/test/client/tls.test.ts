import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { randomBytes } from "../../../../test/seed.ts";
import { startNbdkit, startQemuNbd } from "../../../../test/servers.ts";
import { connectNbd, listNbdExports } from "../../src/client/connect.ts";
import { option, optionReply } from "../../src/protocol.ts";
import type { NbdTlsOptions } from "../../src/tls.ts";
import { startScripted } from "./scripted-server.ts";

const MiB = 1 << 20;
const secret = "a3c1e5f70912b4d6a8cadcfe00112233445566778899aabbccddeeff01020304";
let pki = "";
let disk = "";
const content = randomBytes(12 * MiB, 31);

function openssl(...args: string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

async function makeCertificates(): Promise<void> {
  const at = (name: string): string => join(pki, name);
  for (const authority of ["ca", "stranger"]) {
    openssl(
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      "-subj",
      `/CN=${authority}`,
      "-keyout",
      at(`${authority}-key.pem`),
      "-out",
      at(`${authority}-cert.pem`),
    );
  }
  await writeFile(at("names"), "subjectAltName=DNS:disks.example,IP:127.0.0.1\n");
  for (const side of ["server", "client"]) {
    openssl(
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-subj",
      `/CN=${side}`,
      "-keyout",
      at(`${side}-key.pem`),
      "-out",
      at(`${side}.csr`),
    );
    openssl(
      "x509",
      "-req",
      "-in",
      at(`${side}.csr`),
      "-CA",
      at("ca-cert.pem"),
      "-CAkey",
      at("ca-key.pem"),
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      at("names"),
      "-out",
      at(`${side}-cert.pem`),
    );
  }
  await writeFile(at("keys.psk"), `alice:${secret}\nbob:${secret.replaceAll("a", "b")}\n`, { mode: 0o600 });
}

beforeAll(async () => {
  pki = await mkdtemp(join(tmpdir(), "diskferry-"));
  disk = join(pki, "disk.raw");
  await writeFile(disk, content);
});

afterAll(async () => {
  await rm(pki, { recursive: true, force: true });
});

/** Everything an error could show: its text, its causes, its own members. */
async function rejectionOf(promise: Promise<unknown>): Promise<{ code: string; text: string }> {
  try {
    await promise;
  } catch (error) {
    const { code, message, cause } = error as { code: string; message: string; cause?: unknown };
    return { code, text: `${message} ${String(cause)} ${JSON.stringify(error)}` };
  }
  return { code: "none", text: "" };
}

describeWithPeers(["openssl", "nbdkit", "qemu-nbd"], "TLS", () => {
  beforeAll(makeCertificates);

  const pem = (name: string): Promise<Buffer> => readFile(join(pki, name));
  const withSocket = (uri: string, parameters: string): string => uri + (uri.includes("?") ? "&" : "?") + parameters;
  const secretFree = (text: string): void => {
    expect(text).not.toContain(secret.slice(0, 16));
    expect(text).not.toContain("PRIVATE KEY");
    expect(text).not.toContain("keys.psk");
  };

  for (const transport of ["unix", "tcp"] as const) {
    for (const peer of ["nbdkit", "qemu-nbd"] as const) {
      const start = (credentials: "x509" | "psk", verifyClient = false): ReturnType<typeof startNbdkit> => {
        if (peer === "nbdkit") {
          const kind = credentials === "psk" ? [`--tls-psk=${pki}/keys.psk`] : [`--tls-certificates=${pki}`];
          const verify = verifyClient ? ["--tls-verify-peer"] : [];
          return startNbdkit(["--tls=require", ...kind, ...verify, "file", disk], { transport, tls: true });
        }
        const object =
          credentials === "psk"
            ? `tls-creds-psk,id=t,endpoint=server,dir=${pki}`
            : `tls-creds-x509,id=t,endpoint=server,dir=${pki},verify-peer=${verifyClient ? "on" : "off"}`;
        return startQemuNbd(["--object", object, "--tls-creds", "t", "-e", "0", "-f", "raw", disk], {
          transport,
          tls: true,
        });
      };

      it(`with ${peer} over ${transport} verifies the server and moves bytes both ways`, async () => {
        await using server = await start("x509", true);
        const uri = withSocket(server.uri, `tls-certificates=${pki}&tls-hostname=disks.example`);
        await using client = await connectNbd(uri, { metaContexts: ["base:allocation"] });
        expect(client).toMatchObject({ tls: true, size: 12 * MiB, metaContexts: ["base:allocation"] });
        const into = new Uint8Array(12 * MiB);
        await Promise.all(
          Array.from({ length: 12 }, (_, index) =>
            client.read(index * MiB, into.subarray(index * MiB, (index + 1) * MiB)),
          ),
        );
        expect(Buffer.compare(into, content)).toBe(0);
        const buffer = new Uint8Array(MiB + 96);
        buffer.set(content.subarray(0, MiB), 32);
        await client.write(0, buffer.subarray(32, 32 + MiB), { headroom: true });
        await client.write(MiB, content.subarray(MiB, 2 * MiB));
        await client.read(0, buffer.subarray(32, 32 + MiB), { slack: true });
        expect(Buffer.compare(buffer.subarray(32, 32 + MiB), content.subarray(0, MiB))).toBe(0);
      });

      it(`with ${peer} over ${transport} refuses a server of another authority, name or pin`, async () => {
        await using server = await start("x509");
        const ca = await pem("ca-cert.pem");
        const attempts: [NbdTlsOptions, string][] = [
          [{ ca: await pem("stranger-cert.pem"), serverName: "disks.example" }, "AUTH"],
          [{ serverName: "disks.example" }, "AUTH"],
          [{ ca, serverName: "other.example" }, "AUTH"],
          [{ pin: "00".repeat(32) }, "AUTH"],
          [{ pin: "short" }, "CONFIG_INVALID"],
          [{ ca, serverName: "disks.example", cert: await pem("client-cert.pem") }, "CONFIG_INVALID"],
          [
            { ca, serverName: "disks.example", cert: await pem("client-cert.pem"), key: await pem("server-key.pem") },
            "CONFIG_INVALID",
          ],
          [{ ca: "no certificate", serverName: "disks.example", cert: "no", key: "none" }, "CONFIG_INVALID"],
        ];
        for (const [tls, code] of attempts) {
          const rejection = await rejectionOf(connectNbd(server.uri, { tls }));
          expect(rejection.code, rejection.text).toBe(code);
          secretFree(rejection.text);
        }
        await using byName = await connectNbd(server.uri, { tls: { ca, serverName: "disks.example" } });
        await byName.read(0, new Uint8Array(512));
        const pin =
          openssl("x509", "-in", join(pki, "server-cert.pem"), "-noout", "-fingerprint", "-sha256").split("=")[1] ?? "";
        await using byPin = await connectNbd(server.uri, { tls: { pin: pin.trim() } });
        await byPin.read(0, new Uint8Array(512));
        const byAddress = connectNbd(server.uri, { tls: { ca } });
        if (transport === "tcp") await (await byAddress).close();
        else expect((await rejectionOf(byAddress)).code).toBe("CONFIG_INVALID");
      });

      it(`with ${peer} over ${transport} shows the client certificate that the server demands`, async () => {
        await using server = await start("x509", true);
        const ca = await pem("ca-cert.pem");
        const without = await rejectionOf(connectNbd(server.uri, { tls: { ca, serverName: "disks.example" } }));
        expect(without.code, without.text).toBe("UNAVAILABLE");
        const tls = {
          ca,
          serverName: "disks.example",
          cert: await pem("client-cert.pem"),
          key: await pem("client-key.pem"),
        };
        await using client = await connectNbd(server.uri, { tls });
        await client.read(0, new Uint8Array(512));
      });

      it(`with ${peer} over ${transport} proves a shared key, and fails with a wrong one`, async () => {
        await using server = await start("psk");
        // qemu-nbd takes the file keys.psk of a folder as nbdkit does, with any of its identities.
        await using client = await connectNbd(
          withSocket(server.uri, `tls-psk-file=${pki}/keys.psk&tls-username=alice`),
        );
        const into = new Uint8Array(MiB);
        await client.read(0, into);
        expect(Buffer.compare(into, content.subarray(0, MiB))).toBe(0);
        secretFree(client.uri);
        const wrong = { identity: "alice", key: Buffer.alloc(32, 1) };
        for (const psk of [wrong, { ...wrong, identity: "eve" }]) {
          const rejection = await rejectionOf(connectNbd(server.uri, { tls: { psk } }));
          expect(["UNAVAILABLE", "AUTH"]).toContain(rejection.code);
          secretFree(rejection.text);
        }
        const missing = connectNbd(withSocket(server.uri, `tls-psk-file=${pki}/keys.psk&tls-username=eve`));
        expect((await rejectionOf(missing)).code).toBe("CONFIG_INVALID");
      });
    }
  }

  it("is never left to the server: one without it is refused, and one that demands it is named", async () => {
    await using plain = await startNbdkit(["--tls=off", "memory", "1M"]);
    const refused = await rejectionOf(
      connectNbd(plain.uri, { tls: { ca: await pem("ca-cert.pem"), serverName: "x" } }),
    );
    expect(refused.code).toBe("CONFIG_INVALID");
    expect(refused.text).toMatch(/does not offer TLS/);
    await using strict = await startNbdkit(["--tls=require", `--tls-certificates=${pki}`, "memory", "1M"]);
    const demanded = await rejectionOf(connectNbd(strict.uri));
    expect(demanded.text).toMatch(/demands TLS/);
    const listing = await rejectionOf(listNbdExports(strict.uri));
    expect(listing.text).toMatch(/demands TLS/);
  });

  it("aborted mid-content gives the memory back at once, since only we write into it", async () => {
    await using server = await startNbdkit([
      "--filter=delay",
      "--tls=require",
      `--tls-certificates=${pki}`,
      "pattern",
      "64M",
      "rdelay=50ms",
    ]);
    await using client = await connectNbd(
      server.uri.replace("nbd+", "nbds+") + `&tls-certificates=${pki}&tls-hostname=disks.example`,
    );
    const abort = new AbortController();
    const into = new Uint8Array(32 * MiB);
    const given = client.read(0, into, { signal: abort.signal });
    while (into[8 * MiB - 1] === 0) await new Promise((resolve) => setImmediate(resolve));
    abort.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    into.fill(0xaa);
    await client.read(0, new Uint8Array(512));
    expect(into.every((byte) => byte === 0xaa)).toBe(true);
  });
});

describe("a TLS upgrade by a bad server", () => {
  it("refuses bytes that come in front of the TLS handshake", async () => {
    await using server = await startScripted(async (peer) => {
      peer.greet();
      await peer.take(4);
      const { type } = await peer.option();
      const forged = Buffer.alloc(100, 1);
      peer.socket.cork();
      peer.optionReply(type, optionReply.acknowledge);
      peer.send(forged);
      peer.socket.uncork();
    });
    const rejection = await rejectionOf(connectNbd(server.uri, { tls: { serverName: "x" } }));
    expect(rejection.text).toMatch(/before TLS was up/);
    expect(rejection.code).toBe("UNEXPECTED");
  });

  it.each(["garbage", "silence", "end"])("that answers the TLS handshake with %s fails in time", async (manner) => {
    await using server = await startScripted(async (peer) => {
      peer.greet();
      await peer.take(4);
      const { type } = await peer.option();
      expect(type).toBe(option.startTls);
      peer.optionReply(type, optionReply.acknowledge);
      await peer.take(1);
      if (manner === "garbage") peer.send(randomBytes(4096, 33));
      if (manner === "end") peer.socket.end();
    });
    const rejection = await rejectionOf(
      connectNbd(server.uri, { tls: { serverName: "x" }, connectTimeoutMs: manner === "silence" ? 300 : 20_000 }),
    );
    expect(rejection.code, rejection.text).toBe(manner === "garbage" ? "AUTH" : "UNAVAILABLE");
  });
});
