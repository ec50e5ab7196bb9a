import { execFileSync } from "node:child_process";
import type { Arena } from "../arena.ts";
import type { Contestant, Prepared, Row } from "../contest.ts";

/** Our NBD server against nbdkit's file plugin, both driven by nbdcopy over a unix socket. */
export function serverRows(arena: Arena): Row[] {
  const { size } = arena.options;
  return [
    { name: "server-read", title: "our server, read by nbdcopy", reads: true, atLeast: 0.65 },
    { name: "server-write", title: "our server, written by nbdcopy", reads: false, atLeast: 0.7 },
  ].map(({ name, title, reads, atLeast }) => ({
    name,
    title,
    bytes: size,
    newBytes: 0,
    aims: [{ kind: "speed", peers: ["nbdkit"], atLeast, label: `≥ ${atLeast.toFixed(2)} of nbdkit` }],
    async open() {
      const dense = await arena.disk("dense", size);
      const serving = (
        who: string,
        serve: (file: string) => Promise<{ clientUri: string } & AsyncDisposable>,
      ): Contestant => ({
        name: who,
        async prepare(): Promise<Prepared> {
          const target = reads ? dense : await arena.kept(size);
          const server = await serve(target);
          const ends = reads ? [server.clientUri, "null:"] : ["--flush", dense, server.clientUri];
          return {
            command: { command: "nbdcopy", args: ends },
            check: async () => {
              if (!reads) execFileSync("cmp", [dense, target]);
            },
            [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
          };
        },
      });
      return {
        contestants: [
          serving("diskferry", (file) => arena.serveOurs(file)),
          serving("nbdkit", (file) => arena.serve(file, "unix")),
        ],
        async [Symbol.asyncDispose]() {},
      };
    },
  }));
}
