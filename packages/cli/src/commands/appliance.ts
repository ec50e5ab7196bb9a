import { once } from "node:events";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ProviderError } from "@diskferry/core";
import type { CommandContext, Command } from "../command.ts";
import { DONE } from "../exit-codes.ts";
import { usageError } from "../usage-error.ts";

/** What of `@diskferry/provider-cloudstack` this command uses. */
interface ApplianceModule {
  serveAppliance(options: {
    host: string;
    port?: number;
    controlPort?: number;
    tls: { cert: string; key: string; ca: string };
    stateFolder: string;
    deviceRoot?: string;
    notice(message: string): void;
  }): Promise<{ host: string; port: number; controlPort: number; close(): Promise<void> }>;
}

const packageName = "@diskferry/provider-cloudstack";
const defaultState = "/var/lib/diskferry-appliance";

/** Runs on a virtual machine of CloudStack and lets others write to the volumes that are attached to it. */
export const appliance: Command = {
  name: "appliance",
  summary: "let others write to the volumes that CloudStack has attached to this machine; runs until it is stopped",
  usage: ["--certificates <folder>"],
  options: {
    certificates: { value: "folder", summary: "with ca-cert.pem, server-cert.pem and server-key.pem" },
    host: { value: "address", summary: "where to listen; default 0.0.0.0" },
    port: { value: "number", summary: "of the NBD server; default 10809, 0 for any free one" },
    "control-port": { value: "number", summary: "of the control door; default 10810, 0 for any free one" },
    state: {
      value: "directory",
      summary: "what has to outlive a restart; default $STATE_DIRECTORY, or /var/lib/diskferry-appliance",
    },
    "device-root": { value: "folder", summary: "look for devices below this folder of a simulated machine" },
  },
  async run(context) {
    const { options, io, output, interrupts } = context;
    if (context.positionals.length > 0) throw usageError("appliance takes options alone");
    const folder = options.text("certificates");
    if (folder === undefined) throw usageError("appliance needs --certificates: nobody is let in without them");
    const tls = await readCertificates(resolve(io.cwd, folder));
    const stateFolder = resolve(io.cwd, options.text("state") ?? io.env["STATE_DIRECTORY"] ?? defaultState);
    await mkdir(stateFolder, { recursive: true, mode: 0o700 });
    const { serveAppliance } = await loadModule(context);
    const deviceRoot = options.text("device-root");
    const [port, controlPort] = [portOf(context, "port"), portOf(context, "control-port")];
    const running = await serveAppliance({
      host: options.text("host") ?? "0.0.0.0",
      tls,
      stateFolder,
      ...(port === undefined ? {} : { port }),
      ...(controlPort === undefined ? {} : { controlPort }),
      ...(deviceRoot === undefined ? {} : { deviceRoot: resolve(io.cwd, deviceRoot) }),
      notice: (message) => output.notice(message),
    });
    const { host } = running;
    output.result(
      "appliance",
      { host, port: running.port, controlPort: running.controlPort },
      `NBD on ${host}:${running.port}, control door on ${host}:${running.controlPort}\n`,
    );
    const stop = AbortSignal.any([interrupts.pause, interrupts.stop]);
    if (!stop.aborted) await once(stop, "abort");
    const closing = running.close();
    // A second signal does not wait for what is under way.
    const hurry = interrupts.stop.aborted ? Promise.resolve() : once(interrupts.stop, "abort");
    await Promise.race([closing, hurry]);
    return DONE;
  },
};

function portOf({ options }: CommandContext, name: "port" | "control-port"): number | undefined {
  const read = (text: string): number | undefined =>
    /^\d{1,5}$/.test(text) && Number(text) < 65_536 ? Number(text) : undefined;
  return options.read(name, read, "a port, 0 to 65535");
}

async function readCertificates(folder: string): Promise<{ cert: string; key: string; ca: string }> {
  const read = async (name: string): Promise<string> => {
    try {
      return await readFile(join(folder, name), "utf8");
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      throw new ProviderError(
        code === "EACCES" ? "DENIED" : "CONFIG_INVALID",
        `${join(folder, name)} cannot be read (${code ?? "unknown"}); docs/guide/appliance.md tells how certificates are made`,
        { operation: "appliance", cause },
      );
    }
  };
  const [ca, cert, key] = [await read("ca-cert.pem"), await read("server-cert.pem"), await read("server-key.pem")];
  return { ca, cert, key };
}

/** The package is not the command's own: where no appliance runs it need not be there. */
async function loadModule({ io }: CommandContext): Promise<ApplianceModule> {
  for (const from of [pathToFileURL(join(io.cwd, "package.json")).href, import.meta.url]) {
    let entry: string;
    try {
      entry = createRequire(from).resolve(packageName);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND") continue;
      throw error;
    }
    const module = (await import(/* @vite-ignore */ pathToFileURL(entry).href)) as Partial<ApplianceModule>;
    if (module.serveAppliance !== undefined) return { serveAppliance: module.serveAppliance };
    throw new ProviderError("UNSUPPORTED", `${entry} runs no appliance; run: npm install ${packageName}@latest`, {
      operation: "appliance",
    });
  }
  throw new ProviderError("NOT_FOUND", `${packageName} is not installed; run: npm install ${packageName}`, {
    operation: "appliance",
  });
}
