import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readXml } from "../../src/vim/read-xml.ts";
import { SoapCodec } from "../../src/vim/soap-codec.ts";
import { ViJsonCodec } from "../../src/vim/vi-json-codec.ts";
import { type VimArguments, VimTyped, vimData } from "../../src/vim/vim-argument.ts";
import type { HttpAnswer } from "../../src/vim/vim-http.ts";
import type { VimMethodName } from "../../src/vim/vim-methods.ts";
import { readObjectContent } from "../../src/vim/vim-properties.ts";
import { soapAnswer } from "./scripted-server.ts";

interface Capture {
  readonly title: string;
  readonly status: number;
  readonly request: string;
  readonly response: string;
}

/** What another team's vCenter answered, byte for byte (govmomi's simulator 0.24.2). */
const captures = JSON.parse(
  readFileSync(new URL("../../../simulators/test/vcenter/captures.json", import.meta.url), "utf8"),
) as Capture[];

const vm = { type: "VirtualMachine", value: "vm-57" };
const soap = new SoapCodec("6.7");
const json = new ViJsonCodec("8.0.3.0");

function answer(body: string, status = 200): HttpAnswer {
  return { status, body, setCookie: [], header: () => undefined };
}

function captured(title: string): Capture {
  const found = captures.find((each) => each.title === title);
  if (found === undefined) throw new Error(`no capture ${title}`);
  return found;
}

describe("SOAP", () => {
  const quiesceSpec = vimData("VirtualMachineWindowsQuiesceSpec", {
    timeout: 15,
    vssBackupType: 5,
    vssBootableSystemState: true,
    vssPartialFileSupport: false,
    vssBackupContext: "ctx_auto",
  });
  const calls: [string, VimMethodName, { type: string; value: string }, VimArguments][] = [
    ["RetrieveServiceContent", "RetrieveServiceContent", { type: "ServiceInstance", value: "ServiceInstance" }, {}],
    ["Login", "Login", { type: "SessionManager", value: "SessionManager" }, { password: "pass", userName: "user" }],
    [
      "FindByInventoryPath",
      "FindByInventoryPath",
      { type: "SearchIndex", value: "SearchIndex" },
      { inventoryPath: "DC0/vm/DC0_H0_VM0" },
    ],
    [
      "CreateSnapshotEx_Task",
      "CreateSnapshotEx_Task",
      vm,
      { quiesceSpec, memory: false, description: "x", name: "dm-1" },
    ],
    [
      "CreateSnapshot_Task",
      "CreateSnapshot_Task",
      vm,
      { name: "dm-1", description: "x", memory: false, quiesce: true },
    ],
    [
      "QueryChangedDiskAreas",
      "QueryChangedDiskAreas",
      vm,
      {
        changeId: "*",
        startOffset: 0,
        deviceKey: 204,
        snapshot: { type: "VirtualMachineSnapshot", value: "snapshot-70" },
      },
    ],
    [
      "RemoveSnapshot_Task",
      "RemoveSnapshot_Task",
      { type: "VirtualMachineSnapshot", value: "snapshot-70" },
      { consolidate: true, removeChildren: false },
    ],
    ["ShutdownGuest", "ShutdownGuest", vm, {}],
  ];

  test.each(calls)(
    "writes %s as it was captured, whatever order the arguments are given in",
    (title, name, self, args) => {
      const { body, headers } = soap.encode(name, self, args, undefined);
      expect(body).toContain(`<soapenv:Body>${captured(title).request}</soapenv:Body>`);
      expect(headers).toMatchObject({ soapaction: '"urn:vim25/6.7"', "content-type": "text/xml; charset=utf-8" });
    },
  );

  test("reads every captured answer, faults by their types, and refuses those that the capture cut short", () => {
    const faults: string[] = [];
    for (const { title, status, request, response } of captures) {
      const name = /^<(\w+)/.exec(request)?.[1] as VimMethodName;
      const read = (): unknown => soap.decode(name, answer(response, status));
      const whole = response.trimEnd().endsWith("</soapenv:Envelope>");
      if (!whole) expect(read, title).toThrow(/unclosed/);
      else if (status === 200) expect(read, title).not.toThrow();
      else expect(read, title).toThrow(expect.objectContaining({ name: "VimFault" }) as Error);
      try {
        read();
      } catch (error) {
        if (whole) faults.push((error as { type: string }).type);
      }
    }
    expect(new Set(faults)).toEqual(new Set(["MethodNotFound", "NotAuthenticated"]));
  });

  test("keeps a reference's own type beside its xsi:type, under any prefix", () => {
    const { response } = captured("RetrievePropertiesEx(Task)");
    expect(response).toContain("XMLSchema-instance:type");
    const [result] = soap.decode("RetrievePropertiesEx", answer(response));
    const info = readObjectContent(result!.all("objects")[0]!)?.get("info");
    expect(info?.type).toBe("TaskInfo");
    expect(info?.child("result")?.type).toBe("ManagedObjectReference");
    expect(info?.reference("result")).toEqual({ type: "VirtualMachineSnapshot", value: "snapshot-70" });
  });

  test("leaves names that look like numbers as they are", () => {
    const body = `<CurrentTimeResponse xmlns="urn:vim25"><returnval><name>00123</name><n>1e3</n></returnval></CurrentTimeResponse>`;
    const [value] = soap.decode("CurrentTime", answer(soapAnswer(body)));
    expect(value?.string("name")).toBe("00123");
    expect(value?.number("n")).toBe(1000);
  });

  test("escapes what it writes and refuses what XML cannot hold", () => {
    const encode = (password: string): string =>
      soap.encode("Login", { type: "SessionManager", value: "SessionManager" }, { userName: "u", password }, undefined)
        .body;
    const hard = `<>&"'\r\n\t ]]> ü 𝄞`;
    expect(readXml(encode(hard)).child("Body")?.children[0]?.string("password")).toBe(hard);
    expect(() => encode("\u0000")).toThrow(TypeError);
  });

  test("writes the type of a primitive where anything may stand", () => {
    const spec = vimData("VirtualMachineConfigSpec", {
      extraConfig: [vimData("OptionValue", { key: "scsi0:0.ctkEnabled", value: new VimTyped("string", "TRUE") })],
      changeTrackingEnabled: true,
    });
    expect(soap.encode("ReconfigVM_Task", vm, { spec }, undefined).body).toContain(
      `<extraConfig xsi:type="OptionValue"><key>scsi0:0.ctkEnabled</key><value xsi:type="xsd:string">TRUE</value></extraConfig>` +
        `<changeTrackingEnabled>true</changeTrackingEnabled>`,
    );
  });

  test("refuses document types, deep nesting and numbers beyond what is exact", () => {
    expect(() => readXml(`<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`)).toThrow(/document type/);
    expect(() => readXml("<a>".repeat(1000) + "</a>".repeat(1000))).toThrow(/nested deeper/);
    expect(() => readXml("")).toThrow();
    expect(() => readXml("<a><b></a>")).toThrow();
    expect(() => readXml("<a><n>9007199254740993</n></a>").number("n")).toThrow(RangeError);
    expect(() => readXml("<a><n></n></a>").number("n")).toThrow(RangeError);
    const args = { snapshot: undefined, deviceKey: 2000, startOffset: 2 ** 53, changeId: "*" };
    expect(() => soap.encode("QueryChangedDiskAreas", vm, args, undefined)).toThrow(RangeError);
  });
});

