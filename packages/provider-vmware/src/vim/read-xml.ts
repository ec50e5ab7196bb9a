import { type SaxesAttributeNS, SaxesParser } from "saxes";
import { VimElement } from "./vim-element.ts";

const instance = "http://www.w3.org/2001/XMLSchema-instance";

/** Deeper than any vim25 answer: a chain of 32 snapshots with their trees stays below it. */
const mostLevels = 256;

/**
 * Reads one XML document. Namespaces are resolved, because servers call the prefix of `xsi:type` as they like, and because
 * a reference has both a `type` and an `xsi:type`.
 *
 * @throws Error for what is not well formed, has a document type, or is nested too deeply
 */
export function readXml(xml: string): VimElement {
  const parser = new SaxesParser({ xmlns: true, position: false });
  const open: VimElement[] = [];
  let root: VimElement | undefined;
  parser.on("error", (error) => {
    throw error;
  });
  parser.on("doctype", () => {
    throw new Error("a document type declaration has no place in an answer");
  });
  parser.on("opentag", (tag) => {
    let type: string | undefined;
    let referredType: string | undefined;
    for (const key in tag.attributes) {
      const attribute = tag.attributes[key] as SaxesAttributeNS;
      if (attribute.local !== "type") continue;
      if (attribute.uri === instance) type = attribute.value.slice(attribute.value.indexOf(":") + 1);
      else if (attribute.uri === "") referredType = attribute.value;
    }
    const element = new VimElement(tag.local, type, referredType);
    if (open.length >= mostLevels) throw new Error(`the answer is nested deeper than ${mostLevels} levels`);
    open.at(-1)?.children.push(element);
    root ??= element;
    open.push(element);
  });
  parser.on("text", (text) => {
    const element = open.at(-1);
    if (element !== undefined) element.text += text;
  });
  parser.on("cdata", (text) => {
    const element = open.at(-1);
    if (element !== undefined) element.text += text;
  });
  parser.on("closetag", () => void open.pop());
  parser.write(xml).close();
  if (root === undefined) throw new Error("the answer is empty");
  return root;
}
