import { startVcenterSimulator } from "@diskferry/simulators";
import { describe, expect, test, vi } from "vitest";
import { readObject } from "../../src/vim/property-collector.ts";
import { createSnapshot, machineRef } from "../../src/vim/snapshot-calls.ts";
import { runTask } from "../../src/vim/tasks.ts";
import { VimClient } from "../../src/vim/vim-client.ts";
import { faultOf } from "../../src/vim/vim-fault.ts";
import { openClient, serviceInstance } from "./open-client.ts";
import { answerLogin, ScriptedServer, soapAnswer } from "./scripted-server.ts";

const machines = [{ name: "web", disks: [{ size: 1 << 20 }] }];
const time = soapAnswer(
  `<CurrentTimeResponse xmlns="urn:vim25"><returnval>2026-01-01T00:00:00Z</returnval></CurrentTimeResponse>`,
);
const fault = (type: string): string =>
  soapAnswer(
    `<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring></faultstring><detail>` +
      `<${type}Fault xmlns="urn:vim25" xsi:type="${type}"></${type}Fault></detail></soapenv:Fault>`,
  );

function connect(
  server: ScriptedServer,
  more: Partial<Parameters<typeof VimClient.connect>[0]> = {},
): Promise<VimClient> {
  return VimClient.connect({ url: server.url, credentials: { userName: "u", password: "p" }, retryForMs: 0, ...more });
}

describe("a session", () => {
  test("sends its cookie back verbatim, quotes included", async () => {
    const cookie = 'vmware_soap_session="a1b2-c3"';
    await using server = await ScriptedServer.start((request, response) => {
      if (!answerLogin(request, response, cookie)) response.end(time);
    });
    await using client = await connect(server);
    await client.call("CurrentTime", serviceInstance);
    expect(server.seen.at(-1)?.headers["cookie"]).toBe(cookie);
    expect(client.cookie).toBe(cookie);
  });

  test("that has ended is begun anew once, however many calls notice", async () => {
    for (const protocol of ["soap", "vi-json"] as const) {
      await using simulator = await startVcenterSimulator({ tls: false });
      const notices: string[] = [];
      await using client = await openClient(simulator, { protocol, notice: (line) => notices.push(line) });
      simulator.expireSessions();
      const calls = Array.from({ length: 10 }, () => client.call("CurrentTime", serviceInstance));
      expect((await Promise.all(calls)).every((answer) => answer.length === 1)).toBe(true);
      expect(simulator.calls.get("Login")).toBe(2);
      expect(simulator.alive.sessions).toBe(1);
      expect(notices.join()).toMatch(/logging in again/);
    }
  });

  test("that ends again at once is not begun for ever", async () => {
    await using server = await ScriptedServer.start((request, response) => {
      if (!answerLogin(request, response, "vmware_soap_session=x"))
        response.writeHead(500).end(fault("NotAuthenticated"));
    });
    const client = await connect(server);
    const failure = client.call("CurrentTime", serviceInstance);
    await expect(failure).rejects.toMatchObject({ code: "AUTH" });
    const count = (name: string): number => server.seen.filter(({ body }) => body.includes(`<${name} `)).length;
    expect([count("Login"), count("CurrentTime")]).toEqual([2, 2]);
    await client[Symbol.asyncDispose]();
  });

  test("is kept alive while nothing else is called", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator, { keepAliveMs: 20 });
    await vi.waitFor(() => expect(simulator.calls.get("CurrentTime")).toBeGreaterThan(2), { timeout: 30_000 });
    expect(client.generation).toBe(1);
  });

  test("ends with its client, in both encodings, and with the second login for leases", async () => {
    for (const protocol of ["soap", "vi-json"] as const) {
      await using simulator = await startVcenterSimulator({ tls: false });
      const client = await openClient(simulator, { protocol });
      const soap = await client.soap();
      expect(soap.cookie).toMatch(/^vmware_soap_session="/);
      expect(await client.soap()).toBe(soap);
      expect(simulator.alive.sessions).toBe(protocol === "soap" ? 1 : 2);
      await client[Symbol.asyncDispose]();
      expect(simulator.alive.sessions).toBe(0);
    }
  });

  test("for leases is everybody's: whoever gives its login up does not end it for the others", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator, { protocol: "vi-json" });
    simulator.inject({ method: "Login", times: 1, action: { kind: "delay", ms: 1_000 } });
    const [first, second] = [new AbortController(), new AbortController()];
    const soap = [client.soap({ signal: first.signal }), client.soap(), client.soap({ signal: second.signal })];
    const reasons = [new Error("first"), new Error("second")];
    const given = Promise.allSettled(soap);
    await vi.waitFor(() => expect(simulator.calls.get("Login")).toBe(2), { timeout: 30_000 });
    first.abort(reasons[0]);
    second.abort(reasons[1]);
    expect(await given).toEqual([
      { status: "rejected", reason: reasons[0] },
      { status: "fulfilled", value: await client.soap() },
      { status: "rejected", reason: reasons[1] },
    ]);
    expect(simulator.calls.get("Login")).toBe(2);
  });

  test("outlives a vCenter that restarts: calls wait for it, and the login is made anew", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    const restart = simulator.reboot({ downMs: 300 });
    const properties = await readObject(client, machine, ["name"]);
    await restart;
    expect(properties.string("name")).toBe("web");
    expect(client.generation).toBe(2);
  });
});

