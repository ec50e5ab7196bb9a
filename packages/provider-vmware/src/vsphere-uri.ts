import { vsphereError } from "./errors.ts";
import type { VsphereOptions } from "./options.ts";

/** The URI scheme of this provider. */
export const vsphereSchemes: readonly string[] = ["vsphere"];

const parameters: Readonly<Record<string, (options: VsphereOptions, value: string) => void>> = {
  datacenter: (options, value) => void (options.datacenter = value),
  thumbprint: (options, value) => void (options.thumbprint = value),
  ca: (options, value) => void (options.ca = value),
  protocol: (options, value) => void (options.protocol = value as VsphereOptions["protocol"]),
};

/**
 * The options a URI stands for: `vsphere://[user@]host[:port][/machine]`, the machine by inventory path (`DC0/vm/web-1`), moref
 * (`vm-42`), instance UUID or name. The password comes from the environment. A `/` within a name is written `%252f`, as
 * vSphere itself calls it `%2f`.
 *
 * @throws ProviderError CONFIG_INVALID for a password, a parameter that is not known, or no host
 */
export function optionsFromUri(uri: string): VsphereOptions {
  let url: URL;
  try {
    // Only known schemes have authorities that URL takes apart.
    // An empty host would make the first part of the path one.
    if (!/^vsphere:\/\/[^/?#]/i.test(uri)) throw new TypeError("no host");
    url = new URL(uri.replace(/^vsphere:/i, "https:"));
  } catch {
    throw vsphereError("CONFIG_INVALID", "a vSphere URI is written vsphere://vcenter.example.org/DC0/vm/web-1");
  }
  if (url.password !== "") {
    throw vsphereError("CONFIG_INVALID", "a URI holds no password; give it by VSPHERE_PASSWORD or an option");
  }
  const options: VsphereOptions = { url: url.host };
  if (url.username !== "") options.username = decoded(url.username);
  const machine = decoded(url.pathname.replace(/^\//, "").replace(/\/$/, ""));
  if (machine !== "") options.machine = machine;
  for (const [name, value] of url.searchParams) {
    const set = parameters[name];
    if (set === undefined) {
      const known = Object.keys(parameters).join(", ");
      throw vsphereError("CONFIG_INVALID", `a vSphere URI has no parameter ${name} (known: ${known})`);
    }
    set(options, value);
  }
  return options;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw vsphereError("CONFIG_INVALID", `a vSphere URI has a broken escape in '${text}'; a % is written %25`);
  }
}
