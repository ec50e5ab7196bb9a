import { createServer } from "node:https";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  CloudstackClient,
  type CloudstackClientOptions,
  type Parameters,
  jobOf,
  provider,
  volumeOf,
} from "../../src/index.ts";
import { ensure } from "../../src/client/ensure.ts";
import { isLostAnswer } from "../../src/errors.ts";
import { makeAuthority } from "../appliance/authority.ts";
import { startCloud } from "../cloud.ts";
import { type Script, apiError, startScripted } from "./scripted-server.ts";

const keys = { apiKey: "the-api-key", secretKey: "the-secret-key" };
const quick = { pollMs: 1, pollMostMs: 4, requestMs: 2_000, retryBudgetMs: 500, jobMs: 1_000 };

function clientOf(url: string, options: Partial<CloudstackClientOptions> = {}): CloudstackClient {
  return new CloudstackClient({ endpoint: url, ...keys, ...quick, ...options });
}

async function failureOf(work: Promise<unknown>): Promise<{ code: string; message: string; retryable: boolean }> {
  return work.then(
    () => expect.fail("it resolved"),
    (error: unknown) => error as { code: string; message: string; retryable: boolean },
  );
}

async function gather<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

describe("calls", () => {
  it("are POSTs that expire soon and hold the signature in the form, never in the URL", async () => {
    await using server = await startScripted(() => ({ body: { listzonesresponse: {} } }));
    await using client = clientOf(server.url);
    await client.call("listZones", { name: "a b+c~(d)" });
    const [form] = server.calls;
    expect(form?.get("signatureversion")).toBe("3");
    const expires = Date.parse(form?.get("expires")?.replace("+0000", "Z") ?? "");
    expect(expires - Date.now()).toBeGreaterThan(60_000);
    expect(expires - Date.now()).toBeLessThan(10 * 60_000);
    expect(form?.get("signature")).toMatch(/^[\w+/]{27}=$/);
    expect(form?.toString()).not.toContain(keys.secretKey);
  });

  it("are signed so that a strict server takes names with spaces, tildes and brackets", async () => {
    await using cloud = await startCloud({ settings: { enforcePostAndTimestamps: true } });
    const { url, tenant, zoneId, diskOfferings } = cloud.simulator;
    await using client = clientOf(url, { apiKey: tenant.apiKey, secretKey: tenant.secretKey });
    const name = "web 01 ~ (root)! it's * ü";
    await client.run("createVolume", { name, zoneid: zoneId, diskofferingid: diskOfferings["Custom"], size: 1 });
    expect((await gather(client.list("listVolumes", { name }))).map((each) => volumeOf(each).name)).toEqual([name]);
  });

  it("read answers of any status, under any key, with ids as numbers or texts and lists that are missing", async () => {
    await using server = await startScripted(({ form }) =>
      form.get("command") === "listVolumes"
        ? { body: { somethingelse: { count: 1, volume: [{ id: 17, size: "1024", deviceid: "0", tags: null }] } } }
        : { body: { listzonesresponse: {} } },
    );
    await using client = clientOf(server.url);
    const [volume] = (await gather(client.list("listVolumes"))).map(volumeOf);
    expect(volume).toMatchObject({ id: "17", size: 1024, deviceId: 0, tags: {} });
    expect(await gather(client.list("listZones"))).toEqual([]);
  });

  it("repeat a reading command while the server is away, and give back what it says in the end", async () => {
    await using server = await startScripted(({ index }) =>
      index === 1 ? "cut" : index === 2 ? { status: 502, body: "<html>bad gateway" } : { body: { r: { count: 0 } } },
    );
    await using client = clientOf(server.url, { retryBudgetMs: 60_000 });
    await client.call("listZones");
    expect(server.calls).toHaveLength(3);
  });

  it("send a changing command once when its answer is lost, and say that it may have been done", async () => {
    for (const script of [() => "cut", () => ({ status: 504, body: "gateway timeout" })] as Script[]) {
      await using server = await startScripted(script);
      await using client = clientOf(server.url);
      const error = await failureOf(client.call("createVolume"));
      expect(isLostAnswer(error)).toBe(true);
      expect(server.calls).toHaveLength(1);
    }
  });

  it("wait as long as the API limit says and go on", async () => {
    await using server = await startScripted(({ index }) =>
      index < 3
        ? apiError(
            "createVolume",
            429,
            "The given user has reached his/her account api limit, please retry after 3 ms.",
            9999,
          )
        : { body: { createvolumeresponse: { id: "v" } } },
    );
    await using client = clientOf(server.url);
    expect((await client.submit("createVolume")).id).toBe("v");
    expect(server.calls).toHaveLength(3);
  });

  it.each(["getUploadParamsForVolume", "getUploadParamsForTemplate", "getUploadParamsForIso"])(
    "%s makes a row each time: its lost answer is the caller's to look for",
    async (command) => {
      await using server = await startScripted(() => "cut");
      await using client = clientOf(server.url);
      expect(isLostAnswer(await failureOf(client.call(command)))).toBe(true);
      expect(server.calls).toHaveLength(1);
    },
  );

  it("hide the keys in whatever a server repeats", async () => {
    await using server = await startScripted(() =>
      apiError("listZones", 431, `no such key the-secret-key of the-api-key`),
    );
    await using client = clientOf(server.url);
    const { message } = await failureOf(client.call("listZones"));
    expect(message).not.toContain("the-secret-key");
    expect(message).not.toContain("the-api-key");
  });

  it("end with the reason of an aborted signal", async () => {
    await using server = await startScripted(() => "hang");
    await using client = clientOf(server.url);
    const reason = new Error("enough");
    const controller = new AbortController();
    const call = failureOf(client.call("listZones", {}, { signal: controller.signal }));
    setTimeout(() => controller.abort(reason), 20);
    expect(await call).toBe(reason);
  });
});

