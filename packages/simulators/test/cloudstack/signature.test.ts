import { request } from "node:https";
import type { TLSSocket } from "node:tls";
import { describe, expect, it } from "vitest";
import { startCloudstackSimulator } from "../../src/cloudstack/cloudstack-simulator.ts";
import { isTimely, signatureMatches, signatureOf, textToSign } from "../../src/cloudstack/signature.ts";
import { ApiClient, replyOf, sign } from "./api-client.ts";

// Published in Apache CloudStack's developer guide as an example.
const apiKey = "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg";
const secretKey = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ";
const lowKey = apiKey.toLowerCase();

const vectors: { name: string; parameters: Record<string, string>; text: string; signature: string }[] = [
  {
    name: "the developer guide's",
    parameters: { apikey: apiKey, command: "listUsers", response: "json" },
    text: `apikey=${lowKey}&command=listusers&response=json`,
    signature: "TTpdDq/7j/J58XCRHomKoQXEQds=",
  },
  {
    name: "spaces and what encoders disagree about",
    parameters: { apikey: apiKey, command: "createVolume", name: "a b+c~d*e!f'g(h)i/j=k&l%m", response: "json" },
    text: `apikey=${lowKey}&command=createvolume&name=a%20b%2bc%7ed*e%21f%27g%28h%29i%2fj%3dk%26l%25m&response=json`,
    signature: "7tWNDbIQzslnlm55CVAUopSw2UU=",
  },
  {
    name: "letters beyond ASCII",
    parameters: { apikey: apiKey, command: "createVolume", name: "disk-Ünï-日本", response: "json" },
    text: `apikey=${lowKey}&command=createvolume&name=disk-%c3%9cn%c3%af-%e6%97%a5%e6%9c%ac&response=json`,
    signature: "0oFV20tQIkD+Bisrdt6En6DqgUE=",
  },
  {
    name: "version 3",
    parameters: {
      apikey: apiKey,
      command: "listZones",
      expires: "2030-01-01T00:00:00+0000",
      response: "json",
      signatureversion: "3",
    },
    text: `apikey=${lowKey}&command=listzones&expires=2030-01-01t00%3a00%3a00%2b0000&response=json&signatureversion=3`,
    signature: "cMjn+Vftjse8M0KXuO0TiDk0Nv8=",
  },
  {
    name: "names of maps, raw",
    parameters: {
      apikey: apiKey,
      command: "deployVirtualMachine",
      "details[0].cpuNumber": "4",
      "details[0].memory": "8192",
      response: "json",
    },
    text: `apikey=${lowKey}&command=deployvirtualmachine&details[0].cpunumber=4&details[0].memory=8192&response=json`,
    signature: "kWIPYdNKsuUAfVdDM038g5OoCNI=",
  },
  {
    name: "names in mixed case that sort the same",
    parameters: {
      apiKey,
      command: "listZones",
      expires: "2030-01-01T00:00:00+0000",
      response: "json",
      signatureVersion: "3",
    },
    text: `apikey=${lowKey}&command=listzones&expires=2030-01-01t00%3a00%3a00%2b0000&response=json&signatureversion=3`,
    signature: "cMjn+Vftjse8M0KXuO0TiDk0Nv8=",
  },
  {
    name: "a capital letter that sorts first",
    parameters: { Zoneid: "abc", apikey: apiKey, command: "listVolumes", response: "json" },
    text: `zoneid=abc&apikey=${lowKey}&command=listvolumes&response=json`,
    signature: "PUxQpXklA3PytLUtfv9USgINm7g=",
  },
];

describe("a signature", () => {
  it.each(vectors)("is the one of the test vector: $name", ({ parameters, text, signature }) => {
    const given = new Map(Object.entries(parameters));
    expect(textToSign(given)).toBe(text);
    expect(signatureOf(given, secretKey)).toBe(signature);
    expect(signatureMatches(new Map([...given, ["signature", signature]]), signature, secretKey)).toBe(true);
    expect(signatureMatches(given, signature.replace(/^./, "#"), secretKey)).toBe(false);
    // The tests' own signer is another program; it has to agree.
    expect(sign(parameters, secretKey)).toBe(signature);
  });

  it("with a space written as plus is not the right one", () => {
    const given = new Map([
      ["command", "importVm"],
      ["displayname", "My VM"],
    ]);
    expect(textToSign(given)).toContain("displayname=my%20vm");
  });

  const now = Date.parse("2026-11-21T12:00:00Z");
  it.each([
    { expires: "2026-11-21T12:10:00+0000", timely: true },
    { expires: "2026-11-21T12:10:00Z", timely: true },
    { expires: "2026-11-21T17:40:00+0530", timely: true },
    { expires: "2026-11-21T11:59:59+0000", timely: false },
    { expires: "2026-11-21T12:10:00.000Z", timely: false },
    { expires: "soon", timely: false },
    { expires: undefined, timely: false },
  ])("that expires at $expires is timely: $timely", ({ expires, timely }) => {
    expect(isTimely({ version: "3", expires }, now, false)).toBe(timely);
  });

  it("without version 3 never expires, unless the server enforces timestamps", () => {
    expect(isTimely({ version: undefined, expires: "2020-01-01T00:00:00+0000" }, now, false)).toBe(true);
    expect(isTimely({ version: undefined, expires: undefined }, now, true)).toBe(false);
    expect(isTimely({ version: "3", expires: "2026-11-21T12:15:00+0000" }, now, true)).toBe(true);
    expect(isTimely({ version: "3", expires: "2026-11-21T12:15:01+0000" }, now, true)).toBe(false);
  });
});

