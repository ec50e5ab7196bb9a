import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectNbd } from "@diskferry/nbd";
import { startCloudstackSimulator, type CloudstackSimulator } from "@diskferry/simulators";
import { remoteBench, type RemoteBench } from "../../src/appliance/remote-bench.ts";
import { serveAppliance, type Appliance } from "../../src/appliance/serve-appliance.ts";
import { makeAuthority, type Authority } from "./authority.ts";
import { attachedVolume, logIn } from "./tenant.ts";

const gib = 2 ** 30;
let folder: string;
let authority: Authority;
let stranger: Authority;
/** Certificates of two clients of the authority, and of one of another. */
let ours: string;
let others: string;
let strangers: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "diskferry-appliance-"));
  authority = await makeAuthority(join(folder, "authority"));
  stranger = await makeAuthority(join(folder, "stranger"));
  [ours, others] = [await authority.client("ours"), await authority.client("others")];
  strangers = await stranger.client("strangers");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A simulated cloud, and the appliance that runs on its machine. */
class Place implements AsyncDisposable {
  readonly simulator: CloudstackSimulator;
  readonly call: Awaited<ReturnType<typeof logIn>>;
  readonly notices: string[] = [];
  readonly #stateFolder: string;
  readonly #patienceMs: number;
  #benches: RemoteBench[] = [];
  appliance: Appliance;

  private constructor(
    simulator: CloudstackSimulator,
    call: Awaited<ReturnType<typeof logIn>>,
    about: { stateFolder: string; patienceMs: number },
    appliance: Appliance,
    notices: string[],
  ) {
    this.simulator = simulator;
    this.call = call;
    this.#stateFolder = about.stateFolder;
    this.#patienceMs = about.patienceMs;
    this.appliance = appliance;
    this.notices = notices;
  }

  static async open(devices: { needsRescan?: boolean; lagMs?: number } = {}, patienceMs = 10_000): Promise<Place> {
    const simulator = await startCloudstackSimulator({ devices });
    const stateFolder = await mkdtemp(join(folder, "state-"));
    const notices: string[] = [];
    const appliance = await Place.#serve(simulator, { stateFolder, patienceMs }, notices);
    return new Place(simulator, await logIn(simulator), { stateFolder, patienceMs }, appliance, notices);
  }

  static #serve(
    simulator: CloudstackSimulator,
    about: { stateFolder: string; patienceMs: number },
    notices: string[],
  ): Promise<Appliance> {
    return serveAppliance({
      port: 0,
      controlPort: 0,
      tls: authority.server,
      deviceRoot: simulator.appliance.root,
      notice: (message) => notices.push(message),
      ...about,
    });
  }

  async restart(): Promise<void> {
    await this.appliance.close();
    const about = { stateFolder: this.#stateFolder, patienceMs: this.#patienceMs };
    this.appliance = await Place.#serve(this.simulator, about, this.notices);
  }

  bench(certificates: string = ours): RemoteBench {
    const { host, port, controlPort } = this.appliance;
    const bench = remoteBench({
      host,
      port,
      controlPort,
      certificates,
      notice: (message) => this.notices.push(message),
    });
    this.#benches.push(bench);
    return bench;
  }

  volume(before?: (volumeId: string) => void): Promise<string> {
    return attachedVolume(this.simulator, this.call, before);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const bench of this.#benches) await bench.close();
    await this.appliance.close();
    await this.simulator.close();
  }
}

