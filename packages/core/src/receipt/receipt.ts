import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { ProviderError } from "../provider/error.ts";
import type { JsonObject } from "../provider/extents.ts";
import type { BlockReader, DigestAlgorithm } from "../provider/reader.ts";
import type { Consistency } from "../provider/source.ts";
import type { Wait } from "../provider/wait.ts";
import { canonicalJson } from "./canonical-json.ts";
import { checkReceipt } from "./receipt-shape.ts";
import { rootOfDisk } from "./root-of-disk.ts";

/** What a run did, for somebody who was not there. Plain JSON. */
export interface ReceiptFacts extends JsonObject {
  job: string;
  machine: string;
  disk: string;
  /** Bytes of the disk. */
  size: number;
  /** The point in time that was copied. */
  source: { snapshot: string; takenAt: string; consistency: Consistency };
  /** What its content hashes to: see `Manifest.root`. */
  manifest: { algorithm: DigestAlgorithm; leaf: number; root: string };
  /** The volume that holds it. */
  volume: string;
  run: string;
  /** How much of the volume was read back and compared before the record was written, and how. */
  verified: { mode: string; bytes: number };
  /** ISO 8601. */
  issuedAt: string;
}

/** Facts with a version and, where a key was given, a signature over the canonical JSON of all the rest. */
export interface Receipt extends ReceiptFacts {
  version: 1;
  signature?: ReceiptSignature;
}

export interface ReceiptSignature extends JsonObject {
  algorithm: "ed25519";
  /** SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal: which key to check with. */
  key: string;
  /** Base64. */
  value: string;
}

export interface IssueOptions {
  /** An Ed25519 private key, PKCS #8 in PEM. Absent: the receipt is not signed. */
  privateKey?: string | undefined;
}

/** What a receipt is held against. Whatever is absent is not checked, and the verdict says so. */
export interface VerifyReceiptOptions extends Wait {
  /** An Ed25519 public key in PEM; then a receipt without a signature is refused. */
  publicKey?: string | undefined;
  /** The root it should name, such as that of a manifest at hand. */
  root?: string | undefined;
  /** The machine and disk it should be of. */
  machine?: string | undefined;
  disk?: string | undefined;
  /** A volume to hash anew, all of it, whose root should be the receipt's. The caller disposes it. */
  reader?: BlockReader | undefined;
  /** Bytes hashed so far. */
  progress?: ((bytes: number) => void) | undefined;
}

/** What was checked; whatever was checked and wrong is an error instead. */
export interface ReceiptVerdict {
  receipt: Receipt;
  /** `unchecked`: there is a signature and no key was given. `absent`: it was never signed. */
  signature: "valid" | "unchecked" | "absent";
  root: "equal" | "unchecked";
  content: "equal" | "unchecked";
}

/** Makes a receipt. @throws ProviderError CONFIG_INVALID for a key that is no Ed25519 private key. */
export function issueReceipt(facts: ReceiptFacts, options: IssueOptions = {}): Receipt {
  const receipt: Receipt = checkReceipt({ ...facts, version: 1, signature: undefined });
  if (options.privateKey === undefined) return receipt;
  const key = ed25519Key(() => createPrivateKey(options.privateKey!), "private");
  const value = sign(null, signedText(receipt), key).toString("base64");
  return { ...receipt, signature: { algorithm: "ed25519", key: keyId(createPublicKey(key)), value } };
}

/**
 * Checks a receipt offline.
 * @throws ProviderError CORRUPT when it is malformed, was altered, or does not match the content; NOT_FOUND when it is of
 * another disk; DENIED when it is not signed by the key given; UNSUPPORTED for a version or digest not known here.
 */
export async function verifyReceipt(given: unknown, options: VerifyReceiptOptions = {}): Promise<ReceiptVerdict> {
  options.signal?.throwIfAborted();
  const receipt = checkReceipt(given);
  const signature = checkSignature(receipt, options.publicKey);
  checkDisk(receipt, options);
  if (options.root !== undefined && options.root !== receipt.manifest.root) {
    throw refused("CORRUPT", receipt, `names the root ${receipt.manifest.root}, where ${options.root} was expected`);
  }
  if (options.reader !== undefined) await checkContent(receipt, options.reader, options);
  return {
    receipt,
    signature,
    root: options.root === undefined ? "unchecked" : "equal",
    content: options.reader === undefined ? "unchecked" : "equal",
  };
}

function checkSignature(receipt: Receipt, publicKey: string | undefined): ReceiptVerdict["signature"] {
  const { signature } = receipt;
  if (publicKey === undefined) return signature === undefined ? "absent" : "unchecked";
  const key = ed25519Key(() => createPublicKey(publicKey), "public");
  if (signature === undefined) {
    throw refused("DENIED", receipt, "is not signed; ask for one that is, or check it without a key");
  }
  if (signature.key !== keyId(key)) {
    throw refused(
      "DENIED",
      receipt,
      `was signed with the key ${signature.key}, not with the one given (${keyId(key)})`,
    );
  }
  if (!verify(null, signedText(receipt), key, Buffer.from(signature.value, "base64"))) {
    throw refused("CORRUPT", receipt, "was altered after it was signed: its signature does not fit; trust none of it");
  }
  return "valid";
}

function checkDisk(receipt: Receipt, { machine, disk, reader }: VerifyReceiptOptions): void {
  const wanted = `${machine ?? receipt.machine} disk ${disk ?? receipt.disk}`;
  if ((machine ?? receipt.machine) !== receipt.machine || (disk ?? receipt.disk) !== receipt.disk) {
    throw refused("NOT_FOUND", receipt, `is of another disk than ${wanted}; find the receipt of that one`);
  }
  if (reader !== undefined && reader.size < receipt.size) {
    throw refused(
      "NOT_FOUND",
      receipt,
      `is of a disk of ${receipt.size} bytes, and this one has ${reader.size}: another`,
    );
  }
}

async function checkContent(receipt: Receipt, reader: BlockReader, options: VerifyReceiptOptions): Promise<void> {
  const { algorithm, leaf, root } = receipt.manifest;
  const found = await rootOfDisk(reader, { algorithm, leaf, size: receipt.size }, options);
  if (found !== root) {
    throw refused(
      "CORRUPT",
      receipt,
      `names the root ${root}, and the content read hashes to ${found}: not that content`,
    );
  }
}

function signedText(receipt: Receipt): Buffer {
  const { signature: _, ...signed } = receipt;
  return Buffer.from(`diskferry receipt\n${canonicalJson(signed)}`);
}

function keyId(key: KeyObject): string {
  return createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest("hex");
}

function ed25519Key(read: () => KeyObject, kind: "private" | "public"): KeyObject {
  let key: KeyObject | undefined;
  try {
    key = read();
  } catch {
    // What the parser says may quote the key.
  }
  if (key?.asymmetricKeyType === "ed25519") return key;
  throw new ProviderError("CONFIG_INVALID", `the ${kind} key of the receipt is no Ed25519 key in PEM; give one`, {
    operation: "receipt",
  });
}

function refused(code: "CORRUPT" | "DENIED" | "NOT_FOUND", receipt: Receipt, what: string): ProviderError {
  const name = `the receipt of machine ${receipt.machine} disk ${receipt.disk}, run ${receipt.run}`;
  return new ProviderError(code, `${name}, ${what}`, { operation: "verify receipt" });
}
