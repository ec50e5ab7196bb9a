import { fileBackend } from "../../src/server/file-backend.ts";
import { serveNbd } from "../../src/server/serve-nbd.ts";

/** A server process for socket activation: serves the file named in its argument until it is told to end. */
const backend = await fileBackend(process.argv[2] ?? "");
const server = await serveNbd({ listen: { activation: true }, exports: { "": { backend } } });
process.once("SIGTERM", () => {
  void server.close({ deadlineMs: 1000 }).then(() => process.exit(0));
});
