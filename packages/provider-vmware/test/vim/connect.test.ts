import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startVcenterSimulator, type VcenterReleaseName } from "@diskferry/simulators";
import { afterEach, describe, expect, test, vi } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import type { VsphereOptions } from "../../src/options.ts";
import { connectVsphere } from "../../src/vsphere-connection.ts";
import { negotiateApi } from "../../src/vim/api-version.ts";
import { VimClient } from "../../src/vim/vim-client.ts";
import { VimHttp } from "../../src/vim/vim-http.ts";
import { openClient, serviceInstance } from "./open-client.ts";
import { ScriptedServer, serviceContent } from "./scripted-server.ts";

const secret = "Secr3t!-of-the-test";

afterEach(() => vi.unstubAllEnvs());

describe("a login", () => {
  test("with a wrong password names the user, what to do, and never the password", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    for (const protocol of ["soap", "vi-json"] as const) {
      const credentials = { userName: "svc@vsphere.local", password: secret };
      const failure = openClient(simulator, { credentials, protocol });
      await expect(failure).rejects.toMatchObject({ code: "AUTH", provider: "vsphere", retryable: false });
      await expect(failure).rejects.toThrow(/svc@vsphere\.local.*check user and password/s);
      await expect(failure).rejects.not.toThrow(secret);
    }
    expect(simulator.alive.sessions).toBe(0);
  });

  test("needs a user and a password from options, a file or the environment", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, password: secret });
    vi.stubEnv("VSPHERE_USER", "");
    vi.stubEnv("VSPHERE_PASSWORD", "");
    const connect = async (more: Partial<VsphereOptions>): Promise<void> =>
      (await connectVsphere({ url: simulator.url, ...more }))[Symbol.asyncDispose]();
    await expect(connect({})).rejects.toMatchObject({ code: "CONFIG_INVALID", message: /VSPHERE_USER/ });
    const { userName: username } = simulator;
    await expect(connect({ username })).rejects.toMatchObject({ code: "CONFIG_INVALID", message: /VSPHERE_PASSWORD/ });
    await connect({ username, password: secret });
    vi.stubEnv("VSPHERE_PASSWORD", secret);
    await connect({ username });
    vi.stubEnv("VSPHERE_PASSWORD", "");
    const folder = await mkdtemp(join(tmpdir(), "diskferry-password-"));
    try {
      await writeFile(join(folder, "password"), `${secret}\nsecond line\n`);
      await connect({ username, passwordFile: join(folder, "password") });
      const missing = connect({ username, passwordFile: join(folder, "none") });
      await expect(missing).rejects.toMatchObject({ code: "CONFIG_INVALID", message: /ENOENT/ });
    } finally {
      await rm(folder, { recursive: true });
    }
    expect(simulator.alive.sessions).toBe(0);
  });

  test("by a ticket joins as the same user without a password, and a ticket is good once", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    for (const protocol of ["soap", "vi-json"] as const) {
      await using client = await openClient(simulator, { protocol });
      const cloneTicket = await client.cloneTicket();
      await using worker = await openClient(simulator, { protocol, credentials: { cloneTicket } });
      expect(worker.user.userName).toBe(client.user.userName);
      expect(worker.user.key).not.toBe(client.user.key);
      expect(await worker.call("CurrentTime", serviceInstance)).toHaveLength(1);
      const again = openClient(simulator, { protocol, credentials: { cloneTicket } });
      await expect(again).rejects.toMatchObject({ code: "AUTH" });
      await expect(again).rejects.not.toThrow(cloneTicket);
    }
    expect(simulator.alive.sessions).toBe(0);
  });
});

