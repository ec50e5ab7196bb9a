import { SaxesParser } from "saxes";
import type { SaxesAttributeNS } from "saxes";
import { Reference } from "./vim-value.ts";

const instance = "http://www.w3.org/2001/XMLSchema-instance";

/** An element of a request with its namespace resolved; VI/JSON requests are read into the same shape. */
export class VimElement {
  readonly name: string;
  readonly namespace: string;
  /** The element's `xsi:type` without its prefix. */
  readonly xsiType: string | undefined;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: VimElement[] = [];
  text = "";

  constructor(name: string, namespace: string, attributes: ReadonlyMap<string, string>, xsiType: string | undefined) {
    this.name = name;
    this.namespace = namespace;
    this.attributes = attributes;
    this.xsiType = xsiType;
  }

  /** The first child of this name. */
  child(name: string): VimElement | undefined {
    return this.children.find((each) => each.name === name);
  }

  /** Every child of this name. */
  all(name: string): VimElement[] {
    return this.children.filter((each) => each.name === name);
  }

  /** The text of a child; undefined where there is none. */
  string(name: string): string | undefined {
    return this.child(name)?.text;
  }

  /** A child's text as a number; undefined where there is none. */
  number(name: string): number | undefined {
    const found = this.string(name);
    return found === undefined ? undefined : Number(found);
  }

  /** A child's text as a boolean; undefined where there is none. */
  boolean(name: string): boolean | undefined {
    const found = this.string(name)?.trim();
    return found === undefined ? undefined : found === "true" || found === "1";
  }

  /** The texts of every child of this name. */
  strings(name: string): string[] {
    return this.all(name).map((each) => each.text);
  }

  /** This element as a managed object reference. */
  get reference(): Reference {
    return new Reference(this.attributes.get("type") ?? "", this.text.trim());
  }

  /** A child as a managed object reference. */
  ref(name: string): Reference | undefined {
    return this.child(name)?.reference;
  }
}

/** Reads one XML document; an unbound prefix or anything not well formed throws. */
export function readXml(xml: string): VimElement {
  const parser = new SaxesParser({ xmlns: true, position: false });
  const open: VimElement[] = [];
  let root: VimElement | undefined;
  parser.on("error", (error) => {
    throw error;
  });
  parser.on("doctype", () => {
    throw new Error("a document type declaration is not allowed in SOAP");
  });
  parser.on("opentag", (tag) => {
    const attributes = new Map<string, string>();
    let type: string | undefined;
    for (const attribute of Object.values<SaxesAttributeNS>(tag.attributes)) {
      if (attribute.uri === instance && attribute.local === "type") type = attribute.value.replace(/^[^:]*:/, "");
      else if (attribute.uri === "") attributes.set(attribute.local, attribute.value);
    }
    const element = new VimElement(tag.local, tag.uri, attributes, type);
    open.at(-1)?.children.push(element);
    root ??= element;
    open.push(element);
  });
  parser.on("text", (text) => {
    const element = open.at(-1);
    if (element !== undefined) element.text += text;
  });
  parser.on("closetag", () => void open.pop());
  parser.write(xml).close();
  if (root === undefined) throw new Error("an empty document");
  return root;
}

/** Reads the body of a VI/JSON call into the element that a SOAP call of the same method would have. */
export function elementOfJson(name: string, json: unknown): VimElement {
  if (typeof json !== "object" || json === null) {
    const leaf = new VimElement(name, "urn:vim25", new Map(), undefined);
    leaf.text = typeof json === "string" ? json : JSON.stringify(json ?? "").replaceAll('"', "");
    return leaf;
  }
  const fields = json as Record<string, unknown>;
  const type = typeof fields["_typeName"] === "string" ? fields["_typeName"] : undefined;
  if (type === "ManagedObjectReference" || ("type" in fields && "value" in fields && type === undefined)) {
    const leaf = new VimElement(name, "urn:vim25", new Map([["type", String(fields["type"])]]), undefined);
    leaf.text = String(fields["value"]);
    return leaf;
  }
  if ("_value" in fields) return elementOfJson(name, fields["_value"]);
  const element = new VimElement(name, "urn:vim25", new Map(), type);
  for (const [field, value] of Object.entries(fields)) {
    if (field === "_typeName" || value === undefined || value === null) continue;
    for (const each of Array.isArray(value) ? (value as unknown[]) : [value]) {
      element.children.push(elementOfJson(field, each));
    }
  }
  return element;
}
