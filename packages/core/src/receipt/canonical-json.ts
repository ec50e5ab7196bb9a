import type { Json } from "../provider/extents.ts";

/**
 * JSON text that is the same for equal values, whoever wrote it: no spaces, keys sorted by UTF-16 units, members that
 * are undefined left out (RFC 8785 for the values that a receipt has). @throws TypeError for what JSON cannot hold.
 */
export function canonicalJson(value: Json): string {
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`JSON holds no ${value}`);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const members: string[] = [];
  for (const key of Object.keys(value).sort()) {
    const member = value[key];
    if (member !== undefined) members.push(`${JSON.stringify(key)}:${canonicalJson(member)}`);
  }
  return `{${members.join(",")}}`;
}
