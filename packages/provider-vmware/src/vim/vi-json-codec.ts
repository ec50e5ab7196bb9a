import type { MoRef } from "./moref.ts";
import { parseJson } from "./parse-json.ts";
import { orderedParameters } from "./soap-codec.ts";
import { isList, type VimArgument, type VimArguments, VimData, VimTyped } from "./vim-argument.ts";
import type { EncodedCall, VimCodec } from "./vim-codec.ts";
import { VimElement } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";
import type { HttpAnswer } from "./vim-http.ts";
import type { VimMethodName } from "./vim-methods.ts";

/** Deeper than any vim25 answer. */
const mostLevels = 256;

/**
 * vim25 in JSON at `/sdk/vim25/{version}/{type}/{id}/{method}` (Virtual Infrastructure JSON API, vCenter 8.0 U1 and newer;
 * hosts do not have it), with the session in the header `vmware-api-session-id`.
 */
export class ViJsonCodec implements VimCodec {
  readonly name = "vi-json";
  readonly version: string;

  constructor(version: string) {
    this.version = version;
  }

  encode(name: VimMethodName, self: MoRef, args: VimArguments, credential: string | undefined): EncodedCall {
    const fields: Record<string, unknown> = {};
    for (const parameter of orderedParameters(name, args)) fields[parameter] = jsonOf(args[parameter]!);
    return {
      path: ["/sdk/vim25", this.version, self.type, self.value, name]
        .map((part, index) => (index === 0 ? part : encodeURIComponent(part)))
        .join("/"),
      headers: {
        "content-type": "application/json",
        accept: "application/json",
        ...(credential === undefined ? {} : { "vmware-api-session-id": credential }),
      },
      body: JSON.stringify(fields),
    };
  }

  decode(name: VimMethodName, answer: HttpAnswer): VimElement[] {
    if (answer.status === 204 || (answer.status === 200 && answer.body.trim() === "")) return [];
    const json = parseJson(answer.body);
    if (answer.status !== 200) throw jsonFault(name, json);
    if (json === null) return [];
    return Array.isArray(json) ? json.map((each) => elementOf("returnval", each)) : [elementOf("returnval", json)];
  }

  credentialOf(answer: HttpAnswer): string | undefined {
    return answer.header("vmware-api-session-id");
  }
}

function jsonFault(name: string, json: unknown): VimFault {
  const detail = elementOf("fault", json);
  if (detail.type === undefined) throw new Error(`${name} was answered by an error that names no fault`);
  const message = detail.string("faultstring") ?? detail.child("faultMessage")?.string("message") ?? "";
  return new VimFault(detail.type, message, detail);
}

function jsonOf(value: VimArgument): unknown {
  if (typeof value !== "object") {
    if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError("no whole number");
    return value;
  }
  if (isList(value)) return value.map(jsonOf);
  if (value instanceof VimTyped) return { _typeName: value.type, _value: value.value };
  if (value instanceof VimData) {
    const written: Record<string, unknown> = { _typeName: value.type };
    for (const [field, each] of Object.entries(value.fields)) if (each !== undefined) written[field] = jsonOf(each);
    return written;
  }
  return { _typeName: "ManagedObjectReference", type: value.type, value: value.value };
}

/** A JSON value as the element that SOAP would have answered. */
function elementOf(name: string, json: unknown, level = 0): VimElement {
  if (level > mostLevels) throw new Error(`the answer is nested deeper than ${mostLevels} levels`);
  if (typeof json !== "object" || json === null) {
    const leaf = new VimElement(name);
    leaf.text = primitiveText(json);
    return leaf;
  }
  const fields = json as Record<string, unknown>;
  const type = typeof fields["_typeName"] === "string" ? fields["_typeName"] : undefined;
  if (type === "ManagedObjectReference") {
    const leaf = new VimElement(name, type, String(fields["type"]));
    leaf.text = String(fields["value"]);
    return leaf;
  }
  const element = new VimElement(name, type);
  if ("_value" in fields) {
    const boxed = fields["_value"];
    if (Array.isArray(boxed)) for (const each of boxed) element.children.push(elementOf("item", each, level + 1));
    else element.text = primitiveText(boxed);
    return element;
  }
  for (const [field, value] of Object.entries(fields)) {
    if (field === "_typeName" || value === undefined || value === null) continue;
    for (const each of Array.isArray(value) ? (value as unknown[]) : [value]) {
      element.children.push(elementOf(field, each, level + 1));
    }
  }
  return element;
}

function primitiveText(json: unknown): string {
  return typeof json === "string" || typeof json === "number" || typeof json === "boolean" ? String(json) : "";
}