describe("lists", () => {
  it("are read page by page to their end, and a row that moved between pages comes once", async () => {
    await using server = await startScripted(({ form }) => {
      const page = Number(form.get("page"));
      expect(form.get("pagesize")).toBe("200");
      const first = page === 1 ? 0 : 199;
      const volume = Array.from({ length: page === 1 ? 200 : 51 }, (_, index) => ({ id: `v${first + index}` }));
      return { body: { listvolumesresponse: { count: 250, volume } } };
    });
    await using client = clientOf(server.url);
    expect(await gather(client.list("listVolumes"))).toHaveLength(250);
    expect(server.calls).toHaveLength(2);
  });

  it("are never cut to the server's own page: 500 rows and more", async () => {
    await using cloud = await startCloud({ settings: { pageSize: 200 } });
    const { url, tenant } = cloud.simulator;
    const machines = Array.from({ length: 205 }, (_, index) => ({ name: `m${index}`, disks: [] }));
    for (const machine of machines) await cloud.simulator.addMachine(machine);
    await using client = clientOf(url, { apiKey: tenant.apiKey, secretKey: tenant.secretKey });
    expect(await gather(client.list("listVirtualMachines"))).toHaveLength(206);
  });

  for (const length of [200, 700]) {
    it(`end where a command knows no pages and gives all ${length} rows each time`, async () => {
      const api = Array.from({ length }, (_, index) => ({ name: `command${index}` }));
      await using server = await startScripted(() => ({ body: { listapisresponse: { count: length, api } } }));
      await using client = clientOf(server.url);
      expect(await gather(client.list("listApis"))).toHaveLength(length);
      expect(server.calls.length).toBeLessThanOrEqual(2);
    });
  }

  it("go on after a page that the server filtered, as long as the count says so", async () => {
    await using server = await startScripted(({ form }) => {
      const page = Number(form.get("page"));
      const volume = Array.from({ length: page === 1 ? 150 : 20 }, (_, index) => ({ id: `v${page}-${index}` }));
      return { body: { listvolumesresponse: { count: 220, volume } } };
    });
    await using client = clientOf(server.url);
    expect(await gather(client.list("listVolumes"))).toHaveLength(170);
  });

  it("that shrink while they are read lose no row: those that moved to a page behind are gone back for", async () => {
    let rows = Array.from({ length: 402 }, (_, index) => `v${index}`);
    await using server = await startScripted(({ form, index }) => {
      // Between two pages somebody deletes what stood on the first.
      if (index === 2 || index === 3) rows = rows.filter((id) => id !== `v${index}`);
      const [page, size] = [Number(form.get("page")), Number(form.get("pagesize"))];
      const volume = rows.slice((page - 1) * size, page * size).map((id) => ({ id }));
      return { body: { listvolumesresponse: volume.length === 0 ? {} : { count: rows.length, volume } } };
    });
    await using client = clientOf(server.url);
    const found = (await gather(client.list("listVolumes"))).map(({ id }) => id);
    expect(new Set(found).size).toBe(found.length);
    for (const id of rows) expect(found).toContain(id);
  });

  it("that never come to rest are given up", async () => {
    let next = 0;
    await using server = await startScripted(({ form }) => {
      const volume = Array.from({ length: form.get("page") === "1" ? 200 : 0 }, () => ({ id: `v${next++}` }));
      return { body: { listvolumesresponse: volume.length === 0 ? { count: 200 } : { count: 400, volume } } };
    });
    await using client = clientOf(server.url);
    await expect(gather(client.list("listVolumes"))).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect(server.calls).toHaveLength(20);
  });

  it("of a whole number of pages are read once", async () => {
    await using server = await startScripted(({ form }) => {
      const page = Number(form.get("page"));
      const volume = Array.from({ length: page < 3 ? 200 : 0 }, (_, index) => ({ id: `v${page}-${index}` }));
      return { body: { listvolumesresponse: volume.length === 0 ? {} : { count: 400, volume } } };
    });
    await using client = clientOf(server.url);
    expect(await gather(client.list("listVolumes"))).toHaveLength(400);
    expect(server.calls).toHaveLength(3);
  });

  it("end where the count of a page is that of its own rows, or of rows that nobody is shown", async () => {
    for (const total of [undefined, 500]) {
      await using server = await startScripted(({ form }) => {
        const page = Number(form.get("page"));
        const length = page === 1 ? 200 : page === 2 ? 57 : 0;
        const volume = Array.from({ length }, (_, index) => ({ id: `v${page}-${index}` }));
        return { body: { listvolumesresponse: length === 0 ? {} : { count: total ?? length, volume } } };
      });
      await using client = clientOf(server.url);
      expect(await gather(client.list("listVolumes"))).toHaveLength(257);
      expect(server.calls.length).toBeLessThanOrEqual(6);
    }
  });

  it("take smaller pages where the server allows no larger ones", async () => {
    await using cloud = await startCloud({ settings: { pageSize: 50 } });
    await using client = clientOf(cloud.simulator.url, cloud.simulator.tenant);
    expect((await gather(client.list("listApis"))).length).toBeGreaterThan(40);
  });
});

