import type { Exchange } from "./exchange.ts";
import { jsonOf } from "./json-writer.ts";
import { compareVersions } from "./releases.ts";
import type { SimulatorCore } from "./simulator-core.ts";
import { elementOfJson } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";
import { Any, reference } from "./vim-value.ts";

/** /sdk/vim25/{release}/{type}/{id}/{method or property}: VI/JSON, vCenter 8.0 U1 and newer. */
export async function serveViJson(core: SimulatorCore, exchange: Exchange): Promise<void> {
  const { release, kind } = core.service.parts;
  const [, , , version = "", type = "", id = "", member = ""] = exchange.url.pathname
    .split("/")
    .map(decodeURIComponent);
  const known = /^[\d.]+$/.test(version) && compareVersions(version, release.apiVersion) <= 0;
  if (!release.viJson || kind !== "vcenter" || !known || compareVersions(version, "8.0.1") < 0) {
    exchange.send(404, { "content-type": "text/plain" }, "Not Found");
    return;
  }
  const self = reference(type, id);
  const sessionKey = exchange.header("vmware-api-session-id");
  const reply = (outcome: VimFault | { value: Parameters<typeof jsonOf>[0] | undefined }): void => {
    if (outcome instanceof VimFault) {
      const body = { ...(jsonOf(outcome.detail) as object), faultstring: outcome.message };
      exchange.json(500, body);
    } else if (outcome.value === undefined) exchange.send(204, headers);
    else exchange.json(200, jsonOf(outcome.value), headers);
  };
  const headers: Record<string, string> = {};
  if (exchange.request.method === "GET") {
    const outcome = await core.perform(exchange, `GET ${type}.${member}`, { self, sessionKey, property: member });
    if (outcome === "handled") return;
    if (outcome instanceof VimFault || outcome.value === undefined) reply(outcome);
    // A property is written as its declared type, but nobody declares it here: primitives stand bare as VI/JSON has them.
    else exchange.json(200, jsonOf(outcome.value instanceof Any ? outcome.value.value : outcome.value));
    return;
  }
  let json: unknown;
  try {
    const body = await exchange.body();
    json = body === "" ? {} : (JSON.parse(body) as unknown);
  } catch (error) {
    exchange.json(400, { _typeName: "InvalidRequest", faultstring: String(error) });
    return;
  }
  const outcome = await core.perform(exchange, member, {
    self,
    args: elementOfJson(member, json),
    sessionKey,
    opened: (session) => {
      headers["vmware-api-session-id"] = session.key;
    },
  });
  if (outcome !== "handled") reply(outcome);
}
