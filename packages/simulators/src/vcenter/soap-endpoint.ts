import type { Exchange } from "./exchange.ts";
import { compareVersions } from "./releases.ts";
import type { SimulatorCore } from "./simulator-core.ts";
import { readXml } from "./vim-element.ts";
import type { VimElement } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";

const soap = "http://schemas.xmlsoap.org/soap/envelope/";
const type = { "content-type": "text/xml; charset=utf-8" };

/** POST /sdk: one vim25 call in SOAP. */
export async function serveSoap(core: SimulatorCore, exchange: Exchange): Promise<void> {
  const fault = (error: VimFault): void => exchange.send(500, type, core.writer.fault(error.message, error.detail));
  let call: VimElement;
  try {
    call = callOf(readXml(await exchange.body()));
  } catch (error) {
    fault(new VimFault("InvalidRequest", `Unable to parse the request: ${String(error)}`));
    return;
  }
  const asked = /^"?urn:vim25\/([\d.]+)"?$/.exec(exchange.header("soapaction") ?? "")?.[1];
  const { release } = core.service.parts;
  if (asked !== undefined && compareVersions(asked, release.apiVersion) > 0) {
    fault(new VimFault("InvalidRequest", `Unsupported version URI "urn:vim25/${asked}"\n\nwhile parsing SOAP body`));
    return;
  }
  const self = call.ref("_this");
  if (self === undefined) {
    fault(new VimFault("InvalidRequest", `${call.name} without _this`));
    return;
  }
  const cookies: Record<string, string> = {};
  const outcome = await core.perform(exchange, call.name, {
    self,
    args: call,
    sessionKey: exchange.cookie,
    opened: (session) => {
      const secure = core.secure ? "; Secure" : "";
      cookies["set-cookie"] = `vmware_soap_session="${session.key}"; Path=/; HttpOnly${secure}`;
    },
  });
  if (outcome === "handled") return;
  if (outcome instanceof VimFault) {
    fault(outcome);
    return;
  }
  exchange.send(200, { ...type, ...cookies }, core.writer.response(call.name, outcome.value));
}

/** GET /sdk/vimServiceVersions.xml: what versions of the API are spoken. */
export function serveVersions(core: SimulatorCore, exchange: Exchange): void {
  const { apiVersion } = core.service.parts.release;
  const prior = ["6.7", "6.5", "6.0", "5.5"].filter((version) => compareVersions(version, apiVersion) < 0);
  exchange.send(
    200,
    type,
    `<?xml version="1.0" encoding="UTF-8" ?>\n<namespaces version="1.0"><namespace><name>urn:vim25</name>` +
      `<version>${apiVersion}</version><priorVersions>` +
      `${prior.map((version) => `<version>${version}</version>`).join("")}</priorVersions></namespace></namespaces>`,
  );
}

/** The one element of the envelope's body, which must be of vim25. */
function callOf(envelope: VimElement): VimElement {
  if (envelope.name !== "Envelope" || envelope.namespace !== soap) throw new Error("not a SOAP 1.1 envelope");
  const body = envelope.children.find(({ name, namespace }) => name === "Body" && namespace === soap);
  const call = body?.children[0];
  if (call === undefined || body?.children.length !== 1) throw new Error("the body holds not exactly one call");
  if (call.namespace !== "urn:vim25") throw new Error(`the call is of the namespace '${call.namespace}'`);
  return call;
}
