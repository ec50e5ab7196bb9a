import { readFileSync } from "node:fs";
import { SaxesParser } from "saxes";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startVcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import type { VcenterSimulator } from "../../src/vcenter/vcenter-simulator.ts";
import { VimClient } from "./vim-client.ts";

// Envelopes captured from another team's simulator of vCenter (govmomi's, 0.24.2), asked again of ours and compared in
// structure: names, namespaces, types and the order of elements. Ours may say more; nothing may be missing.

interface Capture {
  title: string;
  status: number;
  request: string;
  response: string;
  /** Long answers were captured up to some point. */
  whole: boolean;
}

const captures = JSON.parse(readFileSync(new URL("./captures.json", import.meta.url), "utf8")) as Capture[];

/** What that simulator does not implement and ours does: there the shape of the fault is compared with another method. */
const unknownThere = ["CreateSnapshotEx_Task", "QueryChangedDiskAreas", "ExportSnapshot", "ExportVm"];

interface Shape {
  /** `namespace name @type xsi:type` of every element by its path. */
  readonly elements: Set<string>;
  /** The children's names by the parent's path, in order, each once. */
  readonly orders: Map<string, string[]>;
}

function shapeOf(xml: string): Shape {
  const parser = new SaxesParser({ xmlns: true });
  const path: string[] = [];
  const shape: Shape = { elements: new Set(), orders: new Map() };
  let broken = false;
  parser.on("error", () => {
    broken = true;
  });
  parser.on("opentag", (tag) => {
    if (broken) return;
    let type = "";
    let moref = "";
    for (const attribute of Object.values(tag.attributes)) {
      if (attribute.local === "type" && attribute.uri.endsWith("/XMLSchema-instance")) type = attribute.value;
      else if (attribute.local === "type") moref = attribute.value;
    }
    const parent = path.join("/");
    const order = shape.orders.get(parent) ?? [];
    if (!order.includes(tag.local)) order.push(tag.local);
    shape.orders.set(parent, order);
    path.push(type === "" ? tag.local : `${tag.local}(${type})`);
    shape.elements.add(`${path.join("/")} in ${tag.uri}${moref === "" ? "" : ` refers to ${moref}`}`);
  });
  parser.on("closetag", () => void path.pop());
  parser.write(xml);
  return shape;
}

let simulator: VcenterSimulator;
let client: VimClient;

beforeAll(async () => {
  simulator = await startVcenterSimulator({
    tls: false,
    version: "6.5",
    userName: "user",
    password: "pass",
    machines: [{ name: "DC0_H0_VM0", disks: [{ size: 1 << 20 }] }],
  });
  client = new VimClient(simulator);
  client.version = "6.5";
});

afterAll(() => simulator.stop());

test("every captured call is answered in the same structure", async () => {
  const machine = simulator.machine("DC0_H0_VM0").id;
  /** What the captured ids are called here. */
  const ids = new Map([["vm-57", machine]]);
  let compared = 0;
  for (const { title, status, request, response } of captures) {
    if (request.includes("<version></version>")) await settle();
    let body = request;
    for (const [theirs, ours] of ids) body = body.replaceAll(theirs, ours);
    for (const method of unknownThere)
      body = body.replaceAll(`${method} `, "NoSuch_Task ").replaceAll(`${method}>`, "NoSuch_Task>");
    if (body.includes(">task-69<")) await settle();
    const answer = await client.raw(body);
    const text = answer.bytes.toString("utf8");
    expect(answer.status, title).toBe(status);
    const theirs = shapeOf(response);
    const ours = shapeOf(text);
    const missing = [...theirs.elements].filter((element) => !ours.elements.has(element));
    expect(missing, title).toEqual([]);
    for (const [path, order] of theirs.orders) {
      const here = (ours.orders.get(path) ?? []).filter((name) => order.includes(name));
      expect(here, `${title}: order in ${path}`).toEqual(order.filter((name) => here.includes(name)));
    }
    compared += theirs.elements.size;
    for (const kind of ["task", "snapshot"]) {
      const pattern = new RegExp(`>(${kind}-\\d+)<`);
      const [, captured] = pattern.exec(response) ?? [];
      const [, here] = pattern.exec(text) ?? [];
      if (captured !== undefined && here !== undefined && !ids.has(captured)) ids.set(captured, here);
    }
    const [, filter] = /PropertyFilter">([^<]+)</.exec(response) ?? [];
    const [, filterHere] = /PropertyFilter">([^<]+)</.exec(text) ?? [];
    if (filter !== undefined && filterHere !== undefined && !ids.has(filter)) ids.set(filter, filterHere);
  }
  expect(compared).toBeGreaterThan(250);
});

/** Tasks have ended. */
async function settle(): Promise<void> {
  while (simulator.alive.tasks > 0) await new Promise((resolve) => setTimeout(resolve, 2));
}
