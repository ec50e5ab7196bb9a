import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { command, option, optionReply } from "../../src/protocol.ts";
import type { NbdConnectionRequest } from "../../src/server/exports.ts";
import { memoryBackend } from "../../src/server/memory-backend.ts";
import { serveNbd } from "../../src/server/serve-nbd.ts";
import { closeAfterEach, folder, run, serve, until } from "./fixture.ts";
import { errorOf, infoRequest, RawClient } from "./raw-client.ts";

closeAfterEach();

const MiB = 1024 * 1024;

interface Authority {
  directory: string;
  read(name: string): Promise<Buffer>;
}

/** A certificate authority, a server's certificate for localhost and 127.0.0.1, and a client's, named as QEMU wants. */
async function authority(name: string): Promise<Authority> {
  const directory = join(await folder(), name);
  await mkdir(directory);
  const file = (each: string): string => join(directory, each);
  const openssl = (...args: string[]): Promise<string> => run("openssl", args);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl(
    "req",
    "-x509",
    ...key,
    "-days",
    "2",
    "-subj",
    `/CN=${name}`,
    "-keyout",
    file("ca-key.pem"),
    "-out",
    file("ca-cert.pem"),
  );
  for (const [who, extra] of [
    ["server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth"],
    ["client", "extendedKeyUsage=clientAuth"],
  ] as const) {
    await openssl(
      "req",
      ...key,
      "-subj",
      `/CN=${name} ${who}`,
      "-keyout",
      file(`${who}-key.pem`),
      "-out",
      file("request.pem"),
    );
    await writeFile(file("extensions"), `basicConstraints=CA:FALSE\n${extra}\n`);
    const signing = ["-CA", file("ca-cert.pem"), "-CAkey", file("ca-key.pem"), "-CAcreateserial", "-days", "2"];
    await openssl(
      "x509",
      "-req",
      "-in",
      file("request.pem"),
      ...signing,
      "-extfile",
      file("extensions"),
      "-out",
      file(`${who}-cert.pem`),
    );
  }
  return { directory, read: (each) => readFile(file(each)) };
}