describe("a call", () => {
  test("that hangs ends with a retryable error, in bounded time", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator, { retryForMs: 0 });
    simulator.inject({ method: "CurrentTime", action: { kind: "hang" } });
    const failure = client.call("CurrentTime", serviceInstance, {}, { timeoutMs: 200 });
    await expect(failure).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true, operation: "CurrentTime" });
  });

  test("that hangs is given up by its signal with the signal's reason", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator);
    simulator.inject({ method: "CurrentTime", action: { kind: "hang" } });
    const stop = new AbortController();
    const call = client.call("CurrentTime", serviceInstance, {}, { signal: stop.signal });
    const reason = new Error("enough");
    stop.abort(reason);
    await expect(call).rejects.toBe(reason);
  });

  test("whose answer is cut short, cleanly or not, ends with a retryable error", async () => {
    const whole = time.length;
    for (const cut of [0, 1, 40, whole - 60, whole - 1]) {
      for (const clean of [true, false]) {
        await using server = await ScriptedServer.start((request, response) => {
          if (answerLogin(request, response, "vmware_soap_session=x")) return;
          if (!clean) response.setHeader("content-length", whole);
          response.write(time.slice(0, cut));
          if (clean) response.end();
          else response.flushHeaders();
          if (!clean) setImmediate(() => response.destroy());
        });
        await using client = await connect(server);
        const failure = client.call("CurrentTime", serviceInstance);
        await expect(failure, `${cut} ${clean}`).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
      }
    }
  });

  test("whose answer has no end is given up at a bound", async () => {
    await using server = await ScriptedServer.start((request, response) => {
      if (answerLogin(request, response, "vmware_soap_session=x")) return;
      const part = Buffer.alloc(1 << 20, "x");
      const more = (): void => {
        while (!response.destroyed && response.write(part));
        if (!response.destroyed) response.once("drain", more);
      };
      more();
    });
    await using client = await connect(server);
    const failure = client.call("CurrentTime", serviceInstance);
    await expect(failure).rejects.toMatchObject({ code: "UNEXPECTED", message: /more than 67108864 bytes/ });
  });

  test("whose answer is another's is refused", async () => {
    const other = soapAnswer(`<LogoutResponse xmlns="urn:vim25"></LogoutResponse>`);
    await using server = await ScriptedServer.start((request, response) => {
      if (!answerLogin(request, response, "vmware_soap_session=x")) response.end(other);
    });
    await using client = await connect(server);
    await expect(client.call("CurrentTime", serviceInstance)).rejects.toThrow(
      /LogoutResponse and not a CurrentTimeResponse/,
    );
  });

  test.each([
    [429, { "retry-after": "7" }, { code: "THROTTLED", retryAfterMs: 7000 }],
    [503, {}, { code: "UNAVAILABLE", retryable: true }],
    [502, {}, { code: "UNAVAILABLE", retryable: true }],
    [500, {}, { code: "UNAVAILABLE", retryable: true }],
    [403, {}, { code: "DENIED", retryable: false }],
    [302, {}, { code: "UNEXPECTED" }],
  ])("answered by HTTP %i of a proxy is told as that", async (status, headers, expected) => {
    await using server = await ScriptedServer.start((request, response) => {
      if (!answerLogin(request, response, "vmware_soap_session=x"))
        response.writeHead(status, headers).end("<html>no</html>");
    });
    await using client = await connect(server);
    await expect(client.call("CurrentTime", serviceInstance)).rejects.toMatchObject(expected);
  });

  test("that may be repeated is, where the connection breaks; one that may have happened is not", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    simulator.inject({ method: "CurrentTime", times: 2, action: { kind: "drop" } });
    expect(await client.call("CurrentTime", serviceInstance)).toHaveLength(1);
    expect(simulator.calls.get("CurrentTime")).toBe(3);
    simulator.inject({ method: "CreateSnapshot_Task", times: 1, action: { kind: "drop-after" } });
    const made = createSnapshot(client, machine, { name: "s", description: "" });
    await expect(made).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect(simulator.calls.get("CreateSnapshot_Task")).toBe(1);
    await vi.waitFor(() => expect([...simulator.machine("web").snapshots()]).toHaveLength(1), { timeout: 30_000 });
  });

  test("that the server refuses carries the fault's type, its message and a remedy", async () => {
    await using simulator = await startVcenterSimulator({
      tls: false,
      machines,
      missingPrivileges: ["VirtualMachine.State.CreateSnapshot"],
    });
    for (const protocol of ["soap", "vi-json"] as const) {
      await using client = await openClient(simulator, { protocol });
      const machine = machineRef(simulator.machine("web").id);
      const failure = await createSnapshot(client, machine, { name: "s", description: "" }, { about: "web" }).catch(
        (error: unknown) => error,
      );
      expect(failure).toMatchObject({ code: "DENIED" });
      expect(String(failure)).toMatch(/CreateSnapshot_Task of web.*VirtualMachine\.State\.CreateSnapshot.*role/s);
      expect(faultOf(failure)).toMatchObject({ type: "NoPermission" });
    }
  });

  test("of a parameter that the method does not have is the caller's mistake", async () => {
    await using simulator = await startVcenterSimulator({ tls: false });
    await using client = await openClient(simulator);
    await expect(client.call("CurrentTime", serviceInstance, { when: 1 })).rejects.toThrow(TypeError);
  });
});

