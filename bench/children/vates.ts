/** @vates/nbd-client reading a whole export: `vates.ts <folder it is installed in> <port> <MiB per block>`. */
import { pathToFileURL } from "node:url";

interface VatesClient {
  readonly exportSize: bigint;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  readBlocks(blocks: () => Generator<{ index: number; size: number }>): AsyncGenerator<Uint8Array>;
}

const [folder = "", port = "", mebibytes = ""] = process.argv.slice(2);
const module = (await import(pathToFileURL(`${folder}/node_modules/@vates/nbd-client/multi.mjs`).href)) as {
  default: new (settings: object, options?: object) => VatesClient;
};
const began = performance.now();
const used = process.cpuUsage();
const client = new module.default({ address: "127.0.0.1", port: Number(port), exportname: "" });
await client.connect();
const total = Number(client.exportSize);
const size = Number(mebibytes) << 20;
let read = 0;
for await (const block of client.readBlocks(function* () {
  for (let index = 0; index * size < total; index++) yield { index, size };
})) {
  read += block.length;
}
if (read < total) throw new Error(`${read} of ${total} bytes came`);
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(used);
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6 }));
await client.disconnect();
process.exit(0);