describe("an address", () => {
  test("where nothing listens fails at once, and says so", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    const { url, userName, password } = simulator;
    await simulator.stop();
    const failure = VimClient.connect({ url: new URL(url), credentials: { userName, password } });
    await expect(failure).rejects.toMatchObject({ code: "UNAVAILABLE", message: /ECONNREFUSED/ });
  });

  test("of another server is told from a vCenter", async () => {
    await using server = await ScriptedServer.start((_, response) =>
      response.end("<html><body>It works!</body></html>"),
    );
    const failure = VimClient.connect({ url: server.url, credentials: { userName: "u", password: secret } });
    await expect(failure).rejects.toMatchObject({ code: "UNSUPPORTED", message: /not as vCenter or ESXi/ });
    expect(server.seen.some(({ body }) => body.includes(secret))).toBe(false);
  });

  test("in clear is refused, except on this machine", async () => {
    const connecting = connectVsphere({ url: "http://vc.example.org", username: "u", password: "p" });
    await expect(connecting).rejects.toMatchObject({ code: "CONFIG_INVALID", message: /not https/ });
  });
});

describeWithPeers(["openssl"], "a certificate", () => {
  test("of an unknown authority is refused before anything is sent, and accepted by its authority", async () => {
    await using simulator = await startVcenterSimulator();
    const refused = openClient(simulator, { trust: undefined });
    await expect(refused).rejects.toMatchObject({ code: "AUTH", message: /authority is not trusted/ });
    expect(simulator.calls.size).toBe(0);
    await using client = await openClient(simulator, { trust: { ca: simulator.tls!.authority } });
    expect(client.about.kind).toBe("vcenter");
  });

  test("is pinned by SHA-256 or SHA-1, with or without colons", async () => {
    await using simulator = await startVcenterSimulator();
    const { sha1, sha256 } = simulator.tls!;
    for (const thumbprint of [sha1, sha256, sha1.replaceAll(":", "").toLowerCase()]) {
      await using client = await openClient(simulator, { trust: { thumbprint } });
      expect(client.user.userName).toBe(simulator.userName);
    }
  });

  test("other than the pinned one is refused before anything is sent, and its thumbprint told", async () => {
    await using simulator = await startVcenterSimulator();
    for (const [length, shown] of [
      [64, simulator.tls!.sha256],
      [40, simulator.tls!.sha1],
    ] as const) {
      const failure = openClient(simulator, { trust: { thumbprint: "0".repeat(length) } });
      await expect(failure).rejects.toMatchObject({ code: "AUTH", retryable: false });
      await expect(failure).rejects.toThrow(shown);
    }
    expect(simulator.calls.size).toBe(0);
  });

  test("that has expired is named, and a pin stands above it", async () => {
    await using simulator = await startVcenterSimulator({ tls: "expired" });
    const failure = openClient(simulator, { trust: { ca: simulator.tls!.authority } });
    await expect(failure).rejects.toMatchObject({ code: "AUTH", message: /certificate has expired.*renew it/s });
    expect(simulator.calls.size).toBe(0);
    await using client = await openClient(simulator);
    expect(client.about.version).toBe("8.0.3");
  });

  test("is not asked for where the server speaks no TLS", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    const failure = openClient(simulator, { url: new URL(simulator.url.replace("http:", "https:")) });
    await expect(failure).rejects.toMatchObject({ code: "CONFIG_INVALID", message: /does not speak TLS/ });
  });
});