describe("who calls", () => {
  it("is told 401 for a wrong signature, a wrong key, no signature and an unknown command", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const { status, envelope, body } = await client.send("listZones", { signature: "AAAA" });
    expect({ status, envelope, code: body.errorcode }).toEqual({
      status: 401,
      envelope: "listzonesresponse",
      code: 401,
    });
    expect(body.errortext).toBe("unable to verify user credentials and/or request signature");
    expect((await client.send("listZones", { apikey: "nobody" })).status).toBe(401);
    expect((await client.send("makeCoffee")).envelope).toBe("errorresponse");
    const bare = await fetch(`${simulator.url}?command=listZones&response=json`);
    expect(bare.status).toBe(401);
  });

  it("signs GET and POST the same, with any characters", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    for (const method of ["GET", "POST"] as const) {
      const reply = await client.send("listVolumes", { name: "a b+c~d*e!f'g(h)/日本" }, method);
      expect(reply).toEqual({ status: 200, envelope: "listvolumesresponse", body: {} });
    }
  });

  it("is told 401 once the signature has expired by the server's clock", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    const expires = new Date(Date.now() + 60_000).toISOString().replace(/\.\d+Z$/, "+0000");
    const signed = { signatureversion: "3", expires };
    expect((await client.send("listZones", signed)).status).toBe(200);
    simulator.advance(120_000);
    expect((await client.send("listZones", signed)).status).toBe(401);
  });

  it("is refused GET for what changes something where POST and timestamps are enforced", async () => {
    await using simulator = await startCloudstackSimulator({ settings: { enforcePostAndTimestamps: true } });
    const client = new ApiClient(simulator);
    const expires = new Date(Date.now() + 600_000).toISOString().replace(/\.\d+Z$/, "+0000");
    const signed = { signatureversion: "3", expires };
    expect((await client.send("listZones")).status).toBe(401);
    expect((await client.send("listZones", signed, "GET")).status).toBe(200);
    expect((await client.send("deleteVolume", { ...signed, id: "x" }, "GET")).status).toBe(405);
    const late = new Date(Date.now() + 1_200_000).toISOString().replace(/\.\d+Z$/, "+0000");
    expect((await client.send("listZones", { signatureversion: "3", expires: late })).status).toBe(401);
  });

  it("is told 432 for a command that its role lacks, and does not find it in listApis", async () => {
    await using simulator = await startCloudstackSimulator();
    const client = new ApiClient(simulator);
    simulator.deny(simulator.tenant.accountId, "createSnapshot");
    const { status, body } = await client.send("createSnapshot", { volumeid: "x" });
    expect({ status, text: body.errortext }).toEqual({
      status: 432,
      text: "The API [createSnapshot] does not exist or is not available for the account tenant.",
    });
    const names = (await client.call("listApis")).api.map((each) => each.name);
    expect(names).toContain("attachVolume");
    expect(names).not.toContain("createSnapshot");
    expect(names).not.toContain("importVolume");
    const admin = new ApiClient(simulator, simulator.admin);
    expect((await admin.call("listApis", { name: "importVolume" })).count).toBe(1);
  });

  it("may log in instead, and loses the session by a wrong key", async () => {
    await using simulator = await startCloudstackSimulator();
    const { userName, password, domain } = simulator.tenant;
    const enter = async (secret: string) =>
      fetch(simulator.url, {
        method: "POST",
        body: new URLSearchParams({ command: "login", username: userName, password: secret, domain, response: "json" }),
      });
    expect((await enter("wrong")).status).toBe(531);
    const entered = await enter(password);
    const cookies = entered.headers.getSetCookie().map((each) => each.split(";")[0]);
    const { body } = await replyOf(entered);
    const ask = async (sessionkey: string) =>
      fetch(simulator.url, {
        method: "POST",
        headers: { cookie: cookies.join("; ") },
        body: new URLSearchParams({ command: "listZones", response: "json", sessionkey }),
      });
    expect((await ask(body.sessionkey)).status).toBe(200);
    expect((await ask("wrong")).status).toBe(401);
    expect((await ask(body.sessionkey)).status).toBe(401);
  });

  it("meets a certificate of the simulator's own authority over TLS", async () => {
    await using simulator = await startCloudstackSimulator({ tls: true });
    await expect(fetch(simulator.url)).rejects.toThrow();
    const { fingerprint, status } = await new Promise<{ fingerprint: string; status: number | undefined }>(
      (resolve, reject) => {
        const call = request(
          `${simulator.url}?command=listZones&response=json`,
          { ca: simulator.tls?.authority },
          (answer) => {
            const { fingerprint256 } = (answer.socket as TLSSocket).getPeerCertificate();
            resolve({ fingerprint: fingerprint256, status: answer.statusCode });
            answer.resume();
          },
        );
        call.once("error", reject);
        call.end();
      },
    );
    expect({ fingerprint, status }).toEqual({ fingerprint: simulator.tls?.sha256, status: 401 });
  });

  it("is throttled with 429 where the server limits calls", async () => {
    await using simulator = await startCloudstackSimulator({
      settings: { throttle: { calls: 3, intervalMs: 60_000 } },
    });
    const client = new ApiClient(simulator);
    for (let call = 0; call < 3; call++) expect((await client.send("listZones")).status).toBe(200);
    const { status, body } = await client.send("listZones");
    expect(status).toBe(429);
    expect(body.errortext).toMatch(/please retry after \d+ ms\.$/);
  });
});