describe("a task", () => {
  const slow = { tls: false as const, machines, taskMs: 120 };

  test("tells its progress and gives its result", async () => {
    for (const protocol of ["soap", "vi-json"] as const) {
      await using simulator = await startVcenterSimulator({ ...slow, taskMs: 800 });
      await using client = await openClient(simulator, { protocol });
      const seen: number[] = [];
      const machine = machineRef(simulator.machine("web").id);
      const wish = { name: "s", description: "d" };
      const snapshot = await createSnapshot(client, machine, wish, { onProgress: (percent) => seen.push(percent) });
      expect(snapshot).toEqual({ type: "VirtualMachineSnapshot", value: expect.stringMatching(/^snapshot-/) });
      expect(seen.length).toBeGreaterThan(0);
      expect(seen).toEqual([...seen].sort((one, other) => one - other));
    }
  });

  test("that fails is an error by the fault's type", async () => {
    await using simulator = await startVcenterSimulator({ tls: false, machines });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    for (const [type, code] of [
      ["NoDiskSpace", "UNAVAILABLE"],
      ["TaskInProgress", "IN_USE"],
      ["SomethingNew", "UNEXPECTED"],
    ] as const) {
      const remove = simulator.inject({
        method: "CreateSnapshot_Task",
        action: { kind: "task-fault", type, message: "of the test" },
      });
      const failure = createSnapshot(client, machine, { name: "s", description: "" });
      await expect(failure).rejects.toMatchObject({ code, message: /of the test/ });
      remove();
    }
  });

  test("goes on being waited for when the session ends meanwhile", async () => {
    await using simulator = await startVcenterSimulator({ ...slow, taskMs: 400 });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    simulator.inject({
      method: "WaitForUpdatesEx",
      calls: [1],
      action: { kind: "run", run: () => simulator.expireSessions() },
    });
    const snapshot = await createSnapshot(client, machine, { name: "s", description: "" });
    expect([...simulator.machine("web").snapshots()].map(({ id }) => id)).toEqual([snapshot.value]);
    expect(client.generation).toBe(2);
  });

  test("goes on being waited for when the connection breaks before and after an answer", async () => {
    await using simulator = await startVcenterSimulator({ ...slow, taskMs: 400 });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    simulator.inject({ method: "WaitForUpdatesEx", calls: [1], action: { kind: "drop" } });
    simulator.inject({ method: "WaitForUpdatesEx", calls: [2], action: { kind: "drop-after" } });
    await createSnapshot(client, machine, { name: "s", description: "" });
    expect([...simulator.machine("web").snapshots()]).toHaveLength(1);
  });

  test("that a restarted vCenter forgot is said to be unknown", async () => {
    await using simulator = await startVcenterSimulator({ ...slow, taskMs: 3_000 });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    const wait = createSnapshot(client, machine, { name: "s", description: "" });
    const failure = expect(wait).rejects.toMatchObject({ code: "NOT_FOUND" });
    await vi.waitFor(() => expect(simulator.calls.get("WaitForUpdatesEx")).toBeGreaterThan(0), { timeout: 30_000 });
    await simulator.reboot();
    await failure;
  });

  test("is not ended by giving up the wait", async () => {
    await using simulator = await startVcenterSimulator({ ...slow, taskMs: 2_000 });
    await using client = await openClient(simulator);
    const machine = machineRef(simulator.machine("web").id);
    const stop = new AbortController();
    const args = { name: "s", description: "", memory: false, quiesce: false };
    const wait = runTask(client, "CreateSnapshot_Task", machine, args, { signal: stop.signal });
    const failure = expect(wait).rejects.toThrow("enough");
    await vi.waitFor(() => expect(simulator.calls.get("WaitForUpdatesEx")).toBeGreaterThan(0), { timeout: 30_000 });
    stop.abort(new Error("enough"));
    await failure;
    await vi.waitFor(() => expect([...simulator.machine("web").snapshots()]).toHaveLength(1), { timeout: 30_000 });
  });
});