describe("the appliance", () => {
  it("lets a client write, read, clear and flush a volume that appears only after a rescan", async () => {
    await using place = await Place.open({ needsRescan: true, lagMs: 5 });
    const id = await place.volume();
    const open = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    expect([open.size, open.blockSize]).toEqual([gib, 512]);
    const bytes = Buffer.alloc(1 << 20, 7);
    await Promise.all([open.write(0, bytes), open.write(gib - bytes.length, bytes)]);
    await open.zero(512, 4096);
    await open.flush();
    const back = Buffer.alloc(8192);
    await open.read(0, back);
    expect(back.equals(Buffer.concat([bytes.subarray(0, 512), Buffer.alloc(4096), bytes.subarray(0, 3584)]))).toBe(
      true,
    );
    expect((await place.simulator.volumeBytes(id, 0, 8192)).equals(back)).toBe(true);
    expect((await place.simulator.volumeBytes(id, gib - 512, 512)).equals(bytes.subarray(0, 512))).toBe(true);
    expect(place.simulator.appliance.rescans).toBeGreaterThan(0);
    await open.close();
    await expect(open.write(0, bytes)).rejects.toThrow(/used after it had been closed/);
    expect(place.notices).toEqual([]);
  });

  it("lists the attached volumes by serial, and after a rescan those that were hidden", async () => {
    await using place = await Place.open({ needsRescan: true, lagMs: 1 });
    const [id, hidden] = [
      await place.volume(),
      await place.volume((volume) => place.simulator.appliance.withhold(volume)),
    ];
    const bench = place.bench();
    const serials = async (rescan: boolean): Promise<string[]> =>
      (await bench.devices({ rescan })).devices.map((each) => each.serial);
    const serial = id.replaceAll("-", "").slice(0, 20);
    expect(await serials(false)).not.toContain(serial);
    await expect.poll(() => serials(true), { timeout: 10_000 }).toContain(serial);
    expect(await serials(true)).not.toContain(hidden.replaceAll("-", "").slice(0, 20));
    const [device] = (await bench.devices()).devices.filter((each) => each.serial === serial);
    expect(device).toMatchObject({ size: gib });
  });

  it("ends the writer of an older epoch after what it has under way, and refuses it from then on", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    const older = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 6 }, {});
    const newer = await place.bench(others).open({ id, size: gib }, { mode: "write", epoch: 7 }, {});
    await newer.write(0, Buffer.alloc(512, 2));
    await expect(older.write(0, Buffer.alloc(512, 1))).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false });
    await expect(older.flush()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    const late = place.bench().open({ id, size: gib }, { mode: "write", epoch: 6 }, {});
    await expect(late).rejects.toMatchObject({ code: "FENCED", retryable: false });
    await newer.flush();
    expect((await place.simulator.volumeBytes(id, 0, 512)).equals(Buffer.alloc(512, 2))).toBe(true);
  });

  it("lets no write of an older epoch land after a newer one has opened", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    const older = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    // More than can be written until the newer one has opened; the fence turns most of it away.
    const bytes = Buffer.alloc(1 << 20, 1);
    const settled = Promise.allSettled(Array.from({ length: 200 }, () => older.write(0, bytes)));
    const newer = await place.bench(others).open({ id, size: gib }, { mode: "write", epoch: 2 }, {});
    await newer.write(0, Buffer.alloc(1 << 20, 2));
    expect((await settled).some((each) => each.status === "rejected")).toBe(true);
    await newer.flush();
    expect((await place.simulator.volumeBytes(id, 0, 1 << 20)).equals(Buffer.alloc(1 << 20, 2))).toBe(true);
  });

  it("remembers epochs over a restart", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    await (await place.bench().open({ id, size: gib }, { mode: "write", epoch: 9 }, {})).close();
    await place.restart();
    const older = place.bench().open({ id, size: gib }, { mode: "write", epoch: 8 }, {});
    await expect(older).rejects.toMatchObject({ code: "FENCED" });
    const same = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 9 }, {});
    await same.write(0, Buffer.alloc(512, 3));
  });

  it("does not start over a state that something else wrote", async () => {
    const state = await mkdtemp(join(folder, "state-"));
    await writeFile(join(state, "epochs.json"), "{}}");
    const start = serveAppliance({ port: 0, controlPort: 0, tls: authority.server, stateFolder: state });
    await expect(start).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });

  it("lets two of a job's workers share a session, and another client of the same epoch not", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    const wish = [{ id, size: gib }, { mode: "write", epoch: 4 }, {}] as const;
    const [one, other] = [await place.bench().open(...wish), await place.bench().open(...wish)];
    await Promise.all([one.write(0, Buffer.alloc(512, 1)), other.write(512, Buffer.alloc(512, 2))]);
    await one.flush();
    expect((await place.simulator.volumeBytes(id, 0, 1024)).equals(Buffer.alloc(1024, 1).fill(2, 512))).toBe(true);
    await expect(place.bench(others).open(...wish)).rejects.toMatchObject({ code: "IN_USE" });
  });

  it("opens a device anew that was detached and attached again under a writer", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    const wish = [{ id, size: gib }, { mode: "write", epoch: 4 }, {}] as const;
    const first = await place.bench().open(...wish);
    await first.write(0, Buffer.alloc(512, 1));
    await place.call("detachVolume", { id });
    await place.call("attachVolume", { id, virtualmachineid: place.simulator.appliance.id });
    const second = await place.bench().open(...wish);
    await second.write(512, Buffer.alloc(512, 2));
    await second.flush();
    // The first session's device is gone: nothing of it may seem durable.
    await expect(first.flush()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect((await place.simulator.volumeBytes(id, 0, 1024)).equals(Buffer.alloc(1024, 1).fill(2, 512))).toBe(true);
  });

  it("serves a volume for reading beside its writer, and takes no writes there", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    const writer = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    await writer.write(0, Buffer.alloc(512, 5));
    await writer.flush();
    const reader = await place.bench(others).open({ id, size: gib }, { mode: "read" }, {});
    const into = Buffer.alloc(512);
    await reader.read(0, into);
    expect(into.equals(Buffer.alloc(512, 5))).toBe(true);
    await expect(reader.write(0, into)).rejects.toMatchObject({ code: "DENIED" });
    await writer.write(512, into);
  });
});