describe("VI/JSON", () => {
  test("writes QueryChangedDiskAreas as the API's document shows it", () => {
    const args = {
      snapshot: { type: "VirtualMachineSnapshot", value: "snapshot-42" },
      deviceKey: 2000,
      startOffset: 0,
      changeId: "*",
    };
    const { path, body, headers } = json.encode("QueryChangedDiskAreas", vm, args, "token");
    expect(path).toBe("/sdk/vim25/8.0.3.0/VirtualMachine/vm-57/QueryChangedDiskAreas");
    expect(JSON.parse(body)).toEqual({
      snapshot: { _typeName: "ManagedObjectReference", type: "VirtualMachineSnapshot", value: "snapshot-42" },
      deviceKey: 2000,
      startOffset: 0,
      changeId: "*",
    });
    expect(headers["vmware-api-session-id"]).toBe("token");
  });

  test("reads an answer into what SOAP would have given", () => {
    const fromJson = json.decode(
      "QueryChangedDiskAreas",
      answer(
        JSON.stringify({
          _typeName: "DiskChangeInfo",
          startOffset: 0,
          length: 1048576,
          changedArea: [{ _typeName: "DiskChangeExtent", start: 0, length: 65536 }],
        }),
      ),
    )[0];
    const fromXml = soap.decode(
      "QueryChangedDiskAreas",
      answer(
        soapAnswer(
          `<QueryChangedDiskAreasResponse xmlns="urn:vim25"><returnval><startOffset>0</startOffset><length>1048576</length>` +
            `<changedArea><start>0</start><length>65536</length></changedArea></returnval></QueryChangedDiskAreasResponse>`,
        ),
      ),
    )[0];
    for (const found of [fromJson, fromXml]) {
      expect(found?.number("length")).toBe(1048576);
      expect(found?.all("changedArea").map((each) => [each.number("start"), each.number("length")])).toEqual([
        [0, 65536],
      ]);
    }
  });

  test("reads lists, boxed values, references and nothing", () => {
    const decode = (value: unknown, status = 200): ReturnType<typeof json.decode> =>
      json.decode("RetrievePropertiesEx", answer(JSON.stringify(value), status));
    expect(decode(null)).toEqual([]);
    expect(json.decode("Logout", answer("", 204))).toEqual([]);
    expect(decode([1, 2]).map(({ text }) => text)).toEqual(["1", "2"]);
    const [boxed] = decode({
      _typeName: "ArrayOfManagedObjectReference",
      _value: [{ _typeName: "ManagedObjectReference", type: "Task", value: "t" }],
    });
    expect(boxed?.children[0]?.asReference).toEqual({ type: "Task", value: "t" });
    expect(decode({ _typeName: "boolean", _value: true })[0]?.asBoolean).toBe(true);
  });

  test("reads a fault by its type, and an error that is none as no fault", () => {
    const fault = { _typeName: "NotAuthenticated", faultstring: "The session is not authenticated." };
    expect(() => json.decode("CurrentTime", answer(JSON.stringify(fault), 500))).toThrow(
      expect.objectContaining({ type: "NotAuthenticated" }) as Error,
    );
    expect(() => json.decode("CurrentTime", answer(`{"error":"no"}`, 500))).toThrow(/names no fault/);
    expect(() => json.decode("CurrentTime", answer(`{"_typeName":`))).toThrow(/no JSON/);
    const token = `"5f8c-secret" x`;
    expect(() => json.decode("Login", answer(token))).toThrow(/no JSON/);
    expect(() => json.decode("Login", answer(token))).not.toThrow(/secret/);
    const deep = `{"a":`.repeat(1000) + "1" + "}".repeat(1000);
    expect(() => json.decode("CurrentTime", answer(deep))).toThrow(/nested deeper/);
  });
});
