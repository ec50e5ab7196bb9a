import { readFile } from "node:fs/promises";
import type { ProviderContext, Wait } from "@diskferry/core/provider";
import { vsphereError } from "./errors.ts";
import { addressUrl, type VsphereOptions } from "./options.ts";
import type { ReaderMeans } from "./readers/reader-fitness.ts";
import { compareVersions } from "./vim/api-version.ts";
import { listObjects } from "./vim/property-collector.ts";
import { VimClient, type VimCredentials } from "./vim/vim-client.ts";

/** A place that is connected: what source, tracker, readers, inventory and pre-flight share. */
export interface VsphereConnection extends AsyncDisposable {
  readonly client: VimClient;
  readonly options: VsphereOptions;
  /**
   * Who this place is, whatever its address: the vCenter's instance UUID, or a host's hardware UUID. Ids of machines begin with
   * it, so that two vCenters never mix.
   */
  readonly placeId: string;
  /** The password for programs that log in by themselves (nbdkit); undefined where a ticket was given. */
  readonly login: { readonly userName: string; readonly password: string } | undefined;
  notice(message: string): void;
  /** How nbdkit and the hosts' ports are asked; absent: as they are. */
  readonly means?: ReaderMeans;
}

/** The oldest API that is spoken; 6.5 is deprecated and works. */
const oldestApi = "6.5";
const firstFullySupported = "6.7";

/**
 * Connects by options and environment.
 *
 * @throws ProviderError CONFIG_INVALID without user or password; AUTH; UNAVAILABLE; UNSUPPORTED for vSphere 6.0 and older
 */
export async function connectVsphere(
  options: VsphereOptions,
  context: ProviderContext = {},
): Promise<VsphereConnection> {
  const { signal } = context;
  const notice = (message: string): void => context.notice?.(message);
  const credentials = await credentialsOf(options);
  const ca = options.ca === undefined ? undefined : await readText(options.ca, "the certificates of ca");
  const client = await VimClient.connect(
    {
      url: addressUrl(options.url),
      credentials,
      trust: { ca, thumbprint: options.thumbprint },
      protocol: options.protocol,
      timeoutMs: seconds(options.timeoutSeconds),
      retryForMs: seconds(options.retrySeconds),
      connections: options.connections,
      notice,
    },
    { signal },
  );
  try {
    const { apiVersion, fullName } = client.about;
    if (compareVersions(apiVersion, oldestApi) < 0) {
      throw vsphereError(
        "UNSUPPORTED",
        `${fullName} at ${client.http.host} is too old: vSphere 6.0 loses changes (KB 317933), and 6.5 is the oldest ` +
          `that works; upgrade it, or copy the disks by other means`,
      );
    }
    if (compareVersions(apiVersion, firstFullySupported) < 0) {
      notice(`${fullName} is deprecated: vSphere 6.5 is out of support and its change tracking is limited`);
    }
    return {
      client,
      options,
      placeId: await placeIdOf(client, { signal }),
      login: "userName" in credentials ? credentials : undefined,
      notice,
      [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
    };
  } catch (error) {
    await client[Symbol.asyncDispose]();
    throw error;
  }
}

function seconds(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value * 1000;
}

async function credentialsOf(options: VsphereOptions): Promise<VimCredentials> {
  if (options.cloneTicket !== undefined) return { cloneTicket: options.cloneTicket };
  const userName = options.username ?? process.env["VSPHERE_USER"];
  if (userName === undefined || userName === "") {
    throw vsphereError("CONFIG_INVALID", "no user: give username, or set VSPHERE_USER");
  }
  const file = options.passwordFile;
  const password =
    options.password ??
    (file === undefined
      ? process.env["VSPHERE_PASSWORD"]
      : (await readText(file, "the password")).split(/\r?\n/, 1)[0]);
  if (password === undefined || password === "") {
    throw vsphereError(
      "CONFIG_INVALID",
      `no password for ${userName}: give password or passwordFile, or set VSPHERE_PASSWORD`,
    );
  }
  return { userName, password };
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw vsphereError("CONFIG_INVALID", `${what} cannot be read from ${path} (${(cause as { code?: string }).code})`, {
      cause,
    });
  }
}

/** A host has no instance UUID; its hardware has one. */
async function placeIdOf(client: VimClient, wait: Wait): Promise<string> {
  const { instanceUuid } = client.about;
  if (instanceUuid !== undefined && instanceUuid !== "") return instanceUuid.toLowerCase();
  const wanted = { types: ["HostSystem"], paths: ["summary.hardware.uuid"] };
  for await (const [host] of listObjects(client, client.references.rootFolder, wanted, wait)) {
    const uuid = host?.string("summary.hardware.uuid");
    if (uuid !== undefined && uuid !== "") return uuid.toLowerCase();
  }
  throw vsphereError("UNSUPPORTED", `${client.place} tells no UUID, so its machines could not be told from others'`);
}
