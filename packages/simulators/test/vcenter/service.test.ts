import { afterEach, describe, expect, test } from "vitest";
import { describeWithPeers } from "../../../../test/peers.ts";
import { generateMachines } from "../../src/vcenter/inventory.ts";
import type { VcenterSimulator, VcenterSimulatorOptions } from "../../src/vcenter/vcenter-simulator.ts";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { ask, specOf, VimClient } from "./vim-client.ts";
import type { SoapFault } from "./vim-client.ts";

const open: VcenterSimulator[] = [];
const machines = [
  { name: "web", folder: "prod/a", disks: [{ size: 1 << 20 }] },
  { name: "db/1", disks: [{ size: 1 << 20 }] },
];
const search: [string, string] = ["SearchIndex", "SearchIndex"];
const collector: [string, string] = ["PropertyCollector", "propertyCollector"];
const sessions: [string, string] = ["SessionManager", "SessionManager"];

afterEach(async () => {
  for (const each of open.splice(0)) await each.stop();
});

async function start(
  options: VcenterSimulatorOptions = {},
): Promise<{ simulator: VcenterSimulator; client: VimClient; vm: string }> {
  const simulator = await startVcenterSimulator({ tls: false, machines, ...options });
  open.push(simulator);
  return {
    simulator,
    client: new VimClient(simulator),
    vm: simulator.machines.keys().next().value ?? "",
  };
}

const byPath = (path: string): string => `<inventoryPath>${path}</inventoryPath>`;

describe("sessions", () => {
  test("begin with the right password and are asked for by all but the service's content", async () => {
    const { simulator, client } = await start();
    await client.call("RetrieveServiceContent", ["ServiceInstance", "ServiceInstance"]);
    await expect(client.call("FindByInventoryPath", search, byPath("DC0"))).rejects.toMatchObject({
      type: "NotAuthenticated",
    });
    const wrong = client.call(
      "Login",
      sessions,
      "<userName>administrator@vsphere.local</userName><password>x</password>",
    );
    await expect(wrong).rejects.toMatchObject({ type: "InvalidLogin" });
    await client.login();
    expect(client.cookie).toMatch(/^vmware_soap_session="[0-9a-f-]+"$/);
    expect(simulator.alive.sessions).toBe(1);
    await client.call("Logout", sessions);
    expect(simulator.alive.sessions).toBe(0);
  });

  test("are not asked for by collectors, which then tell that objects exist and nothing of them", async () => {
    const { simulator, client, vm } = await start();
    const nameOf = (id: string): ReturnType<VimClient["call"]> =>
      client.call("RetrievePropertiesEx", collector, specOf(["VirtualMachine", id], ["name"]));
    const whyMissing = async (): Promise<(string | undefined)[]> => {
      const found = (await nameOf(vm)).child("returnval")?.child("objects");
      expect(found?.ref("obj")?.id).toBe(vm);
      return (found?.all("missingSet") ?? []).map((each) => each.child("fault")?.child("fault")?.xsiType);
    };
    expect(await whyMissing()).toEqual(["NotAuthenticated"]);
    await expect(nameOf("vm-9999")).rejects.toMatchObject({ type: "ManagedObjectNotFound" });
    await client.login();
    expect(await whyMissing()).toEqual([]);
    simulator.revokePrivilege("System.Read");
    expect(await whyMissing()).toEqual(["NoPermission"]);
  });

  test("end when idle, when told to and when vCenter restarts", async () => {
    const { simulator, client } = await start({ sessionIdleMs: 30 });
    const lost = expect.objectContaining({ type: "NotAuthenticated" }) as SoapFault;
    const now = (): Promise<unknown> => client.call("CurrentTime", ["ServiceInstance", "ServiceInstance"]);
    await client.login();
    await new Promise((resolve) => setTimeout(resolve, 60));
    await expect(now()).rejects.toEqual(lost);
    await client.login();
    simulator.expireSessions();
    await expect(now()).rejects.toEqual(lost);
    await client.login();
    const down = simulator.reboot({ downMs: 500 });
    await expect(now()).rejects.toThrow(/hang up|ECONN/);
    await down;
    await expect(now()).rejects.toEqual(lost);
  });

  test("are cloned by a ticket, once", async () => {
    const { simulator, client } = await start();
    await client.login();
    const ticket = (await client.call("AcquireCloneTicket", sessions)).string("returnval");
    const other = new VimClient(simulator);
    const clone = (): Promise<unknown> => other.call("CloneSession", sessions, `<cloneTicket>${ticket}</cloneTicket>`);
    await clone();
    expect(other.cookie).not.toBe(client.cookie);
    await other.call("CurrentTime", ["ServiceInstance", "ServiceInstance"]);
    await expect(clone()).rejects.toMatchObject({ type: "InvalidLogin" });
  });
});

