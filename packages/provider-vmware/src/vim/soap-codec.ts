import { type MoRef, moRefText } from "./moref.ts";
import { readXml } from "./read-xml.ts";
import { isList, type VimArgument, type VimArguments, VimData, VimTyped } from "./vim-argument.ts";
import type { EncodedCall, VimCodec } from "./vim-codec.ts";
import type { VimElement } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";
import type { HttpAnswer } from "./vim-http.ts";
import { vimMethod, type VimMethodName } from "./vim-methods.ts";

const head =
  `<?xml version="1.0" encoding="UTF-8"?>\n<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
  ` xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>`;
const foot = `</soapenv:Body></soapenv:Envelope>`;

/** vim25 in SOAP 1.1 at `/sdk`, with the API version in `SOAPAction` and the session in a cookie. */
export class SoapCodec implements VimCodec {
  readonly name = "soap";
  readonly version: string;

  constructor(version: string) {
    this.version = version;
  }

  encode(name: VimMethodName, self: MoRef, args: VimArguments, credential: string | undefined): EncodedCall {
    let fields = element("_this", self);
    for (const parameter of orderedParameters(name, args)) fields += element(parameter, args[parameter]);
    return {
      path: "/sdk",
      headers: {
        "content-type": "text/xml; charset=utf-8",
        soapaction: `"urn:vim25/${this.version}"`,
        ...(credential === undefined ? {} : { cookie: credential }),
      },
      body: `${head}<${name} xmlns="urn:vim25">${fields}</${name}>${foot}`,
    };
  }

  decode(name: VimMethodName, answer: HttpAnswer): VimElement[] {
    const body = readXml(answer.body).child("Body");
    const content = body?.children[0];
    if (content === undefined) throw new Error("the answer has no SOAP body");
    if (content.name === "Fault") {
      const detail = content.child("detail")?.children[0];
      const type = detail?.type ?? detail?.name.replace(/Fault$/, "") ?? "SoapFault";
      throw new VimFault(type, content.string("faultstring") ?? "", detail);
    }
    if (content.name !== `${name}Response`)
      throw new Error(`the answer is a ${content.name} and not a ${name}Response`);
    return content.all("returnval");
  }

  credentialOf(answer: HttpAnswer): string | undefined {
    // The value may be quoted, and vCenter wants it back as it gave it.
    for (const cookie of answer.setCookie) {
      if (cookie.startsWith("vmware_soap_session=")) return cookie.split(";", 1)[0];
    }
    return undefined;
  }
}

/** The given parameters of a call in the order of the schema. @throws TypeError for one the method does not have */
export function orderedParameters(name: VimMethodName, args: VimArguments): string[] {
  const { parameters } = vimMethod(name);
  for (const given of Object.keys(args)) {
    if (!parameters.includes(given)) throw new TypeError(`${name} has no parameter ${given}`);
  }
  return parameters.filter((parameter) => args[parameter] !== undefined);
}

function element(name: string, value: VimArgument | undefined): string {
  if (value === undefined) return "";
  if (typeof value !== "object") return `<${name}>${escapeXml(primitive(name, value))}</${name}>`;
  if (isList(value)) return value.map((each) => element(name, each)).join("");
  if (value instanceof VimTyped) {
    return `<${name} xsi:type="xsd:${value.type}">${escapeXml(primitive(name, value.value))}</${name}>`;
  }
  if (value instanceof VimData) {
    let fields = "";
    for (const [field, each] of Object.entries(value.fields)) fields += element(field, each);
    return `<${name} xsi:type="${value.type}">${fields}</${name}>`;
  }
  return `<${name} type="${escapeXml(value.type)}">${escapeXml(value.value)}</${name}>`;
}

function primitive(name: string, value: string | number | boolean): string {
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError(`${name} is no whole number`);
  return String(value);
}

// eslint-disable-next-line no-control-regex -- XML 1.0 cannot hold these, not even escaped.
const unspeakable = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/;

/** Text for an element or an attribute. @throws TypeError for control characters, which XML cannot hold */
export function escapeXml(text: string): string {
  if (unspeakable.test(text)) throw new TypeError("a text sent to vSphere holds a control character");
  return text.replace(/[&<>"\r\n\t]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** What a reference that a list of one element held is; for answers that must name exactly one object. */
export function onlyReference(name: string, elements: readonly VimElement[]): MoRef {
  const found = elements[0]?.asReference;
  if (found === undefined || elements.length !== 1) throw new Error(`${name} returned no reference`);
  if (found.value === "") throw new Error(`${name} returned the empty reference ${moRefText(found)}`);
  return found;
}
