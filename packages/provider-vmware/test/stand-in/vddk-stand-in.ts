import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { VcenterSimulator } from "@diskferry/simulators";
import type { VddkOptions } from "../../src/options.ts";

const folder = dirname(fileURLToPath(import.meta.url));

/** nbdkit's own vddk plugin, where it is installed or named by DISKFERRY_NBDKIT_VDDK_PLUGIN. */
const realPlugin = ((): string | undefined => {
  const plugin = process.env["DISKFERRY_NBDKIT_VDDK_PLUGIN"] ?? "vddk";
  try {
    execFileSync("nbdkit", ["--dump-plugin", plugin], { stdio: "ignore" });
    return plugin;
  } catch {
    return undefined;
  }
})();

/** What the stand-in is here, for people. */
export const standInKind: string =
  realPlugin === undefined
    ? "a script with the parameters of nbdkit's vddk plugin, which is not installed here"
    : "nbdkit's own vddk plugin with a library of ours";

/** What nbdkit tells the server when it connects. */
export interface Login {
  readonly server: string;
  readonly port: string;
  readonly user: string;
  readonly password: string;
  readonly thumbprint: string;
  readonly vm: string;
  readonly snapshot: string;
  readonly transports: string;
}

/** The programs that it needs, for `describeWithPeers`. */
export const standInPeers: readonly string[] = realPlugin === undefined ? ["nbdkit", "bash"] : ["nbdkit", "gcc"];

/**
 * The far side of VMware's library: it checks who connects as a host would, and serves the frozen bytes of a simulator's
 * snapshots.
 */
export class VddkStandIn implements AsyncDisposable {
  /** Every connection so far, refused ones included. */
  readonly logins: Login[] = [];
  /** What the library is refused with, by `connect` and `open`; absent: nothing. */
  readonly refusals: { connect?: string; open?: string } = {};
  /** The file whose bytes are served instead of the disk's. */
  instead: string | undefined;
  readonly #simulator: VcenterSimulator;
  /** On a unix socket for the library, and on a port for the script. */
  readonly #servers: readonly [Server, Server];
  readonly #folder: string;

  private constructor(simulator: VcenterSimulator) {
    this.#simulator = simulator;
    this.#folder = mkdtempSync(join(tmpdir(), "diskferry-vddk-"));
    this.#servers = [createServer((socket) => this.#serve(socket)), createServer((socket) => this.#serve(socket))];
    if (realPlugin === undefined) return;
    mkdirSync(this.libdir);
    const library = join(this.libdir, "libvixDiskLib.so.8");
    execFileSync("gcc", [
      "-shared",
      "-fPIC",
      "-O1",
      "-Wall",
      "-Werror",
      "-o",
      library,
      join(folder, "libvixDiskLib.c"),
    ]);
  }

  static async start(simulator: VcenterSimulator): Promise<VddkStandIn> {
    const standIn = new VddkStandIn(simulator);
    const [local, port] = standIn.#servers;
    const socket = join(standIn.#folder, "socket");
    await new Promise<void>((resolve) => local.listen(socket, resolve));
    await new Promise<void>((resolve) => port.listen(0, "127.0.0.1", resolve));
    process.env["DISKFERRY_VDDK_STAND_IN"] = socket;
    process.env["DISKFERRY_VDDK_STAND_IN_PORT"] = String((port.address() as AddressInfo).port);
    return standIn;
  }

  /** Where the library lies that stands in for VMware's. */
  get libdir(): string {
    return join(this.#folder, "vmware-vix-disklib-distrib");
  }

  /** The options that make the reader use this. */
  get options(): VddkOptions {
    return realPlugin === undefined
      ? { plugin: ["sh", join(folder, "vddk.sh")], libdir: this.libdir }
      : { plugin: [realPlugin], libdir: this.libdir };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) await new Promise<void>((resolve) => server.close(() => resolve()));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #serve(socket: Socket): void {
    let text = "";
    socket.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      if (!text.includes("\n")) return;
      const [word = "", ...pairs] = text.trimEnd().split("\t");
      const said = Object.fromEntries(
        pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
      );
      socket.end(`${this.#answer(word, said)}\n`);
    });
    socket.on("error", () => undefined);
  }

  #answer(word: string, said: Readonly<Record<string, string>>): string {
    const { userName, password, tls, url } = this.#simulator;
    if (word === "connect") {
      this.logins.push(said as unknown as Login);
      if (this.refusals.connect !== undefined) return `error ${this.refusals.connect}`;
      const { port } = new URL(url);
      if (said["server"] !== "127.0.0.1" || said["port"] !== port) return "error Cannot connect to the host";
      if (said["user"] !== userName || said["password"] !== password) {
        return "error Cannot complete login due to an incorrect user name or password";
      }
      if (
        tls !== undefined &&
        said["thumbprint"]?.replaceAll(":", "").toLowerCase() !== tls.sha1.replaceAll(":", "").toLowerCase()
      ) {
        return "error The host certificate chain is not verified";
      }
      return "ok connected";
    }
    if (this.refusals.open !== undefined) return `error ${this.refusals.open}`;
    const machine = this.#simulator.machines.get(said["vm"]?.replace(/^moref=/, "") ?? "");
    const snapshot =
      machine === undefined ? undefined : [...machine.snapshots()].find(({ id }) => id === said["snapshot"]);
    if (snapshot === undefined)
      return "error The managed object has already been deleted or has not been completely created";
    for (const [key, state] of snapshot.disks) {
      // Only the file as the snapshot froze it may be opened by its name.
      if (state.layer.fileName === said["file"])
        return `ok ${this.instead ?? this.#simulator.diskPath(snapshot.id, key)}`;
    }
    return "error You do not have access rights to this file";
  }
}