describe("the inventory", () => {
  test("is searched by path, with %2f for a slash in a name, and by either UUID", async () => {
    const { simulator, client } = await start();
    await client.login();
    const find = async (path: string): Promise<string | undefined> =>
      (await client.call("FindByInventoryPath", search, byPath(path))).string("returnval");
    expect(await find("DC0/vm/prod/a/web")).toBe(simulator.machine("web").id);
    expect(await find("DC0/vm/db%2f1")).toBe(simulator.machine("db/1").id);
    expect(await find("DC0/vm/db/1")).toBeUndefined();
    const byUuid = async (uuid: string, instance: boolean): Promise<string | undefined> =>
      (
        await client.call(
          "FindByUuid",
          search,
          `<uuid>${uuid}</uuid><vmSearch>true</vmSearch><instanceUuid>${instance}</instanceUuid>`,
        )
      ).string("returnval");
    const { id, instanceUuid, biosUuid } = simulator.machine("web");
    expect(await byUuid(instanceUuid, true)).toBe(id);
    expect(await byUuid(biosUuid, false)).toBe(id);
    expect(await byUuid(biosUuid, true)).toBeUndefined();
  });

  test("of 2,000 machines comes through a view page by page, each machine once", async () => {
    const { client } = await start({ machines: generateMachines(2000), pageSize: 300 });
    await client.login();
    const view = (
      await client.call(
        "CreateContainerView",
        ["ViewManager", "ViewManager"],
        `<container type="Folder">group-d1</container><type>VirtualMachine</type><recursive>true</recursive>`,
      )
    ).string("returnval");
    const specification =
      `<specSet><propSet><type>VirtualMachine</type><pathSet>name</pathSet><pathSet>runtime.powerState</pathSet></propSet>` +
      `<objectSet><obj type="ContainerView">${view}</obj><skip>true</skip>` +
      `<selectSet xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="TraversalSpec"><name>view</name>` +
      `<type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></specSet><options/>`;
    const names = new Set<string>();
    let page = (await client.call("RetrievePropertiesEx", collector, specification)).child("returnval");
    for (let pages = 1; ; pages++) {
      for (const object of page?.all("objects") ?? []) {
        expect(object.all("propSet")).toHaveLength(2);
        names.add(object.all("propSet")[0]?.string("val") ?? "");
      }
      const token = page?.string("token");
      if (token === undefined) {
        expect(pages).toBe(7);
        break;
      }
      const next = await client.call("ContinueRetrievePropertiesEx", collector, `<token>${token}</token>`);
      page = next.child("returnval");
      const again = client.call("ContinueRetrievePropertiesEx", collector, `<token>${token}</token>`);
      await expect(again).rejects.toMatchObject({ type: "InvalidArgument" });
    }
    expect(names.size).toBe(2000);
  });

  test("refuses what does not exist by the fault's type", async () => {
    const { client, vm } = await start();
    await client.login();
    const type = async (call: Promise<unknown>): Promise<string> =>
      call.then(
        () => "no fault",
        (error: unknown) => (error as SoapFault).type,
      );
    expect(await type(client.properties(["VirtualMachine", "vm-1"], "name"))).toBe("ManagedObjectNotFound");
    expect(await type(client.properties(["VirtualMachine", vm], "nonsense"))).toBe("InvalidProperty");
    expect(await type(client.call("NoSuchMethod", ["VirtualMachine", vm]))).toBe("MethodNotFound");
    expect(await type(client.remove("snapshot-1"))).toBe("ManagedObjectNotFound");
    client.version = "9.9";
    expect(await type(client.call("CurrentTime", ["ServiceInstance", "ServiceInstance"]))).toBe("InvalidRequest");
  });
});

