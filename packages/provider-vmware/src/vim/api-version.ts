import type { Wait } from "@diskferry/core/provider";
import { translateFault, vsphereError } from "../errors.ts";
import { readAbout } from "./about.ts";
import { statusError } from "./http-status.ts";
import { moRef } from "./moref.ts";
import { readXml } from "./read-xml.ts";
import { SoapCodec } from "./soap-codec.ts";
import type { VimElement } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";
import type { VimHttp } from "./vim-http.ts";

/** How a server is to be spoken to. */
export interface OfferedApi {
  readonly protocol: "soap" | "vi-json";
  readonly version: string;
  /** RetrieveServiceContent's answer. */
  readonly content: VimElement;
  /** Said where the wish could not be met. */
  readonly notice?: string;
}

/** The newest API that the call table was written from; a newer server is asked for this one. */
const newestKnown = "9.0.0.0";
/** For servers without a list of versions; RetrieveServiceContent has not changed since. */
const oldestAsked = "6.0";
/** VI/JSON came with vCenter 8.0 U1. */
const firstWithJson = "8.0.1.0";

/**
 * Finds the newest version of the API that both sides know (`/sdk/vimServiceVersions.xml`), and whether VI/JSON is
 * offered. Needs no login.
 */
export async function negotiateApi(
  http: VimHttp,
  wish: "auto" | "soap" | "vi-json",
  wait: Wait = {},
): Promise<OfferedApi> {
  const offered = await offeredVersions(http, wait);
  const known = newestOf(offered);
  const content = await serviceContent(http, known ?? oldestAsked, wait);
  const about = readAbout(content);
  // A server without the list still says its own version.
  const version = known ?? newestOf([about.apiVersion]);
  if (version === undefined || (offered.length > 0 && known === undefined)) {
    throw vsphereError(
      "UNSUPPORTED",
      `${about.fullName} at ${http.host} speaks the API versions ${offered.join(", ")}, all newer than ${newestKnown}`,
    );
  }
  if (wish === "soap") return { protocol: "soap", version, content };
  const json = about.kind === "vcenter" && compareVersions(version, firstWithJson) >= 0;
  if (json && (await answersJson(http, version, wait))) return { protocol: "vi-json", version, content };
  if (wish === "vi-json") {
    throw vsphereError(
      "UNSUPPORTED",
      `${about.fullName} at ${http.host} does not offer VI/JSON (vCenter 8.0 U1 and newer); set protocol to soap`,
    );
  }
  const notice = json ? `${http.host} should offer VI/JSON and does not; SOAP is used` : undefined;
  return { protocol: "soap", version, content, ...(notice === undefined ? {} : { notice }) };
}

/** Orders dotted versions by their numbers; missing ones count as 0. */
export function compareVersions(one: string, other: string): number {
  const left = one.split(".").map(Number);
  const right = other.split(".").map(Number);
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The newest of these versions that we know too. */
function newestOf(versions: readonly string[]): string | undefined {
  return versions
    .filter((each) => compareVersions(each, newestKnown) <= 0)
    .sort(compareVersions)
    .at(-1);
}

async function serviceContent(http: VimHttp, version: string, wait: Wait): Promise<VimElement> {
  const codec = new SoapCodec(version);
  const name = "RetrieveServiceContent";
  const { path, headers, body } = codec.encode(name, moRef("ServiceInstance", "ServiceInstance"), {}, undefined);
  const answer = await http.request(path, { ...wait, headers, body, operation: name });
  if (answer.status !== 200 && answer.status !== 500) throw statusError(answer, name, http.host);
  let content: VimElement | undefined;
  try {
    content = codec.decode(name, answer)[0];
  } catch (cause) {
    if (cause instanceof VimFault) throw translateFault(cause, name, http.host);
    if (answer.status !== 200) throw statusError(answer, name, http.host);
  }
  if (content === undefined) {
    throw vsphereError("UNSUPPORTED", `${http.host} answers at /sdk, but not as vCenter or ESXi; check the address`);
  }
  return content;
}

/** The versions of `urn:vim25` that a server offers, such as 8.0.3.0; empty where it keeps no list. */
async function offeredVersions(http: VimHttp, wait: Wait): Promise<string[]> {
  const answer = await http.request("/sdk/vimServiceVersions.xml", {
    ...wait,
    method: "GET",
    operation: "vimServiceVersions",
  });
  if (answer.status === 404) return [];
  if (answer.status !== 200) throw statusError(answer, "vimServiceVersions", http.host);
  let root: VimElement;
  try {
    root = readXml(answer.body);
  } catch {
    // Some page that is no list: whether this is a vSphere at all is asked next, and told better.
    return [];
  }
  const found: string[] = [];
  for (const namespace of root.all("namespace")) {
    if (namespace.string("name")?.trim() !== "urn:vim25") continue;
    const prior = namespace.child("priorVersions")?.all("version") ?? [];
    for (const { text } of [...namespace.all("version"), ...prior]) found.push(text.trim());
  }
  // Besides releases the list has names for tests of the server's makers (`u8.0.2.0`).
  return found.filter((version) => /^\d+(\.\d+)*$/.test(version));
}

async function answersJson(http: VimHttp, version: string, wait: Wait): Promise<boolean> {
  const path = `/sdk/vim25/${version}/ServiceInstance/ServiceInstance/content`;
  const answer = await http.request(path, { ...wait, method: "GET", operation: "VI/JSON" });
  return answer.status === 200 && answer.header("content-type")?.includes("json") === true;
}
