import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type RunningServer, startNbdkit } from "../test/servers.ts";
import { buildChildren, children } from "./built-children.ts";
import type { TransferOrder } from "./children/transfer.ts";
import { makeCompressibleDisk, makeDenseDisk, makeSparseDisk } from "./disks.ts";
import type { Command } from "./measure.ts";
import type { BenchOptions } from "./options.ts";

/** Where bytes lie: in memory (tmpfs) or on the disk that was named. */
export type Where = "memory" | "disk";
/** How an export is reached; `tls` is TLS over TCP. */
export type Transport = "unix" | "tcp" | "tls";

/** The folders, disks, servers and certificates that rows share; all of it goes when it is disposed. */
export class Arena implements AsyncDisposable {
  readonly options: BenchOptions;
  /** What ours runs from. */
  readonly from: "dist" | "source";
  readonly #folders: Record<Where, string>;
  /** Where its scripts are as JavaScript; where ours runs from source, nowhere. */
  readonly #built: string | undefined;
  readonly #made = new Map<string, Promise<string>>();
  #count = 0;

  private constructor(options: BenchOptions, folders: Record<Where, string>, built: string | undefined) {
    this.options = options;
    this.#folders = folders;
    this.#built = built;
    this.from = built === undefined ? "source" : "dist";
  }

  static async open(options: BenchOptions): Promise<Arena> {
    const memory = await mkdtemp(join(options.memoryFolder, "diskferry-bench-"));
    const disk = await mkdtemp(join(options.folder, "diskferry-bench-"));
    const from = options.from ?? (existsSync("packages/core/dist/index.js") ? "dist" : "source");
    return new Arena(options, { memory, disk }, from === "dist" ? await buildChildren() : undefined);
  }

  /** A folder of the wanted kind that all rows share. */
  folder(where: Where): string {
    return this.#folders[where];
  }