describe("who is refused by the appliance", () => {
  let place: Place;
  let id: string;
  beforeAll(async () => {
    place = await Place.open({}, 150);
    id = await place.volume();
  });
  afterAll(() => place[Symbol.asyncDispose]());

  const reason = async (open: Promise<unknown>): Promise<{ code: string; message: string }> =>
    open.then(
      () => expect.fail("it was let in"),
      (error: { code: string; message: string }) => error,
    );

  it("a client without a certificate of its authority, at both doors", async () => {
    const { host, port, controlPort } = place.appliance;
    const open = place.bench(strangers).open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    expect(await reason(open)).toMatchObject({ code: "AUTH" });

    const ca = await readFile(join(ours, "ca-cert.pem"));
    const material = { cert: join(strangers, "client-cert.pem"), key: join(strangers, "client-key.pem") };
    const [cert, key] = [await readFile(material.cert), await readFile(material.key)];
    for (const shown of [{}, { cert, key }]) {
      const status = new Promise((resolve, reject) => {
        const call = httpsRequest({ host, port: controlPort, path: "/v1/devices", ca, ...shown }, (answer) =>
          resolve(answer.statusCode),
        );
        call.once("error", reject);
        call.end();
      });
      await expect(status).rejects.toThrow();
      const nbd = connectNbd({ host, port, exportName: `write/${id}@1` }, { tls: { ca, ...shown } });
      await expect(nbd).rejects.toThrow();
    }
    expect(place.notices.filter((each) => /certificate/i.test(each)).length).toBeGreaterThanOrEqual(3);
    // In the clear nothing is served at all.
    await expect(connectNbd({ host, port, exportName: `write/${id}@1` })).rejects.toThrow();
  });

  it("a client that thinks the appliance has another name", async () => {
    const { host, port, controlPort } = place.appliance;
    const bench = remoteBench({ host, port, controlPort, certificates: ours, serverName: "other.example" });
    expect(await reason(bench.open({ id, size: gib }, { mode: "read" }, {}))).toMatchObject({ code: "AUTH" });
    await bench.close();
  });

  it("a client of the authority that did not ask, or asked for something else, at the NBD door", async () => {
    const { host, port, controlPort } = place.appliance;
    const tlsOf = async (certificates: string) => ({
      ca: await readFile(join(certificates, "ca-cert.pem")),
      cert: await readFile(join(certificates, "client-cert.pem")),
      key: await readFile(join(certificates, "client-key.pem")),
    });
    const open = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    const body = JSON.stringify({ size: gib, mode: "write", epoch: 1 });
    const reply = await new Promise<string>((resolve, reject) => {
      void tlsOf(ours).then((tls) => {
        const about = { host, port: controlPort, path: `/v1/volumes/${id}/open`, method: "POST", ...tls };
        const call = httpsRequest(about, (answer) => answer.setEncoding("utf8").on("data", resolve));
        call.once("error", reject);
        call.end(body);
      });
    });
    const { export: exportName } = JSON.parse(reply) as { export: string };
    const mine = await connectNbd({ host, port, exportName }, { tls: await tlsOf(ours) });
    await mine.close();
    for (const [name, certificates] of [
      [exportName, others],
      [exportName.replace(/@\d+$/, ""), ours],
      [exportName.replace(/@\d+$/, "@1"), ours],
      [exportName.replace(/\d$/, (digit) => String((Number(digit) + 1) % 10)), ours],
      [`write/${randomUUID()}@1`, ours],
    ] as const) {
      const refused = connectNbd({ host, port, exportName: name }, { tls: await tlsOf(certificates) });
      await expect(refused, name).rejects.toMatchObject({
        code: expect.stringMatching(/^(DENIED|NOT_FOUND)$/) as string,
      });
    }
    await open.close();
  });

  it("a volume that is none, is not attached, or has another size", async () => {
    const wish = { mode: "write", epoch: 20 } as const;
    const unknown = await reason(place.bench().open({ id: randomUUID(), size: gib }, wish, {}));
    expect(unknown).toMatchObject({ code: "NOT_FOUND" });
    expect(unknown.message).toMatch(/no device with its serial number/);
    const path = await reason(place.bench().open({ id: "../../etc/passwd", size: gib }, wish, {}));
    expect(["UNSUPPORTED", "CONFIG_INVALID"]).toContain(path.code);
    expect(await reason(place.bench().open({ id: "x", size: gib }, wish, {}))).toMatchObject({
      code: "CONFIG_INVALID",
    });
    const small = await reason(place.bench().open({ id, size: 2 * gib }, wish, {}));
    expect(small).toMatchObject({ code: "CONFIG_INVALID" });
    expect(small.message).toContain(`has ${gib} bytes and the volume has ${2 * gib}`);
    const lies = await place.volume((volume) => place.simulator.appliance.misreport(volume, gib / 2));
    expect(await reason(place.bench().open({ id: lies, size: gib }, wish, {}))).toMatchObject({
      code: "CONFIG_INVALID",
    });
    const hidden = await place.volume((volume) => place.simulator.appliance.withhold(volume));
    expect(await reason(place.bench().open({ id: hidden, size: gib }, wish, {}))).toMatchObject({ code: "NOT_FOUND" });
  });

  it("a request that makes no sense", async () => {
    const tls = {
      ca: await readFile(join(ours, "ca-cert.pem")),
      cert: await readFile(join(ours, "client-cert.pem")),
      key: await readFile(join(ours, "client-key.pem")),
    };
    const { host, controlPort } = place.appliance;
    const ask = async (method: string, path: string, body?: string): Promise<{ status: number; text: string }> =>
      new Promise((resolve, reject) => {
        const call = httpsRequest({ host, port: controlPort, method, path, ...tls }, (answer) => {
          let text = "";
          answer.setEncoding("utf8");
          answer.on("data", (part: string) => (text += part));
          answer.once("end", () => resolve({ status: answer.statusCode ?? 0, text }));
        });
        call.once("error", reject);
        call.end(body);
      });
    const open = `/v1/volumes/${id}/open`;
    for (const [method, path, body] of [
      ["GET", "/v2/devices", undefined],
      ["GET", open, undefined],
      ["POST", open, "{"],
      ["POST", open, "null"],
      ["POST", open, "{}"],
      ["POST", open, '{"size":-1,"mode":"write","epoch":1}'],
      ["POST", open, '{"size":1073741824,"mode":"write"}'],
      ["POST", open, '{"size":1073741824,"mode":"write","epoch":1.5}'],
      ["POST", open, '{"size":1073741824,"mode":"delete","epoch":1}'],
      ["POST", open, `{"x":"${"y".repeat(5000)}"}`],
      ["POST", `/v1/volumes/${id}/close`, "{}"],
    ] as const) {
      const { status, text } = await ask(method, path, body);
      expect([400, 422], `${method} ${path} ${body}`).toContain(status);
      expect(JSON.parse(text)).toMatchObject({ error: { code: expect.any(String) as string } });
    }
  });
});