test("a client waits for a task that takes time and sees its progress", async () => {
  const { client, vm } = await start({ taskMs: { CreateSnapshot_Task: 400 } });
  await client.login();
  const self: [string, string] = ["VirtualMachine", vm];
  const fields = "<name>s</name><memory>false</memory><quiesce>false</quiesce>";
  const task = (await client.call("CreateSnapshot_Task", self, fields)).string("returnval") ?? "";
  const filter = specOf(["Task", task], ["info.state", "info.progress"])
    .replace("specSet>", "spec>")
    .replace("</specSet><options/>", "</spec><partialUpdates>false</partialUpdates>");
  await client.call("CreateFilter", collector, filter);
  const seen: string[] = [];
  for (let version = ""; seen.at(-1) !== "success";) {
    const answer = await client.call(
      "WaitForUpdatesEx",
      collector,
      `<version>${version}</version><options><maxWaitSeconds>5</maxWaitSeconds></options>`,
    );
    const update = answer.child("returnval");
    version = update?.string("version") ?? "";
    for (const change of update?.child("filterSet")?.child("objectSet")?.all("changeSet") ?? []) {
      if (change.child("val") !== undefined) seen.push(change.string("val") ?? "");
    }
  }
  // A slow client may miss a step, never see one twice or out of order.
  const order = ["queued", "running", "25", "50", "75", "success"];
  expect(seen).toEqual(order.filter((step) => seen.includes(step)));
  expect(seen).toContain("running");
  const idle = await client
    .call("WaitForUpdatesEx", collector, "<version>99</version><options><maxWaitSeconds>0</maxWaitSeconds></options>")
    .catch((error: unknown) => error);
  expect(idle).toMatchObject({ type: "InvalidCollectorVersion" });
});

describe("faults", () => {
  test("strike the calls that the plan names, and every call is counted", async () => {
    const { simulator, client, vm } = await start({
      faults: [
        { method: "CurrentTime", calls: [2], action: { kind: "fault", type: "HostCommunication" } },
        { method: "CurrentTime", calls: [3], action: { kind: "drop" } },
        { method: "CurrentTime", calls: [4], action: { kind: "status", status: 503, headers: { "retry-after": "1" } } },
        { method: "CreateSnapshot_Task", action: { kind: "task-fault", type: "TaskInProgress" } },
        { method: "RemoveAllSnapshots_Task", action: { kind: "drop-after" } },
      ],
    });
    await client.login();
    const self: [string, string] = ["ServiceInstance", "ServiceInstance"];
    await client.call("CurrentTime", self);
    await expect(client.call("CurrentTime", self)).rejects.toMatchObject({ type: "HostCommunication" });
    await expect(client.call("CurrentTime", self)).rejects.toThrow("hang up");
    const limited = await client.raw(
      `<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime>`,
    );
    expect([limited.status, limited.headers["retry-after"]]).toEqual([503, "1"]);
    await expect(client.snapshot(vm)).rejects.toMatchObject({ type: "TaskInProgress" });
    expect([...simulator.machine(vm).snapshots()]).toEqual([]);
    simulator.takeSnapshot(vm, "of somebody else");
    await expect(client.call("RemoveAllSnapshots_Task", ["VirtualMachine", vm])).rejects.toThrow("hang up");
    await expect.poll(() => [...simulator.machine(vm).snapshots()]).toEqual([]);
    expect(simulator.calls.get("CurrentTime")).toBe(4);
  });

  test("with a probability are the same for the same seed", async () => {
    const strikes = async (seed: number): Promise<string> => {
      const action = { kind: "fault", type: "HostCommunication" } as const;
      const { client } = await start({ seed, faults: [{ method: "CurrentTime", probability: 0.5, action }] });
      await client.login();
      let pattern = "";
      for (let call = 0; call < 24; call++) {
        pattern += await client.call("CurrentTime", ["ServiceInstance", "ServiceInstance"]).then(
          () => ".",
          () => "x",
        );
      }
      return pattern;
    };
    const first = await strikes(1);
    expect(await strikes(1)).toBe(first);
    expect(await strikes(2)).not.toBe(first);
    expect(first).toMatch(/x.*\.|\..*x/);
  });

  test("a call that hangs does not keep the simulator from stopping", async () => {
    const { simulator, client } = await start({ faults: [{ method: "CurrentTime", action: { kind: "hang" } }] });
    await client.login();
    const hung = client.call("CurrentTime", ["ServiceInstance", "ServiceInstance"]);
    hung.catch(() => undefined);
    await expect.poll(() => simulator.calls.get("CurrentTime")).toBe(1);
    await simulator.stop();
    await expect(hung).rejects.toThrow();
  });

  test("a missing privilege is named by the check and by the refusal", async () => {
    const privilege = "VirtualMachine.State.CreateSnapshot";
    const { simulator, client, vm } = await start({ missingPrivileges: [privilege] });
    await client.login();
    const granted = async (): Promise<string | undefined> =>
      (
        await client.call(
          "HasUserPrivilegeOnEntities",
          ["AuthorizationManager", "AuthorizationManager"],
          `<entities type="VirtualMachine">${vm}</entities><userName>u</userName><privId>${privilege}</privId>`,
        )
      )
        .child("returnval")
        ?.child("privAvailability")
        ?.string("isGranted");
    expect(await granted()).toBe("false");
    const refused = await client.snapshot(vm).catch((error: unknown) => error as SoapFault);
    expect(refused).toMatchObject({ type: "NoPermission" });
    expect((refused as SoapFault).detail.string("privilegeId")).toBe(privilege);
    simulator.grantPrivilege(privilege);
    expect(await granted()).toBe("true");
    await client.snapshot(vm);
  });
});