describeWithPeers(["openssl", "nbdinfo", "nbdcopy", "qemu-img"], "TLS", () => {
  test("serves libnbd and QEMU with client certificates, tells authorize who they are, and refuses strangers", async () => {
    const ours = await authority("ours");
    const strangers = await authority("strangers");
    const seen: NbdConnectionRequest[] = [];
    const notices: string[] = [];
    const server = await serve({
      listen: { port: 0 },
      exports: { disk: { backend: memoryBackend(MiB) } },
      tls: {
        cert: await ours.read("server-cert.pem"),
        key: await ours.read("server-key.pem"),
        ca: await ours.read("ca-cert.pem"),
      },
      authorize: (request) => {
        seen.push(request);
      },
      notice: (message) => notices.push(message),
    });
    if (!("port" in server.address)) throw new Error("no port");
    const { port } = server.address;
    const uri = (certificates: string): string =>
      `nbds://localhost:${port}/disk?tls-certificates=${encodeURIComponent(certificates)}`;
    expect(await run("nbdinfo", [uri(ours.directory)])).toContain("with TLS");
    expect(seen.at(-1)).toMatchObject({ exportName: "disk" });
    expect(seen.at(-1)?.peerCertificate?.subject?.CN).toBe("ours client");

    const source = join(await folder(), "source");
    await writeFile(source, Buffer.alloc(MiB, 0x61));
    await run("nbdcopy", [source, uri(ours.directory)]);
    const options = (certificates: string): string[] => [
      "--object",
      `tls-creds-x509,id=tls0,dir=${certificates},endpoint=client`,
      "--image-opts",
      `driver=nbd,host=localhost,port=${port},export=disk,tls-creds=tls0`,
    ];
    const info = await run("qemu-img", ["info", ...options(ours.directory)]);
    expect(info).toContain("virtual size: 1 MiB");
    await expect(run("nbdinfo", [uri(strangers.directory)])).rejects.toThrow(Error);

    // A stranger who trusts our server but shows a certificate of another authority.
    await writeFile(join(strangers.directory, "ca-cert.pem"), await ours.read("ca-cert.pem"));
    await expect(run("nbdinfo", [uri(strangers.directory)])).rejects.toThrow(Error);
    await until("the refusals to be noticed", () => notices.length >= 2);
    await expect(run("nbdinfo", [`nbd://localhost:${port}/disk`])).rejects.toThrow(/not supported/);
    await until("everyone to be gone", () => server.connections().length === 0);
  });

  test("serves libnbd and QEMU with a pre-shared key, and refuses a wrong one", async () => {
    const directory = await folder();
    const key = "0123456789abcdef0123456789abcdef";
    const identities: (string | undefined)[] = [];
    const server = await serve({
      listen: { port: 0 },
      exports: { "": { backend: memoryBackend(MiB) } },
      tls: { psk: [{ identity: "alice", key: Buffer.from(key, "hex") }] },
      authorize: ({ pskIdentity }) => {
        identities.push(pskIdentity);
      },
    });
    if (!("port" in server.address)) throw new Error("no port");
    const { port } = server.address;
    const keys = async (name: string, line: string): Promise<string> => {
      const path = join(directory, name);
      await mkdir(path);
      await writeFile(join(path, "keys.psk"), `${line}\n`);
      await chmod(join(path, "keys.psk"), 0o600);
      return path;
    };
    const good = await keys("good", `alice:${key}`);
    const wrong = await keys("wrong", `alice:${key.replaceAll("0", "1")}`);
    const stranger = await keys("stranger", `mallory:${key}`);
    const uri = (path: string, user: string): string =>
      `nbds://${user}@localhost:${port}/?tls-psk-file=${encodeURIComponent(join(path, "keys.psk"))}`;
    expect(await run("nbdinfo", [uri(good, "alice")])).toContain("with TLS");
    expect(identities.at(-1)).toBe("alice");
    await expect(run("nbdinfo", [uri(wrong, "alice")])).rejects.toThrow(Error);
    await expect(run("nbdinfo", [uri(stranger, "mallory")])).rejects.toThrow(Error);
    const options = (path: string): string[] => [
      "--object",
      `tls-creds-psk,id=tls0,dir=${path},username=alice,endpoint=client`,
      "--image-opts",
      `driver=nbd,host=localhost,port=${port},tls-creds=tls0`,
    ];
    expect(await run("qemu-img", ["info", ...options(good)])).toContain("virtual size: 1 MiB");
    await expect(run("qemu-img", ["info", ...options(wrong)])).rejects.toThrow(Error);
  });

  test("shows nothing in the clear, forgets what was said there, and refuses bytes smuggled before TLS", async () => {
    const ours = await authority("ours");
    const notices: string[] = [];
    const server = await serve({
      notice: (message) => notices.push(message),
      exports: { disk: { backend: memoryBackend(MiB) } },
      tls: { cert: await ours.read("server-cert.pem"), key: await ours.read("server-key.pem") },
    });
    const client = await RawClient.greeted(server.address);
    for (const [kind, data] of [
      [option.list, undefined],
      [option.structuredReply, undefined],
      [option.info, infoRequest("disk")],
      [option.go, infoRequest("disk")],
      [4711, undefined],
    ] as const) {
      expect((await client.ask(kind, data)).type).toBe(optionReply.tlsRequired);
    }
    expect((await client.ask(option.startTls, Buffer.alloc(1))).type).toBe(optionReply.invalid);
    expect((await client.ask(option.startTls)).type).toBe(optionReply.acknowledge);
    client.socket.removeAllListeners("data");
    const ca = await ours.read("ca-cert.pem");
    const secure = await new Promise<TLSSocket>((resolve, reject) => {
      const socket = connectTls({ socket: client.socket, ca, servername: "localhost" }, () => resolve(socket));
      socket.on("error", reject);
    });
    const inside = new RawClient(secure);
    expect((await inside.ask(option.startTls)).type).toBe(optionReply.invalid);
    expect((await inside.askAll(option.go, infoRequest("disk"))).at(-1)?.type).toBe(optionReply.acknowledge);
    inside.request(command.write, { payload: Buffer.alloc(3 * MiB, 1) });
    expect(errorOf(await inside.reply())).not.toBe(0);
    inside.request(command.write, { payload: Buffer.alloc(MiB, 7) });
    expect(errorOf(await inside.reply())).toBe(0);
    inside.request(command.read, { length: MiB });
    expect((await inside.reply(MiB)).payload.equals(Buffer.alloc(MiB, 7))).toBe(true);
    inside.disconnect();
    await inside.closed();

    const smuggler = await RawClient.greeted(server.address);
    const smuggled = Buffer.from("49484156454f50540000000500000000".concat("49484156454f50540000000300000000"), "hex");
    smuggler.send(smuggled);
    await smuggler.closed();
    expect(notices.join("\n")).toContain("in the clear after STARTTLS");
    const byName = await RawClient.greeted(server.address);
    byName.sendOption(option.exportName, Buffer.from("disk"));
    await byName.closed();
  });
});

test("options that contradict themselves are refused before anything listens", async () => {
  const exports = { "": { backend: memoryBackend(512) } };
  const listen = { port: 0 };
  await expect(serveNbd({ listen, exports, tls: {} })).rejects.toThrow(TypeError);
  await expect(serveNbd({ listen, exports, tls: { psk: [] } })).rejects.toThrow(TypeError);
  await expect(
    serveNbd({ listen, exports, tls: { cert: "x", psk: [{ identity: "a", key: new Uint8Array(16) }] } }),
  ).rejects.toThrow(TypeError);
});
