import { request as plain } from "node:http";
import { request as secure } from "node:https";
import { readXml } from "../../src/vcenter/vim-element.ts";
import type { VimElement } from "../../src/vcenter/vim-element.ts";
import type { VcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";

/** An HTTP answer. */
export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly bytes: Buffer;
}

/** One request; the connection is not kept. */
export function ask(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: string; ca?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const send = url.startsWith("https:") ? secure : plain;
    const { method = "GET", headers = {}, body, ca } = options;
    const request = send(url, { method, headers, agent: false, ...(ca === undefined ? {} : { ca }) }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, bytes: Buffer.concat(parts) }),
      );
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** The SOAP envelope around a call. */
export function envelope(body: string): string {
  return (
    `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
    ` xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">` +
    `<soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`
  );
}

/** A fault as a client sees it: its type is that of the detail. */
export class SoapFault extends Error {
  readonly type: string;
  readonly detail: VimElement;

  constructor(message: string, detail: VimElement) {
    super(`${detail.xsiType ?? detail.name}: ${message}`);
    this.type = detail.xsiType ?? "";
    this.detail = detail;
  }
}

/** The smallest client of vim25: enough to drive the simulator as others would. */
export class VimClient {
  readonly simulator: VcenterSimulator;
  cookie: string | undefined;
  version = "6.0";

  constructor(simulator: VcenterSimulator) {
    this.simulator = simulator;
  }

  /** Sends the content of a body as it is. */
  async raw(body: string): Promise<Answer> {
    const headers: Record<string, string> = {
      "content-type": "text/xml; charset=utf-8",
      soapaction: `"urn:vim25/${this.version}"`,
      ...(this.cookie === undefined ? {} : { cookie: this.cookie }),
    };
    const ca = this.simulator.tls?.authority;
    const answer = await ask(`${this.simulator.url}/sdk`, {
      method: "POST",
      headers,
      body: envelope(body),
      ...(ca === undefined ? {} : { ca }),
    });
    const cookie = answer.headers["set-cookie"]?.[0];
    if (cookie !== undefined) this.cookie = cookie.split(";")[0];
    return answer;
  }

  /** Calls a method; the answer's element, whose children are `returnval`s. */
  async call(method: string, self: [type: string, id: string], fields = ""): Promise<VimElement> {
    const answer = await this.raw(
      `<${method} xmlns="urn:vim25"><_this type="${self[0]}">${self[1]}</_this>${fields}</${method}>`,
    );
    const content = readXml(answer.bytes.toString("utf8")).child("Body")?.children[0];
    if (content === undefined) throw new Error("no body");
    if (answer.status === 200) return content;
    const detail = content.child("detail")?.children[0];
    if (detail === undefined) throw new Error("a fault without detail");
    throw new SoapFault(content.string("faultstring") ?? "", detail);
  }

  async login(): Promise<this> {
    const { userName, password } = this.simulator;
    await this.call(
      "Login",
      ["SessionManager", "SessionManager"],
      `<userName>${userName}</userName><password>${password}</password>`,
    );
    return this;
  }

  /** Properties of one object by path. */
  async properties(self: [type: string, id: string], ...paths: string[]): Promise<Map<string, VimElement>> {
    const found = await this.call(
      "RetrievePropertiesEx",
      ["PropertyCollector", "propertyCollector"],
      specOf(self, paths),
    );
    const sets = found.child("returnval")?.child("objects")?.all("propSet") ?? [];
    return new Map(sets.flatMap((set) => (set.child("val") ? [[set.string("name") ?? "", set.child("val")!]] : [])));
  }

  /** Starts a task and waits for its end; its result's text, or a thrown fault. */
  async task(method: string, self: [type: string, id: string], fields = ""): Promise<string> {
    const started = await this.call(method, self, fields);
    const task = started.string("returnval") ?? "";
    for (let attempt = 0; attempt < 500; attempt++) {
      const info = (await this.properties(["Task", task], "info")).get("info");
      const state = info?.string("state");
      if (state === "success") return info?.string("result") ?? "";
      if (state === "error") {
        const error = info?.child("error");
        const fault = error?.child("fault");
        if (fault === undefined) throw new Error("a failed task without a fault");
        throw new SoapFault(error?.string("localizedMessage") ?? "", fault);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw new Error(`${method} did not end`);
  }

  /** CreateSnapshot_Task; the id of the snapshot. */
  snapshot(machine: string, quiesce = false): Promise<string> {
    return this.task(
      "CreateSnapshot_Task",
      ["VirtualMachine", machine],
      `<name>s</name><description></description><memory>false</memory><quiesce>${quiesce}</quiesce>`,
    );
  }

  /** RemoveSnapshot_Task. */
  remove(snapshot: string, consolidate = true): Promise<string> {
    return this.task(
      "RemoveSnapshot_Task",
      ["VirtualMachineSnapshot", snapshot],
      `<removeChildren>false</removeChildren><consolidate>${consolidate}</consolidate>`,
    );
  }

  /** ReconfigVM_Task of the tracking flag. */
  enableTracking(machine: string, enabled = true): Promise<string> {
    const spec = `<spec><changeTrackingEnabled>${enabled}</changeTrackingEnabled></spec>`;
    return this.task("ReconfigVM_Task", ["VirtualMachine", machine], spec);
  }

  /** The change id of a disk in a snapshot's configuration. */
  async changeId(snapshot: string, disk: number): Promise<string | undefined> {
    const devices = await this.properties(["VirtualMachineSnapshot", snapshot], "config.hardware.device");
    const found = devices
      .get("config.hardware.device")
      ?.children.find((device) => device.string("key") === String(disk));
    return found?.child("backing")?.string("changeId");
  }

  /** One QueryChangedDiskAreas. */
  async areas(
    machine: string,
    snapshot: string | undefined,
    disk: number,
    since: string,
    startOffset = 0,
  ): Promise<{ startOffset: number; length: number; areas: [number, number][] }> {
    const which = snapshot === undefined ? "" : `<snapshot type="VirtualMachineSnapshot">${snapshot}</snapshot>`;
    const answer = await this.call(
      "QueryChangedDiskAreas",
      ["VirtualMachine", machine],
      `${which}<deviceKey>${disk}</deviceKey><startOffset>${startOffset}</startOffset><changeId>${since}</changeId>`,
    );
    const found = answer.child("returnval");
    return {
      startOffset: found?.number("startOffset") ?? -1,
      length: found?.number("length") ?? -1,
      areas: (found?.all("changedArea") ?? []).map((area) => [area.number("start") ?? -1, area.number("length") ?? -1]),
    };
  }

  /** Every page of QueryChangedDiskAreas until the end of the disk. */
  async allAreas(machine: string, snapshot: string, disk: number, since: string): Promise<[number, number][]> {
    const size = this.simulator.machine(machine).disks.get(disk)?.capacity ?? 0;
    const all: [number, number][] = [];
    for (let offset = 0; offset < size;) {
      const page = await this.areas(machine, snapshot, disk, since, offset);
      if (page.length <= 0) throw new Error("a page without progress");
      all.push(...page.areas);
      offset = page.startOffset + page.length;
    }
    return all;
  }
}

/** A specification for one object and some of its properties. */
export function specOf(self: [type: string, id: string], paths: readonly string[]): string {
  return (
    `<specSet><propSet><type>${self[0]}</type>${paths.map((path) => `<pathSet>${path}</pathSet>`).join("")}</propSet>` +
    `<objectSet><obj type="${self[0]}">${self[1]}</obj></objectSet></specSet><options/>`
  );
}
