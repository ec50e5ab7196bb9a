import { Any, arrayName, Data, Enumerated, List, Long, primitiveName, Reference } from "./vim-value.ts";
import type { VimValue } from "./vim-value.ts";

const instance = "http://www.w3.org/2001/XMLSchema-instance";

/** How types are written: vCenter's `xsi:type`, or with a prefix declared on the spot as another server does. */
export type TypeDialect = "xsi" | "local-prefix";

/** Escapes text for an element or an attribute. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"\r]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Writes vim25 values as elements, in one dialect. */
export class XmlWriter {
  readonly #dialect: TypeDialect;

  constructor(dialect: TypeDialect) {
    this.#dialect = dialect;
  }

  /** The whole envelope around the content of its body. */
  envelope(body: string): string {
    return (
      `<?xml version="1.0" encoding="UTF-8"?>\n<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/"` +
      ` xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
      ` xmlns:xsi="${instance}"><soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`
    );
  }

  /** The answer of a method: no `returnval` where there is nothing to return, one for each item of a list. */
  response(method: string, value: VimValue | undefined): string {
    const inside = value === undefined ? "" : this.element("returnval", value);
    return this.envelope(`<${method}Response xmlns="urn:vim25">${inside}</${method}Response>`);
  }

  /** A SOAP fault whose detail is the vim25 fault. */
  fault(message: string, detail: Data): string {
    const name = `${detail.type}Fault`;
    const inside = `<${name} xmlns="urn:vim25" xsi:type="${detail.type}">` + `${this.#fields(detail)}</${name}>`;
    return this.envelope(
      `<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>${escapeXml(message)}</faultstring>` +
        `<detail>${inside}</detail></soapenv:Fault>`,
    );
  }

  /** One element, or several of the same name for a list. */
  element(name: string, value: VimValue): string {
    if (value instanceof List) return value.items.map((item) => this.element(name, item)).join("");
    if (value instanceof Any) return this.#typed(name, value.value);
    if (value instanceof Reference) {
      return `<${name} type="${escapeXml(value.type)}">${escapeXml(value.id)}</${name}>`;
    }
    if (value instanceof Data) {
      const type = value.explicit ? this.#type(value.type) : "";
      return `<${name}${type}>${this.#fields(value)}</${name}>`;
    }
    return `<${name}>${text(value)}</${name}>`;
  }

  /** An element where `anyType` is declared. */
  #typed(name: string, value: VimValue): string {
    if (value instanceof Any) return this.#typed(name, value.value);
    if (value instanceof List) {
      const primitive = value.items[0] === undefined ? undefined : primitiveName(value.items[0]);
      const item = primitive ?? value.itemType;
      const type = this.#type(arrayName(value.itemType));
      return `<${name}${type}>${value.items.map((each) => this.element(item, each)).join("")}</${name}>`;
    }
    if (value instanceof Reference) {
      const type = this.#type("ManagedObjectReference");
      return `<${name} type="${escapeXml(value.type)}"${type}>${escapeXml(value.id)}</${name}>`;
    }
    if (value instanceof Data) return `<${name}${this.#type(value.type)}>${this.#fields(value)}</${name}>`;
    if (value instanceof Enumerated) return `<${name}${this.#type(value.type)}>${escapeXml(value.value)}</${name}>`;
    return `<${name}${this.#type(`xsd:${primitiveName(value) ?? "string"}`)}>${text(value)}</${name}>`;
  }

  #fields(value: Data): string {
    let written = "";
    for (const [name, field] of Object.entries(value.fields)) {
      if (field !== undefined) written += this.element(name, field);
    }
    return written;
  }

  #type(name: string): string {
    if (this.#dialect === "xsi") return ` xsi:type="${name}"`;
    return ` xmlns:XMLSchema-instance="${instance}" XMLSchema-instance:type="${name}"`;
  }
}

function text(value: string | number | boolean | Date | Enumerated | Long): string {
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Enumerated || value instanceof Long) return escapeXml(String(value.value));
  return escapeXml(String(value));
}