describe("jobs", () => {
  const pending = { queryasyncjobresultresponse: { jobid: "j", jobstatus: 0 } };
  const done = { queryasyncjobresultresponse: { jobid: "j", jobstatus: 1, jobresult: { volume: { id: "v" } } } };

  it("are 0 pending, 1 done, 2 failed, with a failure as object or as bare text", () => {
    expect(jobOf({ jobid: 1, jobstatus: 0 }).status).toBe("pending");
    expect(jobOf({ jobid: 1, jobstatus: 1 }).status).toBe("done");
    const object = jobOf({
      jobid: 1,
      jobstatus: 2,
      jobresultcode: 530,
      jobresult: { errorcode: 530, errortext: "no" },
    });
    expect(object).toMatchObject({ status: "failed", resultCode: 530, text: "no" });
    const text = jobOf({
      jobid: 1,
      jobstatus: 2,
      jobresultcode: 551,
      jobresulttype: "text",
      jobresult: "Unable to deploy",
    });
    expect(text).toMatchObject({ status: "failed", resultCode: 551, text: "Unable to deploy" });
  });

  it("that were cancelled have failed: nobody waits for them", async () => {
    const cancelled = { jobid: "j", jobstatus: 3, jobresultcode: 0, cmd: "org.apache.AttachVolumeCmd" };
    await using server = await startScripted(() => ({ body: { queryasyncjobresultresponse: cancelled } }));
    await using client = clientOf(server.url);
    expect((await failureOf(client.finish("j"))).message).toMatch(/AttachVolume.*cancelled/);
    expect(server.calls).toHaveLength(1);
  });

  it("are waited for through lost answers, throttling and a proxy's errors", async () => {
    await using server = await startScripted(({ index }) => {
      if (index === 1) return { body: pending };
      if (index === 2) return "cut";
      if (index === 3) return apiError("queryAsyncJobResult", 429, "please retry after 2 ms.");
      return index === 4 ? { status: 502, body: "no" } : { body: done };
    });
    await using client = clientOf(server.url);
    expect(await client.finish("j")).toMatchObject({ status: "done" });
  });

  it("that never end are given up with what to look at, and forgotten ones are told apart", async () => {
    await using server = await startScripted(({ form }) =>
      form.get("jobid") === "forgotten"
        ? apiError(
            "queryAsyncJobResult",
            431,
            "Invalid parameter jobid value=forgotten due to incorrect long value format, or entity does not exist",
            4350,
          )
        : { body: pending },
    );
    await using client = clientOf(server.url, { jobMs: 20 });
    const error = await failureOf(client.finish("j"));
    expect(error).toMatchObject({ code: "UNAVAILABLE", retryable: false });
    expect(error.message).toContain("Job j");
    expect(await client.finish("forgotten")).toBeUndefined();
  });
});

