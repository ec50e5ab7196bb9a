import { ProviderError } from "../provider/error.ts";
import type { Receipt, ReceiptSignature } from "./receipt.ts";

const consistencies = ["none", "disk", "crash", "filesystem", "application"];

type Shape = { [member: string]: Shape | ((value: unknown) => boolean) };

const text = (value: unknown): boolean => typeof value === "string" && value.length > 0;
const bytes = (value: unknown): boolean => typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
const sectors = (value: unknown): boolean => bytes(value) && Number(value) > 0 && Number(value) % 512 === 0;
const time = (value: unknown): boolean => text(value) && !Number.isNaN(Date.parse(String(value)));
const digest = (value: unknown): boolean => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);

const shape: Shape = {
  version: (value) => value === 1,
  job: text,
  machine: text,
  disk: text,
  size: sectors,
  source: { snapshot: text, takenAt: time, consistency: (value) => consistencies.includes(String(value)) },
  manifest: { algorithm: (value) => value === "blake3" || value === "sha256", leaf: sectors, root: digest },
  volume: text,
  run: text,
  verified: { mode: text, bytes },
  issuedAt: time,
};

const signatureShape: Shape = {
  algorithm: (value) => value === "ed25519",
  key: digest,
  value: (value) => typeof value === "string" && /^[A-Za-z0-9+/]{86}==$/.test(value),
};

/**
 * The receipt that `given` is. Members it does not know are refused: a check that passes them over would vouch for them.
 * @throws ProviderError CORRUPT naming every member that is wrong; UNSUPPORTED for a newer version.
 */
export function checkReceipt(given: unknown): Receipt {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw malformed("it is no JSON object");
  }
  const { signature, ...facts } = given as { signature?: unknown; version?: unknown };
  if (typeof facts.version === "number" && facts.version > 1) {
    throw new ProviderError(
      "UNSUPPORTED",
      `this receipt has version ${facts.version}; use a newer diskferry to check it`,
      {
        operation: "verify receipt",
      },
    );
  }
  const wrong = [...wrongMembers(facts, shape, "")];
  if (signature !== undefined) wrong.push(...wrongMembers(signature, signatureShape, "signature."));
  if (wrong.length > 0) throw malformed(`wrong, missing or unknown: ${wrong.slice(0, 20).join(", ")}`);
  const checked = facts as unknown as Receipt;
  return signature === undefined ? checked : { ...checked, signature: signature as ReceiptSignature };
}

function* wrongMembers(value: unknown, expected: Shape, path: string): Generator<string, void, undefined> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    yield path.slice(0, -1);
    return;
  }
  const members = value as { [member: string]: unknown };
  for (const [name, rule] of Object.entries(expected)) {
    const member = Object.hasOwn(members, name) ? members[name] : undefined;
    if (typeof rule !== "function") yield* wrongMembers(member, rule, `${path}${name}.`);
    else if (!rule(member)) yield path + name;
  }
  for (const name of Object.keys(members)) {
    if (!Object.hasOwn(expected, name) && members[name] !== undefined) yield path + name;
  }
}

function malformed(what: string): ProviderError {
  return new ProviderError("CORRUPT", `this is no receipt that can be checked: ${what}; get the original file`, {
    operation: "verify receipt",
  });
}
