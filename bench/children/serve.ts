/** Our NBD server over one file, in a process of its own: `serve.ts <file> <socket>`; ends when stdin does. */
import { fileBackend, serveNbd } from "@diskferry/nbd";

const [file = "", path = ""] = process.argv.slice(2);
await using backend = await fileBackend(file);
await using server = await serveNbd({ listen: { path }, exports: { "": { backend } } });
console.log(server.uri(""));
await new Promise<void>((resolve) => process.stdin.on("end", resolve).resume());
