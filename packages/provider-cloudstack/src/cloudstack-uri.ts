import { cloudstackError } from "./errors.ts";
import type { CloudstackOptions } from "./options.ts";

/** The URI schemes of this provider, without the colon. */
export const cloudstackSchemes: readonly string[] = ["cloudstack", "cloudstack+http"];

const parameters: Readonly<Record<string, (options: CloudstackOptions, value: string) => void>> = {
  zone: (options, value) => void (options.zone = value),
  project: (options, value) => void (options.project = value),
  offering: (options, value) => void (options.diskOffering = value),
  appliance: (options, value) => void (options.appliance = { machine: value }),
  api: (options, value) => void (options.endpoint = new URL(value, options.endpoint).href),
};

/**
 * The options of `cloudstack://HOST[:PORT][/MACHINE][?zone=…&project=…&offering=…&appliance=…&api=/client/api]`. Keys are no
 * part of a URI: CLOUDSTACK_KEY and CLOUDSTACK_SECRET of the environment hold them.
 * @throws ProviderError CONFIG_INVALID
 */
export function optionsFromUri(text: string): CloudstackOptions {
  const found = /^(cloudstack(?:\+http)?):\/\/([^/?#]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(text);
  if (found === null) throw invalid("it is written cloudstack://HOST/MACHINE?zone=ZONE");
  const [, scheme = "", host = "", machine = "", query = ""] = found;
  if (host.includes("@")) throw invalid("keys do not stand in a URI; set CLOUDSTACK_KEY and CLOUDSTACK_SECRET");
  const protocol = scheme.toLowerCase().endsWith("+http") ? "http" : "https";
  const options: CloudstackOptions = { endpoint: `${protocol}://${host}/client/api` };
  if (machine !== "") options.machine = decode(machine);
  for (const [name, value] of new URLSearchParams(query)) {
    const read = Object.hasOwn(parameters, name) ? parameters[name] : undefined;
    if (read === undefined)
      throw invalid(`there is no parameter ${JSON.stringify(name)}; known: ${Object.keys(parameters).join(", ")}`);
    if (value === "") throw invalid(`the parameter ${name} is empty`);
    read(options, value);
  }
  return options;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid("it is not percent-encoded UTF-8; write % as %25");
  }
}

function invalid(why: string): Error {
  return cloudstackError("CONFIG_INVALID", `A CloudStack URI: ${why}.`);
}