  /** A new name in a folder, and its removal. */
  name(where: Where, suffix: string): { path: string } & AsyncDisposable {
    const path = join(this.#folders[where], `${++this.#count}${suffix}`);
    return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
  }

  /** A disk in memory that stays for all rows, made when first asked for. */
  disk(kind: "dense" | "compressible" | "sparse", size: number, share = 0): Promise<string> {
    return this.once(`${kind}-${size}-${share}.raw`, async (path) => {
      if (kind === "dense") await makeDenseDisk(path, size);
      else if (kind === "compressible") await makeCompressibleDisk(path, size);
      else await makeSparseDisk(path, size, share);
    });
  }

  /** Something in memory that stays for all rows, made when first asked for. */
  once(name: string, make: (path: string) => Promise<void>): Promise<string> {
    const known = this.#made.get(name);
    if (known !== undefined) return known;
    const path = join(this.#folders.memory, name);
    const made = make(path).then(() => path);
    this.#made.set(name, made);
    return made;
  }

  /** Removes what `once` made, where memory is needed for others. */
  async forget(name: string): Promise<void> {
    const made = this.#made.get(name);
    this.#made.delete(name);
    if (made !== undefined) await rm(await made, { recursive: true, force: true });
  }

  /** nbdkit over a file; `filters` come first, parameters last. */
  async serve(
    file: string,
    transport: Transport,
    extra: { readOnly?: boolean; filters?: readonly string[]; parameters?: readonly string[] } = {},
  ): Promise<RunningServer & { clientUri: string }> {
    const tls = transport === "tls" ? await this.certificates() : undefined;
    const server = await startNbdkit(
      [
        ...(extra.readOnly === true ? ["-r"] : []),
        ...(tls === undefined ? [] : ["--tls=require", `--tls-certificates=${tls}`]),
        ...(extra.filters ?? []),
        "file",
        file,
        ...(extra.parameters ?? []),
      ],
      { transport: transport === "unix" ? "unix" : "tcp", tls: tls !== undefined },
    );
    const clientUri = tls === undefined ? server.uri : `${server.uri}?tls-certificates=${tls}`;
    return Object.assign(server, { clientUri });
  }

  /** Our own NBD server over a file, on a unix socket. */
  async serveOurs(file: string): Promise<{ clientUri: string } & AsyncDisposable> {
    const socket = this.name("memory", ".sock");
    const { command, args } = this.script("serve.ts", [file, socket.path]);
    const child = spawn(command, args, {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    await new Promise<void>((resolve, reject) => {
      child.stdout.once("data", () => resolve());
      child.once("exit", (code) => reject(new Error(`our server ended with ${code}`)));
    });
    return {
      clientUri: `nbd+unix:///?socket=${encodeURIComponent(socket.path)}`,
      [Symbol.asyncDispose]: async () => {
        child.stdin.end();
        await exited;
        await socket[Symbol.asyncDispose]();
      },
    };
  }

  /** A run of ours in a process of its own. */
  ours(order: TransferOrder): Command {
    return {
      ...this.script("transfer.ts", [JSON.stringify(order)]),
      // What is remembered of NBD targets lies here and goes with the bench.
      env: { XDG_STATE_HOME: join(this.#folders.memory, "remembered") },
    };
  }

  /** A script of the bench, run by this Node. */
  script(name: string, args: readonly string[], from: "dist" | "source" = this.from): Command & { args: string[] } {
    const told =
      from === "dist" && this.#built !== undefined
        ? [join(this.#built, name.replace(/ts$/, "js"))]
        : ["--conditions=diskferry-source", join(children, name)];
    return { command: process.execPath, args: [...told, ...args] };
  }

  /** The path of a child that is no script of Node's. */
  child(name: string): string {
    return join(children, name);
  }

  /** A folder with an authority and the certificates of a server on 127.0.0.1 and of a client, made on the fly. */
  certificates(): Promise<string> {
    return this.once("certificates", async (path) => {
      await mkdir(path);
      const at = (name: string): string => join(path, name);
      const key = ["-newkey", "rsa:2048", "-nodes"];
      openssl(
        "req",
        "-x509",
        ...key,
        "-days",
        "2",
        "-subj",
        "/CN=bench",
        "-keyout",
        at("ca-key.pem"),
        "-out",
        at("ca-cert.pem"),
      );
      await writeFile(at("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
      for (const side of ["server", "client"]) {
        openssl("req", ...key, "-subj", `/CN=${side}`, "-keyout", at(`${side}-key.pem`), "-out", at(`${side}.csr`));
        openssl(
          ...["x509", "-req", "-in", at(`${side}.csr`), "-CA", at("ca-cert.pem"), "-CAkey", at("ca-key.pem")],
          ...["-CAcreateserial", "-days", "2", "-extfile", at("names"), "-out", at(`${side}-cert.pem`)],
        );
      }
    });
  }

  /**
   * A file of zeroes in memory that has its pages already, the same one every time: what new pages cost on a virtual
   * machine, and whom, differs by more than programs do.
   */
  async kept(size: number): Promise<string> {
    const path = await this.once(`kept-${size}.target`, (made) => writeFile(made, ""));
    const zeroes = ["if=/dev/zero", "bs=1M", "iflag=count_bytes", `count=${size}`];
    execFileSync("dd", [...zeroes, `of=${path}`, "conv=notrunc", "status=none"]);
    return path;
  }

  /** A new empty file of a size. */
  async blank(path: string, size: number): Promise<void> {
    await writeFile(path, "");
    await truncate(path, size);
  }

  /** Uses `size` bytes of memory and gives them back, so that whoever is measured next begins like everybody else. */
  async warm(size: number): Promise<void> {
    if (size === 0) return;
    await using used = this.name("memory", ".used");
    execFileSync("fallocate", ["--length", String(Math.ceil(size)), used.path]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const folder of Object.values(this.#folders)) await rm(folder, { recursive: true, force: true });
  }
}

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { stdio: ["ignore", "ignore", "ignore"] });
}
