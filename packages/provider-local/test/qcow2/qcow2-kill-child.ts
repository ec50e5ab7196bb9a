import { openQcow2Writer } from "../../src/qcow2/qcow2-writer.ts";

// Writes cluster after cluster from the given one on, and prints how many are flushed, until it is killed.
const [image, from] = process.argv.slice(2);
await using writer = await openQcow2Writer(image!, { run: "one" });
process.stdout.write(`${writer.generation}\n`);
for (let index = Number(from); index < writer.size / 65536; index++) {
  await writer.write(index * 65536, Buffer.alloc(65536, (index % 255) + 1));
  if (index % 3 !== 0) continue;
  await writer.flush();
  process.stdout.write(`${index + 1}\n`);
}
await writer.commit({ written: (async function* () {})() });