describe("the version of the API", () => {
  const expected: [VcenterReleaseName, string, "soap" | "vi-json"][] = [
    ["6.5", "6.5", "soap"],
    ["6.7", "6.7.3", "soap"],
    ["7.0", "7.0.3.0", "soap"],
    ["8.0", "8.0.0.1", "soap"],
    ["8.0.1", "8.0.1.0", "vi-json"],
    ["8.0.3", "8.0.3.0", "vi-json"],
    ["9.0", "9.0.0.0", "vi-json"],
  ];

  test.each(expected)("of %s is %s, by %s where nothing is said", async (version, apiVersion, protocol) => {
    await using simulator = await startVcenterSimulator({ tls: false, version });
    await using client = await openClient(simulator, { protocol: "auto" });
    expect([client.apiVersion, client.protocol]).toEqual([apiVersion, protocol]);
    expect(await client.call("CurrentTime", serviceInstance)).toHaveLength(1);
    await using soap = await openClient(simulator, { protocol: "soap" });
    expect([soap.apiVersion, soap.protocol]).toEqual([apiVersion, "soap"]);
    expect(await soap.call("CurrentTime", serviceInstance)).toHaveLength(1);
  });

  test("of a host by itself is spoken in SOAP", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, kind: "esxi" });
    await using client = await openClient(simulator, { protocol: "auto" });
    expect([client.about.kind, client.protocol]).toEqual(["esxi", "soap"]);
    await expect(openClient(simulator, { protocol: "vi-json" })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  test("that is demanded and not there is refused", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, version: "7.0" });
    const failure = openClient(simulator, { protocol: "vi-json" });
    await expect(failure).rejects.toMatchObject({ code: "UNSUPPORTED", message: /8\.0 U1.*soap/s });
  });

  test("of a list with names for tests is the newest release, never one beyond ours", async () => {
    const list = (versions: string[]): string =>
      `<namespaces version="1.0"><namespace><name>urn:vim25</name><version>${versions[0]}</version><priorVersions>` +
      `${versions
        .slice(1)
        .map((each) => `<version>${each}</version>`)
        .join("")}</priorVersions></namespace></namespaces>`;
    await using simulator = await startVcenterSimulator({ tls: false });
    for (const [offered, chosen] of [
      [["99.0.0.0", "9.1.0.0", "9.0.0.0", "u8.0.2.0", "8.0.3.0"], "9.0.0.0"],
      [["8.0.2.0", "7.0"], "8.0.2.0"],
    ] as const) {
      await using server = await ScriptedServer.start((request, response) => {
        if (request.path.endsWith(".xml")) response.end(list([...offered]));
        else
          void fetch(`${simulator.url}${request.path}`, {
            method: request.method,
            ...(request.body === "" ? {} : { body: request.body }),
          }).then(async (answer) => response.writeHead(answer.status).end(await answer.text()));
      });
      await using http = new VimHttp({ origin: server.url, timeoutMs: 10_000 });
      expect((await negotiateApi(http, "soap")).version).toBe(chosen);
    }
  });

  test("is asked for in every call, also where the server knows none of the old ones", async () => {
    const list =
      `<namespaces version="1.0"><namespace><name>urn:vim25</name><version>9.0.1.0</version>` +
      `<priorVersions><version>9.0.0.0</version></priorVersions></namespace></namespaces>`;
    await using server = await ScriptedServer.start((request, response) => {
      if (request.path.endsWith(".xml")) response.end(list);
      else if (request.headers["soapaction"] === '"urn:vim25/9.0.0.0"') response.end(serviceContent);
      else response.writeHead(500).end("unsupported version");
    });
    await using http = new VimHttp({ origin: server.url, timeoutMs: 10_000 });
    expect((await negotiateApi(http, "soap")).version).toBe("9.0.0.0");
  });

  test("that is newer than all that we know is refused with what there is", async () => {
    const list = `<namespaces version="1.0"><namespace><name>urn:vim25</name><version>10.0.0.0</version></namespace></namespaces>`;
    await using server = await ScriptedServer.start((request, response) => {
      response.end(request.path.endsWith(".xml") ? list : serviceContent);
    });
    await using http = new VimHttp({ origin: server.url, timeoutMs: 10_000 });
    await expect(negotiateApi(http, "auto")).rejects.toMatchObject({ code: "UNSUPPORTED", message: /10\.0\.0\.0/ });
  });

  test("6.0 is refused by its bug before a snapshot is thought of, and 6.5 is deprecated", async () => {
    await using old = await startVcenterSimulator({ tls: false, version: "6.0" });
    const options = ({ url, userName, password }: typeof old): VsphereOptions => ({
      url,
      username: userName,
      password,
    });
    await expect(connectVsphere(options(old))).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: /6\.0.*KB 317933/s,
    });
    expect(old.alive.sessions).toBe(0);
    await using deprecated = await startVcenterSimulator({ tls: false, version: "6.5" });
    const notices: string[] = [];
    await using connection = await connectVsphere(options(deprecated), { notice: (line) => notices.push(line) });
    expect(connection.client.apiVersion).toBe("6.5");
    expect(notices.join()).toMatch(/6\.5 is out of support/);
  });
});