describe("changes", () => {
  interface World {
    attached: boolean;
    jobs: Map<string, number>;
    submitted: number;
  }

  /**
   * A server with one volume to attach; `lose` cuts the connection after or before it was done, or lets the request arrive
   * only when it was sent again.
   */
  function attaching(world: World, lose: "after" | "before" | "never" | "late"): Script {
    let late = "";
    return ({ form }) => {
      const command = form.get("command") ?? "";
      if (command === "queryAsyncJobResult") {
        const status = world.jobs.get(form.get("jobid") ?? "");
        if (status === undefined) return apiError(command, 431, "entity does not exist", 4350);
        // One that is still at work ends while it is waited for.
        world.jobs.set(form.get("jobid") ?? "", 1);
        world.attached = true;
        return { body: { r: { jobid: form.get("jobid"), jobstatus: status, jobresult: { success: true } } } };
      }
      if (command !== "attachVolume")
        return { body: { r: { volume: [{ id: "v", virtualmachineid: world.attached ? "m" : undefined }] } } };
      world.submitted++;
      if (lose === "before" && world.submitted === 1) return "cut";
      const job = form.get("customjobid") ?? "none";
      if (lose === "late" && world.submitted === 1) {
        late = job;
        return "cut";
      }
      if (lose === "late" && world.submitted === 2) world.jobs.set(late, 0);
      if (world.jobs.has(job)) return apiError(command, 431, `UUID: ${job} already exists`, 4350);
      world.jobs.set(job, 1);
      world.attached = true;
      return lose === "after" && world.submitted === 1 ? "cut" : { body: { r: { jobid: job } } };
    };
  }

  async function attach(client: CloudstackClient): Promise<void> {
    const look = async () => volumeOf((await gather(client.list("listVolumes")))[0] ?? {});
    const parameters: Parameters = { id: "v", virtualmachineid: "m" };
    await ensure(client, {
      object: "volume v",
      look,
      done: ({ machineId }) => machineId === "m",
      command: () => ({ command: "attachVolume", parameters }),
    });
  }

  for (const [lose, submissions] of [
    ["never", 1],
    ["after", 1],
    ["before", 2],
    ["late", 2],
  ] as const) {
    const when = {
      never: "never",
      after: "after the server did it",
      before: "before it",
      late: "while the request is on its way",
    };
    it(`are done once, with an answer lost ${when[lose]}`, async () => {
      const world: World = { attached: false, jobs: new Map(), submitted: 0 };
      await using server = await startScripted(attaching(world, lose));
      await using client = clientOf(server.url);
      await attach(client);
      expect(world.attached).toBe(true);
      expect(world.submitted).toBe(submissions);
      expect(world.jobs.size).toBe(1);
    });
  }
});

describe("sessions", () => {
  it("are opened with user and password, and anew when the server ended them", async () => {
    await using cloud = await startCloud();
    const { url, tenant, endSessions } = cloud.simulator;
    await using client = new CloudstackClient({
      endpoint: url,
      username: tenant.userName,
      password: tenant.password,
      domain: tenant.domain,
      ...quick,
    });
    expect(await gather(client.list("listZones"))).toHaveLength(1);
    endSessions();
    expect(await gather(client.list("listZones"))).toHaveLength(1);
    expect(cloud.simulator.calls.get("login")).toBe(2);
  });

  it("that a wrong password does not open say what to check, and not the password", async () => {
    await using cloud = await startCloud();
    await using client = new CloudstackClient({
      endpoint: cloud.simulator.url,
      username: "tenant",
      password: "wrong-one",
      ...quick,
    });
    const error = await failureOf(client.call("listZones"));
    expect(error.code).toBe("AUTH");
    expect(error.message).not.toContain("wrong-one");
  });
});

describe("TLS", () => {
  it("believes an authority or a pinned certificate, and sends nothing to anybody else", async () => {
    const folder = await mkdtemp(join(tmpdir(), "diskferry-tls-"));
    try {
      const { server: material } = await makeAuthority(join(folder, "authority"));
      const seen: string[] = [];
      const server = createServer({ cert: material.cert, key: material.key }, (request, response) => {
        seen.push(request.method ?? "");
        response.end(JSON.stringify({ listzonesresponse: {} }));
      });
      await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
      const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/client/api`;
      const pin = createHash("sha256").update(new X509Certificate(material.cert).raw).digest("hex");
      for (const tls of [{ ca: material.ca }, { pin }, { pin: pin.toUpperCase().replace(/(..)(?=.)/g, "$1:") }]) {
        await using client = clientOf(url, { tls });
        await client.call("listZones");
      }
      expect(seen).toHaveLength(3);
      for (const tls of [undefined, { pin: "0".repeat(64) }]) {
        await using client = clientOf(url, { tls });
        const error = await failureOf(client.call("listZones"));
        expect(error.code).toBe("AUTH");
        expect(error.message).toContain("tls.pin");
      }
      expect(seen).toHaveLength(3);
      const caFile = join(folder, "ca.pem");
      await writeFile(caFile, await readFile(join(folder, "authority", "ca-cert.pem")));
      await using target = await provider.target!({ endpoint: url, ...keys, tls: { caFile } });
      expect(await failureOf(target.create({ key: "k", size: 512 }))).toMatchObject({ code: "CONFIG_INVALID" });
      server.closeAllConnections();
      server.close();
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