describe("VI/JSON", () => {
  const version = "8.0.3.0";

  test("does what SOAP does, with types in the objects and the session in a header", async () => {
    const { simulator } = await start({ machines: [{ name: "web", tracking: true, disks: [{ size: 1 << 20 }] }] });
    const vm = simulator.machine("web").id;
    let session = "";
    const call = async (path: string, body?: unknown): Promise<{ status: number; json: unknown }> => {
      const answer = await ask(`${simulator.url}/sdk/vim25/${version}/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          "content-type": "application/json",
          ...(session === "" ? {} : { "vmware-api-session-id": session }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const header = answer.headers["vmware-api-session-id"];
      if (typeof header === "string") session = header;
      const text = answer.bytes.toString("utf8");
      return { status: answer.status, json: text === "" ? undefined : (JSON.parse(text) as unknown) };
    };
    const content = await call("ServiceInstance/ServiceInstance/content");
    expect(content.json).toMatchObject({
      _typeName: "ServiceContent",
      sessionManager: { _typeName: "ManagedObjectReference", type: "SessionManager", value: "SessionManager" },
    });
    expect(await call(`VirtualMachine/${vm}/PowerOffVM_Task`, {})).toMatchObject({
      status: 500,
      json: { _typeName: "NotAuthenticated" },
    });
    const login = { userName: simulator.userName, password: simulator.password };
    expect((await call("SessionManager/SessionManager/Login", login)).json).toMatchObject({ _typeName: "UserSession" });
    const task = await call(`VirtualMachine/${vm}/CreateSnapshotEx_Task`, { name: "x", memory: false });
    expect(task.json).toMatchObject({ _typeName: "ManagedObjectReference", type: "Task" });
    const id = (task.json as { value: string }).value;
    const info = async (): Promise<unknown> => (await call(`Task/${id}/info`)).json;
    await expect.poll(info).toMatchObject({ state: "success", result: { type: "VirtualMachineSnapshot" } });
    const snapshot = ((await info()) as { result: object }).result;
    const query = { snapshot, deviceKey: 2000, startOffset: 0, changeId: "*" };
    simulator.write(vm, 2000, 0, new Uint8Array(1));
    const areas = await call(`VirtualMachine/${vm}/QueryChangedDiskAreas`, query);
    expect(areas.json).toEqual({ _typeName: "DiskChangeInfo", startOffset: 0, length: 1 << 20, changedArea: [] });
    expect((await call("SessionManager/SessionManager/Logout", {})).status).toBe(204);
  });

  test.for([
    ["6.7", 404],
    ["7.0", 404],
    ["8.0", 404],
    ["8.0.1", 200],
    ["9.0", 200],
  ] as const)("is on %s answered with %i", async ([release, status]) => {
    const { simulator } = await start({ version: release });
    const answer = await ask(`${simulator.url}/sdk/vim25/8.0.1.0/ServiceInstance/ServiceInstance/content`);
    expect(answer.status).toBe(status);
  });
});

describe("the Automation API", () => {
  test.for([
    ["7.0", "/api"],
    ["6.7", "/rest"],
  ] as const)("on %s lists, details and switches machines under %s", async ([version, root]) => {
    const { simulator, vm } = await start({ version });
    const legacy = root === "/rest";
    const basic = Buffer.from(`${simulator.userName}:${simulator.password}`).toString("base64");
    const login = `${simulator.url}${legacy ? "/rest/com/vmware/cis/session" : "/api/session"}`;
    const wrong = await ask(login, { method: "POST", headers: { authorization: "Basic eDp5" } });
    expect(wrong.status).toBe(401);
    const opened = await ask(login, { method: "POST", headers: { authorization: `Basic ${basic}` } });
    expect(opened.status).toBe(legacy ? 200 : 201);
    const value = (bytes: Buffer): unknown => {
      const parsed = JSON.parse(bytes.toString("utf8")) as unknown;
      return legacy ? (parsed as { value: unknown }).value : parsed;
    };
    const headers = { "vmware-api-session-id": String(value(opened.bytes)) };
    const get = async (path: string): Promise<unknown> =>
      value((await ask(`${simulator.url}${root}${path}`, { headers })).bytes);
    expect(await get("/vcenter/vm")).toHaveLength(2);
    const query = legacy ? "filter.names.1=web" : "names=web";
    expect(await get(`/vcenter/vm?${query}`)).toEqual([
      { vm, name: "web", power_state: "POWERED_ON", cpu_count: 2, memory_size_MiB: 2048 },
    ]);
    const disk = { capacity: 1 << 20, backing: { vmdk_file: "[datastore1] web/web.vmdk" } };
    const disks = legacy ? [{ key: "2000", value: disk }] : { "2000": disk };
    expect(await get(`/vcenter/vm/${vm}`)).toMatchObject({ disks });
    expect(await get(`/vcenter/vm/${vm}/power`)).toEqual({ state: "POWERED_ON" });
    const stop = `${simulator.url}${root}/vcenter/vm/${vm}/power${legacy ? "/stop" : "?action=stop"}`;
    await ask(stop, { method: "POST", headers });
    expect(simulator.machine(vm).power).toBe("poweredOff");
    expect((await ask(`${simulator.url}${root}/vcenter/vm/vm-1`, { headers })).status).toBe(404);
    expect((await ask(`${simulator.url}${root}/vcenter/vm`)).status).toBe(401);
  });

  test("does not list more than 4,000 machines at once", async () => {
    const { simulator } = await start({ machines: generateMachines(4001) });
    const basic = Buffer.from(`${simulator.userName}:${simulator.password}`).toString("base64");
    const opened = await ask(`${simulator.url}/api/session`, {
      method: "POST",
      headers: { authorization: `Basic ${basic}` },
    });
    const headers = { "vmware-api-session-id": JSON.parse(opened.bytes.toString()) as string };
    const answer = await ask(`${simulator.url}/api/vcenter/vm`, { headers });
    expect(JSON.parse(answer.bytes.toString())).toMatchObject({ error_type: "UNABLE_TO_ALLOCATE_RESOURCE" });
  });
});

test("a bare host calls itself so and its objects by its own names", async () => {
  const { simulator, client } = await start({ kind: "esxi", version: "7.0" });
  const content = await client.call("RetrieveServiceContent", ["ServiceInstance", "ServiceInstance"]);
  const about = content.child("returnval")?.child("about");
  expect([about?.string("apiType"), about?.string("instanceUuid")]).toEqual(["HostAgent", undefined]);
  const manager = content.child("returnval")?.string("sessionManager") ?? "";
  expect(manager).toBe("ha-sessionmgr");
  await client.call("Login", ["SessionManager", manager], "<userName>root</userName><password>password</password>");
  const path = byPath("ha-datacenter/vm/prod/a/web");
  const found = await client.call("FindByInventoryPath", ["SearchIndex", "ha-searchindex"], path);
  expect(found.string("returnval")).toBe(simulator.machine("web").id);
});

test("types can be written with a prefix of their own, as another server does", async () => {
  const { client, vm } = await start({ xml: "local-prefix" });
  await client.login();
  const answer = await client.raw(
    `<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this>` +
      `${specOf(["VirtualMachine", vm], ["name"])}</RetrievePropertiesEx>`,
  );
  expect(answer.bytes.toString("utf8")).toContain('XMLSchema-instance:type="xsd:string"');
  expect((await client.properties(["VirtualMachine", vm], "name")).get("name")?.xsiType).toBe("string");
});

describeWithPeers(["openssl"], "TLS", () => {
  test("is spoken with a certificate of an authority made for the occasion", async () => {
    const { simulator, client } = await start({ tls: true });
    await client.login();
    expect(simulator.tls?.sha1).toMatch(/^([0-9A-F]{2}:){19}[0-9A-F]{2}$/);
    await expect(ask(`${simulator.url}/sdk/vimServiceVersions.xml`)).rejects.toThrow(/certificate/);
    const { authority } = simulator.tls ?? { authority: "" };
    const versions = await ask(`${simulator.url}/sdk/vimServiceVersions.xml`, { ca: authority });
    expect(versions.bytes.toString()).toContain("<version>8.0.3.0</version>");
  });

  test("can present a certificate that has expired", async () => {
    const { simulator } = await start({ tls: "expired" });
    const { authority } = simulator.tls ?? { authority: "" };
    await expect(ask(simulator.url, { ca: authority })).rejects.toThrow(/expired/);
  });
});