describe("what counts as a device", () => {
  it("is no regular file on a machine that is none of the simulator's", async () => {
    await using place = await Place.open();
    const id = await place.volume();
    await expect
      .poll(() =>
        stat(place.simulator.appliance.linkOf(id)).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true);
    // The same folder, as if it were the machine's own: links to files are no disks there.
    const { openDevice } = await import("../../src/device/find-device.ts");
    const { root, byId } = place.simulator.appliance;
    const places = { byId, dev: join(root, "dev"), sys: join(root, "sys"), files: false, patienceMs: 50 };
    await expect(openDevice({ id, size: gib }, "write", places)).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  it("is nothing that is neither file nor block device", async () => {
    const root = await mkdtemp(join(folder, "root-"));
    const id = randomUUID();
    await mkdir(join(root, "dev", "disk", "by-id"), { recursive: true });
    await mkdir(join(root, "dev", "vdb"));
    await symlink("../../vdb", join(root, "dev", "disk", "by-id", `virtio-${id.replaceAll("-", "").slice(0, 20)}`));
    const stateFolder = await mkdtemp(join(folder, "state-"));
    await using appliance = await serveAppliance({
      port: 0,
      controlPort: 0,
      tls: authority.server,
      stateFolder,
      deviceRoot: root,
      patienceMs: 50,
    });
    const { host, port, controlPort } = appliance;
    const bench = remoteBench({ host, port, controlPort, certificates: ours });
    const open = bench.open({ id, size: gib }, { mode: "read" }, {});
    await expect(open).rejects.toMatchObject({ code: "UNSUPPORTED" });
    await bench.close();
  });
});

describe("an appliance that is not there", () => {
  it("is told as such, and may be asked again", async () => {
    const place = await Place.open();
    const id = await place.volume();
    const open = await place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    await place.appliance.close();
    await expect(open.write(0, Buffer.alloc(512))).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false });
    const again = place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    await expect(again).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    await place[Symbol.asyncDispose]();
  });

  it("ends what still waits for a device when it is stopped", async () => {
    await using place = await Place.open({}, 60_000);
    const id = await place.volume((volume) => place.simulator.appliance.withhold(volume));
    const open = place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, {});
    const refused = expect(open).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await expect.poll(() => place.simulator.appliance.rescans).toBeGreaterThan(0);
    await place.appliance.close();
    await refused;
  });

  it("is waited for no longer than its client likes", async () => {
    await using place = await Place.open({}, 60_000);
    const id = await place.volume((volume) => place.simulator.appliance.withhold(volume));
    const gone = new AbortController();
    const open = place.bench().open({ id, size: gib }, { mode: "write", epoch: 1 }, { signal: gone.signal });
    setTimeout(() => gone.abort(new Error("enough")), 50);
    await expect(open).rejects.toThrow("enough");
  });
});
