/**
 * Proves to somebody else that a copy is what the source was: the run signs a receipt, and whoever has the receipt, the
 * public key and the copy checks it, without the source, the state or this process.
 *
 *   node examples/verify-receipt.ts server.raw server.qcow2
 */
import { generateKeyPairSync } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { MemoryStateStore, openSource, openTarget, replicate, verifyReceipt } from "@diskferry/core";
import { provider as local } from "@diskferry/provider-local";

const [from = "server.raw", to = "server.qcow2"] = process.argv.slice(2);
const { privateKey, publicKey } = generateKeyPairSync("ed25519", {
  privateKeyEncoding: { type: "pkcs8", format: "pem" },
  publicKeyEncoding: { type: "spki", format: "pem" },
});

{
  await using source = await openSource(local, { path: from, key: "root", machine: "server" });
  await using target = await openTarget(local, { path: to, format: "qcow2" });
  const store = new MemoryStateStore();
  const options = { receiptKey: privateKey };
  const { receipts } = await replicate({ id: "proven", source, machine: "server", target, store, options });
  await writeFile(`${to}.receipt.json`, JSON.stringify(receipts[0]));
}

// From here on somebody else, with three files.
const receipt: unknown = JSON.parse(await readFile(`${to}.receipt.json`, "utf8"));
await using copy = await openSource(local, { path: to, key: "root", machine: "copy", frozen: true });
const snapshot = await copy.snapshot(await copy.machine("copy"), { key: "check" });
await using reader = await copy.open(snapshot.disks[0]!);
// Whatever was checked and is wrong is an error; what was not checked is `unchecked`.
const { signature, content } = await verifyReceipt(receipt, { publicKey, machine: "server", disk: "root", reader });
console.log({ signature, content });
